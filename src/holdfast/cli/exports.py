"""Holdfast's own export: JSON Lines, a header, one version a line in the order of each log, and an end.

    {"holdfast": "export", "format": 1, "agents": [...], "collection": null, "time": "..."}
    {"agent": ..., "collection": ..., "key": ..., "version": 1, ..., "value": ..., "as": "json"}
    {"holdfast": "end", "versions": 1}

`as` says what the value was: json, text, or bytes (then it is base64). A line whose payload was erased or is sealed has
a null value and says so in `missing`. Reading it back writes the versions anew, under new links: it carries contents,
not proofs.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.cli.transcripts import Bad
from holdfast.cli.transcripts.lines import objects
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError
from holdfast.log import OpenLog
from holdfast.records import DELETE_PREFIX, SEALED, VALUE
from holdfast.wire import REDACTED

FORMAT: Final = 1
_encode = msgspec.json.Encoder().encode


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One version of an export, read back.

    `kind` is what was recorded: put, delete, message…; `value` of a deletion says its reason.
    """

    line: int
    agent: str
    collection: str
    key: str
    version: int
    kind: str
    gone: bool
    value: Any
    missing: str = ""

    @property
    def prefix(self) -> bool:
        """Whether it takes away every key that begins with `key`."""
        return self.gone and self.kind == DELETE_PREFIX


def is_export(data: bytes) -> bool:
    """Whether these are the first bytes of an export."""
    head = data.partition(b"\n")[0]
    return head.lstrip()[:1] == b"{" and b'"holdfast"' in head and b'"export"' in head


def header(agents: list[str], collection: str | None) -> bytes:
    """The first line."""
    now = clock.iso(clock.SYSTEM.now_ms())
    told = {"holdfast": "export", "format": FORMAT, "agents": agents, "collection": collection, "time": now}
    return _encode(told) + b"\n"


def end(versions: int) -> bytes:
    """The last line: an export without it was cut off."""
    return _encode({"holdfast": "end", "versions": versions}) + b"\n"


def lines(opened: OpenLog, value_of: Callable[[Stored], Any], collection: str | None) -> Iterator[bytes]:
    """Every version in a log, a line each.

    Args:
        opened: the log.
        value_of: reads what a record holds.
        collection: only this one's.

    Raises:
        NotCached: a payload is only at the hub, and `value_of` cannot ask it.
        IntegrityError: a payload is not what was recorded.
    """
    after = 0
    while records := opened.corpus.feed(after):
        after = records[-1].pos
        for stored in records:
            record = stored.record
            wanted = collection is None or record.collection == collection
            if record.collection and wanted and (stored.gone or record.flags & VALUE):
                yield _line(stored, value_of)


def _line(stored: Stored, value_of: Callable[[Stored], Any]) -> bytes:
    record = stored.record
    value: Any = None
    kind, missing = "json", ""
    if stored.body is None and stored.why == REDACTED:
        missing = "redacted"
    elif record.flags & SEALED:
        missing = "sealed"  # a file that travels is no place for what only this machine may read
    else:
        value = value_of(stored)
        if isinstance(value, bytes):
            value, kind = base64.b64encode(value).decode(), "bytes"
        elif isinstance(value, str):
            kind = "text"
    out = {
        "agent": stored.agent,
        "collection": record.collection,
        "key": record.key,
        "version": record.key_version,
        "seq": record.seq,
        "time": clock.to_iso(record.hlc),
        "kind": record.kind,
        "author": record.author,
        "etag": record.link.hex(),
        "gone": stored.gone,
        "as": kind,
        "value": value,
    }
    return _encode(out | ({"missing": missing} if missing else {})) + b"\n"


def read(data: bytes) -> Iterator[Entry | Bad]:
    """The versions of an export, in order; lines that are none are `Bad`, and so is a missing end."""
    ended = False
    number = 0
    for found in objects(data):
        if isinstance(found, Bad):
            yield found
            continue
        number, fields = found
        if fields.get("holdfast") == "export":
            if fields.get("format") != FORMAT:
                yield Bad(number, f"an export of format {fields.get('format')!r}; this version reads {FORMAT}")
                return
        elif fields.get("holdfast") == "end":
            ended = True
        else:
            try:
                yield _entry(number, fields)
            except (msgspec.ValidationError, binascii.Error, HoldfastError, ValueError) as error:
                yield Bad(number, f"not a version: {error}")
    if not ended:
        yield Bad(number, "the export has no end: it was cut off")


def _entry(number: int, fields: dict[str, Any]) -> Entry:
    entry = msgspec.convert(fields | {"line": number}, Entry)
    if fields.get("as") == "bytes":
        return msgspec.structs.replace(entry, value=base64.b64decode(entry.value, validate=True))
    return entry
