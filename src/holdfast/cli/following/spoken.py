"""What a transcript's line becomes for those who read: a message of a session, without what only its tool needs."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.cli.following.ledger import Head
from holdfast.cli.transcripts.said import Said
from holdfast.cli.transcripts.tools import digest, stem
from holdfast.collections.sessions import MESSAGE, SESSION, draft, key_of
from holdfast.errors import HoldfastError
from holdfast.log import Draft

CONTENT_BYTES_MAX: Final = 48 << 10
"""More of a message is in its transcript alone: a longer one would be a file of its own, which no search reads."""
TEXT_CHARS_MAX: Final = 8 << 10
TITLE_CHARS_MAX: Final = 120
_NAME_CHARS_MAX: Final = 60
_ROLES: Final = ("user", "assistant", "system", "tool")
_CODED: Final = {"data", "encrypted_content", "signature", "thoughtSignature", "thinkingSignature", "image_url"}
"""Fields that hold pictures and seals in letters: nobody reads them, and they would fill the index."""
_CODED_CHARS: Final = 256
_WORDS: Final = (None, "text", "input_text", "output_text")


def conversation_id(tool: str, session: str, path: str, fid: str) -> str:
    """The id under which a file is told: it says the tool and the session, and is no other file's."""
    own = stem(path)
    name = session if session and session in own else own
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in name)
    return f"session_{tool}.{plain[:_NAME_CHARS_MAX]}.{fid[:8]}"


def known_by(said: Said, line: bytes, number: int) -> str:
    """What a message is known by, wherever its line is copied to.

    That is the id that its tool gave it; or else the line itself, which says when it was written; or else the line
    and where it stands.
    """
    own = not said.place.startswith("line ") and said.kind != "summary"
    if own:
        return digest("id", said.place)
    text = line.strip().decode("utf-8", "surrogateescape")
    return digest("line", text, "" if said.time else str(number))


def moment(text: str) -> str:
    """A time as a session has it; empty for what is none."""
    if not text:
        return ""
    try:
        return clock.iso(clock.parse_time(text))
    except HoldfastError:
        return ""


def content_of(said: Said, time: str, number: int) -> dict[str, Any]:
    """What is kept of a message: its role, its content and its time.

    Args:
        said: the message.
        time: when it was said.
        number: the line of its transcript, where all of it is.
    """
    role = said.role if said.role in _ROLES else "system"
    about: dict[str, Any] = {"line": number}
    if said.kind != "message":
        about["kind"] = said.kind
    if role != said.role:
        about["role"] = said.role
    return {"role": role, "content": _fitting(said.body), "timestamp": time, "metadata": about}


def message_draft(key: str, content: dict[str, Any], expect: int) -> Draft:
    """A draft of a message."""
    return _bare(draft(MESSAGE, key, content), expect)


def same(one: Any, other: dict[str, Any]) -> bool:
    """Whether two messages say the same, on whatever line of their transcript."""
    return isinstance(one, dict) and all(one.get(name) == other[name] for name in ("role", "content", "timestamp"))


def about_session(head: Head, fid: str, agent: str) -> dict[str, Any]:
    """A conversation's own record, as its head has it."""
    about: dict[str, Any] = {
        "tool": head.tool,
        "session": head.session,
        "title": head.title,
        "folder": head.folder,
        "path": head.path,
        "file": fid,
        "group": head.group,
        "lines": head.lines,
        "bytes": head.end,
        "parent": head.parent,
        "continues": head.before[-1] if head.copied else "",
    }
    return {
        "agent_name": agent,
        "status": "active",
        "created_at": head.first,
        "updated_at": head.last,
        "metadata": {name: value for name, value in about.items() if value != ""},
    }


def session_draft(conversation: str, content: dict[str, Any]) -> Draft:
    """A draft of a conversation's own record."""
    return _bare(draft(SESSION, key_of(conversation, SESSION), content), None)


def _bare(made: Draft, expect: int | None) -> Draft:
    """A draft for a node's file, which has no tables for what a hub finds sessions by; the hub makes its own tags."""
    return msgspec.structs.replace(made, expect=expect, tags=())


def title_of(said: Said) -> str:
    """What a conversation may be called after this message; empty if it says nothing of it.

    What tools put before a person's words begins with a bracket.
    """
    if said.role != "user" and said.kind != "summary":
        return ""
    text = " ".join(_text(said.body).split())
    return "" if text[:1] in ("<", "#", "") else text[:TITLE_CHARS_MAX]


def _text(body: Any) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, dict):
        text = body.get("text")
        return text if isinstance(text, str) else ""
    if isinstance(body, list):
        return next((text for each in body if (text := _text(each))), "")
    return ""


def _fitting(body: Any) -> Any:
    """A body without what is no text, and cut to what a record holds."""
    found = "" if body is None else _plain(body)
    if isinstance(found, list) and found and all(map(_is_text, found)):
        found = "\n\n".join(each["text"] for each in found)
    elif not isinstance(found, str | list | dict):
        found = str(found)
    if len(msgspec.json.encode(found)) <= CONTENT_BYTES_MAX:
        return found
    found = _cut(found)
    data = msgspec.json.encode(found)
    if len(data) <= CONTENT_BYTES_MAX:
        return found
    return f"{data[: TEXT_CHARS_MAX * 2].decode('utf-8', 'ignore')} … (all of it is in the transcript)"


def _is_text(block: Any) -> bool:
    """Whether a block of a message is nothing but words."""
    return isinstance(block, dict) and isinstance(block.get("text"), str) and block.get("type") in _WORDS


def _plain(value: Any, name: str = "") -> Any:
    if isinstance(value, str):
        coded = name in _CODED and len(value) > _CODED_CHARS
        return f"({len(value):,} letters, in the transcript)" if coded else value
    if isinstance(value, dict):
        return {key: _plain(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, int) and value.bit_length() > 63:
        return str(value)  # more than our JSON can say
    return value


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > TEXT_CHARS_MAX:
        return f"{value[:TEXT_CHARS_MAX]} … ({len(value) - TEXT_CHARS_MAX:,} more letters, in the transcript)"
    if isinstance(value, dict):
        return {key: _cut(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_cut(each) for each in value]
    return value
