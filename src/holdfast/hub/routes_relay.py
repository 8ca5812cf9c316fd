"""The seed's relay: rows of tables for any HTTP client: POST /relay/immediate, /relay/batch, /relay/query.

A table is the collection ``table/<name>`` in the hub's own stream of `agent_id`, a row the value under its primary key:
``data["id"]``, or the field that `key` names, or an id made here. An unknown table appears with its first row. An
operation is known by its `msg_id` where it has one; without, repeating it still leaves the rows as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast import codec
from holdfast.collections.tables import RowDone
from holdfast.corpus import Stored, pages
from holdfast.corpus.sql import TAGS
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import Conflict, Denied, Erased, HoldfastError, IntegrityError, NotCached, NotFound, UsageError
from holdfast.hub.api import Call, Operation, decode, typed
from holdfast.hub.core import Core
from holdfast.hub.exchange import Receive, Scope, Send, answer_json, body_of
from holdfast.hub.own import QUICK_BYTES, Desk, check_agent, verdict_of
from holdfast.hub.principal import READ, SQL, WRITE, Principal, principal_of
from holdfast.hub.row_filters import FILTERS, filters
from holdfast.hub.shapes import INT64_MAX, PRINTED, Problem, Writer
from holdfast.hub.sqlroom import Found, Statement, question_of
from holdfast.log import Draft, drafts, load
from holdfast.log.drafts import new_id
from holdfast.records import INLINE_BYTES_MAX, NAME_BYTES_MAX, PUT, check_names
from holdfast.wire import PAGE_MAX, RECORDS_MAX

PREFIX: Final = "table/"
BATCH_MAX: Final = 10_000
ROWS_LOOKED_AT_MAX: Final = 50_000
TableName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=NAME_BYTES_MAX - len(PREFIX),
        description="the table; it appears with its first row",
        examples=["candidates"],
        extra_json_schema={"pattern": PRINTED},
    ),
]

Done = dict[str, Any] | HoldfastError
_NOTHING: Final = object()
_UNREAD: Final = object()


class RowChange(msgspec.Struct, frozen=True):
    """One change of one row, every field checked; `made`: its id was made here, and is another one in a repeat."""

    agent: str
    table: str
    what: str
    row: str
    data: dict[str, Any]
    msg_id: str
    made: bool = False

    @property
    def collection(self) -> str:
        """Where the rows of its table lie."""
        return PREFIX + self.table


class Change(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One change of one row."""

    agent_id: Writer
    table: TableName
    operation: Literal["insert", "upsert", "update", "delete"] = "upsert"
    data: Annotated[
        dict[str, Any], Meta(description="the row's fields by name", examples=[{"id": "c-1", "name": "Ada"}])
    ]
    key: Annotated[str, Meta(min_length=1, description="the field that is the primary key")] = "id"
    msg_id: (
        Annotated[
            str,
            Meta(
                max_length=NAME_BYTES_MAX,
                description="with one, it is carried out once, for ever",
            ),
        ]
        | None
    ) = None
    timestamp: Annotated[Any, Meta(description="taken, and not looked at")] = None


class RowChanges(msgspec.Struct):
    """A batch in an object; each operation is read on its own."""

    operations: list[msgspec.Raw]


class Changes(msgspec.Struct):
    """A batch of changes, carried out in order. Each gets its own verdict; a wrong one harms no other."""

    operations: Annotated[list[Change], Meta(max_length=BATCH_MAX)]


class RowVerdict(msgspec.Struct):
    """What became of one change of a batch."""

    status: Literal["stored", "deleted", "rejected"]
    table: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    version: int | UnsetType = UNSET
    error: Problem | UnsetType = UNSET


class RowVerdicts(msgspec.Struct):
    """One verdict for each change, in their order; `count` of them were carried out."""

    status: Literal["acked"]
    count: int
    verdicts: list[RowVerdict]


