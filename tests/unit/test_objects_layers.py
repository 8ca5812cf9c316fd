"""What each layer adds, and which may lie over which."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import codec
from holdfast.errors import (
    ObjectConflict,
    ObjectCorrupt,
    ObjectNotFound,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    StoreClosed,
    UsageError,
)
from holdfast.objects import MemoryStore, ObjectStore
from holdfast.objects.layers import Cached, Compressed, Layer, Limited, Sealed, stack
from holdfast.objects.layers.compressed import MARK
from holdfast.objects.layers.layer import KINDS, UNSOUND
from holdfast.objects.layers.limited import Quotas, Used
from holdfast.objects.port import ABSENT, TYPE, Content, Expect, ObjectInfo, Source
from holdfast.seal import KeyRing
from tests.contract.test_objects_layers import Dim

RING = KeyRing({"k1": bytes(range(32))})
TEXT = b"the quick brown fox jumps over the lazy dog. " * 100


class Below(Layer):
    """A store that counts what it is asked, and lets something happen in the middle of it."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.asked: list[str] = []
        self.after: dict[str, Callable[[], object]] = {}
        """What happens once, when the store has answered and the caller does not know it yet."""

    def _happen(self, call: str) -> None:
        self.asked.append(call)
        if then := self.after.pop(call, None):
            then()

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        info = self.inner.put(key, data, content_type=content_type, metadata=metadata, expect=expect)
        self._happen("put")
        return info

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        content = self.inner.get(key, start=start, stop=stop)
        self._happen("get")
        return content

    def head(self, key: str) -> ObjectInfo:
        info = self.inner.head(key)
        self._happen("head")
        return info

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        found = self.inner.delete(key, expect=expect)
        self._happen("delete")
        return found


def lost() -> None:
    """The answer is lost on its way."""
    raise StorageUnavailable("no answer")


# -- the order ----------------------------------------------------------------------------------------------------

REFUSED = {
    "sealed": {"compressed", "sealed"},
    "cached": {"cached", "audited"},
    "compressed": {"compressed"},
    "retrying": {"retrying", "fallback", "mirrored", "audited"},
    "audited": {"audited"},
    "fallback": {"cached", "audited"},
    "mirrored": {"cached", "audited"},
    "limited": {"audited"},
}


def of_kind(word: str) -> type[Layer]:
    """A layer that is nothing but its kind."""
    return type(word.title(), (Layer,), {"kind": word})


@pytest.mark.parametrize("outer", KINDS)
def test_each_pair_of_layers_is_sound_or_refused_with_its_reason(outer: str) -> None:
    for inner in KINDS:
        for between in ((), (Layer,), (of_kind("metered"), Layer)):
            make = partial(stack, MemoryStore(), of_kind(inner), *between, of_kind(outer))
            if inner in REFUSED.get(outer, ()):
                with pytest.raises(StorageRefused) as caught:
                    make()
                assert UNSOUND[outer, inner] in str(caught.value)
                assert (caught.value.context["outer"], caught.value.context["inner"]) == (outer, inner)
            else:
                assert make().read is not None


def test_every_reason_is_of_layers_that_there_are() -> None:
    assert {(outer, inner) for outer, many in REFUSED.items() for inner in many} == set(UNSOUND)
    assert {word for pair in UNSOUND for word in pair} <= set(KINDS)
    assert all(len(reason) > 20 for reason in UNSOUND.values())


def test_a_second_branch_is_looked_at_too() -> None:
    with pytest.raises(StorageRefused, match="cached twice"):
        Cached(Layer(MemoryStore(), Cached(MemoryStore())))


def test_the_real_layers_are_of_their_kinds() -> None:
    with pytest.raises(StorageRefused, match=r"Compressed\(Sealed\(store\)\)"):
        stack(MemoryStore(), Compressed, partial(Sealed, keys=RING))
    for made in (Cached, Compressed):
        with pytest.raises(StorageRefused, match="twice"):
            stack(MemoryStore(), made, made)
    store = stack(MemoryStore(), partial(Sealed, keys=RING), Compressed, Cached, partial(Limited, quotas=Quotas()))
    assert repr(store).startswith("<Limited <Cached <Compressed <Sealed <MemoryStore memory:")


