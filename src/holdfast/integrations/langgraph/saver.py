"""LangGraph's checkpointer on Holdfast: sync and async, on a node or at a hub."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from holdfast import clock
from holdfast.corpus.search import WORDS
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.integrations.langgraph import paths, upkeep, words
from holdfast.integrations.langgraph.contents import (
    Made,
    below,
    joined,
    pending,
    values_in,
    values_of,
    within,
    writes_row,
)
from holdfast.integrations.langgraph.door import (
    BaseCheckpointSaver,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from holdfast.integrations.langgraph.lists import Lost
from holdfast.integrations.langgraph.packing import packed, unpacked
from holdfast.integrations.langgraph.rows import Rows
from holdfast.integrations.langgraph.serde import StrictSerializer
from holdfast.integrations.langgraph.threads import Found, Threads
from holdfast.integrations.place import Closing
from holdfast.log.versions import Version
from holdfast.node.looking import When
from holdfast.node.shelf import NodeShelf, first, place_of

CHECKPOINTS: Final = "langgraph-checkpoints"
"""The collection of checkpoints."""
PAGE: Final = 20
Config = Any
"""LangChain's RunnableConfig."""


class HoldfastSaver(Closing, BaseCheckpointSaver):
    """Keeps the checkpoints of graphs: every step of every thread, at the cost of what the step changed.

        graph = builder.compile(checkpointer=HoldfastSaver("./node"))

    Safe to share among threads and event loops; any number of processes may open one directory. What is put is durable
    at the store's level when the call returns. Where the store has a hub, threads that were begun on other machines are
    found and gone on with; while the hub is away, those of this machine are.

    Args:
        place: a directory, a hub's address, or a Store, AsyncStore, Hub or AsyncHub that is open.
        agent: in whose name it is written, where the place does not say so.
        serde: LangGraph's serialiser. None: its standard one, strictly with an allow-list, and without pickle.
        allow: types of your own that the standard one may make when it reads: classes, or ("module", "Class").
        ttl_s: seconds after its last checkpoint that a thread is gone; None: it stays.
        share: show what others put there, too.

    Raises:
        UsageError: `place` is none, or `allow` is given beside a serialiser of one's own.
    """

    def __init__(
        self,
        place: Any,
        *,
        agent: str = "langgraph",
        serde: Any = None,
        allow: Iterable[Any] = (),
        ttl_s: float | None = None,
        share: bool = True,
    ) -> None:
        allow = tuple(allow)
        if serde is not None and allow:
            raise UsageError("`allow` is for the standard serialiser", hint="tell your own what it may read")
        if ttl_s is not None and not ttl_s > 0:
            raise UsageError(f"ttl_s is {ttl_s!r:.40}", hint="seconds, more than 0")
        super().__init__(serde=serde or StrictSerializer(allow))
        self._place = place_of(place, agent)
        self._ttl_ms = None if ttl_s is None else round(ttl_s * 1000)
        self._threads = Threads(Rows(self._place.shelf(CHECKPOINTS, share, paths.thread_of)))

    # -- writing ------------------------------------------------------------------------------------------------------

    def put(
        self,
        config: Config,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        new_versions: Mapping[str, Any],
    ) -> Config:
        """Keeps a checkpoint; one with the same id is replaced. Returns its config.

        Raises:
            NodeFull: no room; nothing was written.
            HubUnavailable: it lies at a hub, which does not answer.
        """
        made, threads = self._made(config, checkpoint, metadata, new_versions), self._threads
        try:
            with threads.lately.putting(made.key, made.raw, made.base, self.serde) as coming:
                raw = coming.raw if all(each.result() for each in coming.waits) else made.raw
                threads.shelf.put(made.key, raw, 0)
                threads.keep(made.key, raw, made.bodies)
        except Conflict:
            upkeep.replace(threads, self.serde, made.key, made.raw)
        return _config(config, checkpoint["id"])

    async def aput(
        self,
        config: Config,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        new_versions: Mapping[str, Any],
    ) -> Config:
        """See `put`."""
        threads = self._threads
        if not threads.shelf.here:
            return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)
        made = self._made(config, checkpoint, metadata, new_versions)
        try:
            with threads.lately.putting(made.key, made.raw, made.base, self.serde, awaited=True) as coming:
                there = [await asyncio.shield(asyncio.wrap_future(each)) for each in coming.waits]
                raw = coming.raw if all(there) else made.raw
                await threads.shelf.aput(made.key, raw, 0)
                threads.keep(made.key, raw, made.bodies)
        except Conflict:
            await asyncio.to_thread(upkeep.replace, threads, self.serde, made.key, made.raw)
        return _config(config, checkpoint["id"])

    def put_writes(self, config: Config, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Keeps what a task wrote at a checkpoint; the same again changes nothing."""
        key, raw = self._writes(config, writes, task_id, task_path)
        try:
            with self._threads.lately.writing(key, raw, within) as raw:
                self._threads.shelf.put(key, raw, 0)
        except Conflict:
            self._join(key, raw)

    async def aput_writes(
        self, config: Config, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """See `put_writes`."""
        shelf = self._threads.shelf
        if not shelf.here:
            return await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)
        key, raw = self._writes(config, writes, task_id, task_path)
        try:
            with self._threads.lately.writing(key, raw, within, awaited=True) as raw:
                await shelf.aput(key, raw, 0)
        except Conflict:
            await asyncio.to_thread(self._join, key, raw)
        return None

    # -- reading ------------------------------------------------------------------------------------------------------

    def get_tuple(self, config: Config) -> Any:
        """The checkpoint that a config names, or its thread's newest; None if there is none."""
        thread, namespace, checkpoint_id = _names(config)
        if thread is None:
            raise UsageError("the config names no thread", hint='{"configurable": {"thread_id": "…"}}')
        try:
            return self._tuple(config, self._found(thread, namespace or "", checkpoint_id))
        except Lost:
            # Somebody else has pruned the thread since what is remembered of it was read.
            self._threads.forget()
            return self._tuple(config, self._found(thread, namespace or "", checkpoint_id))

    async def aget_tuple(self, config: Config) -> Any:
        """See `get_tuple`."""
        return await asyncio.to_thread(self.get_tuple, config)

    def list(
        self,
        config: Config | None,
        *,
        filter: dict[str, Any] | None = None,
        before: Config | None = None,
        limit: int | None = None,
    ) -> Iterator[Any]:
        """Checkpoints, newest first: of a thread, a namespace of it, or all.

        Args:
            config: whose; None: all threads'.
            filter: what their metadata must say.
            before: only older ones than this names.
            limit: at most so many.
        """
        found = self._walk(config, None if before is None else _names(before)[2])
        if filter:
            found = (each for each in found if self._fits(each, filter))
        for each in itertools.islice(found, limit):
            yield self._tuple(None, each)

    async def alist(
        self,
        config: Config | None,
        *,
        filter: dict[str, Any] | None = None,
        before: Config | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Any]:
        """See `list`. Nothing is held while the loop waits."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        size = 1
        while page := await asyncio.to_thread(lambda: list(itertools.islice(found, size))):  # noqa: B023 - awaited here
            for each in page:
                yield each
            size = min(PAGE, size * 4)

    def get_delta_channel_history(self, *, config: Config, channels: Sequence[str]) -> Mapping[str, Any]:
        """What was written to channels since their value was last kept, oldest first, and that value (`seed`)."""
        if not channels:
            return {}
        return upkeep.delta_history(self._threads, self.serde, self._target(config), channels)

    async def aget_delta_channel_history(self, *, config: Config, channels: Sequence[str]) -> Mapping[str, Any]:
        """See `get_delta_channel_history`."""
        return await asyncio.to_thread(self.get_delta_channel_history, config=config, channels=channels)

    # -- threads as a whole -------------------------------------------------------------------------------------------

    def delete_thread(self, thread_id: str) -> None:
        """Takes a thread away. Its history stays in the log until retention or an erasure takes that (docs)."""
        self._threads.shelf.drop_all(paths.thread_prefix(str(thread_id)))
        self._threads.forget()

    async def adelete_thread(self, thread_id: str) -> None:
        """See `delete_thread`."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Takes away what runs have made, in all threads; what was built on it stays whole."""
        upkeep.delete_runs(self._threads, self.serde, frozenset(map(str, run_ids)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `delete_for_runs`."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies a thread with all its steps; it costs what the thread does, and neither needs the other."""
        upkeep.copy(self._threads, str(source_thread_id), str(target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `copy_thread`."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Takes away all but the newest checkpoint of each namespace, and what delta channels need to be put together.

        Args:
            thread_ids: of which threads.
            strategy: ``keep_latest``, or ``delete``: everything.

        Raises:
            UsageError: another strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise UsageError(f"no strategy {strategy!r:.40}", hint="keep_latest or delete")
        for thread in map(str, thread_ids):
            if strategy == "delete":
                self.delete_thread(thread)
            else:
                upkeep.prune(self._threads, self.serde, thread)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `prune`."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)

    def sweep(self) -> int:
        """Takes away the threads whose time is over; returns how many. To readers they are gone already."""
        return upkeep.sweep(self._threads)

    async def asweep(self) -> int:
        """See `sweep`."""
        return await asyncio.to_thread(self.sweep)

    # -- what Holdfast has besides ------------------------------------------------------------------------------------

    def threads(self) -> Iterator[str]:
        """The ids of all threads, in the order of their keys."""
        for prefix, row in self._threads.names():
            yield paths.text_of(prefix[:-1], row.raw, "thread")

    def fork(self, config: Config, thread_id: str) -> Config:
        """Begins another thread where this one was at a checkpoint (its newest, if none is named); returns its config.

        Raises:
            NotFound: there is no such checkpoint.
            Conflict: there is such a thread already.
        """
        thread, namespace, at = self._target(config)
        upkeep.copy(self._threads, thread, str(thread_id), until=at, new=True)
        return _config({"configurable": {"thread_id": str(thread_id), "checkpoint_ns": namespace}}, at)

    async def afork(self, config: Config, thread_id: str) -> Config:
        """See `fork`."""
        return await asyncio.to_thread(self.fork, config, thread_id)

    def as_of(self, config: Config, at: When) -> Config:
        """The config of the checkpoint that was a thread's newest at a time.

        Args:
            config: the thread, and the namespace if it is not the graph's own.
            at: seconds since 1970, ISO 8601 text, or a datetime.

        Raises:
            NotFound: there was none then.
        """
        thread, namespace, _ = _names(config)
        until = clock.parse_time(at)
        for found in self._walk({"configurable": {"thread_id": thread, "checkpoint_ns": namespace or ""}}, None):
            if found.row.time <= until:
                return _config(config, paths.parts(found.row.key, found.row.raw)[2])
        raise NotFound(f"thread {thread!r:.80} had no checkpoint at {clock.iso(until)}", hint="as_of a later time")

    def history(self, config: Config) -> Sequence[Version]:
        """Every version of a checkpoint's row in the log, newest first: who wrote it when, and who took it away."""
        thread, namespace, checkpoint_id = _names(config)
        if thread is None or checkpoint_id is None:
            raise UsageError("the config names no checkpoint", hint="thread_id and checkpoint_id")
        key = paths.checkpoint_key(thread, namespace or "", checkpoint_id)
        shelf: Any = self._threads.shelf.inner
        if isinstance(shelf, NodeShelf):
            return shelf.store.history(key, collection=CHECKPOINTS)
        found: Sequence[Version] = shelf.hub.history(key, agent=shelf.agent, collection=CHECKPOINTS)
        return found

    def get_next_version(self, current: Any, channel: Any) -> Any:
        """Counts; threads that another saver began with versions in text go on so, for the two cannot be compared."""
        if isinstance(current, str):
            return f"{int(current.split('.')[0]) + 1:032}.{random.random():016}"
        return 1 if current is None else current + 1

    def close(self) -> None:
        """Closes what was opened here (not a Store or Hub that was handed in); a second close is fine."""
        self._place.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _made(
        self, config: Config, checkpoint: Mapping[str, Any], metadata: Mapping[str, Any], new: Mapping[str, Any]
    ) -> Made:
        thread, namespace, parent = _names(config)
        if thread is None:
            raise UsageError("the config names no thread", hint='{"configurable": {"thread_id": "…"}}')
        namespace = namespace or ""
        key = paths.checkpoint_key(thread, namespace, checkpoint["id"])
        base = below(self._threads, self.serde, thread, namespace, parent)
        try:
            values, bodies = values_of(self._threads, self.serde, checkpoint, new, base)
        except Lost:
            self._threads.forget()
            base = None
            values, bodies = values_of(self._threads, self.serde, checkpoint, new, base)
        head = {name: value for name, value in checkpoint.items() if name not in ("id", "channel_values")}
        raw: dict[str, Any] = paths.told(thread=thread, ns=namespace)
        if parent:
            raw["parent"] = paths.turned(parent)
        raw["meta"] = packed(dict(get_checkpoint_metadata(config, metadata)), self.serde)
        raw["head"] = packed(head, self.serde)
        raw["values"] = values
        raw[WORDS] = words.of_checkpoint(checkpoint["channel_values"], values, self.serde)
        if self._ttl_ms is not None:
            raw["ends"] = self._threads.shelf.now_ms() + self._ttl_ms
        return Made(key, raw, bodies, base)

    def _writes(
        self, config: Config, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> tuple[str, dict[str, Any]]:
        thread, namespace, checkpoint_id = _names(config)
        if thread is None or checkpoint_id is None:
            raise UsageError("the config names no checkpoint", hint="thread_id and checkpoint_id")
        namespace = namespace or ""
        key = paths.writes_key(thread, namespace, checkpoint_id, task_id)
        raw: dict[str, Any] = {WORDS: "", **paths.told(thread=thread, ns=namespace, task=task_id)}
        return key, raw | writes_row(self.serde, writes, task_path)

    def _join(self, key: str, raw: dict[str, Any]) -> None:
        shelf = self._threads.shelf
        while True:
            row = first(shelf, key)
            there = () if row is None or row.key != key else (row, *row.rivals)
            mine = next((each for each in there if each.agent == shelf.agent), None)
            made = joined(mine.raw, raw) if mine else raw
            if made is None:
                return
            try:
                shelf.put(key, {**raw, **made}, mine.version if mine else None)
            except Conflict:
                continue
            return

    def _found(self, thread: str, namespace: str, checkpoint_id: str | None) -> Found | None:
        if checkpoint_id:
            return self._threads.at(thread, namespace, checkpoint_id)
        return self._threads.newest(thread, namespace)

    def _target(self, config: Config) -> tuple[str, str, str]:
        thread, namespace, checkpoint_id = _names(config)
        found = self._found(thread or "", namespace or "", checkpoint_id)
        if found is None:
            raise NotFound(f"thread {thread!r:.80} has no such checkpoint", hint="list(config) shows what there is")
        return thread or "", namespace or "", paths.parts(found.row.key, found.row.raw)[2]

    def _walk(self, config: Config | None, before: str | None) -> Iterator[Found]:
        thread, namespace, only = _names(config) if config else (None, None, None)
        if thread is not None and only is not None and namespace is not None:
            found = self._threads.at(thread, namespace, only)
            return iter([found] if found and (before is None or only < before) else [])
        if thread is not None and namespace is not None:
            if self._threads.newest(thread, namespace) is None:
                return iter(())
            after = "" if before is None else paths.behind(paths.checkpoint_key(thread, namespace, before))
            return self._threads.walk(paths.namespace_prefix(thread, namespace), after, PAGE)
        return self._walk_all(thread, namespace, only, before)

    def _walk_all(
        self, thread: str | None, namespace: str | None, only: str | None, before: str | None
    ) -> Iterator[Found]:
        """Those of several namespaces or threads together, newest first: all of them are looked at."""
        out: list[tuple[str, Found]] = []
        alive: dict[tuple[str, str], bool] = {}
        for found in self._threads.walk("" if thread is None else paths.thread_prefix(thread)):
            whose, inside, checkpoint_id = paths.parts(found.row.key, found.row.raw)
            if namespace not in (None, inside) or only not in (None, checkpoint_id):
                continue
            if (whose, inside) not in alive:
                alive[whose, inside] = self._threads.newest(whose, inside) is not None
            if alive[whose, inside] and (before is None or checkpoint_id < before):
                out.append((checkpoint_id, found))
        out.sort(key=lambda each: each[0], reverse=True)
        return (found for _, found in out)

    def _fits(self, found: Found, wanted: dict[str, Any]) -> bool:
        metadata = unpacked(found.row.raw["meta"], self.serde)
        return all(metadata.get(name) == value for name, value in wanted.items())

    def _tuple(self, config: Config | None, found: Found | None) -> Any:
        if found is None:
            return None
        row = found.row
        self._threads.met(row)
        thread, namespace, checkpoint_id = paths.parts(row.key, row.raw)
        names = {"thread_id": thread, "checkpoint_ns": namespace}
        parent = row.raw.get("parent")
        if config is None or not _names(config)[2]:
            config = {"configurable": {**names, "checkpoint_id": checkpoint_id}}
        checkpoint = unpacked(row.raw["head"], self.serde)
        checkpoint["id"] = checkpoint_id
        checkpoint["channel_values"] = values_in(self._threads, self.serde, row)
        return CheckpointTuple(
            config,
            checkpoint,
            unpacked(row.raw["meta"], self.serde),
            {"configurable": {**names, "checkpoint_id": paths.id_of(parent)}} if parent else None,
            pending(self._threads, self.serde, found),
        )


def _names(config: Config) -> tuple[str | None, str | None, str | None]:
    """Thread, namespace and checkpoint that a config names."""
    told = config["configurable"]
    thread, namespace, at = told.get("thread_id"), told.get("checkpoint_ns"), told.get("checkpoint_id")
    return None if thread is None else str(thread), None if namespace is None else str(namespace), at or None


def _config(config: Config, checkpoint_id: str) -> Config:
    told = config["configurable"]
    return {
        "configurable": {
            "thread_id": told["thread_id"],
            "checkpoint_ns": told.get("checkpoint_ns", ""),
            "checkpoint_id": checkpoint_id,
        }
    }
