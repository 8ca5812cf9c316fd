"""The port between the storage and where its values lie: what a shelf can do, and what it was found to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from holdfast.integrity.swarm.package import Kept
from holdfast.integrity.swarm.words import IntegrityCheckType

Problems = dict[IntegrityCheckType, list[str]]
"""What each check found, in words; nothing where all is well."""
AHEAD_S = 60.0
"""A stamp further ahead of the clock than this is a finding."""


class Found(NamedTuple):
    """A version, and where on its shelf it is."""

    kept: Kept
    at: Any


class Blobs(Protocol):
    """Where large values lie: `BlobFiles`, or what can the same."""

    def put(self, source: Any, *, expect: bytes | None = None) -> tuple[bytes, int]:
        """Stores a blob; its digest and size."""
        ...

    def open(self, digest: bytes) -> Any:
        """A reader that proves the blob at its end."""
        ...

    def has(self, digest: bytes) -> bool:
        """Whether it is here."""
        ...

    def size(self, digest: bytes) -> int:
        """Its size."""
        ...

    def verify(self, digest: bytes) -> bool:
        """Whether it is whole."""
        ...

    def delete(self, digest: bytes) -> bool:
        """Takes it away."""
        ...

    def sweep(self, older_than_s: float) -> int:
        """Takes away what was never finished."""
        ...


class Shelf(Protocol):
    """Where values lie. Reading damage raises IntegrityError; it is never returned as data."""

    blobs: Blobs
    now: Callable[[], float]
    """Seconds since 1970, for versions that have no time yet."""

    @property
    def unusable(self) -> bool:
        """Whether it must be opened anew."""
        ...

    def newest(self, data_id: str) -> Found | None:
        """The newest version, also one that says that the value was deleted; None if there never was one."""
        ...

    def payload(self, found: Found) -> bytes:
        """The serialised value of a version that is no blob, proven."""
        ...

    def versions(self, data_id: str) -> Iterator[Found]:
        """The versions that can be read, newest first."""
        ...

    def write(self, kept: Kept, payload: bytes | None, expect: int | None = None) -> Kept:
        """Adds a version and returns it with its number, the next one or its own if that is higher, and its time."""
        ...

    def put_back(self, found: Found, payload: bytes | None) -> None:
        """Puts the proven bytes of a version in the place of damaged ones; the number stays."""
        ...

    def ids(self) -> Iterable[str]:
        """Every name that is known here, also of what was deleted."""
        ...

    def check(self, data_id: str, now: float) -> Problems:
        """What the five checks find of a value."""
        ...

    def whole(self) -> list[str]:
        """What is wrong with the shelf as a whole, in words."""
        ...

    def head(self) -> tuple[str, int]:
        """Which log this is and where it stands; empty and 0 for files."""
        ...

    def close(self) -> None:
        """Lets go of files."""
        ...


def check_blob(blobs: Blobs, kept: Kept, problems: Problems) -> None:
    """Adds what is wrong with the blob of a version."""
    if not blobs.has(kept.digest):
        problems[IntegrityCheckType.SIZE_VERIFICATION].append("its bytes are not here")
        return
    size = blobs.size(kept.digest)
    if size != kept.size:
        problems[IntegrityCheckType.SIZE_VERIFICATION].append(f"{size} bytes are here, {kept.size} were stored")
    if not blobs.verify(kept.digest):
        problems[IntegrityCheckType.CHECKSUM].append("its bytes have another SHA-256 than those that were stored")


def check_stamp(kept: Kept, before: Kept | None, now: float, problems: Problems) -> None:
    """Adds what is wrong with the time of a version."""
    found = problems[IntegrityCheckType.TIMESTAMP]
    if kept.timestamp > now + AHEAD_S:
        found.append(f"it was stored {kept.timestamp - now:.0f} s ahead of the clock: was a clock set back?")
    if before is not None and kept.timestamp < before.timestamp:
        found.append(f"it is {before.timestamp - kept.timestamp:.3f} s older than the version before it")


def nothing() -> Problems:
    """A list for each check."""
    return {kind: [] for kind in IntegrityCheckType}
