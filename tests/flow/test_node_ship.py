"""What an agent writes reaches the hub, whatever happens between."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import Conflict, HubUnavailable, NotFound
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.records import INLINE_BYTES_MAX
from tests.flow.hubs import HubProcess, until
from tests.forks import Fork

On = Callable[..., Store]


def test_a_write_on_one_node_is_read_on_another(on_node: On) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    ada.put("plan", {"step": 1})
    ada.put("plan", {"step": 2})
    assert ada.flush()
    assert bob.get("plan", agent="ada") == {"step": 2}
    assert bob.get("plan", agent="ada", at=1) == {"step": 1}
    assert [each.value for each in bob.history("plan", agent="ada")] == [{"step": 2}, {"step": 1}]
    assert bob.keys(agent="ada") == ["plan"]
    with pytest.raises(NotFound):
        bob.get("other", agent="ada")
    assert bob.get("other", agent="ada", default=0) == 0


def test_a_hub_that_is_away_costs_the_writer_nothing_and_is_caught_up(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    ada.put("k", 0)
    assert ada.flush()
    hub.kill()
    for number in range(1200):
        ada.put(f"k/{number}", number)
    assert ada.outbox_depth == 1200
    assert not ada.flush(0.1)
    hub.start()
    assert ada.flush(30)
    assert ada.outbox_depth == 0
    with Hub(hub.url) as reader:
        assert len(reader.keys("k/", agent="ada", limit=2000)) == 1200
        assert [each.seq for each in reader.changes(live=False)] == list(range(1, 1202))


def test_everything_arrives_once_when_the_hub_is_killed_under_load(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    for round_ in range(4):
        for number in range(300):
            ada.put(f"{round_}/{number}", number)
        hub.kill()
        ada.put(f"{round_}/more", 1)
        hub.start()
    assert ada.flush(30)
    with Hub(hub.url) as reader:
        assert [each.seq for each in reader.changes(live=False)] == list(range(1, 4 * 301 + 1))


@pytest.mark.parametrize("size", [INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 10_000_000])
def test_a_large_value_travels_whole(on_node: On, size: int) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    value = os.urandom(size)
    ada.put("large", value)
    ada.put("text", "ü" * (size // 2))
    assert ada.flush(30)
    assert bob.get("large", agent="ada") == value
    assert bob.get("text", agent="ada") == "ü" * (size // 2)
    got = {each.key: each.value for each in bob.changes(live=False)}
    assert got == {"large": value, "text": "ü" * (size // 2)}


def test_a_large_value_goes_on_where_a_killed_hub_left_it(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    value = os.urandom(24 << 20)
    ada.put("large", value)
    partial = hub.directory / "blobs" / "partial"
    until(lambda: partial.is_dir() and any(each.stat().st_size for each in partial.iterdir()), "the upload has begun")
    hub.kill()
    hub.start()
    assert ada.flush(60)
    with Hub(hub.url) as reader:
        assert reader.get("large", agent="ada") == value


def test_messages_of_all_nodes_meet(on_node: On) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    ada.post("hot lead", to="people", kind="report", priority="hot", task="t1")
    assert ada.flush()
    bob.post("seen", to="ada", task="t1")
    assert bob.flush()
    assert [each.body for each in ada.messages(to="ada")] == ["seen"]
    assert [each.body for each in bob.messages(task="t1")] == ["hot lead", "seen"]
    assert [each.agent for each in ada.messages(kind="report")] == ["ada"]
    assert [each.body for each in ada.messages(agent="ada")] == ["hot lead"]
    assert [each.value["body"] for each in bob.search("hot lead")] == ["hot lead"]


def test_a_reader_hears_everybody_live_and_through_a_restart(on_node: On, hub: HubProcess) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    ada.put("k", 1)
    with bob.changes() as changes:
        assert next(changes).value == 1
        bob.put("k", 2)
        assert next(changes).value == 2
        assert (ada.flush(), bob.flush()) == (True, True)
        hub.kill()
        hub.start()
        ada.put("k", 3)
        assert next(changes).value == 3
        cursor = changes.cursor
    bob.put("k", 4)
    assert bob.flush(30)
    assert [each.value for each in ada.changes(cursor, live=False)] == [4]


def test_now_skips_what_was_before(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    ada.put("k", 1)
    assert ada.flush()
    with Hub(hub.url) as reader, reader.changes("now", agent="ada", prefix="j") as changes:
        ada.put("k", 2)
        ada.put("j", 3)
        assert next(changes).value == 3


def test_the_hub_decides_in_a_cas_collection(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada", cas=("claims",))
    bob = on_node("n2", "bob", cas=("claims",))
    claim = ada.put("task", "ada's", collection="claims", expect=0)
    assert claim.author == "ada"
    with pytest.raises(Conflict):
        bob.put("task", "bob's", collection="claims", expect=0)
    assert bob.get("task", collection="claims") == "ada's"
    hub.kill()
    with pytest.raises(HubUnavailable):
        bob.put("task", "bob's", collection="claims", expect=1)
    assert bob.outbox_depth == 0
    hub.start()
    bob.delete("task", collection="claims", expect=1, reason="done")
    assert ada.get("task", collection="claims", default=None) is None
    assert ada.keys(collection="claims") == []


def test_without_a_hub_a_cas_write_is_refused(on_node: On) -> None:
    ada = on_node("n1", "ada", hub=[], cas=("claims",))
    with pytest.raises(HubUnavailable):
        ada.put("task", 1, collection="claims")


WRITER = """
import sys
from holdfast.node.store import Store
store = Store(sys.argv[1], sys.argv[2], hub=sys.argv[3] or [])
number = 0
while True:
    store.put(f"k/{number}", number)
    print(number, flush=True)
    number += 1
