"""A scan proves everything that one file holds: every record, chain, signature, key's newest version, blob and page.

It reads one snapshot, so writers may go on. What cannot be seen from inside the file, a tail that was cut off or a
file that was put back, shows only against the anchor handed in, and against the hub.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import msgspec

from holdfast import records, seal
from holdfast.corpus import Branch, SqlCorpus, Stored
from holdfast.corpus.snapshot import Signed, Snapshot, snapshot
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.integrity.checks import CHAIN, VERSION, Finding, Line, Versions, check_payload, check_size
from holdfast.integrity.redactions import Redactions
from holdfast.log.anchor import Mark
from holdfast.log.erasure import REAPPLIED
from holdfast.log.prune import BEGIN_SEQ, Begin
from holdfast.records import DELETE_PREFIX, PRUNE, ROTATE, TOMBSTONE, VALUE

ANCHOR: Final = "anchor"
BLOB: Final = "blob"
PAGE: Final = "page"
SIGNATURE: Final = "signature"
STATE: Final = "state"

FINDINGS_MAX: Final = 1000
"""A file that is damaged all over would fill memory with its story."""


class BlobStore(Protocol):
    """Where blobs are."""

    def has(self, digest: bytes) -> bool:
        """Whether it is here, by its name."""
        ...

    def verify(self, digest: bytes) -> bool:
        """Whether it is here and its bytes have this digest."""
        ...


class Scan(msgspec.Struct, kw_only=True):
    """What a scan looked at, and what it found.

    Attributes:
        findings: what is wrong, at most `FINDINGS_MAX` of it; empty when everything is proven.
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
    corpus: SqlCorpus, blobs: BlobStore | None = None, *, anchor: Mark | None = None, full: bool = True
) -> Scan:
    """Proves what a file holds, or says what is not proven; changes nothing.

    Args:
        corpus: the file.
        blobs: where its blobs are; without it they are not looked for.
        anchor: where the anchor saw the head; without it a cut tail is not seen.
        full: also hash every payload and blob, and read every page; else headers, chains and signatures only.

    Returns:
        The scan. Damage never raises: what could not be read is a finding too.
    """
    begun = time.perf_counter()
    scan = Scan()
    try:
        with snapshot(corpus) as view:
            _Walk(corpus, view, scan, full).run(anchor, blobs)
    except HoldfastError as error:
        _note(scan, Finding(PAGE, "", 0, f"the scan broke off: {error.message}", error.hint))
    if full:
        for what in corpus.engine.scrub():
            _note(scan, Finding(PAGE, "", 0, what, "restore the file, or refetch it from the hub"))
    scan.seconds = time.perf_counter() - begun
    return scan


def _note(scan: Scan, finding: Finding) -> None:
    if len(scan.findings) < FINDINGS_MAX:
        scan.findings.append(finding)
    else:
        scan.left_out += 1


class _Key(msgspec.Struct):
    """What the log says of a key: its newest version, what hides it, and the stamps of both."""

    pos: int
    gone: int
    hlc: int
    gone_hlc: int


