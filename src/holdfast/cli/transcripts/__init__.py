"""Readers of other programs' conversations: pure, from bytes to messages; one module a format.

Each `read(data, name)` yields, in the file's order, `Said`, `Bad` (with the line and why) or `Other` (in order, but
no message). A reader never raises for what a file holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from holdfast.cli.transcripts import chat, claude, codex, gemini, pi
from holdfast.cli.transcripts.lines import objects
from holdfast.cli.transcripts.said import Bad, Found, Other, Said

__all__ = ["Bad", "Found", "Other", "Reader", "Said", "recognise"]

Reader = Callable[[bytes, str], Iterator[Found]]

_LOOK = 100
"""Lines looked at: a session may begin with a few that say nothing of its format."""
_LOOK_BYTES = 4 << 20


def recognise(data: bytes) -> tuple[str, Reader] | None:
    """The format's name and its reader, by what stands in the file and not by what it is called; None if unknown."""
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if start == b"[":
        return ("chat", chat.read) if b'"role"' in data else None
    if start != b"{":
        return None
    looked = 0
    for found in objects(data[:_LOOK_BYTES]):
        looked += 1
        if looked > _LOOK:
            break
        if isinstance(found, Bad):
            continue
        _, first = found
        if claude.is_session(first):
            return "claude-code", claude.read
        if codex.is_session(first):
            return "codex", codex.read
        if gemini.is_session(first):
            return "gemini-cli", gemini.read
        if pi.is_session(first):
            return "pi", pi.read
        if chat.is_chat(first):
            return "chat", chat.read_lines
    # One object over many lines is no JSON Lines: each of its lines was bad.
    whole = b'"role"' in data and any(f'"{name}"'.encode() in data for name in chat.LISTS)
    return ("chat", chat.read) if whole else None
