"""What every transcript reader yields: one thing that was said, or one line that could not be read."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation, as its transcript has it.

    Attributes:
        thread: the conversation or session it belongs to.
        place: what identifies it there: its own id, or its position.
        role: user, assistant, system or tool.
        body: its content, text or blocks, untouched.
        kind: message, or what the transcript calls it: summary, tool_call, tool_result, reasoning.
        time: when it was said, as the transcript writes it; empty if it does not say.
        rest: every other field of the message.
        line: the line of the file it stands on.
    """

    thread: str
    place: str
    role: str
    body: Any
    kind: str = "message"
    time: str = ""
    rest: dict[str, Any] = {}
    line: int = 0

    @property
    def id(self) -> str:
        """An id that is the same whenever, wherever and how often this is read: it is made of what was said."""
        what = [self.thread, self.place, self.role, self.kind, self.body, self.rest]
        digest = hashlib.sha256(b"hf/said/1\0" + msgspec.json.encode(what, order="deterministic"))
        return f"said_{digest.hexdigest()[:40]}"

    def envelope(self, source: str) -> dict[str, Any]:
        """What is stored of it.

        Args:
            source: which transcript it came from, for people; it has no part in `id`, so a file may be moved.
        """
        out: dict[str, Any] = {"body": self.body, "thread": self.thread, "role": self.role}
        if self.time:
            out["said_at"] = self.time
        if self.rest:
            out["rest"] = self.rest
        return out | {"source": source}


class Bad(msgspec.Struct, frozen=True):
    """A line that could not be read, and why."""

    line: int
    why: str


class Other(msgspec.Struct, frozen=True):
    """A line that is in order but is no message: a marker, a token count."""

    line: int


Found = Said | Bad | Other


def text_of(value: Any) -> str:
    """A field's text, or empty for what is no text (a transcript may hold anything anywhere)."""
    return value if isinstance(value, str) else ""


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """The fields but for these, leaving out those that say nothing."""
    return {name: value for name, value in fields.items() if name not in names and value is not None}
