"""A store's embedding functions: one thread that fills its indexes behind the writes, and the vectors of questions.

Of the processes that share an agent's log one fills at a time, whoever holds ``embed.lock``; a crash gives it back.
What an index holds is kept with how far it is, so the next goes on where the last stood.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from holdfast import clock
from holdfast.corpus import Stored
from holdfast.corpus.search import answering, filling, vectors
from holdfast.corpus.search.embedding import Embed, Embedder
from holdfast.corpus.search.filling import Filled
from holdfast.corpus.search.question import Question
from holdfast.corpus.search.vectors import Declared
from holdfast.errors import NodeFull, NotFound, StoreClosed, UsageError
from holdfast.log.hits import Hits, IndexStatus, hit_of, statuses
from holdfast.node.directory import folder_of
from holdfast.node.locks import alone
from holdfast.node.telling import logger
from holdfast.query import read_condition
from holdfast.records import check_names
from holdfast.wire import Cursor

if TYPE_CHECKING:
    from holdfast.node.store import Store

LOCK: Final = "embed.lock"
PAUSE_S: Final = 0.25
"""Between looks for something to embed: of each a few queries of microseconds, and no write pays for a wake-up."""
TURN: Final = 20
"""Lots after which another process may have its turn."""
FULL_S: Final = 30.0
"""On a full disk: words are worth more than vectors, and whoever writes makes room."""
STOP_S: Final = 5.0
"""A function that hangs in a request is waited for so long when the store closes."""
_LOG: Final = "log."
"""How cursors of a log begin (`holdfast.node.changes`)."""


def search(store: Store, q: str, how: dict[str, Any]) -> Hits:
    """What a store's search finds; see `Store.search`."""
    said = how["filter"]
    how = {**how, "filter": None if said is None else read_condition(said)}
    mine: Searches | None = store._searches
    if store.hubs and how["agent"] != store.agent:
        return store._reader().search(q, how, mine.known(how["collection"]) if mine is not None else ())
    at, at_stamp = _moment(how.pop("at"))
    question = Question(q=q, at=at, at_stamp=at_stamp, **how)
    collection = question.collection
    found = answering.answer(
        store._log.corpus,
        question,
        now_ms=store._directory.wall.now_ms(),
        ask=mine.asking(collection, q) if mine is not None and collection is not None else None,
        load=store._load,
    )
    hits = [hit_of(store._version(each.stored), each.score, each.parts) for each in found.found]
    return Hits(hits, mode=found.mode, partial=found.partial, pending=found.pending)


def _moment(at: Any) -> tuple[int | None, int | None]:
    """The position, or the stamp, that a moment stands for.

    Raises:
        UsageError: it stands for none.
    """
    if at is None:
        return None, None
    if isinstance(at, str) and at.startswith(_LOG) and at.removeprefix(_LOG).isdigit():
        return int(at.removeprefix(_LOG)), None
    if isinstance(at, str) and "@" in at:
        Cursor.parse(at)  # or it is nobody's
        raise UsageError(f"the cursor {at!r:.80} is a hub's", hint="open the store with that hub, or give a time")
    if isinstance(at, int):  # also True and False
        hint = "a time as a float, text or datetime; a version number is of one key"
        raise UsageError(f"at={at!r} is no moment of a search", hint=hint)
    return None, clock.pack(clock.parse_time(at), clock.COUNTER_MAX)


def searches(store: Store) -> Searches:
    """A store's functions; made when first needed."""
    with store._directory.lock:
        if store._closed:
            raise StoreClosed("the store is closed", hint="open it again")
        if store._searches is None:
            store._searches = Searches(store)
        found: Searches = store._searches
        return found


def drop(store: Store, collection: str) -> bool:
    """Ends a collection's index; see `Store.drop_index`."""
    if store._searches is not None:
        store._searches.leave(collection)
    corpus = store._log.corpus
    found = vectors.drop(corpus, collection)
    while found and vectors.sweep(corpus):
        pass
    return found


