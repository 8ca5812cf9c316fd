"""Another agent's value is believed only when every link of its proof holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from holdfast import seal, wire
from holdfast.errors import IntegrityError, NotFound
from holdfast.node.cache import Pins, trust
from holdfast.node.hub import Hub
from holdfast.node.proof import prove
from holdfast.node.store import Store
from holdfast.records import decode_header, encode_header, head_message, next_link, stream_id
from holdfast.wire import Proof, Rotation
from tests.flow.hubs import HubProcess

On = Callable[..., Store]
Change = Callable[[Proof], dict[str, Any]]


def a_proof(hub: HubProcess, key: str = "k", agent: str = "ada") -> Proof:
    """What the hub says of a key."""
    with Hub(hub.url) as reader:
        query = {"agent": agent, "collection": "state", "key": key}
        answer = reader.client.want("GET", "/v1/latest", query=query, headers={"Accept": wire.MEDIA})
    found: Proof = answer.decode(Proof)
    return found


def flipped(data: bytes, at: int = -1) -> bytes:
    """The same with one bit changed."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def other_payload(proof: Proof) -> dict[str, Any]:
    """Another value under the right header."""
    return {"item": msgspec.structs.replace(proof.item, body=b'"forged"', codec=0)}


def other_header(proof: Proof) -> dict[str, Any]:
    """A header that says something else."""
    record = msgspec.structs.replace(decode_header(proof.item.header), key_version=9)
    return {"item": msgspec.structs.replace(proof.item, header=encode_header(record))}


def own_key(proof: Proof) -> dict[str, Any]:
    """The whole record under a key of the forger's."""
    signer = seal.Signer(seal.generate())
    stream = stream_id(signer.public_key, proof.agent)
    header = encode_header(msgspec.structs.replace(decode_header(proof.item.header), stream=stream))
    record = decode_header(header)
    link = next_link(proof.prev, header)
    return {
        "public_key": signer.public_key,
        "item": msgspec.structs.replace(proof.item, header=header),
        "trail": [],
        "rotations": [],
        "signature": signer.sign(head_message(stream, record.seq, link)),
    }


def own_rotation(proof: Proof) -> dict[str, Any]:
    """A change of key that the forger signed himself."""
    signer = seal.Signer(seal.generate())
    head = head_message(decode_header(proof.item.header).stream, 1, bytes(32))
    return {"rotations": [*proof.rotations, Rotation(proof.item, proof.prev, signer.sign(head))]}


TAMPERED: dict[str, Change] = {
    "another payload": other_payload,
    "another header": other_header,
    "another link before it": lambda proof: {"prev": flipped(proof.prev)},
    "another trail": lambda proof: {"trail": [flipped(each) for each in proof.trail]},
    "a shorter trail": lambda proof: {"trail": proof.trail[:-1]},
    "another signature": lambda proof: {"signature": flipped(proof.signature)},
    "another first key": lambda proof: {"public_key": flipped(proof.public_key)},
    "another agent": lambda _: {"agent": "bob"},
    "a change of key of his own": own_rotation,
    "no change of key": lambda proof: {"rotations": []},
}


@pytest.fixture
def proof(on_node: On, hub: HubProcess) -> Proof:
    """A proof with a trail and a change of key."""
    ada = on_node("n1", "ada")
    ada.put("first", 0)
    assert ada.flush()
    ada.rotate()
    with ada.batch() as batch:
        batch.put("k", {"true": True})
        batch.put("later", 1)
    assert ada.flush(30)
    found = a_proof(hub)
    assert found.trail
    assert found.rotations
    return found


def test_only_the_true_answer_is_believed(proof: Proof) -> None:
    assert prove(proof, "ada", seal.verify).record.key == "k"
    for what, change in TAMPERED.items():
        forged = msgspec.structs.replace(proof, **change(proof))
        with pytest.raises(IntegrityError):
            print(what, prove(forged, "ada", seal.verify))


def test_a_forger_with_a_key_of_his_own_is_not_the_agent_that_was_known(proof: Proof) -> None:
    pins = Pins()
    true = prove(proof, "ada", seal.verify)
    forged = prove(msgspec.structs.replace(proof, **own_key(proof)), "ada", seal.verify)
    trust(pins, true)
    trust(pins, true)
    with pytest.raises(IntegrityError, match="another key"):
        trust(pins, forged)


def test_a_second_node_that_takes_an_agents_name_is_refused_and_told(on_node: On) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    ada.put("k", 1)
    assert ada.flush()
    assert bob.get("k", agent="ada") == 1
    other = on_node("n3", "ada")
    other.put("k", 2)
    assert other.flush()
    with pytest.raises(IntegrityError, match="known by another key"):
        bob.get("k", agent="ada")


def test_what_was_read_is_read_again_when_the_hub_is_away(on_node: On, hub: HubProcess) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    large = os.urandom(100_000)
    ada.put("k", 1)
    ada.put("k", 2)
    ada.put("large", large)
    assert ada.flush()
    assert bob.get("k", agent="ada") == 2
    assert bob.get("large", agent="ada") == large
    with pytest.raises(NotFound):
        bob.get("none", agent="ada")
    hub.kill()
    assert bob.get("k", agent="ada") == 2
    assert bob.get("k", agent="ada", at=2) == 2
    assert bob.get("large", agent="ada") == large
    with pytest.raises(ConnectionError):
        bob.get("k", agent="ada", at=1)
    with pytest.raises(ConnectionError):
        bob.messages()
