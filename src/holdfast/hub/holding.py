"""The hub's side of filling an index of vectors, whoever has the function: the hub itself, or programs elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from holdfast.corpus.search import filling, vectors
from holdfast.corpus.search.filling import Task
from holdfast.corpus.search.question import vector_in
from holdfast.corpus.search.vectors import AGAIN, Index
from holdfast.errors import UsageError
from holdfast.hub.search_shapes import Failure, Filled, Texts, Waiting, Wanting
from holdfast.log import load

if TYPE_CHECKING:
    from holdfast.hub.home import Home

HOLD_MS: Final = 60_000
"""How long the hub's own function may take for a lot before another filler is given it."""


class Holding:
    """The side of a hub's corpus, for many fillers of one index: what waits is given to whoever holds the index.

    Args:
        home: the hub's.
        index: which index.
        who: fills it by `next`, as a `Source`; over HTTP each request says that itself (`task`).
    """

    def __init__(self, home: Home, index: Index, who: str = "") -> None:
        self._corpus, self._wall, self._who = home.corpus, home.wall, who
        blobs = home.blobs
        self._filled = filling.Filled(
            home.corpus,
            index.collection,
            index.declared,
            load=lambda stored: load(stored, blobs),
            now_ms=home.wall.now_ms,
        )

    def task(self, who: str, hold_ms: int) -> tuple[Task | None, bool]:
        """What is to be embedded now, and whether it could be had: not while another filler holds the index.

        What holds no text is moved past at once. An idle index is held by nobody, and asking about it writes nothing.

        Raises:
            NotFound: the index has ended.
        """
        while (task := self._filled.next()) is not None:
            now = self._wall.now_ms()
            if not vectors.hold(self._corpus, self._filled.index(), who, now, now + hold_ms):
                return None, False
            if any(task.texts.values()):
                return task, True
            # Values without a text want no vector, but have been looked at.
            if not self._filled.done(task, {pos: [] for pos in task.texts}, task.failed):
                break
        return None, True

    def next(self) -> Task | None:
        """What is to be embedded now; None when there is nothing, or not yet, or not here."""
        return self.task(self._who, HOLD_MS)[0]

    def done(self, task: Task, made: Mapping[int, list[bytes]], failed: Mapping[int, str]) -> bool:
        """Keeps what became of a task; False if another was faster."""
        return self._filled.done(task, made, failed)

    def failing(self, error: str) -> None:
        """Notes that the function fails whatever it is given."""
        self._filled.failing(error)

    def index(self) -> Index:
        """The index as it stands.

        Raises:
            NotFound: it has ended.
        """
        return self._filled.index()

    # -- over HTTP ------------------------------------------------------------------------------------------------

    def waiting(self, asked: Wanting) -> Waiting:
        """What a filler elsewhere is to embed next.

        Raises:
            NotFound: the index has ended.
        """
        task, held = self.task(asked.filler, round(asked.hold_s * 1000))
        if task is None:
            index = self._filled.index()
            rest = max(index.next_ms, 0 if held else index.held_ms) - self._wall.now_ms()
            return Waiting(held=held, wait_s=max(0, rest) / 1000, after=0, upto=0, records=[], failed=[])
        return Waiting(
            held=True,
            wait_s=0,
            after=task.after,
            upto=task.upto,
            records=[Texts(pos=pos, pieces=list(pieces)) for pos, pieces in task.texts.items()],
            failed=[Failure(pos=pos, error=error) for pos, error in task.failed.items()],
        )

    def filled(self, asked: Filled) -> bool:
        """Takes what a filler elsewhere has made of a lot; False if another was faster.

        Raises:
            UsageError: vectors that are none, or of what the index is not about.
            NotFound: the index has ended.
        """
        if asked.leave:
            now = self._wall.now_ms()
            return vectors.hold(self._corpus, self._filled.index(), asked.filler, now, now)
        if asked.error:
            self._filled.failing(asked.error)
            return True
        if asked.upto > self._corpus.last() or asked.upto < asked.after:
            raise UsageError(f"there is nothing at {asked.upto}", hint="`upto` goes back as it came with the texts")
        made = {each.pos: [vector_in(one) for one in each.vectors] for each in asked.records}
        self._check_sizes({len(one) // 4 for each in made.values() for one in each})
        failed = {each.pos: each.error for each in asked.failed}
        self._check_own([*made, *failed], asked.after, asked.upto)
        return self._filled.done(Task(after=asked.after, upto=asked.upto), made, failed)

    def _check_sizes(self, sizes: set[int]) -> None:
        """A filler with another model than the index has is told so; nobody else has to wait for it."""
        index = self._filled.index()
        fits = index.dims or index.declared.dims or min(sizes, default=0)
        if sizes - {fits}:
            hint = "another model is another index: declare it, and it is built beside this one"
            raise UsageError(f"a vector of {min(sizes - {fits})} numbers for an index of {fits}", hint=hint)

    def _check_own(self, places: Sequence[int], after: int, upto: int) -> None:
        """Whoever may fill one collection's index must not put what lies elsewhere into it."""
        if not places:
            return
        marks = ",".join("?" * len(places))
        sql = f"SELECT count(*) FROM rec r JOIN name n ON n.id=r.coll WHERE n.s=? AND r.pos IN ({marks})"
        there = self._corpus.one(sql, (self._filled.index().collection, *places))[0]
        between = after == AGAIN or all(after < pos <= upto for pos in places)
        if there != len(set(places)) or not between:
            raise UsageError("vectors of records that were not given with this lot", hint="ask for texts again")