def test_a_layer_closes_what_is_below_and_lacks_what_it_lacks() -> None:
    class Poor(MemoryStore):
        lacks = frozenset({"swap"})

    one, other = MemoryStore(), Poor()
    layer = Layer(one, other)
    assert (layer.lacks, layer.name, layer.quick) == ({"swap"}, one.name, True)
    assert not Compressed(one).quick
    layer.close()
    for store in (one, other, layer):
        with pytest.raises(StoreClosed):
            store.read("x")


# -- cached -------------------------------------------------------------------------------------------------------


def test_what_is_known_is_not_asked_for_again() -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    store.put("one", b"0123456789", metadata={"a": "1"}, content_type="x/y")
    for _ in range(3):
        assert store.read("one") == b"0123456789"
        assert store.read("one", start=2, stop=4) == b"23"
        with store.get("one", start=8) as content:
            assert (content.info.size, content.info.content_type, content.read()) == (10, "x/y", b"89")
        store.head("one").metadata["a"] = "changed by a careless caller"
        assert store.head("one").metadata == {"a": "1"}
    assert below.asked == ["put"]
    below.put("two", b"2")
    assert [store.head("two").size, store.head("two").size, store.read("two"), store.read("two")] == [1, 1, b"2", b"2"]
    assert below.asked == ["put", "put", "head", "get"]
    stats = store.stats()
    assert (stats.hits, stats.misses, stats.entries, stats.evictions) == (17, 2, 2, 0)


def test_what_is_not_there_is_asked_for_every_time() -> None:
    inner = MemoryStore()
    store = Cached(inner)
    for call in (store.read, store.head):
        with pytest.raises(ObjectNotFound):
            call("one")
    inner.put("one", b"of another process")
    assert store.read("one") == b"of another process"


def test_an_answer_is_good_for_its_time() -> None:
    now = [100.0]
    inner = MemoryStore()
    store = Cached(inner, ttl_s=10, clock=lambda: now[0])
    store.put("one", b"1")
    inner.put("one", b"of another process")
    now[0] = 109.9
    assert store.read("one") == b"1"
    now[0] = 110.0
    assert store.read("one") == b"of another process"
    assert store.head("one").size == 18
    never = Cached(inner, ttl_s=0, clock=lambda: now[0])
    assert never.read("one") == b"of another process"
    inner.put("one", b"newer")
    assert never.read("one") == b"newer"
    with pytest.raises(StorageRefused):
        Cached(inner, ttl_s=-1)


def test_a_checked_answer_is_never_old() -> None:
    below = Below(MemoryStore())
    store = Cached(below, check=True)
    store.put("one", b"1")
    assert [store.read("one"), store.read("one")] == [b"1", b"1"]
    assert below.asked == ["put", "head", "head"]
    below.inner.put("one", b"2")
    assert (store.read("one"), store.head("one").etag) == (b"2", below.inner.head("one").etag)
    below.inner.delete("one")
    with pytest.raises(ObjectNotFound):
        store.read("one")


@pytest.mark.parametrize("call", ["get", "head"])
@pytest.mark.parametrize("write", ["put", "delete", "lost"])
def test_a_slow_read_does_not_bring_back_what_a_write_replaced(call: str, write: str) -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    below.inner.put("one", b"old")

    def meanwhile() -> None:
        if write == "lost":
            below.after["put"] = lost
            with pytest.raises(StorageUnavailable):
                store.put("one", b"newer")
        elif write == "put":
            store.put("one", b"newer")
        else:
            store.delete("one")

    below.after[call] = meanwhile
    slow = store.read("one") if call == "get" else store.head("one").size
    assert slow in (b"old", 3)
    for _ in range(2):
        if write == "delete":
            assert not store.exists("one")
        else:
            assert (store.read("one"), store.head("one").size) == (b"newer", 5)


