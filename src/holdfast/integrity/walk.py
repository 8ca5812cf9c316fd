"""One pass over everything that a file holds, in commit order: what a scan of it is made of."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import records, seal
from holdfast.corpus import Branch, SqlCorpus, Stored
from holdfast.corpus.snapshot import Signed, Snapshot
from holdfast.corpus.sql import MESSAGES
from holdfast.errors import HoldfastError
from holdfast.integrity.checks import (
    ANCHOR,
    BLOB_SCRUB,
    CHAIN,
    CHECKSUM,
    HUB,
    SIGNATURE,
    SIZE,
    STATE,
    TIME,
    VERSION,
    Blobs,
    Finding,
    Line,
    blob_of,
    check_ahead,
    check_blob,
    check_blob_size,
    check_payload,
    check_size,
    check_version,
)
from holdfast.integrity.derived import Derived, own_branches
from holdfast.integrity.orphans import old_files, orphans
from holdfast.integrity.quick import Key, Quick
from holdfast.integrity.redactions import Redactions
from holdfast.integrity.verdict import Acked, Outside, Scan
from holdfast.log.anchor import Mark
from holdfast.log.erasure import REAPPLIED
from holdfast.log.prune import BEGIN_SEQ, Begin
from holdfast.records import DELETE_PREFIX, PRUNE, REDACT, ROTATE, TOMBSTONE, VALUE

BLOB: Final = BLOB_SCRUB
WALKED: Final = frozenset((CHECKSUM, CHAIN, TIME, SIZE, VERSION, SIGNATURE, BLOB, STATE))
RESTORE: Final = "keep the file as it is: holdfast repair --plan says what can be put back, and from where"
_WIDTH: Final = 22
"""The columns of a record; what `Snapshot.rows` gives behind them is no part of it."""


class Walk:
    """One pass over a snapshot, in commit order.

    Args:
        corpus: the file.
        view: the snapshot.
        scan: where findings and counts go.
        on: the checks to be made.
        full: also hash every payload and blob.
    """

    def __init__(self, corpus: SqlCorpus, view: Snapshot, scan: Scan, on: frozenset[str], full: bool) -> None:
        self.corpus, self.view, self.scan, self.on, self.full = corpus, view, scan, on, full
        self.branches: dict[int, Branch] = {branch.id: branch for branch in corpus.branches()}
        self.parents = view.parents()
        # An agent's file holds one chain, whatever incarnations it went through; their rows say who wrote which part.
        self.single = None if corpus.hub else min(self.branches, default=0)
        self.lines: dict[int, Line] = {}
        self.latest: dict[int, Any] = {}  # of each chain the row with the latest stamp
        self.tips: dict[int, Any] = {}  # of each branch the last row
        self.rotated: dict[int, list[tuple[int, bytes | None]]] = {}
        self.signed: dict[tuple[int, int], list[Signed]] = {}
        for head in view.signed() if SIGNATURE in on else ():
            self.signed.setdefault((head.branch, head.seq), []).append(head)
        self.state: dict[tuple[str, str], dict[str, Key]] = {}
        self.blobs: dict[bytes, Stored] = {}
        self.begin: int = view.meta(BEGIN_SEQ) or 0
        self.found_by = Derived(
            corpus, own_branches(corpus, list(self.branches.values())), proven=CHECKSUM in on and full
        )
        self.redactions = Redactions(self.begin, view.meta(REAPPLIED))
        self.passed: list[tuple[int, int]] = []  # messages, and who forgets them
        self.pos = self.bytes = 0
        # What the walk has to do for the checks that are on, looked up once and not for every record.
        self.sizes, self.hashes = SIZE in on, CHECKSUM in on and full
        self.derives, self.follows = bool(on & {STATE, VERSION}), VERSION in on and not corpus.hub
        self.lists = full and STATE in on
        self.lined = on & {CHAIN, TIME, VERSION, SIGNATURE}
        self.short = Quick(self) if full and on >= WALKED else None

    def run(self, anchor: Mark | None, blobs: Blobs | None, outside: Outside) -> None:
        """Looks at everything, and keeps in the scan what is found."""
        scan, files = self.scan, []
        if BLOB in self.on and blobs is not None and outside.referred is not None:
            files = list(old_files(blobs, outside.grace_s))  # before the records: a reference is made behind its blob
        if self.on & WALKED:
            self.go()
        scan.payload_bytes = self.bytes
        scan.branches = len(self.branches)
        for number, tip in self.tips.items():
            record = (tip if isinstance(tip, Stored) else self.stored(tip)).record
            scan.ends[number] = record.seq, record.link.hex()
        self.take(each for each in self.redactions.findings() if each.check in self.on)
        self.take(self.ends(anchor, outside))
        scan.blobs = len(self.blobs)
        if blobs is not None:
            self.take(self.look_for(blobs))
            self.take_notes(files, outside.referred)

    # ---- record by record

    def go(self) -> None:
        """Sees every record, by the short way where all checks are made."""
        short = self.short
        for rows in self.view.rows():
            self.scan.records += len(rows)
            if short is not None:
                short.take(rows)
                continue
            for row in rows:
                self.see(self.stored(row))

    def stored(self, row: Any) -> Stored:
        """The record in a row of the snapshot."""
        return self.corpus.bare(row[:_WIDTH])

    def see(self, stored: Stored) -> Stored:
        """Makes every check of one record; returns it."""
        record, hub, seq = stored.record, self.corpus.hub, stored.record.seq
        self.tips[stored.branch] = stored
        self.bytes += record.payload_len
        if stored.body is None or record.kind == REDACT:
            self.redactions.see(stored)
        self.look_at_body(stored)
        if stored.pos != (self.pos + 1 if hub else seq) and VERSION in self.on:
            self.note(
                stored, VERSION, f"lies at position {stored.pos}, behind {self.pos}: records are missing or moved"
            )
        self.pos = stored.pos
        wrong = None
        if self.derives and record.flags & (VALUE | TOMBSTONE):
            wrong = self.derive(stored)
        if self.lists and (hub or record.collection == MESSAGES):  # in an agent's file only those have any
            self.found_by.see(stored)
        if seq <= self.begin:
            return stored  # kept for the value of its key; its neighbours were pruned
        if self.lined:
            self.follow(stored, stored.branch if self.single is None else self.single)
        if self.follows and wrong is not None:
            self.take((wrong,))
        return stored

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
        self.scan.note(Finding(check, stored.agent, stored.record.seq, what, RESTORE))

    def take(self, findings: Iterable[Finding]) -> None:
        """Keeps findings."""
        for finding in findings:
            self.scan.note(finding)

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

    def derive(self, stored: Stored) -> Finding | None:
        """Keeps what the log says of every key, by the rule that the corpus writes by.

        Returns:
            The finding if the record is not the version of its key that comes next, which only one chain can tell.
        """
        record = stored.record
        at = (stored.agent, record.collection)
        try:
            keys = self.state[at]
        except KeyError:
            keys = self.state[at] = {}
        known = keys.get(record.key)
        wrong = None
        if self.follows and record.collection:
            wrong = check_version(stored, *((known.pos, known.version) if known else (0, 0)), self.begin)
        if record.kind == DELETE_PREFIX and record.flags & TOMBSTONE:
            for name, key in keys.items():
                if name.startswith(record.key) and not key.gone and key.hlc < record.hlc:
                    key.gone, key.gone_hlc = stored.pos, record.hlc
            return wrong
        late = self.corpus.hub and known is not None and known.pos != stored.prior
        if late and known is not None and max(known.hlc, known.gone_hlc) > record.hlc:
            return wrong
        gone = (stored.pos, record.hlc) if stored.gone else (0, 0)
        keys[record.key] = Key(stored.pos, record.key_version, record.hlc, *gone)
        return wrong

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
                yield Finding(VERSION, agent or "", seq, what, RESTORE)
        for (number, seq), heads in self.signed.items():
            branch = self.branches[number]
            link = self.corpus.link_at(number, seq)
            for head in heads:
                if link is None:
                    yield Finding(
                        SIGNATURE, branch.agent, seq, "a signed head names a record that is not here", RESTORE
                    )
                else:
                    yield from self.check_head(branch, head, link)
        if self.derives:
            yield from self.compare_state(STATE if STATE in self.on else VERSION)
        if STATE in self.on:
            for seq, after in self.view.passed_over() if self.short is None else self.passed:
                yield Finding(STATE, "", seq, f"the record at seq {after} does not know this message before it")
        if self.lists:
            yield from self.found_by.findings(self.corpus, self.view)
        if TIME in self.on and outside.now_ms is not None:
            for newest in self.latest.values():
                stored = newest if isinstance(newest, Stored) else self.stored(newest)
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
                yield Finding(VERSION, branch.agent, branch.seq, what, RESTORE, str(branch.seq), str(at[0]))

    def compare_state(self, check: str) -> Iterator[Finding]:
        """Keys whose newest version is not what the log says."""
        self.scan.keys = sum(map(len, self.state.values()))
        hint = "the log is right: holdfast repair derives the state from it again"
        for agent, collection, key, pos, gone in self.view.state():
            keys = None if agent is None or collection is None else self.state.get((agent, collection))
            derived = None if keys is None else keys.pop(key, None)
            if derived is None or (derived.pos, derived.gone) != (pos, gone):
                said = f"version at {pos}" + (f", hidden by {gone}" if gone else "")
                found = "never written" if derived is None else f"at {derived.pos}, hidden by {derived.gone}"
                what = f"{collection}/{key} is said to be the {said}; by the log it is {found}"
                yield Finding(check, agent or "", 0, what, hint, found, said)
        for (agent, collection), left in self.state.items():
            for key, derived in left.items():
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
