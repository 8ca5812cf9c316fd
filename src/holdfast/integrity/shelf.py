"""Brings back the bodies that a hub let go for an archive, where a row is read; loads nothing before the first."""

from __future__ import annotations

import base64
import logging
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus import SqlCorpus, Stored
from holdfast.errors import HoldfastError, ObjectNotFound
from holdfast.records import verify_payload
from holdfast.wire import HERE

if TYPE_CHECKING:
    from holdfast.integrity.archive import Archive, Entry, Line

META: Final = "archive"
"""In `meta`: the address of the archive that bodies of this corpus went to."""
SHELVED: Final = 4
"""Files that are kept read."""
_AGAIN_S: Final = 5.0

logger = logging.getLogger(__name__)


class Shelf:
    """Brings bodies back that a hub let go for an archive. Safe to share among threads.

    Args:
        corpus: the hub's; its meta values say where the archive is.
    """

    def __init__(self, corpus: SqlCorpus) -> None:
        self._corpus = corpus
        self._lock = threading.Lock()  # guards what follows
        self._archive: Archive | None = None
        self._store: Any = None
        self._files: list[Entry] = []
        self._read: OrderedDict[str, dict[int, Line]] = OrderedDict()
        self._not_before = float("-inf")

    def bring(self, stored: Stored) -> Stored | None:
        """The record with its body, proven; None while the archive does not answer, or lacks it."""
        try:
            line = self._line(stored.pos)
            payload = line.payload() if line is not None and line.link == stored.record.link.hex() else None
            if line is None or payload is None:
                return None
            salt = base64.b64decode(line.salt)
            verify_payload(stored.record, salt, payload)
        except (HoldfastError, OSError) as error:
            logger.warning("the archive could not be read", exc_info=error)
            return None
        packing, body = codec.pack(payload)
        return msgspec.structs.replace(stored, salt=salt, codec=packing, body=body, why=HERE)

    def close(self) -> None:
        """Lets go of the store; a second close is fine."""
        with self._lock:
            if self._store is not None:
                self._store.close()
            self._store = self._archive = None

    def _line(self, pos: int) -> Line | None:
        with self._lock:
            entry = self._entry(pos)
            if entry is None:
                return None
            found = self._read.get(entry.name)
            if found is None:
                assert self._archive is not None
                try:
                    found = {line.pos: line for line, _ in self._archive.lines(entry)}
                except ObjectNotFound:
                    self._files = []  # it was written anew since
                    entry = self._entry(pos)
                    if entry is None:
                        return None
                    found = {line.pos: line for line, _ in self._archive.lines(entry)}
                self._read[entry.name] = found
                if len(self._read) > SHELVED:
                    self._read.popitem(last=False)
            self._read.move_to_end(entry.name)
            return found.get(pos)

    def _entry(self, pos: int) -> Entry | None:
        entry = self._find(pos)
        if entry is None and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + _AGAIN_S
            if self._archive is None:
                address = self._corpus.meta(META)
                if not address:
                    return None
                from holdfast.integrity.archive import Archive
                from holdfast.objects.opening import open_store

                self._store = open_store(address)
                self._archive = Archive(self._store)
            self._files = self._archive.manifest()[0].files
            entry = self._find(pos)
            if entry is not None:
                self._not_before = float("-inf")
        return entry

    def _find(self, pos: int) -> Entry | None:
        at = bisect_left(self._files, pos, key=lambda entry: entry.last)
        return self._files[at] if at < len(self._files) and self._files[at].first <= pos else None


def shelve(corpus: SqlCorpus) -> Shelf:
    """Has a corpus read through what it let go for an archive; close what is returned with it."""
    shelf = Shelf(corpus)
    corpus.elsewhere = shelf.bring
    return shelf
