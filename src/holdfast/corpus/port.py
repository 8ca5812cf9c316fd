"""The seam between what is decided about records and where they lie.

Laws, held by `holdfast.testing.corpus` over every engine:
1. A job is all or nothing, and jobs are as if run one after another; `write` returns after its commit.
2. `pos` is gapless and in commit order: whoever has read up to a pos has missed nothing below it.
3. A record, once committed, never changes, but for its body, which may go missing with a reason.
4. `state` names the newest version of each key in the same transaction that wrote it.
5. What is read is what was written, bit for bit, or an IntegrityError.
6. After `sync` returns, everything committed before the call survives a power cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import msgspec

from holdfast.corpus.rows import Stored
from holdfast.records import Record

T = TypeVar("T")


class Body(Protocol):
    """The stored part of a record: an `Item` of the wire, or what a log has just prepared."""

    @property
    def salt(self) -> bytes:
        """16 bytes, or none."""
        ...

    @property
    def codec(self) -> int:
        """How `body` is packed."""
        ...

    @property
    def body(self) -> bytes | None:
        """The packed payload, or None."""
        ...

    @property
    def why(self) -> int:
        """Why the body is missing."""
        ...


class Head(msgspec.Struct, frozen=True, gc=False):
    """Where a branch stands: its last record's number, link and stamp (seq 0: only the genesis)."""

    seq: int
    link: bytes
    hlc: int


class Prior(msgspec.Struct, frozen=True, gc=False):
    """The version of a key that the next one replaces; `gone` is the pos of the tombstone that hides it, or 0."""

    pos: int
    link: bytes
    version: int
    gone: int
    hlc: int


class Branch(msgspec.Struct, frozen=True, gc=False):
    """One incarnation of a stream as a file knows it; `base_seq` 0 begins at the genesis."""

    id: int
    stream: bytes
    inc: bytes
    agent: str
    public_key: bytes
    current_key: bytes
    own: bool
    base_seq: int
    base_link: bytes
    seq: int
    link: bytes


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which records a page holds; every field narrows it, `current` to what was not replaced or deleted since.

    `since` and `until` are stamps (`holdfast.clock`): since ≤ stamp < until. Pages are in commit order and `after` is
    the keyset, the pos of the last record of the page before: a time would skip whatever arrives late. `readable` are
    globs of collections, of which a record must be in one; empty: any.
    """

    agents: tuple[str, ...] = ()
    collection: str | None = None
    readable: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    key: str | None = None
    to: str | None = None
    task: str | None = None
    thread: str | None = None
    since: int = 0
    until: int = 1 << 62
    current: bool = False
    after: int | None = None
    newest_first: bool = True
    limit: int = 100


@lru_cache(maxsize=4096)
def fits(name: str, globs: tuple[str, ...]) -> bool:
    """Whether a name fits one of these globs: ``*`` is anything, ``?`` one letter, and no brackets are in use."""
    return any(glob == "*" or fnmatchcase(name, glob) for glob in globs)


class Transaction(Protocol):
    """What a job may do; valid only inside the job."""

    def head(self, branch: int) -> Head:
        """Where the branch stands now, inside the transaction."""
        ...

    def prior(self, agent: str, collection: str, key: str) -> Prior | None:
        """The key's newest version, also if it is a tombstone; None if it never had one."""
        ...

    def insert(self, branch: Branch, record: Record, item: Body, prior: int, tags: Sequence[tuple[int, str]]) -> int:
        """Adds the record behind the branch's head and returns its pos; updates state and scopes."""
        ...

    def open_branch(self, branch: Branch) -> Branch:
        """Adds a branch (its `id` is ignored) and, if new, its stream; returns it as stored."""
        ...

    def branches(self, stream: bytes) -> list[Branch]:
        """All incarnations of a stream, oldest first."""
        ...

    def meta(self, key: str) -> Any:
        """A value kept beside the records, or None."""
        ...

    def set_meta(self, key: str, value: int | str | bytes | None) -> None:
        """Keeps a value beside the records, in the same transaction."""
        ...


class Corpus(Protocol):
    """All records that a node or a hub holds."""

    def write(self, job: Callable[[Any], T]) -> T:
        """Runs a job in a (shared) transaction and returns its result once committed."""
        ...

    def submit(self, job: Callable[[Any], Any], sink: Callable[[list[Any]], None], token: Any = None) -> None:
        """Queues a job; see `holdfast.corpus.commit.GroupCommit.submit`."""
        ...

    def sync(self) -> None:
        """Returns when every commit made before the call survives a power cut."""
        ...

    def last(self) -> int:
        """The newest pos, 0 when empty."""
        ...

    def at(self, pos: int) -> Stored | None:
        """The record at a pos."""
        ...

    def newest(self, agent: str, collection: str, key: str) -> Stored | None:
        """The key's value, or None if it has none (never had, or deleted)."""
        ...

    def versions(self, agent: str, collection: str, key: str) -> Iterator[Stored]:
        """Every version of the key, newest first, tombstones included."""
        ...

    def keys(self, agent: str, collection: str, prefix: str, after: str, limit: int) -> list[Stored]:
        """The newest values of keys that start with `prefix`, in key order, behind `after` (empty: from the start)."""
        ...

    def page(self, which: Filter) -> list[Stored]:
        """Records in commit order, or newest first."""
        ...

    def count(self, which: Filter, most: int) -> int:
        """How many records `which` matches, counted up to `most`."""
        ...

    def feed(self, after: int, limit: int, bytes_max: int) -> list[Stored]:
        """Records behind a pos in commit order; never cut inside a batch."""
        ...

    def chain(self, branch: int, after: int, limit: int, bytes_max: int) -> list[Stored]:
        """Records of one branch behind a seq, in order; never cut inside a batch."""
        ...

    def link_at(self, branch: int, seq: int) -> bytes | None:
        """The link of a record of a branch's chain, also below its base; None if the file does not hold it."""
        ...
