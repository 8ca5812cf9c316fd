"""Brings a write that waited to the primary: what stays when two were written, and the proof that it arrived.

A later write stays, by the stores' clocks; the other one is kept. Within a minute clocks decide nothing: what waited
stays then, since this layer acknowledged it, and the primary's is kept. What the primary has from this layer itself, be
it an earlier write whose answer was lost, is nobody else's and is kept nowhere.
"""

from __future__ import annotations

import contextlib
from typing import Final

from holdfast import clock
from holdfast.errors import HoldfastError, ObjectConflict, ObjectCorrupt, ObjectNotFound, StorageUnavailable
from holdfast.objects.layers import waiting as journal_of
from holdfast.objects.layers.owing import alike, digest_of
from holdfast.objects.layers.waiting import CONFLICTS, Waiting, Written
from holdfast.objects.port import ABSENT, CREATE, SWAP, SWAP_DELETE, Expect, ObjectInfo, ObjectStore

SKEW_MS: Final = 60_000
"""Two clocks that differ by less do not tell which of two writes was the later one: both are kept."""
_ROUNDS: Final = 8


class Bringer:
    """Knows the two stores, and no state.

    Args:
        primary: where writes are brought.
        journal: where they wait, and where the copies of those that lost are kept.
    """

    def __init__(self, primary: ObjectStore, journal: ObjectStore) -> None:
        self._primary = primary
        self._journal = journal

    def bring(self, waits: Waiting) -> tuple[ObjectInfo | None, int]:
        """What the primary has then, proven, and how many copies were kept.

        Raises:
            StorageUnavailable: the primary does not answer, or others write this key all the time.
            ObjectCorrupt: the journal's bytes are not what was written, or the primary's not what was sent.
        """
        key = waits.write.key
        for _ in range(_ROUNDS):
            try:
                there: ObjectInfo | None = self._primary.head(key)
            except ObjectNotFound:
                there = None
            try:
                return self._brought(waits, there)
            except (ObjectConflict, ObjectNotFound):
                continue  # somebody wrote in this moment: look again
        raise StorageUnavailable(f"{key!r:.200} changes faster than it can catch up", key=key)

    def _brought(self, waits: Waiting, there: ObjectInfo | None) -> tuple[ObjectInfo | None, int]:
        write, key, kept = waits.write, waits.write.key, 0
        deletes = write.op == "delete"
        if there is None and deletes:
            return None, 0
        if there is not None:
            if not deletes and self._same(waits, there):
                return there, 0
            known = write.base == there.etag or self._earlier(waits, there)
            modified = int(there.modified.timestamp() * 1000)
            if not known and modified > waits.at_ms:
                if not deletes:
                    journal_of.pieces_again(self._journal, waits, CONFLICTS)
                return there, int(not deletes)
            if not known and modified > waits.at_ms - SKEW_MS:
                kept += self._keep_theirs(there)
        if deletes:
            assert there is not None
            self._primary.delete(key, expect=None if SWAP_DELETE in self._primary.lacks else there.etag)
            return None, kept
        return self._sent(waits, there), kept

    def _sent(self, waits: Waiting, there: ObjectInfo | None) -> ObjectInfo:
        write, key = waits.write, waits.write.key
        expect: Expect = None
        if there is None and CREATE not in self._primary.lacks:
            expect = ABSENT
        elif there is not None and SWAP not in self._primary.lacks:
            expect = there.etag
        info = self._primary.put(
            key,
            journal_of.proven(self._journal, waits),
            content_type=write.content_type,
            metadata=write.metadata,
            expect=expect,
        )
        try:
            back, digest = digest_of(self._primary.get(key))
        except ObjectNotFound:
            return info  # somebody deleted it since: it had arrived
        if back.etag == info.etag and digest != journal_of.proof(self._journal, waits):
            # Left there, it would be taken for somebody's later write when this one is brought again.
            with contextlib.suppress(HoldfastError):
                self._primary.delete(key, expect=None if SWAP_DELETE in self._primary.lacks else info.etag)
            raise ObjectCorrupt(f"{key!r:.200} came back from {self._primary.name} with other bytes", key=key)
        return info

    def _same(self, waits: Waiting, there: ObjectInfo) -> bool:
        if not alike(waits.info, there):
            return False
        back, digest = digest_of(self._primary.get(waits.write.key))
        return back.etag == there.etag and digest == journal_of.proof(self._journal, waits)

    def _earlier(self, waits: Waiting, there: ObjectInfo) -> bool:
        """Whether the primary has what waited before: a write of ours that arrived though its answer was lost."""
        if not waits.write.before:
            return False
        back, digest = digest_of(self._primary.get(waits.write.key))
        return back.etag == there.etag and digest.hex() in waits.write.before

    def _keep_theirs(self, there: ObjectInfo) -> int:
        try:
            content = self._primary.get(there.key)
        except ObjectNotFound:
            return 0
        with content:
            write = Written(
                op="put",
                key=there.key,
                stamp=clock.pack(int(there.modified.timestamp() * 1000)),
                content_type=content.info.content_type,
                metadata=content.info.metadata,
                base=content.info.etag,
            )
            journal_of.keep(self._journal, CONFLICTS, write, content)
        return 1
