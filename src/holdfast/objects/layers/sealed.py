"""Objects encrypted on their way to a store: AES-256-GCM, in the form of `holdfast.seal.envelope` (ADR 0028).

Whoever has the store without the keys learns the objects' keys, types, metadata, sizes and times, and nothing of their
bytes; can remove objects, and can put an older one of the same key in the place of a newer one; but nothing that was
changed, cut off or moved to another key is ever returned as data. Type and metadata are bound to the bytes: an object
whose type was changed in the store's console does not open any more.

An object carries its data key, wrapped by a key of the ring, and opens without anything else. Rotating the ring's keys
writes the data keys, wrapped anew, below `RESERVED`, and no object again.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import ClassVar, Final

import msgspec

from holdfast.errors import ObjectCorrupt, ObjectNotFound, StorageDenied, StorageRefused, StorageUnavailable
from holdfast.objects.keys import check_key
from holdfast.objects.layers.layer import SEALED, Layer, Through
from holdfast.objects.port import TYPE, Content, Expect, ObjectInfo, ObjectStore, Source, check_put, check_range
from holdfast.objects.raw import pieces_of
from holdfast.seal.envelope import (
    CHUNK,
    FULL,
    HEADER,
    MAGIC,
    DataKey,
    Header,
    Sealer,
    Wrap,
    new_data_key,
    new_header,
    plain_size,
    wrap,
)
from holdfast.seal.keys import KeyRing

RESERVED: Final = ".holdfast-sealed/"
"""Where rewrapped data keys lie, in the store below; no object of the caller's can be there."""
_AFTER_RESERVED: Final = RESERVED + "\U0010ffff"
_FERNET: Final = b"gAAAA"
"""How every token of Fernet begins: its version, and a time before the year 2106."""
_DATA_KEYS_HELD: Final = 4096
_HEADERS_AT_ONCE: Final = 16
_PAGE: Final = 256
_TRIES: Final = 16


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation found and did."""

    objects: int
    """Looked at."""
    rewrapped: int
    """Data keys written, wrapped by the primary key."""
    foreign: int
    """Objects that are not sealed: Fernet tokens, or written past this layer. They were left as they are."""


class Sealed(Layer):
    """Encrypts what is written, and proves and decrypts what is read.

    Args:
        inner: where ciphertext goes.
        keys: the first one seals, all of them open; with Fernet keys, objects that are Fernet tokens are read too (a
            listing then asks for every object).
        context: a name of this store, bound to every object, so that none can be moved to a store of another name under
            the same keys. It must be the same for ever, wherever the objects are moved to.
    """

    kind: ClassVar[str] = SEALED

    def __init__(self, inner: ObjectStore, keys: KeyRing, *, context: str = "") -> None:
        super().__init__(inner)
        self._ring = keys
        self._context = context
        self._lock = threading.Lock()
        self._opened: dict[bytes, DataKey] = {}
        self._mine: tuple[DataKey, Wrap] | None = None

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
        self._begin(key)
        kept = check_put(self, content_type, metadata, expect)
        data_key, wrapped = self._data_key()
        header = new_header(wrapped)
        pieces = Sealer(data_key, header, self._binding(key, content_type, kept)).seal(pieces_of(data))
        # What is in memory already goes down in one piece: stores have a shorter way for that.
        sealed: Source = b"".join(pieces) if isinstance(data, bytes | bytearray | memoryview) else pieces
        return self._plain(self.inner.put(key, sealed, content_type=content_type, metadata=kept, expect=expect))

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._begin(key)
        check_range(start, stop)
        first = start // CHUNK
        end = None if stop is None else HEADER + FULL * max(1, -(-stop // CHUNK))
        for _ in range(_TRIES):
            # The header, and the chunks too if they begin right behind it; else those are a second request.
            content = self.inner.get(key, start=0, stop=HEADER if first else end)
            try:
                head, pieces = _beginning(content)
                if self._is_fernet(head):
                    content.close()
                    return self._fernet(key, start, stop)
                with self._about(key):
                    header, info = Header.parse(head), self._plain(content.info)
                    sealer = Sealer(
                        self._unwrapped(header), header, self._binding(key, info.content_type, info.metadata)
                    )
                if first:
                    content.close()
                    content = self.inner.get(key, start=min(HEADER + FULL * first, content.info.size), stop=end)
                    pieces = content
                    if content.info.etag != info.etag:
                        content.close()
                        continue  # replaced between the two requests: this header is not of those chunks
            except BaseException:
                content.close()
                raise
            return Through(info, self._chunks(sealer, info, pieces, start, stop), content)
        raise StorageUnavailable(f"{key!r:.200} in {self.name} was replaced each of {_TRIES} times it was read")

    def head(self, key: str) -> ObjectInfo:
        self._begin(key)
        if not self._ring.reads_fernet:
            return self._plain(self.inner.head(key))
        with self.inner.get(key, start=0, stop=HEADER) as content:
            head, _ = _beginning(content)
        if self._is_fernet(head):
            return self._fernet(key, 0, None).info
        with self._about(key):
            Header.parse(head)
        return self._plain(content.info)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        """As every store does. An object that is not sealed is listed with the size that it has below."""
        self._open()
        first = self.inner.list(prefix, after=after, limit=limit)
        return self._listed(first, prefix, limit)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._begin(key)
        return self.inner.delete(key, expect=expect)

    def rotate(self, prefix: str = "") -> Rotation:
        """Wraps the data keys of all objects with the ring's primary key, and writes no object again.

        First give the ring with the new primary to everybody who writes, keeping the old key in it; then rotate; then
        take the old key out of the ring. It may be stopped and begun again at any time: what was wrapped is.

        Args:
            prefix: only what the objects below it need; an old key may go when all ("") were looked at.

        Raises:
            StorageDenied: an object's key is not in the ring.
            ObjectCorrupt: an object's header, or a rewrapped key, is damaged.
        """
        objects = foreign = rewrapped = 0
        done: set[bytes] = set()
        listed = self._listed(self.inner.list(prefix), prefix, None, plain=False)
        with ThreadPoolExecutor(_HEADERS_AT_ONCE, thread_name_prefix="holdfast-rotate") as pool:
            while page := [info.key for info in islice(listed, _PAGE)]:
                for key, head in zip(page, pool.map(self._header, page), strict=True):
                    if head is None:
                        continue  # deleted since it was listed
                    objects += 1
                    if not head.startswith(MAGIC[:-2]):
                        foreign += 1
                        continue
                    with self._about(key):
                        header = Header.parse(head)
                        if header.wrap.key_id != self._ring.primary and header.wrap.data_id not in done:
                            rewrapped += self._rewrap(header)
                            done.add(header.wrap.data_id)
        return Rotation(objects=objects, rewrapped=rewrapped, foreign=foreign)

    def forked(self) -> None:
        # Salts come from the system's randomness, so the child may go on with its parent's data key.
        self._lock = threading.Lock()

    # -- inside -------------------------------------------------------------------------------------------------

    def _header(self, key: str) -> bytes | None:
        """As much of an object as a header has; None if there is no object."""
        try:
            with self.inner.get(key, start=0, stop=HEADER) as content:
                return _beginning(content)[0]
        except ObjectNotFound:
            return None

    def _begin(self, key: str) -> None:
        self._open()
        if check_key(key).startswith(RESERVED):
            raise StorageRefused(f"not a key here: {key!r:.120}: what is below {RESERVED} is this layer's", key=key)

    def _binding(self, key: str, content_type: str, metadata: Mapping[str, str]) -> tuple[str, ...]:
        return (self._context, key, content_type, *chain.from_iterable(sorted(metadata.items())))

    def _plain(self, info: ObjectInfo) -> ObjectInfo:
        size = plain_size(info.size)
        if size is None:
            raise ObjectCorrupt(
                f"{info.key!r:.200} in {self.name} is not sealed: nothing sealed has {info.size} bytes",
                hint="cut off, or written past this layer",
                key=info.key,
            )
        return msgspec.structs.replace(info, size=size)

    def _listed(
        self, page: Iterator[ObjectInfo], prefix: str, limit: int | None, *, plain: bool = True
    ) -> Iterator[ObjectInfo]:
        left = limit
        while True:
            for info in page:
                if info.key.startswith(RESERVED):
                    break
                if left is not None:
                    left -= 1
                if not plain:
                    yield info
                elif self._ring.reads_fernet:
                    with contextlib.suppress(ObjectNotFound):
                        yield self.head(info.key)
                else:
                    size = plain_size(info.size)
                    yield info if size is None else msgspec.structs.replace(info, size=size)
            else:
                return
            page = self.inner.list(prefix, after=_AFTER_RESERVED, limit=left)

    def _chunks(
        self, sealer: Sealer, info: ObjectInfo, pieces: Iterable[bytes], start: int, stop: int | None
    ) -> Iterator[bytes]:
        """The plain bytes of the range."""
        chunks = max(1, -(-info.size // CHUNK))
        first = min(start // CHUNK, chunks)
        end = chunks if stop is None else min(chunks, max(1, -(-stop // CHUNK)))
        at = first * CHUNK
        with self._about(info.key):
            for chunk in sealer.open(pieces, first, max(0, end - first), chunks):
                low = max(0, start - at)
                high = len(chunk) if stop is None else min(len(chunk), stop - at)
                at += len(chunk)
                if low < high:
                    yield chunk if high - low == len(chunk) else chunk[low:high]

    @contextlib.contextmanager
    def _about(self, key: str) -> Iterator[None]:
        """Errors of an envelope say which object it is."""
        try:
            yield
        except (ObjectCorrupt, StorageDenied) as error:
            if "key" in error.context:
                raise
            told = type(error)(f"{key!r:.200} in {self.name}: {error.message}", hint=error.hint, **error.context)
            told.context["key"] = key
            raise told from error

    def _data_key(self) -> tuple[DataKey, Wrap]:
        """What this process seals with, since its first write."""
        with self._lock:
            if self._mine is None:
                made = new_data_key()
                self._mine = made, wrap(made, self._ring)
            return self._mine

    def _unwrapped(self, header: Header) -> DataKey:
        wrapped = header.wrap
        held = self._opened.get(wrapped.data_id)
        if held is None:
            if wrapped.key_id in self._ring.ids:
                held = wrapped.open(self._ring)
            else:
                held = (self._rotated(wrapped.data_id) or wrapped).open(self._ring)
            if len(self._opened) >= _DATA_KEYS_HELD:
                self._opened = {}
            self._opened[wrapped.data_id] = held
        return held

    def _rotated(self, data_id: bytes) -> Wrap | None:
        """A data key as a rotation wrapped it."""
        try:
            found = Wrap.from_bytes(self.inner.read(RESERVED + data_id.hex()))
        except ObjectNotFound:
            return None
        if found.data_id != data_id:
            raise ObjectCorrupt(f"the rewrapped data key {data_id.hex()} is another one")
        return found

    def _rewrap(self, header: Header) -> bool:
        """Whether this data key had to be written; it is read back before it counts."""
        data_id = header.wrap.data_id
        found = self._rotated(data_id)
        if found is not None and found.key_id == self._ring.primary:
            found.open(self._ring)
            return False
        data_key = self._unwrapped(header)
        self.inner.put(RESERVED + data_id.hex(), wrap(data_key, self._ring).to_bytes())
        back = self._rotated(data_id)
        if back is None or back.open(self._ring).key != data_key.key:
            raise ObjectCorrupt(f"the rewrapped data key {data_id.hex()} reads back as another one")
        return True

    def _is_fernet(self, head: bytes) -> bool:
        return self._ring.reads_fernet and head.startswith(_FERNET)

    def _fernet(self, key: str, start: int, stop: int | None) -> Content:
        with self.inner.get(key) as content, self._about(key):
            plain = self._ring.open_fernet(content.read())
        return Content(msgspec.structs.replace(content.info, size=len(plain)), (plain[start:stop],))


def _beginning(content: Content) -> tuple[bytes, Iterable[bytes]]:
    """As many bytes as a header has, or all there are; and what comes after them."""
    pieces = iter(content)
    head = b""
    for piece in pieces:
        head += piece
        if len(head) >= HEADER:
            break
    return head[:HEADER], chain((head[HEADER:],), pieces)
