"""A record's value as a page can show it, or why it cannot; and what is special about how it is kept."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from holdfast.corpus import Stored
from holdfast.errors import Erased, HoldfastError, NotCached, Sealed
from holdfast.hub.exchange import encode_json
from holdfast.hub.ui.rows import readable
from holdfast.log import load
from holdfast.records import SEALED, read_blob_reference

VALUE_BYTES_MAX: Final = 256 << 10
BEGINS: Final = 120


class Value(msgspec.Struct):
    """A value, or why it is not shown (`missing`: erased, sealed, evicted, quarantined, damaged, large, deleted)."""

    value: Any = None
    encoding: str = ""
    missing: str = ""
    says: str = ""
    digest: str = ""


def size_of(stored: Stored) -> int:
    """The bytes of a value before compression; of a blob, its own."""
    try:
        return read_blob_reference(stored.payload())[1] if stored.is_blob and stored.body else stored.record.payload_len
    except HoldfastError:
        return stored.record.payload_len


def note_of(stored: Stored) -> str:
    """What is special about how a value is kept; empty: nothing."""
    if stored.body is None:
        return ("lost", "evicted", "quarantined", "erased")[stored.why]
    if stored.record.flags & SEALED:
        return "sealed"
    return "blob" if stored.is_blob else ""


def value_of(stored: Stored, blobs: Any, *, gone: bool = False) -> Value:
    """A record's value as a page can show it; never an error.

    Args:
        stored: the record.
        blobs: where large values are.
        gone: whether to show what a deletion holds (its reason).
    """
    if stored.gone and not gone:
        return Value(missing="deleted", says="it was deleted")
    try:
        if stored.is_blob and stored.body is not None and not stored.record.flags & SEALED:
            digest, size = read_blob_reference(stored.payload())
            if size > VALUE_BYTES_MAX:
                return Value(missing="large", says=f"{size:,} bytes, too many for a page", digest=digest.hex())
        found = load(stored, blobs)
    except Sealed as error:
        return Value(missing="sealed", says=error.hint)
    except Erased as error:
        return Value(missing="erased", says=error.hint)
    except NotCached as error:
        return Value(missing="evicted", says=error.message)
    except HoldfastError as error:
        return Value(missing="damaged" if stored.why == 0 else note_of(stored), says=error.message)
    if isinstance(found, bytes):
        return Value(value=base64.b64encode(found).decode(), encoding="base64")
    return Value(value=found)


def begins(core: Any, stored: Stored) -> str:
    """How a small value begins, on one line; empty where there is nothing to be read."""
    value = readable(core, stored)
    if isinstance(value, bytes) or value is None:
        return ""
    text = value if isinstance(value, str) else encode_json(value).decode("utf-8", "replace")
    text = " ".join(text[: 4 * BEGINS].split())
    return text if len(text) <= BEGINS else text[:BEGINS] + "…"
