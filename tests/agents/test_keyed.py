"""`AgentStorage`: keys, counters and times to live, among threads, processes and restarts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.agents import AgentStorage
from holdfast.errors import StoreClosed, UsageError
from holdfast.testing.clock import SettableClock
from tests.forks import Fork

COUNT = """
import sys
from holdfast.agents import AgentStorage
from holdfast.node.directory import Limits
with AgentStorage("my-agent", sys.argv[1], limits=Limits(floor_bytes=0, ballast_bytes=0)) as storage:
    for _ in range(50):
        storage.increment("hits")
"""


def test_what_is_set_is_there_until_it_is_deleted(keyed: AgentStorage, opened: Callable[..., Any]) -> None:
    values = {"config": {"setting": "value"}, "text": "plain", "bytes": b"\x00\xff", "big": "z" * 100_000, "none": None}
    for key, value in values.items():
        keyed.set(key, value)
    keyed.__exit__()
    with pytest.raises(StoreClosed):
        keyed.get("config")
    again = opened(AgentStorage, "my-agent")
    assert again.list_all() == values
    assert again.items("b") == [("big", values["big"]), ("bytes", values["bytes"])]
    assert again.exists("none")
    assert again.delete("config")
    assert not again.delete("config")
    assert (again.get("config"), again.get("config", 7), again.exists("config")) == (None, 7, False)
    assert again.set("config", 1) > again.set("config", 2) - 2


def test_keys_by_prefix_and_by_pattern(keyed: AgentStorage) -> None:
    for key in ("user:1:name", "user:2:name", "user:2:mail", "user*", "other"):
        keyed.set(key, 1)
    assert keyed.keys() == ["other", "user*", "user:1:name", "user:2:mail", "user:2:name"]
    assert keyed.keys("user:2:") == ["user:2:mail", "user:2:name"]
    assert keyed.keys("user*") == ["user*"]
    assert keyed.keys(pattern="user:*:name") == ["user:1:name", "user:2:name"]
    assert keyed.keys("user:2", pattern="*name") == ["user:2:name"]
    assert keyed.keys(pattern="?ther") == ["other"]
    assert keyed.keys("x", pattern="user*") == []
    assert keyed.clear("user:") == 3
    assert keyed.keys() == ["other", "user*"]
    assert keyed.clear() == 2


def test_what_has_expired_is_gone_at_once(
    keyed: AgentStorage, clock: SettableClock, opened: Callable[..., Any]
) -> None:
    beside = opened(AgentStorage, "my-agent")
    keyed.set("brief", {"n": 1}, ttl=10)
    keyed.set("long", 2)
    assert keyed.expire("long", 60)
    assert (keyed.ttl("brief"), keyed.ttl("long"), keyed.ttl("none")) == (10.0, 60.0, 0.0)
    clock.advance(9.999)
    assert beside.get("brief") == {"n": 1}
    clock.advance(0.001)
    for storage in (keyed, beside):
        assert storage.get("brief", "gone") == "gone"
        assert storage.keys() == ["long"]
        assert not storage.exists("brief")
        assert not storage.expire("brief", 5)
        assert not storage.delete("brief") or storage is keyed
    assert keyed.expire("long", None)
    clock.advance(1000)
    assert (keyed.get("long"), keyed.ttl("long")) == (2, None)
    assert keyed.expire("long", 0)
    assert not keyed.exists("long")


def test_a_value_set_anew_lives_as_its_setter_says(keyed: AgentStorage, clock: SettableClock) -> None:
    keyed.set("a", 1, ttl=5)
    keyed.set("a", 2)  # for ever
    keyed.set("b", 1, ttl=5)
    keyed.store.put("b", 2)  # by somebody who knows nothing of times to live
    keyed.set("c", 1, ttl=5)
    keyed.delete("c")
    keyed.set("c", 2)
    clock.advance(6)
    assert keyed.list_all() == {"a": 2, "b": 2, "c": 2}
    keyed.set("c", 3, ttl=5)
    keyed.set("c", 4, ttl=50)
    clock.advance(6)
    assert keyed.get("c") == 4


def test_deletions_of_what_has_expired_are_written_behind(keyed: AgentStorage, clock: SettableClock) -> None:
    for number in range(5):
        keyed.set(f"k{number}", number, ttl=1 + number)
    clock.advance(3.5)
    assert keyed.keys() == ["k3", "k4"]
    assert keyed.store.keys() == ["k0", "k1", "k2", "k3", "k4"]
    keyed.set("other", 1)
    assert keyed.store.keys() == ["k3", "k4", "other"]
    assert [each.gone for each in keyed.store.history("k0")] == [True, False]
    clock.advance(10)
    assert keyed.sweep() == 2
    assert keyed.store.keys() == ["other"]
    assert keyed.store.keys(collection="expiry") == []


def test_counters_count_among_threads_and_processes(keyed: AgentStorage, tmp_path: Path) -> None:
    processes = [Fork("-c", COUNT, tmp_path / "node") for _ in range(2)]

    def count() -> None:
        for _ in range(50):
            keyed.increment("hits")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(60) for process in processes] == [0, 0]
    assert keyed.get("hits") == 300


def test_a_counter_keeps_its_time_and_begins_anew_behind_it(keyed: AgentStorage, clock: SettableClock) -> None:
    keyed.set("n", 5, ttl=10)
    assert keyed.increment("n", 2.5) == 7.5
    assert keyed.increment("n", -7.5) == 0
    assert keyed.ttl("n") == 10.0
    clock.advance(10)
    assert keyed.increment("n", 3) == 3
    assert keyed.ttl("n") is None
    keyed.set("text", "abc")
    for key, by in (("text", 1), ("n", float("nan"))):
        with pytest.raises(UsageError):
            keyed.increment(key, by)
    assert keyed.get("text") == "abc"


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), True, "10", 1e12, 1e308])
def test_no_time_to_live_is_refused_and_nothing_is_written(keyed: AgentStorage, ttl: Any) -> None:
    keyed.set("k", 1)
    with pytest.raises(UsageError, match="no time to live"):
        keyed.set("k", 2, ttl=ttl)
    assert keyed.get("k") == 1
