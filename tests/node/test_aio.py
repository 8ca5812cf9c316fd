"""The awaited twin: the same store, and a loop that never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.node.aio import AsyncStore
from holdfast.node.directory import Limits
from holdfast.records import INLINE_BYTES_MAX

ROOMY = Limits(floor_bytes=0, ballast_bytes=0)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs one test's coroutine."""
    asyncio.run(work)


def open_on(path: Path, agent: str = "ada") -> AsyncStore:
    """A store without a hub."""
    return AsyncStore(path / "node", agent, hub=[], limits=ROOMY)


def test_a_day_of_an_async_agent(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_on(tmp_path) as store:
            first = await store.put("plan", {"step": 1})
            await store.put("plan", {"step": 2}, durable=True)
            assert await store.get("plan") == {"step": 2}
            assert await store.get("plan", at=1) == {"step": 1}
            assert await store.get("none", default=0) == 0
            with pytest.raises(NotFound):
                await store.get("none")
            with pytest.raises(Conflict):
                await store.put("plan", 3, expect=first.version)
            await store.rollback("plan", 1)
            assert [each.value["step"] for each in await store.history("plan")] == [1, 2, 1]
            await store.delete("plan", reason="done")
            with pytest.raises(NotFound):
                await store.delete("plan")
            assert await store.keys() == []
            assert (await store.health())["ok"]
            assert await store.flush()
            assert store.outbox_depth == 0

    run(work())


def test_many_tasks_write_at_once_and_all_of_it_is_there(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_on(tmp_path) as store:
            made = await asyncio.gather(*(store.put(f"k/{number}", number) for number in range(500)))
            assert sorted(each.seq for each in made) == list(range(1, 501))
            assert await asyncio.gather(*(store.get(f"k/{number}") for number in range(500))) == list(range(500))

    run(work())


def test_many_tasks_wake_the_loop_less_than_once_each(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_on(tmp_path) as store:
            loop = asyncio.get_running_loop()
            wakes, plain = [], loop.call_soon_threadsafe

            def counted(*args: Any, **options: Any) -> Any:
                wakes.append(1)
                return plain(*args, **options)

            loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
            await asyncio.gather(*(store.put(f"k/{number}", number) for number in range(300)))
            assert len(wakes) < 100

    run(work())


def test_one_bad_write_fails_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_on(tmp_path) as store:
            writes = [store.put("k", number, expect=0) for number in range(5)]
            done = await asyncio.gather(*writes, return_exceptions=True)
            assert sum(isinstance(each, Conflict) for each in done) == 4
            with pytest.raises(UsageError):
                await store.put("k", float("nan"))

    run(work())


def test_a_cancelled_task_harms_nobody(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_on(tmp_path) as store:
            task = asyncio.create_task(store.put("k", 1))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await store.put("other", 2)
            assert await store.get("other") == 2

    run(work())


def test_batches_messages_and_large_values(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_on(tmp_path) as store:
            async with store.batch() as batch:
                batch.put("a", 1)
                batch.post("hello", to="bob")
            assert batch.versions[0].key == "a"
            sent = await store.post("again", to="bob", msg_id="m")
            assert (await store.post("again", to="bob", msg_id="m")).seq == sent.seq
            assert [each.body for each in await store.messages(to="bob")] == ["hello", "again"]
            large = b"x" * (INLINE_BYTES_MAX + 1)
            await store.put("large", large)
            assert await store.get("large") == large
            assert [each.key for each in await store.search("again")] == ["m"]

    run(work())


def test_changes_are_awaited_and_resume(tmp_path: Path) -> None:
    async def work() -> None:
        async with open_on(tmp_path) as store:
            got = []

            async def follow() -> None:
                async with store.changes() as changes:
                    async for each in changes:
                        got.append(each.value)
                        if len(got) == 3:
                            cursors.append(changes.cursor)
                            return

            cursors: list[str] = []
            task = asyncio.create_task(follow())
            for number in range(3):
                await store.put("k", number)
            await asyncio.wait_for(task, 30)
            assert got == [0, 1, 2]
            await store.put("k", 3)
            assert [each.value async for each in store.changes(cursors[0], live=False)] == [3]

    run(work())
