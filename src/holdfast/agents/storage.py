"""`BaseStorage`: what every agent's store of the seed has, over one `Store`. Extend it, and say what a row must be.

    class LeadStorage(BaseStorage):
        def _write_local(self, table, data, operation):
            return {**data, "company": data["company"].strip()}

    storage = LeadStorage("scout", "./data/agents/scout", htpc_url="http://hub:8084")
    await storage.write_data("leads", {"company": " ACME ", "heat": 9})

The seed wrote twice: into a file here, and by a request to the hub, with a queue for what failed. Here a row is written
once, into the agent's log; the node's shipper carries the log to the hub for as long as it takes.
"""

from __future__ import annotations

import asyncio
import difflib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, ParamSpec, Self, TypeVar, Unpack

import msgspec

from holdfast import clock as clocks
from holdfast.agents.place import IGNORED, Options, arguments_in, data_dir_of
from holdfast.agents.rows import LIMIT, Order, Row, Rows
from holdfast.errors import Conflict, HoldfastError, HubUnavailable, NotFound, UsageError
from holdfast.log.drafts import new_id
from holdfast.node.directory import read_config
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.query import EVERYTHING, Condition, checked

OPERATIONS: Final = ("insert", "upsert", "update", "delete")
FLUSH_S: Final = 10.0
_CHANGE: Final = 'such as {"table": "leads", "data": {"company": "ACME"}, "operation": "insert"}'
P = ParamSpec("P")
T = TypeVar("T")


class Page(list[dict[str, Any]]):
    """Rows in order; `cursor` is what the next page begins behind, None when there is none."""

    def __init__(self, rows: Iterable[dict[str, Any]] = (), cursor: str | None = None) -> None:
        super().__init__(rows)
        self.cursor = cursor


