"""Records that come back from a hub into an agent's log: lost ones taken up again, other branches' values taken over.

Jobs for the log's own transaction: an agent may write at any time, so the head is read inside it. Nothing here
judges; what comes in was verified, and which values win is decided in `protocol.merge`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import clock, codec
from holdfast.clock import Clock
from holdfast.corpus import Branch
from holdfast.corpus.rows import behind
from holdfast.corpus.sqlite import SqliteTransaction
from holdfast.errors import HoldfastError
from holdfast.log.drafts import MESSAGES, tags_of
from holdfast.log.erasure import Erasure, blank, erasure_of, is_redact
from holdfast.protocol.merge import Scope, appendix, linked, order, scopes, weigh
from holdfast.records import BLOB, REDACT, ROTATE, ZERO16, ZERO32, Record, encode_header, genesis, next_link
from holdfast.wire import Item, Mark

WEIGHED: Final = "weighed:"
_RECORD: Final = (
    "SELECT r.seq, r.hlc, r.flags, r.version, r.fmt, r.plen, r.phash, r.link, r.kid, k.s, r.key, r.base"
    " FROM rec r JOIN name k ON k.id=r.kind WHERE r.pos=?"
)


class Weighed(msgspec.Struct, frozen=True):
    """Another branch that was merged, up to where, where this log stood then, and what it had deleted by prefix."""

    inc: bytes
    theirs: Mark
    mine: Mark
    scopes: list[Scope]

    @property
    def name(self) -> str:
        """Where it is kept among the file's meta values."""
        return f"{WEIGHED}{self.inc.hex()}:{self.theirs.seq}:{self.theirs.link.hex()}"


def remembered(query: Callable[..., list[Any]], link_at: Callable[[int], bytes | None]) -> list[Weighed]:
    """What was weighed so far, as far as the log still has the record at which it was.

    Args:
        query: runs a statement on the agent's file.
        link_at: the link of its log at a number.
    """
    rows = query("SELECT v FROM meta WHERE k>=? AND k<? ORDER BY k", (WEIGHED, f"{WEIGHED}g"))
    found = [msgspec.msgpack.decode(row[0], type=codec.ready(Weighed)) for row in rows]
    return [each for each in found if link_at(each.mine.seq) == each.mine.link]


def fast_forward(tx: SqliteTransaction, branch: Branch, expected: Mark, items: Sequence[Item], inc: bytes) -> bool:
    """Appends records of this very stream behind `expected` and goes on under `inc`; False when the head has moved."""
    head = tx.head(branch.id)
    if Mark(head.seq, head.link) != expected:
        return False
    for record, item in linked(expected, items):
        prior = tx.prior(branch.agent, record.collection, record.key) if record.collection else None
        tx.insert(branch, record, item, prior.pos if prior else 0, _tags(record, item))
        if record.kind == ROTATE and item.body is not None:
            tx.rekey(branch.stream, codec.unpack(item.codec, item.body, record.payload_len))
    blank(tx, told_in(linked(expected, items)))
    _go_on_as(tx, branch, inc, expected)
    return True


def merge(tx: SqliteTransaction, branch: Branch, inc: bytes, before: Mark, items: Sequence[Item], wall: Clock) -> int:
    """Appends what takes over the values that are newer on another branch; remembers how far that was weighed."""
    theirs = linked(before, items)
    known = remembered(tx.execute, lambda seq: _link(tx, branch, seq))
    won = weigh(
        theirs,
        lambda collection, key: _newest(tx, branch, collection, key),
        lambda collection, prefix: _under(tx, branch, collection, prefix),
        [scope for each in known for scope in each.scopes],
    )
    head = tx.head(branch.id)
    if not theirs:
        return 0
    mark = Mark(theirs[-1][0].seq, theirs[-1][0].link)
    made = []
    if won:
        stamp = clock.tick(max([head.hlc, *(take.source.hlc for take in won)]), wall.now_ms())

        def version(collection: str, key: str) -> int:
            prior = tx.prior(branch.agent, collection, key)
            return prior.version + 1 if prior else 1

        made = appendix(won, Mark(head.seq, head.link), stamp, (inc, mark), version)
    made += _retold(tx, theirs, Mark(head.seq + len(made), b""), max([head.hlc, *(r.hlc for r, _ in made)]), wall)
    link = head.link
    for bare, item in made:
        link = next_link(link, encode_header(bare))
        record = msgspec.structs.replace(bare, link=link)
        prior = tx.prior(branch.agent, record.collection, record.key) if record.collection else None
        tx.insert(branch, record, item, prior.pos if prior else 0, _tags(record, item))
    blank(tx, told_in(theirs))
    went_on = next((each for each in known if (each.inc, each.theirs) == (inc, before)), None)
    if went_on is not None:
        tx.execute("DELETE FROM meta WHERE k=?", (went_on.name,))
    past = went_on.scopes if went_on is not None else []
    mine = Mark(head.seq + len(made), link)
    new = Weighed(inc, mark, mine, [*past, *scopes(theirs)])
    tx.set_meta(new.name, msgspec.msgpack.encode(new))
    return len(made)


