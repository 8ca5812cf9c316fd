"""Gemini CLI's session files: ``tmp/<project>/chats/session-*.jsonl``, one record a line.

The first line says whose session it is; messages follow, and a message that changed is written again under its id.
``{"$set": …}`` changes the session, at times all its messages; ``{"$rewindTo": id}`` takes messages out of what the
model is told, not out of what was said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.cli.transcripts.lines import objects
from holdfast.cli.transcripts.said import Bad, Found, Other, Said, text_of, without

_ROLES = {"user": "user", "gemini": "assistant", "info": "system", "warning": "system", "error": "system"}


def is_session(first: Any) -> bool:
    """Whether a decoded line looks like the first of a session."""
    return isinstance(first, dict) and "sessionId" in first and "projectHash" in first and "type" not in first


def read(data: bytes, name: str) -> Iterator[Found]:
    """The messages of a session, in the order of the file; one that changed comes again with the same place.

    Args:
        data: the file's bytes.
        name: the file's path without its ending; its thread, until a line names the session.
    """
    thread = name.rpartition("/")[2]
    for found in objects(data):
        if isinstance(found, Bad):
            yield found
            continue
        line, event = found
        if is_session(event):
            thread = text_of(event["sessionId"]) or thread
        yield from _line(line, event, thread)


def _line(line: int, event: dict[str, Any], thread: str) -> Iterator[Found]:
    change = event.get("$set")
    if isinstance(change, dict):
        said = change.get("messages")
        messages = [each for each in said if isinstance(each, dict)] if isinstance(said, list) else []
        summary = change.get("summary")
        if text_of(summary):
            place = f"line {line}"
            yield Said(thread=thread, place=place, role="system", kind="summary", body=summary, line=line)
        for each in messages:
            yield _message(line, each, thread)
        if messages or text_of(summary):
            return
    elif event.get("type") in _ROLES and "id" in event:
        yield _message(line, event, thread)
        return
    yield Other(line)


def _message(line: int, event: dict[str, Any], thread: str) -> Found:
    kind = event.get("type")
    if not text_of(event.get("id")) or kind not in _ROLES or "content" not in event:
        return Bad(line, "a message without id, type or content")
    more = {name: event[name] for name in ("thoughts", "toolCalls") if event.get(name)}
    content = event["content"]
    body: Any = content
    if more:
        body = [*([content] if content else []), *({name: value} for name, value in more.items())]
    return Said(
        thread=thread,
        place=event["id"],
        role=_ROLES[kind],
        body=body,
        time=text_of(event.get("timestamp")),
        rest=without(event, "id", "type", "content", "timestamp", "thoughts", "toolCalls"),
        line=line,
    )
