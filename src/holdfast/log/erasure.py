"""Erasing payloads for good: a signed redact record names them, and wins over them in any order of arrival.

A redact record (kind ``redact``, no collection, no key, no flags; docs/record-v1.md) lies in the stream whose records
it erases, so nobody but that stream's agent can make one; it is signed as every record is, by the head above it. It
names what it erases by the names of the data keys (`kids`) that sealed them, or by number and link. The records stay,
without body and salt and with ``why`` 3, and the chain still proves itself: it covers payloads only through hashes.

**For whoever puts old data back (backups, restores).** A restored file holds what was erased since. So:

* `erasures(corpus)` is the list of all erasures in a corpus. A backup's manifest carries it, in `to_wire` form (JSON
  values; it grows by one entry of about 200 bytes for an erased subject, and holds no name of anybody).
* `reapply(corpus, blobs, erasures)` erases again, in a corpus that was just put back, whatever a list names, whether or
  not the redact record itself was put back with it; several lists may be joined. To be called before the restored file
  is shown to anybody, and before it is verified: the scan says of each such record that it was redacted. It may be
  called again at any time; what is erased already costs one look.
* `redacted(erasures, record)` says of one record whether its body must not be written at all, for a restore that
  rebuilds rows from segments. Such a row is written with ``body=None``, ``salt=b""``, ``codec=0``, ``why=3``.
* Segments and blobs that hold erased bodies expire with their backups; those of sealed collections are noise at once,
  since the key is gone. keys.db is in no data backup.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

import msgspec

from holdfast import codec, wire
from holdfast.corpus import SqlCorpus, Stored, index
from holdfast.corpus.rows import COLUMNS
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import HoldfastError, UsageError
from holdfast.log.drafts import MESSAGES, Draft
from holdfast.log.log import Log
from holdfast.log.marks import METRICS, SESSIONS
from holdfast.objects import BlobFiles
from holdfast.objects.blobs import aside
from holdfast.records import BLOB, MORE, REDACT, SEALED, ZERO16, Record

REDACTS: Final = (
    f"SELECT {COLUMNS} FROM rec r WHERE r.coll=(SELECT id FROM name WHERE s='')"
    " AND r.kind=(SELECT id FROM name WHERE s=?) AND r.pos>? ORDER BY r.pos"
)
"""The redact records of a corpus behind a position; what is in no collection is little."""
NAMED_MAX: Final = 400
"""Links in one redact record: it stays well below the inline limit."""
LOT: Final = 200
"""Names that one statement asks for."""
PENDING: Final = "erasing"
"""In `meta`: what `scour` has yet to remove, written in the transaction that took the bodies away."""
REAPPLIED: Final = "reapplied"
"""In `meta`: the erasures that were applied again after a restore."""
_REFERENCE_BYTES: Final = 40


class Erasure(msgspec.Struct, frozen=True):
    """What one redact record erases: records of one stream, by the keys that sealed them or by their links.

    Attributes:
        stream: the 16-byte stream.
        kids: names of data keys, 16 bytes each.
        marks: records by number and link, 8 and 32 bytes each.
        reason: what was said for it; never who it was about.
    """

    stream: bytes
    kids: frozenset[bytes] = frozenset()
    marks: frozenset[bytes] = frozenset()
    reason: str = ""

    def names(self, record: Record) -> bool:
        """Whether it erases this record."""
        return record.stream == self.stream and (record.kid in self.kids or mark_of(record) in self.marks)

    def to_wire(self) -> dict[str, Any]:
        """JSON values, for a manifest."""
        return {
            "stream": self.stream.hex(),
            "kids": sorted(kid.hex() for kid in self.kids),
            "records": sorted(mark.hex() for mark in self.marks),
            "reason": self.reason,
        }

    @classmethod
    def from_wire(cls, told: Any) -> Erasure:
        """The inverse of `to_wire`.

        Raises:
            UsageError: it is none.
        """
        try:
            found = msgspec.convert(told, _Told)
            return _read(bytes.fromhex(found.stream), found)
        except (msgspec.ValidationError, ValueError) as error:
            raise UsageError(f"this names no erasure: {error}") from error


class _Told(msgspec.Struct):
    kids: list[str] = []
    records: list[str] = []
    reason: str = ""
    stream: str = ""


class Blobs(Protocol):
    """Where blobs are removed from."""

    def delete(self, digest: bytes) -> bool:
        """Removes a blob; False if there was none."""
        ...


class Gone(msgspec.Struct):
    """What an erasure took away: how many bodies, how many of them may stand in the search index, and their blobs.

    `blobs` are digests -> whether the blob was sealed, and so can be nobody else's.
    """

    records: int = 0
    indexed: int = 0
    blobs: dict[bytes, bool] = msgspec.field(default_factory=dict)

    def add(self, other: Gone) -> None:
        """Counts in what another one took away."""
        self.records += other.records
        self.indexed += other.indexed
        for digest, was_sealed in other.blobs.items():
            self.blobs[digest] = self.blobs.get(digest, True) and was_sealed

    def note_blob(self, flags: int, packing: int, body: bytes | None) -> None:
        """Remembers the blob that a body refers to, if it does."""
        if flags & BLOB and body is not None and packing == codec.RAW and len(body) == _REFERENCE_BYTES:
            self.blobs[bytes(body[:32])] = bool(flags & SEALED)


# -- what a redact record says --------------------------------------------------------------------------------------


def mark_of(record: Record) -> bytes:
    """What a redact record calls one record: its number and its link."""
    return record.seq.to_bytes(8, "big") + record.link


def drafts_of(kids: Iterable[bytes], marks: Sequence[bytes], reason: str = "") -> list[Draft]:
    """Redact records for the stream that they are appended to: as many as the names need."""
    said = [{"kids": [kid.hex() for kid in sorted(kids)], "records": []}] if kids else []
    for first in range(0, len(marks), NAMED_MAX):
        said.append({"kids": [], "records": [mark.hex() for mark in marks[first : first + NAMED_MAX]]})
    return [Draft(REDACT, "", "", *codec.serialise(each | {"reason": reason}), flags=0) for each in said]


def is_redact(record: Record) -> bool:
    """Whether this is a redact record, and not somebody's value of that kind."""
    return record.kind == REDACT and not record.collection and not record.flags & ~MORE


