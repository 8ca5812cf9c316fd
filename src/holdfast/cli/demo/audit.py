"""The count at the end of the demo: what each agent saw return, held against what is really there. Nothing is assumed.

Evidence: the agents' journals (each write that returned, with its link and the digest of its value), the readers'
journals (what the other node was given through the hub, and when), the hub's own file, and the logs on both nodes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.cli.demo.child import entries
from holdfast.cli.show import count_text, seconds_text
from holdfast.corpus import SqliteCorpus, Stored
from holdfast.errors import HoldfastError
from holdfast.integrity.scan import verify_corpus
from holdfast.log import ADVANCED
from holdfast.node.directory import Directory
from holdfast.objects import BlobFiles
from holdfast.records import read_blob_reference

_NS: Final = 1e9
_EXAMPLES: Final = 5

At = tuple[str, int]
"""A record's place: its stream in hex, and its number there."""


class Times(msgspec.Struct):
    """When what happened to the hub, in nanoseconds of the one monotonic clock of this machine."""

    begun: int = 0
    killed: int = 0
    back: int = 0
    stopped: int = 0


class Ledger(msgspec.Struct, kw_only=True):
    """What the demo ends with.

    Durations are in seconds; `waited` counts the writes that were made or still unseen while the hub was down.
    """

    records: int
    agents: int
    nodes: int
    rate: float
    visible_p50: float
    visible_p99: float
    visible_of: int
    waited: int
    hub_down: float
    outbox_peak: int
    caught_up: float
    lost: int
    duplicated: int
    chains: int
    chains_verified: int
    findings: list[str]
    """What is wrong, in words; empty when nothing is."""

    @property
    def sound(self) -> bool:
        """Whether nothing is lost, duplicated, changed, unexplained or unverified."""
        return not (self.lost or self.duplicated or self.findings) and self.chains_verified == self.chains

    def lines(self) -> list[str]:
        """For people."""
        verified = "all chains verified" if self.chains_verified == self.chains else "NOT ALL CHAINS VERIFIED"
        visible = f"p50 {seconds_text(self.visible_p50)}, p99 {seconds_text(self.visible_p99)}"
        return [
            f"records written   {self.records:,} by {self.agents} agents on {self.nodes} nodes, {self.rate:,.0f}/s",
            f"visible elsewhere {visible} (of {self.visible_of:,} writes; {self.waited:,} waited for the hub)",
            f"hub down for      {seconds_text(self.hub_down)}, killed with SIGKILL",
            f"outbox peak       {count_text(self.outbox_peak, 'record')}",
            f"caught up in      {seconds_text(self.caught_up)}",
            f"lost              {self.lost}",
            f"duplicated        {self.duplicated}",
            f"chains            {self.chains_verified} of {self.chains}: {verified}",
            *(f"finding           {finding}" for finding in self.findings),
        ]


class Site(msgspec.Struct, frozen=True):
    """Where the evidence lies.

    `nodes` are the node directories by name; `written` the agents' journals, with the node each ran on; `seen` the
    readers' journals by the node they ran on.
    """

    hub: Path
    nodes: dict[str, Path]
    written: list[tuple[str, Path]]
    seen: dict[str, Path]


def audit(site: Site, times: Times) -> Ledger:
    """Counts. The hub must have ended; the nodes' stores must be closed.

    Raises:
        HoldfastError: the hub's file, or a node's, cannot be read at all.
    """
    journals = [(node, entries(path)) for node, path in site.written]
    wrote = {
        (each["stream"], each["seq"]): (node, each)
        for node, journal in journals
        for each in journal
        if each["what"] == "wrote"
    }
    findings = [f"an agent gave up: {e['error']}" for _, journal in journals for e in journal if e["what"] == "failed"]
    copies, chains, verified = _places(site, findings)
    seen = {node: [e for e in entries(path) if e["what"] == "saw"] for node, path in site.seen.items()}
    for node, saw in seen.items():
        copies[f"the feed on {node}"] = [((e["stream"], e["seq"]), e["link"], e["digest"]) for e in saw]
    lost, duplicated = _count(wrote, copies, findings)
    first = min((e["begun"] for _, e in wrote.values()), default=0)
    last = max((e["done"] for _, e in wrote.values()), default=0)
    quick, late, caught_up = _visibility(wrote, seen, times)
    return Ledger(
        records=len(wrote),
        agents=len(site.written),
        nodes=len(site.nodes),
        rate=len(wrote) / max((last - first) / _NS, 1e-9),
        visible_p50=_percentile(quick, 0.50),
        visible_p99=_percentile(quick, 0.99),
        visible_of=len(quick),
        waited=late,
        hub_down=(times.back - times.killed) / _NS,
        outbox_peak=_peak([journal for _, journal in journals]),
        caught_up=caught_up,
        lost=lost,
        duplicated=duplicated,
        chains=chains,
        chains_verified=verified,
        findings=findings,
    )


