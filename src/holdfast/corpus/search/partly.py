"""Records that hold some of the words: what comes behind those that hold all, found in bounded time.

Of each word only the newest records are looked up, which an index gives at once however common the word is. How wide
they spread over the positions says about how many there are, and so what the word is worth. Words that nearly
everything holds are not looked for by themselves; of several that many records hold it is asked too which hold them
together. Only what comes out of this, some hundred records, is read and judged by its text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from holdfast.corpus.rows import Stored
from holdfast.corpus.search.ranking import COMMON, frequency, share, weight
from holdfast.corpus.search.words import TAIL_MAX, Term, standing, standing_at, text_of, words_of
from holdfast.corpus.sql import SqlCorpus

NEWEST: Final = 200
"""Of each word so many records are looked up, ..."""
FURTHER: Final = 1_000
"""and so many more where too few of those were wanted, such as of another collection."""
LOOKED_FOR: Final = 8
"""So many words, the rarest, are looked for by themselves."""
STEPS: Final = 400_000
"""So many places of words are read for what holds several of them together: some 10 ms."""
APART: Final = 64
"""Between two places of a rare word an index reads about so many of a common one, wherever the next is."""
READ: Final = 300
"""So many records are read at most: some 10 ms."""
LOT: Final = 50


class Partly(msgspec.Struct, frozen=True):
    """A record that holds some of the words: the share of their weight, and which."""

    stored: Stored
    share: float
    held: tuple[str, ...]


class Terms:
    """What is looked for, and what each term is worth here.

    Args:
        corpus: where.
        terms: what a text asks for.
        mark: up to where the index of words is filled.
        agents: whose records the index is to look for; empty: anybody's.
    """

    def __init__(self, corpus: SqlCorpus, terms: Sequence[Term], mark: int, agents: Sequence[str]) -> None:
        self._corpus, self._mark, self._agents = corpus, mark, agents
        self.required = [term for term in terms if term.quoted]
        self.terms = [*self.required, *(term for term in terms if not term.quoted)]
        first = self._newest([[term] for term in self.terms], mark + 1, NEWEST)
        self.many = [frequency(found, NEWEST, mark) for found in first]
        self.weights = [weight(many, mark) for many in self.many]
        self._first = first
        self._shares: dict[frozenset[int], float] = {}
        self._last: dict[int, int] = {}  # where the newest of a term ended that has more of them

    def steps(self, numbers: Sequence[int], wanted: int) -> float:
        """About how many places an index reads until it has found so many records with all of these terms.

        It goes along those of the rarest, and has each of the others catch up; as if words stood where they like.
        """
        total, many = max(1, self._mark), [self.many[number] for number in numbers]
        every = sum(min(each, APART * min(many)) for each in many)
        together = total * math.prod(min(1.0, each / total) for each in many)
        return every * min(1.0, wanted / max(together, 1e-9))

    def known(self, held: set[int]) -> float:
        """The share of what is known to hold these terms."""
        at = frozenset(held)
        found = self._shares.get(at)
        if found is None:
            found = self._shares[at] = share(self.weights, [number in held for number in range(len(self.terms))])
        return found

    def judge(self, stored: Stored) -> Partly | None:
        """What of the words a record holds; None if that is nothing, or not what is required."""
        words = words_of(text_of(stored))
        there = set(words)
        held = [_holds(term, words, there) for term in self.terms]
        if not any(held) or not all(held[: len(self.required)]):
            return None
        names = tuple(" ".join(term.words) for term, there in zip(self.terms, held, strict=True) if there)
        return Partly(stored, share(self.weights, held), names)

    def candidates(self, seen: set[int]) -> dict[int, set[int]]:
        """Positions that hold some terms, and which of them is known; without those that were seen."""
        found: dict[int, set[int]] = {}
        alone = self._alone()
        self._last = {}
        below = self._mark + 1
        if self.required:
            asked = [*(self._with([number]) for number in alone), self.required]
            *apart, all_of_them = self._newest(asked, below, NEWEST)
        else:
            apart, all_of_them = [self._first[number] for number in alone], []
        for number, places in zip(alone, apart, strict=True):
            self._note(found, [number], places, NEWEST, seen)
        self._note(found, [], all_of_them, NEWEST, seen)
        for some in self._together([number for number in alone if number in self._last]):
            (places,) = self._newest([self._with(some)], below, NEWEST)
            if not places:
                break  # nor does anything hold these and more
            for pos in places:
                if pos not in seen:
                    found.setdefault(pos, set(range(len(self.required)))).update(some)
        return found

    def further(self, seen: set[int]) -> dict[int, set[int]]:
        """The same of what lies behind the newest."""
        found: dict[int, set[int]] = {}
        for number, below in list(self._last.items()):
            (places,) = self._newest([self._with([number])], below, FURTHER)
            self._note(found, [number], places, FURTHER, seen)
        return found

    def _together(self, more: Sequence[int]) -> list[list[int]]:
        """Of terms that many records hold, the rarest first: which are looked for together, few before many."""
        out = []
        left: float = STEPS
        for size in range(len(more), 1, -1):
            some = list(more[:size])
            steps = self.steps([*range(len(self.required)), *some], NEWEST)
            if steps <= left and size < len(self.terms):
                left -= steps
                out.append(some)
        return out[::-1]

    def _alone(self) -> list[int]:
        """The terms that are looked for by themselves, the rarest first."""
        numbers = sorted(range(len(self.required), len(self.terms)), key=lambda number: self.many[number])
        there = [number for number in numbers if self.many[number]]
        rare = [number for number in there if self.many[number] <= COMMON * self._mark]
        return (rare or there)[:LOOKED_FOR]

    def _with(self, numbers: Sequence[int]) -> list[Term]:
        return [*self.required, *(self.terms[number] for number in numbers)]

    def _newest(self, some: Sequence[Sequence[Term]], below: int, limit: int) -> list[list[int]]:
        asked = [[(term.words, term.prefix) for term in terms] for terms in some]
        return self._corpus.places_of_each(asked, below, limit, self._agents)

    def _note(self, found: dict[int, set[int]], some: list[int], places: list[int], asked: int, seen: set[int]) -> None:
        for number in some:
            self._last.pop(number, None)
            if len(places) >= asked:
                self._last[number] = places[-1]
        for pos in places:
            if pos not in seen:
                found.setdefault(pos, set(range(len(self.required)))).update(some)


def partly(
    terms: Terms,
    corpus: SqlCorpus,
    tail: Sequence[Stored],
    wanted: Callable[[Stored], bool],
    collection: str | None,
    limit: int,
) -> list[Partly]:
    """Records that are values now and hold some of the words, those that hold most of the weight first.

    Args:
        terms: what is looked for.
        corpus: where.
        tail: records that the index of words does not hold yet.
        wanted: whether a record may be shown.
        collection: the only one, if it is; of others no record is read.
        limit: how many.
    """
    found = [each for stored in reversed(tail) if (each := terms.judge(stored)) is not None]
    there = {stored.pos for stored in standing(corpus, [each.stored for each in found])}
    found = [each for each in found if each.stored.pos in there and wanted(each.stored)]
    seen = {stored.pos for stored in tail}
    read = 0
    for gather in (terms.candidates, terms.further):
        near = gather(seen)
        seen |= near.keys()
        order = sorted(near, key=lambda pos: (-terms.known(near[pos]), -pos))
        lot = max(LOT, min(TAIL_MAX, 2 * limit))
        for first in range(0, len(order), lot):
            if read >= READ or (first and len(found) >= 2 * limit):
                break
            rows = standing_at(corpus, order[first : first + lot], collection)
            read += len(rows)
            judged = [terms.judge(stored) for stored in rows if wanted(stored)]
            found += [each for each in judged if each is not None]
        if len(found) >= limit or read >= READ:
            break
    return sorted(found, key=lambda each: (-each.share, -each.stored.pos))[:limit]


def _holds(term: Term, words: list[str], there: set[str]) -> bool:
    """Whether a term is among words, of which a set says at once what is not."""
    if not term.prefix and not there.issuperset(term.words):
        return False
    return (len(term.words) == 1 and not term.prefix) or term.within(words)
