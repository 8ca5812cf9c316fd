"""Proofs that what is stored is what was written: checks over records, scans over everything a corpus holds, and the
swarm's storage with its integrity manager, which stand on both.

The swarm's names are looked up when first used: a scan needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.integrity.checks import CHECKS, SEED_CHECKS, Finding
from holdfast.integrity.scan import Acked, Outside, Scan, verify_corpus
from holdfast.integrity.scanner import Progress, Scanner

if TYPE_CHECKING:
    from holdfast.integrity.swarm.storage import PersistentDataStorage
    from holdfast.integrity.swarm.watch import DataIntegrityManager
    from holdfast.integrity.swarm.words import (
        DataIntegrityLevel,
        IntegrityCheck,
        IntegrityCheckType,
        RecoveryStrategy,
        StorageMetadata,
        StorageType,
    )

__all__ = [
    "CHECKS",
    "SEED_CHECKS",
    "Acked",
    "DataIntegrityLevel",
    "DataIntegrityManager",
    "Finding",
    "IntegrityCheck",
    "IntegrityCheckType",
    "Outside",
    "PersistentDataStorage",
    "Progress",
    "RecoveryStrategy",
    "Scan",
    "Scanner",
    "StorageMetadata",
    "StorageType",
    "verify_corpus",
]

_WHERE = {
    "holdfast.integrity.swarm.storage": ("PersistentDataStorage",),
    "holdfast.integrity.swarm.watch": ("DataIntegrityManager",),
    "holdfast.integrity.swarm.words": (
        "DataIntegrityLevel",
        "IntegrityCheck",
        "IntegrityCheckType",
        "RecoveryStrategy",
        "StorageMetadata",
        "StorageType",
    ),
}


def __getattr__(name: str) -> Any:
    where = next((module for module, names in _WHERE.items() if name in names), None)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(where), name)
    globals()[name] = found
    return found
