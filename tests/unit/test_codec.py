"""Values survive the way to bytes and back, and no bytes that somebody sends can hurt who reads them."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from holdfast import codec
from holdfast.errors import IntegrityError, UsageError

texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


@given(json_values | st.binary())
def test_a_value_comes_back_as_it_went(value: Any) -> None:
    fmt, payload = codec.serialise(value)
    back = codec.deserialise(fmt, payload)
    assert back == value
    assert type(back) is type(value)


@given(st.binary(max_size=2000))
def test_a_payload_comes_back_from_its_packing(payload: bytes) -> None:
    how, stored = codec.pack(payload)
    assert codec.unpack(how, stored, len(payload)) == payload
    assert len(stored) <= len(payload)


def test_equal_values_have_equal_bytes() -> None:
    assert codec.serialise({"b": 1, "a": {"d": 2, "c": 3}}) == codec.serialise({"a": {"c": 3, "d": 2}, "b": 1})


def test_the_format_says_what_it_was() -> None:
    assert codec.serialise(b"x") == (codec.FMT_BYTES, b"x")
    assert codec.serialise(bytearray(b"x")) == (codec.FMT_BYTES, b"x")
    assert codec.serialise(memoryview(b"x")) == (codec.FMT_BYTES, b"x")
    assert codec.serialise("x") == (codec.FMT_TEXT, b"x")
    assert codec.serialise(None) == (codec.FMT_JSON, b"null")


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [float("inf")],
        {"a": [{"b": float("-inf")}]},
        (float("nan"),),
        {"a": b"bytes within"},
        {1, 2},
        [datetime.now(UTC)],
        Decimal("1.10"),
        UUID(int=7),
    ],
)
def test_what_would_read_back_as_something_else_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="read back") as caught:
        codec.serialise(value)
    assert "NaN" in caught.value.hint


@pytest.mark.parametrize("value", [(1, (2, [3])), {"a": ({"b": ()},)}, 10**30 + 1, -(2**63) - 1, True, 1.0, -0.0])
def test_a_tuple_is_a_list_and_every_number_is_itself(value: Any) -> None:
    def listed(each: Any) -> Any:
        if isinstance(each, dict):
            return {key: listed(inner) for key, inner in each.items()}
        return [listed(inner) for inner in each] if isinstance(each, list | tuple) else each

    back = codec.deserialise(*codec.serialise(value))
    assert repr(back) == repr(listed(value))


def test_null_itself_is_a_value() -> None:
    assert codec.deserialise(*codec.serialise({"a": None, "b": 1.5})) == {"a": None, "b": 1.5}


@pytest.mark.parametrize("value", ["\ud800", ["\udfff"], {"a": "\ud800"}, {"\ud800": 1}])
def test_half_a_surrogate_pair_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="surrogate"):
        codec.serialise(value)


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**63) - 1, 10**300, -(10**300)])
def test_a_big_integer_stays_exact(value: int) -> None:
    assert codec.deserialise(*codec.serialise({"n": value})) == {"n": value}


@pytest.mark.parametrize("value", [object(), {1: "a"}, {(1, 2): 3}, lambda: 0, 1j])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="cannot store"):
        codec.serialise(value)


def nested(depth: int) -> list[Any]:
    out: list[Any] = []
    for _ in range(depth):
        out = [out, None]
    return out


@pytest.mark.parametrize("depth", [600, 5_000, 100_000])
def test_a_value_nested_too_deeply_is_refused_and_not_a_crash(depth: int) -> None:
    try:
        fmt, payload = codec.serialise(nested(depth))
    except UsageError:
        return
    with pytest.raises(UsageError):
        # Python may have gone deeper than its JSON reader will.
        codec.deserialise(fmt, b"[" * depth + payload)


def test_json_nested_too_deeply_by_somebody_else_is_refused_and_not_a_crash() -> None:
    with pytest.raises(UsageError, match="format 2"):
        codec.deserialise(codec.FMT_JSON, b"[" * 200_000)


@pytest.mark.parametrize(("fmt", "payload"), [(1, b"\xff"), (2, b"{"), (2, b""), (2, b"1 2"), (2, b"NaN"), (9, b"")])
def test_bytes_that_are_not_of_their_format_are_refused(fmt: int, payload: bytes) -> None:
    with pytest.raises(UsageError):
        codec.deserialise(fmt, payload)


@pytest.mark.parametrize(("size", "how"), [(0, codec.RAW), (511, codec.RAW), (512, codec.ZSTD), (513, codec.ZSTD)])
def test_compression_begins_at_512_bytes(size: int, how: int) -> None:
    assert codec.pack(b"a" * size)[0] == how


@pytest.mark.parametrize("size", [65535, 65536, 65537])
def test_sizes_around_the_inline_limit_survive(size: int) -> None:
    for payload in (b"ab" * (size // 2) + b"a" * (size % 2), os.urandom(size)):
        how, stored = codec.pack(payload)
        assert codec.unpack(how, stored, size) == payload


def test_what_does_not_shrink_is_stored_as_it_is() -> None:
    noise = os.urandom(4096)
    assert codec.pack(noise) == (codec.RAW, noise)


@pytest.mark.parametrize("length", [999, 1001, 0])
def test_a_body_of_another_length_than_recorded_is_refused(length: int) -> None:
    for how, stored in (codec.pack(b"a" * 1000), (codec.RAW, b"a" * 1000)):
        with pytest.raises(IntegrityError):
            codec.unpack(how, stored, length)


@pytest.mark.parametrize("length", [1 << 40, 1 << 63, 1 << 64])
def test_a_length_that_no_memory_holds_is_refused_before_it_is_asked_for(length: int) -> None:
    with pytest.raises(IntegrityError, match="the most is"):
        codec.unpack(codec.ZSTD, codec.pack(b"a" * 1000)[1], length)


def test_an_unknown_codec_says_that_an_update_may_help() -> None:
    with pytest.raises(UsageError, match="unknown codec 17") as caught:
        codec.unpack(17, b"", 0)
    assert "update" in caught.value.hint


def test_a_stored_body_cut_or_flipped_anywhere_never_passes_for_another() -> None:
    payload = b"the quick brown fox " * 50
    _, stored = codec.pack(payload)
    for size in range(len(stored)):
        with pytest.raises(IntegrityError):
            codec.unpack(codec.ZSTD, stored[:size], len(payload))
    for bit in range(len(stored) * 8):
        bad = bytearray(stored)
        bad[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(IntegrityError):
            codec.unpack(codec.ZSTD, bytes(bad), len(payload))  # may inflate to something: its hash tells


def bomb_zstd(size: int, *, declared: bool = True) -> bytes:
    maker = zstandard.ZstdCompressor(level=3, write_content_size=declared)
    if declared:
        return maker.compress(bytes(size))
    stream = maker.compressobj()
    return stream.compress(bytes(size)) + stream.flush()


LIAR = bytes.fromhex("28b52ffd") + b"\xe0" + struct.pack("<Q", 1 << 40) + b"\x01\x00\x00"
"""A frame that declares 1 TiB and holds nothing."""

BOMBS = {
    "zstd, declared": ("zstd", bomb_zstd(64 << 20)),
    "zstd, undeclared": ("zstd", bomb_zstd(64 << 20, declared=False)),
    "zstd, a liar": ("zstd", LIAR),
    "gzip": ("gzip", gzip.compress(bytes(64 << 20), 1)),
    "identity": ("identity", bytes((1 << 20) + 1)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_the_cap(name: str) -> None:
    encoding, data = BOMBS[name]
    with pytest.raises(UsageError):
        codec.inflate(encoding, data, 1 << 20)


@pytest.mark.parametrize("name", ["zstd, declared", "zstd, undeclared", "zstd, a liar"])
def test_a_bomb_as_a_stored_body_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError):
        codec.unpack(codec.ZSTD, BOMBS[name][1], 1000)


@pytest.mark.parametrize("encoding", ["zstd", "gzip", "identity", ""])
@pytest.mark.parametrize("size", [0, 1, 1000, (1 << 20) - 1, 1 << 20])
def test_a_coded_body_up_to_the_cap_comes_back(encoding: str, size: int) -> None:
    data = b"x" * size
    assert codec.inflate(encoding, codec.deflate(encoding, data), 1 << 20) == data


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_a_coded_body_one_byte_over_the_cap_is_refused(encoding: str) -> None:
    with pytest.raises(UsageError, match="inflates to more"):
        codec.inflate(encoding, codec.deflate(encoding, bytes(1001)), 1000)


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_a_coded_body_cut_short_or_with_a_tail_is_refused(encoding: str) -> None:
    whole = codec.deflate(encoding, os.urandom(500))
    for size in range(len(whole)):
        with pytest.raises(UsageError):
            codec.inflate(encoding, whole[:size])
    for tail in (b"x", whole):
        with pytest.raises(UsageError):
            codec.inflate(encoding, whole + tail)


def test_a_coding_that_is_not_named_is_refused() -> None:
    for encoding in ("br", "deflate", "zstd, gzip"):
        with pytest.raises(UsageError, match="unknown content encoding"):
            codec.inflate(encoding, zlib.compress(b"x"))


@given(st.binary(max_size=400))
def test_bytes_of_no_form_never_raise_anything_but_our_errors(data: bytes) -> None:
    for encoding in ("zstd", "gzip"):
        with contextlib.suppress(UsageError):
            codec.inflate(encoding, data, 1000)
    for how in (codec.RAW, codec.ZSTD):
        with contextlib.suppress(IntegrityError):
            codec.unpack(how, data, 100)


def test_threads_may_pack_and_unpack_at_once() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(200):
            payload = f"{number}/{turn} ".encode() * 60
            if codec.unpack(*codec.pack(payload), len(payload)) != payload:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_child_forked_while_another_thread_packs_can_pack() -> None:
    with codec._lock:  # as if by another thread
        child = os.fork()
        if not child:
            signal.alarm(20)  # a child that waits for its parent's lock waits for ever
            done = codec.unpack(*codec.pack(b"x" * 1000), 1000) == b"x" * 1000
            os._exit(0 if done else 1)
        _, status = os.waitpid(child, 0)
    assert status == 0


@pytest.mark.parametrize("said", [300, 999, 1001, 4000, 65791])
def test_a_frame_that_lies_about_its_size_is_refused(said: int) -> None:
    frame = bytearray(codec.pack(b"a" * 1000)[1])
    assert int.from_bytes(frame[5:7], "little") + 256 == 1000, "where zstd says how much is in a frame"
    frame[5:7] = (said - 256).to_bytes(2, "little")
    for length in (said, 1000):
        with pytest.raises(IntegrityError):
            codec.unpack(codec.ZSTD, bytes(frame), length)


def test_threads_that_are_the_first_to_decode_a_struct_of_structs_live() -> None:
    """In a process of its own: what would fail here is the process. Without `ready` it dies within some 100 rounds."""
    code = """
import sys, threading
import msgspec
from holdfast.codec import ready

sys.setswitchinterval(1e-6)
for n in range(400):
    inner = msgspec.defstruct(f"Inner{n}", [("a", int), ("b", str)])
    outer = msgspec.defstruct(f"Outer{n}", [("one", inner), ("more", list[inner])])
    start = threading.Barrier(4)

    def read():
        start.wait()
        msgspec.json.decode(b'{"one": {"a": 1, "b": "c"}, "more": [{"a": 2, "b": "d"}]}', type=ready(outer))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-500:]
