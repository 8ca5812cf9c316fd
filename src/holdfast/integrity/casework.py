"""Looks at one agent's log on a copy, and works out what is missing, who has it, and how far the log can be put right.

Nothing here writes to the log's folder; what it finds becomes a `Case`, which `holdfast.integrity.recovery_log` mends.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from holdfast import codec
from holdfast.corpus import Branch
from holdfast.errors import HoldfastError
from holdfast.integrity import incidents, pieces, rebuild
from holdfast.integrity.checks import ANCHOR, Finding
from holdfast.integrity.pieces import Judge, Piece, Pool, Solved
from holdfast.integrity.recovery import MANUAL, MASS_MIN, REDERIVE, VERSION_ROLLBACK, Facts, Step, strategy_for
from holdfast.integrity.recovery_log import Case, Ground, blanked, reapplied
from holdfast.integrity.remains import Remains, is_cut, strays
from holdfast.integrity.scan import verify_corpus
from holdfast.integrity.source import BACKUP, HUB, Held, Source
from holdfast.log.anchor import Anchor
from holdfast.log.anchor import Mark as Stand
from holdfast.log.erasure import Erasure, erasure_of, is_redact, redacted
from holdfast.log.opening import new_incarnation
from holdfast.records import BLOB, head_message
from holdfast.seal import verify as verify_signature
from holdfast.sqlite import doctor
from holdfast.wire import Mark

COPIES_MAX: Final = 5
"""So many earlier quarantines are searched for bytes."""
WAL: Final = "wal"
FILE: Final = "file"
PAGES: Final = "pages"


def fingerprint(folder: Path) -> str:
    """A digest of a log's files as they are; call only while nobody has it open."""
    digest = hashlib.sha256()
    for name in (rebuild.LOG, f"{rebuild.LOG}-wal", rebuild.ANCHOR):
        path = folder / name
        digest.update(name.encode() + b"\0")
        if path.exists():
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def anchor_of(folder: Path) -> Stand | None:
    """Where the anchor saw the log; None without an anchor that can be read."""
    path = folder / rebuild.ANCHOR
    if not path.exists():
        return None
    anchor = Anchor(path)
    try:
        return anchor.read()
    finally:
        anchor.close()


def examine(folder: Path, agent: str, ground: Ground, scratch: Path) -> Case:
    """Looks at a log on a copy and works out what it takes to put it right; writes nothing into its folder.

    Call under `rebuild.alone`. The copy stays open in the case, for `mend`; close it with ``case.remains.close()``.

    Args:
        folder: the agent's.
        agent: its name.
        ground: what the node hands in.
        scratch: a folder for copies; made.
    """
    print_, anchor = fingerprint(folder), anchor_of(folder)
    path = folder / rebuild.LOG
    diagnosis = doctor.examine(path)
    size = sum(Path(f"{path}{end}").stat().st_size for end in ("", "-wal") if Path(f"{path}{end}").exists())
    remains = Remains(rebuild.copy_of(path, scratch), agent, ground.keys)
    facts = Facts(agent=agent, now_ms=ground.clock.now_ms(), store_bytes=size, free_bytes=ground.free(folder))
    case = Case(folder=folder, agent=agent, print=print_, facts=facts, remains=remains)
    if diagnosis.damaged:
        what = f"the WAL is {diagnosis.state} at frame {diagnosis.first_bad}: {diagnosis.commits_behind} commits behind"
        case.findings.append(Finding(WAL, agent, 0, what))
    if remains.corpus is None:
        case.findings.append(Finding(FILE, agent, 0, f"the log cannot be opened: {remains.trouble}"))
    else:
        case.findings += verify_corpus(remains.corpus, anchor=anchor).findings
    _Work(case, ground, remains, anchor, diagnosis.damaged).run()
    return case


