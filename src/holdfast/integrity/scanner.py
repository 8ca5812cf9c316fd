"""A scan that never ends: new records soon, everything else by turns, the least recently checked first.

A turn looks at what was written since the turn before, then takes the next share of all records (with their blobs) and
of all pages, so that a round over everything takes a day; a round begins with the size and the indexes of the file.
It works in slices, each in a short read transaction of its own, and rests after each as long as it took: a writer never
waits for it, and the WAL never waits long. What it has found stays told until a later round no longer finds it.

Where the progress is kept is the caller's: a node keeps it in node.db, a hub beside its records.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import msgspec

from holdfast import codec, records, seal
from holdfast.clock import Clock
from holdfast.corpus import Branch, SqlCorpus, Stored
from holdfast.corpus.snapshot import Signed, Snapshot, snapshot
from holdfast.errors import HoldfastError, StoreClosed
from holdfast.integrity.checks import (
    BLOB_SCRUB,
    CHAIN,
    INDEX,
    PAGE,
    SIGNATURE,
    SIZE,
    STATE,
    VERSION,
    Blobs,
    Finding,
    Line,
    check_ahead,
    check_blob,
    check_blob_size,
    check_payload,
    check_size,
)
from holdfast.integrity.derived import Derived, count_words, own_branches, words
from holdfast.log.prune import BEGIN_SEQ, begin
from holdfast.records import ROTATE

EVERY_S: Final = 300.0
ROUND_S: Final = 86_400.0
SLICE: Final = 200
"""Records in one read transaction: a few milliseconds."""
PAGE_SLICE: Final = 256
FINDINGS_MAX: Final = 200
_REPAIR: Final = "keep the files as they are: holdfast verify says all of it, holdfast repair --plan what can be done"


class Progress(msgspec.Struct, kw_only=True):
    """How far the scan of one corpus is, and what it has found.

    Attributes:
        tip: up to this position everything was looked at once, soon after it was written.
        back: up to this one in the round that is under way.
        page: the last page looked at in it.
        begun_ms: when the round began (ms since 1970; 0: none is under way).
        round_ms: when the last whole round ended; 0: there was none yet.
        at_ms: when the last turn ended.
        records, pages: how many were looked at since the first turn.
        found: what the round under way has found.
        kept: what the round before found.
        left_out: how many findings of the round under way were more than are kept.
    """

    tip: int = 0
    back: int = 0
    page: int = 0
    begun_ms: int = 0
    round_ms: int = 0
    at_ms: int = 0
    records: int = 0
    pages: int = 0
    found: list[Finding] = []
    kept: list[Finding] = []
    left_out: int = 0

    @property
    def findings(self) -> list[Finding]:
        """What is not as it was written, as far as the last turns know."""
        return list(dict.fromkeys([*self.found, *self.kept]))


class Keep(Protocol):
    """Where a corpus' progress is kept."""

    def load(self) -> bytes | None:
        """What was saved last."""
        ...

    def save(self, data: bytes) -> None:
        """Keeps it in place of what was there."""
        ...


def read_progress(data: bytes | None) -> Progress:
    """The progress in what was kept; a new one where that is nothing, or not readable."""
    try:
        return msgspec.msgpack.decode(data, type=codec.ready(Progress)) if data else Progress()
    except msgspec.MsgspecError:
        return Progress()


