"""A node that keeps a budget: never above it, everything readable, nothing gone that a hub and its backups lack."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.corpus.search import pending
from holdfast.errors import NodeFull, NotCached, NotFound, UsageError
from holdfast.hub.backup import hub_source
from holdfast.integrity.backup import Repository, create, drill
from holdfast.node.aio import AsyncStore
from holdfast.node.directory import Limits
from holdfast.node.evicting import Asking, Report, asked, round_of
from holdfast.node.room import standing_of
from holdfast.node.store import Store
from holdfast.objects.files.store import FileStore
from holdfast.retention import MB, Retention
from holdfast.transport.client import HubClient
from holdfast.wire import EVICTED
from tests.flow.hubs import HubProcess, until

BUDGET = 4 * MB


def limits(**retention: Any) -> Limits:
    return Limits(floor_bytes=0, ballast_bytes=0, scan_s=0, retention=Retention(**retention))


class Watch:
    """Looks at what an agent takes on the disk, again and again, from outside: no room, no row is believed."""

    def __init__(self, node: Path, agent: str = "ada") -> None:
        self.most = self.looks = 0
        self._roots = (node / "agents" / agent, node / "blobs")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, sum(map(taken, self._roots)))
            self.looks += 1


def taken(root: Path) -> int:
    """Bytes of all files below a directory."""
    size = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                size += os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return size


class Flow:
    """Values, blobs, texts and messages, some keys again and again; what was written is remembered."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._words = [f"word{number:04}" for number in range(3000)]
        self.written: dict[tuple[str, str], Any] = {}
        self.bytes = 0

    def one(self, store: Store) -> None:
        """Writes one thing."""
        rng, chance = self._rng, self._rng.random()
        key = f"k{rng.randrange(2000)}"
        if chance < 0.6:
            self._put(store, key, rng.randbytes(rng.randrange(20_000, 65_000)))
        elif chance < 0.8:
            self._put(store, key, rng.randbytes(rng.randrange(70_000, 250_000)))
        elif chance < 0.9:
            self._put(store, key, {"text": " ".join(rng.choices(self._words, k=rng.randrange(300)))})
        else:
            body = rng.randbytes(4_000).hex()
            message = store.post(body, to="bob", thread="t1")
            self.written["messages", message.id] = {"body": body, "to": "bob", "thread": "t1"}
            self.bytes += len(body)

    def _put(self, store: Store, key: str, value: Any) -> None:
        store.put(key, value)
        self.written["state", key] = value
        self.bytes += len(value) if isinstance(value, bytes) else len(value["text"])

    def until(self, store: Store, size: int) -> None:
        """Writes until so many bytes were written, whatever waits are needed."""
        while self.bytes < size:
            try:
                self.one(store)
            except NodeFull:
                time.sleep(0.01)

    def check(self, store: Store) -> None:
        """Every value is what was written, from here or from the hub."""
        for (collection, key), value in self.written.items():
            assert store.get(key, collection=collection) == value, f"{collection}/{key} is something else"


def evicted(store: Store) -> list[int]:
    """The numbers of the records whose bodies are not here."""
    return [row[0] for row in store._log.corpus.query("SELECT seq FROM rec WHERE why=?", (EVICTED,))]


def refused(flow: Flow, store: Store) -> NodeFull:
    """Writes until the budget stops it; the error."""
    for _ in range(5000):
        try:
            flow.one(store)
        except NodeFull as error:
            return error
    raise AssertionError("the budget stops nobody")


def sweep(store: Store, hub: HubProcess) -> Report:
    """One round of eviction, now."""
    directory, client, asking = store._directory, HubClient(hub.url), Asking(store._directory)
    try:
        return round_of(directory, store.agent, asked([client], asking, directory.node_id))
    finally:
        asking.close()
        client.close()


def through(on_node: Callable[..., Store], node: Path, budget: int, size: int) -> None:
    """Line 4: `size` bytes through a budget."""
    flow = Flow()
    with Watch(node) as watch:
        store = on_node("node", "ada", limits=limits(max_bytes=budget, wait_s=30.0))
        flow.until(store, size)
        flow.check(store)
    assert watch.looks > 100
    assert watch.most <= budget, f"{watch.most:,} bytes once, of {budget:,}"
    assert len(evicted(store)) > len(flow.written) // 3
    found = store.verify()
    assert found.findings == []
    assert store.flush()
    assert store.keys(limit=10_000) == sorted(key for collection, key in flow.written if collection == "state")


