"""The port of all object stores: named bytes with a type and metadata, whole or not there. Its laws, once.

1. **Whole.** A reader finds an object as one `put` left it: bytes, type and metadata of the same write, or none of it.
2. **At once.** What `put` returned is what `get`, `head` and `list` find, on every client of the store. When `put`
   returns, the object is as safe as the store can make it: on files and SQLite it survives a power cut.
3. **One winner.** ``expect=ABSENT`` lets one writer through of any number who create a key; ``expect=<etag>`` lets
   through only whoever knows the object as it is. A loser gets `ObjectConflict` and changes nothing.
4. **Etags** are opaque. A put that changes anything gives a new one; an object that nobody wrote keeps its own.
5. **Keys** follow `objects.keys`, and a key may be the beginning of another one.
6. **Order.** `list` goes by code points. A prefix is the beginning of a key, in the middle of a segment too.
7. **A deletion** says whether there was an object; to delete what is not there is no error.
8. **No silence.** What a store cannot do, it names in `lacks`, and refuses before anything is written. A store over
   the network may name more once it was opened, for what servers claim is tried out (`objects.cloud.probe`).
9. **Any thread** may use a store at any time; so may a forked child, with connections of its own. A store whose driver
   cannot live in a forked child refuses there with `StoreClosed`: it never hangs.

`holdfast.testing.objects` has these laws as tests, for stores of your own too.
"""

from __future__ import annotations

import os
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

import msgspec

from holdfast.errors import (
    ObjectConflict,
    ObjectCorrupt,
    ObjectNotFound,
    StorageRefused,
)
from holdfast.objects.place import Health as Health
from holdfast.objects.place import Place
from holdfast.objects.raw import Bytes

ABSENT: Final = 0
"""As `expect`: there must be no object under this key."""
Expect: TypeAlias = str | Literal[0] | None
Source: TypeAlias = Bytes | Path | Iterable[bytes]

CREATE: Final = "create"
"""Lacking: ``put(expect=ABSENT)``."""
SWAP: Final = "swap"
"""Lacking: ``put(expect=<etag>)``."""
SWAP_DELETE: Final = "swap-delete"
"""Lacking: ``delete(expect=<etag>)``."""
STREAMS: Final = "streams"
"""Lacking: objects larger than memory; a body is held whole."""
DURABLE: Final = "durable"
"""Lacking: a put that returned survives a power cut where the store is, as far as that can be known."""
NESTED: Final = "nested"
"""Lacking: a key that is the beginning of another one (some servers keep objects as files); law 5, refused."""

TYPE: Final = "application/octet-stream"
METADATA_BYTES_MAX: Final = 2000
"""S3 takes 2 KB of names and values together."""
_TYPE_MAX: Final = 200


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an object without reading it."""

    key: str
    size: int
    """How many bytes `get` gives; what a layer made of them for the store below has another size."""
    etag: str
    modified: datetime
    """In UTC, by the store's clock."""
    content_type: str = TYPE
    """In a listing: as the store happens to know; `head` and `get` are sure of it."""
    metadata: dict[str, str] = {}
    """Names in small letters; in a listing: as the store happens to know."""
    version: str | None = None
    """Of stores that keep versions: this one's."""


