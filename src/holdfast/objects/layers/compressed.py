"""Objects compressed on their way to a store, with zstd, where that pays.

An object that is compressed has the name `MARK` in its metadata, which the caller never sees. All others lie in the
store as they are: a store that has objects already may get this layer, and other tools read what is marked with
``zstd -d``. The mark is the plain size; of a long object that came in pieces, whose size nobody knew, it is ``end``,
and the size lies in the last 16 bytes, which zstd skips.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import ClassVar, Final

import msgspec

from holdfast.codec import expanded, squeezed
from holdfast.errors import ObjectCorrupt, ObjectNotFound, StorageRefused, StorageUnavailable, UsageError
from holdfast.objects.keys import check_key
from holdfast.objects.layers.layer import COMPRESSED, Layer, Through
from holdfast.objects.port import (
    METADATA_BYTES_MAX,
    TYPE,
    Content,
    Expect,
    ObjectInfo,
    ObjectStore,
    Source,
    check_put,
    check_range,
)
from holdfast.objects.raw import PIECE_BYTES, pieces_of

MARK: Final = "holdfast_zstd"
"""The name in an object's metadata that says it is compressed."""
LEAST: Final = 512
SAVES: Final = 0.10
GZIP_BYTES_MAX: Final = 1 << 30
"""The most bytes that an object of somebody else's gzip may become."""
_END: Final = "end"
_TRAILER: Final = b"\x50\x2a\x4d\x18\x08\x00\x00\x00"
"""A skippable frame (RFC 8878, 3.1.2) of eight bytes: the plain size, little-endian as all of that format."""
_TRAILER_BYTES: Final = 16
_MARK_BYTES: Final = len(MARK) + 20
_GZIP: Final = b"\x1f\x8b\x08"
_HEADS_AT_ONCE: Final = 16
_PAGE: Final = 64
_TRIES: Final = 16


