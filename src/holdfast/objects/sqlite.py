"""Objects in an SQLite file: the fastest store of small ones on one machine, for any number of processes.

A body of up to 64 KiB lies in its object's row; a larger one in rows of 256 KiB beside it, which nobody ever changes.
Whoever streams a large object has a snapshot of the file: a put in the meantime is a row that he does not see.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import StorageRefused, StorageUnavailable
from holdfast.objects.database import Database, Execute, Snapshot
from holdfast.objects.database_file import torn
from holdfast.objects.keys import check_after, check_key, check_limit, check_prefix, past_prefix
from holdfast.objects.port import (
    ABSENT,
    DURABLE,
    SWAP_DELETE,
    TYPE,
    Content,
    Expect,
    ObjectInfo,
    ObjectStore,
    Source,
    check_expect,
    check_put,
    check_range,
    conflict,
    corrupt,
    not_found,
)
from holdfast.objects.raw import PIECE_BYTES, chunks_of, pieces_of

INLINE_BYTES: Final = 64 << 10
"""Up to here a read of one row beats a read of a file; a row of 256 KiB takes 15 times as long as a file."""
AT_ONCE_BYTES: Final = 16 << 10
"""A body that is written before a thread would be awake."""
CHUNK_BYTES: Final = 256 << 10
"""Part of the format."""
PAGE: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_STEPS: Final = (
    f"""
CREATE TABLE holdfast_object (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  etag TEXT NOT NULL,
  size INTEGER NOT NULL,
  modified INTEGER NOT NULL, -- microseconds since 1970
  type TEXT NOT NULL,
  metadata TEXT, -- JSON, if there is any
  first INTEGER, -- of its chunks, which follow each other; null: it is all in body
  body BLOB
) STRICT;
-- AUTOINCREMENT: a chunk's number never means another chunk later on.
CREATE TABLE holdfast_chunk (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL) STRICT;
CREATE TRIGGER holdfast_object_replaced AFTER UPDATE OF first ON holdfast_object WHEN old.first IS NOT NULL BEGIN
  DELETE FROM holdfast_chunk
  WHERE id >= old.first AND id < old.first + (old.size + {CHUNK_BYTES - 1}) / {CHUNK_BYTES};
END;
CREATE TRIGGER holdfast_object_deleted AFTER DELETE ON holdfast_object WHEN old.first IS NOT NULL BEGIN
  DELETE FROM holdfast_chunk
  WHERE id >= old.first AND id < old.first + (old.size + {CHUNK_BYTES - 1}) / {CHUNK_BYTES};
