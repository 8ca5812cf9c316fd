"""The hub's tree of branches: what lies on a chain, where two chains meet, what a chain's backups hold. Pure.

A link is a hash over everything before it, so holding a record means holding its whole past. A chain is therefore
named by its newest record alone: a branch and a number. Everything here walks from there towards the genesis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from holdfast.protocol.ports import Branch, Span, StreamFacts


def runs(branches: Mapping[int, Branch], branch: int | None, seq: int) -> Iterator[tuple[Branch, int]]:
    """The runs of the chain that ends at record `seq` of `branch`, newest first, each with its last number in it."""
    while branch is not None:
        here = branches[branch]
        if seq > here.base.seq:
            yield here, seq
        seq = min(seq, here.base.seq)
        branch = here.parent


def contains(branches: Mapping[int, Branch], tip: tuple[int | None, int], what: tuple[int, int]) -> bool:
    """Whether the record (branch, seq) `what` lies on the chain that ends at `tip`."""
    return any(run.id == what[0] and run.base.seq < what[1] <= last for run, last in runs(branches, *tip))


def meet(branches: Mapping[int, Branch], one: tuple[int | None, int], two: tuple[int | None, int]) -> int:
    """The number of the newest record that two chains share; 0 if none."""
    ends = {run.id: last for run, last in runs(branches, *one)}
    return next((min(ends[run.id], last) for run, last in runs(branches, *two) if run.id in ends), 0)


def settled(branches: Mapping[int, Branch], tip: tuple[int | None, int]) -> int:
    """The newest number of the chain that the hub's newest verified backups hold as well; 0 if none."""
    for run, last in runs(branches, *tip):
        if run.settled > run.base.seq:
            return min(run.settled, last)
    return 0


def spans(facts: StreamFacts, inc: bytes, first: int) -> list[Span]:
    """Where the rows first, first+1, … of an incarnation's chain lie in the hub's log, up to its head; oldest first."""
    label = facts.labels[inc]
    found = [
        Span(facts.stream, max(first, run.base.seq + 1), last, run.id)
        for run, last in runs(facts.branches, label.branch, label.head.seq)
        if last >= first
    ]
    return found[::-1]
