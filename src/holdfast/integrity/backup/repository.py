"""A repository of backups in an object store: one node's, or one hub's.

    repository.json               its id, whose key signs, and whether it is sealed; written once
    backups/<ms>-<hash>           signed manifests; a backup is there when its manifest is
    segments/<aa>/<sha256>        segments, tables and documents: each named by the SHA-256 of its stored bytes
    blobs/<aa>/<digest>.<random>  payloads above 64 KiB
    drills/<ms>-<hash>            signed records of drills
    marks/<object>                objects to which no backup refers, and since when (`retention`)

No object is ever overwritten, and no name used twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from holdfast import codec, seal
from holdfast.errors import (
    Conflict,
    Denied,
    HoldfastError,
    IntegrityError,
    NotFound,
    ObjectConflict,
    ObjectNotFound,
    UsageError,
)
from holdfast.integrity.backup import manifest as forms
from holdfast.integrity.backup.manifest import BlobEntry, Drill, Manifest, Packed
from holdfast.objects.port import ABSENT, CREATE, ObjectStore

ABOUT: Final = "repository.json"
BACKUPS: Final = "backups/"
SEGMENTS: Final = "segments/"
BLOBS: Final = "blobs/"
DRILLS: Final = "drills/"
OBJECT_MAX: Final = 256 << 20
_PIECE: Final = 1 << 20
_BLOB_NAME: Final = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{16}")
_DOCUMENT: Final = b"hf/doc/1\0"
_NOT_SEALED: Final = "this repository is not sealed: leave the keys out"
_SEALED: Final = "give the file of its keys: --key FILE"

T = TypeVar("T")


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a repository says of itself: format, id, the public key that signs (hex), and whether it is sealed."""

    format: int
    id: str
    signer: str
    sealed: bool


