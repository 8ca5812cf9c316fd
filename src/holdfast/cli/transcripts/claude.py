"""Claude Code's session files: ``projects/<project>/<session>.jsonl``, one event a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.cli.transcripts.lines import objects
from holdfast.cli.transcripts.said import Bad, Found, Other, Said, text_of, without

_SPEAKERS = ("user", "assistant")


def is_session(first: Any) -> bool:
    """Whether a decoded line looks like one of a session."""
    if not isinstance(first, dict) or not isinstance(first.get("type"), str):
        return False
    return ("sessionId" in first and "payload" not in first) or (first["type"] == "summary" and "leafUuid" in first)


def read(data: bytes, name: str) -> Iterator[Found]:
    """The messages of a session, in the order of the file.

    Args:
        data: the file's bytes.
        name: the file's path without its ending, which ends in the session's id, where a line does not name it.
    """
    name = name.rpartition("/")[2]
    for found in objects(data):
        yield found if isinstance(found, Bad) else _line(*found, name)


def _line(line: int, event: dict[str, Any], name: str) -> Found:
    thread = text_of(event.get("sessionId")) or name
    place = text_of(event.get("uuid")) or text_of(event.get("leafUuid")) or f"line {line}"
    kind = event.get("type")
    if kind in _SPEAKERS:
        message = event.get("message")
        if not isinstance(message, dict):
            return Bad(line, f"a line of type {kind} without a message")
        if "content" not in message:
            return Bad(line, f"a message of type {kind} without content")
        rest = without(event, "type", "message", "sessionId", "timestamp")
        more = without(message, "role", "content", "type")
        return Said(
            thread=thread,
            place=place,
            role=text_of(message.get("role")) or str(kind),
            body=message["content"],
            time=text_of(event.get("timestamp")),
            rest=rest | ({"message": more} if more else {}),
            line=line,
        )
    if kind == "system" and "content" in event:
        body, rest = event["content"], without(event, "type", "content", "sessionId", "timestamp")
        time = text_of(event.get("timestamp"))
        return Said(thread=thread, place=place, role="system", body=body, time=time, rest=rest, line=line)
    if kind == "summary":
        body, rest = event.get("summary"), without(event, "type", "summary", "sessionId")
        return Said(thread=thread, place=place, role="system", kind="summary", body=body, rest=rest, line=line)
    if not isinstance(kind, str):
        return Bad(line, "a line without a type")
    return Other(line)
