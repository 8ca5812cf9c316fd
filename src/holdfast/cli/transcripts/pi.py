"""pi's session files: ``sessions/--<folder>--/<time>_<id>.jsonl``, a header and one entry a line.

Entries make a tree by ``id`` and ``parentId``; they are read in the order in which they were written. The first
version of the format had no ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.cli.transcripts.lines import objects
from holdfast.cli.transcripts.said import Bad, Found, Other, Said, text_of, without

_ROLES = {"user": "user", "assistant": "assistant", "toolResult": "tool", "bashExecution": "tool"}
_SUMMARIES = ("compaction", "branch_summary")


def is_session(first: Any) -> bool:
    """Whether a decoded line looks like the header of a session."""
    return isinstance(first, dict) and first.get("type") == "session" and "id" in first and "cwd" in first


def read(data: bytes, name: str) -> Iterator[Found]:
    """The messages and summaries of a session, in the order of the file.

    Args:
        data: the file's bytes.
        name: the file's path without its ending, which ends in the session's id, used until the header names it.
    """
    thread = name.rpartition("/")[2].rpartition("_")[2]
    for found in objects(data):
        if isinstance(found, Bad):
            yield found
            continue
        line, event = found
        if is_session(event):
            thread = text_of(event["id"]) or thread
        yield _line(line, event, thread)


def _line(line: int, event: dict[str, Any], thread: str) -> Found:
    kind = event.get("type")
    place, time = text_of(event.get("id")) or f"line {line}", text_of(event.get("timestamp"))
    if kind == "message":
        message = event.get("message")
        if not isinstance(message, dict) or not text_of(message.get("role")):
            return Bad(line, "a message without a role")
        role = message["role"]
        body = message.get("content")
        if role == "bashExecution":
            body = {"command": message.get("command"), "output": message.get("output")}
        rest = without(event, "type", "id", "message", "timestamp")
        more = without(message, "role", "content", "command", "output", "timestamp")
        return Said(
            thread=thread,
            place=place,
            role=_ROLES.get(role, "system"),
            kind="tool_result" if role in ("toolResult", "bashExecution") else "message",
            body=body,
            time=time,
            rest=rest | ({"message": more} if more else {}),
            line=line,
        )
    if kind in _SUMMARIES:
        rest = without(event, "type", "id", "summary", "timestamp")
        body = event.get("summary")
        return Said(
            thread=thread, place=place, role="system", kind="summary", body=body, time=time, rest=rest, line=line
        )
    if kind == "custom_message":
        rest = without(event, "type", "id", "content", "timestamp")
        body = event.get("content")
        return Said(thread=thread, place=place, role="system", body=body, time=time, rest=rest, line=line)
    if not isinstance(kind, str):
        return Bad(line, "a line without a type")
    return Other(line)
