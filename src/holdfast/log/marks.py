"""What records of the storage service are found by: a pure function of each record, so any hub finds it again.

Sessions lie in one collection under keys that begin with the session's id and a slash, so that one deletion by prefix
hides all of a session and nothing else:

    <session>/session    <session>/state    <session>/msg/<message>
    <session>/artifact/<artifact>/about     <session>/artifact/<artifact>/content
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from holdfast import clock, codec
from holdfast.corpus.sql import TAGS
from holdfast.corpus.tags import SAMPLE, SESSION, row
from holdfast.errors import HoldfastError
from holdfast.records import DELETE, DELETE_PREFIX

SESSIONS: Final = "sessions"
METRICS: Final = "metrics"
LABEL_CHARS_MAX: Final = 255
LABELS_MAX: Final = 32
_ID = re.compile(r"(session|artifact|metric)_[A-Za-z0-9_.-]{1,100}")

Tags = tuple[tuple[int, str], ...]


class _Session(msgspec.Struct):
    agent_name: str
    status: str
    created_at: str
    user_id: str | None = None


class _Sample(msgspec.Struct):
    entity_type: str
    entity_name: str
    metric_name: str
    value: float
    timestamp: str
    session_id: str | None = None
    labels: dict[str, Any] = {}


_read_session = msgspec.json.Decoder(_Session).decode
_read_sample = msgspec.json.Decoder(_Sample).decode


def marks_of(collection: str, kind: str, key: str, payload: bytes | None, version: int = 1) -> Tags:
    """The tags and rows of a record of these collections; none for what is not as the storage service writes it.

    Args:
        collection, kind, key: of the record.
        payload: its JSON; None where it is not inline.
        version: which version of its key it is.
    """
    if collection == SESSIONS:
        return _of_session(kind, key, payload)
    if collection == METRICS:
        return _of_metric(kind, key, payload, version)
    return ()


def _of_session(kind: str, key: str, payload: bytes | None) -> Tags:
    session, _, part = key.partition("/")
    if not (session.startswith("session_") and _ID.fullmatch(session)):
        return ()
    if kind == "message" and part.startswith("msg/"):
        return ((TAGS["thread"], session),)
    if kind == "artifact" and part.startswith("artifact/artifact_") and part.endswith("/about"):
        return ((TAGS["ref"], part[9:-6]),)
    if kind != "session" or part != "session":
        return ()
    found = (TAGS["ref"], session)
    try:
        said = _read_session(payload or b"")
        columns = (said.agent_name, said.user_id, said.status, clock.parse_time(said.created_at))
    except (msgspec.DecodeError, UnicodeDecodeError, HoldfastError):
        return (found,)
    return (found,) if _unfit(said.agent_name, said.user_id, said.status) else (found, row(SESSION, session, *columns))


def _of_metric(kind: str, key: str, payload: bytes | None, version: int) -> Tags:
    touched: Tags = ((TAGS["touched"], METRICS),)
    if kind in (DELETE, DELETE_PREFIX):
        return touched
    if kind != "metric" or not (key.startswith("metric_") and _ID.fullmatch(key)):
        return ()
    try:
        said = _read_sample(payload or b"")
        at_ms = clock.parse_time(said.timestamp)
    except (msgspec.DecodeError, UnicodeDecodeError, HoldfastError):
        return ()
    names = (said.entity_type, said.entity_name, said.metric_name, said.session_id)
    if _unfit(*names):
        return ()
    labels = tuple((TAGS["label"], text) for text in map(_label, said.labels.items()) if text)[:LABELS_MAX]
    return (row(SAMPLE, *names, at_ms, said.value), *labels, *(touched if version > 1 else ()))


def _label(item: tuple[str, Any]) -> str:
    """``name=text`` of a label that can be searched for: a text, a number, true or false; empty for others."""
    name, value = item
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if isinstance(value, dict | list) or value is None or "=" in name:
        return ""
    found = f"{name}={text}"
    return "" if len(found) > LABEL_CHARS_MAX or _unfit(found) else found


def _unfit(*texts: str | None) -> bool:
    # A column of text cannot hold NUL on every engine.
    return any("\0" in text for text in texts if text)


def inline(fmt: int, payload: bytes, blob: bool) -> bytes | None:
    """The payload, if it is JSON and not a reference to a blob."""
    return None if blob or fmt != codec.FMT_JSON else payload
