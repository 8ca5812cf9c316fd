"""Codex's session files: ``sessions/<year>/<month>/<day>/rollout-*.jsonl``, one item a line.

Newer files wrap each item (``{"timestamp", "type": "response_item", "payload"}``) behind a ``session_meta`` line;
older ones hold the items bare. What a model said stands in response items; ``event_msg`` lines repeat it for the
screen and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from holdfast.cli.transcripts.lines import objects
from holdfast.cli.transcripts.said import Bad, Found, Other, Said, text_of, without

_WRAPPERS = ("session_meta", "response_item", "event_msg", "turn_context", "compacted")
_SESSION = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")


def is_session(first: Any) -> bool:
    """Whether a decoded line looks like one of a session."""
    if not isinstance(first, dict):
        return False
    if first.get("type") in _WRAPPERS and "payload" in first:
        return True
    return "record_type" in first or ("instructions" in first and "timestamp" in first and "id" in first)


def read(data: bytes, name: str) -> Iterator[Found]:
    """The messages, tool calls, their results and the reasoning of a session, in the order of the file.

    Args:
        data: the file's bytes.
        name: the file's path without its ending; it ends in the session's id, used until a line names it.
    """
    own = _SESSION.search(name)
    thread = own[0] if own else name.rpartition("/")[2]
    for found in objects(data):
        if isinstance(found, Bad):
            yield found
            continue
        line, event = found
        item: Any = event
        time = text_of(event.get("timestamp"))
        if event.get("type") in _WRAPPERS:
            item = event.get("payload")
            if not isinstance(item, dict):
                yield Bad(line, f"a line of type {event['type']} without a payload")
                continue
            if event["type"] == "session_meta":
                thread = text_of(item.get("id")) or thread
            if event["type"] != "response_item":
                yield Other(line)
                continue
        elif "instructions" in event and "id" in event and "type" not in event:
            thread = text_of(event["id"]) or thread
            yield Other(line)
            continue
        yield _item(line, item, time, thread)


def _item(line: int, item: dict[str, Any], time: str, thread: str) -> Found:
    kind = item.get("type")
    if kind == "message":
        role = text_of(item.get("role"))
        if not role or "content" not in item:
            return Bad(line, "a message without role or content")
        rest = without(item, "type", "role", "content", "timestamp")
        return _said(thread, line, role=role, body=item["content"], time=time, rest=rest)
    if kind == "reasoning":
        return _said(thread, line, role="assistant", kind="reasoning", body=without(item, "type"), time=time)
    if isinstance(kind, str) and kind.endswith("_call"):
        return _said(thread, line, role="assistant", kind="tool_call", body=item, time=time)
    if isinstance(kind, str) and kind.endswith("_call_output"):
        rest = without(item, "output")
        return _said(thread, line, role="tool", kind="tool_result", body=item.get("output"), time=time, rest=rest)
    if kind is None and "record_type" not in item:
        return Bad(line, "an item without a type")
    return Other(line)


def _said(thread: str, line: int, **fields: Any) -> Said:
    # A rollout is only ever appended to, so a line's number is where it stays.
    return Said(thread=thread, place=f"line {line}", line=line, **fields)