class Wanted(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which rows of a table."""

    table: TableName
    filters: (
        Annotated[
            dict[str, Any],
            Meta(
                description="a value (equal), or operators by name: eq ne gt gte lt lte in contains exists",
                examples=[{"age": {"gte": 30}}],
                extra_json_schema=FILTERS,
            ),
        ]
        | None
    ) = None
    limit: Annotated[int, Meta(ge=0, le=PAGE_MAX, description="how many at most")] = 100
    after: Annotated[int, Meta(ge=0, le=INT64_MAX, description="`next` of the page before")] = 0
    agent_id: (
        Annotated[
            str,
            Meta(
                description="only this agent's rows",
                max_length=NAME_BYTES_MAX,
                min_length=1,
                extra_json_schema={"pattern": PRINTED},
            ),
        ]
        | None
    ) = None


class RowsPage(msgspec.Struct):
    """Rows in the order in which they were last written; `next` when more may follow."""

    table: str
    rows: list[dict[str, Any]]
    count: int
    next: int | UnsetType = UNSET


def operations(core: Core) -> Iterator[Operation]:
    """The rows of tables."""

    def post(path: str, endpoint: Any, needs: str, summary: str, **more: Any) -> Operation:
        return Operation(
            method="POST", path=path, endpoint=endpoint, needs=needs, summary=summary, tag="tables", **more
        )

    yield post(
        *("/relay/immediate", Immediate(core), WRITE, "Change one row"),
        body=Change,
        answer=RowDone,
        errors=(404, 409),
        hot=True,
    )
    yield post(
        *("/relay/batch", typed(Batch(core)), WRITE, "Change many rows"),
        body=RowChanges | list[msgspec.Raw],
        shown=Changes | list[Change],
        answer=RowVerdicts,
    )
    yield post(
        *("/relay/query", typed(Rows(core)), READ, "Rows of a table that pass its filters, or what a statement finds"),
        body=msgspec.Raw,
        shown=Wanted | Statement,
        answer=RowsPage | Found,
        errors=(501,),
    )


class Immediate:
    """POST /relay/immediate: one operation → ``{"status": "stored", "table": …, "id": …, "version": …}``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        data = await body_of(scope, receive)
        change = read(data)
        principal_of(scope).check_write(change.agent, change.collection)
        (done,) = await carry_out(self._core, [change], len(data))
        if isinstance(done, HoldfastError):
            raise done
        await answer_json(send, done)


class Batch:
    """POST /relay/batch: a list of operations → ``{"status": "acked", "count": n, "verdicts": […]}``, one each."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> dict[str, Any]:
        """The answer to one request."""
        batch: list[msgspec.Raw] = call.body.operations if isinstance(call.body, RowChanges) else call.body
        if len(batch) > BATCH_MAX:
            error = UsageError(f"{len(batch)} operations at once, the most is {BATCH_MAX}", hint="send several batches")
            error.status = 413
            raise error
        verdicts: list[dict[str, Any]] = []
        for first in range(0, len(batch), RECORDS_MAX):
            verdicts += await self._carry_out(call.principal, batch[first : first + RECORDS_MAX])
        done = sum(verdict["status"] != "rejected" for verdict in verdicts)
        return {"status": "acked", "count": done, "verdicts": verdicts}

    async def _carry_out(self, principal: Principal, part: list[msgspec.Raw]) -> list[dict[str, Any]]:
        """The verdicts of up to 500 operations; those of one agent share a transaction."""
        verdicts: list[dict[str, Any]] = [{} for _ in part]
        good: dict[str, list[tuple[int, RowChange]]] = {}
        for number, raw in enumerate(part):
            try:
                operation = read(raw)
                principal.check_write(operation.agent, operation.collection)
            except HoldfastError as error:
                verdicts[number] = {"status": "rejected", "error": verdict_of(error)}
            else:
                good.setdefault(operation.agent, []).append((number, operation))
        for mine in good.values():
            size = sum(len(part[number]) for number, _ in mine)
            found = await carry_out(self._core, [operation for _, operation in mine], size)
            for (number, operation), done in zip(mine, found, strict=True):
                if isinstance(done, HoldfastError):
                    where = {"table": operation.table, "id": operation.row}
                    verdicts[number] = {"status": "rejected", **where, "error": verdict_of(done)}
                else:
                    verdicts[number] = done
        return verdicts


class Rows:
    """POST /relay/query: rows of a table that pass its filters → ``{"table": …, "rows": […], "count": n}``; or SQL.

    A filter is ``{"field": value}`` for equality, or ``{"field": {"gte": 3, "lt": 9}}`` with eq, ne, gt, gte, lt, lte,
    in, contains, exists; a dot in a name goes into objects. ``"next"`` is there when more rows may follow.

    With ``"sql"`` a statement is carried out instead (docs/sql.md); it needs the scope sql:read too.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> Any:
        """The answer to one request."""
        body = bytes(call.body)
        if "sql" in decode(body, dict[str, msgspec.Raw]):
            return await self._sql(call, decode(body, Statement))
        asked: Wanted = decode(body, Wanted)
        table, limit, agent = _table(asked.table), asked.limit, asked.agent_id
        call.principal.check_read(PREFIX + table)
        tests = filters(asked.filters or {})
        if agent is not None:
            check_agent(agent)

        def look() -> dict[str, Any]:
            rows: list[dict[str, Any]] = []
            seen = last = 0
            for seen, stored in enumerate(
                pages.live(self._core.corpus, PREFIX + table, agent=agent, after=asked.after), 1
            ):
                if len(rows) >= limit or seen > ROWS_LOOKED_AT_MAX:
                    return {"table": table, "rows": rows, "count": len(rows), "next": last}
                last = stored.pos
                row = self._row(stored)
                if row is not None and all(test(row) for test in tests):
                    rows.append(row)
            return {"table": table, "rows": rows, "count": len(rows)}

        return await self._core.read(look)

    async def _sql(self, call: Call, asked: Statement) -> bytes:
        call.principal.need(SQL)
        if not call.principal.reads_everything:
            # A view shows every collection: what is hidden from somebody cannot be kept out of what he counts or joins.
            raise Denied(
                f"{call.principal} may read some collections only, and SQL reads all",
                hint="use filters, or /v1/records; or ask for a token for every collection",
            )
        room = self._core.sql
        return await room.ask(question_of(asked, room.seconds_max))

    def _row(self, stored: Stored) -> dict[str, Any] | None:
        try:
            value = load(stored, self._core.home.blobs)
        except HoldfastError:
            return None
        row = value if isinstance(value, dict) else {"value": value}
        return {**row, "agent_id": row.get("agent_id", stored.agent)}


def read(asked: bytes | msgspec.Raw) -> RowChange:
    """An operation from what a client sent: a `Change`, as JSON.

    Raises:
        UsageError: with the field that is wrong.
    """
    change: Change = decode(bytes(asked), Change)
    agent, what, data, field = check_agent(change.agent_id, hub=False), change.operation, change.data, change.key
    table = _table(change.table)
    row = data.get(field)
    made = row is None
    if row is None:
        if what not in ("insert", "upsert"):
            raise UsageError(f"{what} needs {field!r} in its data", hint="it says which row")
        row = new_id("row")
        data = {**data, field: row}
    if isinstance(row, bool) or not isinstance(row, str | int):
        raise UsageError(f"the primary key {field!r} must be text or a number, got {row!r:.80}", hint="such as 'c-1'")
    msg_id = change.msg_id or ""
    check_names(PUT, PREFIX + table, str(row))
    codec.serialise(data)
    return RowChange(agent, table, what, str(row), data, msg_id, made)


async def carry_out(core: Core, operations: list[RowChange], size: int) -> list[Done]:
    """What became of each operation of one agent, in one transaction and in their order."""
    agent = operations[0].agent
    log = await core.own.log_of(agent)

    def write(draft: Draft, operation: RowChange) -> Callable[[SqlTransaction], list[Stored]]:
        tags = ((TAGS["request"], _request(operation)),) if operation.msg_id else ()
        return core.own.ready(log, msgspec.structs.replace(draft, tags=tags))

    def prepare() -> list[Callable[[SqlTransaction], list[Stored]] | None]:
        # Everything but an update is known beforehand, so it is hashed and packed outside the transaction.
        out: list[Callable[[SqlTransaction], list[Stored]] | None] = []
        for each in operations:
            if each.what == "delete":
                out.append(write(drafts.remove(each.collection, each.row, author=agent), each))
            else:
                draft = drafts.value(each.collection, each.row, each.data, author=agent)
                out.append(None if each.what == "update" else write(draft, each))
        return out

    quick = len(operations) == 1 and size <= QUICK_BYTES
    ready = prepare() if quick else await core.read(prepare)

    def work(desk: Desk) -> list[Done]:
        out: list[Done] = []
        desk.look_ahead(
            [(each.collection, each.row) for each in operations], "request", [_request(each) for each in operations]
        )
        for operation, prepared in zip(operations, ready, strict=True):
            try:
                out.append(_apply(core, desk, operation, prepared, write))
            except HoldfastError as error:
                if error.code in ("node_full", "integrity"):
                    raise  # of the hub's disk, not of this row: what is wrong with a row is told otherwise
                out.append(error)
        return out

    found: list[Done] = await core.own.write(agent, work, size=size, quick=quick)
    return found


def _apply(core: Core, desk: Desk, operation: RowChange, prepared: Any, write: Any) -> dict[str, Any]:
    if operation.msg_id:
        before = desk.request(_request(operation))
        if before is not None:
            return _repeated(operation, before)
    here = desk.newest(operation.collection, operation.row)
    if here is not None and here.is_blob:
        desk.open_files()
    old = _value(core, here, operation.what) if here is not None else _NOTHING
    new: dict[str, Any] = operation.data
    if operation.what == "update":
        if not isinstance(old, dict):
            raise NotFound(f"table {operation.table!r} has no row {operation.row!r}", hint="upsert makes it")
        new = {**old, **operation.data}
    if operation.what == "delete":
        # Of what is not there, too, where it is to be carried out once: a late repeat must find that it was.
        wanted = here is not None or operation.msg_id
        return _done(operation, desk.append(prepared).record.key_version if wanted else 0)
    if here is not None and old not in (_NOTHING, _UNREAD) and codec.serialise(old) == codec.serialise(new):
        if operation.msg_id:  # nothing to write, and yet carried out: a late repeat must not undo what comes after it
            desk.tx.tag(here.pos, TAGS["request"], _request(operation))
        return _done(operation, here.record.key_version)
    if operation.what == "insert" and here is not None and old is not _NOTHING:
        raise Conflict(
            f"table {operation.table!r} has a row {operation.row!r} already",
            hint="upsert replaces it, update changes some of its fields",
            current_version=here.record.key_version,
        )
    if prepared is None:
        draft = drafts.value(operation.collection, operation.row, new, author=operation.agent)
        if len(draft.payload) > INLINE_BYTES_MAX:
            desk.open_files()
        prepared = write(draft, operation)
    return _done(operation, desk.append(prepared).record.key_version)


def _value(core: Core, here: Stored, what: str) -> Any:
    """What a row holds: `_NOTHING` where it was erased, `_UNREAD` where nobody can read it; both may be written over.

    Raises:
        NotCached: its bytes are not here yet, and are wanted.
    """
    try:
        return load(here, core.home.blobs)
    except Erased:
        return _NOTHING
    except (IntegrityError, NotFound) as error:
        if what == "update" and isinstance(error, NotCached):
            raise
        return _UNREAD


def _repeated(operation: RowChange, before: Stored) -> dict[str, Any]:
    """The answer to a change that was carried out before.

    Raises:
        Conflict: it was another one that had this id: to say that this one was stored would lose it.
    """
    record = before.record
    same = record.collection == operation.collection and before.gone == (operation.what == "delete")
    if not same or (record.key != operation.row and not operation.made):
        raise Conflict(
            f"the msg_id {operation.msg_id!r:.80} was used for another change",
            hint="an id names one change, for ever",
            table=record.collection.removeprefix(PREFIX),
            id=record.key,
        )
    return _done(msgspec.structs.replace(operation, row=record.key), record.key_version)


def _done(operation: RowChange, version: int) -> dict[str, Any]:
    status = "deleted" if operation.what == "delete" else "stored"
    return {"status": status, "table": operation.table, "id": operation.row, "version": version}


def _request(operation: RowChange) -> str:
    return f"relay:{operation.agent}:{operation.msg_id}"


def _table(name: str) -> str:
    check_names(PUT, PREFIX + name, "")
    return name
