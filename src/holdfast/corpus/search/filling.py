"""The background work of an index: what waits becomes texts, texts become vectors, and these are kept.

Two sides, which may lie on two machines: a `Source` knows the records and keeps what comes; a filler knows the
function. What the function fails on is tried again later and ever more rarely, and holds nothing else up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from holdfast.corpus.search import vectors
from holdfast.corpus.search.embedding import Embedder
from holdfast.corpus.search.texts import Load as Load
from holdfast.corpus.search.texts import Task as Task
from holdfast.corpus.search.texts import said, task_of
from holdfast.corpus.search.vectors import Declared, Index, Lot, Made
from holdfast.corpus.sql import SqlCorpus
from holdfast.errors import NotFound, UsageError

BACKOFF_MS: Final = 1_000
BACKOFF_MS_MAX: Final = 3_600_000
LAZY: Final = 1_000
"""An index whose collection sees nothing new is moved on only so many records of others at a time."""


class Source(Protocol):
    """Where texts come from and vectors go: a corpus here, or a hub."""

    def next(self) -> Task | None:
        """What is to be embedded now; None when there is nothing, or not yet.

        Raises:
            NotFound: the index has ended.
        """
        ...

    def done(self, task: Task, made: Mapping[int, list[bytes]], failed: Mapping[int, str]) -> bool:
        """Keeps what became of a task; False if another was faster."""
        ...

    def failing(self, error: str) -> None:
        """Notes that the function fails whatever it is given."""
        ...


def step(source: Source, embedder: Embedder) -> bool:
    """Takes an index one lot further; False when there was nothing to do, or nothing could be done.

    Raises:
        NotFound: the index has ended.
    """
    task = source.next()
    if task is None:
        return False
    places = [(pos, piece) for pos, pieces in task.texts.items() for piece in pieces]
    made = embedder.texts([piece for _, piece in places])
    if made.down:
        source.failing(made.down)
        return False
    failed = dict(task.failed)
    for number, error in made.errors.items():
        failed[places[number][0]] = error
    kept: dict[int, list[bytes]] = {pos: [] for pos in task.texts if pos not in failed}
    for (pos, _), vector in zip(places, made.vectors, strict=True):
        if pos in kept and vector is not None:
            kept[pos].append(vector)
    source.done(task, kept, failed)
    return True


class Filled:
    """The side of a corpus: what of it waits for one index, and what came is kept.

    Args:
        corpus: where.
        collection, declared: which index; it has been declared.
        load: gives values that do not lie in their record.
        now_ms: the clock.
        uniform: a random number between two others.
    """

    def __init__(
        self,
        corpus: SqlCorpus,
        collection: str,
        declared: Declared,
        *,
        load: Load | None = None,
        now_ms: Callable[[], int],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._corpus, self._collection, self._declared = corpus, collection, declared
        self._load, self._now_ms, self._uniform = load, now_ms, uniform
        self._seen = 0  # positions up to here hold nothing of the collection that the row does not know

    def index(self) -> Index:
        """The index as it stands.

        Raises:
            NotFound: it has ended.
        """
        found = vectors.find(self._corpus, self._collection, self._declared.identity)
        if found is None:
            raise NotFound(f"the index of {self._collection!r} by {self._declared.model} is gone")
        return found

    def next(self) -> Task | None:
        """What is to be embedded now; None when there is nothing, or not yet."""
        index, corpus = self.index(), self._corpus
        if index.next_ms > self._now_ms():
            return None
        if index.pos > corpus.last():  # what there was is not what there is
            vectors.restart(corpus, index)
            self._seen = 0
            return None
        vectors.prune_stale(corpus, index)
        again = vectors.due(corpus, index, self._now_ms())
        if again.records:
            return self._task(again)
        self._seen = max(self._seen, index.pos)
        while True:
            lot = vectors.waiting(corpus, index, self._seen)
            if lot.records:
                return self._task(lot)
            if lot.upto <= self._seen:
                # A complete index has nothing to say; one that was being built may be complete now.
                return None if index.complete else Task(after=index.pos, upto=self._seen)
            # What was replaced or deleted between the two has vectors that are to go.
            if lot.upto - index.pos >= LAZY or vectors.touched(corpus, index, self._seen, lot.upto):
                return Task(after=index.pos, upto=lot.upto)
            self._seen = lot.upto

    def done(self, task: Task, made: Mapping[int, list[bytes]], failed: Mapping[int, str]) -> bool:
        """Keeps what became of a task; False if another was faster."""
        told = Made(after=task.after, upto=task.upto, vectors=made, failed=failed, next_ms=self._next_ms)
        try:
            return vectors.keep(self._corpus, self.index(), told)
        except UsageError as error:  # vectors of another length than those that are there
            self.failing(said(error))
            return False

    def failing(self, error: str) -> None:
        """Notes that the function fails whatever it is given."""
        vectors.failing(self._corpus, self.index(), error, self._next_ms)

    def _task(self, lot: Lot) -> Task:
        return task_of(lot, self._declared, self._load)

    def _next_ms(self, tries: int) -> int:
        ceiling = min(BACKOFF_MS_MAX, BACKOFF_MS << min(tries, 20))
        return self._now_ms() + round(self._uniform(0, ceiling))
