"""Backups of hubs in either engine: they come back row by row, are refilled by nodes, and settle what they hold."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from holdfast import Store
from holdfast.corpus import SqliteCorpus, moving
from holdfast.errors import Conflict
from holdfast.hub.app import create_app
from holdfast.hub.backup import finish_hub, hub_source, settle
from holdfast.hub.directory import HubDirectory
from holdfast.integrity import verify_corpus
from holdfast.integrity.backup import Moment, Repository, create, drill, restore, settled_heads
from holdfast.objects import BlobFiles
from holdfast.objects.files.store import FileStore
from holdfast.objects.memory import MemoryStore
from holdfast.testing.clock import START_MS, SettableClock
from tests.flow.hubs import HubProcess, until
from tests.flow.test_backup import LIMITS, back_up, bring, state
from tests.flow.test_migrate import hub_at, write_history
from tests.hub.conftest import Room
from tests.hub.pens import Pen
from tests.services import shared_postgres


def same(one: Path, other: Path, *, but: tuple[str, ...] = ()) -> None:
    """Fails where two hubs' files differ, in any row that is not the cache's, or says what whoever asks declares."""
    first, second = (SqliteCorpus(home / "hub.db", hub=True) for home in (one, other))
    try:
        for table in moving.TABLES:
            if table.name not in ("cache", "field", *but):
                list(moving.compare(first, second, table))
    finally:
        first.close()
        second.close()


def test_a_hub_comes_back_row_by_row_and_at_any_position(tmp_path: Path) -> None:
    home, repository = tmp_path / "hub", Repository(MemoryStore())
    with hub_at(str(home)) as room:
        pen = write_history(room)
        for step in range(3):
            with hub_source(str(home)) as source:
                assert create(repository, source).missing == 0
            pen.put("k/9", step)
            room.append(pen.segment(pen.head.seq))
        with hub_source(str(home)) as source:
            create(repository, source)
            signer = source.signer(repository.keys[0])
            assert signer is not None
    made = restore(repository, tmp_path / "back", finish=lambda work, said: finish_hub(work, said, home) and None)
    assert made.signatures > 10
    same(home, tmp_path / "back")
    last = made.records
    for position in random.Random(3).sample(range(1, last), 4):
        target = tmp_path / f"cut-{position}"
        restore(
            repository, target, Moment(seq=position), finish=lambda work, said: finish_hub(work, said, home) and None
        )
        with hub_at(str(target)) as room:
            assert room.core.corpus.last() <= position
    restore(repository, tmp_path / "again", finish=lambda work, said: finish_hub(work, said, home) and None)
    with hub_at(str(tmp_path / "again")) as room:
        assert len(room.core.home.lineage) == 2  # a generation of its own
        pen.put("k/9", "on")
        assert room.append(pen.segment(pen.head.seq)).verdicts[0].state == "ack"


def test_a_hubs_moment_is_what_had_arrived_by_then(tmp_path: Path) -> None:
    repository, clock = Repository(MemoryStore()), SettableClock()
    early, late = Pen("early"), Pen("late")
    with TestClient(create_app(HubDirectory(tmp_path / "hub", wall=clock))) as client:
        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        late.put("k", "written long before, and away from any network since")
        for number in range(3):
            early.put("k", number)
            room.append(early.segment(number + 1))
            clock.advance(3600)
        room.append(late.segment(1))
        with hub_source(str(tmp_path / "hub")) as source:
            create(repository, source, wall=clock)
    for hours, records in ((-1, 0), (0.5, 1), (1.5, 2), (2.9, 3), (4, 4)):
        target, at_ms = tmp_path / f"at-{hours}", START_MS + int(hours * 3_600_000)
        made = restore(repository, target, Moment(at_ms=at_ms), finish=lambda *_: None)
        assert (made.records, made.whole) == (records, records == 4)


def test_a_hub_put_back_is_refilled_and_a_node_put_back_takes_its_tail(tmp_path: Path) -> None:
    hub, node = tmp_path / "hub", tmp_path / "node"
    hubs, nodes = Repository(FileStore(tmp_path / "hubs")), Repository(FileStore(tmp_path / "nodes"))
    process = HubProcess(hub)
    try:
        with Store(node, "ada", hub=process.url, limits=LIMITS) as store:
            for number in range(40):
                store.put(f"k{number}", number)
                if number == 19:
                    assert store.flush()
                    with hub_source(str(hub)) as source:
                        create(hubs, source)
                    back_up(node, nodes)
            assert store.flush()
        process.kill()
        hub.rename(tmp_path / "lost")
        made = restore(hubs, hub, finish=lambda work, said: finish_hub(work, said, tmp_path / "lost") and None)
        assert made.records == 20
        process.start()
        with Store(node, "ada", hub=process.url, limits=LIMITS) as store:
            store.put("k40", 40)
            assert store.flush()
        node.rename(tmp_path / "gone")
        bring(nodes, node, keys=tmp_path / "gone")
        assert len(state(node)) == 20
        with Store(node, "ada", hub=process.url, limits=LIMITS) as store:
            assert store.flush()
            until(lambda: store.get("k40", default=None) == 40, "the tail came back from the hub")
            assert store.put("k40", "on").version == 2
            assert store.flush()
    finally:
        process.kill()
    corpus = SqliteCorpus(hub / "hub.db", hub=True)
    try:
        assert verify_corpus(corpus, BlobFiles(hub / "blobs")).findings == []
        assert (corpus.last(), len(corpus.branches())) == (42, 1)  # nothing forked, and nothing is there twice
    finally:
        corpus.close()


def test_a_database_is_backed_up_as_the_same_hub(tmp_path: Path) -> None:
    address = shared_postgres().database()
    repository = Repository(MemoryStore())
    with hub_at(address) as room:
        pen = write_history(room)
        with hub_source(address) as source:
            first = create(repository, source)
        pen.put("k/9", "more")
        room.append(pen.segment(pen.head.seq))
        with hub_source(address, with_keys=False) as source:
            second = create(repository, source)
            signer = source.signer(repository.keys[0])
        assert (first.missing, second.new_records) == (0, 1)
        assert signer is not None
        assert drill(repository, signer).ok
        said = room.get("/v1/feed")["records"]
    restore(repository, tmp_path / "back", finish=lambda work, documents: finish_hub(work, documents) and None)
    with hub_at(str(tmp_path / "back")) as room:
        assert room.get("/v1/feed")["records"] == said


def test_two_verified_backups_settle_what_both_hold(tmp_path: Path) -> None:
    home, repository = tmp_path / "hub", Repository(FileStore(tmp_path / "bak"))
    pen = Pen("ada")
    core_home = HubDirectory(home)
    with TestClient(create_app(core_home)) as client:
        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]

        def settled() -> int:
            return room.hello(pen.hello()).streams[0].settled

        pen.put("a", 1)
        room.append(pen.segment(1))
        for _ in range(2):
            pen.put("a", 2)
            room.append(pen.segment(pen.head.seq))
            with hub_source(str(home)) as source:
                create(repository, source)
                signer = source.signer(repository.keys[0])
                assert signer is not None
        names = repository.names()
        assert (settle(core_home, repository), settled()) == (0, 0)
        assert drill(repository, signer, names[1:]).ok
        assert (settle(core_home, repository), settled()) == (0, 0)  # it takes two
        assert drill(repository, signer, names[:1]).ok
        assert settled_heads(repository)[0][4] == 2
        assert settle(core_home, repository) == 1
        assert settled() == 2
        pen.put("a", 3)
        assert room.append(pen.segment(pen.head.seq)).verdicts[0].state == "ack"
        assert (settle(core_home, repository), settled()) == (0, 2)


def test_a_served_hub_backs_itself_up_and_readyz_says_so(tmp_path: Path) -> None:
    address = f"file:{tmp_path / 'bak'}"
    pen = Pen("ada")
    core_home = HubDirectory(tmp_path / "hub")
    with TestClient(create_app(core_home, backup=address, backup_every=0.05)) as client:
        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        pen.put("a", 1)
        room.append(pen.segment(1))
        assert "nothing settles yet" in str(client.get("/health").json()["warnings"])
        until(lambda: room.core.backups.verified >= 2, "two backups are verified")  # type: ignore[union-attr]
        until(lambda: room.hello(pen.hello()).streams[0].settled == 1, "what they hold is settled")
        told = client.get("/health").json()
        assert told["backups"]["trouble"] == ""
        assert "settles" not in str(told["warnings"])
        figures = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
        assert float(figures["holdfast_backup_verified"]) >= 2
        assert float(figures["holdfast_backup_failing"]) == 0
        assert float(figures["holdfast_backup_drill_last_success_timestamp_seconds"]) > 1_700_000_000
    with pytest.raises(Conflict):
        restore(Repository(FileStore(tmp_path / "bak")), tmp_path / "hub", finish=lambda *_: None)
