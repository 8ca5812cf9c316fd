"""Search by words, by vectors and by both, and the indexes of vectors: who may declare, fill and end them.

A hub needs no model: whoever asks sends the vector of his question, whoever has the function fills the index, and
without either a question is answered by its words. Nothing of vectors is imported before somebody asks about them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from holdfast import clock
from holdfast.errors import NotFound, UsageError
from holdfast.hub.api import Call, Operation, typed
from holdfast.hub.core import Core
from holdfast.hub.exchange import encode_json
from holdfast.hub.feed import shown
from holdfast.hub.principal import READ, WRITE
from holdfast.hub.search_shapes import (
    Dropped,
    Filled,
    Hits,
    IndexesShown,
    IndexName,
    Kept,
    NewIndex,
    Search,
    Waiting,
    Wanting,
)
from holdfast.log import load
from holdfast.log.hits import IndexStatus
from holdfast.query import read_condition
from holdfast.records import check_names
from holdfast.wire import Cursor

ANSWER_BYTES_MAX: Final = 8 << 20
_INDEXES: Final = "/v1/indexes"


def operations(core: Core) -> Iterator[Operation]:
    """Searching, and everything about indexes of vectors."""
    yield Operation(
        method="POST",
        path="/v1/search",
        endpoint=typed(Searching(core)),
        needs=READ,
        summary="Search by words, by meaning, or both",
        tag="reading",
        body=Search,
        answer=Hits,
    )
    work = Indexes(core)

    def each(method: str, path: str, summary: str, does: Any, **more: Any) -> Operation:
        return Operation(
            method=method,
            path=path,
            endpoint=typed(does),
            needs=READ if method == "GET" else WRITE,
            summary=summary,
            tag="reading",
            where={"name": IndexName} if path.endswith("{name}") else {},
            deep="name" if path.endswith("{name}") else "",
            **more,
        )

    one, filling = f"{_INDEXES}/{{name}}", "/v1/indexing"
    yield each("GET", _INDEXES, "The indexes of vectors", work.every, answer=IndexesShown)
    yield each("GET", one, "One index of vectors", work.one, answer=IndexStatus, errors=(404,))
    yield each("PUT", one, "Have a collection indexed", work.declare, body=NewIndex, answer=IndexStatus)
    yield each("DELETE", one, "End an index", work.drop, answer=Dropped)
    yield each(
        *("POST", f"{filling}/rebuild/{{name}}", "Make an index anew", work.rebuild),
        answer=IndexStatus,
        errors=(404,),
    )
    yield each(
        *("POST", f"{filling}/pending/{{name}}", "Texts that want vectors", work.pending),
        body=Wanting,
        answer=Waiting,
        errors=(404,),
    )
    yield each(
        *("POST", f"{filling}/vectors/{{name}}", "Vectors of these texts", work.fill),
        body=Filled,
        answer=Kept,
        errors=(404,),
    )


class Searching:
    """POST /v1/search: the values and messages that fit best, among what the token may read.

    What holds every word has the score 1, what holds some of them at most 0.25; by vectors the score is the cosine; by
    both, what the two lists say together. `mode` says what `auto` became: without a vector, and without a function of
    the hub's own, it is `text`. A vector is compared with vectors of its own identity alone.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> bytes:
        """The answer to one request."""
        core, asked = self._core, call.body
        if asked.collection is not None:
            call.principal.check_read(asked.collection)
        if core.embedding is not None and asked.vector is None and asked.mode != "text":
            return await core.embedding.run(lambda: self._answer(call))  # a model may take its time
        return await core.read(lambda: self._answer(call))

    def _answer(self, call: Call) -> bytes:
        from holdfast.corpus.search.answering import answer

        core = self._core
        found = answer(
            core.corpus,
            self._question(call.body),
            ask=self._asking(call.body),
            readable=call.principal.readable,
            load=lambda stored: load(stored, core.home.blobs),
            now_ms=core.home.wall.now_ms(),
        )
        out: list[bytes] = []
        size = 0
        for each in found.found:
            tail = b',"score":%b,"parts":%b}' % (encode_json(each.score), encode_json(each.parts))
            data = shown(each.stored)[:-1] + tail
            size += len(data)
            if out and size > ANSWER_BYTES_MAX:
                break
            out.append(data)
        partial = found.partial or len(out) < len(found.found)
        rest = {"mode": found.mode, "partial": partial, "pending": found.pending, "identity": self._identity(call.body)}
        return b'{"hits":[%b],%b' % (b",".join(out), encode_json(rest)[1:])

    def _asking(self, asked: Search) -> Any:
        """What makes the vector of a question for an index of some identity: this hub's own function, if it has one."""
        embedding, collection = self._core.embedding, asked.collection
        if embedding is None or collection is None:
            return None
        return lambda identity: embedding.vector(collection, identity, asked.q)

    def _identity(self, asked: Search) -> str | None:
        """That of the index which is searched, so that whoever asks knows with which function to ask."""
        if asked.collection is None or asked.mode == "text":
            return None
        from holdfast.corpus.search.vectors import searched

        index = searched(self._core.corpus, asked.collection)
        return None if index is None else index.identity

    def _question(self, asked: Search) -> Any:
        from holdfast.corpus.search.question import Question, checked, vector_in

        if (asked.vector is None) != (asked.identity is None):
            raise UsageError("a vector and the identity of its index belong together", hint="give both, or neither")
        pos, stamp = self._moment(asked)
        return checked(
            Question(
                q=asked.q,
                agent=asked.agent,
                collection=asked.collection,
                kind=asked.kind,
                filter=None if asked.filter is None else read_condition(asked.filter),
                mode=asked.mode,
                limit=asked.limit,
                at=pos,
                at_stamp=stamp,
                min_score=asked.min_score,
                explain=asked.explain,
                vector=None if asked.identity is None else (asked.identity, vector_in(asked.vector)),
            )
        )

    def _moment(self, asked: Search) -> tuple[int | None, int | None]:
        """The position that it is about, if any, or the stamp behind all that a time means."""
        at = asked.at
        if isinstance(at, str) and "@" in at:
            return self._core.home.resume(Cursor.parse(at), self._core.feed.head), None
        if isinstance(at, str):
            return None, clock.pack(clock.parse_time(at), clock.COUNTER_MAX)
        return at, asked.at_stamp