class Scanner:
    """Scans one corpus, turn by turn. One thread at a time.

    Args:
        corpus: what is scanned; writers go on.
        keep: where the progress is.
        blobs: its blobs; None: they are not looked at.
        wall: the clock.
        stop: ends a turn early, between two slices.
        outside: tells, when called, what is wrong with the corpus in the eyes of others (anchor, hubs).
    """

    def __init__(
        self,
        corpus: SqlCorpus,
        keep: Keep,
        *,
        blobs: Blobs | None,
        wall: Clock,
        stop: threading.Event | None = None,
        outside: Callable[[], list[Finding]] = list,
    ) -> None:
        self._corpus, self._keep, self._blobs, self._wall = corpus, keep, blobs, wall
        self._stop = stop or threading.Event()
        self._outside = outside
        self.progress = read_progress(keep.load())

    def turn(self, *, whole: bool = False) -> Progress:
        """Looks at what is new, and at the next share of everything, and keeps how far it came.

        Args:
            whole: take a whole round, from the beginning.

        Returns:
            The progress. Damage never raises, it is found.

        Raises:
            StoreClosed: the corpus was closed meanwhile.
        """
        done = self.progress
        if whole:
            self._begin_round()
        if not done.begun_ms:
            self._begin_round()
        share = 1.0 if whole else self._share()
        last = self._corpus.last()
        self._take(self._outside())
        done.tip = self._span(min(done.tip, last), last)
        done.back = self._span(done.back, last if whole else min(last, done.back + _part(last, share)))
        pages = self._corpus.engine.pages
        self._pages(pages if whole else min(pages, done.page + _part(pages, share)))
        if done.back >= last and done.page >= pages and not self._stop.is_set():
            self._end_round()
        done.at_ms = self._wall.now_ms()
        self._keep.save(msgspec.msgpack.encode(done))
        return done

    def _share(self) -> float:
        """The part of a round that this turn is to take, by the time that has passed since the turn before."""
        since = (self._wall.now_ms() - self.progress.at_ms) / 1000
        return min(1.0, max(EVERY_S, since) / ROUND_S)

    def _begin_round(self) -> None:
        done = self.progress
        done.back = done.page = done.left_out = 0
        done.found, done.begun_ms = [], self._wall.now_ms()
        for check, part in ((SIZE, "size"), (INDEX, "indexes")):
            self._below(check, part)
        try:
            with snapshot(self._corpus) as view:
                self._take(list(count_words(view)))
        except StoreClosed:
            raise
        except HoldfastError as error:
            self._take([Finding(INDEX, "", 0, f"the search index cannot be read: {error.message}", _REPAIR)])

    def _end_round(self) -> None:
        done = self.progress
        done.kept, done.found, done.begun_ms, done.round_ms = done.found, [], 0, self._wall.now_ms()

    def _take(self, findings: list[Finding]) -> None:
        done = self.progress
        for finding in findings:
            if finding in done.found:
                continue
            if len(done.found) < FINDINGS_MAX:
                done.found.append(finding)
            else:
                done.left_out += 1

    def _rest(self, begun: float) -> bool:
        """Waits as long as the slice took; whether to go on."""
        return not self._stop.wait(min(1.0, time.monotonic() - begun))

    def _span(self, after: int, until: int) -> int:
        """Looks at the records behind `after` up to `until`; returns how far it came."""
        while after < until:
            begun = time.monotonic()
            try:
                span = look(self._corpus, after, min(until, after + SLICE), now_ms=self._wall.now_ms())
            except StoreClosed:
                raise
            except HoldfastError as error:
                what = f"records behind position {after} cannot be read: {error.message}"
                self._take([Finding(PAGE, "", 0, what, _REPAIR)])
                span = Span(min(until, after + SLICE))
            self._take(span.findings)
            self.progress.records += span.records
            after = span.until
            if not self._rest(begun) or not self._scrub(span.blobs):
                break
        return after

    def _scrub(self, blobs: list[Stored]) -> bool:
        if self._blobs is not None:
            for stored in blobs:
                begun = time.monotonic()
                finding = check_blob_size(stored, self._blobs, BLOB_SCRUB)
                finding = finding or check_blob(stored, self._blobs, BLOB_SCRUB)
                # A body that was let go meanwhile took its blob along.
                if (
                    finding is not None
                    and (again := self._corpus.at(stored.pos)) is not None
                    and again.body is not None
                ):
                    self._take([finding])
                if not self._rest(begun):
                    return False
        return True

    def _pages(self, until: int) -> None:
        done = self.progress
        while done.page < until:
            begun, many = time.monotonic(), min(PAGE_SLICE, until - done.page)
            self._below(PAGE, (done.page + 1, many))
            done.page += many
            done.pages += many
            if not self._rest(begun):
                return

    def _below(self, check: str, part: Any) -> None:
        try:
            found = self._corpus.engine.scrub_part(part)
        except StoreClosed:
            raise
        except HoldfastError as error:
            found = [error.message]
        self._take([Finding(check, "", 0, what, _REPAIR) for what in found])


def _part(whole: int, share: float) -> int:
    return max(1, SLICE, int(whole * share) + 1)


