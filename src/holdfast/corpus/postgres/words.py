"""Where words stand: the newest positions whose records hold them.

The index of words knows no order: what it finds is all read and sorted, and a common word is found in a part of
everything. So it is asked for blocks of positions, which it holds too (migrations/0004_blocks.sql): for few of the
newest, then for more and larger ones, until there is enough. A common word ends in the first question, a rare one costs
one small question for each two million records.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

SHIFTS: Final = (11, 14, 17, 20)
"""By how many bits positions are shifted to be blocks of each size; what the index was made with."""
BLOCKS: Final = 2
"""Blocks that are asked for at once: the index steps through all of them with each position that it looks at."""
MOST: Final = BLOCKS << SHIFTS[0]
"""Rows that are read and sorted at once, some 5 ms: no more are in the smallest blocks."""
WINDOW: Final = 2_000
"""Positions that are looked through without the index of words, for the beginning of a word."""
OWN: Final = 1_000
"""Records of one agent that are looked through so: some 5 ms, too."""

_LAST: Final = len(SHIFTS) - 1
_BITS: Final = _LAST.bit_length()
_BLOCK: Final = ", ".join(
    f"pos >> {shift} << {_BITS}" + (f" | {level}" if level else "") for level, shift in enumerate(SHIFTS)
)
# `pos+0`: so that the key of the table is no index to ask. Each condition that stands alone lets the index jump to
# where the next one goes on.
ASKED: Final = (
    f"WITH hit AS MATERIALIZED (SELECT pos FROM fts WHERE (ARRAY[{_BLOCK}]) && ?::int8[] AND t @@ ?::tsquery{{}}"
    f" AND pos+0<? LIMIT {MOST}) SELECT pos, (SELECT count(*) FROM hit) FROM hit ORDER BY pos DESC LIMIT ?"
)
_OF: Final = " AND t @@ ?::tsquery"
_REST: Final = "SELECT pos FROM fts WHERE t @@ ?::tsquery{} AND pos+0<? ORDER BY pos DESC LIMIT ?"
_NEAR: Final = "SELECT pos FROM fts WHERE t @@ ?::tsquery{} AND pos<? AND pos>=? ORDER BY pos DESC LIMIT ?"
_OWN: Final = (
    "SELECT r.pos FROM (SELECT pos FROM rec WHERE agent=(SELECT id FROM name WHERE s=?) AND pos<? ORDER BY pos DESC"
    f" LIMIT {OWN}) r JOIN fts f ON f.pos=r.pos WHERE f.t @@ ?::tsquery ORDER BY r.pos DESC LIMIT ?"
)
# Our sessions know no bitmaps, and this index nothing else.
_BITMAPS: Final = "SELECT set_config('enable_bitmapscan', 'on', true), set_config('enable_indexscan', 'off', true)"

Question = tuple[str, Sequence[Any]]
Course = Generator[Question, list[Any], list[int]]
"""Asks question after question, is sent the rows of each, and returns positions: so several can go side by side."""


class Look:
    """One search, as a course of questions.

    Args:
        words: what a record must hold, as a tsquery.
        whose: whose it must be, as a tsquery; empty: anybody's.
        limit: the most positions.
    """

    def __init__(self, words: str, whose: str, limit: int) -> None:
        self._asked = (words, whose) if whose else (words,)
        self._of = _OF if whose else ""
        self._limit = limit
        self._found: list[int] = []

    @property
    def _wants(self) -> int:
        return self._limit - len(self._found)

    def newest(self, below: int) -> Course:
        """The newest positions below this one that hold the words, newest first."""
        yield _BITMAPS, ()
        level = 0
        while below > 1 and self._wants:
            low = _low(below, level)
            yield from self._between(low, below, level)
            below, level = low, min(level + 1, _LAST)
        return self._found

    def beginning(self, below: int, agent: str) -> Course:
        """The same where a word is only begun, which the index looks up as a whole with each question: two at most.

        Not beside others: it begins without bitmaps, and they are allowed or not for a whole session.

        Args:
            below: the first position that is not looked at.
            agent: the only one who is asked for; empty: not just one.
        """
        if agent:
            rows = yield _OWN, (agent, below, self._asked[0], self._limit)
        else:
            rows = yield _NEAR.format(self._of), (*self._asked, below, below - WINDOW, self._limit)
        if len(rows) == self._limit:
            return [row[0] for row in rows]
        yield _BITMAPS, ()
        low = _low(below, _LAST - 1)
        yield from self._between(low, below, _LAST - 1)
        if low > 1 and self._wants:
            rows = yield _REST.format(self._of), (*self._asked, low, self._wants)
            self._found += [row[0] for row in rows]
        return self._found

    def _between(self, low: int, below: int, level: int) -> Generator[Question, list[Any], None]:
        """Adds what is found from `low` on, or enough of it; where that is too much to sort, by smaller blocks."""
        shift = SHIFTS[level]
        blocks = ",".join(str(block << _BITS | level) for block in range(low >> shift, (below - 1 >> shift) + 1))
        rows = yield ASKED.format(self._of), (f"{{{blocks}}}", *self._asked, below, self._wants)
        if not rows or not level or rows[0][1] < MOST:
            self._found += [row[0] for row in rows]
            return
        while below > low and self._wants:
            nearer = max(low, _low(below, level - 1))
            yield from self._between(nearer, below, level - 1)
            below = nearer


def _low(below: int, level: int) -> int:
    """Where those blocks of this size begin that a question about the positions before `below` is about."""
    shift = SHIFTS[level]
    return max(0, (below - 1 >> shift) - BLOCKS + 1) << shift
