"""Record v1 is frozen: its bytes are computed here a second time, from docs/record-v1.md and not from the code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import records, seal
from holdfast.errors import ChainBroken, IntegrityError, UsageError
from holdfast.records import Record, decode_header, encode_header

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden_v1.json").read_text("utf-8"))
VECTORS: list[dict[str, Any]] = GOLDEN["records"]
FIELDS = tuple(name for name in Record.__struct_fields__ if name != "link")


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def spec_header(fields: dict[str, Any]) -> bytes:
    """The header by the specification's table, field for field, without a line of the code under test."""
    out = b"hf/rec/1" + b"\x00"
    out += fields["stream"]
    out += bytes([fields["fmt"]]) + bytes([fields["flags"]])
    out += fields["seq"].to_bytes(8, "big") + fields["hlc"].to_bytes(8, "big")
    out += fields["base"]
    out += fields["key_version"].to_bytes(8, "big") + fields["payload_len"].to_bytes(8, "big")
    for name, width in (("kind", 1), ("author", 2), ("collection", 2), ("key", 2)):
        text = fields[name].encode("utf-8")
        out += len(text).to_bytes(width, "big") + text
    return out + fields["kid"] + fields["payload_hash"]


def fields_of(vector: dict[str, Any]) -> dict[str, Any]:
    """A vector's fields, its bytes decoded from hex."""
    raw = {"stream", "base", "kid", "payload_hash"}
    return {name: bytes.fromhex(vector[name]) if name in raw else vector[name] for name in FIELDS}


def record_of(vector: dict[str, Any]) -> Record:
    return Record(**fields_of(vector), link=bytes.fromhex(vector["link"]))


named = pytest.mark.parametrize("vector", [*VECTORS, *GOLDEN["lone"]], ids=lambda vector: str(vector["name"]))


@named
def test_a_golden_header_is_what_the_specification_says(vector: dict[str, Any]) -> None:
    assert spec_header(fields_of(vector)).hex() == vector["header"]


@named
def test_a_golden_header_is_encoded_and_decoded(vector: dict[str, Any]) -> None:
    record, header = record_of(vector), bytes.fromhex(vector["header"])
    assert encode_header(record) == header
    assert decode_header(header, record.link) == record


@named
def test_a_golden_payload_has_its_hash(vector: dict[str, Any]) -> None:
    salt, payload = bytes.fromhex(vector["salt"]), bytes.fromhex(vector["payload"])
    assert sha256(b"hf/pay/1\x00", salt, payload).hex() == vector["payload_hash"]
    assert records.payload_hash(salt, payload).hex() == vector["payload_hash"]
    records.verify_payload(record_of(vector), salt, payload)


def test_the_golden_stream_is_bound_to_its_key_and_agent() -> None:
    key, agent = bytes.fromhex(GOLDEN["public_key"]), GOLDEN["agent"]
    stream = sha256(b"hf/stream/1\x00", key, agent.encode())[:16]
    assert stream.hex() == GOLDEN["stream"] == records.stream_id(key, agent).hex()
    assert sha256(b"hf/genesis/1\x00", stream).hex() == GOLDEN["genesis"] == records.genesis(stream).hex()
    assert records.stream_id(key, agent + "2") != stream


def test_the_golden_chain_links_from_its_genesis_to_its_head() -> None:
    link = bytes.fromhex(GOLDEN["genesis"])
    for number, vector in enumerate(VECTORS, 1):
        header, before = bytes.fromhex(vector["header"]), link
        link = sha256(b"hf/link/1\x00", before, sha256(header))
        assert (vector["seq"], vector["link"]) == (number, link.hex())
        assert records.next_link(before, header) == link == records.link_of_digest(before, sha256(header))
        records.verify_link(before, header, link, number)
    assert link.hex() == GOLDEN["heads"][-1]["link"]


@pytest.mark.parametrize("head", GOLDEN["heads"], ids=lambda head: f"seq {head['seq']}")
def test_a_golden_head_is_signed_by_the_key_in_force(head: dict[str, Any]) -> None:
    stream, link = bytes.fromhex(GOLDEN["stream"]), bytes.fromhex(head["link"])
    message = b"hf/head/1\x00" + stream + head["seq"].to_bytes(8, "big") + link
    assert message.hex() == head["message"] == records.head_message(stream, head["seq"], link).hex()
    signer = seal.Signer(bytes.fromhex(head["private_key"]))
    assert signer.sign(message).hex() == head["signature"]  # Ed25519 is deterministic
    assert seal.verify(signer.public_key, message, bytes.fromhex(head["signature"]))
    assert not seal.verify(signer.public_key, message[:-1] + b"\x00", bytes.fromhex(head["signature"]))


def test_the_rotate_vector_is_signed_by_the_key_that_it_retires() -> None:
    rotate = next(vector for vector in VECTORS if vector["kind"] == records.ROTATE)
    at_rotate, at_end = GOLDEN["heads"]
    assert at_rotate["seq"] == rotate["seq"]
    assert seal.Signer(bytes.fromhex(at_rotate["private_key"])).public_key.hex() == GOLDEN["public_key"]
    assert seal.Signer(bytes.fromhex(at_end["private_key"])).public_key.hex() == rotate["payload"]


