"""Processes that share, stall, are copied and put back: what returned is kept, and all agree in the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import StoreClosed
from holdfast.node.directory import Limits
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from tests.chaos import audit
from tests.chaos.actors import entries
from tests.chaos.conftest import PATIENCE_S, Cast, Served, Writer, until

ROOMY = Limits(floor_bytes=0, ballast_bytes=0)


@pytest.fixture
def hub(cast: Cast) -> Served:
    """A hub that listens."""
    return cast.hub().start()


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Opens stores in this process; all are closed at the end."""
    opened: list[Store] = []

    def make(node: str, agent: str = "ada", **options: Any) -> Store:
        opened.append(Store(tmp_path / node, agent, limits=ROOMY, **options))
        return opened[-1]

    yield make
    for store in reversed(opened):
        store.close()


def ended(writers: list[Writer]) -> list[list[dict[str, Any]]]:
    """The journals of writers that come to their end by themselves, everything shipped."""
    found = []
    for writer in writers:
        assert writer.wait(2 * PATIENCE_S) == 0, writer.said()
        found.append(writer.entries())
        assert all(entry["ok"] for entry in found[-1] if entry["what"] == "flushed"), found[-1][-3:]
    return found


def all_there(cast: Cast, *places: audit.Place) -> None:
    """Everything that returned is in each place, once; and each place proves itself."""
    journals = audit.Journals.read(cast.journals())
    assert journals.failed == []
    assert journals.returned
    for place in places:
        assert audit.missing(journals, place) == []
        assert audit.doubled(place) == []
        assert place.wrong == []


# -- one directory, many processes ------------------------------------------------------------------------------


def test_eight_processes_of_two_threads_share_one_agent(cast: Cast, hub: Served) -> None:
    """None is told that the database is locked; one log comes of it, without a gap; and it is on the hub."""
    words = ("--hub", hub.url, "--threads", "2", "--count", "40")
    writers = [cast.writer("node", "ada", f"p{number}", *words) for number in range(8)]
    ended(writers)
    hub.stop()
    mine, theirs = audit.node(cast.home / "node"), audit.hub(hub.path)
    all_there(cast, mine, theirs)
    journals = audit.Journals.read(cast.journals())
    assert [at[1] for at, _, _ in mine.records] == list(range(1, len(mine.records) + 1))
    assert sorted(at for at, _, _ in mine.records) == sorted(journals.returned), "somebody else's write is there"
    assert mine.newest == theirs.newest
    assert theirs.branches == 1
    assert not [writer.said() for writer in writers if "locked" in writer.said().lower()]


def test_whoever_ships_may_die_and_another_takes_over(cast: Cast, hub: Served) -> None:
    first = cast.writer("node", "ada", "first", "--hub", hub.url)
    first.until("wrote", 5)
    second = cast.writer("node", "bob", "second", "--hub", hub.url)
    second.until("wrote", 5)
    first.kill()
    third = cast.writer("node", "ada", "third", "--hub", hub.url, "--count", "20")
    second.until("wrote", len(second.entries("wrote")) + 20)
    assert second.stop()[-2]["hubs"][0]["depth"] == 0
    ended([third])
    hub.stop()
    all_there(cast, audit.node(cast.home / "node"), audit.hub(hub.path))


# -- a hub that stalls ------------------------------------------------------------------------------------------


def test_a_hub_that_stands_still_stops_nobody(cast: Cast, hub: Served) -> None:
    """SIGSTOP, so connections stay open and nothing answers: writes return all the same."""
    writers = [cast.writer("node", agent, agent, "--hub", hub.url) for agent in ("ada", "bob")]
    for writer in writers:
        writer.until("wrote", 20)
    hub.process.signal(signal.SIGSTOP)
    before = [len(writer.entries("wrote")) for writer in writers]
    for writer, count in zip(writers, before, strict=True):
        writer.until("wrote", count + 60)  # at its pace about two seconds, all of them without an answer
    hub.process.signal(signal.SIGCONT)
    for writer in writers:
        writer.stop()
    ended(writers)
    hub.stop()
    place = audit.hub(hub.path)
    all_there(cast, audit.node(cast.home / "node"), place)
    assert place.branches == 2, "a stall looked like a fork"


# -- directories that are copied --------------------------------------------------------------------------------


