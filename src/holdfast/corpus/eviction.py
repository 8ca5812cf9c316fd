"""Letting bodies of an agent's log go, and taking them back: the rows' side of it.

What may go is the caller's to know (`holdfast.node.evicting` asks the hubs); here is which of it goes first, and that
a row whose body went says so in the same transaction. Header, link, tags and the key's place stay, so the chain
proves itself, lists and histories are whole, and a body that comes back is held against the header's hash.

Bytes are counted in pages that hold something: what is freed is used again by the next writes, so a file never
becomes larger than what it once held at a time.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus import index
from holdfast.corpus.engine import PAGE_BYTES
from holdfast.corpus.rows import COLUMNS, INSERT_OWN
from holdfast.corpus.search import INDEXED, UNINDEXED
from holdfast.corpus.sqlite import SqliteCorpus
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import IntegrityError
from holdfast.records import BLOB, SEALED, TOMBSTONE, read_blob_reference
from holdfast.wire import EVICTED, HERE, Mark

LEAST_BYTES: Final = 64
"""A shorter body is not worth a question to a hub."""
SMALL_BYTES: Final = 4096
"""Current values up to here leave last."""
STEP: Final = 500
"""Rows looked at in one query: a long one would hold its snapshot, and the WAL could not begin anew."""
CANDIDATES_MAX: Final = 20_000
INDEX_LOT: Final = 200
_MINUTE_MS: Final = 60_000
_PIN: Final = "pin "
UNINDEX_LEAST: Final = 50
_LOOK: Final = (
    "SELECT r.pos, r.hlc >> 16, r.coll, r.key, r.flags, r.codec, length(r.body), iif(r.flags & 2, r.body, NULL),"
    " r.plen, coalesce((SELECT s.pos=r.pos AND s.gone=0 FROM state s"
    " WHERE s.agent=r.agent AND s.coll=r.coll AND s.key=r.key), 0)"
    " FROM rec r WHERE r.pos>? AND r.pos<=? AND r.body IS NOT NULL ORDER BY r.pos LIMIT ?"
)


_BARE: Final = (
    f"SELECT {COLUMNS.replace(', r.why, r.body', '')}, r.why, r.back FROM rec r"
    " WHERE r.pos=? AND r.pos<=? AND r.why=? AND r.body IS NOT NULL"
)


class Usage(msgspec.Struct, frozen=True):
    """What an agent's file takes, in bytes: `file` on the disk (or soon, from the WAL), `live` of it in use, `wal`."""

    file: int
    live: int
    wal: int


def usage(corpus: SqliteCorpus) -> Usage:
    """What an agent's file takes now; asks the disk twice and reads one page."""
    path = corpus.engine.path
    row = corpus.engine.one("SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count")
    pages, free = row
    return Usage(max(pages * PAGE_BYTES, _size(path)), (pages - free) * PAGE_BYTES, wal_bytes(corpus))


def wal_bytes(corpus: SqliteCorpus) -> int:
    """What its WAL takes on the disk."""
    return _size(Path(f"{corpus.engine.path}-wal"))


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


class Body(msgspec.Struct, frozen=True, gc=False):
    """A body that may go: where, of when, how large in the file and beside it, which blob, how useful."""

    pos: int
    ms: int
    inline: int
    blob: int
    digest: bytes
    rank: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Bytes with its blob."""
        return self.inline + self.blob


class Looked(msgspec.Struct):
    """What a look at all bodies found: those to go, and sums in bytes with each blob counted once.

    Attributes:
        first: bodies to go, least useful first.
        upto: records up to here were looked at.
        refs: how many live bodies refer to each blob.
        blobs: bytes of these blobs.
        spare: bytes that could go.
        held: bytes that could not, because a hub or its backups lack them.
        pinned: bytes that could, but are pinned.
    """

    first: list[Body] = []
    upto: int = 0
    refs: dict[bytes, int] = {}
    blobs: int = 0
    spare: int = 0
    held: int = 0
    pinned: int = 0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to go.

    Attributes:
        settled: nothing behind this number goes.
        kept: nor do these numbers: a hub has only their envelopes.
        inline, beside: bytes that are to become free in the file, and of blobs, whatever is old enough or not.
        before: a collection -> ms since 1970: what is older goes anyway; 0: nothing.
        keeps: whether current values of a collection leave last.
        now_ms: by the wall clock.
    """

    settled: int
    kept: Collection[int]
    inline: int
    beside: int
    before: Callable[[str], int]
    keeps: Callable[[str], bool]
    now_ms: int


