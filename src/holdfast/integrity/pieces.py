"""Puts a chain together again from pieces of whatever origin, by proof alone. Pure: pieces go in, a chain comes out.

A damaged log is a row of records of which some are missing or wrong. Each wrong stretch has a proven link before it and
a record behind it whose own link says what must come out; the end of the log has the marks that the anchor, a hub's
signed head or an acknowledgement remember. Headers that hash from one to the other are what was written, wherever
they were found. A body counts when it hashes to its header.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from holdfast import codec
from holdfast.errors import HoldfastError
from holdfast.records import BLOB, MORE, REDACT, Record, decode_header, next_link, read_blob_reference, verify_payload
from holdfast.wire import EVICTED, HERE, QUARANTINED, REDACTED, Mark

OWN: Final = "log"
"""What the log's own rows say."""
AFTER: Final = 4
"""So many records behind a wrong stretch are kept, in case the first of them is wrong too."""
TRIES_MAX: Final = 200_000
SWAPS_MAX: Final = 200
"""Bodies may have been swapped among so many wrong records; beyond that nobody looks for it."""


class Piece(msgspec.Struct, frozen=True, gc=False):
    """One record as it was found; `link` is what was said beside it (empty: nothing), `branch` the row's (0: none)."""

    seq: int
    header: bytes
    link: bytes
    salt: bytes
    codec: int
    body: bytes | None
    why: int
    branch: int = 0
    origin: str = OWN


class Run(msgspec.Struct):
    """A wrong stretch: proven before it is `before`, behind it came `after`; `last` 0: to the end of the log."""

    before: Mark
    first: int
    last: int
    after: list[Piece] = []


def record_of(piece: Piece) -> Record | None:
    """The record that a header is, or None."""
    try:
        return decode_header(piece.header, piece.link or bytes(32))
    except HoldfastError:
        return None


def has_body(piece: Piece, record: Record) -> bool:
    """Whether the body that is here is the record's."""
    if piece.body is None:
        return False
    try:
        payload = codec.unpack(piece.codec, piece.body, record.payload_len)
        verify_payload(record, piece.salt, payload)
        if record.flags & BLOB:
            read_blob_reference(payload)
    except HoldfastError:
        return False
    return True


def is_explained(piece: Piece, record: Record) -> bool:
    """Whether the row is in order: its own body, or none and a reason for that."""
    if piece.body is None:
        return piece.why in (EVICTED, QUARANTINED, REDACTED)
    return piece.why == HERE and has_body(piece, record)


class Judge:
    """Reads a log's own rows in order and remembers only what is wrong with them.

    Args:
        begin: the mark before the first record.
        watch: numbers whose links are asked for later.
    """

    def __init__(self, begin: Mark, watch: Iterable[int] = ()) -> None:
        self.begin = self.mark = begin
        self.runs: list[Run] = []
        self.bodies: dict[int, Piece] = {}
        self.wrong: list[Piece] = []
        self.links = {begin.seq: begin.link}
        self.records = 0
        self.settled = begin  # the newest sound record that ends a batch
        self.redacts: list[Piece] = []
        self.blobs: dict[bytes, tuple[int, list[int]]] = {}  # digest -> (size, the records that refer to it)
        self._watch = frozenset(watch)
        self._proven = begin
        self._run: Run | None = None

    def see(self, piece: Piece) -> None:
        """The next row; numbers only grow."""
        record = record_of(piece)
        if piece.seq <= self.begin.seq:  # kept from before a prune: nothing here proves its header
            if record is not None and not is_explained(piece, record):
                self.bodies[piece.seq] = piece
            return
        self.records += 1
        follows = piece.seq == self.mark.seq + 1
        if not follows:
            self._add(self.mark.seq + 1, piece.seq - 1)
        sound = record is not None and record.seq == piece.seq
        if sound and (follows and next_link(self.mark.link, piece.header) != piece.link):
            sound = False
        self.mark = Mark(piece.seq, piece.link)
        if not sound or record is None:
            self._add(piece.seq, piece.seq)
            self.wrong.append(piece)
            return
        run = self._run
        if run is not None:
            run.after.append(piece)
            if len(run.after) >= AFTER:
                self._run = None
        self._proven = self.mark
        if not record.flags & MORE:
            self.settled = self.mark
        if piece.seq in self._watch:
            self.links[piece.seq] = piece.link
        if record.kind == REDACT:
            self.redacts.append(piece)
        if not is_explained(piece, record):
            self.bodies[piece.seq] = piece
        elif record.flags & BLOB and piece.body is not None:
            self.refer(piece, record)

    def refer(self, piece: Piece, record: Record) -> None:
        """Notes the blob that a sound record refers to."""
        digest, size = read_blob_reference(codec.unpack(piece.codec, piece.body or b"", record.payload_len))
        self.blobs.setdefault(digest, (size, []))[1].append(piece.seq)

    def end(self) -> Run:
        """The stretch behind the last sound record, whatever is there."""
        last = self.runs[-1] if self.runs else None
        if last is not None and not last.after:
            self.runs.pop()
            return Run(last.before, last.first, 0)
        return Run(self._proven, self._proven.seq + 1, 0)

    def _add(self, first: int, last: int) -> None:
        run = self.runs[-1] if self.runs else None
        if run is not None and (not run.after or len(run.after) < AFTER):
            # So close behind the last wrong stretch that it is one with it: what lies between may be wrong too.
            self.wrong += run.after
            run.after = []
            run.last = last
            self._run = run
        else:
            self._run = Run(self._proven, first, last)
            self.runs.append(self._run)


