"""A scan proves everything that one file holds: every record, chain, signature, key's newest version, blob and page.

It reads one snapshot, so writers may go on. What cannot be seen from inside the file, a tail that was cut off or a
file that was put back, shows only against the anchor handed in, and against the hub.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from holdfast import records, seal
from holdfast.corpus import Branch, SqlCorpus, Stored
from holdfast.corpus.snapshot import Signed, Snapshot, snapshot
from holdfast.corpus.sql import MESSAGES
from holdfast.errors import HoldfastError
from holdfast.integrity.checks import (
    ANCHOR,
    BLOB_SCRUB,
    CHAIN,
    CHECKS,
    CHECKSUM,
    HUB,
    INDEX,
    PAGE,
    SIGNATURE,
    SIZE,
    STATE,
    TIME,
    VERSION,
    WAL,
    Blobs,
    Finding,
    Line,
    Versions,
    blob_of,
    check_ahead,
    check_blob,
    check_blob_size,
    check_payload,
    check_size,
)
from holdfast.integrity.derived import Derived, count_words, own_branches, words
from holdfast.integrity.orphans import old_files, orphans
from holdfast.integrity.redactions import Redactions
from holdfast.log.anchor import Mark
from holdfast.log.erasure import REAPPLIED
from holdfast.log.prune import BEGIN_SEQ, Begin
from holdfast.records import DELETE_PREFIX, PRUNE, REDACT, ROTATE, TOMBSTONE, VALUE
from holdfast.sqlite.doctor import Diagnosis

BLOB: Final = BLOB_SCRUB
FINDINGS_MAX: Final = 1000
"""A file that is damaged all over would fill memory with its story."""
ORPHAN_GRACE_S: Final = 86_400.0
"""A blob is written before the record that refers to it; whoever was killed in between leaves one behind."""
_WALKED: Final = frozenset((CHECKSUM, CHAIN, TIME, SIZE, VERSION, SIGNATURE, BLOB, STATE))
_RESTORE: Final = "keep the file as it is: holdfast repair --plan says what can be put back, and from where"
_DERIVED: Final = "the records are right: holdfast repair derives the index from them again"


class Acked(NamedTuple):
    """What a hub has said that it holds of a stream: up to `seq`, whose link is `link`."""

    hub: str
    stream: bytes
    seq: int
    link: bytes


class Outside(msgspec.Struct, frozen=True, kw_only=True):
    """What a corpus cannot know of itself, handed in by whoever knows.

    Attributes:
        acked: what hubs have acknowledged.
        now_ms: the wall clock (ms since 1970); None: stamps are not held against it.
        referred: digests of blobs that somebody else refers to; None: blobs without a reference are not looked for.
        grace_s: how old (seconds) such a blob must be to be named.
        wal: what the doctor saw of the write-ahead log before the file was opened.
    """

    acked: Sequence[Acked] = ()
    now_ms: int | None = None
    referred: Container[bytes] | None = None
    grace_s: float = ORPHAN_GRACE_S
    wal: Diagnosis | None = None


NOTHING: Final = Outside()


class Scan(msgspec.Struct, kw_only=True):
    """What a scan looked at, and what it found.

    Attributes:
        findings: what is wrong, at most `FINDINGS_MAX` of it; empty when everything is proven.
        notes: what is not as it should be and harms nothing: blobs that no record refers to.
        left_out: how many findings there were beyond that.
        records: how many were read.
        branches: how many chains.
        keys: how many keys have had a version.
        payload_bytes: the bytes that the headers speak for, before compression, without blobs.
        missing: bodies that are not here, for a reason that their row names.
        blobs: different blobs that records refer to.
        signatures: signed heads that were checked.
        seconds: how long it took.
    """

    findings: list[Finding] = []
    notes: list[Finding] = []
    left_out: int = 0
    records: int = 0
    branches: int = 0
    keys: int = 0
    payload_bytes: int = 0
    missing: int = 0
    blobs: int = 0
    signatures: int = 0
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def verify_corpus(
    corpus: SqlCorpus,
    blobs: Blobs | None = None,
    *,
    anchor: Mark | None = None,
    full: bool = True,
    outside: Outside = NOTHING,
    checks: Collection[str] = CHECKS,
) -> Scan:
    """Proves what a file holds, or says what is not proven; changes nothing.

    Args:
        corpus: the file.
        blobs: where its blobs are; without it they are not looked for.
        anchor: where the anchor saw the head; without it a cut tail is not seen.
        full: also hash every payload and blob, and read every page; else headers, chains and signatures only.
        outside: what else is known from outside the file.
        checks: which of `holdfast.integrity.checks.CHECKS` are made. Among all of them one break is found once, by
            the check that says most of it; each alone finds whatever it can see.

    Returns:
        The scan. Damage never raises: what could not be read is a finding too.
    """
    begun = time.perf_counter()
    scan, on = Scan(), frozenset(checks)
    if WAL in on and outside.wal is not None and outside.wal.damaged:
        what = f"the write-ahead log was damaged before it was opened: {outside.wal.state}"
        actual = f"frame {outside.wal.first_bad}, {outside.wal.commits_behind} whole commits behind it"
        _note(scan, Finding(WAL, "", 0, what, _RESTORE, "only valid frames", actual))
    try:
        with snapshot(corpus) as view:
            _Walk(corpus, view, scan, on, full).run(anchor, blobs, outside)
            for agent, what in view.index() if INDEX in on and full else ():
                _note(scan, Finding(INDEX, agent, 0, what, _DERIVED))
    except HoldfastError as error:
        _note(scan, Finding(PAGE, "", 0, f"the scan broke off: {error.message}", error.hint))
    for check, part in _PARTS:
        if check in on and (full or check == SIZE):
            for what in _below(corpus, part):
                _note(scan, Finding(check, "", 0, what, _RESTORE))
    scan.seconds = time.perf_counter() - begun
    return scan


_PARTS: Final[Any] = ((SIZE, "size"), (PAGE, (1, 1 << 32)), (INDEX, "indexes"))


def _below(corpus: SqlCorpus, part: Any) -> list[str]:
    try:
        return corpus.engine.scrub_part(part)
    except HoldfastError as error:
        return [f"the file cannot be opened: {error.message}"]


def _note(scan: Scan, finding: Finding) -> None:
    if len(scan.findings) < FINDINGS_MAX:
        scan.findings.append(finding)
    else:
        scan.left_out += 1


class _Key(msgspec.Struct, gc=False):
    """What the log says of a key: its newest version, what hides it, and the stamps of both."""

    pos: int
    gone: int
    hlc: int
    gone_hlc: int


class _Walk:
    """One pass over a snapshot, in commit order."""

    def __init__(self, corpus: SqlCorpus, view: Snapshot, scan: Scan, on: frozenset[str], full: bool) -> None:
        self.corpus, self.view, self.scan, self.on, self.full = corpus, view, scan, on, full
        self.branches: dict[int, Branch] = {branch.id: branch for branch in corpus.branches()}
        self.parents = view.parents()
        # An agent's file holds one chain, whatever incarnations it went through; their rows say who wrote which part.
        self.single = None if corpus.hub else min(self.branches, default=0)
        self.lines: dict[int, Line] = {}
        self.latest: dict[int, Stored] = {}
        self.rotated: dict[int, list[tuple[int, bytes | None]]] = {}
        self.signed: dict[tuple[int, int], list[Signed]] = {}
        for head in view.signed() if SIGNATURE in on else ():
            self.signed.setdefault((head.branch, head.seq), []).append(head)
        self.state: dict[tuple[str, str], dict[str, _Key]] = {}
        self.blobs: dict[bytes, Stored] = {}
        self.begin: int = view.meta(BEGIN_SEQ) or 0
        self.versions = Versions(self.begin)
        self.found_by = Derived(
            corpus, own_branches(corpus, list(self.branches.values())), proven=CHECKSUM in on and full
        )
        self.redactions = Redactions(self.begin, view.meta(REAPPLIED))
        self.pos = self.bytes = 0
        # What the walk has to do for the checks that are on, looked up once and not for every record.
        self.sizes, self.hashes = SIZE in on, CHECKSUM in on and full
        self.derives, self.follows = bool(on & {STATE, VERSION}), VERSION in on and not corpus.hub
        self.lists = full and STATE in on
        self.lined = on & {CHAIN, TIME, VERSION, SIGNATURE}

    def run(self, anchor: Mark | None, blobs: Blobs | None, outside: Outside) -> None:
        scan, see, files = self.scan, self.see, []
        if BLOB in self.on and blobs is not None and outside.referred is not None:
            files = list(old_files(blobs, outside.grace_s))  # before the records: a reference is made behind its blob
        if self.on & _WALKED:
            for scan.records, stored in enumerate(self.view.records(), 1):
                see(stored)
        scan.payload_bytes = self.bytes
        scan.branches = len(self.branches)
        self.take(each for each in self.redactions.findings() if each.check in self.on)
        self.take(self.ends(anchor, outside))
        scan.blobs = len(self.blobs)
        if blobs is not None:
            self.take(self.look_for(blobs))
            self.take_notes(files, outside.referred)
        if INDEX in self.on and self.full:
            self.take(words(self.view))
            self.take(count_words(self.view))

    # ---- record by record

    def see(self, stored: Stored) -> None:
        record, hub, seq = stored.record, self.corpus.hub, stored.record.seq
        self.bytes += record.payload_len
        if stored.body is None or record.kind == REDACT:
            self.redactions.see(stored)
        self.look_at_body(stored)
        if stored.pos != (self.pos + 1 if hub else seq) and VERSION in self.on:
            self.note(
                stored, VERSION, f"lies at position {stored.pos}, behind {self.pos}: records are missing or moved"
            )
        self.pos = stored.pos
        if self.derives and record.flags & (VALUE | TOMBSTONE):
            self.derive(stored)
        if self.lists and (hub or record.collection == MESSAGES):  # in an agent's file only those have any
            self.found_by.see(stored)
        if seq <= self.begin:
            return  # kept for the value of its key; its neighbours were pruned
        number = stored.branch if self.single is None else self.single
        if self.lined:
            self.follow(stored, number)
        if self.follows:
            finding = self.versions.see(stored)
            if finding is not None:
                self.take((finding,))

    def follow(self, stored: Stored, number: int) -> None:
        """Holds a record against the chain that it is in, and signed heads against it."""
        record, seq = stored.record, stored.record.seq
        if stored.branch not in self.branches:
            if CHAIN in self.on:
                self.note(stored, CHAIN, f"the record belongs to branch {stored.branch}: unknown")
            return
        line = self.lines.get(number)
        if line is None:
            branch = self.branches[number]
            line = self.lines[number] = Line(branch.stream, branch.base_seq, branch.base_link)
            self.take(finding for finding in self.begins(branch, line, stored) if finding.check in self.on)
        last = line.hlc
        wrong = line.see(stored)
        if wrong:
            self.take(self.once(wrong))
        if line.hlc > last:
            self.latest[number] = stored
        if (number, seq) in self.signed:
            for head in self.signed.pop((number, seq)):
                self.take(self.check_head(self.branches[number], head, record.link))
        if record.kind == ROTATE:
            key = stored.body if stored.body is not None and len(stored.body) == 32 else None
            self.rotated.setdefault(number, []).append((seq, key))

    def once(self, wrong: Sequence[Finding]) -> Iterator[Finding]:
        """Of one record's breaks those that are asked for; behind a gap no link can follow, and the gap says so."""
        gap = VERSION in self.on and any(finding.check == VERSION for finding in wrong)
        for finding in wrong:
            if finding.check in self.on and not (gap and finding.check == CHAIN):
                yield finding

    def look_at_body(self, stored: Stored) -> None:
        """Whether the body is what the header says or, if it is missing, says why."""
        if self.sizes and (finding := check_size(stored)) is not None:
            self.take((finding,))
        elif stored.body is None:
            self.scan.missing += 1
        elif self.hashes and (finding := check_payload(stored)) is not None:
            self.take((finding,))
        elif stored.is_blob and (found := blob_of(stored)) is not None:
            self.blobs.setdefault(found[0], stored)

    def note(self, stored: Stored, check: str, what: str) -> None:
        """Keeps a finding about a record."""
        _note(self.scan, Finding(check, stored.agent, stored.record.seq, what, _RESTORE))

    def take(self, findings: Iterable[Finding]) -> None:
        """Keeps findings."""
        for finding in findings:
            _note(self.scan, finding)

    def begins(self, branch: Branch, line: Line, first: Stored) -> Iterator[Finding]:
        """What is wrong with the place where a chain begins."""
        agent = branch.agent
        if records.stream_id(branch.public_key, agent) != branch.stream:
            yield Finding(SIGNATURE, agent, 0, "the stream is not that of its key and agent")
        parent = self.parents.get(branch.id)
        if first.record.kind == PRUNE and (self.begin or parent is None) and first.record.seq > 1:
            try:
                said = msgspec.json.decode(first.payload(), type=Begin)
                line.seq, line.link = said.seq, bytes.fromhex(said.link)
                head = Signed(branch.id, said.seq, line.link, bytes.fromhex(said.signature))
            except (HoldfastError, ValueError) as error:
                yield Finding(CHAIN, agent, first.record.seq, f"the prune record cannot be read: {error}")
            else:
                yield from self.check_head(branch, head, line.link)
        elif self.begin:
            yield Finding(CHAIN, agent, first.record.seq, "the log was pruned, but does not begin at a prune record")
        elif branch.base_seq == 0 or parent is None:
            if (line.seq, line.link) != (0, records.genesis(branch.stream)):
                yield Finding(CHAIN, agent, first.record.seq, "the chain does not begin at its stream's genesis")
        elif self.corpus.link_at(parent, branch.base_seq) != branch.base_link:
            yield Finding(CHAIN, agent, branch.base_seq, "the branch does not grow from the record that it names")

    def derive(self, stored: Stored) -> None:
        """Keeps what the log says of every key, by the rule that the corpus writes by."""
        record = stored.record
        at = (stored.agent, record.collection)
        try:
            keys = self.state[at]
        except KeyError:
            keys = self.state[at] = {}
        if record.kind == DELETE_PREFIX and record.flags & TOMBSTONE:
            for name, key in keys.items():
                if name.startswith(record.key) and not key.gone and key.hlc < record.hlc:
                    key.gone, key.gone_hlc = stored.pos, record.hlc
            return
        known = keys.get(record.key) if self.corpus.hub else None
        if known and known.pos != stored.prior and max(known.hlc, known.gone_hlc) > record.hlc:
            return
        gone = (stored.pos, record.hlc) if stored.gone else (0, 0)
        keys[record.key] = _Key(stored.pos, gone[0], record.hlc, gone[1])

    # ---- signatures

    def key_at(self, branch: Branch, seq: int) -> bytes | None:
        """The public key in force at a record; None when the record that names it has no body or was pruned."""
        here, high = branch, seq
        while True:
            for at, key in reversed(self.rotated.get(here.id, ())):
                if at < high:  # a rotate record itself is signed by the key that it retires
                    return key
            parent = self.parents.get(here.id)
            if parent is None or parent not in self.branches:
                break
            high = min(high, here.base_seq + 1)
            here = self.branches[parent]
        if not self.begin:
            return branch.public_key
        # Rotations before the prune are gone; only where none came since is the key known: it is today's.
        return branch.current_key if not self.rotated else None

    def check_head(self, branch: Branch, head: Signed, link: bytes) -> Iterator[Finding]:
        """What is wrong with a signed head, given the link that the record there has."""
        if head.link is not None and head.link != link:
            yield Finding(SIGNATURE, branch.agent, head.seq, "the signed head is another record's: it was rewritten")
            return
        key = self.key_at(branch, head.seq)
        if key is None:
            return
        self.scan.signatures += 1
        if not seal.verify(key, records.head_message(branch.stream, head.seq, link), head.signature):
            yield Finding(SIGNATURE, branch.agent, head.seq, "the signature of the head is not by the key in force")

    # ---- at the end

    def ends(self, anchor: Mark | None, outside: Outside) -> Iterator[Finding]:
        """What only the whole shows: heads, signatures of records that are not there, keys, and what others saw."""
        if VERSION in self.on and self.corpus.hub:
            yield from self.compare_heads()
            for _, agent, seq, prior in self.view.strayed():
                what = f"replaces the version at {prior}, which is none of its key"
                yield Finding(VERSION, agent or "", seq, what, _RESTORE)
        for (number, seq), heads in self.signed.items():
            branch = self.branches[number]
            link = self.corpus.link_at(number, seq)
            for head in heads:
                if link is None:
                    yield Finding(
                        SIGNATURE, branch.agent, seq, "a signed head names a record that is not here", _RESTORE
                    )
                else:
                    yield from self.check_head(branch, head, link)
        if self.derives:
            yield from self.compare_state(STATE if STATE in self.on else VERSION)
        if STATE in self.on:
            for seq, after in self.view.passed_over():
                yield Finding(STATE, "", seq, f"the record at seq {after} does not know this message before it")
        if self.lists:
            yield from self.found_by.findings(self.corpus, self.view)
        if TIME in self.on and outside.now_ms is not None:
            for stored in self.latest.values():
                if (finding := check_ahead(stored, outside.now_ms)) is not None:
                    yield finding
        if ANCHOR in self.on and anchor is not None:
            yield from self.compare_mark(ANCHOR, "the anchor", Acked("", anchor.stream, anchor.seq, anchor.link))
        if HUB in self.on:
            for acked in outside.acked:
                yield from self.compare_mark(HUB, acked.hub or "the hub", acked)

    def compare_heads(self) -> Iterator[Finding]:
        """Branches whose chain does not end where their row says."""
        for number, branch in self.branches.items():
            line = self.lines.get(number)
            at = (line.seq, line.link) if line is not None else (branch.base_seq, branch.base_link)
            if at != (branch.seq, branch.link):
                what = f"the chain ends at seq {at[0]}, its branch says {branch.seq}"
                yield Finding(VERSION, branch.agent, branch.seq, what, _RESTORE, str(branch.seq), str(at[0]))

    def compare_state(self, check: str) -> Iterator[Finding]:
        """Keys whose newest version is not what the log says."""
        self.scan.keys = sum(map(len, self.state.values()))
        hint = "the log is right: holdfast repair derives the state from it again"
        for agent, collection, key, pos, gone in self.view.state():
            derived = self.state.get((agent, collection), {}).pop(key, None)
            if derived is None or (derived.pos, derived.gone) != (pos, gone):
                said = f"version at {pos}" + (f", hidden by {gone}" if gone else "")
                found = "never written" if derived is None else f"at {derived.pos}, hidden by {derived.gone}"
                what = f"{collection}/{key} is said to be the {said}; by the log it is {found}"
                yield Finding(check, agent or "", 0, what, hint, found, said)
        for (agent, collection), keys in self.state.items():
            for key, derived in keys.items():
                what = f"{collection}/{key} is in the log and not among the newest versions"
                yield Finding(check, agent, 0, what, hint, f"at {derived.pos}", "none")

    def compare_mark(self, check: str, who: str, mark: Acked) -> Iterator[Finding]:
        """A log that ends before, or goes another way than, where somebody outside it saw it."""
        branch = next((b for b in self.branches.values() if b.stream == mark.stream), None)
        agent = branch.agent if branch else ""
        hint = "holdfast repair --plan: what the hub has can be taken back"
        last = max((self.corpus.head(b.id).seq for b in self.branches.values() if b.stream == mark.stream), default=0)
        if mark.seq > last:
            what = f"the log ends at seq {last}, but stood at {mark.seq}: a tail was cut off, or an old file put back"
            yield Finding(check, agent, mark.seq, f"{who} saw more: {what}", hint, str(mark.seq), str(last))
        elif branch and mark.seq > self.begin:
            links = {
                b.id: self.corpus.link_at(b.id, mark.seq) for b in self.branches.values() if b.stream == mark.stream
            }
            if mark.link not in links.values():
                what = f"the record here is not the one that {who} saw: the log was rewritten, or forked"
                actual = next((link.hex() for link in links.values() if link), "none")
                yield Finding(check, agent, mark.seq, what, hint, mark.link.hex(), actual)

    # ---- blobs

    def look_for(self, blobs: Blobs) -> Iterator[Finding]:
        """Blobs that are not here, or rotten; the scrub says it, or without it the checks of sizes and bytes."""
        scrubbed = BLOB in self.on
        for stored in self.blobs.values():
            finding = None
            if scrubbed or self.sizes:
                finding = check_blob_size(stored, blobs, BLOB if scrubbed else SIZE)
            if finding is None and self.full and (scrubbed or self.hashes):
                finding = check_blob(stored, blobs, BLOB if scrubbed else CHECKSUM)
            if finding is not None:
                yield finding

    def take_notes(self, files: Iterable[bytes], referred: Container[bytes] | None) -> None:
        """Keeps the names of blobs to which nothing refers."""
        self.scan.notes += orphans((each for each in files if each not in self.blobs), referred or ())
