"""Processes that put objects into files: those that are killed while they do, and those that race.

Run as a script without threads of its own, because it forks:

    file_actors.py kill DIR --kills N --attributes yes|no --seed S      prints what was struck and what was found
    file_actors.py race DIR --processes N --rounds N --attributes yes|no
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from holdfast.errors import ObjectConflict, ObjectNotFound
from holdfast.objects.files.store import FileStore
from holdfast.objects.port import ABSENT

THREADS = 3
KEYS = 4
TYPES = ("application/json", "text/plain", "application/octet-stream")


def body_of(uid: str) -> bytes:
    """What the writer of this name writes: its length and bytes follow from the name."""
    rng = random.Random(uid)
    return uid.encode() + b"\n" + rng.randbytes(rng.choice((0, 10, 3000, 60_000, 300_000)))


def key_of(thread: int, number: int) -> str:
    """Keys of a thread; some are the beginning of others, and each may be alone in its directory."""
    return (f"t{thread}", f"t{thread}/a", f"t{thread}/a/b", f"shared/deep/t{thread}")[number]


def write_until_killed(store: FileStore, out: int, seed: int) -> None:
    """Puts and deletes in several threads; says before and after each what it does."""

    def work(thread: int) -> None:
        rng = random.Random(seed * 10 + thread)
        for turn in range(1_000_000):
            key, uid = key_of(thread, rng.randrange(KEYS)), f"{seed}-{thread}-{turn}"
            gone = rng.random() < 0.2
            say(out, "try", key, "" if gone else uid)
            if gone:
                store.delete(key)
            else:
                store.put(key, body_of(uid), content_type=rng.choice(TYPES), metadata={"uid": uid})
            say(out, "did", key, "" if gone else uid)

    for thread in range(THREADS):
        threading.Thread(target=work, args=(thread,)).start()


def say(out: int, what: str, key: str, uid: str) -> None:
    """One line, in one system call."""
    os.write(out, f"{what} {key} {uid}\n".encode())


class Storm:
    """Children that write, the killing of them, and what is then found.

    Args:
        root: the store's directory.
        attributes: as `FileStore` takes it.
        seed: of when they are struck.
    """

    def __init__(self, root: Path, attributes: bool, seed: int) -> None:
        self.root, self.attributes = root, attributes
        self.rng = random.Random(seed)
        self.may: dict[str, set[str]] = {}
        """By key: the writes of which one must be what is found; "" is none at all."""
        self.counts = {"kills": 0, "finished": 0, "leftovers": 0}

    def open(self) -> FileStore:
        """The store, anew."""
        return FileStore(self.root, attributes=self.attributes)

    def strike(self, number: int) -> None:
        """Lets a child write, kills it, and looks."""
        here, there = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(here)
            write_until_killed(self.open(), there, number)
            threading.Event().wait()
        os.close(there)
        said = b""
        enough = self.rng.randrange(1, 25)
        while said.count(b"\n") < enough:
            said += os.read(here, 4096)
        select.select([], [], [], self.rng.random() * 0.002)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while piece := os.read(here, 65536):
            said += piece
        os.close(here)
        self.counts["kills"] += 1
        self._hear(said.decode())
        self._look()

    def _hear(self, said: str) -> None:
        for line in said.splitlines():
            what, key, uid = line.split(" ")
            if what == "did":
                self.counts["finished"] += 1
                self.may[key] = {uid}
            else:
                # Until it is done, it is the one before or this one.
                self.may.setdefault(key, {""}).add(uid)

    def _look(self) -> None:
        partial = self.root / ".holdfast" / "partial"
        self.counts["leftovers"] += len([*partial.iterdir()])
        with self.open() as store:
            listed = {info.key: info for info in store.list()}
            assert set(listed) <= set(self.may), f"nobody put {set(listed) - set(self.may)}"
            for key in self.may:
                uid = ""
                with contextlib.suppress(ObjectNotFound), store.get(key) as content:
                    body = content.read()
                    uid = content.info.metadata["uid"]
                    assert body == body_of(uid), f"half of {uid} under {key}"
                    assert listed[key] == content.info, f"{key} is listed as another"
                assert uid in self.may[key], f"{key} is {uid!r}, and should be one of {self.may[key]}"
                assert (key in listed) == bool(uid), f"{key} is listed, or not, against the truth"
                self.may[key] = {uid}
            self._kept(store)

    def _kept(self, store: FileStore) -> None:
        """The bookkeeping is sound: a new put works, leaves nothing behind, and collects what the dead left."""
        store.put("after", b"1")
        assert [*(self.root / ".holdfast" / "partial").iterdir()] == [], "what the dead left was not collected"
        store.delete("after")
        files = [p for p in self.root.rglob("*") if p.is_file() and ".holdfast" not in p.parts]
        assert len(files) == len([*store.list()]), "there are files that are no objects"


def kill(root: Path, attributes: bool, kills: int, seed: int) -> dict[str, Any]:
    """So many kills; what was struck."""
    storm = Storm(root, attributes, seed)
    for number in range(kills):
        storm.strike(number)
    return storm.counts


def race(root: Path, attributes: bool, processes: int, rounds: int) -> dict[str, Any]:
    """Processes that create the same keys and count in one; who won what, and the count."""
    with FileStore(root, attributes=attributes) as store:
        store.put("count", b"0")
    here, there = os.pipe()
    ready, go = os.pipe()
    children = []
    for number in range(processes):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(go)
                os.read(ready, 1)
                _race(root, attributes, number, rounds, there)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(there)
    os.close(go)  # all of them read its end now
    said = b""
    while piece := os.read(here, 65536):
        said += piece
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    wins = [line.split() for line in said.decode().splitlines()]
    with FileStore(root, attributes=attributes) as store:
        held = {f"race/{turn}": store.read(f"race/{turn}").decode() for turn in range(rounds)}
        count = int(store.read("count"))
        names = sorted(info.key for info in store.list())
    return {"codes": codes, "wins": wins, "held": held, "count": count, "names": names}


def _race(root: Path, attributes: bool, number: int, rounds: int, out: int) -> None:
    with FileStore(root, attributes=attributes) as store:
        for turn in range(rounds):
            with contextlib.suppress(ObjectConflict):
                # Of different types, so that there are several names for the file of one key.
                store.put(f"race/{turn}", b"%d" % number, content_type=TYPES[number % 3], expect=ABSENT)
                os.write(out, f"race/{turn} {number}\n".encode())
            while True:
                with store.get("count") as content:
                    have, etag = int(content.read()), content.info.etag
                try:
                    store.put("count", b"%d" % (have + 1), expect=etag)
                    break
                except ObjectConflict:
                    continue
            # Two keys that come and go in one directory, so that it does too.
            store.put(f"gone/deep/{number}", b"x" * 100)
            assert store.delete(f"gone/deep/{number}")


def main() -> None:
    """As the head of this module says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["kill", "race"])
    parser.add_argument("root", type=Path)
    parser.add_argument("--attributes", choices=["yes", "no"], default="yes")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    attributes = given.attributes == "yes"
    if given.what == "kill":
        found = kill(given.root, attributes, given.kills, given.seed)
    else:
        found = race(given.root, attributes, given.processes, given.rounds)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
