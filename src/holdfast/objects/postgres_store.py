"""Objects in a PostgreSQL database, in a schema of their own: for machines that share one already.

A body of up to 1 MiB lies in its object's row; a larger one in rows beside it, which nobody ever changes and a trigger
removes. Whoever streams a large object does so in one transaction: a put in the meantime is one that he does not see.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from holdfast.errors import StorageUnavailable
from holdfast.objects.keys import check_after, check_key, check_limit, check_prefix, past_prefix
from holdfast.objects.port import (
    ABSENT,
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
from holdfast.objects.postgres import Server, inherited
from holdfast.objects.raw import chunks_of, pieces_of

SCHEMA: Final = "holdfast_objects"
CONNECTIONS: Final = 8
CHUNK_BYTES: Final = 1 << 20
"""Part of the format; also the most that lies in an object's own row."""
AT_ONCE_BYTES: Final = 4 << 20
"""Up to here a large object is read before `get` returns: who reads little holds no connection."""
PAGE: Final = 500
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# bytea EXTERNAL: the server neither compresses what mostly is compressed already, nor reads all of it for a range.
_STEPS: Final = (
    """
CREATE TABLE {s}.object (
  key text COLLATE "C" PRIMARY KEY,
  etag text NOT NULL,
  size int8 NOT NULL,
  modified timestamptz NOT NULL,
  type text NOT NULL,
  metadata text,
  large int8,
  body bytea
);
ALTER TABLE {s}.object ALTER body SET STORAGE EXTERNAL;
CREATE SEQUENCE {s}.large;
CREATE TABLE {s}.chunk (large int8 NOT NULL, number int4 NOT NULL, data bytea NOT NULL, PRIMARY KEY (large, number));
ALTER TABLE {s}.chunk ALTER data SET STORAGE EXTERNAL;
CREATE FUNCTION {s}.forget_chunks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM {s}.chunk WHERE large = old.large;
  RETURN NULL;
END $$;
CREATE TRIGGER replaced AFTER UPDATE ON {s}.object FOR EACH ROW WHEN (old.large IS NOT NULL)
  EXECUTE FUNCTION {s}.forget_chunks();
CREATE TRIGGER deleted AFTER DELETE ON {s}.object FOR EACH ROW WHEN (old.large IS NOT NULL)
  EXECUTE FUNCTION {s}.forget_chunks();
""",
)
_HEAD: Final = "SELECT key, etag, size, modified, type, metadata"
_INSERT: Final = """
INSERT INTO {s}.object (key, etag, size, modified, type, metadata, large, body)
VALUES ($1, $2, $3, clock_timestamp(), $4, $5, $6, $7)"""
_SET: Final = "SET etag = $2, size = $3, modified = clock_timestamp(), type = $4, metadata = $5, large = $6, body = $7"