class Indexes:
    """What each operation about an index of vectors does.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._holding: dict[int, Any] = {}

    async def every(self, call: Call) -> IndexesShown:
        """The indexes of the collections that the token may read, each with how it stands."""

        def look() -> IndexesShown:
            from holdfast.hub.indexes import every

            return IndexesShown([each for each in every(self._core) if call.principal.may_read(each.name)])

        return await self._core.read(look)

    async def one(self, call: Call) -> IndexStatus:
        """How the index of a collection stands."""
        name = _name(call)
        call.principal.check_read(name)
        return await self._core.read(lambda: self._shown(name))

    async def declare(self, call: Call) -> IndexStatus:
        """Says how vectors are made of a collection's values. The same again changes nothing; something else is built
        beside the index that is there, and takes its place when it is complete.
        """
        name, asked = _name(call), call.body
        call.principal.check_write(None, name)

        def work() -> IndexStatus:
            from holdfast.corpus.search import vectors

            said = vectors.declared(asked.model, fields=asked.fields, dims=asked.dims, chunk=asked.chunk)
            index = vectors.declare(self._core.corpus, name, said)
            if index.tries or vectors.failed(self._core.corpus, index)[0]:
                vectors.again(self._core.corpus, index)  # somebody has come who may have put the function right
            return self._shown(name)

        found = await self._core.read(work)
        self._wake()
        return found

    async def drop(self, call: Call) -> Dropped:
        """Ends the index of a collection, and whatever is being built; searches go by words from then on."""
        name = _name(call)
        call.principal.check_write(None, name)

        def work() -> bool:
            from holdfast.corpus.search import vectors

            return vectors.drop(self._core.corpus, name)

        found = await self._core.read(work)
        self._wake()
        return Dropped(found)

    async def rebuild(self, call: Call) -> IndexStatus:
        """Forgets the vectors of a collection and has all of them made anew; searches go by words until then."""
        name = _name(call)
        call.principal.check_write(None, name)

        def work() -> IndexStatus:
            from holdfast.corpus.search import vectors

            corpus = self._core.corpus
            found = vectors.indexes(corpus, name)
            if not found:
                raise _absent(name)
            vectors.drop(corpus, name)
            vectors.declare(corpus, name, found[-1].declared)  # of two, the one that was to be
            return self._shown(name)

        found = await self._core.read(work)
        self._wake()
        return found

    async def pending(self, call: Call) -> Waiting:
        """Texts that want vectors, for whoever has the function; nobody else is given any for `hold_s` seconds. It
        needs `records:read` too, as these are what the records say.
        """
        name, asked = self._filling(call), call.body

        def work() -> Waiting:
            found: Waiting = self._held(name, asked.identity).waiting(asked)
            return found

        return await self._core.read(work)

    async def fill(self, call: Call) -> Kept:
        """Keeps the vectors of these texts, or what the function said of them, and moves the index on. It is all or
        nothing: where another filler was faster, nothing is changed.
        """
        name, asked = self._filling(call), call.body
        return Kept(await self._core.read(lambda: self._held(name, asked.identity).filled(asked)))

    # -- inside ---------------------------------------------------------------------------------------------------

    def _filling(self, call: Call) -> str:
        name = _name(call)
        call.principal.need(READ)
        call.principal.check_write(None, name)
        return name

    def _held(self, name: str, identity: str) -> Any:
        from holdfast.corpus.search import vectors
        from holdfast.hub.holding import Holding

        index = vectors.find(self._core.corpus, name, identity)
        if index is None:
            raise _absent(name)
        found = self._holding.get(index.id)
        if found is None:
            there = {each.id for each in vectors.indexes(self._core.corpus)}
            self._holding = {number: each for number, each in self._holding.items() if number in there}
            found = self._holding[index.id] = Holding(self._core.home, index)
        return found

    def _shown(self, name: str) -> IndexStatus:
        from holdfast.hub.indexes import every

        found = every(self._core, name)
        if not found:
            raise _absent(name)
        return found[0]

    def _wake(self) -> None:
        """Whoever follows the commits sweeps what has ended, and wakes whoever fills."""
        self._core.writer.committed.set()


def _name(call: Call) -> str:
    name = call.path["name"]
    check_names("put", name, "")
    return name


def _absent(name: str) -> NotFound:
    return NotFound(f"{name!r:.80} has no such index of vectors", hint=f"GET {_INDEXES} shows what there is")
