"""What the storage service asks of a hub's corpus: sessions by what they are, metrics and their sums, hidden records.

The tables `session` and `sample` are derived (`holdfast.corpus.tags`); whether a record still counts, `state` says.
Everything here is SQL that SQLite and PostgreSQL both understand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast.corpus.rows import COLUMNS, Stored, within
from holdfast.corpus.sql import TAGS, SqlCorpus
from holdfast.corpus.tags import mark
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import UsageError

SAMPLES_MAX: Final = 1_000_000
"""So many samples one question may add up."""
GROUPS_MAX: Final = 1_000
ACCESSED_LOT: Final = 200
COLUMNS_OF: Final = {
    "entity_type": "s.entity_type",
    "entity_name": "s.entity",
    "metric_name": "s.metric",
    "session_id": "s.session",
}
_STATE: Final = "SELECT st.pos FROM state st WHERE st.agent=r.agent AND st.coll=r.coll AND st.key=r.key AND"
_LIVE: Final = f"r.pos=({_STATE} st.gone=0)"
_GONE: Final = f"r.pos=({_STATE} st.gone<>0)"
# An id is whose record carried it first: another agent's record under the same id is not that session.
_FIRST: Final = (
    "r.agent=(SELECT f.agent FROM rec f WHERE f.pos=(SELECT min(t.pos) FROM tag t WHERE t.k=? AND t.v=s.id))"
    " AND r.agent=(SELECT n.id FROM name n WHERE n.s=s.agent)"
)


class SessionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions a page holds; `after` is the (created_ms, id) of the last one of the page before.

    `since` and `until` are ms since 1970, of when they were created: since ≤ created < until.
    """

    agent: str | None = None
    user_id: str | None = None
    status: str | None = None
    since: int | None = None
    until: int | None = None
    deleted: bool = False
    after: tuple[int, str] | None = None
    newest_first: bool = True
    offset: int = 0
    limit: int = 100


def sessions(corpus: SqlCorpus, which: SessionFilter) -> list[tuple[int, Stored]]:
    """Sessions by when they were created, each with that time in ms."""
    tests = [_GONE if which.deleted else _LIVE, _FIRST]
    args: list[Any] = [TAGS["ref"]]
    wanted: list[tuple[str, Any]] = [
        ("s.agent=?", which.agent),
        ("s.user_id=?", which.user_id),
        ("s.status=?", which.status),
        ("s.created_ms>=?", which.since),
        ("s.created_ms<?", which.until),
    ]
    for test, value in wanted:
        if value is not None:
            tests.append(test)
            args.append(value)
    sign, order = ("<", "DESC") if which.newest_first else (">", "ASC")
    if which.after is not None:
        tests.append(f"(s.created_ms, s.id){sign}(?,?)")
        args += which.after
    sql = (
        f"SELECT s.created_ms, {COLUMNS} FROM session s CROSS JOIN rec r ON r.pos=s.pos WHERE {' AND '.join(tests)}"
        f" ORDER BY s.created_ms {order}, s.id {order} LIMIT ? OFFSET ?"
    )
    return [(row[0], corpus.stored(row[1:])) for row in corpus.query(sql, (*args, which.limit, which.offset))]


def by_ref(corpus: SqlCorpus, ref: str) -> Stored | None:
    """The first record that carried the id of a session or an artifact; None if there never was one."""
    return corpus.find_tag("ref", ref)


def any_newest(corpus: SqlCorpus, agent: str, collection: str, key: str) -> tuple[Stored, Stored | None] | None:
    """A key's newest version and, if it is hidden, the tombstone that hides it; None if it never had one."""
    sql = (
        "SELECT st.pos, st.gone FROM state st WHERE st.agent=(SELECT id FROM name WHERE s=?)"
        " AND st.coll=(SELECT id FROM name WHERE s=?) AND st.key=?"
    )
    row = corpus.one(sql, (agent, collection, key))
    found = corpus.at(row[0]) if row else None
    return (found, corpus.at(row[1]) if row[1] else None) if found is not None else None


