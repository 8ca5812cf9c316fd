"""OpenAI-style chats: a list of messages, ``{"messages": […]}``, a list of such objects, or JSON Lines of either.

An object may keep its messages under ``messages``, ``traj``, ``conversation`` or ``conversations``. A conversation
is known by its own id where it has one, and by its place in the file where it has none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from holdfast.cli.transcripts.lines import objects
from holdfast.cli.transcripts.said import Bad, Found, Said, text_of, without

LISTS = ("messages", "traj", "conversation", "conversations")
_IDS = ("conversation_id", "session_id", "thread_id", "chat_id", "id", "uuid")
_TIMES = ("timestamp", "created_at", "create_time", "time", "date")
_SPACE = " \t\r\n"


def is_chat(first: Any) -> bool:
    """Whether a decoded value looks like a chat, one of its messages, or a list of either."""
    if isinstance(first, list):
        return any(is_chat(each) for each in first[:5])
    if not isinstance(first, dict):
        return False
    return "role" in first or any(isinstance(first.get(name), list) for name in LISTS)


def read(data: bytes, name: str) -> Iterator[Found]:
    """The messages of a JSON document, in order.

    Args:
        data: the file's bytes.
        name: the file's path below what is imported, without its ending; part of the names of its threads.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Bad(data.count(b"\n", 0, error.start) + 1, f"not UTF-8: {error.reason}")
        return
    parts = list(_parts(text))
    if parts and all(isinstance(value, dict) and "role" in value for _, value in parts if not isinstance(value, Bad)):
        yield from _messages(parts, name)
        return
    called = _Names(name)
    for line, value in parts:
        if isinstance(value, Bad):
            yield value
        else:
            yield from _conversation(value, line, called(value))


def read_lines(data: bytes, name: str) -> Iterator[Found]:
    """The messages of JSON Lines: a message or a whole conversation a line."""
    loose: list[tuple[int, Any]] = []
    called = _Names(name)
    for found in objects(data):
        if isinstance(found, Bad):
            yield found
            continue
        line, value = found
        if "role" in value:
            loose.append((line, value))
        else:
            yield from _conversation(value, line, called(value))
    yield from _messages(loose, name)


def _parts(text: str) -> Iterator[tuple[int, Any]]:
    """The elements of a top-level list, or the document itself, each with its line.

    Element by element, so that a file that was cut off still gives what is whole, and errors have a line.
    """
    import json  # msgspec does not go on behind a value; only here: `export` needs none of it

    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    listed = text[at : at + 1] == "["
    at = _skip(text, at + 1) if listed else at
    line, counted = 1, 0
    while at < len(text) and not (listed and text[at] == "]"):
        line += text.count("\n", counted, at)
        counted = at
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            line = getattr(error, "lineno", line)
            yield line, Bad(line, f"not JSON: {getattr(error, 'msg', error)}")
            return
        yield line, value
        at = _skip(text, end)
        if not listed:
            break
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            line += text.count("\n", counted, at)
            yield line, Bad(line, "the list is cut off here")
            return
    else:
        if listed and at >= len(text):
            yield line, Bad(line, "the list is cut off here")


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


class _Names:
    """Names the conversations of one file; two that call themselves the same stay two."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._given: Counter[str] = Counter()
        self._index = -1

    def __call__(self, value: Any) -> str:
        self._index += 1
        own = _own_name(value) or str(self._index)
        self._given[own] += 1
        again = self._given[own]
        return f"{self._name}-{own}" if again == 1 else f"{self._name}-{own}-again-{again}"


def _own_name(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    for name in _IDS:
        own = value.get(name)
        if isinstance(own, str | int) and not isinstance(own, bool) and own != "":
            return str(own)
    if "task_id" in value:
        return "-".join(str(value[name]) for name in ("task_id", "trial") if name in value)
    return ""


def _conversation(value: Any, line: int, thread: str) -> Iterator[Found]:
    if isinstance(value, list):
        yield from _messages([(line, each) for each in value], thread)
        return
    if isinstance(value, dict):
        for name in LISTS:
            if isinstance(value.get(name), list):
                yield from _messages([(line, each) for each in value[name]], thread)
                return
        if "role" in value:
            yield from _messages([(line, value)], thread)
            return
    yield Bad(line, f"no conversation: no list under {', '.join(LISTS)}")


def _messages(parts: list[tuple[int, Any]], thread: str) -> Iterator[Found]:
    for index, (line, value) in enumerate(parts):
        if isinstance(value, Bad):
            yield value
        elif not isinstance(value, dict):
            yield Bad(line, f"{thread}: message {index} is no object but {type(value).__name__}")
        elif not text_of(value.get("role")):
            yield Bad(line, f"{thread}: message {index} has no role")
        else:
            time = next((str(value[name]) for name in _TIMES if isinstance(value.get(name), str | int | float)), "")
            yield Said(
                thread=thread,
                place=str(index),
                role=value["role"],
                body=value.get("content"),
                time=time,
                rest=without(value, "role", "content"),
                line=line,
            )
