"""Writes an agent's log anew from the segments of a backup: the rows at once, and what is derived of them at the end.

A log of its own has one chain, so what its tables say follows from the rows: which version of a key is the newest,
what a deletion by prefix hides, which message came before. The scan behind it derives all of that once more, by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from holdfast import codec
from holdfast.corpus import SqliteCorpus
from holdfast.corpus.rows import COLUMNS, within
from holdfast.corpus.sql import MESSAGES
from holdfast.corpus.tags import ROW_FIRST, mark
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.integrity.backup.segment import QUOTES, Segment
from holdfast.log.drafts import tags_of
from holdfast.records import BLOB, DELETE_PREFIX, TOMBSTONE, VALUE, ZERO16, ZERO32
from holdfast.wire import REDACTED, Mark

KEYS_MAX: Final = 400_000
"""Newest versions held back until there are so many, or no more: some 80 MB, less than the proof takes afterwards. They
are written once and in their order; one by one, as they come, they would cost half as much again as the records do."""
_COLUMNS: Final = f"{COLUMNS.replace('r.', '')}, back"
_SAYS: Final = VALUE | TOMBSTONE
_SCOPES: Final = "SELECT s.agent, s.coll, s.prefix, s.pos, r.hlc FROM scope s JOIN rec r ON r.pos=s.pos ORDER BY s.pos"
_HIDE: Final = (
    "UPDATE state SET gone=? WHERE agent=? AND coll=? AND {} AND gone=0 AND pos<?"
    " AND (SELECT hlc FROM rec WHERE rec.pos=state.pos)<?"
)


class OwnLog:
    """One agent's file that is being made.

    Args:
        corpus: the file; nobody else has it.
        erased: links of the records whose payloads must not come back.
    """

    def __init__(self, corpus: SqliteCorpus, erased: set[bytes]) -> None:
        self._corpus, self._erased = corpus, erased
        self._numbers: dict[tuple[int, str, str, str], tuple[int, ...]] = {}
        self._newest: dict[tuple[int, int], dict[str, int]] = {}  # the pos of each key; negative: it is a deletion
        self._back = 0  # the newest message
        self._ends: dict[int, tuple[int, bytes]] = {}

    @property
    def heads(self) -> dict[int, Mark]:
        """Where each branch ends, as far as it was written."""
        return {branch: Mark(*end) for branch, end in self._ends.items()}

    def recall(self, tx: Any) -> None:
        """Reads what an attempt that was broken off has written."""
        sql = f"SELECT agent, coll, key, pos, flags, (SELECT s FROM name WHERE id=kind) FROM rec WHERE flags & {_SAYS}"
        for agent, coll, key, pos, flags, kind in tx.sql(f"{sql} ORDER BY pos"):
            if kind != DELETE_PREFIX or not flags & TOMBSTONE:
                self._newest.setdefault((agent, coll), {})[key] = -pos if flags & TOMBSTONE else pos
        row = tx.sql("SELECT iif(coll=1, pos, back) FROM rec ORDER BY pos DESC LIMIT 1").fetchone()
        self._back = row[0] if row else 0
        for branch, seq, link in tx.sql("SELECT branch, seq, link FROM rec ORDER BY pos"):
            self._ends[branch] = seq, bytes(link)

    def write(self, tx: Any, segment: Segment, after: int, stop: int) -> None:
        """Writes the records of a segment between two positions.

        Raises:
            IntegrityError: they are not the records of one log.
        """
        rows, tags, scopes, gone = list[Any](), list[Any](), list[Any](), set[int]()
        numbers, newest, ends, pack = self._numbers, self._newest, self._ends, self._corpus.pack
        erased, back = self._erased, self._back
        for at, row in enumerate(segment.rows):
            # fmt: off
            (pos, branch, seq, hlc, author, kind, collection, key, fmt, flags, version, prior,
             base, kid, size, digest, salt, body, why, link) = row
            # fmt: on
            if pos <= after:
                continue
            if pos > stop:
                break
            if seq != pos:
                raise IntegrityError(f"the backup lacks the records between positions {seq} and {pos}")
            packing = codec.RAW
            if link in erased and (body is not None or salt):
                body, salt, why = None, b"", REDACTED
                gone.add(pos)
            elif body is not None and len(body) >= codec.COMPRESS_MIN:
                packing, body = pack(body)
            names = branch, author, kind, collection
            ids = numbers.get(names)
            if ids is None:
                ids = numbers[names] = tuple(map(tx.name, (segment.starts[branch].agent, author, kind, collection)))
            agent, by, sort, coll = ids
            # fmt: off
            rows.append((pos, branch, seq, hlc, agent, by, sort, coll, key, fmt, flags, version, prior,
                         None if base == ZERO32 else base, None if kid == ZERO16 else kid, size, digest, salt, link,
                         packing, why, body, back))
            # fmt: on
            if collection == MESSAGES:
                back = pos
                if body is not None and not flags & BLOB:
                    tags += _tags(segment, at)
            if flags & _SAYS:
                if flags & TOMBSTONE and kind == DELETE_PREFIX:
                    scopes.append((agent, coll, key, pos))
                else:
                    newest.setdefault((agent, coll), {})[key] = -pos if flags & TOMBSTONE else pos
            ends[branch] = seq, link
        self._back = back
        told = segment.beside.get("tag", ())
        tags += [(k, v, pos) for k, v, pos in told if after < pos <= stop and not (pos in gone and k in QUOTES)]
        for table, columns, made in (("rec", _COLUMNS, rows), ("scope", "agent, coll, prefix, pos", scopes)):
            if made:
                tx.fill(table, columns, made)
        for number, value, pos in tags:
            tx.sql(*mark(pos, number, value))
        tx.forget()
        if sum(map(len, newest.values())) >= KEYS_MAX:
            self._name_newest(tx)

    def finish(self, tx: Any) -> None:
        """Names the newest versions that were held back, and hides what deletions by prefix hide."""
        self._name_newest(tx)
        for agent, coll, prefix, pos, hlc in tx.sql(_SCOPES).fetchall():
            span, ends = within("key", prefix)
            tx.sql(_HIDE.format(span), (pos, agent, coll, *ends, pos, hlc))

    def _name_newest(self, tx: Any) -> None:
        newest, self._newest = self._newest, {}
        for (agent, coll), keys in sorted(newest.items()):
            rows = [(agent, coll, key, abs(keys[key]), max(0, -keys[key])) for key in sorted(keys)]
            tx.put_state(rows)


def _tags(segment: Segment, at: int) -> Sequence[tuple[int, str, int]]:
    """What a message is found by, where it says so itself; a node's file has no tables for anything else."""
    stored = segment.records[at]
    try:
        found = tags_of(stored.record, stored.payload())
    except HoldfastError:
        return ()
    return [(number, value, stored.pos) for number, value in found if number < ROW_FIRST]
