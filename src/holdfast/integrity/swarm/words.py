"""The names of the swarm's storage: its enumerations, and what it tells about a value and about a check."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from holdfast.errors import UsageError

DATA_TYPES: Final = ("messages", "tasks", "status", "config", "logs")
"""What kinds of data there are; each has a directory of its own."""


class StorageType(enum.Enum):
    """Where values lie."""

    FILE_BASED = "file_based"
    """A JSON file for each, which people can read."""
    DATABASE = "database"
    """In SQLite, large ones too."""
    HYBRID = "hybrid"
    """Small ones in SQLite, large ones as files."""


class DataIntegrityLevel(enum.Enum):
    """What a write that returned survives; the same names as a log's levels (`holdfast.log`)."""

    BASIC = "basic"
    ADVANCED = "advanced"
    CRITICAL = "critical"


class IntegrityCheckType(enum.Enum):
    """What is looked at; each sees what the others cannot."""

    CHECKSUM = "checksum"
    HASH_CHAIN = "hash_chain"
    TIMESTAMP = "timestamp"
    SIZE_VERIFICATION = "size_verification"
    VERSION_CONTROL = "version_control"


class RecoveryStrategy(enum.Enum):
    """How a damaged value is brought back."""

    BACKUP_RESTORE = "backup_restore"
    CHECKSUM_MATCH = "checksum_match"
    TIMESTAMP_ROLLBACK = "timestamp_rollback"
    VERSION_ROLLBACK = "version_rollback"
    MANUAL_RECOVERY = "manual_recovery"


_E = TypeVar("_E", bound=enum.Enum)


def member(kind: type[_E], given: _E | str) -> _E:
    """A member of an enumeration, by itself, its name or its value.

    Raises:
        UsageError: there is none.
    """
    try:
        return kind(given.lower() if isinstance(given, str) else given)
    except ValueError:
        raise UsageError(f"{given!r:.80} is no {kind.__name__}", hint=f"one of {', '.join(kind.__members__)}") from None


@dataclass
class StorageMetadata:
    """What is known of a value beside itself.

    Attributes:
        data_id: its name.
        timestamp: when it was stored, in seconds since 1970.
        checksum: the SHA-256 of its serialised form, in hex.
        size: the length of that form in bytes.
        version: 1, 2, 3… of this name.
        integrity_level: what it was stored with.
        backup_count: in how many backups it is, in this or an earlier version.
        last_backup: when the newest of these was made, in seconds since 1970; None if there is none.
    """

    data_id: str
    timestamp: float
    checksum: str
    size: int
    version: int
    integrity_level: DataIntegrityLevel
    backup_count: int
    last_backup: float | None


@dataclass
class IntegrityCheck:
    """One check of one value.

    Attributes:
        check_id: a name for it that no other check has.
        data_id: whose it is.
        check_type: which of the five.
        timestamp: when, in seconds since 1970.
        passed: whether nothing was found.
        details: what was found (``problems``), what was expected, and how a recovery went.
        recovery_attempted: whether one was tried because of it.
        recovery_successful: whether the value was proven whole after that.
    """

    check_id: str
    data_id: str
    check_type: IntegrityCheckType
    timestamp: float
    passed: bool
    details: dict[str, Any]
    recovery_attempted: bool
    recovery_successful: bool
