"""A hub with an embedding function of its own (`serve --embed`): it fills indexes of vectors, and embeds questions.

Every index that names this function's model is filled here, in a thread of its own; the others are left to whoever has
their functions. The function is loaded when the hub starts: one that is not there is told at once, and not at night.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from holdfast.corpus.search import vectors
from holdfast.corpus.search.embedding import Embedder
from holdfast.corpus.search.filling import step
from holdfast.corpus.search.vectors import Index
from holdfast.errors import NotFound
from holdfast.hub.holding import Holding
from holdfast.settings.functions import function_named

if TYPE_CHECKING:
    from holdfast.corpus import SqlCorpus
    from holdfast.hub.home import Home

logger = logging.getLogger(__name__)

IDLE_S: Final = 1.0
ASKERS: Final = 2

T = TypeVar("T")


class Embedding:
    """What a hub does with a function of its own.

    Args:
        home: the hub's directory or database.
        name: of the function, as ``package.module:function``.
        model: the name of its model; empty: as `name`.

    Raises:
        UsageError: there is no such function.
    """

    def __init__(self, home: Home, name: str, model: str = "") -> None:
        self._home = home
        self._fn = function_named(name)
        self.model = model or name
        self._embedders: dict[str, Embedder] = {}
        self._sources: dict[int, Holding] = {}
        # A directory has one server: what it held when it was killed it has again as soon as it is back.
        self._who = "hub" if home.corpus.inline else f"hub-{secrets.token_hex(4)}"
        self._lock = threading.Lock()  # guards _embedders
        self._stop = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-embed", daemon=True)
        self._pool = ThreadPoolExecutor(ASKERS, thread_name_prefix="holdfast-ask")
        self.trouble = ""
        """Why it cannot work at all, if so; what the function says of an index stands with that."""

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    async def stop(self) -> None:
        """Ends behind the lot that is being made."""
        self._stop.set()
        self._woken.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._pool.shutdown(wait=True)
        with self._lock:
            for each in self._embedders.values():
                each.close()

    def wake(self) -> None:
        """Something may be waiting."""
        self._woken.set()

    async def run(self, work: Callable[[], T]) -> T:
        """What a function returns that may call the model, in threads that nobody else waits for."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def vector(self, collection: str, identity: str, q: str) -> bytes | None:
        """A question's packed vector for an index; None if the index names another model.

        Raises:
            HoldfastError: the function failed.
        """
        index = vectors.find(self._home.corpus, collection, identity)
        if index is None or index.declared.model != self.model:
            return None
        return self._embedder(index).query(q)

    def _embedder(self, index: Index) -> Embedder:
        with self._lock:
            found = self._embedders.get(index.identity)
            if found is None:
                found = self._embedders[index.identity] = Embedder(self._fn, index.declared)
            return found

    # -- filling --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        corpus = self._home.corpus
        while not self._stop.is_set():
            try:
                more = self._turn(corpus)
                self.trouble = ""
            except Exception as error:  # who fills for ever may not end: it is told, and tried again
                more = False
                self.trouble = str(error)
                if not self._stop.is_set():
                    logger.error("the indexes of vectors cannot be filled", exc_info=error)
            if not more:
                self._woken.wait(IDLE_S)
                self._woken.clear()

    def _turn(self, corpus: SqlCorpus) -> bool:
        """One lot for each index of ours; whether there is more."""
        mine = [each for each in vectors.indexes(corpus) if each.declared.model == self.model]
        there = {each.id for each in mine}
        self._sources = {number: source for number, source in self._sources.items() if number in there}
        more = False
        for index in mine:
            if self._stop.is_set():
                return False
            source = self._sources.get(index.id)
            if source is None:
                source = self._sources[index.id] = Holding(self._home, index, self._who)
            try:
                more = step(source, self._embedder(index)) or more
            except NotFound:
                self._sources.pop(index.id, None)  # it ended meanwhile
        return more