def test_a_clone_of_a_node_writes_beside_it(cast: Cast, hub: Served) -> None:
    """Both ship under one name: every value of both is on the hub, once, and no key's value is gone."""
    ended([cast.writer("left", "ada", "before", "--hub", hub.url, "--kind", "put", "--keys", "old/", "--count", "30")])
    shutil.copytree(cast.home / "left", cast.home / "right")
    words = ("--hub", hub.url, "--kind", "put", "--keys")
    left = cast.writer("left", "ada", "left", *words, "left/")
    right = cast.writer("right", "ada", "right", *words, "right/")
    for writer in (left, right):
        writer.until("wrote", 40)
    seen = [writer.stop() for writer in (left, right)]
    ended([left, right])
    forks = [entry["hubs"][0].get("forks", 0) for found in seen for entry in found if entry["what"] == "health"]
    assert max(forks) >= 1, "nobody says that there was a fork"
    # Each is opened once more, and so hears of the other's last writes.
    again = [("left", "left-2", "left/"), ("right", "right-2", "right/"), ("left", "left-3", "left/")]
    for node, who, keys in again:
        ended([cast.writer(node, "ada", who, *words, keys, "--count", "1")])
    expect = newest_written(cast)
    agree(hub, expect, cast.home / "left")
    hub.stop()
    all_there(cast, audit.hub(hub.path))
    for name in ("left", "right"):
        assert audit.node(cast.home / name).wrong == []


def test_a_node_put_back_from_an_old_copy_goes_on(cast: Cast, hub: Served) -> None:
    """It writes before it hears of what it has forgotten; nothing of either is lost."""
    words = ("--hub", hub.url, "--kind", "put", "--count", "30", "--keys")
    ended([cast.writer("node", "ada", "one", *words, "one/")])
    shutil.copytree(cast.home / "node", cast.home / "copy")
    ended([cast.writer("node", "ada", "two", *words, "two/")])
    shutil.rmtree(cast.home / "node")
    shutil.copytree(cast.home / "copy", cast.home / "node")
    ended([cast.writer("node", "ada", "three", "--kind", "put", "--count", "30", "--keys", "three/")])
    (last,) = ended([cast.writer("node", "ada", "four", *words, "three/")])
    health = [entry for entry in last if entry["what"] == "health"]
    assert health[-1]["hubs"][0]["forks"] == 1
    ended([cast.writer("node", "ada", "five", *words, "five/")])
    agree(hub, newest_written(cast), cast.home / "node")
    hub.stop()
    all_there(cast, audit.hub(hub.path))
    assert audit.node(cast.home / "node").wrong == []


def test_a_node_put_back_that_has_written_nothing_takes_up_what_it_lost(
    cast: Cast, hub: Served, open_store: Callable[..., Store]
) -> None:
    words = ("--hub", hub.url, "--kind", "put", "--count", "25", "--keys")
    ended([cast.writer("node", "ada", "one", *words, "one/")])
    shutil.copytree(cast.home / "node", cast.home / "copy")
    ended([cast.writer("node", "ada", "two", *words, "two/")])
    shutil.rmtree(cast.home / "node")
    shutil.copytree(cast.home / "copy", cast.home / "node")
    store = open_store("node", hub=hub.url)
    until(lambda: store.health()["head"]["seq"] == 50, "the lost records are back")
    store.close()
    hub.stop()
    mine, theirs = audit.node(cast.home / "node"), audit.hub(hub.path)
    all_there(cast, mine, theirs)
    assert mine.records == theirs.records


def newest_written(cast: Cast) -> dict[str, str]:
    """Key -> the uid of its newest write. No key here is ever written by two at once, so it is known which that is."""
    newest: dict[str, tuple[int, str]] = {}
    for path in cast.journals():
        for found in entries(path):
            if found["what"] == "wrote":
                (uid, *_), key = found["records"][0], found["keys"][0]
                newest[key] = max(newest.get(key, (0, "")), (found["at"], uid))
    return {key: uid for key, (_, uid) in newest.items()}


def agree(hub: Served, expect: dict[str, str], node: Path) -> None:
    """The hub, and the node that saw everything, give the same value for every key that was ever written."""
    reader = Hub(hub.url)
    with Store(node, "ada", hub=[], limits=ROOMY) as store:
        for key, uid in expect.items():
            assert reader.get(key, agent="ada")["uid"] == uid, key
            assert store.get(key)["uid"] == uid, key
        assert sorted(store.keys()) == sorted(reader.keys(agent="ada")) == sorted(expect)
    reader.close()


