"""What a scan is told from outside a file, and what it says of it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, NamedTuple

import msgspec

from holdfast.integrity.checks import Finding
from holdfast.sqlite.doctor import Diagnosis

FINDINGS_MAX: Final = 1000
"""A file that is damaged all over would fill memory with its story."""
ORPHAN_GRACE_S: Final = 86_400.0
"""A blob is written before the record that refers to it; whoever was killed in between leaves one behind."""


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
        ends: where each branch ends, by its number: the number and, in hex, the link of its last record.
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
    ends: dict[int, tuple[int, str]] = {}
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

    def note(self, finding: Finding) -> None:
        """Keeps a finding, or counts it where there are too many."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)
        else:
            self.left_out += 1
