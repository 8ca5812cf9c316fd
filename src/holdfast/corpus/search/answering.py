"""A question, answered over one corpus: by words, by vectors, or by both; and what was found is looked at once more.

Whatever an index says, a record is shown only if it stands now (or stood then), may be read, has not ended, and meets
the filter: an index may be behind, the records never are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from holdfast import codec, query
from holdfast.corpus.port import fits
from holdfast.corpus.rows import Stored
from holdfast.corpus.search import vectors
from holdfast.corpus.search.nearest import near
from holdfast.corpus.search.partly import STEPS, Terms, partly
from holdfast.corpus.search.question import Answer, Ask, Question, Scored, checked
from holdfast.corpus.search.ranking import covered, fuse, text_score
from holdfast.corpus.search.texts import Load, value_of
from holdfast.corpus.search.vectors import Index
from holdfast.corpus.search.words import INDEXED, TAIL_MAX, Term, candidates, standing_at, terms_of, whole
from holdfast.corpus.sql import SqlCorpus
from holdfast.errors import HoldfastError, MissingExtra, UsageError
from holdfast.wire import REDACTED

LOOKED_AT: Final = 5_000
"""Records that one list looks at, whatever a filter leaves of them: some 0.2 s."""
LOOKED_UP: Final = 2_000
"""And so many where each lies on a page of its own: what holds every word, wherever it is."""
ENDS: Final = "$ends"
"""The field of a value that says when it ends, in ms since 1970."""
SMALL: Final = 50_000
"""In fewer records whatever holds every word is looked for without asking what it costs."""
DEPTH: Final = 50
"""Each list that is fused with another is at least so long."""


def answer(
    corpus: SqlCorpus,
    question: Question,
    *,
    now_ms: int,
    ask: Ask | None = None,
    load: Load | None = None,
    readable: tuple[str, ...] = (),
) -> Answer:
    """What a corpus answers to a question.

    Args:
        corpus: where.
        question: what is asked.
        now_ms: the time: what has ended by then is not shown.
        ask: embeds the question for an index, where this process has its function.
        load: gives values that do not lie in their record, for filters.
        readable: globs of collections, of which a record must be in one; empty: any.

    Raises:
        UsageError: nothing to look for; vectors where there are none, or nobody who could embed the question.
        HoldfastError: the embedding function failed, and vectors were asked for.
    """
    return _Answering(corpus, checked(question), now_ms, ask, load, readable).answer()


class _Answering:
    """One question, under way."""

    def __init__(
        self,
        corpus: SqlCorpus,
        question: Question,
        now_ms: int,
        ask: Ask | None,
        load: Load | None,
        readable: tuple[str, ...],
    ) -> None:
        self._corpus, self._question, self._now_ms = corpus, question, now_ms
        self._ask, self._load, self._readable = ask, load, readable
        self._agents = (question.agent,) if question.agent else ()
        self._partial = False

    def answer(self) -> Answer:
        """What was found."""
        question = self._question
        if question.past:
            return self._told(self._past(), "text")
        index, vector = self._vector()
        if index is None or vector is None:
            return self._told(self._words(question.limit), "text")
        pending = vectors.pending(self._corpus, index)
        self._partial = bool(pending)
        if question.mode == "vector":
            return self._told(self._near(index, vector, question.limit), "vector", pending)
        depth = max(DEPTH, 2 * question.limit)
        try:
            words = self._words(depth)
        except UsageError:  # a question without a word in it, or with too many: it is still near to something
            words = []
        try:
            near = self._near(index, vector, depth)
        except MissingExtra as error:  # more vectors than can be compared without numpy
            if question.mode != "auto":
                raise
            _warn(error)
            return self._told(words[: question.limit], "text", pending)
        return self._told(self._fused(words, near)[: question.limit], "hybrid", pending)

    def _told(self, found: list[Scored], mode: str, pending: int = 0) -> Answer:
        least = self._question.min_score or 0.0
        kept = [each for each in found if each.score >= least]
        return Answer(found=kept, mode=mode, partial=self._partial, pending=pending)

    # -- which way --------------------------------------------------------------------------------------------------

    def _vector(self) -> tuple[Index | None, bytes | None]:
        """The index to be searched and the question for it; None where it is searched by words."""
        question = self._question
        if question.mode == "text" or question.collection is None:
            return None, None
        found = vectors.indexes(self._corpus, question.collection)
        strict = question.mode != "auto"
        if not found:
            if strict:
                raise UsageError(
                    f"{question.collection!r} has no index of vectors",
                    hint=f"add_index({question.collection!r}, embed=…, model=…), or mode='text'",
                )
            return None, None
        vector = self._embedded(found[0], strict=strict)
        if vector is not None:
            return found[0], vector
        if strict:
            raise UsageError(
                f"nobody here can embed a question for the index of {question.collection!r} by"
                f" {found[0].declared.model}",
                hint="add_index with its function, or ask with the vector and the identity; or mode='text'",
            )
        return None, None

    def _embedded(self, index: Index, *, strict: bool) -> bytes | None:
        given = self._question.vector
        if given is not None and given[0] == index.identity:
            if index.dims and len(given[1]) != 4 * index.dims:
                raise UsageError(f"a vector of {len(given[1]) // 4} numbers for an index of {index.dims}")
            return given[1]
        if self._ask is None:
            return None
        try:
            return self._ask(index.identity)
        except HoldfastError as error:
            if strict:
                raise
            _warn(error)
            return None

    # -- the lists --------------------------------------------------------------------------------------------------

    def _words(self, limit: int) -> list[Scored]:
        """By words: what holds all of them, the newest first; then what holds the most of them."""
        question, corpus = self._question, self._corpus
        terms = terms_of(question.q)
        mark = corpus.meta(INDEXED) or 0
        tail = corpus.feed(mark, TAIL_MAX)
        self._partial = self._partial or (bool(tail) and corpus.last() > tail[-1].pos)
        single = len(terms) < 2
        weighed = None if single or mark < SMALL else self._weighed(terms, mark)
        if weighed is not None and weighed.steps(range(len(terms)), limit) > STEPS:
            found, self._partial = [], True  # many hold each of them and hardly any all: it would look for too long
        else:
            found = self._whole(terms, tail, mark, limit)
        strict = (question.min_score or 0.0) >= 1.0
        if single or len(found) >= limit or (strict and not self._partial) or all(term.quoted for term in terms):
            return found
        weighed = weighed or self._weighed(terms, mark)
        there = {each.stored.pos for each in found}
        more = partly(
            weighed,
            corpus,
            tail,
            lambda stored: self._wanted(stored) and self._holds(stored),
            question.collection,
            limit,
        )
        for each in more:
            if each.stored.pos in there or len(found) >= limit:
                continue
            score = text_score(each.share)
            found.append(Scored(each.stored, score, self._parts(text=score, share=each.share, words=list(each.held))))
        return found

    def _weighed(self, terms: list[Term], mark: int) -> Terms:
        return Terms(self._corpus, terms, mark, self._agents, alike=bool(self._readable))

    def _whole(self, terms: list[Term], tail: list[Stored], mark: int, limit: int) -> list[Scored]:
        """What holds every word, the newest first."""
        found: list[Scored] = []
        looked = 0
        narrow: dict[str, Any] = {"agents": self._agents, "collection": self._question.collection, "limit": limit}
        for many, lot in whole(self._corpus, terms, tail, mark, **narrow):
            kept = [stored for stored in lot if self._wanted(stored) and self._holds(stored)]
            found += [Scored(each, 1.0, self._parts(text=1.0, words=_named(terms))) for each in kept]
            looked += many
            if len(found) >= limit:
                break
            if looked >= LOOKED_UP:
                self._partial = True
                break
        return found[:limit]

    def _near(self, index: Index, vector: bytes, limit: int) -> list[Scored]:
        """By vectors: the nearest first; of a record's pieces the nearest counts."""
        found: list[Scored] = []
        seen: set[int] = set()
        most = max(64, 3 * limit)
        while True:
            nearest = near(self._corpus, index, vector, most)
            lot: dict[int, float] = {}
            for pos, score in nearest:
                if pos not in seen:
                    lot.setdefault(pos, score)
            seen |= lot.keys()
            found += self._judged(index, lot)
            if len(found) >= limit or len(nearest) < most:
                break
            if most >= LOOKED_AT:
                self._partial = True
                break
            most = min(LOOKED_AT, most * 4)
        # What a database finds deeper down may be nearer than what it found before.
        return sorted(found, key=lambda each: -each.score)[:limit]

    def _judged(self, index: Index, lot: dict[int, float]) -> Iterator[Scored]:
        """Those of a lot that may be shown, the nearest first."""
        places, stale = list(lot), list[int]()
        for first in range(0, len(places), 500):
            some = places[first : first + 500]
            there = {each.pos: each for each in standing_at(self._corpus, some)}
            for pos in some:
                stored = there.get(pos)
                if stored is None:
                    stale.append(pos)
                elif stored.why != REDACTED and self._wanted(stored) and self._holds(stored):
                    score = max(0.0, min(1.0, lot[pos]))
                    yield Scored(stored, score, self._parts(vector=lot[pos]))
        if stale:
            vectors.note_stale(self._corpus, index, stale)

    def _fused(self, words: Sequence[Scored], near: Sequence[Scored]) -> list[Scored]:
        by_words = {each.stored.pos: (place, each) for place, each in enumerate(words)}
        by_near = {each.stored.pos: (place, each) for place, each in enumerate(near)}
        scores = fuse(
            {pos: covered(each.score) for pos, (_, each) in by_words.items()},
            {pos: each.score for pos, (_, each) in by_near.items()},
        )
        out = []
        for pos, score in scores.items():
            one = by_words.get(pos) or by_near[pos]
            parts = self._parts(**{**_parts_of(by_words.get(pos), "text"), **_parts_of(by_near.get(pos), "vector")})
            out.append(Scored(one[1].stored, score, parts))
        # Of equals, what holds every word first, then the newest.
        whole = {pos for pos, (_, each) in by_words.items() if each.score >= 1.0}
        return sorted(out, key=lambda each: (-each.score, each.stored.pos not in whole, -each.stored.pos))

    def _past(self) -> list[Scored]:
        """By words, what was current once: the words of replaced and deleted values are in the index still."""
        question, corpus = self._question, self._corpus
        terms = terms_of(question.q)
        mark = corpus.meta(INDEXED) or 0
        tail = corpus.feed(mark, TAIL_MAX)
        self._partial = bool(tail) and corpus.last() > tail[-1].pos
        found: list[Scored] = []
        looked = 0
        for lot in candidates(corpus, terms, tail, mark, self._agents, question.limit):
            for stored in lot:
                if self._before(stored) and self._wanted(stored) and self._stood(stored) and self._holds(stored):
                    found.append(Scored(stored, 1.0, self._parts(text=1.0, words=_named(terms))))
                    if len(found) >= question.limit:
                        return found
            looked += len(lot)
            if looked >= LOOKED_AT:
                self._partial = True
                break
        return found

    # -- what may be shown ------------------------------------------------------------------------------------------

    def _before(self, stored: Stored) -> bool:
        question = self._question
        if question.at is not None and stored.pos > question.at:
            return False
        return question.at_stamp is None or stored.record.hlc <= question.at_stamp

    def _stood(self, stored: Stored) -> bool:
        """Whether a record was its key's value then."""
        record = stored.record
        for each in self._corpus.versions(stored.agent, record.collection, record.key):
            if self._before(each):
                return each.pos == stored.pos
        return False

    def _wanted(self, stored: Stored) -> bool:
        question, record = self._question, stored.record
        return (
            (not self._agents or stored.agent in self._agents)
            and (question.collection is None or record.collection == question.collection)
            and (question.kind is None or record.kind == question.kind)
            and (not self._readable or fits(record.collection, self._readable))
        )

    def _holds(self, stored: Stored) -> bool:
        """Whether its value has not ended, and meets the filter."""
        condition = self._question.filter
        if condition is None and not self._may_end(stored):
            return True
        try:
            value = value_of(stored, self._load)
        except HoldfastError:  # it is not here: nobody can say that it meets anything
            return condition is None
        ends = value.get(ENDS) if isinstance(value, dict) else None
        if isinstance(ends, int | float) and ends <= self._moment_ms():
            return False
        return condition is None or query.matches(condition, value)

    def _moment_ms(self) -> int:
        stamp = self._question.at_stamp
        return self._now_ms if stamp is None else stamp >> 16

    def _may_end(self, stored: Stored) -> bool:
        if stored.body is None or stored.is_blob or stored.record.fmt != codec.FMT_JSON:
            return False
        try:
            return f'"{ENDS}"'.encode() in stored.payload()
        except HoldfastError:
            return False

    def _parts(self, **parts: Any) -> dict[str, Any] | None:
        return parts if self._question.explain else None


def _warn(error: HoldfastError) -> None:
    import logging  # 8 ms, which no search pays that goes well

    logging.getLogger(__name__).warning("search goes on by words alone: %s", error)


def _named(terms: Sequence[Term]) -> list[str]:
    return [" ".join(term.words) for term in terms]


def _parts_of(found: tuple[int, Scored] | None, name: str) -> dict[str, Any]:
    if found is None:
        return {}
    place, each = found
    return {**(each.parts or {}), name: each.score, f"{name}_rank": place + 1}
