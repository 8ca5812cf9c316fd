"""Compressed objects: what pays is compressed, what is damaged is never data, and a bomb stops."""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import codec
from holdfast.errors import (
    ObjectCorrupt,
    ObjectNotFound,
    StorageRefused,
    StoreClosed,
    UsageError,
)
from holdfast.objects import MemoryStore
from holdfast.objects.layers import Compressed, Layer
from holdfast.objects.layers.compressed import MARK
from holdfast.objects.port import Content
from tests.unit.objects_below import TEXT, Below


def test_what_pays_is_compressed_and_only_that() -> None:
    below = MemoryStore()
    store = Compressed(below)
    noise = os.urandom(5_000)
    for key, body, pays in (("text", TEXT, True), ("noise", noise, False), ("short", b"a" * 511, False)):
        put = store.put(key, body, metadata={"a": "1"})
        assert (MARK in below.head(key).metadata) is pays
        assert (below.head(key).size < 0.9 * len(body)) is pays
        for info in (put, store.head(key), next(store.list(key)), store.get(key).info):
            assert (info.size, info.metadata) == (len(body), {"a": "1"})
        assert store.read(key) == body
    assert below.read("noise") == noise
    assert zstandard.ZstdDecompressor().decompress(below.read("text")) == TEXT, "any tool reads it"
    full = {"a": "x" * 1990}
    store.put("full", TEXT, metadata=full)
    assert (below.read("full"), store.head("full").metadata) == (TEXT, full)
    with pytest.raises(StorageRefused, match=MARK):
        store.put("mine", b"x", metadata={MARK: "3"})
    with pytest.raises(StorageRefused):
        Compressed(below, saves=1.0)


def test_a_stream_is_compressed_as_it_comes() -> None:
    below = MemoryStore()
    store = Compressed(below)
    piece = TEXT * 20
    put = store.put("stream", (piece for _ in range(60)), metadata={"a": "1"})
    assert below.head("stream").metadata[MARK] == "end"
    assert below.head("stream").size < put.size / 10
    for info in (put, store.head("stream"), next(store.list("stream")), store.get("stream").info):
        assert (info.size, info.metadata) == (60 * len(piece), {"a": "1"})
    assert store.read("stream") == piece * 60
    assert store.read("stream", start=3_000_000, stop=3_000_100) == (piece * 60)[3_000_000:3_000_100]
    raw = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    assert raw.decompress(below.read("stream")) == piece * 60
    store.put("noise", (os.urandom(1 << 20) for _ in range(3)))
    assert below.head("noise").metadata == {}
    assert (store.head("noise").size, len(store.read("noise"))) == (3 << 20, 3 << 20)


def test_a_range_is_decompressed_no_further_than_it_goes() -> None:
    class Slow(Layer):
        given = 0

        def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
            content = super().get(key, start=start, stop=stop)
            body = content.read()

            def pieces() -> Iterator[bytes]:
                for at in range(0, len(body), 1000):
                    self.given += 1
                    yield body[at : at + 1000]

            return Content(content.info, pieces())

    below = Slow(MemoryStore())
    store = Compressed(below)
    body = bytes(random.Random(2).choices(b"0123456789abcdef", k=1_000_000))
    store.put("one", body)
    assert store.read("one", start=10, stop=20) == body[10:20]
    assert below.given < 300
    assert store.read("one", start=999_990) == body[999_990:]
    assert below.given > 450


def test_a_compressed_object_that_is_replaced_meanwhile_is_one_or_the_other() -> None:
    below = Below(MemoryStore())
    store = Compressed(below)
    first, other = TEXT * 300, TEXT * 301
    for call in ("head", "get"):
        store.put("one", iter([first]))
        below.after[call] = lambda: store.put("one", iter([other]))
        info = store.head("one") if call == "head" else store.get("one").info
        current = store.head("one")
        assert (info.size, info.etag) == (len(other), current.etag)
        assert store.read("one") == other
    for new in (b"now short and as it is", TEXT):
        store.put("one", TEXT[::-1])
        below.after["get"] = lambda new=new: store.put("one", new)  # type: ignore[misc]
        assert store.read("one", start=4, stop=9) == new[4:9]
    store.put("one", iter([first]))
    below.after["head"] = lambda: store.delete("one")
    with pytest.raises(ObjectNotFound):
        store.head("one")