def test_a_read_in_the_middle_of_a_write_is_not_kept() -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    store.put("one", b"old")

    inner = below.inner

    def source() -> Iterator[bytes]:
        assert store.read("one") == b"old"  # the write has begun, and is not yet there
        yield b"new"

    # Between its effect and its answer, whoever asks sees the new one: nobody may go back to the old one then.
    below.after["put"] = lambda: seen.append(store.read("one"))
    seen: list[bytes] = []
    store.put("one", source())
    assert seen == [b"new"]
    assert store.read("one") == inner.read("one") == b"new"


@pytest.mark.parametrize("error", ["lost", "conflict"])
def test_a_write_that_failed_leaves_nothing_in_the_cache(error: str) -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    store.put("one", b"old")
    if error == "lost":
        below.after["put"] = lost
        with pytest.raises(StorageUnavailable):
            store.put("one", b"new")
        assert store.read("one") == b"new"
        below.after["delete"] = lost
        with pytest.raises(StorageUnavailable):
            store.delete("one")
        assert not store.exists("one")
    else:
        below.inner.put("one", b"of another process")
        with pytest.raises(ObjectConflict):
            store.put("one", b"mine", expect=ABSENT)
        assert store.read("one") == b"of another process"


def test_of_two_writes_at_a_time_neither_is_kept() -> None:
    below = Below(MemoryStore())
    store = Cached(below)
    # The second one begins and ends between the first one's effect and its answer: the first must not be kept.
    below.after["put"] = lambda: store.put("one", b"second")
    store.put("one", b"first")
    assert store.read("one") == b"second"


def test_the_budget_holds_and_the_least_used_go() -> None:
    store = Cached(MemoryStore(), bytes_max=40_000)
    for number in range(20):
        store.put(f"n/{number:02}", bytes(3_000))
        store.read("n/00")
        assert store.stats().bytes <= 40_000
    assert store.stats().evictions == 20 - store.stats().entries > 5
    before = store.stats().misses
    store.read("n/00")
    assert store.stats().misses == before
    store.put("large", bytes(6_000))
    store.read("large")
    assert store.stats().misses == before + 1, "more than an eighth of the budget"
    store.put("stream", iter([b"x"]))
    store.forget()
    assert (store.stats().bytes, store.stats().entries) == (0, 0)
    store.put("one", b"1")
    store.forked()
    assert store.stats().entries == 0
    assert store.read("one") == b"1"


