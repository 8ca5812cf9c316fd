"""Writes that wait in a store for another one: each is one object, whole or not there, and proves its bytes.

The object is ``hf/pend/1`` and a newline, 4 bytes of length, so many bytes of JSON, the body, and the body's SHA-256.
One put makes it, so that a crash leaves the whole write or nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from holdfast import clock
from holdfast.errors import ObjectCorrupt
from holdfast.objects.layers.owing import hashing, key_name
from holdfast.objects.port import TYPE, Content, ObjectInfo, ObjectStore, Source
from holdfast.objects.raw import pieces_of

PENDING: Final = ".holdfast/pending/"
CONFLICTS: Final = ".holdfast/conflicts/"
_MAGIC: Final = b"hf/pend/1\n"
_HEAD_MAX: Final = 16 << 10
_PROOF: Final = 32


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be written, as the journal has it."""

    op: Literal["put", "delete"]
    key: str
    stamp: int
    """When: see `holdfast.clock`. Of two writes of a key the greater one is the later one."""
    content_type: str = TYPE
    metadata: dict[str, str] = {}
    base: str | None = None
    """The etag that the primary was known to have, empty if it had none; None: not known."""
    before: list[str] = []
    """SHA-256 of the writes of this key that waited before: one of them may have reached the primary unheard."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A write in the journal, and where it lies there."""

    write: Written
    name: str
    begin: int
    """Bytes before the body."""
    size: int
    """Of the body."""

    @property
    def at_ms(self) -> int:
        """When it was acknowledged."""
        return clock.millis(self.write.stamp)

    @property
    def info(self) -> ObjectInfo:
        """The object that it makes."""
        return ObjectInfo(
            key=self.write.key,
            size=self.size,
            etag=f"waiting-{self.name.rpartition('/')[2]}",
            modified=datetime.fromtimestamp(self.at_ms / 1000, UTC),
            content_type=self.write.content_type,
            metadata=self.write.metadata,
        )


def keep(store: ObjectStore, place: str, write: Written, data: Source) -> Waiting:
    """Writes it into the journal; when it returns, it is there."""
    name = f"{place}{key_name(write.key)}/{write.stamp:016x}-{os.urandom(4).hex()}"
    head = msgspec.json.encode(write)
    front = _MAGIC + len(head).to_bytes(4, "big") + head

    def pieces() -> Iterator[bytes]:
        proof = hashlib.sha256()
        yield front
        yield from hashing(pieces_of(data), proof)
        yield proof.digest()

    info = store.put(name, pieces())
    return Waiting(write=write, name=name, begin=len(front), size=info.size - len(front) - _PROOF)


def found(store: ObjectStore, info: ObjectInfo) -> Waiting:
    """What lies under a name of the journal.

    Raises:
        ObjectCorrupt: it is no write.
    """
    head = store.read(info.key, start=0, stop=_HEAD_MAX)
    begin = len(_MAGIC) + 4
    if not head.startswith(_MAGIC) or len(head) < begin:
        raise ObjectCorrupt(f"{info.key!r:.200} in {store.name} is no write that waits", key=info.key)
    end = begin + int.from_bytes(head[len(_MAGIC) : begin], "big")
    try:
        write = msgspec.json.decode(head[begin:end], type=Written)
    except msgspec.DecodeError as error:
        raise ObjectCorrupt(f"{info.key!r:.200} in {store.name}: {error}", key=info.key) from error
    return Waiting(write=write, name=info.key, begin=end, size=info.size - end - _PROOF)


def body(store: ObjectStore, waiting: Waiting, start: int = 0, stop: int | None = None) -> Content:
    """The body of a write, or a range of it."""
    start = min(start, waiting.size)
    last = waiting.size if stop is None else max(start, min(stop, waiting.size))
    content = store.get(waiting.name, start=waiting.begin + start, stop=waiting.begin + last)
    content.info = waiting.info
    return content


def proof(store: ObjectStore, waiting: Waiting) -> bytes:
    """The SHA-256 of the body, as it was when it was written."""
    return store.read(waiting.name, start=waiting.begin + waiting.size)


def proven(store: ObjectStore, waiting: Waiting) -> Iterator[bytes]:
    """The body; raises where the last piece would come if it is not what was written.

    Raises:
        ObjectCorrupt: its bytes do not have the digest that was written with them.
    """
    wanted, seen, last = proof(store, waiting), hashlib.sha256(), b""
    with body(store, waiting) as content:
        for piece in content:
            if last:
                yield last
            seen.update(piece)
            last = piece
    if seen.digest() != wanted:
        raise ObjectCorrupt(f"{waiting.name!r:.200} in {store.name} is not what was written", key=waiting.write.key)
    yield last


def pieces_again(store: ObjectStore, waiting: Waiting, place: str) -> str:
    """Keeps a write in another place of the journal, under the name that it has; that name."""
    name = place + waiting.name.removeprefix(PENDING)
    with store.get(waiting.name) as content:
        store.put(name, content)
    return name