def test_the_vectors_cover_the_whole_format() -> None:
    flags = {bit for vector in VECTORS for bit in (1, 2, 4, 8, 16) if vector["flags"] & bit}
    assert flags == {records.VALUE, records.BLOB, records.SEALED, records.TOMBSTONE, records.MORE}
    kinds = {vector["kind"] for vector in VECTORS}
    known = {getattr(records, n) for n in ("PUT", "DELETE", "DELETE_PREFIX", "MERGE", "PRUNE", "ROTATE", "MESSAGE")}
    assert known <= kinds
    assert {len(bytes.fromhex(vector["salt"])) for vector in VECTORS} == {0, 16}
    assert any(vector["author"] for vector in VECTORS)
    assert any(len(vector["key"].encode()) == records.KEY_BYTES_MAX for vector in VECTORS)
    assert any(vector["key"] == "" for vector in VECTORS)
    assert any(not vector["key"].isascii() for vector in VECTORS)
    assert any(vector["base"] != records.ZERO32.hex() for vector in VECTORS)
    assert len(VECTORS) >= 12


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
anything = st.builds(
    Record,
    stream=st.binary(min_size=16, max_size=16),
    fmt=st.integers(0, 255),
    flags=st.integers(0, 255),
    seq=st.integers(0, 2**64 - 1),
    hlc=st.integers(0, 2**64 - 1),
    base=st.binary(min_size=32, max_size=32),
    key_version=st.integers(0, 2**64 - 1),
    payload_len=st.integers(0, 2**64 - 1),
    kind=texts,
    author=texts,
    collection=texts,
    key=texts,
    kid=st.binary(min_size=16, max_size=16),
    payload_hash=st.binary(min_size=32, max_size=32),
    link=st.binary(min_size=32, max_size=32),
)


@given(anything)
def test_any_header_survives_the_round_trip(record: Record) -> None:
    header = encode_header(record)
    assert header == spec_header({name: getattr(record, name) for name in FIELDS})
    assert decode_header(header, record.link) == record


@given(anything, anything)
def test_different_records_never_share_a_header(one: Record, other: Record) -> None:
    same = msgspec.structs.replace(one, link=records.ZERO32) == msgspec.structs.replace(other, link=records.ZERO32)
    assert (encode_header(one) == encode_header(other)) == same


@given(anything, st.data())
def test_a_flipped_bit_in_a_header_changes_the_link(record: Record, data: st.DataObject) -> None:
    header = bytearray(encode_header(record))
    before = records.next_link(records.ZERO32, bytes(header))
    bit = data.draw(st.integers(0, len(header) * 8 - 1))
    header[bit // 8] ^= 1 << bit % 8
    assert records.next_link(records.ZERO32, bytes(header)) != before
    with pytest.raises(ChainBroken, match="seq 7"):
        records.verify_link(records.ZERO32, bytes(header), before, 7)


@pytest.mark.parametrize("vector", VECTORS[:4], ids=lambda vector: str(vector["name"]))
def test_a_header_cut_anywhere_is_refused(vector: dict[str, Any]) -> None:
    header = bytes.fromhex(vector["header"])
    for size in range(len(header)):
        with pytest.raises(IntegrityError):
            decode_header(header[:size])
    with pytest.raises(IntegrityError, match="behind its end"):
        decode_header(header + b"\0")


@given(st.binary(max_size=300))
def test_bytes_that_are_no_header_are_refused_with_our_error(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_header(data)
    with pytest.raises(IntegrityError):
        decode_header(bytes.fromhex(VECTORS[0]["header"])[:98] + data[:100])


def test_a_name_longer_than_its_field_is_refused() -> None:
    record = record_of(VECTORS[0])
    for name, size in (("kind", 256), ("author", 65536), ("collection", 65536), ("key", 65536)):
        with pytest.raises(UsageError, match="too long"):
            encode_header(msgspec.structs.replace(record, **{name: "x" * size}))


def test_a_payload_of_another_length_or_content_is_refused() -> None:
    vector = VECTORS[0]
    record, payload, salt = record_of(vector), bytes.fromhex(vector["payload"]), bytes.fromhex(vector["salt"])
    for wrong in (payload + b"\0", payload[:-1], bytes([payload[0] ^ 1]) + payload[1:]):
        with pytest.raises(IntegrityError, match="not what was recorded"):
            records.verify_payload(record, salt, wrong)
    with pytest.raises(IntegrityError):
        records.verify_payload(record, b"", payload)


def test_a_blob_reference_is_a_digest_and_a_size() -> None:
    digest = sha256(b"x")
    reference = records.blob_reference(digest, 70_000)
    assert reference == digest + (70_000).to_bytes(8, "big")
    assert records.read_blob_reference(reference) == (digest, 70_000)
    with pytest.raises(IntegrityError, match="40 bytes, this has 39"):
        records.read_blob_reference(reference[:-1])


@pytest.mark.parametrize(
    ("kind", "collection", "key", "author"),
    [
        ("k" * 65, "c", "k", ""),
        ("put", "c" * 256, "k", ""),
        ("put", "c", "k" * 1025, ""),
        ("put", "c", "ä" * 513, ""),
        ("put", "c", "k", "a" * 256),
        ("put", "c", "new\nline", ""),
        ("put", "c", "nul\0", ""),
        ("put", "c\x7f", "k", ""),
        ("put", "c", "\ud800", ""),
    ],
)
def test_a_name_that_no_header_carries_safely_is_refused(kind: str, collection: str, key: str, author: str) -> None:
    with pytest.raises(UsageError):
        records.check_names(kind, collection, key, author)


def test_a_name_that_is_not_text_is_refused() -> None:
    with pytest.raises(UsageError, match="key must be text, got int"):
        records.check_names("put", "c", 5)  # type: ignore[arg-type]


def test_names_of_the_greatest_length_pass() -> None:
    records.check_names("k" * 64, "c" * 255, "ä" * 512, "a" * 255)
    records.check_names("", "", "")
    records.check_names("put", "c", "\uffff\U0010ffff")
