"""What an agent does all day, on its own machine."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import SYSTEM
from holdfast.errors import Conflict, NotFound, StoreClosed, UsageError
from holdfast.node.store import Store
from holdfast.records import INLINE_BYTES_MAX

Open = Callable[..., Store]


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "text\n😀", b"", b"\x00\xff", [], {"a": [1, {"b": None}]}])
def test_what_was_put_comes_back(store: Store, value: Any) -> None:
    store.put("key", value)
    got = store.get("key")
    assert got == value
    assert type(got) is type(value)


def test_a_version_says_what_was_written(store: Store) -> None:
    first = store.put("plan", {"step": 1})
    second = store.put("plan", {"step": 2})
    assert (first.version, second.version) == (1, 2)
    assert (first.seq, second.seq) == (1, 2)
    assert second.value == {"step": 2}
    assert second.agent == "ada"
    assert abs(second.time - SYSTEM.now_ms() / 1000) < 60


def test_nothing_there_raises_or_gives_the_default(store: Store) -> None:
    with pytest.raises(NotFound, match="ada has nothing at state/plan"):
        store.get("plan")
    assert store.get("plan", default=None) is None


def test_a_deleted_key_has_no_value_and_keeps_its_history(store: Store) -> None:
    store.put("plan", 1)
    store.delete("plan", reason="done")
    assert store.get("plan", default="none") == "none"
    gone, put = store.history("plan")
    assert gone.gone
    assert gone.value == {"reason": "done"}
    assert (put.value, put.version, gone.version) == (1, 1, 2)
    with pytest.raises(NotFound):
        store.delete("plan")


def test_a_prefix_is_deleted_at_once(store: Store) -> None:
    for key in ("a/1", "a/2", "b/1"):
        store.put(key, key)
    store.delete("a/", prefix=True)
    assert store.keys() == ["b/1"]
    store.put("a/2", "again")
    assert store.keys() == ["a/2", "b/1"]
    assert [each.kind for each in store.history("a/2")] == ["put", "delete-prefix", "put"]


def test_time_travel_by_version_and_by_time(store: Store) -> None:
    first = store.put("plan", "one")
    while SYSTEM.now_ms() / 1000 <= first.time:
        pass
    store.put("plan", "two")
    assert store.get("plan", at=1) == "one"
    assert store.get("plan", at=first.time) == "one"
    assert store.get("plan", at="2100-01-01T00:00:00Z") == "two"
    with pytest.raises(NotFound):
        store.get("plan", at=3)
    assert store.get("plan", at=first.time - 10, default="before") == "before"


def test_a_rollback_is_a_new_version(store: Store) -> None:
    store.put("plan", "one")
    store.put("plan", "two")
    back = store.rollback("plan", 1)
    assert (back.version, store.get("plan")) == (3, "one")
    assert [each.value for each in store.history("plan")] == ["one", "two", "one"]


def test_expect_lets_only_the_first_through(store: Store) -> None:
    first = store.put("plan", 1, expect=0)
    store.put("plan", 2, expect=first.version)
    with pytest.raises(Conflict) as caught:
        store.put("plan", 3, expect=first.version)
    assert caught.value.context["current_version"] == 2
    with pytest.raises(Conflict):
        store.put("plan", 3, expect=first.etag)
    assert store.get("plan") == 2


def test_one_of_many_threads_wins_each_version(store: Store) -> None:
    store.put("count", 0)
    lost = []

    def add() -> None:
        for _ in range(20):
            while True:
                now = store.history("count", limit=1)[0]
                try:
                    store.put("count", now.value + 1, expect=now.version)
                    break
                except Conflict:
                    lost.append(1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("count") == 80


def test_keys_come_in_order_and_in_pages(store: Store) -> None:
    for number in range(5):
        store.put(f"k/{number}", number)
    store.put("other", 1)
    assert store.keys("k/") == [f"k/{number}" for number in range(5)]
    assert store.keys("k/", after="k/1", limit=2) == ["k/2", "k/3"]
    assert store.keys(collection="elsewhere") == []


def test_collections_are_apart(store: Store) -> None:
    store.put("k", 1, collection="one")
    store.put("k", 2, collection="two")
    assert (store.get("k", collection="one"), store.get("k", collection="two")) == (1, 2)
    assert store.get("k", default=None) is None


def test_a_batch_is_all(store: Store) -> None:
    store.put("old", 1)
    with store.batch() as batch:
        batch.put("a", 1)
        batch.put("a", 2)
        batch.delete("old")
        batch.post("done", to="people", kind="report")
    assert (store.get("a"), store.get("old", default=None)) == (2, None)
    assert [each.kind for each in batch.versions] == ["put", "put", "delete", "report"]
    assert [each.version for each in batch.versions[:2]] == [1, 2]
    assert store.messages(to="people")[0].body == "done"


def test_a_batch_is_nothing_when_its_block_raises(store: Store) -> None:
    def write() -> None:
        with store.batch() as batch:
            batch.put("a", 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert store.get("a", default=None) is None


def test_a_batch_is_nothing_when_one_of_it_conflicts(store: Store) -> None:
    store.put("b", 1)

    def write() -> None:
        with store.batch() as batch:
            batch.put("a", 1)
            batch.put("b", 2, expect=0)

    with pytest.raises(Conflict):
        write()
    assert (store.get("a", default=None), store.get("b")) == (None, 1)


def test_a_batch_has_a_size(store: Store) -> None:
    def write() -> None:
        with store.batch() as batch:
            for number in range(501):
                batch.put(str(number), number)

    with pytest.raises(UsageError, match="501 records"):
        write()
    assert store.keys() == []


def test_a_message_is_posted_once(store: Store) -> None:
    first = store.post("hello", to="bob", msg_id="m1", priority="high", task="t", thread="th", role="user")
    again = store.post("hello, changed", to="bob", msg_id="m1")
    assert (again.body, again.seq) == ("hello", first.seq)
    (found,) = store.messages(to="bob", task="t", thread="th", kind="message")
    assert (found.id, found.body, found.priority, found.role, found.agent) == ("m1", "hello", "high", "user", "ada")


def test_messages_are_the_newest_in_the_order_they_were_posted(store: Store) -> None:
    for number in range(6):
        store.post(number, task="t")
    store.post("else", task="u")
    gone = store.messages(task="t")[5].id
    store.delete(gone, collection="messages")
    assert [each.body for each in store.messages(task="t", limit=3)] == [2, 3, 4]
    assert store.messages(since="2100-01-01") == []


@pytest.mark.parametrize("size", [INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 10_000_000])
def test_a_large_value_comes_back_whole(open_store: Open, size: int) -> None:
    value = b"%d." % size * (size // 4)
    store = open_store()
    store.put("large", value[:size])
    store.close()
    assert open_store().get("large") == value[:size]


def test_what_was_written_is_there_after_reopening(open_store: Open) -> None:
    store = open_store()
    store.put("k", [1])
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        store.get("k")
    with pytest.raises(StoreClosed):
        store.put("k", 1)
    assert open_store().get("k") == [1]


def test_agents_of_one_directory_are_apart_and_read_each_other(open_store: Open) -> None:
    ada, bob = open_store("ada"), open_store("bob")
    ada.put("k", "ada's")
    assert bob.get("k", default=None) is None
    assert bob.get("k", agent="ada") == "ada's"
    assert [each.value for each in bob.history("k", agent="ada")] == ["ada's"]
    assert bob.keys(agent="ada") == ["k"]


@pytest.mark.parametrize("agent", ["a/../b", "..", ".", "über mich", "x" * 200, "a b%2F"])
def test_any_name_is_a_folder_of_its_own(open_store: Open, tmp_path: Path, agent: str) -> None:
    open_store(agent).put("k", agent)
    assert open_store(agent).get("k") == agent
    assert len(list((tmp_path / "node" / "agents").iterdir())) == 1


@pytest.mark.parametrize("agent", ["", "a\nb", "ü" * 100, None])
def test_an_impossible_name_is_refused(open_store: Open, agent: Any) -> None:
    with pytest.raises(UsageError):
        open_store(agent)


def test_the_name_of_the_hubs_own_streams_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'hub' is the hub's own") as refused:
        Store(tmp_path / "node", "hub")
    assert "take another" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_what_no_record_can_hold_is_not_looked_for(open_store: Open) -> None:
    """It was a UnicodeEncodeError, or SQLite's own, where a write of the same is told what is wrong."""
    store = open_store("ada")
    store.put("k", 1)
    broken: Any = "half \udc80"
    for call in (
        lambda: store.get(broken, default=None),
        lambda: store.get("k", collection=broken),
        lambda: store.history(broken),
        lambda: store.delete(broken),
        lambda: store.keys(broken),
        lambda: store.keys(collection=broken),
        lambda: store.messages(to=broken),
        lambda: store.mail(broken),
        lambda: store.post("hi", to=broken),
        lambda: store.post("hi", to="bob", dedupe=broken),
        lambda: store.search("k", collection=broken),
        lambda: store.get(1 << 70),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError, match=r"surrogate|64 bits"):
            call()
    assert (store.get("k"), store.outbox_depth) == (1, 0)