class Span(msgspec.Struct):
    """What was seen of a run of records: up to which position, how many, what is wrong, and who has blobs."""

    until: int
    records: int = 0
    findings: list[Finding] = []
    blobs: list[Stored] = []


def look(corpus: SqlCorpus, after: int, until: int, *, now_ms: int) -> Span:
    """Looks at the records behind one position up to another, in one read transaction, without their blobs.

    Raises:
        IntegrityError: a page cannot be read.
    """
    seen = Span(until)
    with snapshot(corpus) as view:
        branches = {branch.id: branch for branch in corpus.branches()}
        single = None if corpus.hub else min(branches, default=0)
        low: int = view.meta(BEGIN_SEQ) or 0
        lines: dict[int, Line] = {}
        found_by = Derived(corpus, own_branches(corpus, list(branches.values())), proven=True)
        for stored in view.records(after, until):
            seen.records += 1
            finding = check_size(stored) or check_payload(stored)
            if finding is not None:
                seen.findings.append(finding)
            else:
                seen.findings += found_by.missed(view, stored)
                if stored.is_blob and stored.body is not None:
                    seen.blobs.append(stored)
            if (finding := check_ahead(stored, now_ms)) is not None:
                seen.findings.append(finding)
            branch = branches.get(stored.branch if single is None else single)
            if branch is None:
                what = f"the record belongs to branch {stored.branch}: unknown"
                seen.findings.append(Finding(CHAIN, stored.agent, stored.record.seq, what, _REPAIR))
            if branch is None or stored.record.seq <= low:
                continue
            line = lines.get(branch.id)
            if line is None:
                line = lines[branch.id] = _line(corpus, branch, stored)
            seen.findings += line.see(stored)
        seen.findings += _rows(view, after, until)
        seen.findings += words(view, after, until)
        seen.findings += _heads(corpus, view, branches, after, until)
    return seen


def _line(corpus: SqlCorpus, branch: Branch, first: Stored) -> Line:
    """The chain of a branch as it stood before a record."""
    seq = first.record.seq
    low = begin(corpus, branch.stream) if not corpus.hub else None
    if low is not None and seq == low.seq + 1:
        return Line(branch.stream, low.seq, low.link)
    if seq == 1:
        return Line(branch.stream, 0, records.genesis(branch.stream))
    before = next(iter(corpus.chain(branch.id, seq - 2, 1)), None)
    if before is None or before.record.seq != seq - 1:
        return Line(branch.stream, branch.base_seq, branch.base_link)
    line = Line(branch.stream, seq - 1, before.record.link)
    line.hlc = before.record.hlc
    return line


def _rows(view: Snapshot, after: int, until: int) -> Iterator[Finding]:
    for _, agent, seq, prior in view.strayed(after, until):
        what = f"replaces the version at {prior}, which is none of its key"
        yield Finding(VERSION, agent or "", seq, what, _REPAIR)
    for pos, agent, seq, state in view.unstated(after, until):
        what = "is newer than what is kept as the newest version of its key" if state else "its key is not kept at all"
        hint = "the log is right: holdfast repair derives the state from it again"
        yield Finding(STATE, agent or "", seq, what, hint, f"at least {pos}", str(state or "none"))


def _heads(corpus: SqlCorpus, view: Snapshot, branches: dict[int, Branch], after: int, until: int) -> Iterator[Finding]:
    """Signed heads among these records that no key of their stream has signed."""
    for head, link in view.signed_in(after, until):
        branch = branches.get(head.branch)
        if branch is not None and not _signed(corpus, branch, head, link):
            what = "the signature of the head is by no key of its stream, or of another record"
            yield Finding(SIGNATURE, branch.agent, head.seq, what, _REPAIR)


def _signed(corpus: SqlCorpus, branch: Branch, head: Signed, link: bytes) -> bool:
    message = records.head_message(branch.stream, head.seq, link)
    keys = [branch.current_key, branch.public_key]
    if any(seal.verify(key, message, head.signature) for key in keys):
        return True
    # Only after several rotations: the keys in between are in the records that handed over.
    sql = "SELECT body FROM rec WHERE kind=(SELECT id FROM name WHERE s=?) AND length(body)=32"
    return any(
        bytes(row[0]) not in keys and seal.verify(bytes(row[0]), message, head.signature)
        for row in corpus.engine.query(sql, (ROTATE,))
    )