class Compressed(Layer):
    """Compresses what is written, if that saves enough, and gives back what was put.

    A range is read by decompressing up to it: cheap at the beginning of an object, as dear as the whole at its end.
    Where a store's listings do not have metadata (`lists_all`), a listing asks for every object, 16 at once.

    Args:
        inner: where the objects go.
        least: objects of fewer bytes are not compressed.
        saves: the part of its bytes that compressing an object must save, else it is stored as it is.
        gzip: whether objects that are gzip files, written by somebody else, are read decompressed. Their sizes are then
            found by reading them, in `head` and in listings too: it is for moving away from them.

    Raises:
        StorageRefused: `saves` is no part of one.
    """

    kind: ClassVar[str] = COMPRESSED

    def __init__(self, inner: ObjectStore, *, least: int = LEAST, saves: float = SAVES, gzip: bool = False) -> None:
        if not 0 <= saves < 1:
            raise StorageRefused(f"not a part of an object: saves={saves!r}", hint="0.1 is a tenth")
        super().__init__(inner)
        self._least = max(1, least)
        self._saves = saves
        self._gzip = gzip

    @property
    def quick(self) -> bool:  # type: ignore[override]
        return False

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        self._open()
        check_key(key)
        kept = check_put(self, content_type, metadata, expect)
        if MARK in kept:
            raise StorageRefused(f"the name {MARK!r} in metadata is this layer's", key=key)
        marked, body, count = dict(kept), data, _Count()
        # Without room for the mark in the metadata, the object goes as it is.
        if sum(len(name) + len(value) for name, value in kept.items()) + _MARK_BYTES <= METADATA_BYTES_MAX:
            body, mark = self._squeeze(data, count)
            if mark:
                marked[MARK] = mark
        info = self.inner.put(key, body, content_type=content_type, metadata=marked, expect=expect)
        return self._seen(info, info.size if MARK not in marked else count.bytes)

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._open()
        check_range(start, stop)
        if self._gzip:
            return self._get_any(key, start, stop)
        content = self.inner.get(key, start=start, stop=stop)
        if MARK not in content.info.metadata:
            return content
        if start or stop is not None:
            content.close()
            content = self.inner.get(key)  # another one by now, perhaps, and not compressed: `_expand` takes either
        return self._expand(content, start, stop)

    def head(self, key: str) -> ObjectInfo:
        self._open()
        for _ in range(_TRIES):
            info = self.inner.head(key)
            size = self._gzip_size(info) if self._gzip and MARK not in info.metadata else self._size(info)
            if size is not None:
                return self._seen(info, size)
        raise _restless(self, key)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        return self._listed(self.inner.list(prefix, after=after, limit=limit))

    # -- inside -------------------------------------------------------------------------------------------------

    def _squeeze(self, data: Source, count: _Count) -> tuple[Source, str]:
        """What to store, and the mark of it; none if it is stored as it is."""
        if isinstance(data, bytes | bytearray | memoryview):
            whole = bytes(data)
            rest: Iterator[bytes] = iter(())
        else:
            rest = iter(pieces_of(data))
            whole, done = _first(rest)
            if not done:
                return self._squeeze_pieces(whole, rest, count)
        if len(whole) < self._least:
            return whole, ""
        small = b"".join(squeezed((whole,), size=len(whole)))
        if not self._pays(len(small), len(whole)):
            return whole, ""
        count.bytes = len(whole)
        return small, str(len(whole))

    def _squeeze_pieces(self, begun: bytes, rest: Iterator[bytes], count: _Count) -> tuple[Source, str]:
        """The same of what is too long to be held: its beginning stands for all of it."""
        pieces = chain((begun,), rest)
        if not self._pays(sum(map(len, squeezed((begun,)))), len(begun)):
            return pieces, ""
        return _with_trailer(pieces, count), _END

    def _pays(self, small: int, large: int) -> bool:
        return small <= large * (1 - self._saves)

    def _size(self, info: ObjectInfo) -> int | None:
        """The plain size; None if the object was replaced while it was looked for."""
        mark = info.metadata.get(MARK)
        if mark is None:
            return info.size
        if mark != _END:
            return self._marked(info.key, mark)
        start = max(0, info.size - _TRAILER_BYTES)
        try:
            with self.inner.get(info.key, start=start, stop=info.size) as content:
                tail, etag = content.read(), content.info.etag
        except ObjectNotFound:
            return None
        if etag != info.etag:
            return None
        if len(tail) != _TRAILER_BYTES or not tail.startswith(_TRAILER):
            raise self._damaged(info.key, "its end is missing")
        return int.from_bytes(tail[len(_TRAILER) :], "little")

    def _marked(self, key: str, mark: str) -> int:
        if not mark.isdecimal() or len(mark) > 19:
            raise self._damaged(key, f"it is marked as of {mark!r:.40} bytes")
        return int(mark)

    def _expand(self, content: Content, start: int, stop: int | None) -> Content:
        """A compressed object's bytes, or a range of them."""
        key, tries = content.info.key, 0
        try:
            while (size := self._size(content.info)) is None:
                content.close()
                tries += 1
                if tries == _TRIES:
                    raise _restless(self, key)
                content = self.inner.get(key)
            pieces: Iterable[bytes] = content
            if content.info.metadata.get(MARK) == _END:
                pieces = _limited(content, content.info.size - _TRAILER_BYTES)
            if MARK in content.info.metadata:
                pieces = self._proven(key, pieces, size)
            return Through(self._seen(content.info, size), _sliced(pieces, start, stop, size), content)
        except BaseException:
            content.close()
            raise

    def _proven(self, key: str, pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
        """The plain bytes, exactly so many."""
        left = size
        try:
            for piece in expanded("zstd", pieces, size):
                left -= len(piece)
                yield piece
        except UsageError as error:
            if type(error) is not UsageError:
                raise  # of the store below, such as StoreClosed; the codec's have no class of their own
            raise self._damaged(key, str(error)) from error
        if left:
            raise self._damaged(key, f"it holds {size - left} bytes, {size} were recorded")

    def _get_any(self, key: str, start: int, stop: int | None) -> Content:
        """An object that may be somebody else's gzip."""
        for _ in range(_TRIES):
            content = self.inner.get(key)
            try:
                if MARK in content.info.metadata:
                    return self._expand(content, start, stop)
                size = self._gzip_size(content.info)
                if size is None:
                    content.close()
                    continue
                head, pieces = _peeked(content, len(_GZIP))
                if head == _GZIP:
                    pieces = self._gunzipped(key, pieces)
                return Through(self._seen(content.info, size), _sliced(pieces, start, stop, size), content)
            except BaseException:
                content.close()
                raise
        raise _restless(self, key)

    def _gzip_size(self, info: ObjectInfo) -> int | None:
        """The plain size of an object without a mark; None if it was replaced meanwhile."""
        try:
            with self.inner.get(info.key) as content:
                if content.info.etag != info.etag:
                    return None
                head, pieces = _peeked(content, len(_GZIP))
                return sum(map(len, self._gunzipped(info.key, pieces))) if head == _GZIP else info.size
        except ObjectNotFound:
            return None

    def _gunzipped(self, key: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        try:
            yield from expanded("gzip", pieces, GZIP_BYTES_MAX)
        except UsageError as error:
            if type(error) is not UsageError:
                raise
            raise self._damaged(key, f"{error}; without gzip=True it is read as it is") from error

    def _listed(self, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        sure = self.inner.lists_all and not self._gzip
        while page := list(islice(found, _PAGE)):
            unknown = [
                info.key for info in page if info.metadata.get(MARK) == _END or not (sure or MARK in info.metadata)
            ]
            heads: dict[str, ObjectInfo | None] = {}
            if unknown:
                with ThreadPoolExecutor(_HEADS_AT_ONCE, thread_name_prefix="holdfast-sizes") as pool:
                    heads = dict(zip(unknown, pool.map(self._head_or_none, unknown), strict=True))
            for info in page:
                seen = heads[info.key] if info.key in heads else self._seen(info, self._size(info) or 0)
                if seen is not None:
                    yield seen

    def _head_or_none(self, key: str) -> ObjectInfo | None:
        with contextlib.suppress(ObjectNotFound):
            return self.head(key)
        return None  # deleted since it was listed

    def _seen(self, info: ObjectInfo, size: int) -> ObjectInfo:
        """As the caller sees it."""
        if MARK not in info.metadata:
            return info if size == info.size else msgspec.structs.replace(info, size=size)
        shown = {name: value for name, value in info.metadata.items() if name != MARK}
        return msgspec.structs.replace(info, size=size, metadata=shown)

    def _damaged(self, key: str, why: str) -> ObjectCorrupt:
        return ObjectCorrupt(f"the compressed object {key!r:.200} in {self.name} is damaged: {why}", key=key)


class _Count:
    """How many bytes went through."""

    bytes = 0


def _with_trailer(pieces: Iterable[bytes], count: _Count) -> Iterator[bytes]:
    def counted() -> Iterator[bytes]:
        for piece in pieces:
            count.bytes += len(piece)
            yield piece

    yield from squeezed(counted())
    yield _TRAILER + count.bytes.to_bytes(8, "little")


def _first(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """The beginning of what comes, and whether that is all."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= PIECE_BYTES:
            return bytes(held), False
    return bytes(held), True


def _peeked(pieces: Iterable[bytes], size: int) -> tuple[bytes, Iterable[bytes]]:
    """The first bytes, and all of them."""
    rest, head = iter(pieces), b""
    while len(head) < size and (piece := next(rest, None)) is not None:
        head += piece
    return head[:size], chain((head,), rest)


def _limited(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The first so many bytes; the rest is read, and left."""
    for piece in pieces:
        if size > 0:
            yield piece[:size]
        size -= len(piece)


def _sliced(pieces: Iterable[bytes], start: int, stop: int | None, size: int) -> Iterator[bytes]:
    at, stop = 0, size if stop is None else stop
    for piece in pieces:
        low, high = max(0, start - at), min(len(piece), stop - at)
        at += len(piece)
        if low < high:
            yield piece[low:high]
        if size > at >= stop:
            return  # not decompressed any further; whoever reads to the end has it proven


def _restless(store: ObjectStore, key: str) -> StorageUnavailable:
    return StorageUnavailable(f"{key!r:.200} in {store.name} was replaced each of {_TRIES} times it was looked at")