class Repository:
    """The backups at one place. Safe to share among threads.

    Args:
        store: the object store; its owner closes it.
        ring: the keys of a sealed repository.
        signer: whose backups these must be (a public key in hex); empty: whose the repository says.
    """

    def __init__(self, store: ObjectStore, ring: seal.KeyRing | None = None, *, signer: str = "") -> None:
        self.store = store
        self.ring = ring
        self._signer = signer
        self._about: About | None = None
        self._mine: Any = None  # the data key that this process seals with
        self._opened: dict[bytes, Any] = {}

    # -- which repository ---------------------------------------------------------------------------------------

    @property
    def about(self) -> About:
        """What it says of itself.

        Raises:
            NotFound: there is none here.
        """
        if self._about is None:
            found = self._look()
            if found is None:
                raise NotFound(
                    f"there are no backups in {self.store.name}", hint="holdfast backup create makes the first"
                )
            self._about = found
        return self._about

    @property
    def keys(self) -> list[bytes]:
        """Whose signatures count."""
        return [bytes.fromhex(self.about.signer)]

    def begin(self, public_key: bytes) -> About:
        """The repository, made if there is none.

        Args:
            public_key: whose signatures are to count, of a new one.

        Raises:
            Conflict: something else lies there.
        """
        found = self._look()
        if found is None:
            if next(iter(self.store.list(BACKUPS, limit=1)), None) is not None:
                raise IntegrityError(f"{ABOUT} is missing in {self.store.name}, though there are backups")
            made = About(format=1, id=os.urandom(8).hex(), signer=public_key.hex(), sealed=self.ring is not None)
            expect: Any = None if CREATE in self.store.lacks else ABSENT
            with contextlib.suppress(ObjectConflict):  # another process was first
                self.store.put(ABOUT, msgspec.json.encode(made), content_type="application/json", expect=expect)
            found = self._look()
        assert found is not None
        if found.sealed != (self.ring is not None):
            raise UsageError(f"{self.store.name} is {'' if found.sealed else 'not '}sealed",
                             hint=_SEALED if found.sealed else _NOT_SEALED)  # fmt: skip
        self._about = found
        return found

    def _look(self) -> About | None:
        try:
            raw = self.store.read(ABOUT)
        except ObjectNotFound:
            return None
        try:
            found = msgspec.json.decode(raw, type=About)
            bytes.fromhex(found.signer)
        except (msgspec.MsgspecError, ValueError) as error:
            raise IntegrityError(f"{ABOUT} in {self.store.name} is damaged: {error}") from error
        if self._signer and found.signer != self._signer:
            raise IntegrityError(
                f"the backups in {self.store.name} are signed by {found.signer}, not by {self._signer:.64}",
                hint="is it the right place? whoever may write there may have put others in their stead",
            )
        if found.format != forms.FORMAT:
            raise IntegrityError(f"{self.store.name} is a repository of a newer format", hint="update holdfast")
        return found

    # -- backups and drills -------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The backups, oldest first; none of them is read. What has not the name of a backup is none."""
        found = (info.key[len(BACKUPS) :] for info in self.store.list(BACKUPS))
        return [name for name in found if forms.NAME.fullmatch(name)]

    def backup(self, name: str) -> Manifest:
        """A backup's manifest, proven.

        Raises:
            IntegrityError: it is not what was signed.
            NotFound: there is none with this name.
        """
        return self._signed(Manifest, BACKUPS, name)

    def backups(self) -> list[tuple[str, Manifest]]:
        """All backups, oldest first.

        Raises:
            IntegrityError: one of them is not what was signed.
        """
        return [(name, self.backup(name)) for name in self.names()]

    def readable(self) -> tuple[list[tuple[str, Manifest]], list[str]]:
        """The backups that are what was signed, and the names of those that are not; oldest first."""
        found, damaged = [], []
        for name in self.names():
            try:
                found.append((name, self.backup(name)))
            except IntegrityError:
                damaged.append(name)
        return found, damaged

    def forget(self, name: str) -> None:
        """Removes a backup from the list; what only it referred to goes with a later prune."""
        self.store.delete(BACKUPS + name)

    def drills(self) -> list[Drill]:
        """All drills, oldest first; one that is not what was signed says nothing."""
        found = [self.drilled(info.key[len(DRILLS) :]) for info in self.store.list(DRILLS)]
        return [drill for drill in found if drill is not None]

    def drilled(self, name: str) -> Drill | None:
        """A drill by its name; None if it is not what was signed."""
        try:
            return self._signed(Drill, DRILLS, name)
        except IntegrityError:
            return None

    def verified(self) -> set[str]:
        """The names of the backups that a drill has brought back, and none since has failed to."""
        found: dict[str, bool] = {}
        for drill in self.drills():
            found |= {each.backup: each.ok for each in drill.backups}
        return {name for name, ok in found.items() if ok}

    def add(self, what: Manifest | Drill, signer: seal.Signer) -> str:
        """Signs and stores it; its name. A backup is made when this returns.

        Raises:
            Conflict: the key is not the repository's.
        """
        if signer.public_key not in self.keys:
            raise Conflict(
                f"the backups in {self.store.name} are signed by another key",
                hint="they are another node's or hub's: give each an address of its own",
            )
        name, data = forms.sign(what, signer)
        self.store.put((BACKUPS if isinstance(what, Manifest) else DRILLS) + name, data)
        return name

    def _signed(self, kind: type[T], place: str, name: str) -> T:
        try:
            data = self._read(place + name, forms.JSON_MAX)
        except ObjectNotFound:
            raise NotFound(f"no backup {name!r:.60} in {self.store.name}", hint="holdfast backup ls") from None
        found = forms.read(kind, name, data, self.keys)
        if getattr(found, "repository", "") != self.about.id:
            raise IntegrityError(f"{place}{name} belongs to another repository: it was copied here")
        return found

    # -- segments, tables and documents --------------------------------------------------------------------------

    def put(self, content: bytes, word: str) -> Packed:
        """Stores a content under the SHA-256 of its stored bytes.

        Args:
            content: the plain bytes.
            word: what it is: it cannot be passed off as something else.
        """
        data = content
        if self.ring is not None:
            data = b"".join(self._sealer(word).seal([content]))
        digest = hashlib.sha256(data).hexdigest()
        self.store.put(place_of(digest), data)
        return Packed(digest, len(data))

    def stored(self, packed: Packed) -> bytes:
        """The stored bytes of an object, proven to be those that it is named by.

        Raises:
            IntegrityError: missing, or damaged.
        """
        try:
            data = self._read(place_of(packed.id), min(packed.size, OBJECT_MAX))
        except ObjectNotFound:
            raise IntegrityError(
                f"the segment {packed.id} is missing in {self.store.name}",
                hint="restore an older backup, or --at before",
            ) from None
        if len(data) != packed.size or hashlib.sha256(data).hexdigest() != packed.id:
            raise IntegrityError(f"the segment {packed.id} in {self.store.name} is damaged")
        return data

    def get(self, packed: Packed, word: str) -> bytes:
        """The plain bytes of an object.

        Raises:
            Denied: it is sealed, and the key is not in the ring.
            IntegrityError: missing, or damaged.
        """
        return self.opened(self.stored(packed), word)

    def opened(self, data: bytes, word: str) -> bytes:
        """The plain bytes of a stored object that was read already."""
        if not self.about.sealed:
            return data
        return b"".join(self._open(word, [data], len(data)))

    def put_document(self, value: Any) -> Packed:
        """Stores a value that msgpack can say."""
        plain = msgspec.msgpack.encode(value)
        return self.put(_DOCUMENT + b"".join(codec.squeezed([plain], size=len(plain))), "document")

    def document(self, packed: Packed, kind: type[T]) -> T:
        """What `put_document` was given.

        Raises:
            IntegrityError: missing, or damaged.
        """
        content = self.get(packed, "document")
        try:
            if content[: len(_DOCUMENT)] != _DOCUMENT:
                raise IntegrityError(f"{packed.id} is no document", hint="update holdfast")
            plain = codec.inflate("zstd", content[len(_DOCUMENT) :], OBJECT_MAX)
            return msgspec.msgpack.decode(plain, type=codec.ready(kind))
        except (msgspec.MsgspecError, HoldfastError) as error:
            raise IntegrityError(f"the document {packed.id} cannot be read: {error}", hint="update holdfast") from error

    # -- blobs ---------------------------------------------------------------------------------------------------

    def put_blob(self, digest: bytes, pieces: Iterable[bytes]) -> BlobEntry:
        """Stores a blob, proven on the way to have this digest.

        Raises:
            IntegrityError: it has another one; nothing that was stored is referred to.
        """
        name = f"{digest.hex()}.{os.urandom(8).hex()}"
        plain, stored, size = hashlib.sha256(), hashlib.sha256(), 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            source = _hashed(pieces, plain)
            for piece in self._sealer("blob").seal(source) if self.ring is not None else source:
                stored.update(piece)
                size += len(piece)
                yield piece

        self.store.put(blob_place(name), counted())
        if plain.digest() != digest:
            self.store.delete(blob_place(name))
            raise IntegrityError(
                f"the bytes of the blob {digest.hex()} are not what was stored", hint="holdfast verify"
            )
        return BlobEntry(digest.hex(), name, stored.hexdigest(), size)

    def blob(self, entry: BlobEntry) -> Iterator[bytes]:
        """A blob's plain bytes; whoever takes them checks their digest.

        Raises:
            IntegrityError: it is missing.
        """
        pieces = self.blob_stored(entry)
        return self._open("blob", pieces, entry.size) if self.about.sealed else pieces

    def blob_stored(self, entry: BlobEntry) -> Iterator[bytes]:
        """A blob's stored bytes."""
        if not _BLOB_NAME.fullmatch(entry.name):
            raise IntegrityError(f"not the name of a blob: {entry.name!r:.100}")
        try:
            with self.store.get(blob_place(entry.name)) as content:
                yield from content
        except ObjectNotFound:
            raise IntegrityError(f"the blob {entry.digest} is missing in {self.store.name}") from None

    def check_blob(self, entry: BlobEntry) -> None:
        """Reads a blob, and returns if its stored bytes are what was written; needs no key.

        Raises:
            IntegrityError: missing, or damaged.
        """
        seen, size = hashlib.sha256(), 0
        for piece in self.blob_stored(entry):
            seen.update(piece)
            size += len(piece)
        if size != entry.size or seen.hexdigest() != entry.stored:
            raise IntegrityError(f"the blob {entry.digest} in {self.store.name} is damaged")

    # -- inside --------------------------------------------------------------------------------------------------

    def _read(self, key: str, most: int) -> bytes:
        """An object of at most so many bytes: who writes a longer one must not fill our memory."""
        with self.store.get(key) as content:
            out, size = [], 0
            for piece in content:
                size += len(piece)
                if size > most:
                    raise IntegrityError(f"{key} in {self.store.name} is longer than {most} bytes")
                out.append(piece)
        return b"".join(out)

    def _sealer(self, word: str) -> Any:
        from holdfast.seal import envelope

        assert self.ring is not None
        if self._mine is None:
            made = envelope.new_data_key()
            self._mine = made, envelope.wrap(made, self.ring)
        data, wrapped = self._mine
        return envelope.Sealer(data, envelope.new_header(wrapped), self._binding(word))

    def _open(self, word: str, pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
        from holdfast.seal import envelope

        if self.ring is None:
            raise Denied(f"{self.store.name} is sealed", hint=_SEALED)
        rest = iter(pieces)
        head = b""
        for piece in rest:
            head += piece
            if len(head) >= envelope.HEADER:
                break
        header = envelope.Header.parse(head)
        data = self._opened.get(header.wrap.data_id)
        if data is None:
            data = self._opened[header.wrap.data_id] = header.wrap.open(self.ring)
        sealer = envelope.Sealer(data, header, self._binding(word))
        plain = envelope.plain_size(size)
        if plain is None:
            raise IntegrityError(f"nothing sealed has {size} bytes: cut off?")
        chunks = max(1, -(-plain // envelope.CHUNK))
        for chunk in sealer.open(_chain(head[envelope.HEADER :], rest), 0, chunks, chunks):
            yield bytes(chunk)

    def _binding(self, word: str) -> tuple[str, ...]:
        return ("hf/backup/1", self.about.id, word)


def place_of(digest: str) -> str:
    """Where the object with this SHA-256 lies."""
    if not re.fullmatch("[0-9a-f]{64}", digest):
        raise IntegrityError(f"not the name of a segment: {digest!r:.100}")
    return f"{SEGMENTS}{digest[:2]}/{digest}"


def blob_place(name: str) -> str:
    """Where the blob with this name lies."""
    return f"{BLOBS}{name[:2]}/{name}"


def pieces_of(reader: Any) -> Iterator[bytes]:
    """What a reader has left, piece by piece."""
    while piece := reader.read(_PIECE):
        yield piece


def _hashed(pieces: Iterable[bytes], into: Any) -> Iterator[bytes]:
    for piece in pieces:
        into.update(piece)
        yield piece


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
