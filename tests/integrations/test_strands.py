"""Strands' in-memory storage as the oracle; namespaces, versions, every place, two machines."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Store
from tests.integrations.places import LIMITS, MISSING, fresh
from tests.integrations.places import hub as hub
from tests.integrations.places import kept as kept
from tests.integrations.places import machines as machines

pytest.importorskip("strands", reason=MISSING)

from strands.storage import InMemoryStorage, Storage
from strands.types.exceptions import StorageError

from holdfast.integrations.strands import HoldfastStorage

KEYS = st.sampled_from(["a", "a/b", "a/b/c", "ab", "/a//b/", "b", "", "/", "..", "a/../b", "x\\y", "a..b"])
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"), KEYS, st.binary(max_size=8) | st.sampled_from([b"red fox", b"green fox", b"red red"])
        ),
        st.tuples(st.just("read"), KEYS),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("list"), st.sampled_from(["", "a", "a/", "/a", "a//b", "..", "nothing", "x\\"])),
        st.tuples(st.just("search"), st.sampled_from(["red", "red fox", "nothing"])),
    ),
    max_size=15,
)


async def do(storage: Any, step: tuple[Any, ...]) -> Any:
    try:
        found = await getattr(storage, step[0])(*step[1:])
    except StorageError:
        return "refused"
    return sorted((each.key, each.score) for each in found) if step[0] == "search" else found


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS, below=st.sampled_from(["", "s", "/s//t/"]))
def test_it_is_what_strands_own_is(steps: list[tuple[Any, ...]], below: str) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory, Store(directory, "ada", hub=[], limits=LIMITS) as store:
            ours, theirs = HoldfastStorage(store), InMemoryStorage()
            both: list[Any] = [ours.namespace(below), theirs.namespace(below)] if below else [ours, theirs]
            for step in steps:
                assert await do(both[0], step) == await do(both[1], step), step
            assert await ours.list("") == await theirs.list("")

    asyncio.run(run())


def test_versions_and_namespaces_at_every_place(kept: dict[str, Any]) -> None:
    async def run() -> None:
        storage = HoldfastStorage(**kept)
        assert isinstance(storage, Storage)
        await storage.write("snapshot", b"1")
        await storage.write("snapshot", b"2" * 3_000_000)
        new, old = await storage.versions("snapshot")
        assert (await storage.read("snapshot", at=old), await storage.read("snapshot", at=new)) == (
            b"1",
            b"2" * 3_000_000,
        )
        below = storage.namespace("agents").namespace("ada")
        await below.write("k", b"v")
        assert (await below.list(), await storage.list("agents")) == (["k"], ["agents/ada/k"])
        await storage.delete("agents/ada/k")
        await storage.delete("agents/ada/k")
        assert await below.read("k") is None

    asyncio.run(run())


def test_a_snapshot_of_one_machine_is_read_on_the_other(machines: tuple[Store, Store]) -> None:
    name = fresh()

    async def run() -> None:
        there, here = (HoldfastStorage(each, shared=True, collection=name) for each in machines)
        await there.write("session/latest", b"step 1")
        assert await here.read("session/latest") == b"step 1"
        await here.write("session/latest", b"step 2")
        assert await there.read("session/latest") == b"step 2"

    asyncio.run(run())