class Searches:
    """The functions that a store was given, and the thread that fills by them. Safe to share among threads.

    Args:
        store: whose; it closes this before its log.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._corpus = store._log.corpus
        self._home = store._directory.path / "agents" / folder_of(store.agent)
        self._lock = threading.Lock()  # guards _known and _thread
        self._known: dict[str, dict[str, tuple[Embedder, Filled]]] = {}  # by collection and identity, the newest last
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    # -- what is declared -------------------------------------------------------------------------------------------

    def add(
        self,
        collection: str,
        embed: Embed | None,
        model: str,
        fields: Sequence[str],
        dims: int | None,
        chunk: int | None,
    ) -> IndexStatus:
        """Declares an index, and fills it if there is a function; see `Store.add_index`."""
        store = self._store
        check_names("put", collection, "")
        if collection in store._sealed:
            raise UsageError(
                f"{collection!r} is sealed: no index holds what it says", hint="vectors tell of their texts"
            )
        if collection in store._cas:
            raise UsageError(
                f"{collection!r} is decided by the hub, and its values lie there", hint="Hub(…).add_index(…)"
            )
        said = vectors.declared(model, fields=fields, dims=dims, chunk=chunk)
        embedder = None if embed is None else Embedder(embed, said)
        store._reserve.check(0)
        index = vectors.declare(self._corpus, collection, said)
        if embedder is not None and (index.tries or vectors.failed(self._corpus, index)[0]):
            vectors.again(self._corpus, index)  # who comes with a function may have put it right
        if embedder is not None:
            self._take(collection, said, embedder)
        return statuses(self._corpus, store._directory.wall.now_ms(), collection)[0]

    def _take(self, collection: str, said: Declared, embedder: Embedder) -> None:
        store = self._store
        filled = Filled(self._corpus, collection, said, load=self._load, now_ms=store._directory.wall.now_ms)
        with self._lock:
            known = {name: each for name, each in self._known.get(collection, {}).items() if name != said.identity}
            self._known[collection] = {**known, said.identity: (embedder, filled)}
            if self._thread is None:
                name = f"holdfast-embed-{store.agent}"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()
        self._wake.set()

    def leave(self, collection: str) -> None:
        """Forgets the functions of a collection."""
        with self._lock:
            gone = self._known.pop(collection, {})
        for embedder, _ in gone.values():
            embedder.close()

    def known(self, collection: str | None) -> list[tuple[str, Embedder]]:
        """The functions of a collection, the newest last: its name, and each."""
        if collection is None:
            return []
        with self._lock:
            return [(collection, embedder) for embedder, _ in self._known.get(collection, {}).values()]

    def asking(self, collection: str, q: str) -> Any:
        """What embeds a question for an index by its identity, or gives None where it has no function."""

        def ask(identity: str) -> bytes | None:
            with self._lock:
                found = self._known.get(collection, {}).get(identity)
            return None if found is None else found[0].query(q)

        return ask

    def close(self) -> None:
        """Ends the filling; a second close is fine."""
        self._stop.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_S)
        for collection in list(self._known):
            self.leave(collection)

    # -- filling ----------------------------------------------------------------------------------------------------

    def _load(self, stored: Stored) -> Any:
        return self._store._load(stored)

    def _run(self) -> None:
        while not self._stop.is_set():
            worked = False
            try:
                with alone(self._home, LOCK) as mine:
                    worked = mine and self._turn()
            except StoreClosed:
                return
            except NodeFull as error:
                logger(__name__).warning("the indexes of %s wait for room: %s", self._store.agent, error)
                self._stop.wait(FULL_S)
            except Exception:
                if self._stop.is_set():
                    return
                # Who fills for ever may not end: it is told, and tried again.
                logger(__name__).exception("the indexes of %s could not be filled", self._store.agent)
                self._stop.wait(1.0)
            if not worked:
                self._wake.wait(PAUSE_S)
                self._wake.clear()

    def _turn(self) -> bool:
        """Some lots of each index; whether there may be more."""
        self._store._reserve.check(0)
        more = True
        for _ in range(TURN):
            more = False
            for collection, identity, embedder, filled in self._every():
                if self._stop.is_set():
                    return False
                try:
                    more = filling.step(filled, embedder) or more
                except NotFound as error:
                    logger(__name__).warning("%s: it is filled no more", error)
                    self._forget(collection, identity)
            more = bool(vectors.sweep(self._corpus)) or more
            if not more:
                return False
        return more

    def _every(self) -> list[tuple[str, str, Embedder, Filled]]:
        with self._lock:
            return [
                (collection, identity, *each)
                for collection, known in self._known.items()
                for identity, each in known.items()
            ]

    def _forget(self, collection: str, identity: str) -> None:
        with self._lock:
            known: Mapping[str, tuple[Embedder, Filled]] = self._known.get(collection, {})
            self._known[collection] = {name: each for name, each in known.items() if name != identity}
