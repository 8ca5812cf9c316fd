"""Whether every body that is said to be erased was erased: a redact record must name it, else it is a hole. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast import wire
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError
from holdfast.integrity.checks import SIZE, Finding
from holdfast.log.erasure import Erasure, erasure_of, is_redact, kept_erasures

_HINT: Final = "the hub may hold it: holdfast repair --plan"


class Redactions:
    """The redact records of a file, and the rows that lean on them; both may come in any order.

    Args:
        begin: up to where an agent's log was pruned: what stood there is not known.
        reapplied: the erasures that a restore applied again, as `holdfast.log.erasure.reapply` kept them.
    """

    def __init__(self, begin: int = 0, reapplied: bytes | None = None) -> None:
        self._begin = begin
        self._known: dict[bytes, list[Erasure]] = {}
        self._unread: set[bytes] = set()  # streams of which a redact record is not to be read here
        self._gone: list[Stored] = []
        for each in kept_erasures(reapplied):
            self._known.setdefault(each.stream, []).append(each)

    def see(self, stored: Stored) -> None:
        """Takes the next record."""
        record = stored.record
        if stored.body is None and stored.why == wire.REDACTED:
            self._gone.append(stored)
        if not is_redact(record):
            return
        if stored.body is None:
            self._unread.add(record.stream)
            return
        try:
            self._known.setdefault(record.stream, []).append(erasure_of(record, stored.payload()))
        except HoldfastError:
            self._unread.add(record.stream)  # its own finding, where it is damaged

    def findings(self) -> Iterator[Finding]:
        """Bodies that are called erased, and that no redact record names."""
        for stored in self._gone:
            record = stored.record
            named = any(each.names(record) for each in self._known.get(record.stream, ()))
            if not named and record.stream not in self._unread and record.seq > self._begin:
                what = "the body is called erased, but no redact record names it"
                yield Finding(SIZE, stored.agent, record.seq, what, _HINT)