class _Walk:
    """One pass over a snapshot, in commit order."""

    def __init__(self, corpus: SqlCorpus, view: Snapshot, scan: Scan, full: bool) -> None:
        self.corpus, self.view, self.scan, self.full = corpus, view, scan, full
        self.branches: dict[int, Branch] = {branch.id: branch for branch in corpus.branches()}
        self.parents = view.parents()
        # An agent's file holds one chain, whatever incarnations it went through; their rows say who wrote which part.
        self.single = None if corpus.hub else min(self.branches, default=0)
        self.lines: dict[int, Line] = {}
        self.rotated: dict[int, list[tuple[int, bytes | None]]] = {}
        self.signed: dict[tuple[int, int], list[Signed]] = {}
        for head in view.signed():
            self.signed.setdefault((head.branch, head.seq), []).append(head)
        self.state: dict[tuple[str, str], dict[str, _Key]] = {}
        self.blobs: dict[bytes, Stored] = {}
        self.begin: int = view.meta(BEGIN_SEQ) or 0
        self.versions = Versions(self.begin)
        self.redactions = Redactions(self.begin, view.meta(REAPPLIED))
        self.pos = self.bytes = 0

    def run(self, anchor: Mark | None, blobs: BlobStore | None) -> None:
        scan, see = self.scan, self.see
        for scan.records, stored in enumerate(self.view.records(), 1):
            see(stored)
        scan.payload_bytes = self.bytes
        scan.branches = len(self.branches)
        self.take(self.redactions.findings())
        self.take(self.ends(anchor))
        scan.blobs = len(self.blobs)
        if blobs is not None:
            self.take(self.look_for(blobs))

    # ---- record by record

    def see(self, stored: Stored) -> None:
        record, hub, seq = stored.record, self.corpus.hub, stored.record.seq
        self.bytes += record.payload_len
        self.redactions.see(stored)
        self.look_at_body(stored)
        if stored.pos != (self.pos + 1 if hub else seq):
            self.note(
                stored, VERSION, f"lies at position {stored.pos}, behind {self.pos}: records are missing or moved"
            )
        self.pos = stored.pos
        if record.flags & (VALUE | TOMBSTONE):
            self.derive(stored)
        if seq <= self.begin:
            return  # kept for the value of its key; its neighbours were pruned
        number = stored.branch if self.single is None else self.single
        line = self.lines.get(number)
        if stored.branch not in self.branches:
            return self.note(stored, CHAIN, f"the record belongs to branch {stored.branch}: unknown")
        if line is None:
            branch = self.branches[number]
            line = self.lines[number] = Line(branch.stream, branch.base_seq, branch.base_link)
            self.take(self.begins(branch, line, stored))
        wrong = line.see(stored)
        if wrong:
            self.take(wrong)
        if not hub:
            finding = self.versions.see(stored)
            if finding is not None:
                self.take((finding,))
        if (number, seq) in self.signed:
            for head in self.signed.pop((number, seq)):
                self.take(self.check_head(self.branches[number], head, record.link))
        if record.kind == ROTATE:
            key = stored.body if stored.body is not None and len(stored.body) == 32 else None
            self.rotated.setdefault(number, []).append((seq, key))

    def look_at_body(self, stored: Stored) -> None:
        """Whether the body is what the header says or, if it is missing, says why."""
        finding = check_size(stored)
        if finding is not None:
            self.take((finding,))
        elif stored.body is None:
            self.scan.missing += 1
        elif self.full and (finding := check_payload(stored)) is not None:
            self.take((finding,))
        elif stored.is_blob and (digest := _digest(stored)):
            self.blobs.setdefault(digest, stored)

    def note(self, stored: Stored, check: str, what: str) -> None:
        """Keeps a finding about a record."""
        _note(self.scan, Finding(check, stored.agent, stored.record.seq, what))

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

    def ends(self, anchor: Mark | None) -> Iterator[Finding]:
        """What only the whole shows: heads, signatures of records that are not there, keys, and the anchor."""
        for number, branch in self.branches.items():
            line = self.lines.get(number)
            at = (line.seq, line.link) if line is not None else (branch.base_seq, branch.base_link)
            if self.corpus.hub and at != (branch.seq, branch.link):
                what = f"the chain ends at seq {at[0]}, its branch says {branch.seq}"
                yield Finding(VERSION, branch.agent, branch.seq, what, "a tail is missing: holdfast recover")
        for (number, seq), heads in self.signed.items():
            branch = self.branches[number]
            link = self.corpus.link_at(number, seq)
            for head in heads:
                if link is None:
                    yield Finding(SIGNATURE, branch.agent, seq, "a signed head names a record that is not here")
                else:
                    yield from self.check_head(branch, head, link)
        yield from self.compare_state()
        for seq, after in self.view.passed_over():
            yield Finding(STATE, "", seq, f"the record at seq {after} does not know this message before it")
        if anchor is not None:
            yield from self.compare_anchor(anchor)

    def compare_state(self) -> Iterator[Finding]:
        """Keys whose newest version is not what the log says."""
        self.scan.keys = sum(map(len, self.state.values()))
        for agent, collection, key, pos, gone in self.view.state():
            derived = self.state.get((agent, collection), {}).pop(key, None)
            if derived is None or (derived.pos, derived.gone) != (pos, gone):
                said = f"version at {pos}" + (f", hidden by {gone}" if gone else "")
                found = "never written" if derived is None else f"at {derived.pos}, hidden by {derived.gone}"
                what = f"{collection}/{key} is said to be the {said}; by the log it is {found}"
                yield Finding(STATE, agent or "", 0, what, "the log is right: derive the state from it again")
        for (agent, collection), keys in self.state.items():
            for key in keys:
                yield Finding(STATE, agent, 0, f"{collection}/{key} is in the log and not among the newest versions")

    def compare_anchor(self, anchor: Mark) -> Iterator[Finding]:
        """A log that ends before, or goes another way than, where the anchor saw it."""
        line = next((line for line in self.lines.values() if line.stream == anchor.stream), None)
        branch = next((b for b in self.branches.values() if b.stream == anchor.stream), None)
        agent = branch.agent if branch else ""
        hint = "holdfast recover takes back what the hub has"
        last = line.seq if line else 0
        if anchor.seq > last:
            what = f"the log ends at seq {last}, but stood at {anchor.seq}: a tail was cut off, or an old file put back"
            yield Finding(ANCHOR, agent, anchor.seq, what, hint)
        elif branch and anchor.seq > self.begin and self.corpus.link_at(branch.id, anchor.seq) != anchor.link:
            what = "the record here is not the one that the anchor saw: the log was rewritten"
            yield Finding(ANCHOR, agent, anchor.seq, what, hint)

    def look_for(self, blobs: BlobStore) -> Iterator[Finding]:
        """Blobs that are not here, or rotten."""
        for digest, stored in self.blobs.items():
            if not blobs.has(digest):
                what = f"the blob {digest.hex()} is not here"
                yield Finding(BLOB, stored.agent, stored.record.seq, what, "the hub holds it: holdfast recover")
            elif self.full and not blobs.verify(digest):
                what = f"the bytes of the blob {digest.hex()} are not what was stored"
                yield Finding(BLOB, stored.agent, stored.record.seq, what, "the hub holds it: holdfast recover")


def _digest(stored: Stored) -> bytes:
    try:
        return records.read_blob_reference(stored.payload())[0]
    except IntegrityError:  # only where payloads are not hashed; then it is that check's finding
        return b""
