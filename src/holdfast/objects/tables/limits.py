"""What an entity may hold, on every store: Azure's types and sizes, checked by us, since not every server does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias
from uuid import UUID

from holdfast.errors import StorageRefused
from holdfast.objects.tables.keys import check_key, units

Value: TypeAlias = str | bool | int | float | bytes | datetime | UUID

STRING_UNITS_MAX: Final = 32 * 1024
BYTES_MAX: Final = 64 * 1024
ENTITY_BYTES_MAX: Final = 1 << 20
PROPERTIES_MAX: Final = 252
NAME_MAX: Final = 255
TRANSACTION_MAX: Final = 100
TRANSACTION_BYTES_MAX: Final = 4 << 20
INT_MAX: Final = 2**63 - 1
KEYS: Final = ("PartitionKey", "RowKey")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_OLDEST: Final = datetime(1601, 1, 1, tzinfo=UTC)
_ENVELOPE_BYTES: Final = 1024
"""What an operation in a transaction has around its entity: its own head, and two keys in its path."""


def check_entity(entity: Mapping[str, object]) -> dict[str, Value]:
    """The entity as it is stored: every value of one of the eight kinds, times in UTC.

    Raises:
        StorageRefused: a name, a value or a size that cannot be, and why.
    """
    kept: dict[str, Value] = {}
    for name in KEYS:
        if name not in entity:
            raise StorageRefused(f"the entity has no {name}", hint="every entity has a PartitionKey and a RowKey")
        kept[name] = check_key(entity[name], name)
    for name, value in entity.items():
        if name not in KEYS:
            kept[check_property(name)] = _checked(name, value)
    check_size(kept)
    return kept


def check_property(name: object) -> str:
    """The name of a property itself, if it can be one.

    Raises:
        StorageRefused: it cannot.
    """
    if not isinstance(name, str) or len(name) > NAME_MAX or not _NAME.fullmatch(name):
        raise StorageRefused(
            f"not a property's name: {name!r:.80}", hint=f"letters, digits and _, no digit first, at most {NAME_MAX}"
        )
    if name == "Timestamp":
        raise StorageRefused("Timestamp is set by the store", hint="call it timestamp, or anything else")
    return name


def _checked(name: str, value: object) -> Value:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise StorageRefused(f"{name}: half of a surrogate pair is no character: {value!r:.80}")
        if (size := units(value)) > STRING_UNITS_MAX:
            raise StorageRefused(
                f"{name} has {size} UTF-16 units, {STRING_UNITS_MAX} are allowed (64 KiB)", hint="put it in an object"
            )
        return str.__str__(value)  # of an Enum that is text: the text
    if isinstance(value, bool | UUID):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        if not -INT_MAX - 1 <= value <= INT_MAX:
            raise StorageRefused(f"{name} has more than 64 bits: {value!r:.80}", hint="store it as text")
        return int(value)
    if isinstance(value, bytes | bytearray | memoryview):
        if len(data := bytes(value)) > BYTES_MAX:
            raise StorageRefused(f"{name} has {len(data)} bytes, {BYTES_MAX} are allowed", hint="put it in an object")
        return data
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise StorageRefused(f"{name} has no time zone: {value!r:.80}", hint="such as datetime.now(UTC)")
        if value < _OLDEST:
            raise StorageRefused(f"{name} is too long ago for Azure: {value!r:.80}", hint="1601 or later")
        there = value.astimezone(UTC)
        return datetime.combine(there.date(), there.time(), UTC)  # plain, whatever class it was
    hint = "leave the property out" if value is None else "json.dumps() makes text of it"
    raise StorageRefused(f"{name} cannot hold {type(value).__name__}: {value!r:.80}", hint=hint)


def check_size(entity: Mapping[str, Value]) -> None:
    """Whether Azure would hold an entity of this size.

    Raises:
        StorageRefused: too many properties, or too many bytes.
    """
    if (count := len(entity) - len(KEYS)) > PROPERTIES_MAX:
        raise StorageRefused(f"the entity has {count} properties, {PROPERTIES_MAX} are allowed")
    if (size := size_of(entity)) > ENTITY_BYTES_MAX:
        raise StorageRefused(
            f"the entity has {size} bytes, {ENTITY_BYTES_MAX} are allowed (1 MiB)", hint="put the rest in an object"
        )


def size_of(entity: Mapping[str, Value]) -> int:
    """The bytes that Azure reckons for an entity: text is UTF-16 there."""
    total = 4 + 34  # its own, and the Timestamp's
    for name, value in entity.items():
        if name in KEYS:
            total += 2 * units(str(value))
            continue
        total += 8 + 2 * len(name)
        if isinstance(value, str):
            total += 4 + 2 * units(value)
        elif isinstance(value, bytes):
            total += 4 + len(value)
        else:
            total += 1 if isinstance(value, bool) else 16 if isinstance(value, UUID) else 8
    return total


def body_of(entity: Mapping[str, Value]) -> int:
    """No fewer bytes than the entity has on its way to Azure, in a transaction."""
    total = _ENVELOPE_BYTES
    for name, value in entity.items():
        total += 2 * len(name) + 40  # with its type
        if isinstance(value, str):
            total += len(json.dumps(value))
            total += 9 * units(value) if name in KEYS else 0  # again, in the path
        elif isinstance(value, bytes):
            total += 4 * ((len(value) + 2) // 3)
        else:
            total += 40
    return total
