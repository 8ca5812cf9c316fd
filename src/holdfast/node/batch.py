"""Several writes that happen together or not at all."""

from __future__ import annotations

from typing import Any

from holdfast.collections import envelope
from holdfast.errors import UsageError
from holdfast.log import Draft, drafts
from holdfast.log.versions import Version

STATE = "state"
"""The collection of keys that are not given another."""
CAS_AGENT = "hub"
"""Whose keys those of a cas collection are: the hub writes what it decides into a stream of this name."""


class Batch:
    """Collects writes; leaving its ``with`` block writes them all in one commit, an exception none.

    At most 500 records and 1 MiB. `versions` holds what was written, in order, once it is.
    """

    def __init__(self, cas: frozenset[str]) -> None:
        self.drafts: list[Draft] = []
        self.versions: list[Version] = []
        self._cas = cas

    def put(self, key: str, value: Any, *, collection: str = STATE, expect: int | str | None = None) -> None:
        """Adds a put; see `Store.put`."""
        self._refuse_cas(collection)
        self.drafts.append(drafts.value(collection, key, value, expect=expect))

    def delete(
        self,
        key: str,
        *,
        reason: str = "",
        prefix: bool = False,
        collection: str = STATE,
        expect: int | str | None = None,
    ) -> None:
        """Adds a delete; see `Store.delete`."""
        self._refuse_cas(collection)
        self.drafts.append(drafts.remove(collection, key, reason=reason, prefix=prefix, expect=expect))

    def post(self, body: Any, *, kind: str = "message", msg_id: str = "", **fields: Any) -> None:
        """Adds a message; see `Store.post`, whose other fields it takes too."""
        self.drafts.append(drafts.message(envelope(body, **fields), msg_id=msg_id, kind=kind))

    def _refuse_cas(self, collection: str) -> None:
        if collection in self._cas:
            raise UsageError(
                f"{collection!r} is a cas collection: the hub decides each write alone",
                hint="put it outside the batch",
            )
