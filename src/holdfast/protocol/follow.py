"""What a hub lacks of another, and how to ask for it: decisions over what both say of a stream. Pure.

Streams are chains of one writer each, so two hubs agree when each holds the other's heads; nothing is ever decided
between them. An incarnation is only a name. Where both hubs know different chains by one name (a copied node showed one
half to each), theirs is kept here under a name made of it and of their key: the same for ever, so it is made once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from holdfast.protocol import branches as tree
from holdfast.protocol.ports import Label, Span, StreamFacts
from holdfast.wire import HeadAt, Mark, StreamHeads

Held = Mapping[tuple[bytes, int, bytes], int]
"""(stream, seq, link) of a record that is held here -> its branch."""


class Lack(msgspec.Struct, frozen=True):
    """A chain that the other hub holds more of.

    Attributes:
        stream, agent, public_key: whose it is.
        inc: the name by which they know it.
        name: by which it is kept here.
        after: the number behind which to ask.
        link: what the link there must be, or empty if any of theirs will do.
        head: where it ends with them.
        start: the number behind which their chain begins, as far as they told.
    """

    stream: bytes
    agent: str
    public_key: bytes
    inc: bytes
    name: bytes
    after: int
    link: bytes
    head: Mark
    start: int


def spans(theirs: StreamHeads) -> list[Span]:
    """The places of a stream at which `lacks` must know what is held here."""
    seqs = {mark.seq for at in theirs.heads for mark in (at.head, *at.steps) if mark.seq}
    return [Span(theirs.stream, seq, seq) for seq in sorted(seqs)]


def lacks(theirs: StreamHeads, mine: StreamFacts | None, held: Held, their_key: bytes) -> list[Lack]:
    """What they hold of a stream and this hub does not, in the order in which to ask for it.

    Args:
        theirs: the stream as they told it.
        mine: what is known of it here.
        held: what is held here at `spans`.
        their_key: the other hub's public key.
    """
    found = []
    for at in theirs.heads:
        label = mine.labels.get(at.inc) if mine else None
        branch = held.get((theirs.stream, at.head.seq, at.head.link))
        if branch is not None and mine is not None:
            if _is_nameless(mine, label, at, branch):
                # All of it is here, but for the name: its last record again is enough to learn that.
                found.append(_lack(theirs, at, at.inc, Mark(at.head.seq - 1, b"")))
        elif label is None:
            found.append(_lack(theirs, at, at.inc, _start(theirs.stream, at, held)))
        elif label.head.seq < at.head.seq:
            found.append(_lack(theirs, at, at.inc, label.head))
        else:
            found.append(under_other_name(theirs, at, mine, held, their_key))
    return found


def _is_nameless(mine: StreamFacts, label: Label | None, at: HeadAt, branch: int) -> bool:
    start = at.steps[-1].seq
    if start and at.head.seq - 1 <= start:
        return False  # a prune record alone: again, it would begin another branch
    if label is None:
        return True
    tip = (branch, at.head.seq)
    return label.head.seq < at.head.seq and tree.contains(mine.branches, tip, (label.branch, label.head.seq))


def renamed(lack: Lack, theirs: StreamHeads, mine: StreamFacts | None, held: Held, their_key: bytes) -> Lack:
    """The same chain under a name that nobody else has: what is known here by its own is another one."""
    at = next(each for each in theirs.heads if each.inc == lack.inc)
    return under_other_name(theirs, at, mine, held, their_key)


def under_other_name(theirs: StreamHeads, at: HeadAt, mine: StreamFacts | None, held: Held, their_key: bytes) -> Lack:
    """How to ask for an incarnation whose name stands for another chain here."""
    name = at.inc[:6] + hashlib.sha256(b"hf/other/1\0" + at.inc + their_key).digest()[:10]
    label = mine.labels.get(name) if mine else None
    goes_on = label is not None and label.head.seq < at.head.seq
    return _lack(theirs, at, name, label.head if label and goes_on else _start(theirs.stream, at, held))


def _start(stream: bytes, at: HeadAt, held: Held) -> Mark:
    """The newest of the places where their chain turned that is held here, else where it begins."""
    return next((step for step in at.steps if (stream, step.seq, step.link) in held), at.steps[-1])


def _lack(theirs: StreamHeads, at: HeadAt, name: bytes, after: Mark) -> Lack:
    return Lack(
        theirs.stream,
        theirs.agent,
        theirs.public_key,
        at.inc,
        name,
        after.seq,
        after.link,
        at.head,
        at.steps[-1].seq,
    )


def is_theirs(facts: StreamFacts, branches: Iterable[int], theirs: Mapping[bytes, Mark], held: Held) -> bool:
    """Whether everything on these branches lies on a chain that ends at one of the other hub's heads.

    Args:
        facts: the stream, as it is here.
        branches: some of its branches.
        theirs: their heads of it, by incarnation.
        held: what is held here at the numbers of these heads.
    """
    tips = [(held.get((facts.stream, head.seq, head.link)), head.seq) for head in theirs.values()]
    for number in branches:
        tip = (number, facts.branches[number].tip.seq)
        if not any(at[0] is not None and tree.contains(facts.branches, at, tip) for at in tips):
            return False
    return True
