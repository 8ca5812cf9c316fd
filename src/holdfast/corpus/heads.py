"""What a hub that is followed is asked: where every incarnation stands, and stretches of a chain that prove themselves.

A stretch ends at a signed head, because only that authorises it, and behind every `rotate` record: it is a segment, to
be judged by whoever receives it as if the node had sent it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from holdfast.corpus.chains import Chains
from holdfast.corpus.sql import TAGS
from holdfast.corpus.transaction import PLACES_MAX
from holdfast.errors import NotFound
from holdfast.protocol import branches as tree
from holdfast.protocol.ports import StreamFacts
from holdfast.records import ROTATE, genesis
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX, HeadAt, Item, Mark, Pulled, StreamHeads

STREAMS_MAX: Final = 200
"""Streams in one page of a listing."""
WINDOW: Final = 20_000
"""Positions that one question for what has changed looks at."""
STEPS_MAX: Final = 16
_CHANGED: Final = "SELECT DISTINCT branch FROM rec WHERE pos>? AND pos<=?"
# The number stands in it because an index over these tags alone (hub_0009_requests.sql) is not used for a parameter.
_ASKED: Final = f"SELECT pos, v FROM tag WHERE k={TAGS['request']} AND pos IN ({{}})"


def listed(chains: Chains, after: int, limit: int = STREAMS_MAX) -> tuple[list[StreamHeads], int | None]:
    """A page of all streams, in the order in which they came; and what to go on `after`, or None at the end."""
    sql = "SELECT id, stream FROM stream WHERE id>? ORDER BY id LIMIT ?"
    rows = chains.execute(sql, (after, limit + 1)).fetchall()
    page = rows[:limit]
    return _heads(chains, [row[1] for row in page]), page[-1][0] if len(rows) > limit else None


def changed(chains: Chains, after: int, last: int) -> list[StreamHeads]:
    """The streams that got records at the positions behind `after`, up to `last`."""
    sql = f"SELECT stream FROM stream WHERE id IN (SELECT stream FROM branch WHERE id IN ({_CHANGED})) ORDER BY id"
    return _heads(chains, [row[0] for row in chains.execute(sql, (after, last)).fetchall()])


def branches(chains: Chains, after: int, last: int) -> dict[bytes, list[int]]:
    """The branches that got records at the positions behind `after`, up to `last`, by their stream."""
    found: dict[bytes, list[int]] = {}
    sql, args = (f"{_CHANGED} ORDER BY branch", (after, last)) if after else ("SELECT id FROM branch ORDER BY id", ())
    for (branch,) in chains.execute(sql, args).fetchall():
        found.setdefault(chains.stream(branch), []).append(branch)
    return found


def _heads(chains: Chains, ids: Sequence[bytes]) -> list[StreamHeads]:
    facts = chains.streams(ids)
    found = []
    for stream in ids:
        one = facts[stream]
        labels = sorted(one.labels.values(), key=lambda label: (label.branch, label.head.seq))
        heads = [HeadAt(label.inc, label.head, _steps(one, label.branch, label.head.seq)) for label in labels]
        found.append(StreamHeads(stream, one.agent, one.public_key, heads))
    return found


def _steps(facts: StreamFacts, branch: int, seq: int) -> list[Mark]:
    bases = [run.base for run, _ in tree.runs(facts.branches, branch, seq)] or [Mark(0, genesis(facts.stream))]
    return bases if len(bases) <= STEPS_MAX else [*bases[: STEPS_MAX - 1], bases[-1]]


def stretch(
    chains: Chains,
    stream: bytes,
    inc: bytes,
    after: int,
    *,
    limit: int = RECORDS_MAX,
    bytes_max: int = SEGMENT_BYTES_MAX,
) -> Pulled:
    """Consecutive records of an incarnation's chain behind number `after`, up to a signed head; none at its end.

    About `limit` records and `bytes_max` bytes: as many more as it takes to the next signed head.

    Raises:
        NotFound: the hub does not know the incarnation, or its chain begins later.
    """
    facts = chains.streams([stream]).get(stream)
    label = facts.labels.get(inc) if facts else None
    if facts is None or label is None:
        raise NotFound(f"this hub has no incarnation {inc.hex()} of stream {stream.hex()}", hint="ask what it has")
    prev = chains.link(facts, (label.branch, label.head.seq), after)
    if prev is None:
        raise NotFound(f"this hub does not hold record {after} of that chain", hint="ask what it has")
    spans = tree.spans(facts, inc, after + 1)
    signed = {label.head.seq: label.signature}
    for span in spans:
        sql = "SELECT seq, signature FROM signed WHERE branch=? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
        for seq, signature in chains.execute(sql, (span.branch, span.first, span.last, 2 * RECORDS_MAX)).fetchall():
            signed.setdefault(seq, signature)
        tip = chains.execute("SELECT seq, signature FROM branch WHERE id=?", (span.branch,)).fetchone()
        if tip[1] and span.first <= tip[0] <= span.last:
            signed.setdefault(tip[0], tip[1])
    items: list[Item] = []
    written: dict[int, int] = {}
    end, count, size = Mark(after, prev), 0, 0
    for stored in chains.along(spans):
        record = stored.record
        items.append(stored.item())
        size += len(stored.body or b"")
        if record.author:  # a hub wrote it for somebody
            written[stored.pos] = record.seq
        if record.seq in signed:
            end, count = Mark(record.seq, record.link), len(items)
            if record.kind == ROTATE:
                break
        if count and (len(items) >= limit or size >= bytes_max):
            break
    return Pulled(
        stream,
        inc,
        after + 1,
        prev,
        items[:count],
        end.seq < label.head.seq,
        facts.public_key,
        signature=signed.get(end.seq, b""),
        head=end,
        requests=_requests(chains, {pos: seq for pos, seq in written.items() if seq <= end.seq}),
    )


def _requests(chains: Chains, written: Mapping[int, int]) -> list[tuple[int, str]]:
    """The ids of the requests that wrote these records (position: number), of those that had one."""
    found, places = [], list(written)
    for first in range(0, len(places), PLACES_MAX):
        lot = places[first : first + PLACES_MAX]
        rows = chains.execute(_ASKED.format(",".join("?" * len(lot))), lot).fetchall()
        found += [(written[pos], text) for pos, text in rows]
    return sorted(found)


def last(chains: Chains) -> int:
    """The newest position, as of the same moment as all that is asked of these chains."""
    return int(chains.execute("SELECT coalesce(max(pos), 0) FROM rec").fetchone()[0])
