"""Several writes that happen together or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from holdfast.collections import envelope
from holdfast.errors import UsageError
from holdfast.log import Draft, drafts
from holdfast.log.drafts import MESSAGES
from holdfast.log.versions import Version

if TYPE_CHECKING:
    from holdfast.node.sealing import Sealing

STATE = "state"
"""The collection of keys that are not given another."""
CAS_AGENT = "hub"
"""Whose keys those of a cas collection are: the hub writes what it decides into a stream of this name."""


Redact = Callable[[str, str, Any], Any]
"""What takes secrets out of a value before it is written: called with collection, key and value, it returns a value."""


class Batch:
    """Collects writes; leaving its ``with`` block writes them all in one commit, an exception none.

    At most 500 records and 1 MiB. `versions` holds what was written, in order, once it is.
    """

    def __init__(self, cas: frozenset[str], sealing: Sealing | None = None, redact: Redact | None = None) -> None:
        self.drafts: list[Draft] = []
        self.versions: list[Version] = []
        self._cas = cas
        self._sealing = sealing
        self._redact = redact

    def put(
        self,
        key: str,
        value: Any,
        *,
        collection: str = STATE,
        expect: int | str | None = None,
        subject: str | None = None,
    ) -> None:
        """Adds a put; see `Store.put`."""
        self._refuse_cas(collection)
        if self._redact is not None:
            value = self._redact(collection, key, value)
        self.take(drafts.value(collection, key, value, expect=expect), subject)

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
        self.take(drafts.remove(collection, key, reason=reason, prefix=prefix, expect=expect), None)

    def post(self, body: Any, *, kind: str = "message", msg_id: str = "", **fields: Any) -> None:
        """Adds a message; see `Store.post`, whose other fields it takes too."""
        if fields.get("dedupe") is not None:
            raise UsageError("a dedupe key is for a message alone", hint="post it outside the batch, or name a msg_id")
        if self._redact is not None:
            body = self._redact(MESSAGES, msg_id, body)
        self.drafts.append(drafts.message(envelope(body, **fields), msg_id=msg_id, kind=kind))

    def take(self, draft: Draft, subject: str | None = None) -> None:
        """Adds a draft that was made elsewhere; it is sealed where its collection is."""
        sealing = self._sealing
        if sealing is not None and (subject is not None or draft.collection in sealing.collections):
            draft = sealing.seal(draft, subject, self.drafts)
        self.drafts.append(draft)

    def _refuse_cas(self, collection: str) -> None:
        if collection in self._cas:
            raise UsageError(
                f"{collection!r} is a cas collection: the hub decides each write alone",
                hint="put it outside the batch",
            )