class _Work:
    """The working out of one case."""

    def __init__(self, case: Case, ground: Ground, remains: Remains, anchor: Stand | None, wal: bool) -> None:
        self.case, self.ground, self.remains, self.anchor, self.wal = case, ground, remains, anchor, wal
        self.pool = Pool()
        self.held: list[tuple[Source, Held]] = []
        self.known: dict[str, Mark] = {}
        self.trusted: list[Mark] = []
        self.solved: list[Solved] = []
        self.lost: list[tuple[int, int]] = []
        self.apart: set[Mark] = set()  # heads of chains that leave ours
        self.asked: set[tuple[str, int, int]] = set()

    def run(self) -> None:
        case, remains = self.case, self.remains
        self._which_stream()
        self._ask_who_has()
        begin = remains.begin(case.stream)
        watch = [mark.seq for mark in self.known.values()] + [held.head.seq for _, held in self.held]
        self.judge = judge = Judge(begin, watch)
        if remains.corpus is not None:
            for piece in remains.rows(case.stream, remains.last(max(watch, default=0))):
                judge.see(piece)
        case.last_own = judge.mark.seq
        self.end = judge.end()
        for piece in (*judge.wrong, *judge.bodies.values()):
            self.pool.add(piece)
        self._find_forks()
        self._solve()
        if case.findings or not self._is_whole() or self.wal or remains.corpus is None:
            self._gather()
        self._erase()
        changed = case.fixed or case.bare or self.lost or case.facts.forks or case.head.seq != case.last_own
        case.needed = bool(case.findings or changed or case.head.seq < self._furthest())
        if case.needed:
            self._conclude()
        self._refer()

    # -- who knows what -----------------------------------------------------------------------------------------

    def _which_stream(self) -> None:
        streams = self.remains.streams
        case = self.case
        if self.anchor is not None and self.anchor.stream in streams:
            case.stream = self.anchor.stream
        elif len(streams) == 1:
            case.stream = next(iter(streams))
        else:
            # A file that says nothing, after a rotation: the stream is that of the oldest key that anybody knows it by.
            known = [s for s in streams if any(s in acked for acked in self.ground.acked.values())]
            case.stream = (known or list(streams))[-1]
        if self.anchor is not None and self.anchor.stream == case.stream:
            self.known["anchor"] = Mark(self.anchor.seq, self.anchor.link)
            self.case.facts.newest_hlc = self.anchor.hlc
        for hub, acked in self.ground.acked.items():
            if case.stream in acked:
                self.known[f"the receipt of {hub}"] = acked[case.stream]

    def _ask_who_has(self) -> None:
        keys = {*self.ground.keys, *self.remains.streams.values()}
        for source in self.ground.sources:
            if source.kind == BACKUP:
                continue  # asked only when nothing nearer has it: a backup is slow to read
            self._ask(source, keys)

    def _ask(self, source: Source, keys: set[bytes]) -> None:
        try:
            found = source.held(self.case.stream, self.case.agent)
        except (HoldfastError, OSError) as error:
            self.case.facts.away[source.name] = str(error)
            return
        for held in found:
            self.held.append((source, held))
            message = head_message(held.stream, held.head.seq, held.head.link)
            signed = bool(held.signature) and any(verify_signature(key, message, held.signature) for key in keys)
            # A hub must show that the node signed it; a copy was named by a person, a backup's manifest was signed.
            if signed or (source.kind != HUB and not held.signature):
                self.trusted.append(held.head)

    def _find_forks(self) -> None:
        """A source all of whose chains leave ours before they end holds another branch."""
        judge = self.judge
        good = self.end.before.seq
        for name in {source.name for source, _ in self.held}:
            chains = [held for source, held in self.held if source.name == name]
            apart = [h for h in chains if h.head.seq in judge.links and judge.links[h.head.seq] != h.head.link]
            if chains and len(apart) == len(chains) and all(h.head.seq <= good for h in chains):
                self.case.facts.forks.append(name)
        for who, mark in list(self.known.items()):
            if mark.seq in judge.links and judge.links[mark.seq] != mark.link:
                if who == ANCHOR:
                    self.case.facts.forks.append(who)
                else:
                    del self.known[who]  # a receipt for another branch is void; what the hub holds, it says itself

    # -- gathering ----------------------------------------------------------------------------------------------

    def _wanted(self) -> list[tuple[int, int]]:
        """The stretches of numbers of which something is missing still."""
        found = [*self.lost, *((seq, seq) for seq in self.case.bare)]
        if self._furthest() > self.case.head.seq:
            found.append((self.end.before.seq + 1, self._furthest()))
        return _joined(found)

    def _furthest(self) -> int:
        known = [mark for mark in (*self.known.values(), *self.trusted) if mark not in self.apart]
        return max([mark.seq for mark in known], default=0)

    def _is_whole(self) -> bool:
        return not self.lost and not self.case.bare and self.case.head.seq >= self._furthest()

    def _gather(self) -> None:
        """Up the ladder until nothing is missing: hubs, then this machine, then backups."""
        hubs = [source for source in self.ground.sources if source.kind == HUB]
        others = [source for source in self.ground.sources if source.kind not in (HUB, BACKUP)]
        backups = [source for source in self.ground.sources if source.kind == BACKUP]
        for source in hubs:
            self._fetch(source)
        if not self._is_whole() or self.wal or self.remains.corpus is None:
            self._search_here()
        for source in (*others, *backups):
            # Without a log, or behind a damaged WAL, nobody here may know how much there was.
            if source.kind == BACKUP and (not self._is_whole() or self.wal or self.remains.corpus is None):
                self._ask(source, set(self.ground.keys))
            self._fetch(source)
        self._part()

    def _search_here(self) -> None:
        """Looks for the records in WAL frames, stray pages and earlier quarantines: no hash, no use."""
        case = self.case
        wanted = {seq for first, last in self._wanted() for seq in range(first, last + 1)}
        for path, origin in self._places():
            for piece in strays(path, case.stream, origin, wanted, self.end.before.seq):
                self.pool.add(piece)
        self._solve()

    def _places(self) -> Iterator[tuple[Path, str]]:
        yield self.case.folder / rebuild.LOG, PAGES
        for copy in incidents.copies(self.case.folder)[:COPIES_MAX]:
            yield copy / rebuild.LOG, f"quarantine {copy.name}"

    def _fetch(self, source: Source) -> None:
        mine = [held for place, held in self.held if place is source]
        for first, last in self._wanted():
            for held in sorted(mine, key=lambda each: each.head.seq, reverse=True):
                if held.head.seq < first or (source.name, first, held.head.seq) in self.asked:
                    continue
                self.asked.add((source.name, first, held.head.seq))
                try:
                    until = min(last, held.head.seq)
                    for seq, item in enumerate(source.fetch(held.stream, held.branch, first, until), first):
                        self.pool.add(
                            Piece(seq, item.header, b"", item.salt, item.codec, item.body, item.why, 0, source.name)
                        )
                except (HoldfastError, OSError) as error:
                    self.case.facts.away[source.name] = str(error)
        if any(name == source.name for name, *_ in self.asked):
            self._solve()

    def _part(self) -> None:
        """Heads that a source showed the way to, and ours does not lead there, are other branches'."""
        first = self.end.before.seq + 1
        for source, held in self.held:
            if held.head.seq <= self.case.head.seq or held.head in self.apart:
                continue
            if not any(piece.origin == source.name for piece in self.pool.at(first)):
                continue  # it did not give what it has: nobody knows
            self.apart.add(held.head)
            ours = [h for s, h in self.held if s is source and self.judge.links.get(h.head.seq) == h.head.link]
            if not ours and source.name not in self.case.facts.forks:
                self.case.facts.forks.append(source.name)

    # -- deciding -----------------------------------------------------------------------------------------------

    def _solve(self) -> None:
        judge, case = self.judge, self.case
        self.solved, self.lost = [], []
        for run in judge.runs:
            found = pieces.solve_run(self.pool, run)
            if found is None:
                self.lost.append((run.first, run.last))
            else:
                self.solved.append(found)
        targets = [*self.known.values(), *self.trusted]
        tail = pieces.solve_end(self.pool, self.end, targets)
        self.solved.append(tail)
        case.head = tail.head
        if not tail.pieces and case.last_own == self.end.before.seq:
            case.head = self._trimmed(tail.head)
        case.fixed, case.bare = {}, {}
        others = [piece for piece in self.pool.everything() if piece.body is not None]
        for piece in (*(p for found in self.solved for p in found.pieces), *judge.bodies.values()):
            whole = pieces.body_for(self.pool, piece, others)
            if whole is None:
                case.bare[piece.seq] = piece
            else:
                case.fixed[piece.seq] = whole

    def _trimmed(self, head: Mark) -> Mark:
        """Where a log ends that was cut inside a batch: before the batch, which nobody ever saw committed."""
        settled = self.judge.settled
        known = max([mark.seq for mark in self.known.values()], default=0)
        return settled if settled.seq < head.seq and known > head.seq else head

    def _erase(self) -> None:
        """Takes out again what was erased, whoever had a copy; only what is proven to be said erases anything."""
        case, ground = self.case, self.ground
        known = [*reapplied(self.remains.meta), *(each for each in ground.erased if each.stream == case.stream)]
        if ground.kids:
            known.append(Erasure(case.stream, ground.kids))
        for piece in (*self.judge.redacts, *case.fixed.values()):
            record = pieces.record_of(piece)
            if record is not None and is_redact(record) and pieces.has_body(piece, record):
                with contextlib.suppress(HoldfastError):
                    payload = codec.unpack(piece.codec, piece.body or b"", record.payload_len)
                    known.append(erasure_of(record, payload))
        case.erased = known
        for found in (case.fixed, case.bare):
            for seq, piece in list(found.items()):
                record = pieces.record_of(piece)
                if record is not None and redacted(known, record):
                    case.fixed[seq] = blanked(piece)
                    case.bare.pop(seq, None)

    def _refer(self) -> None:
        """What blobs the log refers to, whoever it has the record from."""
        for piece in self.case.fixed.values():
            record = pieces.record_of(piece)
            if record is not None and record.flags & BLOB and piece.body is not None:
                self.judge.refer(piece, record)
        self.case.blobs = self.judge.blobs

    def _conclude(self) -> None:
        case, facts = self.case, self.case.facts
        facts.head = case.head.seq
        facts.known = {who: mark.seq for who, mark in self.known.items()}
        facts.records = max(case.last_own, case.head.seq)
        facts.lost, facts.bodies = self.lost, sorted(case.bare)
        elsewhere = [seq for seq, piece in case.fixed.items() if piece.origin not in (pieces.OWN, PAGES)]
        if not is_cut(case.folder / rebuild.LOG) and self.remains.corpus is not None:
            rotten = {seq for seq in (*elsewhere, *case.bare) if seq <= case.last_own}
            rotten |= {seq for first, last in self.lost for seq in range(first, last + 1)}
            facts.rotten = len(rotten) if len(rotten) <= MASS_MIN else len(rotten) - len(self._unharmed(rotten))
        case.branches = self._branches()
        case.steps = list(self._steps())

    def _unharmed(self, rotten: set[int]) -> set[int]:
        """Those that are whole where they lie: a page that led to them is damaged, and it is one page."""
        found = set()
        fixed = self.case.fixed
        for piece in strays(self.case.folder / rebuild.LOG, self.case.stream, PAGES, rotten, 1 << 62):
            record = pieces.record_of(piece) if piece.seq in fixed and fixed[piece.seq].header == piece.header else None
            if record is not None and pieces.is_explained(piece, record):
                found.add(piece.seq)
        return found

    def _branches(self) -> list[Branch]:
        known = rebuild.heads(self.remains.branches)
        if known:
            return known
        case = self.case
        key = self.remains.streams.get(case.stream) or next(iter(self.ground.keys), b"")
        lives = sorted(held.branch for _, held in self.held)
        inc = lives[-1] if lives else new_incarnation()
        start = self.judge.begin
        return [Branch(0, case.stream, inc, case.agent, key, key, True, start.seq, start.link, start.seq, start.link)]

    def _steps(self) -> Iterator[Step]:
        case = self.case
        check = case.findings[0].check if case.findings else ANCHOR
        kinds = {source.name: source.kind for source in self.ground.sources}
        done = False
        for first, last, origin in _spans(case.fixed):
            done = True
            found = next((f for f in case.findings if first <= f.seq <= last), None)
            yield Step(
                agent=case.agent,
                part="log",
                check=found.check if found else check,
                strategy=strategy_for(kinds.get(origin, "store")),
                first=first,
                last=last,
                source=origin,
                records=last - first + 1,
                expected=f"link {case.fixed[last].link.hex()}",
                actual=found.what if found else "not there",
            )
        for seq in sorted(case.bare):
            piece = case.bare[seq]
            record = pieces.record_of(piece)
            name = f"{record.collection}/{record.key} version {record.key_version}" if record else f"seq {seq}"
            yield Step(
                agent=case.agent,
                part="log",
                check="checksum",
                strategy=VERSION_ROLLBACK,
                first=seq,
                last=seq,
                records=1,
                expected=record.payload_hash.hex() if record else "",
                actual="nobody has its bytes",
                lost=f"what {name} held",
            )
        for first, last in self.lost:
            yield Step(agent=case.agent, part="log", check=check, strategy=MANUAL, first=first, last=last)
        if not done and not case.bare and not self.lost:
            what = case.findings[0].what if case.findings else "is behind its anchor"
            short = max([m.seq for m in self.known.values()], default=0) > case.head.seq
            yield Step(
                agent=case.agent,
                part="log",
                check=check,
                strategy=MANUAL if short else REDERIVE,
                source="" if short else "its own records",
                actual=what,
                lost=f"the records behind seq {case.head.seq}" if short else "",
            )


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if out and first <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], last))
        else:
            out.append((first, last))
    return out


def _spans(fixed: dict[int, Piece]) -> Iterator[tuple[int, int, str]]:
    first = last = 0
    origin = ""
    for seq in sorted(fixed):
        if first and seq == last + 1 and fixed[seq].origin == origin:
            last = seq
            continue
        if first:
            yield first, last, origin
        first = last = seq
        origin = fixed[seq].origin
    if first:
        yield first, last, origin