def look(corpus: SqliteCorpus, wanted: Wanted) -> Looked:
    """Reads the place and length of every body here, and says which should go."""
    names: Mapping[int, str] = {row[0]: row[1] for row in corpus.query("SELECT id, s FROM name")}
    pins, found, head = pinned(corpus), Looked(), corpus.last()
    # What is not in the indexes yet has to be read for them first.
    settled = min(wanted.settled, corpus.meta(INDEXED) or 0, index.filled(corpus))
    inline, beside = _Choice(wanted.inline), _Choice(wanted.beside)
    old: list[Body] = []
    after = 0
    while rows := corpus.query(_LOOK, (after, head, STEP)):
        for row in rows:
            body, collection, key, flags = _body(row, names, wanted)
            if body.digest:
                found.blobs += 0 if body.digest in found.refs else body.blob
                found.refs[body.digest] = found.refs.get(body.digest, 0) + 1
            if body.pos > settled or body.pos in wanted.kept:
                found.held += body.size
                continue
            if not collection or flags & TOMBSTONE or body.size < LEAST_BYTES:
                continue  # what the log itself needs, and what frees nothing
            if flags & SEALED and body.rank[0]:
                continue  # its key is in it: a list of a sealed collection's keys opens it
            if (collection, key) in pins and body.rank[0]:
                found.pinned += body.size
                continue
            found.spare += body.size
            if body.ms < wanted.before(collection):
                old.append(body)
                continue
            if body.digest:
                beside.add(body, body.blob)
            else:
                inline.add(body, body.inline)
        after = rows[-1][0]
    found.upto = head
    inline.less(sum(each.inline for each in old))
    beside.less(sum(each.blob for each in old))
    found.first = sorted([*old, *inline.bodies(), *beside.bodies()], key=lambda each: (each.rank, each.pos))
    return found


class _Choice:
    """The least useful bodies, as many as free so many bytes."""

    def __init__(self, need: int) -> None:
        self._need, self._total = need, 0
        self._heap: list[tuple[tuple[int, ...], int, int, Body]] = []

    def add(self, body: Body, size: int) -> None:
        """Considers one: the most useful of those chosen makes place if the others are enough."""
        heapq.heappush(self._heap, (tuple(-part for part in body.rank), -body.pos, size, body))
        self._total += size
        self._trim()

    def less(self, size: int) -> None:
        """So much is free already."""
        self._need -= size
        self._trim()

    def bodies(self) -> Iterator[Body]:
        """Those chosen, in no order."""
        return (each[3] for each in self._heap)

    def _trim(self) -> None:
        heap = self._heap
        while heap and (self._total - heap[0][2] >= self._need or len(heap) > CANDIDATES_MAX):
            self._total -= heapq.heappop(heap)[2]