def test_forty_megabytes_through_four(on_node: Callable[..., Store], tmp_path: Path) -> None:
    through(on_node, tmp_path / "node", BUDGET, 10 * BUDGET)


@pytest.mark.long
def test_five_hundred_megabytes_through_fifty(on_node: Callable[..., Store], tmp_path: Path) -> None:
    through(on_node, tmp_path / "node", 50 * MB, 500 * MB)


def test_nothing_leaves_before_two_backups_hold_it_and_then_it_resumes_alone(
    on_node: Callable[..., Store], hub: HubProcess, tmp_path: Path
) -> None:
    hub.stop()
    hub.options["settle"] = "backups"
    hub.start()
    flow, address = Flow(2), f"file://{tmp_path / 'backups'}"
    with Watch(tmp_path / "node") as watch:
        store = on_node("node", "ada", limits=limits(max_bytes=BUDGET, wait_s=0.3))
        error = refused(flow, store)
        assert "not settled" in error.message
        assert store.flush()
        assert (evicted(store), standing_of(store._directory, "ada").settled) == ([], 0)
        held = len(flow.written)
        with FileStore(tmp_path / "backups") as place:
            repository = Repository(place)
            for _ in range(2):
                with hub_source(str(hub.directory)) as source:
                    create(repository, source)
                    signer = source.signer(repository.keys[0])
            assert signer is not None
            assert drill(repository, signer).ok
        hub.stop()
        hub.options |= {"backup": address, "backup_every": 0.0}
        hub.start()
        until(lambda: writes(store), "it takes writes again")
        flow.until(store, flow.bytes + BUDGET // 4)
        flow.check(store)
    assert watch.most <= BUDGET
    assert 0 < max(evicted(store)) <= standing_of(store._directory, "ada").settled
    assert held < len(flow.written)


def test_a_full_node_says_so_reads_on_and_resumes_alone(
    on_node: Callable[..., Store], hub: HubProcess, tmp_path: Path
) -> None:
    """The earlier system's rows: partition, and disk full (local)."""
    flow = Flow(3)
    store = on_node("node", "ada", limits=limits(max_bytes=BUDGET, wait_s=0.2))
    store.put("first", {"step": 1})
    assert store.flush()
    hub.kill()
    with Watch(tmp_path / "node") as watch:
        error = refused(flow, store)
        assert (error.status, error.exit_code) == (507, 8)
        assert f"{BUDGET:,} bytes" in error.message
        assert error.context["unsettled"] > BUDGET // 3
        assert "raise the budget" in error.hint
        while writes(store, 60_000):
            pass  # what was refused may have been larger than what is left
        with pytest.raises(NodeFull), store.batch() as batch:
            batch.put("many", os.urandom(60_000))
        assert store.get("many", default=None) is None
        flow.check(store)  # nothing of it left: reads need no hub
        problems = store.health()["problems"]
        assert any("the cache of ada is full" in problem for problem in problems), problems
        figures = store.metrics()
        assert 'holdfast_cache_full{node="' in figures
        assert next(row for row in figures.splitlines() if row.startswith("holdfast_cache_full{")).endswith(" 1")
        hub.start()
        until(lambda: writes(store), "it takes writes again")
        flow.until(store, flow.bytes + BUDGET)
        flow.check(store)
    assert watch.most <= BUDGET
    assert store.flush()
    # A flush is over when the hub has it; that it is settled there is told with the next answer.
    until(lambda: not [each for each in store.health()["problems"] if "full" in each], "it is full no more")
    assert store.verify().findings == []


def writes(store: Store, size: int = 1000) -> bool:
    """Whether a write of so many bytes is taken."""
    try:
        store.put("probe", os.urandom(size))
    except NodeFull:
        return False
    return True


def test_lists_stay_whole_and_a_body_that_left_is_told_of_where_it_is(
    on_node: Callable[..., Store], hub: HubProcess
) -> None:
    store = on_node("node", "ada", limits=limits(days=1e-9, keep_fetched=False))
    for number in range(3):
        store.put("plan", {"step": number, "text": "holdfast " * 40})
    store.put("blob", bytes(range(256)) * 400)
    store.post("a word to bob " * 20, to="bob", task="t7")
    assert store.flush()
    files = store._directory.blobs  # they go behind the bodies, by whichever of us let these go
    until(
        lambda: sweep(store, hub).standing.spare == 0 and len(evicted(store)) == 5 and not list(files.iter()),
        "all of it has left",
    )
    assert store.get("plan") == {"step": 2, "text": "holdfast " * 40}
    assert store.get("plan", at=1)["step"] == 0
    assert store.get("blob") == bytes(range(256)) * 400
    assert len(evicted(store)) == 5, "nothing is kept that has to leave at once"
    assert not list(files.iter())
    assert [each.value["step"] for each in store.history("plan")] == [2, 1, 0]
    assert store.rollback("plan", 1).version == 4
    hub.kill()
    with pytest.raises(NotCached, match=hub.url) as caught:
        store.get("blob")
    assert caught.value.context["hub"] == hub.url
    with pytest.raises(NotCached):
        store.get("blob", default=1)
    assert store.keys() == ["blob", "plan"]
    assert [(each.version, each.missing) for each in store.history("plan")][1:] == [
        (3, "evicted"),
        (2, "evicted"),
        (1, "evicted"),
    ]
    (message,) = store.messages(agent="ada", task="t7")
    assert (message.body, message.extra) == (None, {"missing": "evicted"})
    assert store.search("plan", agent="ada")[0].key == "plan"
    assert store.verify().findings == []


def test_what_is_fetched_back_is_held_against_the_record_and_kept_while_there_is_room(
    on_node: Callable[..., Store], hub: HubProcess
) -> None:
    store = on_node("node", "ada", limits=limits(max_bytes=BUDGET))
    store.put("plan", {"text": "holdfast " * 40})
    store.put("blob", os.urandom(100_000))
    assert store.flush()
    value = store.get("blob")
    corpus = store._log.corpus
    bodies = [eviction_body(store, key) for key in ("plan", "blob")]
    mark = corpus.head(store._log.branch.id)
    from holdfast.corpus import eviction
    from holdfast.wire import Mark

    assert eviction.evict(corpus, Mark(mark.seq, bytes(32)), bodies) == 0, "another log lies here"
    assert eviction.evict(corpus, Mark(mark.seq, mark.link), bodies) == 2
    store._directory.blobs.delete(bodies[1].digest)
    assert store.get("blob") == value
    assert store.get("plan") == {"text": "holdfast " * 40}
    assert evicted(store) == []
    hub.kill()
    assert store.get("blob") == value
    assert store.verify().findings == []


def eviction_body(store: Store, key: str) -> Any:
    """A value as eviction sees it."""
    from holdfast.corpus.eviction import Body
    from holdfast.records import read_blob_reference

    stored = store._log.newest("state", key)
    assert stored is not None
    digest = read_blob_reference(stored.payload())[0] if stored.is_blob else b""
    return Body(stored.pos, 0, len(stored.body or b""), 0, digest, (0, 0, 0))


def test_the_least_useful_leaves_first_and_what_is_pinned_never(on_node: Callable[..., Store], hub: HubProcess) -> None:
    store = on_node("node", "ada", limits=limits(max_bytes=8 * MB, keep=("tasks",)))
    rng = random.Random(4)

    def body(size: int) -> bytes:
        return rng.randbytes(size)

    kinds = {
        "old": [store.put("again", body(20_000)).seq for _ in range(20)][:-1],
        "message": [store.post(body(10_000).hex(), to="bob").seq for _ in range(20)],
        "large": [store.put(f"large{n}", body(30_000)).seq for n in range(20)],
        "kept": [store.put(f"t{n}", body(30_000), collection="tasks").seq for n in range(20)],
        "small": [store.put(f"small{n}", body(900)).seq for n in range(20)],
    }
    store.pin("large3")
    store.pin("t3", collection="tasks")
    with pytest.raises(NotFound):
        store.pin("nothing")
    assert store.flush()
    until(lambda: not pending(store._log.corpus), "all of it is in the index")
    order = left_in_order(store)
    ranks = {seq: kind for kind, seqs in kinds.items() for seq in seqs}
    classes = [ranks[seq] for seq in order if seq in ranks]
    first = {kind: classes.index(kind) for kind in ("old", "message", "large", "kept", "small")}
    assert sorted(first, key=lambda kind: first[kind]) == ["old", "message", "large", "kept", "small"]
    last = {kind: len(classes) - classes[::-1].index(kind) for kind in first}
    assert last["old"] <= first["message"] < last["message"] <= first["large"] < last["large"] <= first["kept"]
    pinned = {kinds["large"][3], kinds["kept"][3]}
    assert not pinned & set(order)
    store.unpin("large3")
    assert kinds["large"][3] in left_in_order(store)


def left_in_order(store: Store) -> list[int]:
    """The numbers that would leave, in their order, if all had to."""
    from holdfast.corpus.eviction import Wanted, look

    head = store._log.corpus.last()
    wanted = Wanted(
        settled=head,
        kept=(),
        inline=1 << 40,
        beside=1 << 40,
        before=lambda _: 0,
        keeps=store._room.retention.keeps,  # type: ignore[union-attr]
        now_ms=store._directory.wall.now_ms(),
    )
    return [each.pos for each in look(store._log.corpus, wanted).first]


def test_blobs_that_come_back_are_counted(on_node: Callable[..., Store], hub: HubProcess) -> None:
    store = on_node("node", "ada", limits=limits(max_bytes=BUDGET, days=1e-9))
    for number in range(4):
        store.put(f"blob{number}", os.urandom(150_000))
    assert store.flush()
    until(lambda: sweep(store, hub) and len(evicted(store)) == 4, "all of it has left")
    room = store._room
    assert room is not None
    assert room.figures().blobs == 0
    for number in range(3):
        store.get(f"blob{number}")
    assert len(list(store._directory.blobs.iter())) == 3
    assert room.figures().blobs == 450_000


def test_a_blob_that_another_agent_still_refers_to_stays(on_node: Callable[..., Store], hub: HubProcess) -> None:
    ada = on_node("node", "ada", limits=limits(days=1e-9))
    bob = on_node("node", "bob")
    value = os.urandom(100_000)
    ada.put("file", value)
    bob.put("file", value)
    assert ada.flush()
    assert bob.flush()
    until(lambda: sweep(ada, hub).bodies or evicted(ada), "ada's has left")
    hub.kill()
    assert bob.get("file") == value
    assert bob.verify().findings == []


def test_days_are_kept_per_collection(on_node: Callable[..., Store], hub: HubProcess) -> None:
    store = on_node("node", "ada", limits=limits(days=1e-9, collection_days={"audit": 0, "keep-*": 30}))
    for collection in ("audit", "keep-long", "state"):
        store.put("k", "x" * 500, collection=collection)
    assert store.flush()
    until(lambda: sweep(store, hub).bodies or evicted(store), "one has left")
    assert evicted(store) == [3]


def test_a_retention_is_written_down_for_whoever_opens_the_node_next(
    on_node: Callable[..., Store], tmp_path: Path
) -> None:
    store = on_node("node", "ada", hub=[], limits=limits(max_bytes=BUDGET, wait_s=0.0))
    store.close()
    again = on_node("node", "ada", hub=[], limits=Limits(floor_bytes=0, ballast_bytes=0))
    assert again._room is not None
    error = refused(Flow(5), again)
    assert "without a hub nothing may leave" in error.message
    other = on_node("node", "bob", hub=[], limits=Limits(floor_bytes=0, ballast_bytes=0))
    assert other._room is None
    (tmp_path / "node" / "config.json").write_text('{"format": 1, "retention": {"cyd": {"max_bytes": "much"}}}')
    with pytest.raises(UsageError, match="retention of cyd"):
        on_node("node", "cyd", hub=[], limits=Limits(floor_bytes=0, ballast_bytes=0))


def test_the_async_store_waits_at_the_budget_too(hub: HubProcess, tmp_path: Path) -> None:
    rng = random.Random(6)
    values = {f"k{number}": rng.randbytes(40_000) for number in range(250)}

    async def work() -> None:
        async with AsyncStore(tmp_path / "node", "ada", hub=hub.url, limits=limits(max_bytes=BUDGET, wait_s=30)) as one:
            for key, value in values.items():
                await one.put(key, value)
            for key, value in values.items():
                assert await one.get(key) == value
            await one.pin("k1")
            await one.unpin("k1")

    with Watch(tmp_path / "node") as watch:
        asyncio.run(work())
    assert watch.most <= BUDGET
