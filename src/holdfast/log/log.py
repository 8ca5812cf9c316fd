"""One agent's log: drafts become records here, in one place, for node and hub alike."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from holdfast import clock
from holdfast.clock import SYSTEM, Clock
from holdfast.corpus import Branch, Prior, SqlCorpus, Stored
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import Conflict, IntegrityError, NotFound, UsageError
from holdfast.log.drafts import Draft
from holdfast.log.reading import BlobStore
from holdfast.records import (
    BLOB,
    INLINE_BYTES_MAX,
    MORE,
    SALT_BYTES,
    ZERO32,
    Record,
    blob_reference,
    encode_header,
    next_link,
    payload_hash,
)
from holdfast.wire import HERE, RECORDS_MAX, SEGMENT_BYTES_MAX

Job = Callable[[SqlTransaction], list[Stored]]


class _Ready(msgspec.Struct, frozen=True, gc=False):
    """A draft with everything done to it that needs no transaction."""

    draft: Draft
    flags: int
    plen: int
    digest: bytes
    salt: bytes
    codec: int
    body: bytes
    why: int = HERE


class Log:
    """Appends to one stream and reads it back. Safe to share among threads.

    Args:
        corpus: where its records lie.
        branch: the stream's current branch there.
        blobs: where payloads above 64 KiB go.
        wall: the clock.
    """

    def __init__(self, corpus: SqlCorpus, branch: Branch, *, blobs: BlobStore, wall: Clock = SYSTEM) -> None:
        self.corpus = corpus
        self.branch = branch
        self.blobs = blobs
        self._wall = wall
        self._seen = 0  # the newest stamp seen elsewhere; only grows

    # -- writing ------------------------------------------------------------------------------------------------

    def append(self, drafts: Sequence[Draft], *, durable: bool = False) -> list[Stored]:
        """Writes all drafts or none, and returns them as records once they are durable at the corpus's level.

        Args:
            drafts: one, or a batch of at most 500 records and 1 MiB.
            durable: also survive a power cut before returning, whatever the level.

        Raises:
            Conflict: a draft's `expect` is not the key's current version.
            NodeFull: no room; nothing was written.
            UsageError: an empty or too large batch.
        """
        stored = self.corpus.write(self.job(drafts))
        if durable:
            self.corpus.sync()
        return stored

    def submit(self, drafts: Sequence[Draft], sink: Callable[[list[Any]], None], token: Any = None) -> None:
        """`append` without waiting: `sink` gets ``(token, records, error)`` once committed."""
        self.corpus.submit(self.job(drafts), sink, token)

    def job(self, drafts: Sequence[Draft]) -> Job:
        """The work of `append`, for whoever runs transactions; hashing of payloads and blobs is done before it."""
        if not drafts:
            raise UsageError("an empty batch", hint="put something in it")
        ready = [self._prepare(draft) for draft in drafts]
        if len(ready) > 1:
            size = sum(len(each.body) for each in ready)
            if len(ready) > RECORDS_MAX or size > SEGMENT_BYTES_MAX:
                raise UsageError(
                    f"a batch of {len(ready)} records and {size} bytes; the most is {RECORDS_MAX} and"
                    f" {SEGMENT_BYTES_MAX}",
                    hint="split it: only what must be all or none belongs in one batch",
                )
        return functools.partial(self._write, ready)

    def observe(self, stamp: int) -> None:
        """Lets our clock follow another's, by at most 60 s past the wall."""
        self._seen = clock.observe(self._seen, stamp, self._wall.now_ms())

    def _prepare(self, draft: Draft) -> _Ready:
        payload, flags = draft.payload, draft.flags
        if len(payload) > INLINE_BYTES_MAX:
            # The blob is safe before its record exists: an orphan may be left behind, a dangling reference never.
            payload = blob_reference(*self.blobs.put(payload))
            flags |= BLOB
        salt = os.urandom(SALT_BYTES)
        return _Ready(draft, flags, len(payload), payload_hash(salt, payload), salt, *self.corpus.pack(payload))

    def _write(self, ready: list[_Ready], tx: SqlTransaction) -> list[Stored]:
        branch = self.branch
        head = tx.head(branch.id)
        seq, link, stamp = head.seq, head.link, max(head.hlc, self._seen)
        now, last, out = self._wall.now_ms(), len(ready) - 1, []
        if last:
            tx.look_ahead(branch.agent, [(made.draft.collection, made.draft.key) for made in ready])
        for number, made in enumerate(ready):
            draft = made.draft
            known = draft.collection and not draft.fresh
            prior = tx.prior(branch.agent, draft.collection, draft.key) if known else None
            if draft.expect is not None:
                _check(draft, prior)
            if made.flags & BLOB and not draft.flags & BLOB and not self.blobs.has(made.body[:32]):
                self.blobs.put(draft.payload)  # it was there when it was asked for, and was erased since
            seq += 1
            stamp = clock.tick(stamp, now)
            record = Record(
                branch.stream,
                draft.fmt,
                made.flags | (MORE if number < last else 0),
                seq,
                stamp,
                draft.base if draft.base != ZERO32 else prior.link if prior else ZERO32,
                prior.version + 1 if prior else 1,
                made.plen,
                draft.kind,
                draft.author,
                draft.collection,
                draft.key,
                draft.kid,
                made.digest,
            )
            link = next_link(link, encode_header(record))
            msgspec.structs.force_setattr(record, "link", link)  # it is nobody else's yet
            replaces = prior.pos if prior else 0
            pos = tx.insert(branch, record, made, replaces, draft.tags)
            out.append(Stored(pos, branch.id, branch.agent, replaces, record, made.salt, made.codec, made.body))
        if tx.many_branches:
            tx.advance(branch.id, seq, link)
        return out

    # -- reading ------------------------------------------------------------------------------------------------

    def newest(self, collection: str, key: str) -> Stored | None:
        """The key's value here, or None if it has none."""
        return self.corpus.newest(self.branch.agent, collection, key)

    def versions(self, collection: str, key: str) -> Iterator[Stored]:
        """Every version of the key, newest first, tombstones included."""
        return self.corpus.versions(self.branch.agent, collection, key)

    def as_of(self, collection: str, key: str, *, version: int | None = None, stamp: int | None = None) -> Stored:
        """The version that a number or a time names.

        Args:
            collection: the key's collection.
            key: the key.
            version: the key's version number.
            stamp: the newest version that is not later than this stamp.

        Raises:
            NotFound: there is none, or it was deleted then.
        """
        for found in self.versions(collection, key):
            record = found.record
            if (version is not None and record.key_version == version and record.key == key) or (
                stamp is not None and record.hlc <= stamp
            ):
                if found.gone:
                    break
                return found
        what = f"version {version}" if version is not None else f"at {clock.to_iso(stamp or 0)}"
        hint = f"holdfast history {key} --collection {collection}"
        raise NotFound(f"{self.branch.agent} has nothing at {collection}/{key} {what}", hint=hint)


class FrozenLog(Log):
    """A log that only people can put right: it is read, and nothing is written to it."""

    def job(self, drafts: Sequence[Draft]) -> Job:
        """Refuses.

        Raises:
            IntegrityError: always.
        """
        raise IntegrityError(
            f"the log of {self.branch.agent} is damaged, and frozen until somebody decides",
            hint="holdfast repair --plan; holdfast quarantine release INCIDENT lets it be written as it is",
        )


def _check(draft: Draft, prior: Prior | None) -> None:
    have = 0 if prior is None or prior.gone else prior.version
    etag = prior.link.hex() if prior is not None and not prior.gone else ""
    if draft.expect in (have, etag) and draft.expect != "":
        return
    raise Conflict(
        f"version conflict on {draft.collection}/{draft.key}: you expected {draft.expect!r}, current is {have}",
        hint=f"holdfast history {draft.key} --collection {draft.collection}",
        current_version=have,
        etag=etag,
    )