def erasure_of(record: Record, payload: bytes) -> Erasure:
    """What a redact record erases.

    Raises:
        UsageError: its payload says nothing that this version knows.
    """
    try:
        return _read(record.stream, msgspec.json.decode(payload, type=_Told))
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"the redact record at seq {record.seq} cannot be read: {error}", seq=record.seq) from error


def _read(stream: bytes, told: _Told) -> Erasure:
    kids, marks = (frozenset(map(bytes.fromhex, names)) for names in (told.kids, told.records))
    if any(len(kid) != 16 or kid == ZERO16 for kid in kids) or any(len(mark) != 40 for mark in marks):
        raise ValueError("a kid has 16 bytes, not all of them zero, and a record is named by 40")
    return Erasure(stream, kids, marks, told.reason)


def kept_erasures(kept: bytes | None) -> list[Erasure]:
    """The erasures that `reapply` left in a corpus's meta values under `REAPPLIED`."""
    return [Erasure.from_wire(each) for each in msgspec.msgpack.decode(kept)] if kept else []


def erasure_in(stored: Stored) -> Erasure | None:
    """What a stored record erases: None if it is no redact record, or if its payload is not here or says nothing.

    Such a record was taken like any other, since a hub judges no payloads: it must not stop whoever reads it again.
    """
    if not is_redact(stored.record) or stored.body is None:
        return None
    try:
        return erasure_of(stored.record, stored.payload())
    except HoldfastError as error:
        import logging  # only here: it would cost every command 5 ms

        logging.getLogger(__name__).warning("a redact record erases nothing: %s", error)
        return None


def erasures(corpus: SqlCorpus, after: int = 0) -> list[Erasure]:
    """Every erasure that a corpus holds, oldest first; see `erasure_in`.

    Args:
        corpus: a node's log, or a hub's corpus.
        after: only those behind this position.
    """
    found = (erasure_in(each) for each in corpus.rows(REDACTS, (REDACT, after)))
    return [each for each in found if each is not None]


