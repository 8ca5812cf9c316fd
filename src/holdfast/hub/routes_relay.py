"""The seed's relay: rows of tables for any HTTP client: POST /relay/immediate, /relay/batch, /relay/query.

A table is the collection ``table/<name>`` in the hub's own stream of `agent_id`, a row the value under its primary key:
``data["id"]``, or the field that `key` names, or an id made here. An unknown table appears with its first row. An
operation is known by its `msg_id` where it has one; without, repeating it still leaves the rows as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus import Stored, pages
from holdfast.corpus.sql import TAGS
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import Conflict, HoldfastError, NotFound, UsageError
from holdfast.hub.api import Operation
from holdfast.hub.core import Core
from holdfast.hub.exchange import Receive, Scope, Send, answer_json, body_of, parse_json, parts_of
from holdfast.hub.own import QUICK_BYTES, Desk, check_agent, verdict_of
from holdfast.hub.principal import READ, WRITE
from holdfast.log import Draft, drafts, load
from holdfast.log.drafts import new_id
from holdfast.records import INLINE_BYTES_MAX, NAME_BYTES_MAX, PUT, check_names
from holdfast.wire import PAGE_MAX, RECORDS_MAX

PREFIX: Final = "table/"
OPERATIONS: Final = ("insert", "upsert", "update", "delete")
BATCH_MAX: Final = 10_000
ROWS_LOOKED_AT_MAX: Final = 50_000
_FIELDS = frozenset({"agent_id", "table", "operation", "data", "key", "msg_id", "timestamp"})

Done = dict[str, Any] | HoldfastError


class RowChange(msgspec.Struct, frozen=True):
    """One change of one row, every field checked."""

    agent: str
    table: str
    what: str
    row: str
    data: dict[str, Any]
    msg_id: str

    @property
    def collection(self) -> str:
        """Where the rows of its table lie."""
        return PREFIX + self.table


class RowChanges(msgspec.Struct):
    """A batch in an object; each operation is read on its own."""

    operations: list[msgspec.Raw]


def operations(core: Core) -> Iterator[Operation]:
    """The rows of tables."""

    def post(path: str, endpoint: Any, needs: str, summary: str, *, hot: bool = False) -> Operation:
        return Operation(
            method="POST", path=path, endpoint=endpoint, needs=needs, summary=summary, tag="tables", hot=hot
        )

    yield post("/relay/immediate", Immediate(core), WRITE, "Change one row", hot=True)
    yield post("/relay/batch", Batch(core), WRITE, "Change many rows")
    yield post("/relay/query", Rows(core), READ, "Rows of a table that pass its filters")


class Immediate:
    """POST /relay/immediate: one operation → ``{"status": "stored", "table": …, "id": …, "version": …}``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        data = await body_of(scope, receive)
        (done,) = await carry_out(self._core, [read(parse_json(data))], len(data))
        if isinstance(done, HoldfastError):
            raise done
        await answer_json(send, done)