"""


def write_and_kill(home: Path, agent: str, hub: str, count: int) -> int:
    """A process that writes and is killed; the number of the last write that it was told is safe."""
    process = Fork("-c", WRITER, home, agent, hub, stdout=subprocess.PIPE)
    assert process.stdout is not None
    last = -1
    for line in process.stdout:
        last = int(line)
        if last == count:
            process.kill()
    process.wait()
    process.stdout.close()
    return last


def test_what_a_killed_process_was_told_is_there_once(on_node: On, hub: HubProcess, tmp_path: Path) -> None:
    told = [write_and_kill(tmp_path / "n1", "ada", hub.url, count) for count in (5, 50, 400)]
    ada = on_node("n1", "ada")
    assert ada.flush(30)
    keys = ada.keys("k/", limit=10_000)
    assert len(keys) >= max(told) + 1
    with Hub(hub.url) as reader:
        assert reader.keys("k/", agent="ada", limit=10_000) == keys
        seqs = [each.seq for each in reader.changes(live=False)]
        assert seqs == list(range(1, len(seqs) + 1))


def test_one_process_ships_what_another_without_a_hub_wrote(on_node: On, hub: HubProcess, tmp_path: Path) -> None:
    on_node("n1", "ada")
    told = write_and_kill(tmp_path / "n1", "bob", "", 20)
    with Hub(hub.url) as reader:
        until(lambda: len(reader.keys("k/", agent="bob")) > told, "bob's records were shipped")


def test_a_directory_that_was_copied_back_takes_up_what_it_lost(on_node: On, hub: HubProcess, tmp_path: Path) -> None:
    ada = on_node("n1", "ada")
    ada.put("old", 1)
    assert ada.flush()
    ada.close()
    shutil.copytree(tmp_path / "n1", tmp_path / "backup")
    ada = on_node("n1", "ada")
    for number in range(10):
        ada.put(f"lost/{number}", number)
    assert ada.flush()
    ada.close()
    shutil.rmtree(tmp_path / "n1")
    shutil.copytree(tmp_path / "backup", tmp_path / "n1")
    ada = on_node("n1", "ada")
    until(lambda: len(ada.keys("lost/")) == 10, "the lost records came back")
    ada.put("new", 1)
    assert ada.flush(30)
    with Hub(hub.url) as reader:
        assert reader.get("new", agent="ada") == 1
        seqs = [each.seq for each in reader.changes(live=False)]
        assert seqs == list(range(1, len(seqs) + 1))


def test_a_directory_that_was_copied_back_and_written_loses_neither_side(
    on_node: On, hub: HubProcess, tmp_path: Path
) -> None:
    ada = on_node("n1", "ada")
    ada.put("old", 1)
    assert ada.flush()
    ada.close()
    shutil.copytree(tmp_path / "n1", tmp_path / "backup")
    ada = on_node("n1", "ada")
    ada.put("theirs", "lost here")
    assert ada.flush()
    ada.close()
    shutil.rmtree(tmp_path / "n1")
    shutil.copytree(tmp_path / "backup", tmp_path / "n1")
    offline = on_node("n1", "ada", hub=[])
    offline.put("mine", "written before the hub was seen")
    offline.close()
    ada = on_node("n1", "ada")
    until(lambda: ada.get("theirs", default=None) == "lost here", "the other branch was merged")
    assert ada.get("mine") == "written before the hub was seen"
    assert ada.flush(30)
    with Hub(hub.url) as reader:
        assert reader.get("mine", agent="ada") == "written before the hub was seen"
        assert reader.get("theirs", agent="ada") == "lost here"


def test_a_cloned_node_and_its_original_both_keep_all_they_wrote(on_node: On, tmp_path: Path) -> None:
    ada = on_node("n1", "ada")
    ada.put("shared", 0)
    assert ada.flush()
    ada.close()
    shutil.copytree(tmp_path / "n1", tmp_path / "n2")
    one, two = on_node("n1", "ada"), on_node("n2", "ada")
    for number in range(20):
        one.put(f"one/{number}", number)
        two.put(f"two/{number}", number)
    assert (one.flush(30), two.flush(30)) == (True, True)
    for each in (one, two):
        each.close()
    # Said hello again, each takes over what the other wrote.
    one, two = on_node("n1", "ada"), on_node("n2", "ada")
    for each in (one, two):
        until(lambda each=each: len(each.keys("one/")) == len(each.keys("two/")) == 20, "the clones agree")


def test_a_rotated_key_goes_on_signing_and_the_old_history_stays_proven(on_node: On, hub: HubProcess) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    ada.put("k", 1)
    assert ada.flush()
    assert bob.get("k", agent="ada") == 1
    before = ada.health()["key"]
    key = ada.rotate()
    assert ada.health()["key"] == key != before
    ada.put("k", 2)
    assert ada.flush(30)
    assert bob.get("k", agent="ada") == 2
    assert bob.get("k", agent="ada", at=1) == 1
    ada.close()
    again = on_node("n1", "ada")
    again.put("k", 3)
    assert again.flush(30)
    with Hub(hub.url) as stranger:
        assert stranger.get("k", agent="ada") == 3


def test_two_hubs_both_get_everything(on_node: On, hub: HubProcess, tmp_path: Path) -> None:
    second = HubProcess(tmp_path / "hub2")
    try:
        ada = on_node("n1", "ada", hub=[hub.url, second.url])
        ada.put("k", 1)
        assert ada.flush(30)
        hub.kill()
        ada.put("k", 2)
        bob = on_node("n2", "bob", hub=[hub.url, second.url])
        until(lambda: bob.get("k", agent="ada") == 2, "the second hub has it")
        hub.start()
        assert ada.flush(30)
        with Hub(hub.url) as reader:
            assert reader.get("k", agent="ada") == 2
    finally:
        second.kill()


def test_what_was_just_posted_is_seen_before_the_hub_has_it(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    ada.post("first", to="bob")
    assert ada.flush()
    for number in range(50):
        ada.post(number, to="bob")
        assert [each.body for each in ada.messages(to="bob", limit=2)][-1] == number
    assert ada.flush()
    assert [each.body for each in ada.messages(to="bob")] == ["first", *range(50)]


def test_a_proxy_that_swallows_events_is_followed_by_long_polls(on_node: On, hub: HubProcess) -> None:
    from holdfast.node.changes import QUICK_MAX

    ada = on_node("n1", "ada")
    ada.put("k", 0)
    assert ada.flush()
    with ada.changes(live=True) as changes:
        changes._source._quick = QUICK_MAX  # as after three feeds that ended at once without an event
        assert next(changes).value == 0
        ada.put("k", 1)
        assert next(changes).value == 1
        assert changes._source._line is None
