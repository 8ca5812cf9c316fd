"""A disk that is full, on the node and on the hub, without root: nothing that was written is harmed, and it ends.

Three ways to be full: `statvfs` says so (the guard stops first), a limit on file sizes stops the writes themselves
(every file of the process, the WAL and blobs too; a limit can be put on a running process from outside, and lifted),
and SQLite's own page limit. Where the machine lets us, a real small disk is filled as well.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from holdfast.corpus.space import FLOOR_BYTES, Reserve
from holdfast.errors import NodeFull
from holdfast.node.directory import Limits
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from tests.chaos import audit
from tests.chaos.conftest import PATIENCE_S, SCRIPT, Cast, Served, Writer, until

ROOMY = Limits(floor_bytes=0, ballast_bytes=0)
NO_LIMIT = resource.RLIM_INFINITY
needs_prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of other processes are Linux's")


def limit_files(pid: int, size: int) -> None:
    """No file of this process grows beyond `size` bytes from now on."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, NO_LIMIT))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """One agent's store in this process, without a hub."""
    with Store(tmp_path / "node", "ada", hub=[], limits=ROOMY) as made:
        yield made


# -- the node ---------------------------------------------------------------------------------------------------


class Disk:
    """What statvfs says, but for the free bytes."""

    def __init__(self) -> None:
        self.free = 1 << 40

    def __call__(self, path: Any) -> os.statvfs_result:
        found = os.statvfs(path)
        fields = list(found)
        fields[3] = fields[4] = self.free // found.f_frsize
        return os.statvfs_result(fields)


def test_the_guard_stops_writes_before_the_disk_is_full(store: Store) -> None:
    disk = Disk()
    store._reserve = Reserve(store._directory.path, ballast_bytes=0, statvfs=disk)
    store.put("before", 1)
    disk.free = FLOOR_BYTES - (1 << 20)
    until(lambda: refused(store), "the guard looks again")
    with pytest.raises(NodeFull) as caught:
        store.put("during", 1)
    assert "free space on this disk" in caught.value.hint
    assert (caught.value.status, caught.value.exit_code) == (507, 8)
    assert store.get("before") == 1
    with pytest.raises(NodeFull), store.batch() as batch:
        batch.put("during", 1)
    disk.free = 1 << 40
    store.put("after", 1)
    assert store.get("during", default=None) is None
    assert store.verify().findings == []


def refused(store: Store) -> bool:
    """Whether a write is refused now."""
    try:
        store.put("probe", 1)
    except NodeFull:
        return True
    return False


def test_a_full_file_refuses_whole_batches_and_only_what_does_not_fit(store: Store) -> None:
    """SQLITE_FULL from the engine itself, in the middle of transactions that several threads share."""
    for number in range(20):
        store.put(f"before/{number}", os.urandom(2000))
    pages = store._log.corpus.engine.one("PRAGMA page_count")[0]
    set_page_limit(store, pages + 8)
    outcomes: dict[str, bool] = {}

    def write(name: str) -> None:
        for number in range(6):
            key = f"{name}/{number}"
            try:
                with store.batch() as batch:
                    for part in range(3):
                        batch.put(f"{key}/{part}", os.urandom(1500))
                outcomes[key] = True
            except NodeFull:
                outcomes[key] = False

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert False in outcomes.values(), "it never was full"
    for key, written in outcomes.items():
        assert len(store.keys(f"{key}/")) == 3 * written, "half a batch, or one that was refused"
    assert len(store.keys("before/")) == 20
    set_page_limit(store, 1 << 30)
    store.put("after", 1)
    assert store.verify().findings == []
    seqs = [each.seq for each in store.changes(live=False)]
    assert seqs == list(range(1, len(seqs) + 1))


def set_page_limit(store: Store, pages: int) -> None:
    """How large the agent's file may become, in pages."""
    engine = store._log.corpus.engine
    engine.commits.run(lambda _: engine.writer_execute(f"PRAGMA max_page_count={pages}").fetchall())


@needs_prlimit
def test_a_node_that_cannot_write_reads_on_and_catches_up_when_it_can(cast: Cast) -> None:
    """The files of a running agent may not grow any more: log, WAL and blobs alike."""
    hub = cast.hub().start()
    writer = cast.writer("node", "ada", "ada", "--hub", hub.url)
    writer.until("wrote", 30)
    limit_files(writer.pid, 16 << 10)
    found = writer.until("refused", 20)
    assert {entry["error"] for entry in found} <= {"node_full", "not_found"}
    assert all(entry["hint"] for entry in found if entry["error"] == "node_full")
    assert writer.entries("failed") == []
    with Store(cast.home / "node", "ada", hub=[], limits=ROOMY) as reader:
        assert [reader.get(key) for key in reader.keys()]  # noqa: SIM118 - a store is no dict
        assert reader.verify().findings == []
    written = len(writer.entries("wrote"))
    limit_files(writer.pid, NO_LIMIT)
    writer.until("wrote", written + 30)
    found = writer.stop()
    assert all(entry["ok"] for entry in found if entry["what"] == "flushed")
    hub.stop()
    everything(cast, hub, [writer])