def test_readers_never_go_back_while_others_write() -> None:
    store = Cached(MemoryStore())
    store.put("one", b"0")
    done = threading.Event()
    failed: list[str] = []

    def write() -> None:
        for number in range(1, 1500):
            store.put("one", str(number).encode())
            if store.read("one") != str(number).encode():
                failed.append(f"{number} was put, {store.read('one')!r} is read")
        done.set()

    def read() -> None:
        last = 0
        while not done.is_set():
            now = int(store.read("one"))
            if now < last:
                failed.append(f"{now} after {last}")
            last = now

    threads = [threading.Thread(target=work) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


# -- compressed ---------------------------------------------------------------------------------------------------


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


def test_a_bomb_stops_where_its_mark_ends() -> None:
    below = MemoryStore()
    bomb = b"".join(codec.squeezed(bytes(1 << 20) for _ in range(512)))
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


# -- limited ------------------------------------------------------------------------------------------------------


def test_a_quota_says_which_and_how_much_and_nothing_is_written() -> None:
    below = MemoryStore()
    store = Limited(below, Quotas(objects_max=3, bytes_max=100, object_bytes_max=60))
    store.put("a", bytes(50))
    with pytest.raises(StorageFull, match=r"61 bytes.*60 are allowed") as caught:
        store.put("b", bytes(61))
    assert caught.value.context["quota"] == "object_bytes_max"
    with pytest.raises(StorageFull, match=r"50 bytes.*100 are allowed.*needs 51 more") as caught:
        store.put("b", bytes(51))
    assert (caught.value.context["used"], caught.value.context["limit"]) == (50, 100)
    store.put("b", b"1")
    store.put("c", b"1")
    with pytest.raises(StorageFull, match=r"3 objects.*3 are allowed"):
        store.put("d", b"")
    assert [info.key for info in below.list()] == ["a", "b", "c"]
    store.put("a", bytes(60))  # in the place of one that is there: ten more
    assert store.used() == Used(objects=3, bytes=62)
    store.delete("a")
    store.put("d", bytes(60))
    assert store.used() == store.refresh() == Used(objects=3, bytes=62)


def test_a_stream_is_cut_off_where_the_quota_ends() -> None:
    below = MemoryStore()
    store = Limited(below, Quotas(bytes_max=1000, object_bytes_max=700))
    store.put("old", bytes(400))
    read = itertools.count()
    for key, pieces in (("new", 7), ("old", 11), ("huge", 10_000)):
        with pytest.raises(StorageFull):
            store.put(key, (bytes(100) for _ in itertools.islice(read, pieces)))
    assert next(read) <= 7 + 11 + 10
    assert {info.key: info.size for info in below.list()} == {"old": 400}
    assert store.used() == Used(objects=1, bytes=400)
    store.put("old", iter([bytes(100)] * 7))
    assert store.used() == Used(objects=1, bytes=700)


def test_only_what_lies_below_the_prefix_counts() -> None:
    store = Limited(MemoryStore(), Quotas(objects_max=1, prefix="a/"))
    for number in range(3):
        store.put(f"b/{number}", b"1")
    store.put("a/1", b"1")
    with pytest.raises(StorageFull, match="'a/'"):
        store.put("a/2", b"1")
    for wrong in (Quotas(objects_max=-1), Quotas(prefix="/")):
        with pytest.raises(StorageRefused):
            Limited(MemoryStore(), wrong)


def test_what_others_wrote_is_learnt() -> None:
    now = [0.0]
    below = MemoryStore()
    below.put("old", bytes(60))
    store = Limited(below, Quotas(bytes_max=100), refresh_s=10, clock=lambda: now[0])
    with pytest.raises(StorageFull):
        store.put("new", bytes(50))
    below.delete("old")
    with pytest.raises(StorageFull):
        store.put("new", bytes(50))
    now[0] = 10.0
    store.put("new", bytes(50))
    below.put("other", bytes(50))
    assert store.refresh() == Used(objects=2, bytes=100)


def test_a_write_with_an_unknown_end_is_looked_at() -> None:
    below = Below(MemoryStore())
    store = Limited(below, Quotas(bytes_max=100))
    below.after["put"] = lost
    with pytest.raises(StorageUnavailable):
        store.put("one", bytes(60))  # it is there
    assert store.used().bytes == 60
    below.after["put"] = below.after["head"] = lost
    with pytest.raises(StorageUnavailable):
        store.put("two", bytes(40))  # it is there, and not even head answers: listed before the next write
    with pytest.raises(StorageFull):
        store.put("three", bytes(1))
    with pytest.raises(RuntimeError):
        store.put("one", _breaks())
    assert store.used() == Used(objects=2, bytes=100)
    below.after["delete"] = lost
    with pytest.raises(StorageUnavailable):
        store.delete("one")
    assert store.used() == Used(objects=1, bytes=40)


def _breaks() -> Iterator[bytes]:
    yield b"x"
    raise RuntimeError("the source broke")


def test_many_threads_cannot_pass_a_quota() -> None:
    below = MemoryStore()
    store = Limited(below, Quotas(bytes_max=700, objects_max=5))
    won: list[int] = []
    gate = threading.Barrier(16)

    def work(number: int) -> None:
        gate.wait(60)
        for turn in range(40):
            try:
                store.put(f"own/{number}", iter([bytes(50), bytes(50)]))
                won.append(number)
            except StorageFull:
                pass
            if sum(info.size for info in below.list()) > 700 or len(list(below.list())) > 5:
                won.append(-1)
            try:
                store.put("shared", bytes(20 + turn))
                store.delete("shared")
            except StorageFull:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert -1 not in won
    assert 1 <= len(set(won)) <= 5
    assert store.used() == store.refresh()


# -- all of them --------------------------------------------------------------------------------------------------

LAYERS: dict[str, Callable[[ObjectStore], ObjectStore]] = {
    "sealed": partial(Sealed, keys=RING),
    "compressed": partial(Compressed, least=20, saves=0),
    "cached": partial(Cached, bytes_max=20_000),
    "checked": partial(Cached, check=True),
    "limited": partial(Limited, quotas=Quotas(bytes_max=1 << 30)),
    "dim": Dim,
}
NAMES = st.sampled_from(["a", "a/b", "b", ".holdfast", "ü"])
NOISE = random.Random(1).randbytes(300_000)
BODIES = st.one_of(  # how long, and whether it is noise: a body itself is too long to be shown
    st.tuples(st.integers(0, 6000), st.booleans()),
    st.sampled_from([(262_144, True), (300_000, True), (1 << 21, False)]),
)
META = st.sampled_from([None, {"a": "1"}, {"long": "x" * 1990}])
STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "stream"]), NAMES, BODIES, META),
    st.tuples(st.sampled_from(["create", "swap", "stale"]), NAMES, BODIES),
    st.tuples(st.sampled_from(["delete", "read", "head", "drop"]), NAMES),
    st.tuples(st.just("range"), NAMES, st.integers(0, 7000), st.integers(0, 300_000)),
    st.tuples(st.just("list"), st.sampled_from(["", "a", "b", "a/"]), st.sampled_from([None, 1, 2])),
)