def test_a_damaged_compressed_object_is_never_data() -> None:
    below = MemoryStore()
    store = Compressed(below)
    store.put("one", TEXT)
    store.put("stream", iter([TEXT * 300]))
    for key, plain in (("one", TEXT), ("stream", TEXT * 300)):
        raw, mark = below.read(key), below.head(key).metadata
        for change in (raw[:-1], raw[:-4], raw[:20], b"", raw + b"x", raw[:-20] + bytes(4) + raw[-16:], raw + raw):
            below.put(key, change, metadata=mark)
            with pytest.raises(ObjectCorrupt, match=key):
                store.read(key)
        for at in range(0, len(raw), max(1, len(raw) // 40)):
            below.put(key, raw[:at] + bytes([raw[at] ^ 16]) + raw[at + 1 :], metadata=mark)
            try:
                assert store.read(key) == plain
            except ObjectCorrupt:
                continue
    for mark in ("", "x", "-1", "9" * 30, str(len(TEXT) - 1), str(len(TEXT) + 1)):
        below.put("one", b"".join(codec.squeezed((TEXT,))), metadata={MARK: mark})
        with pytest.raises(ObjectCorrupt):
            store.read("one")


def test_what_the_store_below_says_is_not_taken_for_damage() -> None:
    class Closing(Layer):
        def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
            content = super().get(key, start=start, stop=stop)

            def pieces() -> Iterator[bytes]:
                yield content.read()[:30]
                raise StoreClosed("somebody closed it")

            return Content(content.info, pieces())

    store = Compressed(Closing(MemoryStore()))
    store.put("one", TEXT)
    with pytest.raises(StoreClosed):
        store.read("one")


def test_a_bomb_stops_where_its_mark_ends() -> None:
    below = MemoryStore()
    bomb = b"".join(codec.squeezed(bytes(1 << 20) for _ in range(96)))
    assert len(bomb) < 1 << 16
    below.put("bomb", bomb, metadata={MARK: "10"})
    with pytest.raises(ObjectCorrupt, match="more than 10 bytes"):
        Compressed(below).read("bomb")
    # In what is read on the way no piece is larger than what may be held.
    assert max(map(len, codec.expanded("zstd", (bomb,), 1 << 30))) <= 32 << 20


def test_gzip_of_others_is_read_when_asked() -> None:
    below = MemoryStore()
    seed = gzip.compress(TEXT)
    below.put("seed", seed, metadata={"a": "1"})
    below.put("two", gzip.compress(b"one ") + gzip.compress(b"two"))
    below.put("no", b"\x1f\x8b\x08 is no gzip at all")
    assert Compressed(below).read("seed") == seed, "bytes that somebody stored are bytes"
    store = Compressed(below, gzip=True)
    assert (store.read("seed"), store.head("seed").size, store.head("seed").metadata) == (TEXT, len(TEXT), {"a": "1"})
    assert (store.read("seed", start=5, stop=9), store.read("two")) == (TEXT[5:9], b"one two")
    for damaged in (seed[:-3], seed[:40], seed + b"x"):
        below.put("damaged", damaged)
        with pytest.raises(ObjectCorrupt, match="gzip"):
            store.read("damaged")
    below.delete("damaged")
    with pytest.raises(ObjectCorrupt):
        store.read("no")
    below.delete("no")
    store.put("seed", store.read("seed"))
    assert {info.key: info.size for info in store.list()} == {"seed": len(TEXT), "two": 7}
    assert Compressed(below).read("seed") == TEXT


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
@given(body=st.binary(max_size=3000), size=st.integers(1, 400))
@settings(max_examples=25)
def test_a_stream_expands_however_it_is_cut(encoding: str, body: bytes, size: int) -> None:
    coded = gzip.compress(body) if encoding == "gzip" else b"".join(codec.squeezed((body,)))
    pieces = [coded[at : at + size] for at in range(0, len(coded), size)]
    assert b"".join(codec.expanded(encoding, pieces, len(body))) == body
    for wrong in (pieces[:-1], [*pieces, b"x"], [*pieces[:-1], pieces[-1][:-1]]):
        with pytest.raises(UsageError):
            list(codec.expanded(encoding, wrong, 1 << 20))
    if body:
        with pytest.raises(UsageError, match="more than"):
            list(codec.expanded(encoding, pieces, len(body) - 1))
