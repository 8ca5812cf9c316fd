"""What a hub refuses beyond the protocol, and what it keeps of the one look that it takes at each payload."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from holdfast.corpus.sql import TAGS
from holdfast.errors import HoldfastError
from holdfast.log.drafts import MESSAGES, tags_of, told_ms
from holdfast.protocol.ingest import Ingest
from holdfast.records import BLOB, PUT, Record, check_names
from holdfast.wire import Append, AppendAnswer, Segment

HUB_AGENT: Final = "hub"
"""Whose stream holds what the hub decides: the keys of every `cas` collection are this agent's."""
KEPT_BYTES_MAX: Final = 2 << 10
"""Payloads up to here are kept from their check until they are shown: 4 MB in the largest commit."""


class HubIngest(Ingest):
    """Ingest that keeps, from its one look at each payload, what the record will be found by and shown with."""

    tags: dict[bytes, tuple[tuple[int, str], ...]]
    payloads: dict[bytes, bytes]
    told: dict[bytes, int]
    """The times that plain clients gave the messages that they wrote through another hub, by link."""
    hub_keys: Container[bytes] = ()
    """Whose own streams are taken: this hub's, and those of hubs that it has followed."""

    def refuse(self, request: Append, segment: Segment) -> str:
        if segment.public_key in self.hub_keys:
            self._hubs.add(segment.stream)
        elif segment.agent == HUB_AGENT:
            return "the name 'hub' is the hub's own: what stands under it, this hub has decided"
        try:
            check_names(PUT, "", "", segment.agent)
        except HoldfastError as error:
            return error.message
        return "" if segment.agent else "an agent needs a name"

    def append(self, requests: Sequence[Append]) -> list[AppendAnswer]:
        self.tags, self.payloads, self.told = {}, {}, {}
        self._hubs: set[bytes] = set()
        return super().append(requests)

    def reject(self, record: Record, payload: bytes) -> tuple[str, str] | None:
        inline = not record.flags & BLOB
        try:
            tags = tags_of(record, payload)
        except HoldfastError as error:
            return error.code, error.message
        if inline and len(payload) <= KEPT_BYTES_MAX:
            self.payloads[record.link] = payload
        if record.stream in self._hubs and record.collection == MESSAGES and record.author:
            # A plain client wrote it through another hub: here, too, its id names one message.
            tags = (*tags, (TAGS["msg_id"], record.key))
            told = told_ms(record.fmt, payload) if inline else None
            if told is not None:
                self.told[record.link] = told
        if tags:
            self.tags[record.link] = tags
        return None
