"""Backups come back: to any moment, after kills and damage, without what was erased, and of hubs in either engine."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast import Store, codec, wire
from holdfast.clock import millis
from holdfast.corpus import SqliteCorpus, moving
from holdfast.errors import Conflict, Denied, HoldfastError, IntegrityError, NotFound, UsageError
from holdfast.hub.app import create_app
from holdfast.hub.backup import finish_hub, hub_source, settle
from holdfast.hub.directory import HubDirectory
from holdfast.integrity import verify_corpus
from holdfast.integrity.backup import (
    Created,
    Moment,
    Policy,
    Repository,
    create,
    drill,
    making,
    prune,
    restore,
    settled_heads,
    verify,
)
from holdfast.integrity.backup.retention import DAY_MS, GRACE_MS, HOUR_MS
from holdfast.node.backup import finish_node, node_source
from holdfast.node.directory import Limits, attach, detach
from holdfast.objects import BlobFiles
from holdfast.objects.files.store import FileStore
from holdfast.objects.memory import MemoryStore
from holdfast.seal import KeyRing, Signer
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess, until
from tests.flow.test_migrate import hub_at, write_history
from tests.hub.pens import Pen
from tests.services import shared_postgres

LIMITS = Limits(floor_bytes=0, ballast_bytes=0)
RESTORE = (
    "import sys; from pathlib import Path; from holdfast.integrity.backup import Repository, restore;"
    " from holdfast.objects.files.store import FileStore;"
    " restore(Repository(FileStore(sys.argv[1])), Path(sys.argv[2]), finish=lambda *_: None,"
    " told=lambda *said: print(*said, flush=True) or (sys.stdin.readline() if len(sys.argv) > 3 else None))"
)


def back_up(home: Path, repository: Repository, **how: Any) -> Created:
    """A backup of a node's directory."""
    directory = attach(home, limits=LIMITS, make=False)
    try:
        with node_source(directory, **how) as source:
            return create(repository, source)
    finally:
        detach(directory)


def signer_of(home: Path) -> Signer:
    """The key of a node."""
    directory = attach(home, limits=LIMITS, make=False)
    try:
        return directory.keyring.signer(directory.keyring.current())
    finally:
        detach(directory)


def bring(repository: Repository, target: Path, moment: Moment = Moment(), keys: Path | None = None) -> Any:  # noqa: B008
    """A restore of a node."""
    return restore(repository, target, moment, finish=lambda work, said: finish_node(work, said, keys) and None)


def state(home: Path, agent: str = "ada") -> dict[str, Any]:
    """What the keys of an agent hold in a directory that no node has opened yet."""
    corpus = SqliteCorpus(home / "agents" / agent / "log.db")
    try:
        found = corpus.keys(agent, "state", limit=10_000)
        return {each.record.key: codec.deserialise(each.record.fmt, each.payload()) for each in found}
    finally:
        corpus.close()