def _body(row: Any, names: Mapping[int, str], wanted: Wanted) -> tuple[Body, str, str, int]:
    pos, ms, coll, key, flags, packing, size, reference, plen, current = row
    collection = names.get(coll, "")
    digest, blob = b"", 0
    if flags & BLOB and reference is not None:
        digest, blob = read_blob_reference(codec.unpack(packing, reference, plen))
    # Doubling stretches of age: what is of about the same age goes by size, so that little leaves for much room.
    age = max(0, (wanted.now_ms - ms) // _MINUTE_MS).bit_length()
    if not current:
        use = 0
    elif coll == 1:
        use = 1
    else:
        use = 2 + (size + blob <= SMALL_BYTES) * 2 + wanted.keeps(collection)
    return Body(pos, ms, size, blob, digest, (use, -age, -size - blob)), collection, key, flags


def evict(corpus: SqliteCorpus, mark: Mark, bodies: Sequence[Body]) -> int:
    """Lets these bodies go, in one transaction; how many were here.

    Args:
        corpus: the agent's.
        mark: up to where everything is settled: nothing goes if the log has another record there by now.
        bodies: as `look` found them.
    """

    def job(tx: SqlTransaction) -> int:
        rows = tx.sql("SELECT link FROM rec WHERE pos=?", (mark.seq,)).fetchall()
        if not rows or bytes(rows[0][0]) != mark.link:
            return 0
        found = [(each.pos, mark.seq, HERE) for each in bodies]
        bare = [row for at in found for row in tx.sql(_BARE, at)]
        # Taken out and put in again: a row that only becomes shorter leaves its page nearly empty, for ever.
        for row in bare:
            tx.sql("DELETE FROM rec WHERE pos=?", row[:1])
        for row in bare:
            tx.sql(INSERT_OWN, (*row[:-2], EVICTED, None, row[-1]))
        return len(bare)

    return corpus.write(job)


def take_back(corpus: SqliteCorpus, pos: int, link: bytes, packing: int, body: bytes) -> bool:
    """Keeps a body again that was proven to be this record's; False if it was erased, or is here, meanwhile."""

    def job(tx: SqlTransaction) -> bool:
        sql = "UPDATE rec SET body=?, codec=?, why=? WHERE pos=? AND link=? AND why=? AND body IS NULL RETURNING 1"
        # Words that left with it stay away: the budget that they left for has no room for them (`Snapshot.unindexed`).
        return bool(tx.sql(sql, (body, packing, HERE, pos, link, EVICTED)).fetchall())

    return corpus.write(job)


def lots(bodies: Sequence[Body], most: int) -> Iterator[list[Body]]:
    """The bodies in their order, in lots of about so many bytes in the file and at most 100 rows."""
    lot: list[Body] = []
    size = 0
    for each in bodies:
        lot.append(each)
        size += each.inline
        if size >= most or len(lot) >= 100:
            yield lot
            lot, size = [], 0
    if lot:
        yield lot


def referred(query: Callable[..., list[Any]], digests: Sequence[bytes], after: int) -> set[bytes]:
    """Those of these blobs to which a body that is here refers, behind a position.

    Args:
        query: runs a statement.
        digests: at most some hundreds.
        after: a position; 0: all of the log.
    """
    if not digests:
        return set()
    marks = ",".join("?" * len(digests))
    sql = (
        "SELECT DISTINCT substr(body, 1, 32) FROM rec WHERE pos>? AND flags & ? AND body IS NOT NULL"
        f" AND substr(body, 1, 32) IN ({marks})"
    )
    return {bytes(row[0]) for row in query(sql, (after, BLOB, *digests))}


def blob_bytes(corpus: SqliteCorpus, after: int) -> tuple[int, int]:
    """Bytes of the blobs that bodies behind a position refer to, and up to which position that was looked."""
    head = corpus.last()
    sql = "SELECT codec, body, plen FROM rec WHERE pos>? AND pos<=? AND flags & ? AND body IS NOT NULL"
    size = 0
    for packing, body, plen in corpus.query(sql, (after, head, BLOB)):
        size += read_blob_reference(codec.unpack(packing, body, plen))[1]
    return size, head


# -- the search index -------------------------------------------------------------------------------------------


def index_bytes(corpus: SqliteCorpus) -> int:
    """About how many bytes the search index takes."""
    return int(corpus.one("SELECT coalesce(sum(length(block)), 0) FROM fts_data")[0])


def unindex(corpus: SqliteCorpus, share: float = 0.5, pages: int = 100) -> int:
    """Takes the words of the oldest part of all bodies that went out of the index; how many records' words.

    They are found through the hub from then on. What the index frees is used again by what comes.

    Args:
        corpus: the agent's.
        share: of the bodies whose words are still there, about so many.
        pages: about so many are written in one transaction.
    """
    mark = corpus.meta(UNINDEXED) or 0
    sql = "SELECT count(*) FROM rec WHERE pos>? AND why=?"
    many = int(corpus.one(sql, (mark, EVICTED))[0] * share)
    if many < UNINDEX_LEAST:
        return 0  # the merge would cost more than their words take
    done = 0
    while done < many:
        sql = "SELECT pos FROM rec WHERE pos>? AND why=? ORDER BY pos LIMIT ?"
        # FTS5 counts each row that goes as a page that came, and merges so many pages on every level of the index at
        # once: 400 rows of a log of 50 MB wrote 10 MB in one transaction.
        rows = corpus.query(sql, (mark, EVICTED, min(max(8, pages // 8), INDEX_LOT, many - done)))
        if not rows:
            break
        mark = rows[-1][0]

        def job(tx: SqlTransaction, rows: Sequence[Any] = rows, mark: int = mark) -> None:
            for (pos,) in rows:
                tx.unindex(pos)
            tx.set_meta(UNINDEXED, mark)

        corpus.write(job)
        corpus.engine.checkpoint()
        done += len(rows)
    if done:
        corpus.merge_index(pages)
    return done


# -- pins -------------------------------------------------------------------------------------------------------


def pin(corpus: SqliteCorpus, collection: str, key: str, on: bool) -> None:
    """Has the current value of a key stay here, or no longer."""
    name = f"{_PIN}{collection}\n{key}"

    def job(tx: SqlTransaction) -> None:
        tx.sql("DELETE FROM meta WHERE k=?", (name,))
        if on:
            tx.set_meta(name, 1)

    corpus.write(job)


def pinned(corpus: SqliteCorpus) -> set[tuple[str, str]]:
    """Every (collection, key) that is pinned."""
    rows = corpus.query("SELECT k FROM meta WHERE k>=? AND k<?", (_PIN, f"{_PIN[:-1]}!"))
    out = set()
    for (name,) in rows:
        collection, line, key = name.removeprefix(_PIN).partition("\n")
        if not line:
            raise IntegrityError(f"a pin is damaged: {name!r:.80}", hint="holdfast verify")
        out.add((collection, key))
    return out
