"""Blobs in a database: bytes named by their SHA-256, in pieces, whole or not there.

What `objects.BlobFiles` does with files: an upload grows until its digest is proven, and only then is it a blob. Pieces
are as they came, at most `PIECE_BYTES`, so that none is ever written twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from holdfast.corpus.postgres.door import translate
from holdfast.corpus.postgres.engine import PostgresEngine
from holdfast.errors import BlobCorrupt, Conflict, NotFound, UsageError
from holdfast.records import BLOB_BYTES_MAX

PIECE_BYTES: Final = 1 << 20
Bytes: TypeAlias = bytes | bytearray | memoryview

_DONE: Final = "SELECT id, size FROM blob WHERE digest=?1 AND done"
_OURS: Final = "SELECT id, size FROM blob WHERE digest=?1 AND NOT done FOR UPDATE"
_PIECES: Final = (
    "SELECT at, data FROM chunk WHERE blob=?1 AND at<?3"
    " AND at>=coalesce((SELECT max(at) FROM chunk WHERE blob=?1 AND at<=?2), 0) ORDER BY at LIMIT 1"
)


class BlobTable:
    """The blobs of one database; hub processes share them.

    Args:
        engine: the open database.
        limit: the most bytes a blob may have.
    """

    def __init__(self, engine: PostgresEngine, *, limit: int = BLOB_BYTES_MAX) -> None:
        self._engine = engine
        self._limit = limit

    def put(self, source: Bytes | Path | Iterable[bytes], *, expect: bytes | None = None) -> tuple[bytes, int]:
        """Stores a blob; when it returns, the blob survives a power cut. Storing it again heals a rotten one.

        Args:
            source: the bytes, pieces of them, or a file to copy.
            expect: the digest that they must have.

        Returns:
            The digest (32 bytes) and the size in bytes.

        Raises:
            BlobCorrupt: the digest is not the expected one; nothing is stored.
            NodeFull: no room; nothing is stored.
            UsageError: longer than the limit (5 GiB).
        """
        if isinstance(source, bytes | bytearray | memoryview):
            digest = hashlib.sha256(source).digest()
            if expect in (None, digest) and self.has(digest) and self.verify(digest):
                return digest, len(source)
        found, size = hashlib.sha256(), 0
        with self._transaction() as execute:
            (made,) = execute("INSERT INTO blob(size) VALUES(0) RETURNING id").fetchone()
            for piece in _pieces(source):
                self._cap(size + len(piece))
                found.update(piece)
                execute("INSERT INTO chunk VALUES(?1, ?2, ?3)", (made, size, bytes(piece)))
                size += len(piece)
            digest = found.digest()
            if expect is not None and digest != expect:
                raise _corrupt(expect, f"what came has the digest {digest.hex()}")
            self._publish(execute, made, digest, size)
        return digest, size

    def open(self, digest: bytes) -> BlobReader:
        """A reader that checks the digest while streaming.

        Raises:
            NotFound: there is no such blob.
        """
        number, size = self._find(digest)
        return BlobReader(self, digest, number, size)

    def read(self, digest: bytes, offset: int = 0, length: int | None = None, *, verify: bool = True) -> bytes:
        """The bytes of a blob, or a range of them, proven.

        Args:
            digest: 32 bytes.
            offset: where to begin.
            length: how many bytes at most; None for all.
            verify: read the whole blob to prove the range. False is for those whose reader proves the whole.

        Raises:
            NotFound: there is no such blob.
            BlobCorrupt: its bytes do not have its digest.
            UsageError: a negative offset or length.
        """
        if offset < 0 or (length is not None and length < 0):
            raise UsageError(f"not a range of a blob: {offset}, {length}")
        number, size = self._find(digest)
        end = size if length is None else min(size, offset + length)
        if not verify:
            return b"".join(self.pieces(digest, number, offset, end))
        found, kept, at = hashlib.sha256(), [], 0
        for piece in self.pieces(digest, number, 0, size):
            found.update(piece)
            low, high = max(offset - at, 0), min(end - at, len(piece))
            if low < high:
                kept.append(piece if high - low == len(piece) else piece[low:high])
            at += len(piece)
        if found.digest() != digest:
            raise _corrupt(digest, "its bytes have another digest")
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def size(self, digest: bytes) -> int:
        """The size in bytes.

        Raises:
            NotFound: there is no such blob.
        """
        return self._find(digest)[1]

    def has(self, digest: bytes) -> bool:
        """Whether the blob is here; looks at the name only."""
        return self._engine.one(_DONE, (_checked(digest),)) is not None

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those that are not here, in the order given, each once."""
        wanted = list(dict.fromkeys(digests))
        rows = self._engine.query("SELECT digest FROM blob WHERE done AND digest=ANY(?::bytea[])", (wanted,))
        here = {row[0] for row in rows}
        return [digest for digest in wanted if digest not in here]

    def verify(self, digest: bytes) -> bool:
        """Whether the blob is here and its bytes have its digest."""
        try:
            with self.open(digest) as reader:
                while reader.read(PIECE_BYTES):
                    pass
        except (NotFound, BlobCorrupt):
            return False
        return True

    def delete(self, digest: bytes) -> bool:
        """Removes a blob; False if there was none."""
        with self._transaction() as execute:
            return bool(execute("DELETE FROM blob WHERE digest=?1 AND done", (_checked(digest),)).rowcount)

    def iter(self) -> Iterator[bytes]:
        """The digests of all blobs, in order; what is added or removed meanwhile may be seen or not."""
        last = b""
        sql = "SELECT digest FROM blob WHERE done AND digest>? ORDER BY digest LIMIT 1000"
        while rows := self._engine.query(sql, (last,)):
            for (digest,) in rows:
                yield digest
            last = rows[-1][0]

    def resume(self, digest: bytes, offset_expected: int | None = None) -> int:
        """Where an upload stands: how many bytes of the blob are here (all of them when it is finished).

        Args:
            digest: the blob's.
            offset_expected: where the uploader believes it stands.

        Raises:
            Conflict: it stands elsewhere; ``context["offset"]`` says where.
        """
        row = self._engine.one("SELECT size FROM blob WHERE digest=? ORDER BY done DESC LIMIT 1", (_checked(digest),))
        at = int(row[0]) if row else 0
        if offset_expected not in (None, at):
            raise _elsewhere(digest, at)
        return at

    def append(self, digest: bytes, offset: int, data: bytes) -> int:
        """Adds bytes to an upload and returns where it stands then.

        Raises:
            Conflict: the upload does not stand at `offset`; ``context["offset"]`` says where it does.
            NodeFull: no room; what came before stays.
            UsageError: longer than the limit; the upload is dropped.
        """
        with self._transaction() as execute:
            done = execute(_DONE, (_checked(digest),)).fetchone()
            if done is not None:
                raise _elsewhere(digest, done[1])
            execute("INSERT INTO blob(digest) VALUES(?1) ON CONFLICT(digest) WHERE NOT done DO NOTHING", (digest,))
            number, at = execute(_OURS, (digest,)).fetchone()
            if at != offset:
                raise _elsewhere(digest, at)
            too_long = at + len(data) > self._limit
            if too_long:
                execute("DELETE FROM blob WHERE id=?1", (number,))
            else:
                for low in range(0, len(data), PIECE_BYTES):
                    piece = data[low : low + PIECE_BYTES]
                    execute("INSERT INTO chunk VALUES(?1, ?2, ?3)", (number, at + low, piece))
                execute("UPDATE blob SET size=size+?2, touched=now() WHERE id=?1", (number, len(data)))
        if too_long:
            self._cap(at + len(data))
        return int(at) + len(data)

    def finish(self, digest: bytes) -> int:
        """Proves an upload and makes it a blob that survives a power cut; returns its size. Again is fine.

        Raises:
            BlobCorrupt: the bytes do not have the digest; the upload is dropped.
            NotFound: there is no such upload.
        """
        with self._transaction() as execute:
            row = execute(_OURS, (_checked(digest),)).fetchone()
            if row is None:
                row = execute(_DONE, (digest,)).fetchone()
                if row is None:
                    raise _absent(digest)
                return int(row[1])
            number, size = row
            found = self._hash(execute, number, size)
            good = found == digest
            if good:
                self._publish(execute, number, digest, size)
            else:
                execute("DELETE FROM blob WHERE id=?1", (number,))
        if not good:
            raise _corrupt(digest, f"what came has the digest {found.hex()}")
        return int(size)

    def finish_found(self, upload: bytes) -> tuple[bytes, int]:
        """Makes an upload whose digest nobody knew a blob that survives a power cut; returns its digest and size.

        Args:
            upload: 32 bytes by which `append` was told which upload it is; no digest.

        Raises:
            NotFound: there is no such upload.
        """
        with self._transaction() as execute:
            row = execute(_OURS, (_checked(upload),)).fetchone()
            if row is None:
                raise NotFound(f"there is no upload {upload.hex()}", hint="begin it again")
            number, size = row
            digest = self._hash(execute, number, size)
            self._publish(execute, number, digest, size)
        return digest, int(size)

    def begin(self, name: bytes = b"") -> str:
        """Begins an upload without a digest and returns its name, which nobody can guess.

        Args:
            name: 16 bytes to name it by, most of them random; empty: all of them are.
        """
        name = name or os.urandom(16)  # stands where a digest will, and is shorter than any
        with self._transaction() as execute:
            execute("INSERT INTO blob(digest) VALUES(?1)", (name,))
        return name.hex()

    def stands(self, upload: str) -> int:
        """How many bytes of an upload are here.

        Raises:
            NotFound: there is no such upload: never begun, completed, dropped or swept.
        """
        row = self._engine.one("SELECT size FROM blob WHERE digest=? AND NOT done", (_upload(upload),))
        if row is None:
            raise _no_upload(upload)
        return int(row[0])

    def extend(self, upload: str, offset: int, data: bytes) -> int:
        """Adds bytes to an upload and returns where it stands then.

        Raises:
            Conflict: it does not stand at `offset`; ``context["offset"]`` says where it does.
            NodeFull: no room; the upload stays as it was.
            NotFound: there is no such upload.
            UsageError: longer than the limit (status 413); the upload stays as it was.
        """
        with self._transaction() as execute:
            number, at = self._begun(execute, upload)
            if at != offset:
                raise Conflict(f"the upload stands at {at}, not at {offset}", hint="go on from there", offset=at)
            self._cap(at + len(data))
            for low in range(0, len(data), PIECE_BYTES):
                execute("INSERT INTO chunk VALUES(?1, ?2, ?3)", (number, at + low, data[low : low + PIECE_BYTES]))
            execute("UPDATE blob SET size=size+?2, touched=now() WHERE id=?1", (number, len(data)))
        return at + len(data)

    def complete(self, upload: str, *, expect: bytes | None = None, hashed: bytes | None = None) -> tuple[bytes, int]:
        """Makes an upload the blob that its bytes are, which then survives a power cut; the upload ends.

        Args:
            upload: its name.
            expect: the digest that it must have.
            hashed: the digest of all its bytes, from whoever appended all of them; they are read again without it.

        Returns:
            The digest (32 bytes) and the size in bytes.

        Raises:
            BlobCorrupt: the digest is not the expected one; the upload is dropped.
            NotFound: there is no such upload.
        """
        with self._transaction() as execute:
            number, size = self._begun(execute, upload)
            digest = hashed if hashed is not None else self._hash(execute, number, size)
            good = expect in (None, digest)
            if good:
                self._publish(execute, number, digest, size)
            else:
                execute("DELETE FROM blob WHERE id=?1", (number,))
        if not good:
            assert expect is not None
            raise _corrupt(expect, f"what came has the digest {digest.hex()}")
        return digest, size

    def drop(self, upload: str) -> bool:
        """Ends an upload that is not wanted; False if there was none."""
        try:
            name = _upload(upload)
        except NotFound:
            return False
        with self._transaction() as execute:
            return int(execute("DELETE FROM blob WHERE digest=?1 AND NOT done", (name,)).rowcount) > 0

    def sweep(self, older_than_s: float) -> int:
        """Removes uploads that nobody has added to for so many seconds; returns how many."""
        with self._transaction() as execute:
            sql = "DELETE FROM blob WHERE NOT done AND touched <= now() - make_interval(secs => ?1)"
            return int(execute(sql, (float(older_than_s),)).rowcount)

    def pieces(self, digest: bytes, number: int, first: int, last: int) -> Iterator[bytes]:
        """The bytes of one blob from `first` up to `last`, as they lie."""
        while first < last:
            row = self._engine.one(_PIECES, (number, first, last))
            if row is None or not row[0] <= first < row[0] + len(row[1]):
                raise _corrupt(digest, f"byte {first} is not here")
            part = row[1][first - row[0] : last - row[0]]
            first += len(part)
            yield part

    # -- inside -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._engine.reader() as connection, connection.transaction():

            def execute(sql: str, args: Any = ()) -> Any:
                return connection.cursor(binary=True).execute(translate(sql), args)

            yield execute

    @staticmethod
    def _begun(execute: Any, upload: str) -> tuple[int, int]:
        row = execute(_OURS, (_upload(upload),)).fetchone()
        if row is None:
            raise _no_upload(upload)
        return int(row[0]), int(row[1])

    @staticmethod
    def _hash(execute: Any, number: int, size: int) -> bytes:
        found, at = hashlib.sha256(), 0
        while at < size and (part := execute(_PIECES, (number, at, size)).fetchone()):
            found.update(part[1])
            at = part[0] + len(part[1])
        return found.digest()

    def _publish(self, execute: Any, number: int, digest: bytes, size: int) -> None:
        """Makes what was proven the blob of that name, unless it has one that has not rotted."""
        # One at a time: whoever comes second finds the first's.
        execute("SELECT pg_advisory_xact_lock(?1)", (int.from_bytes(digest[:8], "big", signed=True),))
        if self.verify(digest):
            execute("DELETE FROM blob WHERE id=?1", (number,))
            return
        execute("DELETE FROM blob WHERE digest=?1 AND done", (digest,))
        execute("UPDATE blob SET digest=?2, size=?3, done=true WHERE id=?1", (number, digest, size))

    def _find(self, digest: bytes) -> tuple[int, int]:
        row = self._engine.one(_DONE, (_checked(digest),))
        if row is None:
            raise _absent(digest)
        return row[0], row[1]

    def _cap(self, size: int) -> None:
        if size > self._limit:
            raise UsageError(f"a blob has at most {self._limit} bytes", hint="store it in several parts")


