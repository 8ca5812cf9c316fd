"""LangGraph's long-term memory on Holdfast: items in namespaces, with an end, filters, and search by meaning."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from holdfast.corpus.search import WORDS
from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.integrations.langgraph import items, paths, words
from holdfast.integrations.langgraph.door import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    PutOp,
    SearchItem,
    SearchOp,
    ensure_embeddings,
    get_text_at_path,
    tokenize_path,
)
from holdfast.integrations.langgraph.items import Kept
from holdfast.integrations.langgraph.vectors import from_text, scores, to_text
from holdfast.integrations.place import Closing
from holdfast.log.versions import Version
from holdfast.node.shelf import OVER, NodeShelf, every, others_under, place_of

logger = logging.getLogger(__name__)

ITEMS: Final = "langgraph-store"
"""The collection of items."""
SWEEP_MINUTES: Final = 5.0
Puts = dict[tuple[tuple[str, ...], str], Any]
Vectors = dict[str, Sequence[float]]


class HoldfastStore(Closing, BaseStore):
    """Keeps what agents know beyond a thread: dictionaries by key, in namespaces.

        graph = builder.compile(checkpointer=HoldfastSaver(node), store=HoldfastStore(node))

    Safe to share among threads and event loops; any number of processes may open one directory, and where the store
    has a hub, what other machines keep is found too.

    Args:
        place: a directory, a hub's address, or a Store, AsyncStore, Hub or AsyncHub that is open.
        agent: in whose name it is written, where the place does not say so.
        index: LangGraph's IndexConfig (``dims``, ``embed``, ``fields``): items are found by meaning, too. The search is
            exact, and needs nothing; with numpy it is fast.
        ttl: LangGraph's TTLConfig (``default_ttl`` in minutes, ``refresh_on_read``, ``sweep_interval_minutes``).
        share: show what others keep there, too.
    """

    supports_ttl = True

    def __init__(
        self,
        place: Any,
        *,
        agent: str = "langgraph",
        index: Mapping[str, Any] | None = None,
        ttl: Mapping[str, Any] | None = None,
        share: bool = True,
    ) -> None:
        self._place = place_of(place, agent)
        self._shelf = self._place.shelf(ITEMS, share, paths.namespace_of)
        self.ttl_config = dict(ttl) if ttl is not None else None
        self.index_config = dict(index) if index is not None else None
        self.embeddings = ensure_embeddings(index["embed"]) if index is not None else None
        fields = (index or {}).get("fields") or ["$"]
        self._fields = [(path, path if path == "$" else tokenize_path(path)) for path in fields]
        self._stopped = threading.Event()
        self._sweeper: threading.Thread | None = None

    # -- LangGraph's two calls, on which all others are built ----------------------------------------------------------

    def batch(self, ops: Iterable[Any]) -> list[Any]:
        """Does several things: reads see what was there before the writes; of two writes of a key the last counts.

        Raises:
            UsageError: a value that JSON cannot say, an impossible name; nothing was written.
        """
        ops = list(ops)
        puts, queries = _puts(ops), self._queries(ops)
        texts = self._texts(puts)
        asked: Vectors = {}
        made: Vectors = {}
        if self.embeddings is not None:
            asked = {query: self.embeddings.embed_query(query) for query in queries}
            made = dict(zip(texts, self.embeddings.embed_documents(texts) if texts else (), strict=True))
        return self._done(ops, puts, asked, made)

    async def abatch(self, ops: Iterable[Any]) -> list[Any]:
        """See `batch`."""
        ops = list(ops)
        puts, queries = _puts(ops), self._queries(ops)
        texts = self._texts(puts)
        asked: Vectors = {}
        made: Vectors = {}
        if self.embeddings is not None:
            found = await asyncio.gather(*map(self.embeddings.aembed_query, queries))
            asked = dict(zip(queries, found, strict=True))
            made = dict(zip(texts, await self.embeddings.aembed_documents(texts) if texts else (), strict=True))
        return await asyncio.to_thread(self._done, ops, puts, asked, made)

    # -- what comes to its end ----------------------------------------------------------------------------------------

    def sweep_ttl(self) -> int:
        """Takes away the items whose time is over; returns how many. To readers they are gone already."""
        gone = items.ended(self._shelf, iter(every(self._shelf, "")))
        self._shelf.drop(gone)
        return sum("ends" in row.raw and "value" in row.raw for row in gone)

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> concurrent.futures.Future[None]:
        """Sweeps again and again, in a thread, until `stop_ttl_sweeper`, or until what this returns is cancelled.

        Args:
            sweep_interval_minutes: how often; None: as the ``ttl`` says, or every 5 minutes.
        """
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        if self.ttl_config is None:
            future.set_result(None)
            return future
        future.add_done_callback(lambda done: self._stopped.set() if done.cancelled() else None)
        if self._sweeper is not None and self._sweeper.is_alive():
            return future
        self._stopped.clear()
        wait_s = 60.0 * (sweep_interval_minutes or self.ttl_config.get("sweep_interval_minutes") or SWEEP_MINUTES)

        def work() -> None:
            while not self._stopped.wait(wait_s):
                try:
                    self.sweep_ttl()
                except HoldfastError as error:
                    logger.warning("items whose time is over could not be taken away: %s", error)
            if future.set_running_or_notify_cancel():
                future.set_result(None)

        self._sweeper = threading.Thread(target=work, name="holdfast-store-sweeper", daemon=True)
        self._sweeper.start()
        return future

    def stop_ttl_sweeper(self, timeout: float | None = None) -> bool:
        """Ends the sweeping; False if it did not end within `timeout` seconds."""
        if self._sweeper is None:
            return True
        self._stopped.set()
        self._sweeper.join(timeout)
        return not self._sweeper.is_alive()

    # -- what Holdfast has besides ------------------------------------------------------------------------------------

    def history(self, namespace: tuple[str, ...], key: str) -> Sequence[Version]:
        """Every version of an item in the log, newest first: who kept what when, and who took it away.

        Each version's `value` is the row as it was written; the item itself is its ``value``.
        """
        path = items.key_of(namespace, key)
        shelf: Any = self._shelf
        if isinstance(shelf, NodeShelf):
            return shelf.store.history(path, collection=ITEMS)
        found: Sequence[Version] = shelf.hub.history(path, agent=shelf.agent, collection=ITEMS)
        return found

    def rollback(self, namespace: tuple[str, ...], key: str, version: int) -> None:
        """Makes an earlier version of an item the newest again, as a new version.

        Raises:
            NotFound: there is no such version, or it took the item away.
        """
        for each in self.history(namespace, key):
            if each.version == version and not each.gone and each.value and "value" in each.value:
                raw = {name: part for name, part in each.value.items() if name not in (OVER, "ends", "ttl")}
                self._shelf.put(items.key_of(namespace, key), raw | items.until(self._shelf, each.value.get("ttl")))
                return
        raise NotFound(f"{namespace}/{key!r:.80} has no version {version}", hint="history shows which there are")

    def close(self) -> None:
        """Ends the sweeping, and closes what was opened here (not what was handed in); a second close is fine."""
        self.stop_ttl_sweeper(timeout=1)
        self._place.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _done(self, ops: list[Any], puts: Puts, asked: Vectors, made: Vectors) -> list[Any]:
        out = [self._read(op, asked) for op in ops]
        rows: list[tuple[str, dict[str, Any]]] = []
        gone: list[Kept] = []
        for (namespace, key), op in puts.items():
            there = items.one(self._shelf, namespace, key)
            if op.value is not None:
                rows.append((items.key_of(namespace, key), self._row(op, there, made)))
            elif there is not None:
                gone.append(there)
        self._shelf.put_many(rows)
        self._shelf.drop([kept.row for kept in gone])
        return out

    def _read(self, op: Any, asked: Vectors) -> Any:
        if isinstance(op, PutOp):
            return None
        if isinstance(op, GetOp):
            kept = items.one(self._shelf, op.namespace, op.key)
            if kept is not None and op.refresh_ttl:
                items.refresh(self._shelf, kept)
            return None if kept is None else Item(**_shown(kept))
        if isinstance(op, SearchOp):
            return self._search(op, asked)
        assert isinstance(op, ListNamespacesOp)
        return self._namespaces(op)

    def _search(self, op: Any, asked: Vectors) -> list[Any]:
        found = [kept for kept in items.under(self._shelf, items.prefix_of(op.namespace_prefix)) if _fits(kept, op)]
        found.sort(key=lambda kept: kept.raw["updated"], reverse=True)
        ranked: list[tuple[float | None, Kept]] = [(None, kept) for kept in found]
        if op.query and op.query in asked:
            ranked = _ranked(found, asked[op.query])
        page = ranked[op.offset : op.offset + op.limit]
        if op.refresh_ttl:
            for _, kept in page:
                items.refresh(self._shelf, kept)
        return [SearchItem(**_shown(kept), score=score) for score, kept in page]

    def _namespaces(self, op: Any) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        found: set[tuple[str, ...]] = set()
        for namespace in items.namespaces(self._shelf):
            if all(items.matches(namespace, each.match_type, each.path) for each in conditions):
                found.add(namespace if op.max_depth is None else namespace[: op.max_depth])
        return sorted(found)[op.offset : op.offset + op.limit]

    def _row(self, op: Any, there: Kept | None, made: Vectors) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        raw = items.named(op.namespace, op.key) | {
            "value": dict(op.value),
            WORDS: words.of_item(op.value),
            "created": there.raw["created"] if there else now,
            "updated": now,
            **items.until(self._shelf, op.ttl),
        }
        dims = (self.index_config or {}).get("dims")
        vectors = {path: to_text(made[text], dims) for path, text in self._said(op)} if made else {}
        if vectors:
            raw["vectors"] = vectors
        over = others_under(there.row, self._shelf.agent) if there else {}
        return raw | ({OVER: over} if over else {})

    def _texts(self, puts: Puts) -> list[str]:
        if self.embeddings is None:
            return []
        return list(dict.fromkeys(text for op in puts.values() for _, text in self._said(op)))

    def _said(self, op: Any) -> Iterator[tuple[str, str]]:
        """What of an item is found by its meaning: where it stands, and the text."""
        if op.value is None or op.index is False:
            return
        fields = self._fields if op.index is None else [(path, tokenize_path(path)) for path in op.index]
        for path, field in fields:
            texts = get_text_at_path(op.value, field)
            for number, text in enumerate(texts or ()):
                yield (path if len(texts) == 1 else f"{path}.{number}"), text

    def _queries(self, ops: list[Any]) -> list[str]:
        if self.embeddings is None:
            return []
        return list(dict.fromkeys(op.query for op in ops if isinstance(op, SearchOp) and op.query))


def _puts(ops: list[Any]) -> Puts:
    """What is to be written, of each key the last.

    Raises:
        UsageError: something that is none of LangGraph's operations.
    """
    for op in ops:
        if not isinstance(op, PutOp | GetOp | SearchOp | ListNamespacesOp):
            raise UsageError(f"no operation of a store: {op!r:.80}", hint="GetOp, PutOp, SearchOp or ListNamespacesOp")
    return {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}


def _fits(kept: Kept, op: Any) -> bool:
    return items.fits(kept.raw["value"], op.filter)


def _ranked(found: list[Kept], query: Sequence[float]) -> list[tuple[float | None, Kept]]:
    """The nearest first, each by what of it is nearest; behind them those that nothing is known of."""
    flat = [(kept, from_text(text)) for kept in found for text in kept.raw.get("vectors", {}).values()]
    best: dict[str, tuple[float | None, Kept]] = {}
    for (kept, _), score in zip(flat, scores(query, [vector for _, vector in flat]), strict=True):
        before = best.get(kept.row.key)
        if before is None or before[0] is None or score > before[0]:
            best[kept.row.key] = score, kept
    ranked = sorted(best.values(), key=lambda each: each[0] or 0.0, reverse=True)
    return [*ranked, *((None, kept) for kept in found if kept.row.key not in best)]


def _shown(kept: Kept) -> dict[str, Any]:
    return {
        "namespace": kept.namespace,
        "key": kept.key,
        "value": kept.raw["value"],
        "created_at": items.time_of(kept.raw["created"]),
        "updated_at": items.time_of(kept.raw["updated"]),
    }