class BaseStorage(ABC):
    """An agent's tables on this machine, visible on every other; extend it and implement `_write_local`.

    Safe to share among threads; any number of processes may open the same directory and agent.

    Args:
        agent_id: who writes.
        data_dir: the node directory, which many agents may share; None: as COMMANDER_STORAGE_DIR says, or
            COMMANDER_DB_URL (``sqlite:///…``).
        htpc_url: the hub's address, or several; None: as `holdfast init` wrote it down, if it did.
        enable_htpc: False: everything stays on this machine.
        options: see `Options`.

    Raises:
        UsageError: an impossible name, address or option.
    """

    agent: ClassVar[str] = ""
    """The agent's name where a subclass has one of its own."""
    indexes: ClassVar[Mapping[str, Sequence[str]]] = {}
    """By table the fields that rows are found by quickly; lists by their members."""
    words: ClassVar[Mapping[str, Sequence[str]]] = {}
    """By table the fields whose words are looked for quickly: ``where("notes").text("python engines")``."""
    shared: frozenset[str] = frozenset()
    """The tables that the hub decides about, for all machines."""

    def __init__(
        self,
        agent_id: str,
        data_dir: str | os.PathLike[str] | None = None,
        htpc_url: str | Iterable[str] | None = None,
        enable_htpc: bool = True,
        **options: Unpack[Options],
    ) -> None:
        _check(options)
        self.agent_id = agent_id
        self.data_dir = data_dir_of(data_dir)
        self.clock = options.get("clock") or clocks.SYSTEM
        self.timeout = options.get("timeout", FLUSH_S)
        self.ignored: list[str] = [name for name in IGNORED if name in options]
        """What was configured and has no effect here."""
        self._token = options.get("token")
        self._hub: Hub | None = None
        self._tables: dict[str, Rows] = {}
        given: dict[str, Any] = {name: options[name] for name in ("level", "limits") if name in options}
        self.store = Store(
            self.data_dir,
            agent_id,
            hub=htpc_url if enable_htpc else [],
            token=self._token,
            **given,
        )
        self.htpc_url = self.store.hubs[0] if self.store.hubs else None
        self.enable_htpc = bool(self.store.hubs)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **more: Any) -> Self:
        """The storage that a configuration of the seed describes.

        Args:
            config: ``{"storage": {"local_data_dir": …, "htpc_url": …, "enable_htpc": …}}``, with ``agent_id`` beside it
                where the class has no name of its own. What has no effect here is listed in `ignored`.
            more: arguments of the constructor, which come first.

        Raises:
            UsageError: a value that cannot be, or nobody says whose storage it is.
        """
        found, ignored = arguments_in(config)
        arguments = found | more
        if not cls.agent and not arguments.get("agent_id"):
            raise UsageError("nobody says whose storage this is", hint='agent_id="recruiter-001"')
        made = cls(**arguments)
        made.ignored += ignored
        return made

    # -- what a subclass says -------------------------------------------------------------------------------------

    @abstractmethod
    def _write_local(self, table: str, data: dict[str, Any], operation: str) -> dict[str, Any] | None:
        """This machine's part of a write, before it: check the row, shape it, write what you keep beside it.

        What it returns (None: `data` as it is) goes into the log, and so to every machine. Raise, and nothing is
        written. When somebody else changes the same row meanwhile, it is called again with the row as it is then.

        Args:
            table: its name.
            data: the whole row as it would be kept; of a delete, the row that goes.
            operation: insert, upsert, update or delete.
        """

    # -- writing --------------------------------------------------------------------------------------------------

    async def write_data(self, table: str, data: Mapping[str, Any], operation: str = "insert") -> bool:
        """Writes one row, and returns True once it is durable here, on its way to the hub.

        Args:
            table: its name; it appears with its first row.
            data: the row's fields; ``id`` says which row, an insert without one gets one.
            operation: insert, upsert (in place of what is there), update (changes the given fields) or delete.

        Raises:
            Conflict: an insert of a row that is there with other fields.
            NotFound: an update or a delete of a row that is not there.
            UsageError: what `_write_local` refuses, or no such operation.
            NodeFull: this machine's disk is full.
        """
        await self.in_thread(self.change, table, data, operation)
        return True

    async def insert(self, table: str, data: Mapping[str, Any]) -> str:
        """Adds a row, and returns its id; see `write_data`."""
        return await self.in_thread(self.change, table, data, "insert")

    async def batch_write(self, records: Sequence[Mapping[str, Any]]) -> int:
        """Writes up to 500 rows in one commit, all or none; returns how many there were.

        Args:
            records: dicts of `table`, `data` and, if it is no insert, `operation`.

        Raises:
            UsageError: too many, or a table that the hub decides about.
        """
        return await self.in_thread(self._change_all, records)

    def change(self, table: str, data: Mapping[str, Any], operation: str) -> str:
        """`write_data`, waited for in this thread; returns the row's id."""
        wanted = _wanted(data, operation)
        id = str(wanted["id"])
        while True:
            planned = self._planned(table, wanted, operation)
            if planned is None:
                return id
            row, expect = planned
            try:
                if row is None:
                    self.table(table).delete(id, expect)
                else:
                    self.table(table).put(id, row, expect)
                return id
            except Conflict:
                continue  # somebody was faster: what he left is what the change is made to

    def table(self, name: str) -> Rows:
        """A table's rows, to be read and changed in this thread, past `_write_local`."""
        rows = self._tables.get(name)
        if rows is None:
            index, words = self.indexes.get(name, ()), self.words.get(name, ())
            rows = Rows(self.store, name, index, words, shared=name in self.shared)
            self._tables[name] = rows
        return rows

    # -- reading --------------------------------------------------------------------------------------------------

    async def get_row(self, table: str, id: str | int) -> dict[str, Any] | None:
        """A row of one's own, or None."""
        row = await self.in_thread(self.table(table).get, str(id))
        return None if row is None else row.value

    async def find(
        self,
        table: str,
        condition: Condition = EVERYTHING,
        *,
        order: Order = (),
        limit: int = LIMIT,
        after: str | None = None,
    ) -> Page:
        """The rows of one's own that meet a condition, as a list whose `cursor` leads to the next page.

        Args:
            table: its name.
            condition: such as ``(where("heat") >= 8) & where("city").exists()``.
            order: the field to sort by, or several; ``"-heat"``: the greatest first. None: as they were first written.
            limit: the most, up to 1,000.
            after: the `cursor` of the page before.
        """
        rows = self.table(table)
        found = await self.in_thread(rows.find, checked(condition), order=order, limit=limit, after=after)
        return Page((row.value for row in found.rows), found.cursor)

    async def find_network(
        self,
        table: str,
        condition: Condition = EVERYTHING,
        *,
        order: Order = (),
        limit: int = LIMIT,
        after: str | None = None,
    ) -> Page:
        """The rows of all agents, on whatever machine, that meet a condition; each says in ``agent_id`` whose it is.

        Args:
            table, condition, order, limit, after: see `find`.

        Raises:
            HubUnavailable: there is no hub, or it does not answer; `find` reads what is here.
        """
        call = self.table(table).everywhere
        found = await self.in_thread(call, checked(condition), order=order, limit=limit, after=after)
        return Page(({"agent_id": row.agent, **row.value} for row in found.rows), found.cursor)

    async def query_network(
        self, query: str, params: Sequence[Any] | Mapping[str, Any] = (), *, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """The rows that one SELECT finds on the hub, over what all agents wrote: the views of docs/sql.md.

        Args:
            query, params: SQL, and values for its ``?``, or by name for its ``:name``.
            limit: rows, at most.

        Raises:
            HubUnavailable: there is no hub, or it does not answer.
            UsageError: it is no SELECT, or took too long.
        """
        return await self.in_thread(lambda: self._reader().sql(query, params, limit=limit).objects())

    # -- the way to the hub ---------------------------------------------------------------------------------------

    @property
    def sync_queue(self) -> dict[str, Any]:
        """What is on its way to the hub: `pending` records, and `state`: off (no hub), synced, pending or offline."""
        hubs = self.store.health()["hubs"]
        pending = max((hub["depth"] for hub in hubs), default=0)
        away = any(hub["state"] == "offline" for hub in hubs)
        state = "off" if not hubs else "offline" if away else "pending" if pending else "synced"
        return {"pending": pending, "state": state, "hubs": hubs}

    outbox = sync_queue

    def get_sync_queue_size(self) -> int:
        """How many records the hub has not acknowledged yet; 0 without a hub."""
        return self.store.outbox_depth

    async def process_sync_queue(self, batch_size: int | None = None) -> int:
        """Waits up to `timeout` seconds until the hub has what was written; returns how many records it took.

        Args:
            batch_size: taken, and without effect: records travel in batches of what waits.
        """
        before = self.get_sync_queue_size()
        await self.flush()
        return max(0, before - self.get_sync_queue_size())

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - how long a hub may take
        """Waits until the hub would not lose what was written so far; False if `timeout` seconds were not enough."""
        return await self.in_thread(self.store.flush, self.timeout if timeout is None else timeout)

    def health_check(self) -> dict[str, Any]:
        """How the storage stands, as JSON values; never raises.

        `status` is ok, degraded (all works here, and something is to be looked at: `problems` says what) or failing
        (this machine's log cannot be used).
        """
        found: dict[str, Any] = {
            "agent_id": self.agent_id,
            "status": "failing",
            "local_db": False,
            "htpc_enabled": self.enable_htpc,
            "htpc_url": self.htpc_url,
            "htpc_state": "unknown" if self.enable_htpc else "off",
            "sync_queue_size": 0,
            "problems": [],
            "ignored": list(self.ignored),
            "timestamp": clocks.iso(self.clock.now_ms()),
        }
        try:
            self.store.keys(limit=1)  # what is closed, or damaged, says so here
            health = self.store.health()
            found["sync_queue_size"] = self.store.outbox_depth
        except HoldfastError as error:
            found["problems"] = [error.message]
            return found
        states = [hub["state"] for hub in health["hubs"]]
        found["htpc_state"] = next((state for state in states if state == "offline"), states[0] if states else "off")
        found["problems"] = health["problems"]
        return found | {"status": "ok" if health["ok"] else "degraded", "local_db": True, "level": health["level"]}

    # -- ending ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Syncs and closes; a second close is fine. A hub that answers gets up to a second to take the last records."""
        await asyncio.to_thread(self._close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    async def in_thread(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """What a call that may wait for a disk or a hub returns, without blocking the loop."""
        return await asyncio.to_thread(call, *args, **options)

    def _close(self) -> None:
        hub, self._hub = self._hub, None
        if hub is not None:
            hub.close()
        self.store.close()

    def _reader(self) -> Hub:
        if not self.store.hubs:
            raise HubUnavailable(f"the storage of {self.agent_id} has no hub", hint="open it with htpc_url='http://…'")
        if self._hub is None:
            token = self._token
            if token is None and (file := read_config(self.data_dir).get("token_file")):
                from pathlib import Path

                token = Path(file)
            self._hub = Hub(self.store.hubs, token)
        return self._hub

    def _planned(self, table: str, data: dict[str, Any], operation: str) -> tuple[dict[str, Any] | None, int] | None:
        """The row that comes of a change (None: it goes) and the version it comes after; None: nothing to do."""
        id = str(data["id"])
        before = self.table(table).get(id)
        row = _changed(table, id, before, data, operation)
        made = self._write_local(table, dict(row), operation)
        if operation == "delete":
            return None, before.version if before else 0
        kept = row if made is None else made
        if before is not None and kept == before.value:
            return None
        if before is not None and operation == "insert":
            raise Conflict(
                f"{table} has a row {id!r} already, with other fields",
                hint="update changes some of them, upsert replaces it",
                current_version=before.version,
            )
        if str(kept.get("id")) != id:
            raise UsageError(f"_write_local made {kept.get('id')!r:.80} of the id {id!r}", hint="leave it as it is")
        return kept, before.version if before else 0

    def _change_all(self, records: Sequence[Mapping[str, Any]]) -> int:
        asked = []
        if isinstance(records, str | bytes | Mapping) or not isinstance(records, Iterable):
            raise UsageError(f"a batch is a list of changes, got {records!r:.80}", hint=_CHANGE)
        for each in records:
            if not isinstance(each, Mapping) or not isinstance(each.get("table", ""), str):
                raise UsageError(f"no change of a batch: {each!r:.80}", hint=_CHANGE)
            operation = each.get("operation", "insert")
            asked.append((each.get("table", ""), _wanted(each.get("data"), operation), operation))
        if len({(table, str(data["id"])) for table, data, _ in asked}) < len(asked):
            raise UsageError("a batch names the same row twice", hint="one change a row")
        while asked:
            try:
                with self.store.batch() as batch:
                    for table, data, operation in asked:
                        planned = self._planned(table, data, operation)
                        if planned is None:
                            continue
                        row, expect = planned
                        id, name = str(data["id"]), self.table(table).name
                        if row is None:
                            batch.delete(id, collection=name, expect=expect)
                        else:
                            batch.put(id, row, collection=name, expect=expect)
                break
            except Conflict as error:
                if "current_version" in error.context and "etag" not in error.context:
                    raise  # an insert of what is there
        return len(asked)


def _changed(table: str, id: str, before: Row | None, data: dict[str, Any], operation: str) -> dict[str, Any]:
    """The row as a change would leave it; of a delete, the row that goes."""
    if operation in ("insert", "upsert"):
        return data
    if before is None:
        raise NotFound(f"{table} has no row {id!r}", hint="upsert makes it" if operation == "update" else "")
    return {**before.value, **data} if operation == "update" else before.value


def _wanted(data: Any, operation: str) -> dict[str, Any]:
    """A change's fields, with the id that it is about.

    Raises:
        UsageError: no operation of ours, no mapping, or no id where one is needed.
    """
    if operation not in OPERATIONS:
        near = difflib.get_close_matches(str(operation), OPERATIONS, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(OPERATIONS)}"
        raise UsageError(f"unknown operation {operation!r:.80}", hint=hint)
    if not isinstance(data, Mapping):
        raise UsageError(f"a row is a dict, got {data!r:.80}", hint="its fields by name")
    try:
        row: dict[str, Any] = msgspec.to_builtins(dict(data), str_keys=True)
    except TypeError as error:
        raise UsageError(f"a row cannot hold this: {error}", hint="text, numbers, lists, dicts, dates") from error
    id = row.get("id")
    if id is None:
        if operation not in ("insert", "upsert"):
            raise UsageError(f"{operation} needs an id in its data", hint="it says which row")
        row["id"] = new_id("row")
    elif isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise UsageError(f"an id is text or a whole number, got {id!r:.80}", hint="such as 'c-1'")
    return row


def _check(options: Mapping[str, Any]) -> None:
    for name in options.keys() - Options.__annotations__.keys():
        near = difflib.get_close_matches(name, Options.__annotations__, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(Options.__annotations__))}"
        raise UsageError(f"unknown option {name!r}", hint=hint)
