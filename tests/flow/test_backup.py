"""Backups come back: to any moment, after kills and damage, without what was erased, and of hubs in either engine."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Store, codec, wire
from holdfast.clock import millis
from holdfast.corpus import SqliteCorpus
from holdfast.errors import Conflict, Denied, HoldfastError, IntegrityError, NotFound, UsageError
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
    verify,
)
from holdfast.integrity.backup.retention import GRACE_MS
from holdfast.log.prune import prune as let_go
from holdfast.node.backup import finish_node, node_source
from holdfast.node.directory import Limits, attach, detach
from holdfast.objects.files.store import FileStore
from holdfast.objects.memory import MemoryStore
from holdfast.seal import KeyRing, Signer
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import until
from tests.promises import Count

LIMITS = Limits(floor_bytes=0, ballast_bytes=0)
RESTORE = (
    "import sys; from pathlib import Path; from holdfast.integrity.backup import Repository, restore;"
    " from holdfast.objects.files.store import FileStore;"
    " restore(Repository(FileStore(sys.argv[1])), Path(sys.argv[2]), finish=lambda *_: None,"
    " told=lambda *said: print(*said, flush=True) or (sys.stdin.readline() if len(sys.argv) > 3 else None))"
)


@contextlib.contextmanager
def attached(home: Path) -> Iterator[Any]:
    """A node's directory."""
    directory = attach(home, limits=LIMITS, make=False)
    try:
        yield directory
    finally:
        detach(directory)


def back_up(home: Path, repository: Repository, **how: Any) -> Created:
    """A backup of a node's directory."""
    with attached(home) as directory, node_source(directory, **how) as source:
        return create(repository, source)


def signer_of(home: Path) -> Signer:
    """The key of a node."""
    with attached(home) as directory:
        return directory.keyring.signer(directory.keyring.current())


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
def test_any_moment_of_any_history_comes_back(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
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
    count("a random history was backed up and restored to a moment of it", tried=3, equal_to_the_model=3)


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


def test_a_damaged_backup_stops_neither_the_next_one_nor_an_older_one(tmp_path: Path) -> None:
    """Whose newest list is rotten still gets what is there, and is told what is not known any more."""
    home, store = tmp_path / "home", MemoryStore()
    repository = Repository(store)
    with Store(home, agent="ada", limits=LIMITS) as ada:
        for n in range(3):
            ada.put("k", n)
            back_up(home, repository)
    names = repository.names()
    store.put(f"backups/{names[-1]}", b"rotten")
    store.put("backups/notes.txt", b"somebody's")
    assert repository.names() == names
    assert repository.readable()[1] == names[-1:]
    with pytest.raises(IntegrityError) as refused:
        bring(repository, tmp_path / "none")
    assert "--backup" in refused.value.hint
    with pytest.raises(IntegrityError, match="what was erased since") as refused:
        bring(repository, tmp_path / "none", Moment(backup=names[0]))
    assert "--unknown-erasures" in refused.value.hint
    assert not (tmp_path / "none").exists()
    restore(repository, tmp_path / "old", Moment(backup=names[1]), finish=lambda *_: None, unknown_erasures=True)
    assert state(tmp_path / "old") == {"k": 1}
    with pytest.raises(IntegrityError, match="cannot be built on") as refused:
        back_up(home, repository)
    assert "--anew" in refused.value.hint
    with attached(home) as directory, node_source(directory) as source:
        made = create(repository, source, anew=True)
    assert (made.records, made.new_records) == (3, 3)
    bring(repository, tmp_path / "back", keys=home)
    assert state(tmp_path / "back") == {"k": 2}
    back_up(home, repository)
    assert drill(repository, signer_of(home), repository.names()[-1:]).ok
    with pytest.raises(IntegrityError):
        prune(repository, Policy(last=1))
    repository.forget(names[-1])
    assert prune(repository, Policy(last=1)).removed[:2] == names[:2]


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


def test_a_pruned_log_is_whole_again_where_a_backup_held_what_it_let_go_of(tmp_path: Path) -> None:
    home = tmp_path / "node"
    early, late = Repository(MemoryStore()), Repository(MemoryStore())
    with Store(home, "ada", limits=LIMITS) as store:
        for number in range(30):
            store.put(f"k{number % 3}", number)
        back_up(home, early)
        directory = attach(home, limits=LIMITS, make=False)
        log = directory.open_log("ada", None)
        assert let_go(log.log, directory.keyring.signer(directory.keyring.current()).sign, settled=30) > 0
        directory.release_log(log)
        detach(directory)
        store.put("k0", "after")
        back_up(home, early)
        back_up(home, late)
    assert bring(early, tmp_path / "early", keys=home).records == 32
    assert bring(late, tmp_path / "late", keys=home).records < 10
    for place, versions in (("early", 11), ("late", 2)):
        with Store(tmp_path / place, "ada", limits=LIMITS) as store:
            assert (store.get("k0"), store.get("k1")) == ("after", 28)
            assert len(store.history("k0")) == versions
    assert len(state_at(early, tmp_path / "cut", 5)) == 3
    with pytest.raises(IntegrityError, match="pruned before its first backup"):
        bring(late, tmp_path / "never", Moment(seq=29))


def state_at(repository: Repository, target: Path, seq: int) -> dict[str, Any]:
    """What the keys held behind a record."""
    bring(repository, target, Moment(seq=seq))
    return state(target)
