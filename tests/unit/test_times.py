"""Which positions a time spans: found by bisection, never narrower than the records that have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.corpus.port import Branch
from holdfast.corpus.times import BRANCHES_MAX, span

LINK = bytes(32)
chains = st.lists(st.lists(st.integers(0, 30), min_size=0, max_size=12).map(sorted), min_size=1, max_size=4)


def laid(stamps: Sequence[Sequence[int]]) -> tuple[list[Branch], dict[tuple[int, int], tuple[int, int]]]:
    """Branches with these stamps, some behind another's base, and their rows: (branch, seq) -> (stamp, pos)."""
    branches, rows, pos = [], {}, 0
    for number, chain in enumerate(stamps, 1):
        base = number * 3 % 5
        for seq, stamp in enumerate(chain, base + 1):
            pos += 1
            rows[number, seq] = (stamp, pos)
        seq = base + len(chain)
        branches.append(Branch(number, LINK, LINK, "ada", LINK, LINK, False, base, LINK, seq, LINK))
    return branches, rows


@given(chains, st.integers(0, 31), st.integers(0, 31))
def test_the_span_is_exactly_from_the_first_to_the_last_record_of_that_time(
    stamps: list[list[int]], since: int, until: int
) -> None:
    branches, rows = laid(stamps)

    def one(_: str, at: Sequence[Any]) -> Any:
        return rows.get((at[0], at[1]))

    found = span(one, branches, since, until)
    wanted = [pos for stamp, pos in rows.values() if since <= stamp < until]
    assert found is not None
    assert found == (min(wanted), max(wanted)) if wanted else found[0] > found[1]


def test_too_many_branches_are_not_asked() -> None:
    branches, _ = laid([[1]] * (BRANCHES_MAX + 1))
    assert span(lambda *_: None, branches, 0, 1) is None