def redacted(known: Iterable[Erasure], record: Record) -> bool:
    """Whether any of these erasures names a record."""
    return any(each.names(record) for each in known)


# -- doing it ---------------------------------------------------------------------------------------------------------


def blank(tx: SqlTransaction, known: Sequence[Erasure]) -> Gone:
    """Takes away, inside the open transaction, every body and salt that these erasures name and that is still here.

    What was derived from them goes with them: rows of the indexes, tags that quote them, sessions and samples.
    What is left to remove behind the commit is noted for `scour`, which a crash thus cannot part from it.
    """
    gone = Gone()
    for each in known:
        for sql, args in _wanted(each):
            rows = tx.sql(sql, args).fetchall()
            if rows:
                gone.add(_take(tx, rows))
    if gone.records:
        note_pending(tx, gone)
    return gone


def note_pending(tx: SqlTransaction, gone: Gone) -> None:
    """Leaves something for `scour` to remove once the transaction is committed."""
    have = _pending(tx.meta(PENDING))
    have.add(gone)
    tx.set_meta(PENDING, msgspec.msgpack.encode(have))


def _pending(kept: Any) -> Gone:
    return msgspec.msgpack.decode(kept, type=Gone) if kept else Gone()


def _wanted(erasure: Erasure) -> Iterator[tuple[str, tuple[Any, ...]]]:
    what = "SELECT r.pos, r.flags, r.codec, r.agent, r.coll, r.key, r.body FROM rec r WHERE"
    ours = "branch IN (SELECT id FROM branch WHERE stream=(SELECT id FROM stream WHERE stream=?)) AND r.why<>3"
    kids = sorted(erasure.kids)
    for first in range(0, len(kids), LOT):
        lot = kids[first : first + LOT]
        yield f"{what} r.kid IN ({_places(lot)}) AND +r.{ours}", (*lot, erasure.stream)
    marks = sorted(erasure.marks)
    for first in range(0, len(marks), LOT):
        lot = marks[first : first + LOT]
        seqs, links = [int.from_bytes(mark[:8], "big") for mark in lot], [mark[8:] for mark in lot]
        named = f"r.seq IN ({_places(seqs)}) AND r.link IN ({_places(links)})"
        yield f"{what} r.{ours} AND {named}", (erasure.stream, *seqs, *links)


def _take(tx: SqlTransaction, rows: Sequence[Any]) -> Gone:
    gone = Gone(len(rows))
    quoted = {tx.name(name) for name in (MESSAGES, SESSIONS, METRICS)}
    told, found = [], []
    index.drop(tx, [(row[0], *row[3:6]) for row in rows])
    for pos, flags, packing, _, coll, _, body in rows:
        gone.note_blob(flags, packing, body)
        if not flags & SEALED:
            gone.indexed += 1
            found.append(pos)
        if coll in quoted:
            told.append(pos)
        tx.sql("UPDATE rec SET body=NULL, salt=?, codec=0, why=? WHERE pos=?", (b"", wire.REDACTED, pos))
    tx.unindex(found)
    for first in range(0, len(told), LOT):
        lot = told[first : first + LOT]
        # Only what quotes the body: an id stays taken, else a client that repeats itself would bring all of it back.
        tx.sql(f"DELETE FROM tag WHERE k IN (1, 2, 3, 6) AND pos IN ({_places(lot)})", lot)
        for table in ("session", "sample", "mail") if tx.many_branches else ():
            tx.sql(f"DELETE FROM {table} WHERE pos IN ({_places(lot)})", lot)
    return gone


def erase(log: Log, kids: Iterable[bytes], marks: Sequence[bytes], reason: str = "") -> Gone:
    """Erases records of a log: appends the redact records and takes the bodies away in one commit, or does nothing.

    The bodies' bytes are overwritten where SQLite frees them; `scour` then empties what else still holds them. Nothing
    is appended when everything is erased already.

    Args:
        log: whose records.
        kids: names of data keys.
        marks: records by `mark_of`.
        reason: kept with the redact record, for everybody to read.
    """
    drafts = drafts_of(kids, marks, reason)
    if not drafts:
        return Gone()
    append = log.job(drafts)
    stream = log.branch.stream
    known = [Erasure(stream, frozenset(kids), frozenset(marks))]

    def job(tx: SqlTransaction) -> Gone:
        gone = blank(tx, known)
        if gone.records:
            append(tx)
        return gone

    gone: Gone = log.corpus.write(job)
    if gone.records:
        log.corpus.sync()  # what explains the missing bodies is durable before their blobs go
    return gone


