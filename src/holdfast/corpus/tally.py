"""How much each agent has written into each collection, counted from the records in lots: for people who look.

Nothing is kept for it: whoever wants a sum counts once, remembers, and goes on from the position where he stood.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.corpus.rows import within
from holdfast.corpus.sql import SqlCorpus

HOUR_MS: Final = 3_600_000
_LOT: Final = (
    f"SELECT agent, coll, branch, (hlc>>16)/{HOUR_MS} AS hour, count(*) AS many, sum(plen) AS size, max(hlc) AS newest"
    " FROM rec WHERE pos>? AND pos<=? GROUP BY agent, coll, branch, (hlc>>16)/" + str(HOUR_MS)
)


class Sum(msgspec.Struct, frozen=True, gc=False):
    """What one branch wrote into one collection within one hour: `size` in bytes of values before compression, without
    blobs; `newest` the stamp of its last record.
    """

    agent: str
    collection: str
    branch: int
    hour: int
    records: int
    size: int
    newest: int


def tally(corpus: SqlCorpus, after: int, until: int) -> list[Sum]:
    """The records behind one position up to another, summed."""
    sql = (
        "SELECT a.s, c.s, f.branch, f.hour, f.many, f.size, f.newest"
        f" FROM ({_LOT}) f JOIN name a ON a.id=f.agent JOIN name c ON c.id=f.coll"
    )
    rows = corpus.query(sql, (after, until))
    return [Sum(a, c, branch, hour, many, int(size), newest) for a, c, branch, hour, many, size, newest in rows]


def live_keys(corpus: SqlCorpus, agent: str, collection: str, most: int) -> int:
    """How many keys of a collection have a value, counted up to `most`."""
    sql = (
        "SELECT count(*) FROM (SELECT 1 FROM state WHERE agent=(SELECT id FROM name WHERE s=?)"
        " AND coll=(SELECT id FROM name WHERE s=?) AND gone=0 LIMIT ?) f"
    )
    return int(corpus.one(sql, (agent, collection, most))[0])


def keys_within(corpus: SqlCorpus, agent: str, collection: str, prefix: str, most: int) -> int:
    """How many keys that begin with a prefix have a value, counted up to `most`."""
    span, ends = within("key", prefix)
    sql = (
        "SELECT count(*) FROM (SELECT 1 FROM state WHERE agent=(SELECT id FROM name WHERE s=?)"
        f" AND coll=(SELECT id FROM name WHERE s=?) AND {span} AND gone=0 LIMIT ?) f"
    )
    return int(corpus.one(sql, (agent, collection, *ends, most))[0])


def names(
    corpus: SqlCorpus, agent: str, collection: str, span: tuple[str, str], most: int, *, gone: bool = False
) -> list[str]:
    """The keys that begin with a prefix, in order, behind another key; without their values.

    Args:
        corpus: where they are.
        agent, collection: whose, and where.
        span: the prefix, and the key that they come behind; empty: from the start.
        most: how many.
        gone: those too that had a value, and have none now.
    """
    test, ends = within("key", span[0])
    if span[1]:
        test, ends = f"{test} AND key>?", (*ends, span[1])
    live = "" if gone else " AND gone=0"
    sql = (
        "SELECT key FROM state WHERE agent=(SELECT id FROM name WHERE s=?)"
        f" AND coll=(SELECT id FROM name WHERE s=?) AND {test}{live} ORDER BY key LIMIT ?"
    )
    return [row[0] for row in corpus.query(sql, (agent, collection, *ends, most))]


def began(corpus: SqlCorpus, collection: str) -> int:
    """The stamp of the first record that is here of a collection; 0 if there is none."""
    row = corpus.one(
        "SELECT hlc FROM rec WHERE coll=(SELECT id FROM name WHERE s=?) ORDER BY pos LIMIT 1", (collection,)
    )
    return int(row[0]) if row else 0
