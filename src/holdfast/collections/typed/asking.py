"""What was found, raw, and how it is ordered where it is looked through and not looked up."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast import clock, codec
from holdfast.corpus import Stored
from holdfast.errors import UsageError
from holdfast.query import check_field

ORDER_MAX: Final = 4


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A value as it is stored, and what it is a version of.

    Attributes:
        agent, key: whose it is, and which.
        raw: what is stored: a JSON object, as a rule.
        version, etag, time: of this version, as in `Version`.
    """

    agent: str
    key: str
    raw: Any
    version: int
    etag: str = ""
    time: float = 0.0


def row_of(stored: Stored, key: str, raw: Any) -> Row:
    """A record with its key and its value as a row."""
    record = stored.record
    return Row(
        agent=stored.agent,
        key=key,
        raw=raw,
        version=record.key_version,
        etag=record.link.hex(),
        time=clock.millis(record.hlc) / 1000,
    )


class Rows(msgspec.Struct, frozen=True):
    """Some of what was found, and where to go on; an empty cursor is the end."""

    rows: list[Row]
    cursor: str = ""


def order_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """An order as a user writes it: a field, or several; with a minus before it the largest comes first.

    Raises:
        UsageError: no field, or too many.
    """
    names = (given,) if isinstance(given, str) else tuple(given)
    if len(names) > ORDER_MAX:
        raise UsageError(f"an order of {len(names)} fields, the most is {ORDER_MAX}")
    for name in names:
        check_field(field_of(name))
    return names


def field_of(name: str) -> str:
    """The field that a part of an order names."""
    return name[1:] if isinstance(name, str) and name.startswith("-") else name


def write_cursor(*parts: Any) -> str:
    """Anything that msgpack can say as a text for a URL."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(parts)).decode().rstrip("=")


def read_cursor(text: str, kind: Any) -> Any:
    """What was written into a cursor.

    Raises:
        UsageError: it is none of ours.
    """
    try:
        return msgspec.msgpack.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=codec.ready(kind))
    except (ValueError, msgspec.DecodeError) as error:
        raise UsageError(f"no cursor: {text!r:.80}", hint="`page.cursor` of the page before") from error
