"""Which layer may lie over which, and that any sound stack is a store like any other."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import (
    ObjectConflict,
    ObjectNotFound,
    StorageRefused,
    StoreClosed,
)
from holdfast.objects import FileStore, MemoryStore, ObjectStore, SqliteStore
from holdfast.objects.layers import (
    Cached,
    Compressed,
    Fallback,
    Layer,
    Limited,
    Mirrored,
    Quotas,
    Retrying,
    Sealed,
    stack,
)
from holdfast.objects.layers.layer import KINDS, UNSOUND
from holdfast.objects.port import ABSENT
from tests.contract.test_objects_layers import Dim
from tests.unit.objects_below import RING

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


@pytest.mark.parametrize("make", [partial(Sealed, keys=RING), Cached, partial(Limited, quotas=Quotas(bytes_max=99))])
def test_a_forked_child_does_not_wait_for_its_parents_threads(make: Callable[[ObjectStore], Layer]) -> None:
    store = make(MemoryStore())
    store.put("one", b"1")
    with store._lock:  # type: ignore[attr-defined]  # as if another thread of the parent were at work
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.put("two", b"2")
                code = 0 if (store.read("one"), store.read("two")) == (b"1", b"2") else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not store.exists("two")


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


@pytest.mark.parametrize("data", ["text", "", {"a": 1}, {}, 5, None])
def test_what_is_no_bytes_is_refused_and_changes_nothing(tmp_path: Path, data: Any) -> None:
    """An empty text has no pieces, so it was stored as an object of no bytes."""
    journal = MemoryStore()
    stores: list[ObjectStore] = [MemoryStore(), FileStore(tmp_path / "files"), SqliteStore(tmp_path / "objects.db")]
    for layer in (
        Cached,
        Compressed,
        partial(Sealed, keys=RING),
        partial(Limited, quotas=Quotas(bytes_max=99)),
        Retrying,
        partial(Fallback, fallback=MemoryStore()),
        partial(Mirrored, mirror=MemoryStore(), journal=journal),
    ):
        stores.append(layer(MemoryStore()))  # type: ignore[operator]
    for store in stores:
        store.put("k", b"kept")
        for key in ("k", "new"):
            with pytest.raises(StorageRefused, match=f"not {type(data).__name__}"):
                store.put(key, data)
        assert [(info.key, info.size) for info in store.list()] == [("k", 4)], repr(store)
        store.close()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"content_type": None}, "content type"),
        ({"content_type": 5}, "content type"),
        ({"metadata": [("a", "b")]}, "metadata"),
        ({"metadata": "a=b"}, "metadata"),
    ],
)
def test_options_of_another_kind_are_refused(options: dict[str, Any], why: str) -> None:
    with MemoryStore() as store:
        with pytest.raises(StorageRefused, match=why):
            store.put("k", b"1", **options)
        store.put("k", b"12")
        for start, stop in (("1", None), (0, "2"), (None, None), (0, 1.5)):
            with pytest.raises(StorageRefused, match="range"):
                store.read("k", start=start, stop=stop)  # type: ignore[arg-type]