class Story:
    """A node that lives at random, and a model that knows what it held behind each record."""

    def __init__(self, home: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.home = home
        self.model: dict[str, Any] = {}
        self.states: dict[int, dict[str, Any]] = {0: {}}

    def live(self, steps: int) -> None:
        """So many writes."""
        chance = self.chance
        with Store(self.home, "ada", limits=LIMITS) as store:
            for _ in range(steps):
                what, key = chance.random(), f"{chance.choice('ab')}/{chance.randrange(9)}"
                value: Any = {"n": chance.randrange(1000), "text": "x" * chance.choice((3, 700, 2000))}
                if what < 0.6:
                    seq = store.put(key, value).seq
                    self.model[key] = value
                elif what < 0.75 and key in self.model:
                    seq = store.delete(key).seq
                    del self.model[key]
                elif what < 0.8:
                    seq = store.delete("a/", prefix=True).seq
                    self.model = {name: each for name, each in self.model.items() if not name.startswith("a/")}
                elif what < 0.9:
                    with store.batch() as batch:
                        for number in range(chance.randrange(2, 9)):
                            batch.put(f"b/{number}", [number, what])
                            self.model[f"b/{number}"] = [number, what]
                    seq = store.history(f"b/{number}")[0].seq
                else:
                    store.post("hello", to="bob")
                    seq = max(self.states)
                    continue
                self.states[seq] = dict(self.model)

    def at(self, seq: int) -> dict[str, Any]:
        """What it held when the log ended there, or before the batch that this is the middle of."""
        return self.states[max(each for each in self.states if each <= seq)]

    def stamps(self) -> list[tuple[int, int]]:
        """The number and the time in ms of each record."""
        corpus = SqliteCorpus(self.home / "agents" / "ada" / "log.db")
        try:
            return [(seq, millis(hlc)) for seq, hlc in corpus.query("SELECT seq, hlc FROM rec ORDER BY seq")]
        finally:
            corpus.close()


@pytest.mark.parametrize("seed", range(20))
def test_any_moment_of_any_history_comes_back(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.integrity.backup.segment.RECORDS_MAX", 25)
    monkeypatch.setattr(making, "SMALL_MAX", 3)
    story, repository = Story(tmp_path / "node", seed), Repository(MemoryStore())
    chance = story.chance
    for _ in range(chance.randrange(1, 6)):
        story.live(chance.randrange(1, 40))
        back_up(story.home, repository)
    assert verify(repository).findings == []
    stamps = story.stamps()
    bring(repository, tmp_path / "all")
    assert state(tmp_path / "all") == story.model
    seq = chance.randrange(stamps[-1][0] + 1)
    bring(repository, tmp_path / "seq", Moment(seq=seq))
    assert state(tmp_path / "seq") == story.at(seq)
    at_ms = chance.choice(stamps)[1]
    upto = max(number for number, ms in stamps if ms <= at_ms)
    bring(repository, tmp_path / "at", Moment(at_ms=at_ms))
    assert state(tmp_path / "at") == story.at(upto)


def test_a_restored_node_goes_on_and_its_backups_with_it(tmp_path: Path) -> None:
    home, repository = tmp_path / "node", Repository(MemoryStore())
    with Store(home, "ada", limits=LIMITS) as store:
        big = "blob " * 40_000
        store.put("big", big)
        for number in range(50):
            store.put(f"k{number}", number)
        first = back_up(home, repository)  # while it is open
        assert (first.records, first.new_records, first.blobs) == (51, 51, 1)
        store.put("k1", "later")
        second = back_up(home, repository)
        assert (second.records, second.new_records, second.blobs) == (52, 1, 0)
        assert second.bytes < first.bytes / 10
    with pytest.raises(Conflict, match="not empty"):
        bring(repository, home)
    made = bring(repository, tmp_path / "back", keys=home)
    assert (made.records, made.blobs, made.whole) == (52, 1, True)
    with Store(tmp_path / "back", "ada", limits=LIMITS) as store:
        assert (store.get("k1"), store.get("big")) == ("later", big)
        assert [each.value for each in store.history("k1")] == ["later", 1]
        store.put("k1", "after")
    assert back_up(tmp_path / "back", repository).new_records == 1
    # One that went another way is backed up anew, and not as if it followed.
    bring(repository, tmp_path / "other", Moment(seq=20), keys=home)
    with Store(tmp_path / "other", "ada", limits=LIMITS) as store:
        for number in range(60):
            store.put("other", number)
    assert back_up(tmp_path / "other", repository).new_records == 80
    assert verify(repository).findings == []
    with Store(tmp_path / "stranger", "ada", limits=LIMITS) as store:
        store.put("k", 1)
    with pytest.raises(Conflict, match="signed by a key"):
        back_up(tmp_path / "stranger", repository)


def test_writers_go_on_while_it_is_backed_up(tmp_path: Path) -> None:
    home, repository, over = tmp_path / "node", Repository(MemoryStore()), threading.Event()

    def write(agent: str) -> None:
        with Store(home, agent, limits=LIMITS) as store:
            number = 0
            while not over.is_set():
                with store.batch() as batch:
                    for each in range(5):
                        batch.put(f"k{each}", number)
                number += 1

    writers = [threading.Thread(target=write, args=(agent,)) for agent in ("ada", "bob")]
    for writer in writers:
        writer.start()
    try:
        until(
            lambda: (home / "agents" / "bob" / "log.db").exists() and (home / "agents" / "ada" / "log.db").exists(), ""
        )
        until(lambda: back_up(home, repository).records > 200, "enough was written")
        for _ in range(5):
            back_up(home, repository)
    finally:
        over.set()
        for writer in writers:
            writer.join()
    for number, name in enumerate(repository.names()[-4:]):
        bring(repository, tmp_path / str(number), Moment(backup=name))
        for agent in ("ada", "bob"):  # a batch is whole, or not there
            assert len({str(value) for value in state(tmp_path / str(number), agent).values()}) <= 1


def objects(root: Path) -> list[Path]:
    """The files of the objects of a repository."""
    places = ("backups", "segments", "blobs")
    return sorted(path for place in places for path in (root / place).rglob("*") if path.is_file())


def test_a_missing_or_changed_object_is_a_typed_error_and_never_another_state(tmp_path: Path) -> None:
    home = tmp_path / "node"
    with Store(home, "ada", limits=LIMITS) as store:
        store.put("big", "blob " * 20_000)
        store.put("k", {"n": 1})
    repository = Repository(FileStore(tmp_path / "bak"))
    back_up(home, repository)
    signer = signer_of(home)
    for path in objects(tmp_path / "bak"):
        whole = path.read_bytes()
        spots = range(len(whole)) if path.parts[-2] == "backups" else random.Random(1).sample(range(len(whole)), 3)
        for at in list(spots)[:: max(1, len(spots) // 12)]:
            broken = bytearray(whole)
            broken[at] ^= 1 << at % 8
            path.write_bytes(broken)
            assert len(verify(repository).findings) == 1, (path, at)
            with pytest.raises(HoldfastError) as raised:
                bring(repository, tmp_path / "back")
            assert isinstance(raised.value, IntegrityError), (path, at, raised.value)
            assert not (tmp_path / "back").exists()
            shutil.rmtree(tmp_path / ".back.restoring", ignore_errors=True)
        path.write_bytes(whole)
        path.rename(tmp_path / "aside")
        if path.parts[-2] != "backups":
            assert any("missing" in what for what in verify(repository).findings)
            assert not drill(repository, signer).ok
            assert repository.verified() == set()
        with pytest.raises((IntegrityError, NotFound)):
            bring(repository, tmp_path / "back")
        shutil.rmtree(tmp_path / ".back.restoring", ignore_errors=True)
        (tmp_path / "aside").rename(path)
    assert verify(repository).sound
    assert drill(repository, signer).ok
    assert repository.verified() == set(repository.names())


def test_sealed_backups_show_nothing_and_open_with_their_key_alone(tmp_path: Path) -> None:
    home, ring = tmp_path / "node", KeyRing.generate()
    with Store(home, "ada-of-the-secret-agents", limits=LIMITS) as store:
        store.put("secret-key", "secret-value")
        store.put("big", "secret-blob " * 10_000)
    repository = Repository(FileStore(tmp_path / "bak"), ring)
    back_up(home, repository, with_keys=True)
    assert all(b"secret" not in path.read_bytes() for path in objects(tmp_path / "bak"))
    blind = Repository(repository.store)
    assert verify(blind).sound  # no key is needed to know that all of it is there
    with pytest.raises(Denied, match="sealed"):
        bring(blind, tmp_path / "back")
    with pytest.raises(Denied):
        bring(Repository(repository.store, KeyRing.generate("k2")), tmp_path / "back")
    with pytest.raises(UsageError, match="is sealed"):
        back_up(home, blind)
    shutil.rmtree(tmp_path / ".back.restoring", ignore_errors=True)
    assert verify(repository).records == 2
    bring(repository, tmp_path / "back")
    shutil.rmtree(home)
    with Store(tmp_path / "back", "ada-of-the-secret-agents", limits=LIMITS) as store:  # its keys came with it
        assert store.get("secret-key") == "secret-value"
        assert len(store.get("big")) == 120_000
        store.put("secret-key", "more")


def test_a_restore_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.integrity.backup.segment.RECORDS_MAX", 20)
    story = Story(tmp_path / "node", 7)
    story.live(120)
    repository = Repository(FileStore(tmp_path / "bak"))
    back_up(story.home, repository)
    command = [sys.executable, "-c", RESTORE, str(tmp_path / "bak"), str(tmp_path / "back"), "step"]
    for steps in (2, 3):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(steps):
            assert child.stdout.readline().startswith(b"restore records")
            child.stdin.write(b"\n")
            child.stdin.flush()
        child.kill()
        child.communicate()
        assert not (tmp_path / "back").exists()
    with pytest.raises(Conflict, match="broken off"):
        bring(repository, tmp_path / "back", Moment(seq=3))
    assert bring(repository, tmp_path / "back").resumed
    assert state(tmp_path / "back") == story.model


def test_what_was_erased_never_comes_back_and_leaves_the_backups(tmp_path: Path) -> None:
    home, repository = tmp_path / "node", Repository(FileStore(tmp_path / "bak"))
    canary, blob = "canary-" + "5f" * 8, "canary-" + "7e" * 8
    with Store(home, "ada", limits=LIMITS) as store:
        store.put("subject", {"name": canary})
        store.put("photo", blob * 10_000)
        store.post("hello", to=canary)
        store.put("other", 1)
    back_up(home, repository)
    old = repository.names()[0]
    corpus = SqliteCorpus(home / "agents" / "ada" / "log.db")
    corpus.write(lambda tx: [tx.drop_body(pos, wire.REDACTED) for pos in (1, 2, 3)])
    corpus.close()
    with Store(home, "ada", limits=LIMITS) as store:
        store.messages  # noqa: B018 - the log is opened and closed as its node does
        directory = attach(home, limits=LIMITS, make=False)
        directory.open_log("ada", None).log.append([_redaction()])
        detach(directory)
    made = back_up(home, repository)
    assert made.erased == 3
    for number, name in enumerate((old, repository.names()[-1])):
        found = bring(repository, tmp_path / str(number), Moment(backup=name))
        assert found.erased == 3
        assert found.blobs == 0
        assert canary not in str(_raw(tmp_path / str(number)))
    # The first backup still holds it; when it goes, so does every byte.
    clock = SettableClock(repository.backup(repository.names()[-1]).made_ms + 1)
    assert drill(repository, signer_of(home), repository.names()[-1:], wall=clock).ok
    assert canary in _everything(tmp_path / "bak")
    assert blob in _everything(tmp_path / "bak")
    prune(repository, Policy(last=1), wall=clock)
    assert repository.names()[0] != old
    clock.advance((GRACE_MS) / 1000)
    prune(repository, Policy(last=1), wall=clock, interval_ms=2 * GRACE_MS)
    assert canary not in _everything(tmp_path / "bak")
    assert blob not in _everything(tmp_path / "bak")
    bring(repository, tmp_path / "last")


def _redaction() -> Any:
    from holdfast.log.drafts import Draft

    return Draft("redact", "", "", codec.FMT_JSON, b"{}", 0)


def _raw(home: Path) -> list[str]:
    corpus = SqliteCorpus(home / "agents" / "ada" / "log.db")
    try:
        rows = corpus.query("SELECT body FROM rec WHERE body IS NOT NULL") + corpus.query("SELECT v FROM tag")
        return [str(row[0]) for row in rows]
    finally:
        corpus.close()


def _everything(root: Path) -> str:
    """All that a repository holds, decompressed, as text."""
    repository = Repository(FileStore(root))
    out = []
    for info in repository.store.list():
        data = repository.store.read(info.key)
        with contextlib.suppress(HoldfastError):
            data += codec.inflate("zstd", data[9:])
        out.append(data.decode("latin-1"))
    return "\n".join(out)


def test_prune_refuses_where_it_would_be_unsafe_and_deletes_in_two_steps(tmp_path: Path) -> None:
    home, repository, clock = tmp_path / "node", Repository(MemoryStore()), SettableClock(1_700_000_000_000)
    with Store(home, "ada", limits=LIMITS) as store:
        directory = attach(home, limits=LIMITS, make=False)
        for number in range(6):
            store.put("k", number)
            with node_source(directory) as source:
                create(repository, source, wall=clock)
            clock.advance((6 * HOUR_MS) / 1000)
        detach(directory)
    names, signer, policy = repository.names(), signer_of(home), Policy(last=1)
    with pytest.raises(UsageError, match="keeps nothing"):
        prune(repository, Policy(), wall=clock)
    with pytest.raises(Conflict, match="ever verified"):
        prune(repository, policy, wall=clock)
    assert drill(repository, signer, names[2:3], wall=clock).ok
    looked = prune(repository, policy, wall=clock, dry_run=True)
    assert (looked.kept, looked.removed) == (names[2:], names[:2])  # never below the newest verified
    assert repository.names() == names
    clock.advance((2 * DAY_MS) / 1000)
    with pytest.raises(Conflict, match="older than two intervals"):
        prune(repository, policy, wall=clock)
    assert drill(repository, signer, names[5:], wall=clock).ok
    with pytest.raises(Conflict, match="older than two intervals"):  # it was made that long ago
        prune(repository, policy, wall=clock)
    done = prune(repository, policy, wall=clock, interval_ms=3 * DAY_MS)
    assert done.kept == names[5:]
    assert (done.marked > 0, done.deleted) == (True, 0)
    # A backup that builds on what is marked takes the mark away.
    again = prune(repository, policy, wall=clock, interval_ms=3 * DAY_MS)
    assert (again.marked, again.waiting) == (0, done.marked)
    clock.advance((GRACE_MS) / 1000)
    gone = prune(repository, policy, wall=clock, interval_ms=9 * DAY_MS)
    assert gone.deleted == done.marked
    assert verify(repository).sound
    bring(repository, tmp_path / "back")
    key = next(iter(repository.store.list("segments/"))).key
    body = repository.store.read(key)
    repository.store.delete(key)
    assert not drill(repository, signer, wall=clock).ok
    with pytest.raises(Conflict, match="last drill failed"):
        prune(repository, policy, wall=clock, interval_ms=9 * DAY_MS)
    repository.store.put(key, body)
    assert drill(repository, signer, wall=clock).ok
    with Store(home, "ada", limits=LIMITS) as store:
        for number in range(20):
            store.put("k", number)
            directory = attach(home, limits=LIMITS, make=False)
            clock.advance((HOUR_MS * (12 if number < 3 else 0)) / 1000)
            with node_source(directory) as source:
                create(repository, source, wall=clock)
            detach(directory)
    assert drill(repository, signer, repository.names()[-1:], wall=clock).ok
    clock.advance((13 * HOUR_MS) / 1000)
    with pytest.raises(Conflict, match="are usual"):
        prune(repository, policy, wall=clock)
    assert len(prune(repository, policy, wall=clock, many=True).kept) == 1


# -- hubs --------------------------------------------------------------------------------------------------------------


def same(one: Path, other: Path, *, but: tuple[str, ...] = ()) -> None:
    """Fails where two hubs' files differ, in any row that is not the cache's."""
    first, second = (SqliteCorpus(home / "hub.db", hub=True) for home in (one, other))
    try:
        for table in moving.TABLES:
            if table.name not in ("cache", *but):
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
        from tests.hub.conftest import Room

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
        from tests.hub.conftest import Room

        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        pen.put("a", 1)
        room.append(pen.segment(1))
        assert "nothing settles yet" in str(client.get("/health").json()["warnings"])
        until(lambda: room.core.backups.verified >= 2, "two backups are verified")  # type: ignore[union-attr]
        until(lambda: room.hello(pen.hello()).streams[0].settled == 1, "what they hold is settled")
        told = client.get("/health").json()
        assert told["backups"]["trouble"] == ""
        assert "settles" not in str(told["warnings"])
    with pytest.raises(Conflict):
        restore(Repository(FileStore(tmp_path / "bak")), tmp_path / "hub", finish=lambda *_: None)