class Content:
    """An object's bytes, or a range of them, as they come: iterate once, or `read` all that is left.

    Made by `ObjectStore.get`; close it, or leave its ``with``, when it is not read to the end.
    """

    def __init__(self, info: ObjectInfo, pieces: Iterable[bytes]) -> None:
        self.info = info
        self._pieces = iter(pieces)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def read(self) -> bytes:
        """All bytes that are left."""
        first = next(self._pieces, b"")
        rest = list(self._pieces)
        return b"".join((first, *rest)) if rest else first

    def close(self) -> None:
        """Gives back what reading holds; more than once is no error."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_stores: weakref.WeakSet[ObjectStore] = weakref.WeakSet()


def _forked() -> None:
    for store in list(_stores):
        store.forked()


os.register_at_fork(after_in_child=_forked)


class ObjectStore(Place):
    """Named bytes in one place. The laws are at the head of this module; a subclass calls ``super().__init__()``."""

    lacks: frozenset[str] = frozenset()
    """What it cannot do: of `CREATE`, `SWAP`, `SWAP_DELETE`, `STREAMS`, `DURABLE`, `NESTED`."""
    quick = False
    """Whether its calls are over in less time than a thread takes to wake: asyncio code may then make them in place."""
    lists_all = False
    """Whether its listings are as sure of type and metadata as `head` is; on the clouds they are not."""

    def __init__(self) -> None:
        self._closed = False
        _stores.add(self)

    @abstractmethod
    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        """Stores an object, in place of the one under this key; when it returns, it is there.

        Args:
            key: see `objects.keys`.
            data: the bytes, pieces of them, or a file to copy.
            content_type: a MIME type.
            metadata: names and values in ASCII, at most 2,000 bytes together.
            expect: the etag that must be current, or `ABSENT`; None: whatever is there.

        Raises:
            ObjectConflict: `expect` is not what is there; nothing was written.
            StorageRefused: a key, type or metadata that cannot be, or an `expect` that the store lacks.
            StorageFull: no room; the object is as it was.
            StorageUnavailable: no answer; the object is the old one or the new one.
        """

    @abstractmethod
    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        """An object, or a range of its bytes, to be read piece by piece.

        Args:
            key: the object's.
            start: the first byte, from 0; after the end there are none.
            stop: the byte before which to end; None: the end.

        Raises:
            ObjectNotFound: there is none.
            ObjectCorrupt: its bytes are not what was stored; raised at the latest where the last would come.
            StorageUnavailable: no answer, or it broke off.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectInfo:
        """What is known of an object.

        Raises:
            ObjectNotFound: there is none.
            StorageUnavailable: no answer.
        """

    @abstractmethod
    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        """The objects whose keys begin with `prefix`, in order of their keys; fetched page by page while iterating.

        Args:
            prefix: the beginning of the keys, not of whole segments.
            after: only keys greater than this one: the last of the page before.
            limit: at most so many; None: all.

        Raises:
            StorageRefused: no key begins like that.
            StorageUnavailable: no answer.
        """

    @abstractmethod
    def delete(self, key: str, *, expect: str | None = None) -> bool:
        """Removes an object; False if there was none.

        Args:
            key: the object's.
            expect: the etag that must be current.

        Raises:
            ObjectConflict: another one is current; nothing was removed.
            StorageRefused: an `expect` that the store lacks.
            StorageUnavailable: no answer; it may be gone or not.
        """

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes of an object, or a range of them, proven where the store can.

        Raises:
            ObjectNotFound: there is none.
            ObjectCorrupt: its bytes are not what was stored.
            StorageUnavailable: no answer.
        """
        with self.get(key, start=start, stop=stop) as content:
            return content.read()

    def read_now(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes | None:
        """What `read` returns or raises, if that takes less time than a thread to wake; None: ask `read`.

        For asyncio code, which may make this call in place.
        """
        return None

    def put_now(
        self, key: str, data: bytes, *, content_type: str = TYPE, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo | None:
        """What `put` returns or raises, if that takes less time than a thread to wake; None: ask `put`.

        For asyncio code, which may make this call in place; where it would wait, it has done nothing.
        """
        return None

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key.

        Raises:
            StorageUnavailable: no answer: that is not a no.
        """
        try:
            self.head(key)
        except ObjectNotFound:
            return False
        return True

    def _look(self) -> str | None:
        """Asks the store for something small; raises if it does not answer. What it returns becomes the note."""
        next(iter(self.list(limit=1)), None)
        return None

    def forked(self) -> None:
        """Called in a forked child, before anything else is: to let go of what was the parent's."""