Copy = tuple[At, str, str]
"""One record somewhere: its place, its link, and the digest of its value."""


def _places(site: Site, findings: list[str]) -> tuple[dict[str, list[Copy]], int, int]:
    """What the hub and the nodes hold, and how many of their chains prove themselves."""
    copies: dict[str, list[Copy]] = {}
    chains = verified = 0
    corpus = SqliteCorpus(site.hub / "hub.db", hub=True)
    try:
        blobs = BlobFiles(site.hub / "blobs")
        copies["the hub"] = _copies(corpus, blobs)
        scan = verify_corpus(corpus, blobs)
        broken = {finding.agent for finding in scan.findings}
        chains += scan.branches
        if "" not in broken:  # what concerns the file as a whole leaves no chain of it proven
            verified += sum(branch.agent not in broken for branch in corpus.branches())
        findings += [f"the hub: {finding}" for finding in scan.findings[:_EXAMPLES]]
    finally:
        corpus.close()
    for name, path in site.nodes.items():
        directory = Directory(path)
        try:
            for agent in directory.agents():
                opened = directory.open_log(agent, ADVANCED)
                wrong = [str(finding) for finding in verify_corpus(opened.corpus, directory.blobs).findings]
                chains += 1
                verified += not wrong
                findings += [f"{agent} on {name}: {each}" for each in wrong[:_EXAMPLES]]
                copies.setdefault(f"the logs of {name}", []).extend(_copies(opened.corpus, directory.blobs))
        finally:
            directory.close()
    return copies, chains, verified


def _copies(corpus: SqliteCorpus, blobs: BlobFiles) -> list[Copy]:
    found: list[Copy] = []
    after = 0
    while records := corpus.feed(after):
        after = records[-1].pos
        for stored in records:
            record = stored.record
            if record.collection:
                found.append(((record.stream.hex(), record.seq), record.link.hex(), _digest(stored, blobs)))
    return found


def _digest(stored: Stored, blobs: BlobFiles) -> str:
    try:
        payload = stored.payload()
        if stored.is_blob:
            payload = blobs.read(read_blob_reference(payload)[0])
    except HoldfastError as error:
        return error.message
    return hashlib.sha256(bytes([stored.record.fmt]) + payload).hexdigest()


def _count(
    wrote: dict[At, tuple[str, dict[str, Any]]], copies: dict[str, list[Copy]], findings: list[str]
) -> tuple[int, int]:
    """How many writes are missing, or other than they were, anywhere; how many records are somewhere twice."""
    lost: set[At] = set()
    duplicated: set[tuple[At, str]] = set()
    for place, held in copies.items():
        own = place.removeprefix("the logs of ")
        times = Counter(at for at, _, _ in held)
        duplicated |= {(at, place) for at, number in times.items() if number > 1}
        there = {(at, link, digest) for at, link, digest in held}
        # A node's logs hold what its own agents wrote; the hub and the feeds hold everything.
        due = [(at, each) for at, (node, each) in wrote.items() if not place.startswith("the logs") or node == own]
        missing = [at for at, each in due if (at, each["link"], each["digest"]) not in there]
        lost.update(missing)
        if missing:
            findings.append(f"{place}: {count_text(len(missing), 'record')} missing or changed, such as {missing[0]}")
        strangers = [at for at in times if at not in wrote]
        if strangers:
            what = count_text(len(strangers), "record")
            findings.append(f"{place}: {what} that nobody wrote, such as {strangers[0]}")
    return len(lost), len(duplicated)


def _visibility(
    wrote: dict[At, tuple[str, dict[str, Any]]], seen: dict[str, list[dict[str, Any]]], times: Times
) -> tuple[list[float], int, float]:
    """Seconds from before each put to the other node's sight of it; how many waited; when the last of those came."""
    first: dict[tuple[str, At], int] = {}
    for node, saw in seen.items():
        for each in saw:
            first.setdefault((node, (each["stream"], each["seq"])), each["at"])
    sights = []
    for at, (node, each) in wrote.items():
        others = [first[other, at] for other in seen if other != node and (other, at) in first]
        if others:
            sights.append((each["begun"], max(others)))
    # What was written before the hub came back and seen after it was killed had to wait for it.
    waited = [at for begun, at in sights if begun < times.back and at > times.killed]
    caught_up = max(waited, default=times.back)
    quick = [(at - begun) / _NS for begun, at in sights if at <= times.killed or begun > caught_up]
    return sorted(quick), len(sights) - len(quick), max(0, caught_up - times.back) / _NS


def _peak(journals: Iterable[list[dict[str, Any]]]) -> int:
    """The most records that all agents together had not shipped at one moment."""
    samples = [(e["at"], number, e["depth"]) for number, j in enumerate(journals) for e in j if e["what"] == "depth"]
    now: dict[int, int] = {}
    peak = 0
    for _, number, depth in sorted(samples):
        now[number] = depth
        peak = max(peak, sum(now.values()))
    return peak


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
