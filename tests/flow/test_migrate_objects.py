"""Objects taken from store to store: all of them, proven, gone on with, taken back, and while they are written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import Locked, ObjectNotFound, StorageError, StorageRefused
from holdfast.node.objects import open_store
from holdfast.objects import ABSENT, MemoryStore, ObjectInfo, ObjectStore
from holdfast.objects.moving.journal import Journal
from holdfast.objects.moving.migrate import Mover, roll_back
from holdfast.objects.moving.switch import SwitchStore
from holdfast.testing.objects import KEYS, LARGE

TYPES = ("application/json", "text/plain", "application/octet-stream")


def fill(store: ObjectStore, count: int = 60) -> dict[str, bytes]:
    """Objects of all kinds; what they are."""
    some = random.Random(7)
    bodies = {key: key.encode() for key in KEYS} | {f"d{n % 7}/{n:04}": some.randbytes(n * 37) for n in range(count)}
    bodies |= {"large": LARGE, "empty": b""}
    for number, (key, body) in enumerate(bodies.items()):
        store.put(key, body, content_type=TYPES[number % 3], metadata={"n": str(number)} if number % 2 else {})
    return bodies


def what(store: ObjectStore) -> dict[str, tuple[bytes, str, dict[str, str]]]:
    """Everything that a store has."""
    found = {}
    for info in store.list():
        with store.get(info.key) as content:
            found[info.key] = (content.read(), content.info.content_type, content.info.metadata)
    return found


class Tripping(MemoryStore):
    """Fails each put of some keys, or all after so many."""

    def __init__(self, keys: tuple[str, ...] = (), after: int = 1 << 30) -> None:
        super().__init__()
        self.keys, self.left = keys, after

    def put(self, key: str, *args: object, **options: object) -> ObjectInfo:
        self.left -= 1
        if key in self.keys or self.left < 0:
            raise StorageError(f"no luck with {key}")
        return super().put(key, *args, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["sqlite:…/there.db", "holdfast:…/node?agent=ada", "memory:"])
def test_everything_arrives_with_its_type_and_comes_back(target: str, tmp_path: Path) -> None:
    with MemoryStore() as here, open_store(target.replace("…", str(tmp_path))) as there, MemoryStore() as home:
        bodies = fill(here)
        moved = Mover(here, there, Journal(tmp_path / "j1")).run()
        assert (moved.objects, moved.copied, moved.copied_bytes) == (
            len(bodies),
            len(bodies),
            sum(map(len, bodies.values())),
        )
        assert moved.complete
        assert what(there) == what(here)
        assert Mover(there, home, Journal(tmp_path / "j2")).run().copied == len(bodies)
        assert what(home) == what(here)


def test_it_goes_on_where_it_stood_and_copies_what_is_new(tmp_path: Path) -> None:
    here, there, journal = MemoryStore(), Tripping(after=20), Journal(tmp_path / "j")
    bodies = fill(here)
    first = Mover(here, there, journal, parallel=1).run()
    assert first.copied == 20
    assert len(first.failed) == len(bodies) - 20
    assert not first.complete
    there.left = 1 << 30
    second = Mover(here, there, journal).run()
    assert (second.known, second.copied, second.failed) == (20, len(bodies) - 20, {})
    assert what(there) == what(here)
    here.put("large", b"changed")
    here.put("new", b"new")
    here.delete("empty")
    third = Mover(here, there, journal).run()
    assert (third.copied, third.removed, third.known) == (2, 1, len(bodies) - 2)
    assert what(there) == what(here)


def test_what_the_target_has_of_its_own_stays_and_is_named(tmp_path: Path) -> None:
    here, there, journal = MemoryStore(), MemoryStore(), Journal(tmp_path / "j")
    for key in ("a", "b", "c"):
        here.put(key, key.encode())
    there.put("a", b"a")
    there.put("b", b"somebody else's")
    there.put("z", b"far away")
    looked = Mover(here, there, Journal(tmp_path / "look")).look()
    assert (looked.copied, looked.same, looked.conflicts) == (1, 1, ["b"])
    moved = Mover(here, there, journal).run()
    assert (moved.copied, moved.same, moved.conflicts) == (1, 1, ["b"])
    assert not moved.complete
    assert there.read("b") == b"somebody else's"
    back = roll_back(there, journal)
    assert (back.removed, back.conflicts) == (1, [])
    assert what(there).keys() == {"a", "b", "z"}
    moved = Mover(here, there, Journal(tmp_path / "again"), overwrite=True).run()
    assert moved.complete
    assert there.read("b") == b"b"


def test_a_copy_whose_note_a_crash_swallowed_is_known_as_ours(tmp_path: Path) -> None:
    class Crashing(MemoryStore):
        def put(self, *args: object, **options: object) -> ObjectInfo:
            super().put(*args, **options)  # type: ignore[arg-type]
            raise SystemExit

    here, there, journal = MemoryStore(), Crashing(), Journal(tmp_path / "j")
    here.put("one", b"1")
    with pytest.raises(SystemExit):
        Mover(here, there, journal, parallel=1).run()
    there.__class__ = MemoryStore  # type: ignore[assignment]
    moved = Mover(here, there, journal).run()
    assert (moved.same, moved.complete) == (1, True)
    assert roll_back(there, journal).removed == 1
    assert what(there) == {}


def test_taking_back_leaves_what_was_changed_since(tmp_path: Path) -> None:
    here, there, journal = MemoryStore(), MemoryStore(), Journal(tmp_path / "j")
    fill(here, 5)
    Mover(here, there, journal).run()
    there.put("large", b"worked on")
    back = roll_back(there, journal)
    assert back.conflicts == ["large"]
    assert what(there).keys() == {"large"}
    assert what(here).keys() >= set(KEYS)


def test_a_copy_that_reads_back_differently_is_not_believed(tmp_path: Path) -> None:
    class Rotten(MemoryStore):
        def put(self, key: str, data: object, **options: object) -> ObjectInfo:
            body = b"".join(data)  # type: ignore[arg-type]
            return super().put(key, body[:-1] + b"?" if key == "a/b" else body, **options)  # type: ignore[arg-type]

    here, there, journal = MemoryStore(), Rotten(), Journal(tmp_path / "j")
    fill(here, 3)
    moved = Mover(here, there, journal).run()
    assert list(moved.failed) == ["a/b"]
    assert "reads back differently" in moved.failed["a/b"]
    assert not there.exists("a/b")
    assert len(what(there)) == moved.objects - 1


def test_a_journal_is_of_one_migration(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.bind("file:a", "file:b")
    journal.bind("file:a", "file:b")
    with pytest.raises(StorageRefused, match="from file:a to file:b"):
        journal.bind("file:a", "file:c")


# -- a switch ----------------------------------------------------------------------------------------------------


def addresses(tmp_path: Path) -> tuple[str, str]:
    return f"sqlite:{tmp_path / 'one.db'}", f"sqlite:{tmp_path / 'two.db'}"


def test_writers_go_on_while_it_moves_and_nothing_is_lost_there_or_back(tmp_path: Path) -> None:
    one, two = addresses(tmp_path)
    switch = SwitchStore(tmp_path / "app.switch", store=one)
    fill(switch, 200)
    stop = threading.Event()
    done: list[dict[str, bytes | None]] = [{} for _ in range(3)]

    def write(number: int) -> None:
        some = random.Random(number)
        with SwitchStore(tmp_path / "app.switch") as mine:
            turn = 0
            while not stop.is_set():
                key, turn = f"w{number}/{some.randrange(30)}", turn + 1
                if some.random() < 0.2:
                    mine.delete(key)
                    done[number][key] = None
                else:
                    body = f"{number} {turn}".encode() * some.randrange(1, 50)
                    mine.put(key, body)
                    assert mine.read(key) == body
                    done[number][key] = body

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        moved = switch.move(two)
        assert moved.complete
        assert switch.state == ("switched", two, one)
        for number in range(3):  # each has written behind the switch
            before = dict(done[number])
            while done[number] == before:
                assert threads[number].is_alive()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    expected = {key: body for each in done for key, body in each.items() if body is not None}

    def held(store: ObjectStore) -> dict[str, bytes]:
        return {key: body for key, (body, _, _) in what(store).items() if key[:2] in ("w0", "w1", "w2")}

    with open_store(two) as there, open_store(one) as here:
        assert held(there) == expected == held(switch)
        assert held(here) != expected
        assert switch.roll_back() > 0
        assert held(here) == expected
        assert what(switch) == what(here) == what(there)
        assert switch.state == ("plain", one, "")
        switch.put("after", b"1")
        with pytest.raises(ObjectNotFound):
            there.read("after")
    switch.close()


def test_a_move_that_was_killed_goes_on_and_can_be_given_up(tmp_path: Path) -> None:
    one, two = addresses(tmp_path)
    path = tmp_path / "app.switch"
    with SwitchStore(path, store=one) as switch:
        fill(switch, 300)
        everything = what(switch)
        program = (
            "import sys; from holdfast.objects.moving.switch import SwitchStore\n"
            "def told(count, size):\n    print(count, flush=True)\n"
            f"SwitchStore({str(path)!r}).move({two!r}, parallel=1, told=told)"
        )
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        while int(child.stdout.readline()) < 100:
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert switch.state == ("copying", one, two)
        assert what(switch) == everything
        switch.put("late", b"1")
        with pytest.raises(StorageRefused, match="moves to"):
            switch.move("memory:")
        moved = switch.move(two, hold=True)
        assert moved.known >= 90
        assert switch.state[0] == "copying"
        assert switch.roll_back() == 0
        assert switch.state == ("plain", one, "")
        assert switch.move(two).complete
        switch.finish()
        assert switch.state == ("plain", two, "")
        assert {**everything, "late": switch.read("late")}.keys() == what(switch).keys()
        for refused in (switch.finish, switch.roll_back):
            with pytest.raises(StorageRefused):
                refused()


def test_a_switch_means_the_same_store_in_every_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with open_store("switch:app.switch", store="sqlite:here.db") as switch:
        switch.put("k", b"1")
    monkeypatch.chdir(tmp_path / "two")
    with open_store("switch:../one/app.switch") as switch:
        assert isinstance(switch, SwitchStore)
        assert switch.read("k") == b"1"
        assert switch.move("sqlite:there.db").complete
    monkeypatch.chdir(tmp_path)
    with open_store("switch:one/app.switch") as switch:
        assert switch.read("k") == b"1"
    assert (tmp_path / "two" / "there.db").exists()


def test_a_switch_says_what_is_wrong(tmp_path: Path) -> None:
    one, two = addresses(tmp_path)
    with pytest.raises(StorageRefused, match="there is no switch"):
        open_store(f"switch:{tmp_path / 'none'}")
    with pytest.raises(StorageRefused):
        open_store(f"switch:{tmp_path / 'none'}", store="nowhere:")
    with open_store(f"switch:{tmp_path / 'app'}", store=one) as switch:
        assert isinstance(switch, SwitchStore)
        with pytest.raises(StorageRefused, match="points at"):
            open_store(f"switch:{tmp_path / 'app'}", store=two)
        with switch._mover(), pytest.raises(Locked):
            switch.move(two)
        switch.put("k", b"1", expect=ABSENT)
        assert switch.health().ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_is_forked_in_the_middle_of_a_write_holds_no_move_up(tmp_path: Path) -> None:
    """The switch's locks belong to open files, which a forked child has too and does not close."""
    begun, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"one"
        begun.set()
        assert go_on.wait(30)
        yield b"two"

    with SwitchStore(tmp_path / "app.switch", store=f"file:{tmp_path}/here") as switch:
        writer = threading.Thread(target=switch.put, args=("k", pieces()))
        writer.start()
        assert begun.wait(30)
        child = os.fork()
        if not child:
            try:
                signal.alarm(60)
                signal.pause()  # a worker that lives on
            finally:
                os._exit(1)
        go_on.set()
        writer.join(30)
        mover = threading.Thread(target=switch.move, args=(f"file:{tmp_path}/there",), daemon=True)
        mover.start()
        mover.join(20)
        waits = mover.is_alive()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        mover.join(20)
        assert not waits
        assert switch.state[0] == "switched"
        assert switch.read("k") == b"onetwo"
