"""A node's hand without a node: it writes chains of records, signs them, and packs them as they travel."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from holdfast import codec, records, wire
from holdfast.records import Record
from holdfast.seal import Signer, generate
from holdfast.wire import Item, Mark


class Pen:
    """One agent's stream on one node; `fork` makes the copy that somebody else goes on with."""

    def __init__(self, agent: str = "ada", key: bytes | None = None) -> None:
        self.agent = agent
        self.signer = Signer(key or generate())
        self.public_key = self.signer.public_key
        self.stream = records.stream_id(self.public_key, agent)
        self.inc = os.urandom(16)
        self.marks = [Mark(0, records.genesis(self.stream))]
        self.items: list[Item] = []
        self.stamp = 1_700_000_000_000 << 16
        self.versions: dict[tuple[str, str], tuple[int, bytes]] = {}

    def fork(self) -> Pen:
        """A copy of the node's directory, under a new incarnation."""
        other = object.__new__(Pen)
        other.__dict__ = {**self.__dict__, "marks": [*self.marks], "items": [*self.items]}
        other.versions = dict(self.versions)
        other.inc = os.urandom(16)
        return other

    @property
    def head(self) -> Mark:
        """The newest record's mark."""
        return self.marks[-1]

    def put(self, key: str, value: Any, *, collection: str = "state", kind: str = "put", **changes: Any) -> Record:
        """Writes one value; `changes` alter the header."""
        fmt, payload = codec.serialise(value)
        return self.write(key, fmt, payload, collection=collection, kind=kind, **changes)

    def message(self, key: str, body: Any, **envelope: Any) -> Record:
        """Writes one message."""
        return self.put(key, {"body": body, **envelope}, collection="messages", kind="message")

    def write(self, key: str, fmt: int, payload: bytes, **changes: Any) -> Record:
        """Writes one record with this payload."""
        self.stamp += 1 << 16
        at = (changes.get("collection", ""), key)
        version, base = self.versions.get(at, (0, records.ZERO32))
        salt = os.urandom(16)
        values: dict[str, Any] = {
            "stream": self.stream,
            "fmt": fmt,
            "flags": records.VALUE,
            "seq": self.head.seq + 1,
            "hlc": self.stamp,
            "base": base,
            "key_version": version + 1,
            "payload_len": len(payload),
            "kind": "put",
            "author": "",
            "collection": "",
            "key": key,
            "kid": records.ZERO16,
            "payload_hash": records.payload_hash(salt, payload),
        }
        record = Record(**{**values, **changes})
        header = records.encode_header(record)
        link = records.next_link(self.head.link, header)
        self.marks.append(Mark(record.seq, link))
        self.items.append(Item(header, salt, *codec.pack(payload)))
        self.versions[at] = (version + 1, link)
        return msgspec.structs.replace(record, link=link)

    def segment(self, first: int = 1, last: int | None = None, **changes: Any) -> wire.Segment:
        """Records first … last, signed."""
        last = self.head.seq if last is None else last
        end = self.marks[last]
        signature = self.signer.sign(records.head_message(self.stream, end.seq, end.link))
        segment = wire.Segment(
            self.stream,
            self.inc,
            self.agent,
            self.public_key,
            first,
            self.marks[first - 1].link,
            self.items[first - 1 : last],
            signature,
        )
        return msgspec.structs.replace(segment, **changes)

    def hello(self, nonce: bytes = b"nonce") -> wire.Hello:
        """Where this pen stands, with every mark as a probe."""
        probes = [mark for mark in reversed(self.marks[1:])][:64]
        asked = wire.HelloStream(self.stream, self.inc, self.agent, self.public_key, self.head, probes)
        return wire.Hello("node-of-" + self.agent, nonce, [asked])