class Batch:
    """POST /relay/batch: a list of operations → ``{"status": "acked", "count": n, "verdicts": […]}``, one each."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        data = await body_of(scope, receive)
        found = parts_of(data, RowChanges | list[msgspec.Raw], '[{"agent_id": …, "table": …, "operation": …}]')  # type: ignore[arg-type]
        batch = found.operations if isinstance(found, RowChanges) else found
        if len(batch) > BATCH_MAX:
            error = UsageError(f"{len(batch)} operations at once, the most is {BATCH_MAX}", hint="send several batches")
            error.status = 413
            raise error
        verdicts: list[dict[str, Any]] = []
        for first in range(0, len(batch), RECORDS_MAX):
            verdicts += await self._carry_out(batch[first : first + RECORDS_MAX])
        done = sum(verdict["status"] != "rejected" for verdict in verdicts)
        await answer_json(send, {"status": "acked", "count": done, "verdicts": verdicts})

    async def _carry_out(self, part: list[msgspec.Raw]) -> list[dict[str, Any]]:
        """The verdicts of up to 500 operations; those of one agent share a transaction."""
        verdicts: list[dict[str, Any]] = [{} for _ in part]
        good: dict[str, list[tuple[int, RowChange]]] = {}
        for number, raw in enumerate(part):
            try:
                operation = read(parse_json(bytes(raw)))
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
    """POST /relay/query: rows of a table that pass its filters → ``{"table": …, "rows": […], "count": n}``.

    A filter is ``{"field": value}`` for equality, or ``{"field": {"gte": 3, "lt": 9}}`` with eq, ne, gt, gte, lt, lte,
    in, contains, exists; a dot in a name goes into objects. ``"next"`` is there when more rows may follow.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        asked = parse_json(await body_of(scope, receive))
        if not isinstance(asked, dict):
            raise UsageError("a query is an object", hint='{"table": "candidates", "filters": {…}, "limit": 100}')
        if "sql" in asked or isinstance(asked.get("query"), str):
            raise UsageError("this hub runs no SQL", hint='give {"table": …, "filters": {"age": {"gte": 3}}}')
        table = _table(asked.get("table"))
        given = asked.get("filters")
        tests = filters({} if given is None else given)
        limit, after = asked.get("limit", 100), asked.get("after", 0)
        for name, value, most in (("limit", limit, PAGE_MAX), ("after", after, 1 << 62)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
                raise UsageError(
                    f"{name} must be a whole number up to {most}, got {value!r:.80}", hint="see docs/http.md"
                )
        agent = asked.get("agent_id")
        if agent is not None:
            check_agent(agent)

        def look() -> dict[str, Any]:
            rows: list[dict[str, Any]] = []
            seen = last = 0
            for seen, stored in enumerate(pages.live(self._core.corpus, PREFIX + table, agent=agent, after=after), 1):
                if len(rows) >= limit or seen > ROWS_LOOKED_AT_MAX:
                    return {"table": table, "rows": rows, "count": len(rows), "next": last}
                last = stored.pos
                row = self._row(stored)
                if row is not None and all(test(row) for test in tests):
                    rows.append(row)
            return {"table": table, "rows": rows, "count": len(rows)}

        await answer_json(send, await self._core.read(look))

    def _row(self, stored: Stored) -> dict[str, Any] | None:
        try:
            value = load(stored, self._core.home.blobs)
        except HoldfastError:
            return None
        row = value if isinstance(value, dict) else {"value": value}
        return {**row, "agent_id": row.get("agent_id", stored.agent)}


def read(asked: Any) -> RowChange:
    """An operation from what a client sent.

    Raises:
        UsageError: with the field that is wrong.
    """
    if not isinstance(asked, dict):
        raise UsageError(f"an operation is an object, got {type(asked).__name__}", hint="see docs/http.md")
    if unknown := sorted(set(asked) - _FIELDS):
        raise UsageError(f"unknown field {unknown[0]!r:.80}", hint=f"known are {', '.join(sorted(_FIELDS))}")
    agent, what, data = asked.get("agent_id"), asked.get("operation", "upsert"), asked.get("data")
    agent = check_agent(agent, hub=False)
    table = _table(asked.get("table"))
    if what not in OPERATIONS:
        raise UsageError(f"unknown operation {what!r:.80}", hint=f"one of {', '.join(OPERATIONS)}")
    if not isinstance(data, dict):
        raise UsageError(f"data must be an object, got {type(data).__name__}", hint="the row's fields by name")
    field = asked.get("key", "id")
    if not isinstance(field, str) or not field:
        raise UsageError(f"key must name the field that is the primary key, got {field!r:.80}", hint="'id' unless said")
    row = data.get(field)
    if row is None:
        if what not in ("insert", "upsert"):
            raise UsageError(f"{what} needs {field!r} in its data", hint="it says which row")
        row = new_id("row")
        data = {**data, field: row}
    if isinstance(row, bool) or not isinstance(row, str | int):
        raise UsageError(f"the primary key {field!r} must be text or a number, got {row!r:.80}", hint="such as 'c-1'")
    msg_id = asked.get("msg_id") or ""
    if not isinstance(msg_id, str) or len(msg_id) > NAME_BYTES_MAX:
        raise UsageError(f"msg_id must be text of at most {NAME_BYTES_MAX} letters", hint="such as a UUID")
    check_names(PUT, PREFIX + table, str(row))
    codec.serialise(data)
    return RowChange(agent, table, what, str(row), data, msg_id)


async def carry_out(core: Core, operations: list[RowChange], size: int) -> list[Done]:
    """What became of each operation of one agent, in one transaction and in their order."""
    agent = operations[0].agent
    log = await core.own.log_of(agent)

    def write(draft: Draft, operation: RowChange) -> Callable[[SqlTransaction], list[Stored]]:
        tags = ((TAGS["msg_id"], _request(operation)),) if operation.msg_id else ()
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
        desk.look_ahead([(each.collection, each.row) for each in operations], [_request(each) for each in operations])
        for operation, prepared in zip(operations, ready, strict=True):
            try:
                out.append(_apply(core, desk, operation, prepared, write))
            except HoldfastError as error:
                if error.code in ("node_full", "integrity"):
                    raise  # of the hub's disk, not of this row
                out.append(error)
        return out

    found: list[Done] = await core.own.write(agent, work, size=size, quick=quick)
    return found


def _apply(core: Core, desk: Desk, operation: RowChange, prepared: Any, write: Any) -> dict[str, Any]:
    if operation.msg_id:
        before = desk.request(_request(operation))
        if before is not None:
            return _done(operation, before.record.key_version)
    here = desk.newest(operation.collection, operation.row)
    if here is not None and here.is_blob:
        desk.open_files()
    old = load(here, core.home.blobs) if here is not None else None
    new: dict[str, Any] = operation.data
    if operation.what == "update":
        if here is None or not isinstance(old, dict):
            raise NotFound(f"table {operation.table!r} has no row {operation.row!r}", hint="upsert makes it")
        new = {**old, **operation.data}
    if operation.what == "delete":
        return _done(operation, desk.append(prepared).record.key_version if here is not None else 0)
    if here is not None and codec.serialise(old) == codec.serialise(new):
        return _done(operation, here.record.key_version)
    if operation.what == "insert" and here is not None:
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


def _done(operation: RowChange, version: int) -> dict[str, Any]:
    status = "deleted" if operation.what == "delete" else "stored"
    return {"status": status, "table": operation.table, "id": operation.row, "version": version}


def _request(operation: RowChange) -> str:
    return f"relay:{operation.agent}:{operation.msg_id}"


def _table(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise UsageError(f"table must be a name, got {name!r:.80}", hint="such as 'candidates'")
    check_names(PUT, PREFIX + name, "")
    return name


# -- filters ----------------------------------------------------------------------------------------------------

Test = Callable[[dict[str, Any]], bool]


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(have: Any, want: Any) -> bool:
        try:
            return have is not None and compare(have, want)
        except TypeError:
            return False  # a text is neither more nor less than a number

    return test


_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda have, want: bool(have == want),
    "ne": lambda have, want: bool(have != want),
    "gt": _ordered(lambda have, want: have > want),
    "gte": _ordered(lambda have, want: have >= want),
    "lt": _ordered(lambda have, want: have < want),
    "lte": _ordered(lambda have, want: have <= want),
    "in": lambda have, want: have in want,
    "contains": lambda have, want: isinstance(have, str | list | dict) and _contains(have, want),
    "exists": lambda have, want: (have is not None) == want,
}


def _contains(have: Any, want: Any) -> bool:
    if isinstance(have, str):
        return isinstance(want, str) and want in have
    return all(each in have for each in want) if isinstance(want, list) else want in have


def filters(asked: Any) -> list[Test]:
    """The tests that a row must pass.

    Raises:
        UsageError: an operator that is none of ours, or a value it cannot compare with.
    """
    if not isinstance(asked, dict):
        raise UsageError("filters are an object", hint='{"status": "open", "age": {"gte": 3}}')
    tests: list[Test] = []
    for field, given in asked.items():
        wanted = given if isinstance(given, dict) and given else {"eq": given}
        for name, value in wanted.items():
            if name not in _TESTS:
                raise UsageError(f"unknown operator {name!r:.80} on {field!r:.80}", hint=f"one of {', '.join(_TESTS)}")
            if name == "in" and not isinstance(value, list):
                raise UsageError(f"'in' on {field!r:.80} needs a list", hint='{"in": ["a", "b"]}')
            if name == "exists" and not isinstance(value, bool):
                raise UsageError(f"'exists' on {field!r:.80} needs true or false", hint='{"exists": true}')
            tests.append(_test(field, _TESTS[name], value))
    return tests


def _test(field: str, compare: Callable[[Any, Any], bool], want: Any) -> Test:
    def test(row: dict[str, Any]) -> bool:
        have: Any = row.get(field)
        if have is None and "." in field:
            have = row
            for part in field.split("."):
                have = have.get(part) if isinstance(have, dict) else None
        return compare(have, want)

    return test
