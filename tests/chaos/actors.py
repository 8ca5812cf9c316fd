"""The programs that are killed, stopped and starved: an agent that writes and says what returned, and a hub.

Run as a script, so that each is a process of its own:

    actors.py write DIR AGENT JOURNAL --who NAME [--hub URL]…     orders on stdin: walk, sprint, stop
    actors.py hub DIR --port P --ready-file F [--free-file F]
    actors.py fill DIR                                            DIR is a disk of its own, and a small one

A writer's journal is what the audit believes. It is written with single appends: `try` before a write (what may be
there), `wrote` after it returned (what must be there), `refused` when it raised.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LARGE = 64 << 10
WALK_S = 0.025
KEYS = 12


class Journal:
    """A process's own account of what happened to it; each line is with the system before the next thing happens."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, what: str, **facts: Any) -> None:
        """Appends one line."""
        os.write(self._fd, json.dumps({"what": what, **facts}).encode() + b"\n")


def entries(path: Path) -> list[dict[str, Any]]:
    """What a journal says so far; a line that a kill cut off says nothing."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def digest(value: Any) -> str:
    """What a value is, however it travelled."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:32]


def uid_of(value: Any) -> str | None:
    """The writer's own name for a write, found in whatever became of it."""
    if isinstance(value, bytes):
        return value.partition(b"\n")[0].decode(errors="replace")
    if isinstance(value, dict):
        return value.get("uid") or value.get("reason") or uid_of(value.get("body"))
    return None