class BlobReader:
    """Streams a blob; the read that would reach its end raises when the bytes do not have their digest."""

    def __init__(self, table: BlobTable, digest: bytes, number: int, size: int) -> None:
        self.size = size
        """Size of the whole blob in bytes."""
        self._digest = digest
        self._hash = hashlib.sha256()
        self._pieces = table.pieces(digest, number, 0, size)
        self._left = size
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most so many; empty at the end."""
        if not self._rest and self._left:
            self._rest = next(self._pieces)
            self._hash.update(self._rest)
            self._left -= len(self._rest)
            if not self._left and self._hash.digest() != self._digest:
                raise _corrupt(self._digest, "its bytes have another digest")
        if size < 0:
            out = [self._rest]
            self._rest = b""
            while self._left:
                out.append(self.read(PIECE_BYTES))
            return b"".join(out)
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def close(self) -> None:
        """Reads no more."""
        self._left, self._rest = 0, b""

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(digest: bytes) -> bytes:
    if len(digest) != 32:
        raise UsageError(f"not a SHA-256 digest: {len(digest)} bytes", hint="32 raw bytes")
    return digest


def _pieces(source: Bytes | Path | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece
        return
    parts: Iterable[bytes] = (bytes(source),) if isinstance(source, bytes | bytearray | memoryview) else source
    waiting = bytearray()  # an iterable may give a few bytes at a time; a row for each would be dear
    for part in parts:
        waiting += part
        while len(waiting) >= PIECE_BYTES:
            yield bytes(waiting[:PIECE_BYTES])
            del waiting[:PIECE_BYTES]
    if waiting:
        yield bytes(waiting)


def _upload(name: str) -> bytes:
    if len(name) != 32 or not set(name) <= set("0123456789abcdef"):
        raise _no_upload(name)
    return bytes.fromhex(name)


def _no_upload(upload: str) -> NotFound:
    return NotFound(f"there is no upload {upload!r:.80}", hint="it ended, or stood still for a day: begin another")


def _absent(digest: bytes) -> NotFound:
    return NotFound(f"no blob {digest.hex()}", digest=digest.hex())


def _corrupt(digest: bytes, why: str) -> BlobCorrupt:
    return BlobCorrupt(f"blob {digest.hex()}: {why}", hint="send it again; its node has it", digest=digest.hex())


def _elsewhere(digest: bytes, offset: int) -> Conflict:
    return Conflict(
        f"the upload of {digest.hex()} stands at {offset}", hint="go on from there", digest=digest.hex(), offset=offset
    )
