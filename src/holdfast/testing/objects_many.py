"""The laws of `holdfast.objects.port` about many: threads, clients, forked children. See `holdfast.testing.objects`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from holdfast.errors import ObjectConflict
from holdfast.objects.port import ABSENT, CREATE, SWAP, ObjectStore
from holdfast.testing.objects import StoreContract, keys


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Runs `work` in so many threads, all let go together; raises what one of them raised."""
    gate = threading.Barrier(count)
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            gate.wait(60)
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


class Races(StoreContract):
    """Of any number of writers, one wins; nothing that one of them was told is untrue."""

    THREADS: ClassVar[int] = 16
    ROUNDS: ClassVar[int] = 100
    COUNTERS: ClassVar[tuple[int, int] | None] = None
    """How many threads count, and how far each; None: half of them, a quarter as far."""

    def test_each_key_is_created_by_one(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            if CREATE in store.lacks:
                return
            winners: list[list[int]] = [[] for _ in range(self.ROUNDS)]

            def work(number: int) -> None:
                for turn in range(self.ROUNDS):
                    try:
                        store.put(f"race/{turn}", str(number).encode(), expect=ABSENT)
                        winners[turn].append(number)
                    except ObjectConflict:
                        pass

            at_once(self.THREADS, work)
            assert [len(won) for won in winners] == [1] * self.ROUNDS
            for turn, won in enumerate(winners):
                assert store.read(f"race/{turn}").decode() == str(won[0])

    def test_no_count_is_lost(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            if SWAP in store.lacks:
                return
            store.put("count", b"0")
            counters, each = self.COUNTERS or (self.THREADS // 2, max(1, self.ROUNDS // 4))

            def work(number: int) -> None:
                for _ in range(each):
                    while True:
                        with store.get("count") as content:
                            have, etag = int(content.read()), content.info.etag
                        try:
                            store.put("count", str(have + 1).encode(), expect=etag)
                            break
                        except ObjectConflict:
                            continue

            at_once(counters, work)
            assert int(store.read("count")) == each * counters

    def test_a_reader_sees_whole_objects_while_they_are_replaced(self, tmp_path: Path) -> None:
        bodies = [bytes([number]) * (10_000 + 5_000 * number) for number in range(8)]
        with self.opened(tmp_path) as store:
            store.put("one", bodies[0], metadata={"n": "0"})
            done = threading.Event()

            def work(number: int) -> None:
                if number == 0:
                    try:
                        for turn in range(self.ROUNDS):
                            which = turn % len(bodies)
                            store.put("one", bodies[which], metadata={"n": str(which)})
                    finally:
                        done.set()
                    return
                while not done.is_set():
                    with store.get("one") as content:
                        body = content.read()
                        which = int(content.info.metadata["n"])
                    assert body == bodies[which], (which, len(body), body[:1])
                    assert content.info.size == len(body)
                    assert keys(store) == ["one"]

            at_once(3, work)


class Forks(StoreContract):
    """A forked child uses the store that its parent had in use."""

    def test_a_child_and_its_parent_go_on(self, tmp_path: Path) -> None:
        if not self.SHARED:
            return
        with self.opened(tmp_path) as store:
            store.put("parent", b"before")
            assert store.read("parent") == b"before"
            self._in_child(store)
            assert store.read("child") == b"of the child"
            store.put("parent", b"after")
            assert keys(store) == ["child", "parent"]

    def _in_child(self, store: ObjectStore) -> None:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                good = store.read("parent") == b"before"
                store.put("child", b"of the child")
                code = 0 if good and keys(store) == ["child", "parent"] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
