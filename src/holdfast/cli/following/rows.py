"""What the log holds of a session that its tool keeps in a database: its messages, each under a key of its own.

    row/<fid>/about              the session itself
    row/<fid>/<order>-<name>     a message; its versions are what the tool made of it, empty where it took it away

beside the head and the member that every followed file has (`holdfast.cli.following.ledger`). A message is one line of
JSON, as the tool's own export has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from holdfast.cli.following.ledger import TRANSCRIPTS, Head, Ledger
from holdfast.cli.transcripts.tools import digest
from holdfast.errors import IntegrityError, NotCached, NotFound
from holdfast.log import Draft, value

ABOUT: Final = "about"
GONE: Final = b""
_PAGE: Final = 200
_PLAIN: Final = re.compile("[A-Za-z0-9_.]{1,100}")


def name_of(order: int, id: str) -> str:
    """Under which name a message is kept: they sort as the session has them."""
    return f"{max(order, 0):016}-{id if _PLAIN.fullmatch(id) else digest('row', id)}"


def key_of(fid: str, name: str) -> str:
    """The key of a message, or of what is kept of the session itself."""
    return f"row/{fid}/{name}"


def changed(ledger: Ledger, fid: str, name: str, data: bytes) -> list[Draft]:
    """A draft of a message as it is now (`GONE`: it was taken away); none if that is what is kept."""
    key = key_of(fid, name)
    same, version = ledger.same(key, data)
    return [] if same else [value(TRANSCRIPTS, key, data, expect=version)]


def names(ledger: Ledger, fid: str) -> Iterator[str]:
    """The messages that are, or were, there, in the session's order."""
    prefix, after = key_of(fid, ""), ""
    while keys := ledger.keys(prefix, after, _PAGE):
        yield from (key.removeprefix(prefix) for key in keys if not key.endswith(f"/{ABOUT}"))
        after = keys[-1]


def export(ledger: Ledger, fid: str, head: Head, at: Any = None) -> Iterator[bytes]:
    """The session as its tool exports it, piece by piece: one JSON document.

    Args:
        ledger, fid: where it is.
        head: of it.
        at: a time: as it was then.

    Raises:
        NotFound: the session itself was not kept.
        IntegrityError: what is there is no message.
    """
    about = _kept(ledger, fid, ABOUT, at)
    if not about:
        raise NotFound(f"nothing was kept of {head.session} itself", hint="holdfast follow opencode --once")
    said = msgspec.json.decode(about)
    yield b'{"info":' + msgspec.json.encode(said["info"]) + b',"messages":['
    between = b"\n"
    for name in names(ledger, fid):
        if data := _kept(ledger, fid, name, at):
            yield between + data.rstrip(b"\n")
            between = b",\n"
    yield b"\n]" + (b',"todos":' + msgspec.json.encode(said["todos"]) if said.get("todos") else b"") + b"}\n"


def _kept(ledger: Ledger, fid: str, name: str, at: Any) -> bytes:
    try:
        found = ledger.get(key_of(fid, name), at)
    except NotCached:
        raise
    except NotFound:
        return GONE  # not yet there then, or erased
    if not isinstance(found, bytes):
        raise IntegrityError(f"{key_of(fid, name)} holds no message", hint="holdfast scan")
    return found
