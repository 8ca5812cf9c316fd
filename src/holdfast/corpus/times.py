"""Where in commit order a time lies, for records of a few agents: between which positions, without an index on stamps.

An agent's stamps only grow along its chain (`clock.tick`), and so do its positions: a bisection of each branch finds
both ends in some twenty looks. An index over (agent, stamp) would find them in one, and cost every insert a page more.
A node that lets its stamps go back misplaces its own records in questions about time, and nobody else's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any, Final

from holdfast.corpus.port import Branch

BRANCHES_MAX: Final = 32
"""Beyond so many branches, to look through the records costs less than to look for their ends."""
_ROW: Final = "SELECT hlc, pos FROM rec WHERE branch=? AND seq=?"


def span(
    one: Callable[[str, Sequence[Any]], Any], branches: Sequence[Branch], since: int, until: int
) -> tuple[int, int] | None:
    """The first and the last position that records of these branches with since ≤ stamp < until may have.

    Args:
        one: gives the first row of a query.
        branches: whose records are asked for.
        since, until: stamps.

    Returns:
        None if there are too many branches to ask; first > last if there is no such record.
    """
    if len(branches) > BRANCHES_MAX:
        return None
    first, last = 1 << 62, 0
    for branch in branches:
        begin, end = branch.base_seq + 1, branch.seq + 1

        def stamp(seq: int, branch: Branch = branch) -> int:
            row = one(_ROW, (branch.id, seq))
            return int(row[0]) if row else 0

        low = bisect_left(range(begin, end), since, key=stamp) + begin
        high = bisect_left(range(low, end), until, key=stamp) + low
        if low < high:
            first = min(first, one(_ROW, (branch.id, low))[1])
            last = max(last, one(_ROW, (branch.id, high - 1))[1])
    return first, last