def done(store: ObjectStore, step: tuple, etags: dict[str, str]) -> object:  # type: ignore[type-arg]
    """What a step gives, without what differs from store to store."""
    what, key, *rest = step
    try:
        if what in ("put", "stream", "create", "swap", "stale"):
            expect = {"create": ABSENT, "swap": etags.get(key, "none"), "stale": "no-such"}.get(what)
            size, noise = rest[0]
            whole = NOISE[:size] if noise else (b"ab" * size)[:size]
            body = iter([whole[:7], whole[7:]]) if what == "stream" else whole
            meta = rest[1] if len(rest) > 1 else None
            info = store.put(key, body, content_type="x/y", metadata=meta, expect=expect)
            etags[key] = info.etag
            return info.size, info.metadata, info.content_type
        if what == "delete":
            return store.delete(key)
        if what == "drop":
            return store.delete(key, expect=etags.get(key, "none"))
        if what == "list":
            return [(info.key, info.size) for info in store.list(key, limit=rest[0])]
        if what == "range":
            return store.read(key, start=rest[0], stop=rest[0] + rest[1])
        if what == "head":
            info = store.head(key)
            return info.size, info.metadata, info.content_type
        with store.get(key) as content:
            return content.info.size, content.info.metadata, content.read()
    except (ObjectNotFound, ObjectConflict) as error:
        return type(error)


@given(order=st.permutations(list(LAYERS)), count=st.integers(1, 6), steps=st.lists(STEPS, max_size=14))
@settings(max_examples=150)
def test_any_sound_stack_is_a_store_like_any_other(order: list[str], count: int, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    store: ObjectStore = MemoryStore()
    under: list[str] = []
    for word in order[:count]:
        kind = word if word != "checked" else "cached"
        if any((kind, below) in UNSOUND for below in under):
            with pytest.raises(StorageRefused):
                LAYERS[word](store)
            continue
        store = LAYERS[word](store)
        under.append(kind)
    model, seen, expected = MemoryStore(), {}, {}  # type: ignore[var-annotated]
    for step in steps:
        assert done(store, step, seen) == done(model, step, expected), (under, step)
    assert done(store, ("list", "", None), seen) == done(model, ("list", "", None), expected)