WRITER = """
import sys
from holdfast.node.store import Store
with Store(sys.argv[1], "ada", hub=[]) as store:
    for number in range(200):
        store.put(f"{sys.argv[2]}/{number}", number)
print("done")
"""


def test_processes_share_one_agent_and_wait_for_each_other(open_store: Open, tmp_path: Path) -> None:
    """Also: several processes may make the directory at once."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "node")]
    running = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abc"]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert said == ["done\n"] * 3
    store = open_store()
    assert len(store.keys(limit=1000)) == 600
    assert store.health()["head"]["seq"] == 600


def test_search_finds_a_word_at_once(store: Store) -> None:
    store.put("note", {"text": "the quick brown fox"})
    store.put("other", "nothing of it")
    assert [each.key for each in store.search("brown fox")] == ["note"]


def test_own_changes_resume_exactly(store: Store) -> None:
    for number in range(3):
        store.put("k", number)
    changes = store.changes(live=False)
    assert next(changes).value == 0
    cursor = changes.cursor
    store.put("other", 3, collection="c")
    assert [each.value for each in store.changes(cursor, live=False)] == [1, 2, 3]
    assert [each.value for each in store.changes(cursor, live=False, collection="c")] == [3]
    assert list(store.changes("now", live=False)) == []
    with pytest.raises(UsageError):
        store.changes("12.abc@0")


def test_live_changes_wait_and_can_be_ended(store: Store) -> None:
    changes, got = store.changes(), []
    reader = threading.Thread(target=lambda: got.extend(changes))
    reader.start()
    store.put("k", 1)
    store.put("k", 2)
    while len(got) < 2:
        reader.join(0.01)
    changes.close()
    reader.join(10)
    assert not reader.is_alive()
    assert [each.value for each in got] == [1, 2]


def test_health_is_json_and_says_when_all_is_well(store: Store) -> None:
    store.put("k", 1)
    health = store.health()
    assert health["problems"] == []
    assert health["ok"]
    assert (health["head"]["seq"], health["agent"], health["level"]) == (1, "ada", "advanced")
    assert store.outbox_depth == 0
    assert store.flush(0)


def test_verify_proves_a_sound_log_and_finds_a_damaged_one(store: Store, tmp_path: Path) -> None:
    for number in range(20):
        store.put(f"k/{number}", {"n": number, "text": "x" * 500})
    store.put("large", b"y" * (INLINE_BYTES_MAX + 1))
    assert store.verify().findings == []
    (blob,) = (tmp_path / "node" / "blobs").glob("??/??/*")
    blob.chmod(0o600)
    blob.write_bytes(b"z" * (INLINE_BYTES_MAX + 1))
    assert store.verify().findings