class PostgresStore(ObjectStore):
    """Objects in a PostgreSQL database, 13 or newer; the tables are made when they are not there.

    Args:
        address: a libpq URL, with its `sslmode` and all else that libpq knows. TLS is 1.2 or newer.
        schema: where everything lies; two stores in one database have two schemas.
        connections: at most so many, and one for each large object that is being streamed.

    Raises:
        MissingExtra: psycopg is not installed.
        StorageRefused: not an address, or a database that cannot hold objects.
        StorageDenied: it does not let this user in, or not write.
        StorageUnavailable: nobody answers there.
    """

    lists_all = True

    def __init__(self, address: str, *, schema: str = SCHEMA, connections: int = CONNECTIONS) -> None:
        self._server = Server(address, schema, connections)  # first: from the next line on, forks ask for it
        super().__init__()
        self._mark()
        try:
            self._server.migrate(_STEPS)
        except BaseException:
            self.close()
            raise

    def _mark(self) -> None:
        # An etag is never given twice, not by two processes either.
        self._etags = secrets.token_hex(6), itertools.count(1)

    @property
    def name(self) -> str:
        server = self._server
        return server.name if server.schema == SCHEMA else f"{server.name}#{server.schema}"

    def forked(self) -> None:
        self._mark()
        self._server.forked()

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
        mark, numbers = self._etags
        etag = f"{mark}{next(numbers):x}"
        info = ObjectInfo(key=key, size=0, etag=etag, modified=_EPOCH, content_type=content_type, metadata=kept)
        chunks = chunks_of(pieces_of(data), CHUNK_BYTES)
        first, second = next(chunks, b""), next(chunks, b"")
        if not second:
            with self._server.call() as connection:
                return self._kept(connection, info, len(first), expect, None, first)
        with self._server.beside() as connection, connection.transaction():
            if expect is not None and ((current := self._etag(connection, key)) or ABSENT) != expect:
                raise conflict(self, key, expect, current)  # before a large body is sent in vain
            large = connection.execute(self._server.sql("SELECT nextval('{s}.large')")).fetchone()[0]
            size = 0
            insert = self._server.sql("INSERT INTO {s}.chunk VALUES ($1, $2, $3)")
            for number, chunk in enumerate(itertools.chain((first, second), chunks)):
                connection.execute(insert, (large, number, chunk))
                size += len(chunk)
            return self._kept(connection, info, size, expect, large, None)

    def _kept(
        self, connection: Any, info: ObjectInfo, size: int, expect: Expect, large: int | None, body: bytes | None
    ) -> ObjectInfo:
        """Writes the row; raises if `expect` is not what is there."""
        metadata = msgspec.json.encode(info.metadata).decode() if info.metadata else None
        row = [info.key, info.etag, size, info.content_type, metadata, large, body]
        if expect is None:
            sql = f"{_INSERT} ON CONFLICT (key) DO UPDATE {_SET}"
        elif expect == ABSENT:
            sql = f"{_INSERT} ON CONFLICT (key) DO NOTHING"
        else:
            sql = f"UPDATE {{s}}.object {_SET} WHERE key = $1 AND etag = $8"
            row.append(expect)
        found = connection.execute(self._server.sql(f"{sql} RETURNING modified"), row).fetchone()
        if found is None:
            raise conflict(self, info.key, expect, self._etag(connection, info.key))
        return msgspec.structs.replace(info, size=size, modified=found[0].astimezone(UTC))

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_key(key)
        check_expect(self, expect, SWAP_DELETE)
        with self._server.call() as connection:
            sql = "DELETE FROM {s}.object WHERE key = $1" + ("" if expect is None else " AND etag = $2")
            args = (key,) if expect is None else (key, expect)
            if connection.execute(self._server.sql(sql), args).rowcount:
                return True
            if expect is not None:
                raise conflict(self, key, expect, self._etag(connection, key))
            return False

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._open()
        check_key(key)
        check_range(start, stop)
        sql = f"{_HEAD}, large, substring(body FROM $2::int4 FOR $3::int4) FROM {{s}}.object WHERE key = $1"
        most = CHUNK_BYTES + 1  # no body in a row is longer, and an int4 holds it
        asked = (key, min(start, most) + 1, most if stop is None else min(most, stop - start))
        row = self._server.ask(sql, asked)
        if row is None:
            raise not_found(self, key)
        if row[6] is None:
            return self._inline(row, start, stop)
        # Large: once more, in a transaction that goes on seeing what it sees now.
        connection = self._server.take()
        try:
            with self._server.errors(connection):
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                row = connection.execute(self._server.sql(sql), asked, binary=True).fetchone()
            if row is None:
                raise not_found(self, key)
            if row[6] is None:
                return self._inline(row, start, stop)
            stream = _Stream(self, connection, row, start, row[2] if stop is None else min(stop, row[2]))
            connection = None
        finally:
            if connection is not None:
                connection.close()
        if stream.left > AT_ONCE_BYTES:
            return Content(_info(row), stream)
        try:
            return Content(_info(row), list(stream))
        finally:
            stream.close()

    def _inline(self, row: Any, start: int, stop: int | None) -> Content:
        body = row[7]
        if body is None or len(body) != max(0, (row[2] if stop is None else min(stop, row[2])) - start):
            raise corrupt(self, row[0])
        return Content(_info(row), (body,))

    def head(self, key: str) -> ObjectInfo:
        self._open()
        check_key(key)
        row = self._server.ask(f"{_HEAD} FROM {{s}}.object WHERE key = $1", (key,))
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
        within = "key >= $1 AND key > $2" + (" AND key < $4" if end else "")
        while limit is None or limit > 0:
            self._open()
            most = PAGE if limit is None else min(PAGE, limit)
            args = (prefix, after, most, end)[: 4 if end else 3]
            rows = self._server.ask(f"{_HEAD} FROM {{s}}.object WHERE {within} ORDER BY key LIMIT $3", args, every=True)
            for row in rows:
                yield _info(row)
            if len(rows) < most:
                return
            after = rows[-1][0]
            limit = None if limit is None else limit - len(rows)

    def _etag(self, connection: Any, key: str) -> str | None:
        row = connection.execute(self._server.sql("SELECT etag FROM {s}.object WHERE key = $1"), (key,)).fetchone()
        return row[0] if row else None

    def _look(self) -> None:
        self._open()
        self._server.ask("SELECT 1", ())

    def close(self) -> None:
        super().close()
        self._server.close()


class _Stream:
    """The chunks of one object, in the transaction in which it was found."""

    def __init__(self, store: PostgresStore, connection: Any, row: Any, start: int, stop: int) -> None:
        self._store = store
        self._connection = connection
        self._pid = os.getpid()
        self._key, self._size, self._large = row[0], row[2], row[6]
        self._at = start
        self.left = max(0, stop - start)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self.left:
            self.close()
            raise StopIteration
        self._store._open()
        if self._connection is None or self._pid != os.getpid():
            raise StorageUnavailable(f"reading {self._key!r:.200} was broken off", hint="read it again")
        number, skip = divmod(self._at, CHUNK_BYTES)
        most = min(CHUNK_BYTES - skip, self.left)
        sql = "SELECT substring(data FROM $3::int4 FOR $4::int4) FROM {s}.chunk WHERE large = $1 AND number = $2"
        try:
            with self._store._server.errors(self._connection):
                args = (self._large, number, skip + 1, most)
                row = self._connection.execute(self._store._server.sql(sql), args, binary=True).fetchone()
        except BaseException:
            self.close()
            raise
        if row is None or len(row[0]) != most:
            self.close()
            raise corrupt(self._store, self._key)
        self._at += most
        self.left -= most
        if not self.left:
            self.close()
        piece: bytes = row[0]
        return piece

    def close(self) -> None:
        """Ends the transaction and gives the connection back."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._pid != os.getpid():
            inherited.append(connection)
            return
        self._store._server.rollback(connection)
        self._store._server.back(connection)

    def __del__(self) -> None:
        self.close()


def _info(row: Any) -> ObjectInfo:
    return ObjectInfo(
        key=row[0],
        etag=row[1],
        size=row[2],
        modified=row[3].astimezone(UTC),
        content_type=row[4],
        metadata=msgspec.json.decode(row[5], type=dict[str, str]) if row[5] else {},
    )


def open_postgres(address: str, *, schema: str = SCHEMA, connections: int = CONNECTIONS) -> PostgresStore:
    """The opener of ``postgresql://…`` and ``postgres://…``."""
    return PostgresStore(address, schema=schema, connections=connections)