class Pool:
    """Everything found that may belong into the wrong stretches."""

    def __init__(self) -> None:
        self._pieces: dict[int, list[Piece]] = {}
        self._seen: set[tuple[int, bytes, bytes | None, bytes]] = set()

    def add(self, piece: Piece) -> None:
        """Offers a piece."""
        at = (piece.seq, piece.header, piece.body, piece.salt)
        if at not in self._seen:
            self._seen.add(at)
            self._pieces.setdefault(piece.seq, []).append(piece)

    def at(self, seq: int) -> list[Piece]:
        """What there is for a number, in the order in which it was offered."""
        return self._pieces.get(seq, [])

    def everything(self) -> Iterator[Piece]:
        """All of it."""
        for pieces in self._pieces.values():
            yield from pieces


class Solved(msgspec.Struct):
    """A stretch put together: the records in order, with the links that follow, and where each came from."""

    pieces: list[Piece]
    head: Mark


def solve(pool: Pool, before: Mark, last: int, after: Piece | None, end: bytes | None = None) -> Solved | None:
    """The records behind `before` up to `last` that hash into what is known behind them; None if there are none.

    Args:
        pool: what may belong there.
        before: proven.
        last: the last number wanted.
        after: the record behind it, whose link must follow.
        end: else the link that must come out.
    """
    chosen: list[Piece] = []
    links = [before.link]
    choices = [_choices(pool, before.seq + 1, before.link)]
    tries = 0
    while choices:
        seq = before.seq + len(choices)
        piece = next(choices[-1], None)
        tries += 1
        if tries > TRIES_MAX:
            return None
        if piece is None:
            choices.pop()
            if chosen:
                chosen.pop()
                links.pop()
            continue
        link = next_link(links[-1], piece.header)
        if seq < last:
            chosen.append(msgspec.structs.replace(piece, link=link))
            links.append(link)
            choices.append(_choices(pool, seq + 1, link))
            continue
        if link == end or (after is not None and next_link(link, after.header) == after.link):
            return Solved([*chosen, msgspec.structs.replace(piece, link=link)], Mark(last, link))
    return None


def _choices(pool: Pool, seq: int, before: bytes) -> Iterator[Piece]:
    """The different headers for a number, those first whose own link follows."""
    different = {piece.header: piece for piece in reversed(pool.at(seq))}
    fits = [p for p in different.values() if (record := record_of(p)) is not None and record.seq == seq]
    said = {(p.header, p.link) for p in pool.at(seq)}
    return iter(sorted(fits, key=lambda p: (p.header, next_link(before, p.header)) not in said))


def solve_run(pool: Pool, run: Run) -> Solved | None:
    """A stretch in the middle; where the first record behind it turns out to be wrong too, it is put right as well."""
    for taken, after in enumerate(run.after):
        for piece in run.after[:taken]:
            pool.add(piece)
        found = solve(pool, run.before, run.last + taken, after)
        if found is not None:
            return found
    return None


def solve_end(pool: Pool, run: Run, known: Sequence[Mark]) -> Solved:
    """The end of the log: up to the furthest known mark that can be reached, then what goes on without a doubt.

    Args:
        pool: what may belong there.
        run: the stretch behind the last sound record.
        known: marks that are proven: the anchor's, signed heads, acknowledgements.

    Returns:
        What was put together, perhaps nothing; it never ends inside a batch, unless what was proven does.
    """
    found = Solved([], run.before)
    for mark in sorted(known, key=lambda each: each.seq, reverse=True):
        if mark.seq > run.before.seq and (solved := solve(pool, run.before, mark.seq, None, mark.link)) is not None:
            found = solved
            break
    sure = len(found.pieces)
    while True:
        seq = found.head.seq + 1
        right = {
            piece.header: piece for piece in pool.at(seq) if next_link(found.head.link, piece.header) == piece.link
        }
        if len(right) != 1:  # nothing, or two ways to go on: nobody can say which
            break
        piece = next(iter(right.values()))
        found.pieces.append(piece)
        found.head = Mark(seq, piece.link)
    while len(found.pieces) > sure and _goes_on(found.pieces[-1]):
        found.pieces.pop()
    if found.pieces:
        found.head = Mark(found.pieces[-1].seq, found.pieces[-1].link)
    else:
        found.head = run.before
    return found


def _goes_on(piece: Piece) -> bool:
    record = record_of(piece)
    return record is not None and bool(record.flags & MORE)


def body_for(pool: Pool, piece: Piece, others: Sequence[Piece] = ()) -> Piece | None:
    """The record with its body, or with a reason why it has none; None if neither was found.

    Erased stays erased: one row that says so outweighs every copy of the body.

    Args:
        pool: what may hold it.
        piece: the record, its header proven.
        others: pieces of other numbers, whose bodies may have been swapped with this one's.
    """
    record = record_of(piece)
    if record is None:
        return None
    same = [found for found in (piece, *pool.at(piece.seq)) if found.header == piece.header]
    for found in same:
        if found.why == REDACTED and found.body is None:
            return msgspec.structs.replace(piece, body=None, why=REDACTED, salt=found.salt, origin=found.origin)
    offered = [*same, *pool.at(piece.seq), *others[:SWAPS_MAX]]
    for found in offered:
        if has_body(found, record):
            return msgspec.structs.replace(
                piece, salt=found.salt, codec=found.codec, body=found.body, why=HERE, origin=found.origin
            )
    for found in same:
        if found.body is None and found.why in (EVICTED, QUARANTINED):
            return msgspec.structs.replace(piece, body=None, why=found.why, salt=found.salt, origin=found.origin)
    return None