# -- hubs that are put back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_a_hub_put_back_from_a_backup_is_refilled_and_readers_resume(cast: Cast, hub: Served, times: int) -> None:
    writers = [cast.writer(node, agent, agent, "--hub", hub.url) for node, agent in (("n1", "ada"), ("n2", "bob"))]
    seen: list[audit.At] = []
    for writer in writers:
        writer.until("wrote", 30)
    cursor = read_on(hub, None, seen, 30)
    hub.stop()
    shutil.copytree(hub.path, cast.home / "backup")
    hub.start()
    for _ in range(times):
        for writer in writers:
            writer.until("wrote", len(writer.entries("wrote")) + 30)
        cursor = read_on(hub, cursor, seen, len(seen) + 30)
        hub.kill()
        shutil.rmtree(hub.path)
        shutil.copytree(cast.home / "backup", hub.path)
        hub.start()
    for writer in writers:
        writer.stop()
    ended(writers)
    reader = Hub(hub.url)
    for change in reader.changes(cursor, live=False):
        seen.append((change.stream, change.seq, change.etag))
    reader.close()
    hub.stop()
    place = audit.hub(hub.path)
    all_there(cast, audit_nodes(cast, "n1", "n2"), place)
    assert place.branches == 2, "a restored hub looked like a fork"
    # At least once: a reader drops what it had before (by stream, seq and link) and then has each once, in order.
    once = list(dict.fromkeys(seen))
    assert sorted(once) == sorted(place.links)
    for stream in {at[0] for at in once}:
        assert [at[1] for at in once if at[0] == stream] == list(range(1, 1 + sum(at[0] == stream for at in once)))


def read_on(hub: Served, cursor: str | None, seen: list[audit.At], count: int) -> str:
    """Reads behind a cursor until so many have been seen; where it stands."""
    reader = Hub(hub.url)
    changes = reader.changes(cursor)
    for change in changes:
        seen.append((change.stream, change.seq, change.etag))
        if len(seen) >= count:
            break
    changes.close()
    reader.close()
    return changes.cursor


def audit_nodes(cast: Cast, *names: str) -> audit.Place:
    """What several nodes hold together."""
    together = audit.Place("the nodes")
    for name in names:
        place = audit.node(cast.home / name)
        together.records += place.records
        together.wrong += place.wrong
    return together


def test_two_hubs_get_the_same(cast: Cast) -> None:
    """One is away for a while, and comes to hold what the other does."""
    hubs = [cast.hub(name).start() for name in ("east", "west")]
    words = [word for hub in hubs for word in ("--hub", hub.url)]
    writers = [cast.writer(node, agent, agent, *words) for node, agent in (("n1", "ada"), ("n2", "bob"))]
    for writer in writers:
        writer.until("wrote", 20)
    hubs[0].kill()
    for writer in writers:
        writer.until("wrote", len(writer.entries("wrote")) + 30)
    hubs[0].start()
    for writer in writers:
        writer.stop()
    ended(writers)
    for hub in hubs:
        hub.stop()
    east, west = (audit.hub(hub.path) for hub in hubs)
    all_there(cast, audit_nodes(cast, "n1", "n2"), east, west)
    assert sorted(east.links) == sorted(west.links)
    assert east.newest == west.newest


# -- forks of processes -----------------------------------------------------------------------------------------


def test_a_forked_child_is_told_and_the_parent_goes_on(
    cast: Cast, hub: Served, open_store: Callable[..., Store]
) -> None:
    store = open_store("node", hub=hub.url)
    store.put("before", 1)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os._exit(_use(store, write))
    os.close(write)
    with os.fdopen(read) as lines:
        told = lines.read().splitlines()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(told) == 4
    assert all("spawn" in hint for hint in told)
    fresh = "import sys; from holdfast import Store\nwith Store(sys.argv[1], 'ada', hub=[]) as own: own.put('child', 1)"
    subprocess.run([sys.executable, "-c", fresh, str(cast.home / "node")], check=True, timeout=60)
    store.put("after", 2)
    assert (store.get("before"), store.get("after")) == (1, 2)
    assert store.flush(PATIENCE_S)
    store.close()
    hub.stop()
    mine, theirs = audit.node(cast.home / "node"), audit.hub(hub.path)
    assert mine.wrong == theirs.wrong == []
    assert mine.records == theirs.records
    assert len(mine.records) == 3, "before, after, and what a fresh process wrote with a store of its own"


def _use(store: Store, told: int) -> int:
    """In the child: what the inherited store says, four ways; SQLite itself is left alone there."""
    uses: list[Callable[[], Any]] = [
        lambda: store.put("child", 1),
        lambda: store.get("before"),
        lambda: store.post("hello"),
        lambda: store.keys(),
    ]
    for use in uses:
        try:
            use()
        except StoreClosed as error:
            os.write(told, error.hint.encode() + b"\n")
    store.close()
    return 0