def _tags(record: Record, item: Item) -> tuple[tuple[int, str], ...]:
    if item.body is None or record.flags & BLOB or record.collection != MESSAGES:
        return ()  # a node's file has no tables for what the storage service finds its records by
    try:
        payload = codec.unpack(item.codec, item.body, record.payload_len)
        return tags_of(record, payload)
    except HoldfastError:
        return ()  # its finder's business: what cannot be read cannot be tagged


def told_in(found: Sequence[tuple[Record, Item]]) -> list[Erasure]:
    """What the redact records among these erase; one that cannot be read erases nothing."""
    out = []
    for record, item in found:
        if is_redact(record) and item.body is not None:
            with contextlib.suppress(HoldfastError):
                out.append(erasure_of(record, codec.unpack(item.codec, item.body, record.payload_len)))
    return out


def _retold(
    tx: SqliteTransaction, theirs: Sequence[tuple[Record, Item]], at: Mark, hlc: int, wall: Clock
) -> list[tuple[Record, Item]]:
    """The redact records of another branch that this one lacks, to be appended here: each chain says by itself why
    its bodies are missing. One that is here already is not told again, or two copies of a node would never be done."""
    made: list[tuple[Record, Item]] = []
    for record, item in theirs:
        if not is_redact(record) or item.body is None:
            continue
        same = "SELECT 1 FROM rec WHERE phash=? AND kind=(SELECT id FROM name WHERE s=?) LIMIT 1"
        if tx.execute(same, (record.payload_hash, REDACT)):
            continue
        hlc, seq = clock.tick(hlc, wall.now_ms()), at.seq + len(made) + 1
        made.append((msgspec.structs.replace(record, seq=seq, hlc=hlc, flags=0, base=record.link, link=ZERO32), item))
    return made


def _go_on_as(tx: SqliteTransaction, branch: Branch, inc: bytes, base: Mark) -> None:
    """Makes `inc` the newest incarnation of this file, which is what everybody takes as the current one."""
    known = tx.branches(branch.stream)
    if known[-1].inc == inc:
        return
    if any(each.inc == inc for each in known):
        # An incarnation that was left comes back. Its old row still says whose the records under it are, so it
        # stays, under a name that nobody uses.
        tx.execute("UPDATE branch SET inc=? WHERE inc=?", (os.urandom(16), inc))
    tx.open_branch(
        msgspec.structs.replace(branch, inc=inc, base_seq=base.seq, base_link=base.link, seq=base.seq, link=base.link)
    )


def _link(tx: SqliteTransaction, branch: Branch, seq: int) -> bytes | None:
    rows = tx.execute("SELECT link FROM rec WHERE pos=?", (seq,))
    if rows:
        return bytes(rows[0][0])
    return genesis(branch.stream) if seq == 0 else None


def _newest(tx: SqliteTransaction, branch: Branch, collection: str, key: str) -> Record | None:
    """What says what a key's value is now: its newest version, or the deletion of a prefix that covers it."""
    ids = (tx.name(branch.agent), tx.name(collection), key)
    said = "SELECT CASE gone WHEN 0 THEN pos ELSE gone END FROM state WHERE agent=? AND coll=? AND key=?"
    covers = "SELECT pos FROM scope WHERE agent=? AND coll=? AND substr(?,1,length(prefix))=prefix ORDER BY pos DESC"
    found = tx.execute(said, ids) + tx.execute(f"{covers} LIMIT 1", ids)
    rows = [row for (pos,) in found for row in tx.execute(_RECORD, (pos,))]
    return max((_record(branch, collection, row) for row in rows), key=order, default=None)


def _record(branch: Branch, collection: str, row: Any) -> Record:
    seq, hlc, flags, version, fmt, plen, phash, link, kid, kind, key, base = row
    base, kid = base or ZERO32, kid or ZERO16
    return Record(branch.stream, fmt, flags, seq, hlc, base, version, plen, kind, "", collection, key, kid, phash, link)


def _under(tx: SqliteTransaction, branch: Branch, collection: str, prefix: str) -> Iterator[str]:
    """The keys here that begin with a prefix and have a value."""
    rows = tx.execute(
        "SELECT key FROM state WHERE agent=? AND coll=? AND key>=? AND key<? AND gone=0",
        (tx.name(branch.agent), tx.name(collection), prefix, behind(prefix)),
    )
    return iter([row[0] for row in rows])
