"""Tables in an SQLite file, by the laws of `port`: the same code on a laptop as on Azure."""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import StorageError, StorageRefused
from holdfast.objects.database import Database, Execute
from holdfast.objects.tables import limits
from holdfast.objects.tables.filters import parse, to_json, to_sql
from holdfast.objects.tables.keys import check_key, check_name, from_ordered, ordered
from holdfast.objects.tables.limits import Value
from holdfast.objects.tables.port import (
    PAGE,
    Delete,
    Entity,
    Insert,
    Mode,
    Operation,
    Page,
    TableStore,
    Update,
    Upsert,
    check_mode,
    check_operations,
    check_page_size,
    check_select,
    conflict,
    no_entity,
    no_table,
)

_STEPS: Final = (
    """
    CREATE TABLE holdfast_table (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE) STRICT;
    CREATE TABLE holdfast_entity (
      id INTEGER PRIMARY KEY,
      in_table INTEGER NOT NULL REFERENCES holdfast_table,
      pk BLOB NOT NULL, rk BLOB NOT NULL, -- in UTF-16, whose order is the order of rows
      etag TEXT NOT NULL,
      written INTEGER NOT NULL, -- microseconds since 1970
      body TEXT NOT NULL -- {"name": ["kind", value]}
    ) STRICT;
    CREATE UNIQUE INDEX holdfast_entity_key ON holdfast_entity (in_table, pk, rk);
    """,
)
_COLUMNS: Final = "pk, rk, etag, written, body"
_CHUNK: Final = 100
_PAGE_BYTES: Final = 8 << 20
"""A page ends after so much: a thousand entities of a mebibyte are not read at once."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INFINITIES: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class SqliteTables(TableStore):
    """Tables in one file; objects and queues may share it.

    Args:
        path: the file; made if it is not there.
        clock: for timestamps.

    Raises:
        StorageRefused: the file is another program's, or a newer Holdfast's.
        StorageDenied: it may not be read or written.
        ObjectCorrupt: it is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock = SYSTEM) -> None:
        self._database = Database(path, "tables", _STEPS)
        self._clock = clock

    @property
    def name(self) -> str:
        return f"sqlite:{self._database.path}"

    def _trouble(self) -> str:
        return self._database.trouble()

    def create_table(self, table: str) -> bool:
        self._open()
        check_name(table, "table")
        return (
            self._database.change("INSERT INTO holdfast_table (name) VALUES (?) ON CONFLICT DO NOTHING", (table,)) == 1
        )

    def delete_table(self, table: str) -> bool:
        self._open()
        check_name(table, "table")
        with self._database.write() as execute:
            row = execute("SELECT id FROM holdfast_table WHERE name = ?", (table,)).fetchone()
            if row is None:
                return False
            execute("DELETE FROM holdfast_entity WHERE in_table = ?", row)
            execute("DELETE FROM holdfast_table WHERE id = ?", row)
        return True

    def list_tables(self) -> list[str]:
        self._open()
        return sorted(row[0] for row in self._database.all("SELECT name FROM holdfast_table"))

    def insert(self, table: str, entity: Mapping[str, object]) -> str:
        return self._do(table, Insert(entity))

    def upsert(self, table: str, entity: Mapping[str, object], *, mode: Mode = "merge") -> str:
        return self._do(table, Upsert(entity, mode))

    def update(self, table: str, entity: Mapping[str, object], *, mode: Mode = "merge", etag: str | None = None) -> str:
        return self._do(table, Update(entity, mode, etag))

    def _do(self, table: str, operation: Insert | Upsert | Update) -> str:
        self._open()
        check_name(table, "table")
        entity = limits.check_entity(operation.entity)
        if not isinstance(operation, Insert):
            check_mode(operation.mode)
        with self._database.write() as execute:
            return self._apply(execute, self._table(execute, table), table, operation, entity)

    def get(self, table: str, partition_key: str, row_key: str, *, select: Sequence[str] | None = None) -> Entity:
        self._open()
        check_name(table, "table")
        wanted = check_select(select)
        keys = ordered(check_key(partition_key, "PartitionKey")), ordered(check_key(row_key, "RowKey"))
        row = self._database.one(
            f"SELECT t.id, {_COLUMNS} FROM holdfast_table t LEFT JOIN holdfast_entity e"
            " ON e.in_table = t.id AND e.pk = ? AND e.rk = ? WHERE t.name = ?",
            (*keys, table),
        )
        if row is None:
            raise no_table(self, table)
        if row[1] is None:
            raise no_entity(self, table, partition_key, row_key)
        return _entity(row[1:], wanted)

    def delete(self, table: str, partition_key: str, row_key: str, *, etag: str | None = None) -> bool:
        self._open()
        check_name(table, "table")
        keys = ordered(check_key(partition_key, "PartitionKey")), ordered(check_key(row_key, "RowKey"))
        where = "in_table = (SELECT id FROM holdfast_table WHERE name = ?) AND pk = ? AND rk = ?"
        if etag is None:
            return self._database.change(f"DELETE FROM holdfast_entity WHERE {where}", (table, *keys)) == 1
        if not self._database.change(f"DELETE FROM holdfast_entity WHERE {where} AND etag = ?", (table, *keys, etag)):
            raise conflict(table, partition_key, row_key, there=False)
        return True

    def page(
        self,
        table: str,
        filter: str = "",
        *,
        select: Sequence[str] | None = None,
        size: int = PAGE,
        after: str | None = None,
    ) -> Page:
        self._open()
        check_name(table, "table")
        check_page_size(size)
        wanted = check_select(select)
        given: list[Any] = []
        condition = to_sql(parse(filter), given)
        row = self._database.one("SELECT id FROM holdfast_table WHERE name = ?", (table,))
        if row is None:
            raise no_table(self, table)
        last = _read_token(after)
        found: list[Any] = []
        held = 0
        while len(found) <= size and held < _PAGE_BYTES:
            further = "AND (pk, rk) > (?, ?) " if last else ""
            many = min(_CHUNK, size + 1 - len(found))
            chunk = self._database.all(
                f"SELECT {_COLUMNS} FROM holdfast_entity"
                f" WHERE in_table = ? {further}AND {condition} ORDER BY pk, rk LIMIT ?",
                (row[0], *(last or ()), *given, many),
            )
            found += chunk
            if len(chunk) < many:
                return Page([_entity(row, wanted) for row in found[:size]], _token(found, size))
            last = chunk[-1][:2]
            held += sum(len(row[4]) for row in chunk)
        # What is left over is not given back: it would be the first of the next page.
        kept = found[:size]
        return Page([_entity(row, wanted) for row in kept], _write_token(kept[-1][0], kept[-1][1]))

    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        self._open()
        check_name(table, "table")
        checked = check_operations(operations)
        with self._database.write() as execute:
            number = self._table(execute, table)
            etags: list[str] = []
            for operation, entity in checked:
                try:
                    etags.append(self._apply(execute, number, table, operation, entity))
                except StorageError as error:
                    error.context["index"] = len(etags)
                    raise
        return etags

    def _table(self, execute: Execute, table: str) -> int:
        row = execute("SELECT id FROM holdfast_table WHERE name = ?", (table,)).fetchone()
        if row is None:
            raise no_table(self, table)
        return int(row[0])

    def _apply(
        self, execute: Execute, number: int, table: str, operation: Operation, entity: Mapping[str, Value]
    ) -> str:
        partition_key, row_key = str(entity["PartitionKey"]), str(entity["RowKey"])
        keys = ordered(partition_key), ordered(row_key)
        row = execute(
            "SELECT id, etag, body FROM holdfast_entity WHERE in_table = ? AND pk = ? AND rk = ?", (number, *keys)
        )
        held = row.fetchone()
        expected = operation.etag if isinstance(operation, Update | Delete) else None
        if isinstance(operation, Insert) and held is not None:
            raise conflict(table, partition_key, row_key, there=True)
        if isinstance(operation, Update | Delete):
            if expected is not None and (held is None or held[1] != expected):
                raise conflict(table, partition_key, row_key, there=False)
            if held is None:
                raise no_entity(self, table, partition_key, row_key)
        if isinstance(operation, Delete):
            execute("DELETE FROM holdfast_entity WHERE id = ?", (held[0],))
            return ""
        if held is not None and not isinstance(operation, Insert) and operation.mode == "merge":
            entity = {**_values(held[2]), **entity}
            limits.check_size(entity)
        etag = secrets.token_hex(8)
        body = msgspec.json.encode({k: to_json(v) for k, v in entity.items() if k not in limits.KEYS}).decode()
        written = self._clock.now_ms() * 1000
        if held is None:
            execute(
                "INSERT INTO holdfast_entity (in_table, pk, rk, etag, written, body) VALUES (?, ?, ?, ?, ?, ?)",
                (number, *keys, etag, written, body),
            )
        else:
            execute(
                "UPDATE holdfast_entity SET etag = ?, written = ?, body = ? WHERE id = ?",
                (etag, written, body, held[0]),
            )
        return etag

    def close(self) -> None:
        super().close()
        self._database.close()


