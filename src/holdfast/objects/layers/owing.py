"""What layers over two stores share: one writer of a key at a time, proofs that two objects are one, reserved keys."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import tempfile
import threading
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from holdfast.errors import StorageRefused
from holdfast.objects.layers.layer import layers_of
from holdfast.objects.port import Content, ObjectInfo, ObjectStore, Source
from holdfast.objects.raw import PIECE_BYTES, Bytes, pieces_of

SPOOL_BYTES: Final = 8 << 20
"""Of a body that can be read once, so much is kept in memory, and the rest in a temporary file."""
PER_CALL: Final = 8
"""How many objects are caught up in passing by a call that is about something else."""


class KeyLocks:
    """One lock a key, for as long as somebody holds or wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, list[int]]] = {}

    @contextlib.contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """A block that no other thread is in for this key."""
        with self._lock:
            lock, users = self._held.setdefault(key, (threading.Lock(), [0]))
            users[0] += 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                users[0] -= 1
                if not users[0]:
                    self._held.pop(key, None)


class CatchUp(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an attempt to catch up."""

    done: int
    """Objects that both stores agree on now, and that did not before."""
    left: int
    """Objects that wait on."""
    conflicts: int = 0
    """Objects of which another copy was kept, as two had been written."""
    failed: dict[str, str] = {}
    """By key: why it waits on, other than for an answer."""


class Replay:
    """A body that can be sent more than once; close it."""

    def __init__(self, data: Source) -> None:
        self._file: IO[bytes] | None = None
        self._data: Source = data
        if isinstance(data, Bytes):
            self._data = bytes(data)
        elif not isinstance(data, Path | list | tuple):
            # Also what makes a new iterator each time may make an empty one: a `Content` does.
            self._file = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - closed by `close`
            try:
                for piece in pieces_of(data):
                    self._file.write(piece)
            except BaseException:
                self._file.close()
                raise

    def again(self) -> Source:
        """The body from its beginning."""
        if self._file is None:
            return self._data
        self._file.seek(0)
        return iter(lambda: self._file.read(PIECE_BYTES) if self._file else b"", b"")

    def close(self) -> None:
        """Lets go of the temporary file."""
        if self._file is not None:
            self._file.close()


def key_name(key: str) -> str:
    """A short name of a key, for keys of our own: the key itself may be too long to be part of one."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def check_free(key: str, *reserved: str) -> None:
    """Whether a key is the callers' to use.

    Raises:
        StorageRefused: it begins with what is the layer's own.
    """
    if isinstance(key, str) and key.startswith(reserved):
        raise StorageRefused(f"not a key: {key!r:.120}: a layer keeps its journal there", hint="another key", key=key)


def check_journal(kind: str, journal: ObjectStore) -> None:
    """Whether a layer of this kind may keep its journal in a store.

    Raises:
        StorageRefused: another layer of this kind lies over it, and has the same names there.
    """
    if any(layer.kind == kind for layer in layers_of(journal)):
        raise StorageRefused(
            f"{kind}: its journal would lie among the journal of the {kind} layer below",
            hint="hand in a journal= of its own",
        )


def first_few(owed: Iterable[str], failed: Container[str]) -> list[str]:
    """Some of the keys, those first that nothing is known against."""
    keys = list(owed)
    good = itertools.islice((key for key in keys if key not in failed), PER_CALL)
    some = list(good)
    return some or keys[:PER_CALL]


def hashing(pieces: Iterable[bytes], into: hashlib._Hash) -> Iterator[bytes]:
    """The same pieces, hashed in passing."""
    for piece in pieces:
        into.update(piece)
        yield piece


def digest_of(content: Content) -> tuple[ObjectInfo, bytes]:
    """The SHA-256 of an object's bytes, and what is known of it; closes it."""
    found = hashlib.sha256()
    with content:
        for piece in content:
            found.update(piece)
    return content.info, found.digest()


def alike(one: ObjectInfo, other: ObjectInfo) -> bool:
    """Whether two objects may be the same, as far as can be told without reading them."""
    return (one.size, one.content_type, one.metadata) == (other.size, other.content_type, other.metadata)


def free_listing(
    store: ObjectStore, prefix: str, after: str, page: int | None, reserved: tuple[str, ...]
) -> Iterator[ObjectInfo]:
    """A listing without the keys that are a layer's own; fetched in pages of this size, if one is given."""
    while True:
        count = 0
        for info in store.list(prefix, after=after, limit=page):
            count += 1
            after = info.key
            if not info.key.startswith(reserved):
                yield info
        if page is None or count < page:
            return
