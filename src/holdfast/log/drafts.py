"""What somebody wants to write, before it has a number, a time and a place in the chain."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec

from holdfast import clock, codec
from holdfast.corpus.sql import MESSAGES as MESSAGES
from holdfast.corpus.sql import TAGS
from holdfast.errors import HoldfastError, UsageError
from holdfast.log.marks import METRICS, SESSIONS, inline, marks_of
from holdfast.records import (
    BLOB,
    DELETE,
    DELETE_PREFIX,
    MESSAGE,
    NAME_BYTES_MAX,
    PUT,
    TOMBSTONE,
    VALUE,
    ZERO16,
    ZERO32,
    Record,
    check_names,
)

PRIORITIES = ("low", "normal", "high", "hot")
_TAGGED = [(name, TAGS[name]) for name in ("to", "task", "thread")]


class Draft(msgspec.Struct, frozen=True, gc=False):
    """A record to be: `fmt` and `payload` from `codec.serialise`; `expect` the key version that must be current.

    `expect` is a version number (0: the key must have no value), an etag (a link in hex), or None for whatever
    is there; `fresh` says that the key was made up for it, so that it need not be looked for first. `kid` names the
    key that sealed the payload.
    """

    kind: str
    collection: str
    key: str
    fmt: int
    payload: bytes
    flags: int = VALUE
    author: str = ""
    expect: int | str | None = None
    tags: tuple[tuple[int, str], ...] = ()
    base: bytes = ZERO32
    fresh: bool = False
    kid: bytes = ZERO16


def value(collection: str, key: str, content: Any, *, expect: int | str | None = None, author: str = "") -> Draft:
    """A draft that sets a key.

    Raises:
        UsageError: a name that no header can carry, or a value that JSON cannot say.
    """
    check_names(PUT, collection, key, author)
    if not collection:
        raise UsageError("a value needs a collection", hint="leave it out for the default")
    fmt, payload = codec.serialise(content)
    return Draft(PUT, collection, key, fmt, payload, VALUE, author, expect)


def remove(
    collection: str,
    key: str,
    *,
    reason: str = "",
    prefix: bool = False,
    expect: int | str | None = None,
    author: str = "",
) -> Draft:
    """A draft that takes a key's value away, or (`prefix`) that of every key which starts with `key`."""
    kind = DELETE_PREFIX if prefix else DELETE
    check_names(kind, collection, key, author)
    fmt, payload = codec.serialise({"reason": reason} if reason else {})
    return Draft(kind, collection, key, fmt, payload, TOMBSTONE, author, expect)


def message(envelope: dict[str, Any], *, msg_id: str = "", kind: str = MESSAGE, author: str = "") -> Draft:
    """A draft of a message: `envelope` holds its body and, where given, to, task, thread, priority and role.

    Args:
        envelope: JSON values; to, task and thread are found again by `messages`.
        msg_id: the message's key; a second message with the same one is the same message. Made here if empty.
        kind: message, report, or the user's own.
        author: who wrote it, when a hub writes for a client.
    """
    fresh = not msg_id
    if fresh:
        msg_id = new_id("msg")
    check_names(kind, MESSAGES, msg_id, author)
    if not kind:
        raise UsageError("a message needs a kind", hint="leave it out for 'message'")
    tags: tuple[tuple[int, str], ...] = ()
    for name, number in _TAGGED:
        text = envelope.get(name)
        if text is not None:
            if not isinstance(text, str) or len(text.encode("utf-8", "surrogatepass")) > NAME_BYTES_MAX:
                raise UsageError(f"{name} must be text of at most {NAME_BYTES_MAX} bytes, got {text!r:.80}")
            tags += ((number, text),)
    fmt, payload = codec.serialise(envelope)
    return Draft(kind, MESSAGES, msg_id, fmt, payload, VALUE, author, 0, tags, fresh=fresh)


def tags_of(record: Record, payload: bytes) -> tuple[tuple[int, str], ...]:
    """The tags that whoever wrote this record gave it, found again by whoever received it.

    Args:
        record: its header.
        payload: what it holds; of a blob, the reference.
    """
    collection, blob = record.collection, bool(record.flags & BLOB)
    if collection in (SESSIONS, METRICS):
        found = inline(record.fmt, payload, blob)
        return marks_of(collection, record.kind, record.key, found, record.key_version)
    if collection != MESSAGES or record.fmt != codec.FMT_JSON or blob:
        return ()
    envelope = codec.deserialise(record.fmt, payload)
    if not isinstance(envelope, dict):
        return ()
    return tuple((number, envelope[name]) for name, number in _TAGGED if isinstance(envelope.get(name), str))


def told_ms(fmt: int, payload: bytes) -> int | None:
    """The time, in ms since 1970, that a plain client gave its message, found again by whoever received it."""
    envelope = codec.deserialise(fmt, payload) if fmt == codec.FMT_JSON else None
    told = envelope.get("timestamp") if isinstance(envelope, dict) else None
    if told is None or isinstance(told, bool) or not isinstance(told, int | float | str):
        return None
    try:
        return clock.parse_time(told)
    except HoldfastError:
        return None


def new_id(prefix: str) -> str:
    """An id that sorts by time: the prefix, 48 bits of milliseconds and 80 random bits (as RFC 9562's version 7)."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
