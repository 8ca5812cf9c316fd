"""Whether one record, with nothing else of its stream, is what its agent wrote. Pure.

The chain of proof: the stream is the hash of a key and the agent's name; the header says which stream it is in and
what its payload hashes to; the links lead from it to a head; the head is signed by that key, or by one that it handed
over to. What this cannot prove is that there is nothing newer: that is the hub's word.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast import codec, records
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.records import Record
from holdfast.wire import Item, Proof

Verify = Callable[[bytes, bytes, bytes], bool]


class Proven(msgspec.Struct, frozen=True):
    """A record that is its agent's: `key` signed the head that covers it, since `key_seq` (0: from the start)."""

    record: Record
    item: Item
    agent: str
    public_key: bytes
    key: bytes
    key_seq: int
    keys: tuple[bytes, ...]
    """Every key from the first to `key`, oldest first."""


def prove(proof: Proof, agent: str, verify: Verify) -> Proven:
    """Returns only what is proven.

    Args:
        proof: what a hub sent.
        agent: whose record it must be.
        verify: checks a signature.

    Raises:
        IntegrityError: it says which link of the chain does not hold.
    """
    try:
        return _prove(proof, agent, verify)
    except IntegrityError:
        raise
    except HoldfastError as error:
        raise IntegrityError(f"a record of {agent} cannot be read: {error}") from error


def _prove(proof: Proof, agent: str, verify: Verify) -> Proven:
    if proof.agent != agent:
        raise IntegrityError(f"the hub sent a record of {proof.agent!r} as one of {agent!r}")
    stream = records.stream_id(proof.public_key, agent)
    link = records.next_link(proof.prev, proof.item.header)
    record = records.decode_header(proof.item.header, link)
    if record.stream != stream:
        raise IntegrityError(f"a record of {agent} is not in the stream of its key", seq=record.seq)
    if proof.item.body is not None:
        records.verify_payload(record, proof.item.salt, _payload(record, proof.item))
    seq = record.seq
    for digest in proof.trail:
        seq, link = seq + 1, records.link_of_digest(link, digest)
    keys, key_seq = [proof.public_key], 0
    for rotation in proof.rotations:
        at = records.next_link(rotation.prev, rotation.item.header)
        handed = records.decode_header(rotation.item.header, at)
        right = handed.stream == stream and handed.kind == records.ROTATE and key_seq < handed.seq < seq
        if not right or not verify(keys[-1], records.head_message(stream, handed.seq, at), rotation.signature):
            raise IntegrityError(f"a change of {agent}'s key is not signed by the key before it", seq=handed.seq)
        key = _payload(handed, rotation.item)
        records.verify_payload(handed, rotation.item.salt, key)
        keys.append(key)
        key_seq = handed.seq
    if not verify(keys[-1], records.head_message(stream, seq, link), proof.signature):
        raise IntegrityError(f"record {record.seq} of {agent} is not under a head that its key signed", seq=record.seq)
    return Proven(record, proof.item, agent, proof.public_key, keys[-1], key_seq, tuple(keys))


def _payload(record: Record, item: Item) -> bytes:
    return codec.unpack(item.codec, item.body or b"", record.payload_len)
