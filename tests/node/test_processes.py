"""Forks, kills and full disks: what other people's processes do to a node directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import IntegrityError, NodeFull, NoStore, StoreClosed, UsageError
from holdfast.node.directory import Directory, Limits
from holdfast.node.store import Store
from tests.forks import Fork

Open = Callable[..., Store]


def in_child(work: Callable[[], object]) -> str:
    """What `work` did in a forked child: its value as text, or the name of its error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = str(work())
        except BaseException as error:
            said = type(error).__name__
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as out:
        said = out.read()
    os.waitpid(pid, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_cannot_use_the_store_and_a_fresh_process_opens_its_own(
    open_store: Open, tmp_path: Path
) -> None:
    store = open_store()
    store.put("k", "parent's")
    assert in_child(lambda: store.get("k")) == StoreClosed.__name__
    assert in_child(lambda: store.put("k", 1)) == StoreClosed.__name__
    assert in_child(store.close) == "None"
    fresh = (
        "import sys; from holdfast import Limits, Store\n"
        "with Store(sys.argv[1], 'bob', hub=[], limits=Limits(0, 0)) as own:\n"
        "    own.put('k', 'child\\'s'); print(own.get('k', agent='ada'))"
    )
    command = [sys.executable, "-c", fresh, str(tmp_path / "node")]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout == "parent's\n"
    store.put("k", "still here")
    assert store.get("k", agent="bob") == "child's"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_others_write_does_not_hang(open_store: Open) -> None:
    store = open_store()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            store.put("k", 1)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert in_child(lambda: store.put("k", 2)) == StoreClosed.__name__
    finally:
        stop.set()
        for thread in threads:
            thread.join()


WRITER = """
import sys
from holdfast.node.store import Store
store = Store(sys.argv[1], "ada", hub=[], level=sys.argv[2])
number = 0
while True:
    with store.batch() as batch:
        batch.put(f"a/{number}", number)
        batch.put(f"b/{number}", number)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("level", ["basic", "advanced", "critical"])
def test_what_returned_before_a_kill_is_there_and_batches_are_whole(
    open_store: Open, tmp_path: Path, level: str
) -> None:
    last = -1
    for count in (3, 40):
        process = Fork("-c", WRITER, tmp_path / "node", level, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for line in process.stdout:
            last = max(last, int(line))
            if int(line) == count:
                process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    store = open_store(level=level)
    a, b = store.keys("a/", limit=10_000), store.keys("b/", limit=10_000)
    assert [key[2:] for key in a] == [key[2:] for key in b]
    assert len(a) > last


def test_init_says_whether_it_made_the_directory(tmp_path: Path) -> None:
    assert Directory.init(tmp_path / "n", hubs=["http://localhost:1"], level="critical")
    assert not Directory.init(tmp_path / "n")
    assert (tmp_path / "n").stat().st_mode & 0o777 == 0o700
    directory = Directory(tmp_path / "n", limits=Limits(0, 0))
    assert directory.config["hubs"] == ["http://localhost:1"]
    assert directory.node_id == directory.node_id != ""
    directory.close()


def test_there_must_be_a_directory_to_open_one(tmp_path: Path) -> None:
    with pytest.raises(NoStore, match="no node directory"):
        Directory(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        Directory.init(tmp_path / "file")
    (tmp_path / "hub.db").touch()
    with pytest.raises(UsageError, match="hub's directory"):
        Directory.init(tmp_path)


def test_a_log_of_another_nodes_key_is_refused(open_store: Open, tmp_path: Path) -> None:
    open_store(directory=tmp_path / "one").close()
    open_store(directory=tmp_path / "two").close()
    (tmp_path / "one" / "keys.db").replace(tmp_path / "two" / "keys.db")
    with pytest.raises(IntegrityError, match="another key"):
        open_store(directory=tmp_path / "two")


def test_a_crashed_rotation_is_finished_by_the_next(open_store: Open, tmp_path: Path) -> None:
    ada, bob = open_store("ada"), open_store("bob")
    ada.put("k", 1)
    bob.put("k", 1)
    directory = ada._directory
    key = directory.keyring.prepare_next()
    from holdfast.node.rotation import _rotate

    _rotate(ada._opened, key)  # and here the process dies: bob's log and the keyring know nothing of it
    ada.close()
    bob.close()
    ada = open_store("ada")
    ada.put("k", 2)
    assert ada.rotate() == key.hex()
    assert open_store("bob").put("k", 2).seq == 3
    assert ada.history("k")[0].seq == 3


class Disk:
    """What `statvfs` says: free space that a test sets."""

    f_frsize = 1
    f_blocks = 1 << 40

    def __init__(self) -> None:
        self.f_bavail = 1 << 39

    def __call__(self, _: object) -> Disk:
        return self


def test_writes_stop_before_the_disk_is_full_and_go_on_when_there_is_room(open_store: Open) -> None:
    store = open_store(limits=Limits(floor_bytes=1 << 20, ballast_bytes=0))
    disk = store._reserve._statvfs = Disk()  # the machine's own cannot be filled without harm to others
    store.put("before", 1)
    disk.f_bavail = 1000
    store._reserve._again = float("-inf")
    with pytest.raises(NodeFull):
        store.put("k", 1)
    with pytest.raises(NodeFull):
        store.post("k")
    assert store.get("before") == 1
    assert not store.health()["disk"]["writable"]
    assert any("full" in each for each in store.health()["problems"])
    disk.f_bavail = 1 << 39
    store.put("k", 2)
    assert store.get("k") == 2


def test_a_full_disk_fails_the_write_and_harms_nothing(open_store: Open) -> None:
    store = open_store()
    store.put("before", 1)
    engine = store._log.corpus.engine
    pages = engine.writer_execute("PRAGMA page_count").fetchone()[0]
    engine.writer_execute(f"PRAGMA max_page_count={pages + 2}").fetchall()
    written = 0
    with pytest.raises(NodeFull):  # noqa: PT012 - which of the writes meets the end is the disk's choice
        for number in range(100):
            store.put(f"k/{number}", os.urandom(5000).hex())
            written += 1
    assert store.get("before") == 1
    assert len(store.keys("k/")) == written
    engine.writer_execute("PRAGMA max_page_count=1000000").fetchall()
    store.put("after", 1)
    assert (store.get("before"), store.get("after")) == (1, 1)
    assert [each.seq for each in store.changes(live=False)] == list(range(1, written + 3))


def test_a_store_that_could_not_be_opened_leaves_nothing_open(open_store: Open, tmp_path: Path) -> None:
    for wrong in ({"hub": "nowhere"}, {"level": "some"}):
        with pytest.raises(UsageError):
            open_store(**wrong)
    assert attached() == []
    open_store()
    assert attached() == [str(tmp_path / "node")]


def attached() -> list[str]:
    """The directories that this process has open."""
    from holdfast.node import directory

    return list(directory._attached)
