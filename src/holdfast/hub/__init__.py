"""The shared side: one process that takes every node's records, shows them to everybody, and forgets none.

The data's way: `routes_node` → `ingest` (one writer, one syncer) → the corpus → `feed` and `routes_read`. Light to
import: `app` and `serve` (uvicorn is met there only) are imported when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.hub.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    if name == "create_app":
        from holdfast.hub.app import create_app

        return create_app
    raise AttributeError(f"module 'holdfast.hub' has no attribute {name!r}")
