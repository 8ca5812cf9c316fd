"""The count afterwards: what journals say returned, held against what lies in files. It trusts no code that checks.

Links, payload hashes and blobs are computed anew here, from `records` alone; the product's own scan is asked as well.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.corpus import SqliteCorpus, Stored
from holdfast.errors import HoldfastError
from holdfast.integrity.scan import verify_corpus
from holdfast.log.versions import version_of
from holdfast.node.directory import Directory, Limits
from holdfast.objects import BlobFiles
from holdfast.records import encode_header, next_link, payload_hash, read_blob_reference
from tests.chaos.actors import digest, entries, uid_of

ALL = 1_000_000
At = tuple[str, int, str]
"""A record's place and proof: stream, seq and link."""


@dataclass
class Journals:
    """What all writers together say."""

    returned: dict[At, tuple[str, str]] = field(default_factory=dict)
    """The place of each write that returned -> its uid and the digest of its value."""
    batches: list[list[str]] = field(default_factory=list)
    """The uids that were tried together."""
    refused: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)

    @property
    def uids(self) -> set[str]:
        """The names of the writes that returned."""
        return {uid for uid, _ in self.returned.values()}

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Journals:
        """Reads them."""
        out = cls()
        for path in paths:
            for entry in entries(path):
                if entry["what"] == "try":
                    out.batches.append(entry["uids"])
                elif entry["what"] == "wrote":
                    for uid, stream, seq, link, value in entry["records"]:
                        assert (stream, seq, link) not in out.returned, f"{uid} returned another's place"
                        out.returned[stream, seq, link] = uid, value
                elif entry["what"] == "refused":
                    out.refused |= set(entry["uids"])
                elif entry["what"] == "failed":
                    out.failed.append(f"{path.name}: {entry['error']}")
        return out


@dataclass
class Place:
    """What lies in one place (a node's logs, or a hub): records in order, live values, and what is wrong."""

    name: str
    records: list[tuple[At, str | None, str]] = field(default_factory=list)
    """(place, uid, digest), in the place's own order."""
    chains: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    newest: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """(agent, collection, key) -> the link of its value."""
    wrong: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    branches: int = 0

    @property
    def links(self) -> Counter[At]:
        """How often each record is there."""
        return Counter(at for at, _, _ in self.records)

    def take(self, corpus: SqliteCorpus, blobs: BlobFiles) -> None:
        """Adds all of one file."""
        links = {branch.id: (branch.base_seq, branch.base_link) for branch in corpus.branches()}
        self.branches += len(links)
        single = None if corpus.hub else corpus.branches()[-1]
        if single is not None:
            # One chain from its genesis, whatever incarnations it went through.
            links[single.id] = (0, corpus.link_at(single.id, 0) or b"")
        after = 0
        while rows := corpus.feed(after):
            after = rows[-1].pos
            for stored in rows:
                branch = single.id if single is not None else stored.branch
                links[branch] = self._record(stored, links[branch], blobs)
        for agent in corpus.agents():
            for collection, _ in corpus.collections(agent):
                for stored in corpus.keys(agent, collection, limit=ALL):
                    self.newest[agent, collection, stored.record.key] = stored.record.link.hex()
        report = verify_corpus(corpus, blobs)
        self.wrong += [f"{self.name}: {finding}" for finding in report.findings]

    def _record(self, stored: Stored, before: tuple[int, bytes], blobs: BlobFiles) -> tuple[int, bytes]:
        record, (seq, link) = stored.record, before
        where = f"{self.name}: {stored.agent} {record.seq}"
        if record.seq != seq + 1:
            self.wrong.append(f"{where} comes behind {seq}")
        if next_link(link, encode_header(record)) != record.link:
            self.wrong.append(f"{where} does not follow from its neighbour")
        if stored.body is None:
            self.wrong.append(f"{where} has no body")
            return record.seq, record.link
        try:
            payload = stored.payload()
        except HoldfastError as error:
            self.wrong.append(f"{where} cannot be read: {error}")
            return record.seq, record.link
        if payload_hash(stored.salt, payload) != record.payload_hash:
            self.wrong.append(f"{where} has another payload")
        if stored.is_blob:
            named, size = read_blob_reference(payload)
            data = blobs.read(named, verify=False) if blobs.has(named) else b""
            if len(data) != size or hashlib.sha256(data).digest() != named:
                self.wrong.append(f"{where} has lost its blob")
                return record.seq, record.link
        value = version_of(stored, blobs).value
        self.kinds[record.kind] += 1
        at = (record.stream.hex(), record.seq, record.link.hex())
        self.records.append((at, uid_of(value) if record.collection else None, digest(value)))
        return record.seq, record.link


def node(path: Path) -> Place:
    """What a node's logs hold; nobody has it open."""
    place, directory = Place(path.name), Directory(path, limits=Limits(0, 0))
    try:
        for agent in directory.agents():
            opened = directory.open_log(agent, None)
            try:
                place.take(opened.corpus, directory.blobs)
            finally:
                directory.release_log(opened)
    finally:
        directory.close()
    return place


def hub(path: Path) -> Place:
    """What a hub holds; nobody serves it."""
    place, corpus = Place(path.name), SqliteCorpus(path / "hub.db", hub=True)
    try:
        place.take(corpus, BlobFiles(path / "blobs"))
    finally:
        corpus.close()
    return place


def missing(journals: Journals, place: Place) -> list[str]:
    """The writes that returned and are not there, or not as they were."""
    there = {at: value for at, _, value in place.records}
    return [
        f"{place.name} lacks {uid} {at[1]}" for at, (uid, value) in journals.returned.items() if there.get(at) != value
    ]


def doubled(place: Place) -> list[str]:
    """The records that are there more than once."""
    return [f"{place.name} has {at} {count} times" for at, count in place.links.items() if count > 1]


def halves(journals: Journals, place: Place) -> list[str]:
    """The batches of which only a part is there, and the writes that nobody tried, or that were refused."""
    there = Counter(uid for _, uid, _ in place.records if uid is not None)
    out = [f"half a batch: {uids}" for uids in journals.batches if len({uid in there for uid in uids}) > 1]
    tried = {uid for uids in journals.batches for uid in uids}
    out += [f"nobody wrote {uid}" for uid in there if uid not in tried]
    out += [f"{uid} was refused, and is there" for uid in journals.refused & set(there)]
    return out + [f"{uid} is there {count} times" for uid, count in there.items() if count > 1]


def order(place: Place) -> list[str]:
    """The streams whose records do not come in the order in which they were written."""
    last: dict[str, int] = {}
    out = []
    for (stream, seq, _), _, _ in place.records:
        if seq != last.get(stream, 0) + 1:
            out.append(f"{place.name}: {stream[:8]} {seq} comes behind {last.get(stream, 0)}")
        last[stream] = seq
    return out


def survivors(journals: Journals, place: Place) -> int:
    """How many writes are there though nobody lived to see them return."""
    returned = journals.uids
    return sum(1 for _, uid, _ in place.records if uid is not None and uid not in returned)


def differing(nodes: Iterable[Place], central: Place) -> list[str]:
    """The keys whose value on the hub is not the one on their node."""
    mine: dict[Any, str] = {}
    for place in nodes:
        mine |= place.newest
    theirs = {at: link for at, link in central.newest.items() if at[0] in {agent for agent, _, _ in mine}}
    return [f"{at}: {mine.get(at)} on the node, {theirs.get(at)} on the hub" for at in mine.keys() | theirs.keys()
            if mine.get(at) != theirs.get(at)]  # fmt: skip
