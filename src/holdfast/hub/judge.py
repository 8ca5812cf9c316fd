"""What a hub refuses beyond the protocol, and what it keeps of the one look that it takes at each payload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdfast.errors import HoldfastError
from holdfast.log.drafts import tags_of
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
    own_key = b""

    def refuse(self, request: Append, segment: Segment) -> str:
        if segment.agent == HUB_AGENT and segment.public_key != self.own_key:
            return "the name 'hub' is the hub's own: what stands under it, this hub has decided"
        try:
            check_names(PUT, "", "", segment.agent)
        except HoldfastError as error:
            return error.message
        return "" if segment.agent else "an agent needs a name"

    def append(self, requests: Sequence[Append]) -> list[AppendAnswer]:
        self.tags, self.payloads = {}, {}
        return super().append(requests)

    def reject(self, record: Record, payload: bytes) -> tuple[str, str] | None:
        if not record.flags & BLOB:
            try:
                tags = tags_of(record.collection, record.fmt, payload)
            except HoldfastError as error:
                return error.code, error.message
            if tags:
                self.tags[record.link] = tags
            if len(payload) <= KEPT_BYTES_MAX:
                self.payloads[record.link] = payload
        return None
