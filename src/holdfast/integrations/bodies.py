"""Bytes under names, as adapters for files and artifacts share them: a conversation whose entries are the pieces.

So what is true of a conversation is true of them: a body is replaced whole or not at all, its earlier versions are read
with `at=`, of two writers with one `expect` one wins, and it lies in an agent's log or at a hub.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from holdfast.errors import IntegrityError, UsageError
from holdfast.integrations.conversation import Conversations
from holdfast.integrations.entries import Conversation, Name
from holdfast.integrations.place import Place

PIECE_BYTES: Final = 1 << 20
"""A piece is one record, which a hub takes in one request."""
SIZE: Final = "size"
Key: TypeAlias = "str | Sequence[str]"


class Bodies:
    """Bodies by key, where a slash in a key leads below. Safe to share among threads. A body is held whole in memory.

    Args:
        place: where they are kept.
        name: of the collection.
    """

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.conversations = Conversations(place, name)

    def put(
        self, key: Key, data: bytes, *, expect: int | None = None, about: Mapping[str, Any] | None = None
    ) -> Conversation:
        """Stores a body in place of the one under this key.

        Args:
            key: text, or its parts; with what a log adds at most 1,024 bytes.
            data: the body.
            expect: the revision that must be current (0: there is none); None: whichever is.
            about: JSON values that are kept beside it.

        Raises:
            Conflict: somebody was faster than `expect`.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UsageError(f"a body is bytes, not {type(data).__name__}")
        whole = bytes(data)
        pieces = [
            base64.b64encode(whole[start : start + PIECE_BYTES]).decode("ascii")
            for start in range(0, len(whole), PIECE_BYTES)
        ]
        state = {**(about or {}), SIZE: len(whole)}
        return self.conversations.replace(_name(key), pieces, expect=expect, change=lambda _, __: state)

    def get(self, key: Key, *, at: Any = None, agent: str | None = None) -> bytes | None:
        """A body; None if there is none.

        Args:
            key: which.
            at: a revision, or a time: as it was then.
            agent: another agent's own; None: of this place.

        Raises:
            IntegrityError: it is not as long as it was.
        """
        name = _name(key)
        found = self.conversations.get(name, at=at, agent=agent)
        if found is None:
            return None
        pieces = self.conversations.load(name, at=found.revision, agent=agent) or []
        try:
            data = b"".join(base64.b64decode(piece, validate=True) for piece in pieces)
        except (TypeError, ValueError, binascii.Error) as error:
            raise IntegrityError(f"what lies under {key!r:.200} is no body: {error}") from error
        if len(data) != found.state.get(SIZE):
            raise IntegrityError(f"the body {key!r:.200} has {len(data)} bytes instead of {found.state.get(SIZE)}")
        return data

    def info(self, key: Key, *, at: Any = None) -> Conversation | None:
        """What is known of a body without reading it: `state` has its ``size`` and what was put beside it."""
        return self.conversations.get(_name(key), at=at)

    def list(self, prefix: str = "") -> dict[str, Conversation]:
        """The keys that begin with `prefix`, sorted, and what is known of each body."""
        below = prefix.split("/")[:-1]
        found = {"/".join(each.name): each for each in self.conversations.list(below, deep=True)}
        return {key: found[key] for key in sorted(found) if key.startswith(prefix)}

    def delete(self, key: Key) -> bool:
        """Takes a body away; False if there was none."""
        return self.conversations.delete(_name(key), below=False)

    def delete_below(self, key: Key) -> bool:
        """Takes a body away, and all whose keys continue with a slash; False if there was none of them."""
        return self.conversations.delete(_name(key))


def _name(key: Key) -> Name:
    return key.split("/") if isinstance(key, str) else key