def hidden(corpus: SqlCorpus, tombstone: Stored) -> list[int]:
    """The positions of all values that one deletion hides and nothing else does, oldest first."""
    record = tombstone.record
    test, bounds = within("st.key", record.key)
    sql = (
        "SELECT st.pos FROM state st WHERE st.agent=(SELECT id FROM name WHERE s=?)"
        f" AND st.coll=(SELECT id FROM name WHERE s=?) AND {test} AND st.gone=? ORDER BY st.pos"
    )
    args = (tombstone.agent, record.collection, *bounds, tombstone.pos)
    return [row[0] for row in corpus.query(sql, args) if row[0] != tombstone.pos]


def those(corpus: SqlCorpus, positions: Sequence[int]) -> Generator[Stored, None, None]:
    """The records at these positions, oldest first, fetched as they are asked for; to be closed by who stops early."""
    marks = ",".join("?" * len(positions))
    return corpus.read(f"SELECT {COLUMNS} FROM rec r WHERE r.pos IN ({marks}) ORDER BY r.pos", positions)


def cleared(corpus: SqlCorpus, agent: str, collection: str, prefix: str) -> Stored | None:
    """The newest deletion of exactly this prefix."""
    sql = (
        "SELECT max(pos) FROM scope WHERE agent=(SELECT id FROM name WHERE s=?)"
        " AND coll=(SELECT id FROM name WHERE s=?) AND prefix=?"
    )
    row = corpus.one(sql, (agent, collection, prefix))
    return corpus.at(row[0]) if row and row[0] is not None else None


def count_under(tx: SqlTransaction, agent: str, collection: str, prefix: str) -> int:
    """How many keys that begin with a prefix have a value, as of now in this transaction."""
    test, bounds = within("key", prefix)
    sql = f"SELECT count(*) FROM state WHERE agent=? AND coll=? AND {test} AND gone=0"
    return int(tx.sql(sql, (tx.name(agent), tx.name(collection), *bounds)).fetchone()[0])


# -- metrics ----------------------------------------------------------------------------------------------------


class SampleFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which samples count; `after` is the (at_ms, pos) of the last one of the page before.

    `since` and `until` are ms since 1970: since ≤ time < until. `labels` are ``name=text``, all of them.
    """

    entity_type: str | None = None
    entity_name: str | None = None
    metric_name: str | None = None
    session_id: str | None = None
    since: int | None = None
    until: int | None = None
    labels: tuple[str, ...] = ()
    after: tuple[int, int] | None = None
    newest_first: bool = True
    offset: int = 0
    limit: int = 100


class Sums(msgspec.Struct, frozen=True):
    """What one group of samples adds up to; `low` and `high` are the values on both sides of each percentile."""

    by: tuple[str | None, ...]
    bucket_ms: int | None
    count: int
    sum: float
    min: float
    max: float
    avg: float
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


def samples(corpus: SqlCorpus, which: SampleFilter) -> list[tuple[int, Stored]]:
    """Metrics by their time, each with it in ms."""
    where, args = _where(corpus, which)
    sign, order = ("<", "DESC") if which.newest_first else (">", "ASC")
    if which.after is not None:
        where += f" AND (s.at_ms, s.pos){sign}(?,?)"
        args += which.after
    sql = (
        f"SELECT s.at_ms, {COLUMNS} FROM sample s CROSS JOIN rec r ON r.pos=s.pos WHERE {where}"
        f" ORDER BY s.at_ms {order}, s.pos {order} LIMIT ? OFFSET ?"
    )
    return [(row[0], corpus.stored(row[1:])) for row in corpus.query(sql, (*args, which.limit, which.offset))]


def sums(
    corpus: SqlCorpus,
    which: SampleFilter,
    *,
    by: Sequence[str] = (),
    bucket_ms: int | None = None,
    fractions: Sequence[float] = (),
) -> list[Sums]:
    """What samples add up to, by groups and by stretches of time, in the order of both; at most `GROUPS_MAX` + 1.

    Args:
        corpus: where they lie.
        which: which of them count.
        by: fields of `COLUMNS_OF`, or ``label:<name>`` (samples without that label do not count).
        bucket_ms: the length of a stretch of time; None for all of it.
        fractions: percentiles as parts of one.

    Raises:
        UsageError: more than `SAMPLES_MAX` samples.
    """
    where, args = _where(corpus, which)
    tables, names, front = "sample s", [], []
    for number, name in enumerate(by):
        if name in COLUMNS_OF:
            names.append(COLUMNS_OF[name])
            continue
        sign = f"{name.removeprefix('label:')}="
        test, bounds = within(f"g{number}.v", sign)
        tables += f" JOIN tag g{number} ON g{number}.pos=s.pos AND g{number}.k=? AND {test}"
        front += [TAGS["label"], *bounds]
        names.append(f"substr(g{number}.v, {len(sign) + 1})")
    if bucket_ms is not None:
        names.append(f"s.at_ms - s.at_ms % {int(bucket_ms)}")
    groups = [f"g{number}" for number in range(len(names))]
    chosen = "".join(f"{name} AS {alias}, " for name, alias in zip(names, groups, strict=True))
    inner = f"SELECT {chosen}s.value AS value FROM {tables} WHERE {where} LIMIT {SAMPLES_MAX + 1}"
    over = f"PARTITION BY {', '.join(groups)} " if groups else ""
    ranks, tail = "", []
    if fractions:
        alone = f"({over.rstrip()})"
        numbered = f"row_number() OVER ({over}ORDER BY value) - 1 AS i, count(*) OVER {alone} AS n"
        inner = f"SELECT v.*, {numbered} FROM ({inner}) v"
        for fraction in fractions:
            ranks += (
                ", max(CASE WHEN i=floor(?*(n-1)) THEN value END), max(CASE WHEN i=floor(?*(n-1))+1 THEN value END)"
            )
            tail += [fraction, fraction]
    keys = "".join(f"{each}, " for each in groups)
    sql = f"SELECT {keys}count(*), sum(value), min(value), max(value){ranks} FROM ({inner}) w"
    if groups:
        sql += f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}"
    rows = corpus.query(f"{sql} LIMIT {GROUPS_MAX + 1}", (*tail, *front, *args))
    found = [_sums(row, len(by), bucket_ms is not None) for row in rows if row[len(names)]]
    if sum(each.count for each in found) > SAMPLES_MAX:
        raise UsageError(f"more than {SAMPLES_MAX} samples", hint="narrow it: since=, until=, metric_name=")
    return found


def _sums(row: Sequence[Any], width: int, bucketed: bool) -> Sums:
    at = width + bucketed
    sides = row[at + 4 :]
    count, total, least, most = row[at : at + 4]
    if math.isinf(total):  # PostgreSQL says so by itself
        raise UsageError("the samples add up to more than a number can say", hint="narrow it: since=, until=")
    bucket = row[width] if bucketed else None
    # Not avg(): PostgreSQL's squares each value on the way, and fails where that is too large.
    mean = total / count
    return Sums(tuple(row[:width]), bucket, count, total, least, most, mean, tuple(sides[::2]), tuple(sides[1::2]))


def _where(corpus: SqlCorpus, which: SampleFilter) -> tuple[str, list[Any]]:
    tests, args = ["s.pos>0"], list[Any]()
    wanted = [
        ("s.entity_type=?", which.entity_type),
        ("s.entity=?", which.entity_name),
        ("s.metric=?", which.metric_name),
        ("s.session=?", which.session_id),
        ("s.at_ms>=?", which.since),
        ("s.at_ms<?", which.until),
    ]
    for test, value in wanted:
        if value is not None:
            tests.append(test)
            args.append(value)
    for label in which.labels:
        tests.append("s.pos IN (SELECT pos FROM tag WHERE k=? AND v=?)")
        args += [TAGS["label"], label]
    if corpus.one("SELECT 1 FROM tag WHERE k=? AND v=? LIMIT 1", (TAGS["touched"], "metrics")):
        # Only then can a sample be replaced or deleted; to look each of them up would cost most of the time.
        tests.append(f"EXISTS (SELECT 1 FROM rec r WHERE r.pos=s.pos AND {_LIVE})")
    return " AND ".join(tests), args


# -- making it again --------------------------------------------------------------------------------------------


def rebuild(corpus: SqlCorpus, tags_of: Callable[[Stored], Sequence[tuple[int, str]]], *, lot: int = 500) -> int:
    """Makes the tags and rows of sessions and metrics again from their records; returns how many records it read.

    Args:
        corpus: the hub's; records may be added meanwhile.
        tags_of: gives a record's tags.
        lot: records a transaction.
    """
    count = 0
    for stored in _lots(corpus, ("sessions", "metrics"), lot):
        made = [(each.pos, tags_of(each)) for each in stored]

        def job(tx: SqlTransaction, made: list[tuple[int, Sequence[tuple[int, str]]]] = made) -> None:
            for pos, tags in made:
                for number, value in tags:
                    tx.sql(*mark(pos, number, value))

        corpus.write(job)
        count += len(stored)
    return count


def _lots(corpus: SqlCorpus, collections: Sequence[str], lot: int) -> Iterator[list[Stored]]:
    marks, after = ",".join("?" * len(collections)), 0
    sql = (
        f"SELECT {COLUMNS} FROM rec r WHERE r.coll IN (SELECT id FROM name WHERE s IN ({marks})) AND r.pos>?"
        " ORDER BY r.pos LIMIT ?"
    )
    while found := corpus.rows(sql, (*collections, after, lot)):
        yield found
        after = found[-1].pos


# -- the cache --------------------------------------------------------------------------------------------------


class Entry(msgspec.Struct):
    """One value of the cache: `value` is JSON, times are ms since 1970, `ttl` in seconds; None: for ever."""

    key: str
    value: bytes
    ttl: int | None
    created_ms: int
    expires_ms: int | None
    accessed_ms: int


def cache_get(corpus: SqlCorpus, key: str) -> Entry | None:
    """The entry of a key, expired or not."""
    sql = "SELECT key, value, ttl, created_ms, expires_ms, accessed_ms FROM cache WHERE key=?"
    row = corpus.one(sql, (key,))
    return Entry(*row) if row else None


def cache_put(tx: SqlTransaction, entry: Entry) -> None:
    """Sets a key."""
    tx.sql(
        "INSERT INTO cache(key, value, ttl, created_ms, expires_ms, accessed_ms) VALUES(?,?,?,?,?,?)"
        " ON CONFLICT(key) DO UPDATE SET value=excluded.value, ttl=excluded.ttl, created_ms=excluded.created_ms,"
        " expires_ms=excluded.expires_ms, accessed_ms=excluded.accessed_ms",
        msgspec.structs.astuple(entry),
    )


def cache_delete(tx: SqlTransaction, key: str) -> bool:
    """Takes a key away; False if there was none."""
    return bool(tx.sql("DELETE FROM cache WHERE key=? RETURNING 1", (key,)).fetchall())


def cache_expire(tx: SqlTransaction, now_ms: int, *, limit: int, key: str | None = None) -> int:
    """Takes away what has expired, at most so many of them; returns how many."""
    only = "" if key is None else " AND key=?"
    sql = (
        f"DELETE FROM cache WHERE key IN (SELECT key FROM cache WHERE expires_ms<=?{only} ORDER BY expires_ms LIMIT ?)"
        " RETURNING 1"
    )
    return len(tx.sql(sql, (now_ms, *(() if key is None else (key,)), limit)).fetchall())


def cache_accessed(tx: SqlTransaction, times: Sequence[tuple[int, str]]) -> None:
    """Notes when keys were last read: (ms, key)."""
    for first in range(0, len(times), ACCESSED_LOT):
        lot = times[first : first + ACCESSED_LOT]
        told = " UNION ALL ".join(["SELECT ? AS ms, ? AS key", *["SELECT ?, ?"] * (len(lot) - 1)])
        sql = f"UPDATE cache SET accessed_ms=v.ms FROM ({told}) v WHERE cache.key=v.key AND cache.accessed_ms<v.ms"
        tx.sql(sql, [value for each in lot for value in each])