def reapply(corpus: SqlCorpus, blobs: Blobs, known: Sequence[Erasure]) -> Gone:
    """Erases again what a list of erasures names, in a corpus that was put back; see the top of this module.

    Args:
        corpus: the corpus.
        blobs: where its blobs lie, which are removed too.
        known: the list; of several backups, all of theirs.
    """

    def job(tx: SqlTransaction) -> Gone:
        gone = blank(tx, known)
        if gone.records:  # the redact record may not have been put back: then this says why the bodies are missing
            every = [*kept_erasures(tx.meta(REAPPLIED)), *known]
            tx.set_meta(REAPPLIED, msgspec.msgpack.encode([each.to_wire() for each in dict.fromkeys(every)]))
        return gone

    gone: Gone = corpus.write(job)
    if gone.records:
        corpus.sync()
        scour(corpus, blobs)
    return gone


def scour(corpus: SqlCorpus, blobs: Blobs, others: Sequence[SqlCorpus] = ()) -> bool:
    """Removes what erasures left behind their commits: blobs, words in the index, pages in the WAL.

    Args:
        corpus: where bodies were taken away.
        blobs: where blobs are removed.
        others: further corpora whose records may refer to the same blobs.

    Returns:
        False while a reader keeps an old page readable in the WAL; to be called again, or left to the next checkpoint.
    """
    todo = _pending(corpus.meta(PENDING))
    for digest, was_sealed in todo.blobs.items():
        _drop(corpus, blobs, digest, () if was_sealed else others, sure=was_sealed)
    if not corpus.scour(index=todo.indexed > 0):
        return False

    def job(tx: SqlTransaction) -> None:
        # An erasure that came meanwhile stays noted.
        left = _pending(tx.meta(PENDING))
        for digest in todo.blobs:
            left.blobs.pop(digest, None)
        left.indexed, left.records = left.indexed - todo.indexed, left.records - todo.records
        tx.set_meta(PENDING, msgspec.msgpack.encode(left) if left.records or left.blobs else None)

    if todo.records:
        corpus.write(job)
    return True


def _drop(corpus: SqlCorpus, blobs: Blobs, digest: bytes, others: Sequence[SqlCorpus], *, sure: bool) -> None:
    # Equal bytes are one blob, and somebody else may have put the same: all records are looked through before a
    # writer is held up, and then only those that came since.
    if sure:
        blobs.delete(digest)
        return
    shared = blobs if isinstance(blobs, BlobFiles) else None
    every = [(each, each.last()) for each in (corpus, *others)]
    if any(_refers(each.one, digest, 0) for each, _ in every):
        if shared is not None:
            aside.bring_back(shared, digest)  # a crash may have left it aside
        return

    def late(seen: int, tx: SqlTransaction) -> bool:
        return _refers(lambda sql, args: tx.sql(sql, args).fetchone(), digest, seen)

    def job(tx: SqlTransaction) -> None:
        if not late(every[0][1], tx):
            blobs.delete(digest)

    if shared is None:
        corpus.write(job)
        return
    # Several logs share the directory, and no transaction holds all of them up. So it goes out of sight first: whoever
    # writes it from now on does not find it, and writes it anew; whoever found it has committed when its log is asked.
    aside.put_aside(shared, digest)
    if any(each.write(functools.partial(late, seen)) for each, seen in every):
        aside.bring_back(shared, digest)
    else:
        aside.drop_aside(shared, digest)


def _refers(one: Callable[..., Any], digest: bytes, after: int) -> bool:
    sql = "SELECT 1 FROM rec WHERE pos>? AND (flags & ?) <> 0 AND body IS NOT NULL AND substr(body, 1, 32)=? LIMIT 1"
    return one(sql, (after, BLOB, digest)) is not None


def _places(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
