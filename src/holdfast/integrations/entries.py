"""What a conversation is made of, and how entries are added to it and counted: pure, see `conversation`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from holdfast import codec
from holdfast.errors import UsageError
from holdfast.integrations.place import segment

Name: TypeAlias = Sequence[str]
"""Of a conversation: its own, behind those that it lies below, such as (project, session)."""
Entry: TypeAlias = tuple[Any, str]
"""What was appended, and the id that it is known by; an empty one: by none."""

PART_BYTES: Final = 48 << 10
"""Entries are gathered into parts of about this size, which stay inline; a longer entry is a part by itself."""
OURS: Final = "%!"
"""Begins the segment of keys that names the parts of one life of a conversation; no name is quoted like that."""


class Head(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a conversation consists of: the value of its key. `spans` are runs of parts in the order of the
    conversation: the first, the last, and how many entries of the last count (-1: all).
    """

    name: list[str]
    below: str
    life: str
    spans: list[tuple[int, int, int]] = []
    next: int = 0
    count: int = 0
    state: dict[str, Any] = {}
    created: int
    updated: int
    origin: dict[str, Any] | None = None

    def numbers(self) -> Iterator[tuple[int, int]]:
        """The parts in order: the number of each, and how many of its entries count (-1: all)."""
        for first, last, keep in self.spans:
            for number in range(first, last + 1):
                yield number, keep if number == last else -1

    def extend(self, first: int, last: int, count: int) -> None:
        """Adds a run of parts that hold so many entries."""
        if last < first:
            return
        self.count += count
        self.next = max(self.next, last + 1)
        if self.spans and self.spans[-1][1] == first - 1 and self.spans[-1][2] < 0:
            self.spans[-1] = self.spans[-1][0], last, -1
        else:
            self.spans.append((first, last, -1))

    def shorten(self, held: int) -> None:
        """Takes the newest entry away from the last part, of whose entries so many count."""
        first, last, _ = self.spans.pop()
        if held > 1:
            self.spans.append((first, last, held - 1))
        elif last > first:
            self.spans.append((first, last - 1, -1))
        self.count -= 1


class Part(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Some entries of a conversation, and the ids that they are known by; none at all if none has one."""

    of: str
    number: int
    entries: list[Any]
    ids: list[str] = []

    def kept(self, keep: int) -> list[Entry]:
        """Those of its entries that count (-1: all)."""
        ids = self.ids or [""] * len(self.entries)
        pairs = list(zip(self.entries, ids, strict=True))
        return pairs if keep < 0 else pairs[:keep]


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation as it stood at a revision.

    Attributes:
        name: its name, behind those that it lies below.
        revision: what `expect` takes; grows with every change.
        count: entries.
        state: what is kept beside them.
        created, updated: ms since 1970.
        origin: of a fork, what it was forked from: ``{"name", "revision", "agent"}``.
    """

    name: tuple[str, ...]
    revision: int
    count: int
    state: dict[str, Any]
    created: int
    updated: int
    origin: dict[str, Any] | None = None


class Placed(msgspec.Struct):
    """Parts that are put and that no head names yet."""

    of: str
    first: int
    last: int
    entries: list[Entry]


def told(head: Head, version: int) -> Conversation:
    """A head as users see it; nothing of it is the head's own."""
    return Conversation(
        name=tuple(head.name),
        revision=version,
        count=head.count,
        state=copied(head.state),
        created=head.created,
        updated=head.updated,
        origin=head.origin,
    )


def path_of(name: Name) -> str:
    """The key of a conversation.

    Raises:
        UsageError: no sequence of texts.
    """
    if isinstance(name, str):
        raise UsageError(f"a conversation's name is a sequence of texts, not {name!r:.80}", hint=f"({name!r:.40},)")
    return "/".join(segment(each) for each in name)


def life_of(path: str, life: str) -> str:
    """What the keys of the parts of one life begin with, before their number."""
    return f"{path}/{OURS}{life}"


def new_life() -> str:
    """Names a life of a conversation: from its first entry, or from when all were replaced, until the next such."""
    return os.urandom(6).hex()


def copied(value: Any) -> Any:
    """A copy of JSON values that shares nothing with them."""
    return msgspec.json.decode(msgspec.json.encode(value))


def checked(entries: Sequence[Any], ids: Sequence[str | None] | None) -> list[Entry]:
    """A copy of the entries with their ids, if JSON can say them without changing them.

    Raises:
        UsageError: it cannot; or not one id for each.
    """
    if isinstance(entries, str | bytes | Mapping):
        raise UsageError(f"entries come in a list, not as {type(entries).__name__}")
    _, payload = codec.serialise(list(entries))
    made: list[Any] = msgspec.json.decode(payload)
    marks = [""] * len(made) if ids is None else [each or "" for each in ids]
    if len(marks) != len(made):
        raise UsageError(f"{len(marks)} ids for {len(made)} entries", hint="one each; None where there is none")
    return list(zip(made, marks, strict=True))


def unknown(given: Sequence[Entry], known: set[str]) -> list[Entry]:
    """The entries without those whose id is known, or came before."""
    seen, found = set(known), []
    for entry, mark in given:
        if mark and mark in seen:
            continue
        seen.add(mark)
        found.append((entry, mark))
    return found


def parted(of: str, given: Sequence[Entry]) -> list[Part]:
    """Entries in parts of about `PART_BYTES`, not yet numbered."""
    parts: list[Part] = []
    room = 0
    for entry, mark in given:
        size = len(msgspec.json.encode(entry))
        if not parts or size > room:
            parts.append(Part(of=of, number=0, entries=[], ids=[]))
            room = PART_BYTES
        parts[-1].entries.append(entry)
        parts[-1].ids.append(mark)
        room -= size
    for part in parts:
        if not any(part.ids):
            part.ids = []
    return parts