def check_put(
    store: ObjectStore, content_type: str, metadata: Mapping[str, str] | None, expect: Expect
) -> dict[str, str]:
    """The metadata as stored, if type, metadata and `expect` can be.

    Raises:
        StorageRefused: one of them cannot be on any store, or the store lacks it.
    """
    fits = isinstance(content_type, str) and 0 < len(content_type) <= _TYPE_MAX
    if not fits or not content_type.isascii() or not content_type.isprintable():
        raise StorageRefused(f"not a content type: {content_type!r:.80}", hint="such as application/json")
    check_expect(store, expect)
    return check_metadata(metadata)


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The metadata with names in small letters, which is what HTTP leaves of them.

    Raises:
        StorageRefused: a name or a value that a header cannot carry, or too much of it.
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise StorageRefused(f"metadata is text by name, not {type(metadata).__name__}: {metadata!r:.80}")
    kept: dict[str, str] = {}
    total = 0
    for name, value in (metadata or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise StorageRefused(f"metadata is text by name, not {name!r:.40}: {value!r:.40}")
        low = name.lower()
        # Azure wants a name that a C# variable could have; HTTP drops what stands around a value.
        if not low.isascii() or not low.isidentifier():
            raise StorageRefused(f"not a name for metadata: {name!r:.80}", hint="letters, digits and _, no digit first")
        if not value.isascii() or not value.isprintable() or value != value.strip():
            raise StorageRefused(
                f"metadata {name!r:.80} has a value that a header cannot carry: {value!r:.80}",
                hint="printable ASCII without spaces at its ends; percent-encode the rest",
            )
        if low in kept:
            raise StorageRefused(f"metadata has {low!r:.80} twice: names are told apart in small letters")
        kept[low] = value
        total += len(low) + len(value)
    if total > METADATA_BYTES_MAX:
        raise StorageRefused(
            f"{total} bytes of metadata, {METADATA_BYTES_MAX} are allowed", hint="put it in the object"
        )
    return kept


def check_expect(store: ObjectStore, expect: Expect, lack: str = "") -> None:
    """Whether the store can hold a writer to this `expect`.

    Raises:
        StorageRefused: it cannot, or it is no etag.
    """
    if expect is None:
        return
    if expect != ABSENT and (not isinstance(expect, str) or not expect):
        raise StorageRefused(f"not an etag: {expect!r:.80}", hint="what put or head returned, or ABSENT")
    lack = lack or (CREATE if expect == ABSENT else SWAP)
    if lack in store.lacks:
        raise StorageRefused(f"{store.name} lacks {lack!r}: it cannot promise that one writer wins", lacks=lack)


def check_range(start: int, stop: int | None) -> None:
    """Whether it is a range of bytes.

    Raises:
        StorageRefused: it is none.
    """
    if (
        not isinstance(start, int)
        or not isinstance(stop, int | None)
        or start < 0
        or (stop is not None and stop < start)
    ):
        raise StorageRefused(f"not a range of bytes: {start} to {stop}", hint="0 <= start <= stop")


def not_found(store: ObjectStore, key: str) -> ObjectNotFound:
    """The error of a key without an object."""
    return ObjectNotFound(f"no object {key!r:.200} in {store.name}", key=key)


def conflict(store: ObjectStore, key: str, expect: Expect, current: str | None) -> ObjectConflict:
    """The error of whoever was not the first, or came too late."""
    if expect == ABSENT:
        what = f"there is an object {key!r:.200} in {store.name}"
    elif current is None:
        what = f"no object {key!r:.200} in {store.name} any more: you expected {expect}"
    else:
        what = f"the object {key!r:.200} in {store.name} was changed: you expected {expect}"
    return ObjectConflict(what, hint="read it again and decide", key=key, etag=current)


def corrupt(store: ObjectStore, key: str) -> ObjectCorrupt:
    """The error of an object whose bytes are not all there, or not as they were."""
    return ObjectCorrupt(
        f"the object {key!r:.200} in {store.name} has not the bytes that were stored",
        hint="put a copy of it back",
        key=key,
    )