def value_of(rng: random.Random, uid: str, size: int) -> Any:
    """A value that carries its name; large ones are bytes, which do not compress."""
    if size > LARGE:
        return uid.encode() + b"\n" + rng.randbytes(size)
    return {"uid": uid, "pad": "x" * (size // 2) + rng.randbytes(size // 4).hex()}


class Hands:
    """One thread's way of writing through a store: tries, writes, and notes what returned.

    Args:
        store: an open `holdfast.Store`.
        journal: where it is noted.
        who: unique among all that ever write; begins every uid.
        rng: what is written.
        keys: names the keys; several processes of an agent share them.
    """

    def __init__(
        self, store: Any, journal: Journal, who: str, rng: random.Random, keys: Callable[[int], str] = "k/{}".format
    ) -> None:
        self.store, self.journal, self.who, self.rng, self._keys = store, journal, who, rng, keys
        self._count = itertools.count()

    def any(self) -> None:
        """One write of any kind."""
        (kind,) = self.rng.choices(
            [self.put, self.post, self.batch, self.delete, self.large, self.sweep], [50, 18, 14, 8, 8, 2]
        )
        kind()

    def put(self, size: int = 0) -> None:
        """A small value."""
        uid, key = self._uid(), self._key()
        value = value_of(self.rng, uid, size or self.rng.choice([8, 100, 700, 5000]))
        self._do([uid], lambda: [self.store.put(key, value)], [value])

    def large(self) -> None:
        """A value that becomes a blob."""
        self.put(self.rng.randrange(LARGE + 1, 4 * LARGE))

    def post(self) -> None:
        """A message."""
        uid = self._uid()
        body = {"uid": uid}

        def do() -> list[Any]:
            self.store.post(body, to="people", task="storm", msg_id=uid)
            return [self.store.history(uid, collection="messages", limit=1)[0]]

        self._do([uid], do, [{"body": body, "to": "people", "task": "storm"}])

    def batch(self) -> None:
        """Several writes, all or none."""
        uids = [self._uid() for _ in range(self.rng.randrange(2, 9))]
        values = [value_of(self.rng, uid, 60) for uid in uids]

        def do() -> list[Any]:
            with self.store.batch() as batch:
                for value in values:
                    batch.put(self._key(), value, collection="batches")
            return list(batch.versions)

        self._do(uids, do, values)

    def delete(self) -> None:
        """The end of a key, if it has a value."""
        uid = self._uid()
        self._do([uid], lambda: [self.store.delete(self._key(), reason=uid)], [{"reason": uid}])

    def sweep(self) -> None:
        """The end of all keys of the batches that begin alike."""
        uid = self._uid()
        key = self._key()

        def do() -> list[Any]:
            return [self.store.delete(key, prefix=True, collection="batches", reason=uid)]

        self._do([uid], do, [{"reason": uid}])

    def _do(self, uids: list[str], write: Callable[[], list[Any]], values: list[Any]) -> None:
        from holdfast.errors import CapacityError, NotFound

        self.journal.note("try", uids=uids)
        try:
            made = write()
        except NotFound:
            self.journal.note("refused", uids=uids, error="not_found", hint="")
            return
        except CapacityError as error:
            self.journal.note("refused", uids=uids, error=error.code, hint=error.hint)
            return
        facts = [(uid, m.stream, m.seq, m.etag, digest(v)) for uid, m, v in zip(uids, made, values, strict=True)]
        self.journal.note("wrote", records=facts, keys=[m.key for m in made], at=time.monotonic_ns())

    def _uid(self) -> str:
        return f"{self.who}.{next(self._count)}"

    def _key(self) -> str:
        return self._keys(self.rng.randrange(KEYS))


class Orders:
    """What the driver wants, line by line on stdin; when the driver is gone, so is this process."""

    def __init__(self) -> None:
        self.pace = "walk"
        self.stop = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            self.pace = line.strip()
            if self.pace == "stop":
                self.stop.set()
        if not self.stop.is_set():
            os._exit(3)

    def turns(self) -> Iterator[None]:
        """One for each write, at the pace that was ordered, until the order to stop."""
        while not self.stop.is_set():
            yield
            self.stop.wait(0 if self.pace == "sprint" else WALK_S)


def write(args: argparse.Namespace) -> None:
    """Writes until it is told to stop (or has written enough), ships what is left, and closes."""
    from holdfast.node.directory import Limits
    from holdfast.node.store import Store

    journal, orders = Journal(args.journal), Orders()
    try:
        limits = Limits(floor_bytes=args.floor, ballast_bytes=args.ballast)
        with Store(args.directory, args.agent, hub=args.hub, limits=limits) as store:
            journal.note("open", pid=os.getpid())
            threads = [
                threading.Thread(target=_busy, args=(args, store, journal, orders, n)) for n in range(args.threads)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            journal.note("health", **_health(store))
            journal.note("flushed", ok=store.flush(args.flush), depth=store.outbox_depth)
            journal.note("health", **_health(store))
        journal.note("done")
    except BaseException as error:
        journal.note("failed", error=f"{type(error).__name__}: {error}")
        raise


def _busy(args: argparse.Namespace, store: Any, journal: Journal, orders: Orders, number: int) -> None:
    who = f"{args.who}.{number}"
    hands = Hands(store, journal, who, random.Random(who), (args.keys + "{}").format)
    try:
        for turn, _ in enumerate(orders.turns()):
            if args.count is not None and turn >= args.count:
                return
            getattr(hands, args.kind)()
    except BaseException as error:
        journal.note("failed", error=f"{type(error).__name__}: {error}")
        raise


def _health(store: Any) -> dict[str, Any]:
    found = store.health()
    return {"problems": found["problems"], "hubs": found["hubs"], "head": found["head"]["seq"]}


def hub(args: argparse.Namespace) -> None:
    """Serves; with a `--free-file` the disk has as many free bytes as that file says, while it says something."""
    if args.free_file:
        real = os.statvfs

        def statvfs(path: Any) -> Any:
            found = real(path)
            try:
                free = int(args.free_file.read_text())
            except (FileNotFoundError, ValueError):
                return found
            fields = list(found)
            fields[3] = fields[4] = free // found.f_frsize  # f_bfree, f_bavail
            return os.statvfs_result(fields)

        os.statvfs = statvfs
    from holdfast.hub import exchange
    from holdfast.hub.serve import serve

    if args.retry_after:
        exchange.RETRY_AFTER[507] = args.retry_after.encode()
    serve(args.directory, port=args.port, ready_file=args.ready_file)


def fill(args: argparse.Namespace) -> None:
    """Fills a disk with what an agent writes, frees it, ships to a hub; says on stdout how far it came."""
    from holdfast.errors import NodeFull
    from holdfast.node.directory import Limits
    from holdfast.node.store import Store

    ballast = args.directory / "somebody-elses"
    ballast.write_bytes(bytes(4 << 20))
    with Store(args.directory / "node", "ada", hub=[], limits=Limits(0, 1 << 20)) as store:
        written = 0
        for size in (100_000, 20_000, 1_000, 10):  # blobs, then ever smaller, until nothing fits
            try:
                while True:
                    store.put(f"k/{written:05}", os.urandom(size))
                    written += 1
            except NodeFull:
                continue
        print("full")
        keys = store.keys("k/", limit=1_000_000)
        assert len(keys) == written, f"{len(keys)} of {written}"
        for key in keys:
            store.get(key)
        print("read")
        assert store.verify().findings == [], store.verify().findings
        print("verified")
        ballast.unlink()
        print("freed")
        store.put("after", "freed")
        store.put("large", os.urandom(LARGE + 1))
        print("wrote")
    with Store(args.directory / "node", "ada", hub=[], limits=Limits(0, 1 << 20)) as store:
        assert len(store.keys("k/", limit=1_000_000)) == written
        assert store.get("after") == "freed"
        assert store.verify().findings == []
        print("verified")


def main() -> None:
    """Plays one part."""
    parser = argparse.ArgumentParser()
    parts = parser.add_subparsers(required=True)
    writer = parts.add_parser("write")
    writer.add_argument("directory", type=Path)
    writer.add_argument("agent")
    writer.add_argument("journal", type=Path)
    writer.add_argument("--who", required=True)
    writer.add_argument("--hub", action="append", default=[])
    writer.add_argument("--kind", default="any")
    writer.add_argument("--keys", default="k/")
    writer.add_argument("--count", type=int)
    writer.add_argument("--threads", type=int, default=1)
    writer.add_argument("--flush", type=float, default=100.0)
    writer.add_argument("--floor", type=int, default=0)
    writer.add_argument("--ballast", type=int, default=0)
    writer.set_defaults(play=write)
    served = parts.add_parser("hub")
    served.add_argument("directory", type=Path)
    served.add_argument("--port", type=int, required=True)
    served.add_argument("--ready-file", type=Path, required=True)
    served.add_argument("--free-file", type=Path)
    served.add_argument("--retry-after", help="seconds that a full hub sends nodes away for")
    served.set_defaults(play=hub)
    filler = parts.add_parser("fill")
    filler.add_argument("directory", type=Path)
    filler.set_defaults(play=fill)
    args = parser.parse_args()
    args.play(args)


if __name__ == "__main__":
    main()