END;
""",
)
_INSERT: Final = """
INSERT INTO holdfast_object (key, etag, size, modified, type, metadata, first, body)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"""
_SET: Final = "SET etag = ?2, size = ?3, modified = ?4, type = ?5, metadata = ?6, first = ?7, body = ?8"
_PUT: Final = f"{_INSERT} ON CONFLICT (key) DO UPDATE {_SET}"
_CREATE: Final = f"{_INSERT} ON CONFLICT (key) DO NOTHING"
_SWAP: Final = f"UPDATE holdfast_object {_SET} WHERE key = ?1 AND etag = ?9"
_HEAD: Final = "SELECT key, etag, size, modified, type, metadata FROM holdfast_object"
_GET: Final = "SELECT key, etag, size, modified, type, metadata, first, body FROM holdfast_object WHERE key = ?"
_ETAG: Final = "SELECT etag FROM holdfast_object WHERE key = ?"


class SqliteStore(ObjectStore):
    """Objects in an SQLite file, which is made if it is not there; only its owner may read it.

    Args:
        path: the file. Not on a network's file system: SQLite's locks do not hold there.
        durable: whether a put that returned survives a power cut; if not it survives the process, and takes a tenth
            of the time.

    Raises:
        StorageRefused: the file is another program's, or a newer Holdfast's.
        StorageDenied: it may not be read or written.
        ObjectCorrupt: it is damaged.
    """

    lists_all = True

    def __init__(self, path: str | os.PathLike[str], *, durable: bool = True) -> None:
        self._database = Database(path, "objects", _STEPS, durable=durable)
        super().__init__()
        self._mark()
        if not durable:
            self.lacks = frozenset((DURABLE,))

    def _mark(self) -> None:
        # An etag is never given twice: neither by two processes nor by one that was restored to an older file.
        self._etags = secrets.token_hex(6), itertools.count(1)

    @property
    def name(self) -> str:
        return f"sqlite:{self._database.path}"

    def _look(self) -> str | None:
        super()._look()
        return torn(self._database.diagnosis)

    def _trouble(self) -> str:
        return self._database.trouble()

    # -- writing ------------------------------------------------------------------------------------------------

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
        if isinstance(data, bytes) and len(data) <= INLINE_BYTES:
            return self._put_small(key, data, content_type, kept, expect)
        with contextlib.ExitStack() as until_stored:
            body, pieces = self._gathered(data, until_stored)
            if body is not None:
                return self._put_small(key, body, content_type, kept, expect)
            return self._put_large(key, pieces, content_type, kept, expect)

    def _put_small(self, key: str, body: bytes, kind: str, kept: dict[str, str], expect: Expect) -> ObjectInfo:
        info, row = self._new(key, len(body), kind, kept)
        row += None, body
        if expect is None:
            self._database.change(_PUT, row)
        elif expect == ABSENT:
            if not self._database.change(_CREATE, row):
                raise conflict(self, key, expect, self._etag(key))
        elif not self._database.change(_SWAP, (*row, expect)):
            raise conflict(self, key, expect, self._etag(key))
        return info

    def put_now(
        self, key: str, data: bytes, *, content_type: str = TYPE, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo | None:
        self._open()
        if self._database.durable or len(data) > AT_ONCE_BYTES:
            return None  # a sync takes longer, and so do many pages
        check_key(key)
        info, row = self._new(key, len(data), content_type, check_put(self, content_type, metadata, None))
        return info if self._database.change_now(_PUT, (*row, None, data)) is not None else None

    def _put_large(
        self, key: str, pieces: Iterable[bytes], kind: str, kept: dict[str, str], expect: Expect
    ) -> ObjectInfo:
        with self._database.write() as execute:
            if expect is not None:
                found = execute(_ETAG, (key,)).fetchall()
                if (found[0][0] if found else ABSENT) != expect:
                    raise conflict(self, key, expect, found[0][0] if found else None)
            first, size = _store(execute, pieces)
            info, row = self._new(key, size, kind, kept)
            execute(_PUT, (*row, first, None))
        return info

    def _new(self, key: str, size: int, kind: str, kept: dict[str, str]) -> tuple[ObjectInfo, list[Any]]:
        now = time.time_ns() // 1000
        mark, numbers = self._etags
        etag = f"{mark}{next(numbers):x}"
        modified = _EPOCH + timedelta(microseconds=now)
        info = ObjectInfo(key=key, size=size, etag=etag, modified=modified, content_type=kind, metadata=kept)
        return info, [key, etag, size, now, kind, _json(kept)]

    def _gathered(self, data: Source, until_stored: contextlib.ExitStack) -> tuple[bytes | None, Iterable[bytes]]:
        """The body if it is small, else its pieces; nobody's code runs later, when the file is locked."""
        if isinstance(data, bytes | bytearray | memoryview):
            whole = bytes(data)
            return (whole, ()) if len(whole) <= INLINE_BYTES else (None, (whole,))
        if isinstance(data, Path) and stat.S_ISREG((found := os.stat(data)).st_mode) and found.st_size > INLINE_BYTES:
            return None, pieces_of(data)
        held: list[bytes] = []
        size = 0
        pieces = iter(pieces_of(data))
        for piece in pieces:
            held.append(piece)
            size += len(piece)
            if size > PIECE_BYTES:
                break
        else:
            whole = b"".join(held)
            return (whole, ()) if size <= INLINE_BYTES else (None, (whole,))
        # Where the store itself must have room for it; without a name, so that a crash leaves nothing.
        spool = tempfile.TemporaryFile(dir=self._database.path.parent, buffering=0)  # noqa: SIM115 - the stack's now
        until_stored.enter_context(spool)
        for piece in itertools.chain(held, pieces):
            view = memoryview(piece)
            while view:
                view = view[spool.write(view) :]
        held.clear()
        spool.seek(0)
        return None, iter(lambda: spool.read(PIECE_BYTES), b"")

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_key(key)
        check_expect(self, expect, SWAP_DELETE)
        if expect is None:
            return bool(self._database.change("DELETE FROM holdfast_object WHERE key = ?", (key,)))
        if not self._database.change("DELETE FROM holdfast_object WHERE key = ? AND etag = ?", (key, expect)):
            raise conflict(self, key, expect, self._etag(key))
        return True

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        check_range(start, stop)
        row = self._row(key)
        if row[6] is None:
            body = _whole(self, row)
            return Content(_info(row), (body if start == 0 and stop is None else body[start:stop],))
        snapshot = self._database.snapshot()
        try:
            row = snapshot.one(_GET, (key,))
            if row is None:
                raise not_found(self, key)
            if row[6] is None:
                snapshot.close()
                return Content(_info(row), (_whole(self, row)[start:stop],))
        except BaseException:
            snapshot.close()
            raise
        stream = _Stream(self, snapshot, row, start, row[2] if stop is None else min(stop, row[2]))
        if stream.left > PIECE_BYTES:
            return Content(_info(row), stream)
        try:
            return Content(_info(row), list(stream))  # at once: who reads little holds up nobody
        finally:
            stream.close()

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        found = self.read_now(key, start=start, stop=stop)
        return found if found is not None else super().read(key, start=start, stop=stop)

    def read_now(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes | None:
        check_range(start, stop)
        row = self._row(key)
        if row[6] is not None:
            return None
        body = _whole(self, row)
        return body if start == 0 and stop is None else body[start:stop]

    def head(self, key: str) -> ObjectInfo:
        self._open()
        row = self._database.one(f"{_HEAD} WHERE key = ?", (check_key(key),))
        if row is None:
            raise not_found(self, key)
        return _info(row)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        check_after(after)
        return self._listed(prefix, after, limit)

    def _listed(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        end = past_prefix(prefix)
        within = "key >= ?1 AND key > ?2" + (" AND key < ?4" if end else "")
        while limit is None or limit > 0:
            self._open()
            most = PAGE if limit is None else min(PAGE, limit)
            rows = self._database.all(
                f"{_HEAD} WHERE {within} ORDER BY key LIMIT ?3", (prefix, after, most, end)[: 4 if end else 3]
            )
            for row in rows:
                yield _info(row)
            if len(rows) < most:
                return
            after = rows[-1][0]
            limit = None if limit is None else limit - len(rows)

    def _row(self, key: str) -> Any:
        self._open()
        row = self._database.one(_GET, (check_key(key),))
        if row is None:
            raise not_found(self, key)
        return row

    def _etag(self, key: str) -> str | None:
        row = self._database.one(_ETAG, (key,))
        return row[0] if row else None

    # -- ending -------------------------------------------------------------------------------------------------

    def forked(self) -> None:
        self._mark()

    def close(self) -> None:
        super().close()
        self._database.close()


class _Stream:
    """The chunks of one object, as of the snapshot that it was found in."""

    def __init__(self, store: SqliteStore, snapshot: Snapshot, row: Any, start: int, stop: int) -> None:
        self._store = store
        self._snapshot = snapshot
        self._key, self._size, self._first = row[0], row[2], row[6]
        self._at = start
        self.left = max(0, stop - start)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self.left:
            self.close()
            raise StopIteration
        number, skip = divmod(self._at, CHUNK_BYTES)
        row = self._snapshot.one("SELECT data FROM holdfast_chunk WHERE id = ?", (self._first + number,))
        if row is None and self._snapshot.loose:
            raise StorageUnavailable(
                f"the object {self._key!r:.200} in {self._store.name} was replaced while it was read",
                hint="read it again: its process was forked in the meantime, and a fork ends what readers hold",
            )
        if row is None or len(row[0]) != min(CHUNK_BYTES, self._size - number * CHUNK_BYTES):
            raise corrupt(self._store, self._key)
        piece: bytes = row[0][skip : skip + self.left] if skip or self.left < len(row[0]) else row[0]
        self._at += len(piece)
        self.left -= len(piece)
        if not self.left:
            self.close()
        return piece

    def close(self) -> None:
        """Gives the snapshot back."""
        self._snapshot.close()

    def __del__(self) -> None:
        self.close()


def _store(execute: Execute, pieces: Iterable[bytes]) -> tuple[int, int]:
    """Writes a body as chunks; the number of the first, and the size of all."""
    first = size = 0
    for chunk in chunks_of(pieces, CHUNK_BYTES):
        row = execute("INSERT INTO holdfast_chunk (data) VALUES (?) RETURNING id", (chunk,)).fetchall()[0]
        first = first or row[0]
        size += len(chunk)
    return first, size


def _json(metadata: dict[str, str]) -> str | None:
    return msgspec.json.encode(metadata).decode() if metadata else None


def _info(row: Any) -> ObjectInfo:
    return ObjectInfo(
        key=row[0],
        etag=row[1],
        size=row[2],
        modified=_EPOCH + timedelta(microseconds=row[3]),
        content_type=row[4],
        metadata=msgspec.json.decode(row[5], type=dict[str, str]) if row[5] else {},
    )


def _whole(store: SqliteStore, row: Any) -> bytes:
    body: bytes | None = row[7]
    if body is None or len(body) != row[2]:
        raise corrupt(store, row[0])
    return body


def open_sqlite(address: str, *, durable: bool = True) -> SqliteStore:
    """The opener of ``sqlite:<file>``, with a path as on the command line, or ``sqlite:///<absolute path>``."""
    path = address.removeprefix("sqlite:")
    if path.startswith("//") and not path.startswith("///"):
        raise StorageRefused(f"{address!r:.200} names a machine", hint="sqlite:objects.db, or sqlite:/srv/objects.db")
    if not path or path.endswith("/") or ":memory:" in path or "\0" in path:
        raise StorageRefused(f"no file is named by {address!r:.200}", hint="such as sqlite:objects.db")
    return SqliteStore(path, durable=durable)
