"""Audit events as records: in an agent's log, chained and signed like all it writes, and on their way to the hub.

store = holdfast.Store("./node", agent="files", hub="http://hub:8084")
set_audit_sink(AuditRecords(store))
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Final

import msgspec

from holdfast.node.store import Store
from holdfast.objects.audit import AuditEvent

AUDIT: Final = "audit"
_PAGE: Final = 500


class AuditRecords:
    """A sink that writes each event as a record of its own. Any thread may call it.

    Args:
        store: whose log; not closed here.
        collection: where the events lie.
        durable: survive a power cut before the call returns, whatever the store's level.
    """

    def __init__(self, store: Store, *, collection: str = AUDIT, durable: bool = False) -> None:
        self._store = store
        self._collection = collection
        self._durable = durable
        self._count = itertools.count()

    def __call__(self, event: AuditEvent) -> None:
        """Keeps one event.

        Raises:
            NodeFull: this machine's disk is full.
        """
        # Sorted as they came: an id that sorts by milliseconds alone would mix a write's beginning and end.
        key = f"{event.at}_{next(self._count):08x}_{os.urandom(4).hex()}"
        self._store.put(key, msgspec.to_builtins(event), collection=self._collection, durable=self._durable)

    def events(self) -> Iterator[AuditEvent]:
        """Every event that this agent wrote, oldest first."""
        after = ""
        while page := self._store.keys(collection=self._collection, after=after, limit=_PAGE):
            for key in page:
                yield msgspec.convert(self._store.get(key, collection=self._collection), AuditEvent)
            after = page[-1]
