"""Tables in Azure Table Storage, by the laws of `port`."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from holdfast.errors import HoldfastError, ObjectConflict, ObjectNotFound, StorageRefused
from holdfast.objects.azure_door import AzureAccount, azure
from holdfast.objects.tables.filters import parse, to_azure
from holdfast.objects.tables.keys import check_key, check_name, read_key, read_table, write_key, write_table
from holdfast.objects.tables.limits import KEYS, Value, check_entity
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
    check_mode,
    check_operations,
    check_page_size,
    check_select,
    conflict,
    no_entity,
    no_table,
)

_NO_TABLE: Final = "TableNotFound"
T = TypeVar("T")


class AzureTables(TableStore):
    """The tables of a storage account.

    Args:
        account: shared by whoever uses it; closed by its owner.
    """

    def __init__(self, account: AzureAccount) -> None:
        self._account = account

    @property
    def name(self) -> str:
        return self._account.name("table")

    def create_table(self, table: str) -> bool:
        client = self._table(table)
        try:
            self._account.call(client.create_table, f"create the table {table!r}")
        except ObjectConflict:
            return False
        return True

    def delete_table(self, table: str) -> bool:
        client = self._table(table)
        statuses: list[int] = []
        self._account.call(
            lambda: client.delete_table(raw_response_hook=_noting(statuses)), f"delete the table {table!r}", again=True
        )
        return statuses[-1] != 404

    def list_tables(self) -> list[str]:
        self._open()
        client = self._account.tables()
        found = self._account.call(lambda: [item.name for item in client.list_tables()], "list the tables", again=True)
        return sorted(name for name in map(read_table, found) if name is not None)

    def insert(self, table: str, entity: Mapping[str, object]) -> str:
        client = self._table(table)
        checked = check_entity(entity)
        try:
            answer = self._call(table, lambda: client.create_entity(_written(checked)), "insert into")
        except ObjectConflict as error:
            raise conflict(table, checked["PartitionKey"], checked["RowKey"], there=True) from error
        return str(answer["etag"])

    def get(self, table: str, partition_key: str, row_key: str, *, select: Sequence[str] | None = None) -> Entity:
        client = self._table(table)
        wanted = check_select(select)
        keys = _keys(partition_key, row_key)
        try:
            found = self._call(table, lambda: client.get_entity(*keys, select=wanted), "get from", again=True)
        except ObjectNotFound as error:
            raise self._missing(error, table, partition_key, row_key) from error
        return _read(found)

    def upsert(self, table: str, entity: Mapping[str, object], *, mode: Mode = "merge") -> str:
        client = self._table(table)
        check_mode(mode)
        written = _written(check_entity(entity))
        # A second time would give a second etag, and may undo what somebody wrote between the two.
        return str(self._call(table, lambda: client.upsert_entity(written, mode=mode), "upsert into")["etag"])

    def update(self, table: str, entity: Mapping[str, object], *, mode: Mode = "merge", etag: str | None = None) -> str:
        client = self._table(table)
        check_mode(mode)
        checked = check_entity(entity)
        keys = checked["PartitionKey"], checked["RowKey"]
        try:
            answer = self._call(
                table, lambda: client.update_entity(_written(checked), mode=mode, **_matching(etag)), "update in"
            )
        except ObjectConflict as error:
            raise conflict(table, *keys, there=False) from error
        except ObjectNotFound as error:
            if etag is not None and error.context.get("code") != _NO_TABLE:
                raise conflict(table, *keys, there=False) from error
            raise self._missing(error, table, *keys) from error
        return str(answer["etag"])

    def delete(self, table: str, partition_key: str, row_key: str, *, etag: str | None = None) -> bool:
        client = self._table(table)
        keys = _keys(partition_key, row_key)
        statuses: list[int] = []
        hook = _noting(statuses)
        try:
            self._call(
                table, lambda: client.delete_entity(*keys, raw_response_hook=hook, **_matching(etag)), "delete from"
            )
        except ObjectConflict as error:
            raise conflict(table, partition_key, row_key, there=False) from error
        if statuses[-1] == 404:
            # The client takes no offence at it.
            if etag is not None:
                raise conflict(table, partition_key, row_key, there=False)
            return False
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
        client = self._table(table)
        check_page_size(size)
        wanted = check_select(select)
        condition = to_azure(parse(filter))
        token = _read_token(after)

        def fetch() -> Page:
            asked: dict[str, Any] = {"results_per_page": size, "select": wanted}
            found = client.list_entities(**asked) if condition is None else client.query_entities(condition, **asked)
            pages = found.by_page(token)
            entities = [_read(entity) for entity in next(pages, ())]
            return Page(entities, _write_token(pages.continuation_token))

        return self._call(table, fetch, "query", again=True)

    def transact(self, table: str, operations: Sequence[Operation]) -> list[str]:
        client = self._table(table)
        checked = check_operations(operations)
        if not checked:
            return []
        todo = [_operation(operation, _written(entity)) for operation, entity in checked]
        try:
            answers = self._call(table, lambda: client.submit_transaction(todo), "a transaction on")
        except (ObjectConflict, ObjectNotFound) as error:
            index = error.context.get("index", 0)
            operation, entity = checked[index if index < len(checked) else 0]
            raise self._failed(error, table, operation, entity) from error
        deleted = [isinstance(operation, Delete) for operation, _ in checked]
        return ["" if gone else str(answer["etag"]) for gone, answer in zip(deleted, answers, strict=True)]

    def _failed(
        self, error: HoldfastError, table: str, operation: Operation, entity: Mapping[str, Value]
    ) -> HoldfastError:
        keys = entity["PartitionKey"], entity["RowKey"]
        expected = getattr(operation, "etag", None) is not None
        if isinstance(error, ObjectNotFound) and (error.context.get("code") == _NO_TABLE or not expected):
            ours: HoldfastError = self._missing(error, table, *keys)
        else:
            ours = conflict(table, *keys, there=isinstance(operation, Insert))
        ours.context["index"] = error.context.get("index", 0)
        return ours

    def _missing(self, error: ObjectNotFound, table: str, partition_key: object, row_key: object) -> ObjectNotFound:
        if error.context.get("code") == _NO_TABLE:
            return no_table(self, table)
        return no_entity(self, table, partition_key, row_key)

    def _table(self, table: str) -> Any:
        self._open()
        return self._account.table(write_table(check_name(table, "table")))

    def _call(self, table: str, call: Callable[[], T], what: str, *, again: bool = False) -> T:
        try:
            return self._account.call(call, f"{what} the table {table!r}", again=again)
        except ObjectNotFound as error:
            if error.context.get("code") == _NO_TABLE:
                raise no_table(self, table) from error
            raise


def _keys(partition_key: str, row_key: str) -> tuple[str, str]:
    return write_key(check_key(partition_key, "PartitionKey")), write_key(check_key(row_key, "RowKey"))


def _written(entity: Mapping[str, Value]) -> dict[str, Any]:
    """The entity in the client's types. An int is always 64 bits there: one property, one type."""
    tables = azure("azure.data.tables")
    made: dict[str, Any] = {}
    for name, value in entity.items():
        if name in KEYS:
            made[name] = write_key(str(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            made[name] = tables.EntityProperty(value, tables.EdmType.INT64)
        else:
            made[name] = value
    return made


def _read(found: Any) -> Entity:
    values: dict[str, Value] = {}
    for name, value in found.items():
        if name in KEYS:
            values[name] = read_key(value)
        elif isinstance(value, datetime):
            values[name] = _plain(value)
        elif value is not None:  # what `select` asks for and an entity has not
            values[name] = getattr(value, "value", value)
    moment = found.metadata.get("timestamp")
    return Entity(values, str(found.metadata.get("etag")), _plain(moment) if moment is not None else None)


def _plain(moment: datetime) -> datetime:
    """The time itself, not the client's class for it."""
    return datetime.combine(moment.date(), moment.time(), UTC)


def _matching(etag: str | None) -> dict[str, Any]:
    if etag is None:
        return {}
    return {"etag": etag, "match_condition": azure("azure.core").MatchConditions.IfNotModified}


def _operation(operation: Operation, entity: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    if isinstance(operation, Insert):
        return "create", entity, {}
    if isinstance(operation, Delete):
        return "delete", entity, _matching(operation.etag)
    if isinstance(operation, Update):
        return "update", entity, {"mode": operation.mode, **_matching(operation.etag)}
    return "upsert", entity, {"mode": operation.mode}


def _noting(statuses: list[int]) -> Callable[[Any], None]:
    def note(response: Any) -> None:
        statuses.append(response.http_response.status_code)

    return note


def _write_token(token: Any) -> str | None:
    return base64.urlsafe_b64encode(json.dumps(token).encode()).decode() if token else None


def _read_token(token: str | None) -> Any:
    if token is None:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(token))
        if isinstance(found, dict) and set(found) == {"PartitionKey", "RowKey"}:
            return found
    except (ValueError, TypeError, binascii.Error):
        pass
    raise StorageRefused(f"not the `next` of a page of this store: {token!r:.80}")