def _entity(row: Sequence[Any], wanted: Sequence[str] | None) -> Entity:
    pk, rk, etag, written, body = row
    values = {"PartitionKey": from_ordered(pk), "RowKey": from_ordered(rk), **_values(body)}
    if wanted is not None:
        values = {name: value for name, value in values.items() if name in wanted}
    return Entity(values, etag, _EPOCH + timedelta(microseconds=written))


def _values(body: str) -> dict[str, Value]:
    return {name: _value(kind, value) for name, (kind, value) in json.loads(body).items()}


def _value(kind: str, value: Any) -> Value:
    if kind in ("s", "o", "i"):
        return value  # type: ignore[no-any-return]
    if kind == "d":
        return float(value)
    if kind == "t":
        return _EPOCH + timedelta(microseconds=value)
    if kind == "b":
        return bytes.fromhex(value)
    return _INFINITIES[value] if kind == "x" else UUID(value)


def _token(found: Sequence[Any], size: int) -> str | None:
    return _write_token(found[size - 1][0], found[size - 1][1]) if len(found) > size else None


def _write_token(pk: bytes, rk: bytes) -> str:
    text = json.dumps([pk.hex(), rk.hex()])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_token(token: str | None) -> tuple[bytes, bytes] | None:
    if token is None:
        return None
    try:
        pk, rk = json.loads(base64.urlsafe_b64decode(token))
        return bytes.fromhex(pk), bytes.fromhex(rk)
    except (ValueError, TypeError, binascii.Error):
        raise StorageRefused(f"not the `next` of a page of this store: {token!r:.80}") from None
