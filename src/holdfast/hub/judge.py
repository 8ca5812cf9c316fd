"""What a hub refuses beyond the protocol, and what it keeps of the one look that it takes at each payload."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from holdfast.collections.typed.schema import SCHEMAS
from holdfast.corpus.port import fits
from holdfast.corpus.sql import TAGS
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.hub.principal import ADMIN, Principal
from holdfast.log.drafts import MESSAGES, tags_of, told_ms
from holdfast.protocol.ingest import Ingest
from holdfast.records import BLOB, PUT, Record, check_names, decode_header, genesis
from holdfast.wire import Append, AppendAnswer, Mark, Segment, Verdict

HUB_AGENT: Final = "hub"
"""Whose stream holds what the hub decides: the keys of every `cas` collection are this agent's."""
RULED: Final = frozenset({"notify"})
"""What the hub's own stream holds of the hub itself: rules of notifications, which only administrators make and end."""
KEPT_BYTES_MAX: Final = 2 << 10
"""Payloads up to here are kept from their check until they are shown: 4 MB in the largest commit."""


def check_decides(principal: Principal, collection: str) -> None:
    """Returns only if the hub writes this collection in its own stream for whoever asks.

    Raises:
        Denied: it is the hub's, and he is no administrator.
    """
    if collection in RULED:
        principal.need(ADMIN)


def denials(principal: Principal, message: Append) -> dict[int, Verdict]:
    """Which segments of a request this principal may not write: their places, and what to answer for each.

    Its token authorises the node; the signed head of each segment, which ingest checks, the stream. Who has but one of
    the two writes nothing.
    """
    found = {}
    for number, segment in enumerate(message.segments):
        reason = _denial(principal, segment)
        if reason:
            at = Mark(0, genesis(segment.stream))
            found[number] = Verdict(stream=segment.stream, inc=segment.inc, state="denied", at=at, reason=reason)
    return found


def _denial(principal: Principal, segment: Segment) -> str:
    if not principal.writes_as(segment.agent):
        return f"{principal} may not write as the agent {segment.agent!r:.80}"
    if "*" in principal.collections:
        return ""
    for item in segment.items:
        try:
            record = decode_header(item.header)
        except IntegrityError:
            return ""  # not a record at all: ingest says so
        # What a collection is, says who may write it; its name is the key.
        collection = record.key if record.collection == SCHEMAS else record.collection
        # What is in no collection is the log's own: its prune and rotate records.
        if collection and not fits(collection, principal.collections):
            return f"{principal} may not write to {collection!r:.80}"
    return ""


class Brought(Append, frozen=True, gc=False, kw_only=True):
    """What this hub has fetched from one that it follows, with the ids of the requests that wrote it there, by the
    links of the records.

    Who may have written it, that one has looked at. What a node sends is never read as this: it names no request.
    """

    requests: dict[bytes, str]


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

    def disown(self, request: Append, segment: Segment, found: Sequence[Record]) -> str:
        # Whoever reads takes `author` for the writer, and only a hub's signature vouches for it: in its own log an
        # agent could else speak, and take back, in everybody's name.
        if segment.stream in self._hubs or isinstance(request, Brought):
            return ""
        agent = segment.agent
        for record in found:
            if record.author and record.author != agent:
                return f"record {record.seq} says {record.author!r:.80} wrote it, and this is the log of {agent!r:.80}"
        return ""

    def append(self, requests: Sequence[Append]) -> list[AppendAnswer]:
        self.tags, self.payloads, self.told = {}, {}, {}
        self._hubs: set[bytes] = set()
        answers = super().append(requests)
        asked = {link: text for each in requests if isinstance(each, Brought) for link, text in each.requests.items()}
        for row in self.plan.rows if asked else ():
            record = row.record
            # Repeated here, the request is known: it gets its first answer, and nothing is written twice.
            if record.link in asked and record.stream in self._hubs:
                self.tags[record.link] = (*self.tags.get(record.link, ()), (TAGS["request"], asked[record.link]))
        return answers

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