def everything(cast: Cast, hub: Served, writers: list[Writer]) -> None:
    """What returned is there once, on the nodes and on the hub, and nothing else is."""
    journals = audit.Journals.read(cast.journals())
    assert journals.failed == []
    together, central = audit.Place("the nodes"), audit.hub(hub.path)
    for path in {writer.node for writer in writers}:
        place = audit.node(path)
        together.records += place.records
        assert place.wrong == []
    for place in (together, central):
        assert audit.missing(journals, place) == []
        assert audit.doubled(place) == []
        assert audit.halves(journals, place) == []
    assert central.wrong == []
    nodes = {stream for stream, _, _ in together.links}  # what plain clients said lies in the hub's own streams
    assert sorted(at for at in central.links if at[0] in nodes) == sorted(together.links)


# -- the hub ----------------------------------------------------------------------------------------------------


def ask(hub: Served, method: str, path: str, body: bytes | None = None) -> tuple[int, str | None]:
    """The status of an answer, and its Retry-After."""
    connection = HTTPConnection("127.0.0.1", hub.port, timeout=20)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Retry-After")
    finally:
        connection.close()


def fill_by_guard(cast: Cast, hub: Served) -> Callable[[], None]:
    """The hub's disk has a mebibyte left, as far as statvfs knows; what gives the space back."""
    free = cast.home / "free"
    free.write_text(str(1 << 20))
    return free.unlink


def fill_by_limit(cast: Cast, hub: Served) -> Callable[[], None]:
    """The hub's files may not grow any more."""
    limit_files(hub.process.pid, 16 << 10)
    return lambda: limit_files(hub.process.pid, NO_LIMIT)


@pytest.mark.parametrize(
    ("fill", "words"),
    [(fill_by_guard, ("--retry-after", "2")), pytest.param(fill_by_limit, ("--retry-after", "1"), marks=needs_prlimit)],
    ids=["the guard says so", "its files cannot grow"],
)
def test_a_full_hub_says_so_and_everything_is_caught_up_when_it_has_room(
    cast: Cast, fill: Callable[[Cast, Served], Callable[[], None]], words: tuple[str, ...]
) -> None:
    hub = cast.hub("hub", "--free-file", cast.home / "free", *words).start()
    writers = [cast.writer(node, agent, agent, "--hub", hub.url) for node, agent in (("n1", "ada"), ("n2", "bob"))]
    for writer in writers:
        writer.until("wrote", 30)
    give_back = fill(cast, hub)
    message = b'{"sender": "cyd", "content": "hello", "msg_id": "m%d"}'
    until(lambda: ask(hub, "POST", "/sync/message", message % 1)[0] == 507, "the hub says that it is full")
    status, wait = ask(hub, "POST", "/sync/message", message % 2)
    assert status == 507
    assert float(wait or 0) > 0
    reader = Hub(hub.url)
    seen = [change.key for change in reader.changes(live=False)]
    assert seen, "reads and the feed go on"
    for key in reader.keys(agent="ada")[:5]:
        reader.get(key, agent="ada")
    assert ask(hub, "GET", "/readyz")[0] in (200, 503)
    for writer in writers:
        writer.until("wrote", len(writer.entries("wrote")) + 40)  # nodes write on
    give_back()
    until(lambda: ask(hub, "POST", "/sync/message", message % 3)[0] == 200, "the hub takes writes again")
    for writer in writers:
        assert all(entry["ok"] for entry in writer.stop(2 * PATIENCE_S) if entry["what"] == "flushed")
    theirs = [each.id for each in reader.messages(agent="cyd", limit=100)]
    assert theirs[-1] == "m3"
    assert "m2" not in theirs
    reader.close()
    hub.stop()
    everything(cast, hub, writers)


# -- a real disk ------------------------------------------------------------------------------------------------

MOUNT = 'mount -t tmpfs -o size=16m holdfast "$0" && exec "$@"'


def test_a_real_disk_of_16_mib_is_filled_and_freed(tmp_path: Path) -> None:
    """On a file system of its own, in a namespace of its own, so that no other disk is ever full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    into = ["unshare", "-rm", "sh", "-c", MOUNT, str(disk)]
    if not shutil.which("unshare") or subprocess.run([*into, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system of his own")
    ran = subprocess.run(
        [*into, sys.executable, SCRIPT, "fill", str(disk)], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["full", "read", "verified", "freed", "wrote", "verified"]
