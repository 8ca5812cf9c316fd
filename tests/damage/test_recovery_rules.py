"""What recovery refuses, what it needs somebody's word for, and the evidence that it leaves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from holdfast import clock
from holdfast.errors import HubUnavailable, IntegrityError, Locked, NotFound, UsageError
from holdfast.integrity import incidents, rebuild, verify_corpus
from holdfast.integrity.recovery import Facts, Policy, Refusal, plan_json, refusals
from holdfast.integrity.source import BACKUP, HUB, Held, Kind
from holdfast.log import value
from holdfast.log.erasure import Erasure, mark_of, reapply
from holdfast.log.prune import prune
from holdfast.node import repair
from holdfast.node.directory import attach, detach
from holdfast.node.hub import Hub
from holdfast.node.refetch import StoreSource
from holdfast.node.repair import Tools
from holdfast.node.store import Store
from holdfast.objects import BlobFiles
from holdfast.testing.clock import SettableClock
from holdfast.wire import Item
from holdfast.wire import Mark as Place
from tests.damage.recovering import NO_LIMITS, World, corpus_of, everything, flip, flip_in, is_as_before, log_at

ALONE = Tools(hubs=())
PAYLOAD = flip_in(b"value 61 ", 3)


@pytest.fixture
def home(world: World, memory_path: Path) -> Path:
    """A copy of the store."""
    return shutil.copytree(world.root / "closed", memory_path / "home")


def rules(home: Path, tools: Tools = ALONE, policy: Policy = Policy()) -> list[str]:  # noqa: B008
    """The refusals of a repair."""
    return [each.rule for each in repair.repair(home, tools, policy).plan.refusals]


def prints(home: Path) -> dict[str, str]:
    """Every file of a store, by what it holds."""
    files = [each for each in home.rglob("*") if each.is_file()]
    return {str(each.relative_to(home)): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}


# -- refusals -------------------------------------------------------------------------------------------------------


def test_a_plan_writes_nothing(world: World, home: Path) -> None:
    PAYLOAD(home)
    before = prints(home)
    found = repair.plan(home, world.tools("hub"))
    assert [(step.strategy, step.proven) for step in found.steps] == [("refetch", True)]
    assert not found.refusals
    assert prints(home) == before


@pytest.mark.parametrize("which", ["closed", "killed", "two"])
def test_what_is_sound_is_not_touched(which: str, world: World, memory_path: Path) -> None:
    home = shutil.copytree(world.root / which, memory_path / "home")
    before = prints(home)
    outcome = repair.repair(home, world.tools("hub"))
    assert outcome.plan.sound
    assert outcome.attempts == []
    assert {name: each for name, each in prints(home).items() if not name.endswith(".lock")} == {
        name: each for name, each in before.items() if not name.endswith(".lock")
    }


def test_a_store_that_somebody_has_open_is_left_alone(home: Path) -> None:
    with Store(home, "a", hub=(), limits=NO_LIMITS), pytest.raises(Locked, match="live process"):
        repair.repair(home, ALONE)
    with Store(home, "a", hub=(), limits=NO_LIMITS), pytest.raises(Locked):
        repair.plan(home, ALONE)


def test_without_room_for_copies_nothing_is_touched(home: Path, world: World) -> None:
    PAYLOAD(home)
    before = log_at(home).read_bytes()
    tools = msgspec.structs.replace(world.tools("hub"), free=lambda _: 1000)
    assert rules(home, tools) == ["no room"]
    assert log_at(home).read_bytes() == before


def test_without_a_quarantine_copy_nothing_is_touched(home: Path, world: World) -> None:
    PAYLOAD(home)
    (home / "agents/a/quarantine").write_text("in the way")
    before = log_at(home).read_bytes()
    assert rules(home, world.tools("hub")) == ["no quarantine copy"]
    assert log_at(home).read_bytes() == before


def test_a_log_that_parted_from_the_hubs_is_left_to_the_nodes_protocol(world: World, memory_path: Path) -> None:
    home = shutil.copytree(world.root / "earlier", memory_path / "home")
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        for n in range(200):
            store.put("elsewhere", n)
    flip_in(b"value 61 ", 3)(home)
    assert "fork" in rules(home, world.tools("hub"))


def test_several_damaged_logs_stop_it_until_somebody_looked_at_the_disk(world: World, memory_path: Path) -> None:
    home = shutil.copytree(world.root / "two", memory_path / "home")
    for agent in "ab":
        path = home / "agents" / agent / "log.db"
        flip(path, path.read_bytes().index(b"value 11 ") + 2)
    assert rules(home, world.tools("hub")) == ["mass damage"]
    outcome = repair.repair(home, world.tools("hub"), Policy(mass_damage=True))
    assert outcome.repaired == ["a", "b"]
    assert outcome.done
    is_as_before(home, world)


def test_a_clock_that_runs_behind_the_log_stops_it(home: Path, world: World) -> None:
    PAYLOAD(home)
    tools = msgspec.structs.replace(world.tools("hub"), clock=SettableClock(1_000_000))
    assert "clock" in rules(home, tools)


def test_nothing_is_built_over_what_is_there(memory_path: Path) -> None:
    (memory_path / "there").mkdir()
    with pytest.raises(UsageError, match="there already"):
        rebuild.build(memory_path / "there", [], {}, [], Place(0, b""))


FACTS: dict[str, tuple[Facts, Policy, str]] = {
    "a rotten share": (Facts(agent="a", records=4000, rotten=201), Policy(), "mass damage"),
    "a rotten share, the disk looked at": (
        Facts(agent="a", records=4000, rotten=201),
        Policy(mass_damage=True),
        "",
    ),
    "a page of a small log": (Facts(agent="a", records=300, rotten=90), Policy(), ""),
    "below the anchor": (Facts(agent="a", head=9, known={"anchor": 10}), Policy(), "lowers the head"),
    "below the anchor, given up": (Facts(agent="a", head=9, known={"anchor": 10}), Policy(lost_tail=True), ""),
    "below a receipt, even if given up": (
        Facts(agent="a", head=9, known={"anchor": 10, "the receipt of hub": 10}),
        Policy(lost_tail=True),
        "lowers the head",
    ),
    "below a receipt alone": (
        Facts(agent="a", head=9, known={"the receipt of hub": 10}),
        Policy(lost_tail=True),
        "contradicts a receipt",
    ),
    "a hole, whatever is allowed": (
        Facts(agent="a", lost=[(3, 4)]),
        Policy(rollback=True, lost_tail=True, mass_damage=True),
        "not provable",
    ),
    "a fork, whatever is allowed": (
        Facts(agent="a", forks=["hub"]),
        Policy(rollback=True, lost_tail=True, mass_damage=True),
        "fork",
    ),
    "a body that nobody has": (Facts(agent="a", bodies=[4]), Policy(), "loses a value"),
    "too little room": (Facts(agent="a", store_bytes=100, free_bytes=199), Policy(), "no room"),
}


@pytest.mark.parametrize("case", FACTS)
def test_the_rules(case: str) -> None:
    facts, policy, expected = FACTS[case]
    found: list[Refusal] = refusals(facts, policy)
    assert [each.rule for each in found][:1] == ([expected] if expected else [])


# -- sources are not believed -----------------------------------------------------------------------------------------


class Told:
    """A source that says what a test has it say."""

    def __init__(self, world: World, kind: Kind, change: Callable[[int, Item], Item], *, far: int = 0) -> None:
        with corpus_of(world.root / "closed") as corpus:
            self.branch = corpus.branches()[-1]
            self.items = [each.item() for each in everything(corpus)]
            self.head = Place(corpus.last() + far, everything(corpus)[-1].record.link)
        self._kind, self._change = kind, change

    @property
    def name(self) -> str:
        """Its name."""
        return "told"

    @property
    def kind(self) -> Kind:
        """What it passes for."""
        return self._kind

    def held(self, stream: bytes, agent: str) -> list[Held]:
        """One chain."""
        return [Held(agent, stream, self.branch.public_key, self.branch.inc, self.head)]

    def fetch(self, stream: bytes, branch: bytes, first: int, last: int) -> Iterator[Item]:
        """Its records, changed."""
        for seq in range(first, min(last, len(self.items)) + 1):
            yield self._change(seq, self.items[seq - 1])

    def blob(self, digest: bytes, size: int) -> Iterator[bytes] | None:
        """Something else."""
        return iter((b"x" * size,))


LIES: dict[str, Callable[[int, Item], Item]] = {
    "other bodies": lambda _, item: msgspec.structs.replace(item, body=b"{}", codec=0),
    "other headers": lambda _, item: msgspec.structs.replace(item, header=item.header[:-1] + b"\0"),
    "no headers at all": lambda _, item: msgspec.structs.replace(item, header=b"nonsense"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_source_that_lies_can_only_fail_to_help(lie: str, home: Path, world: World) -> None:
    wrong = "UPDATE rec SET body=NULL WHERE pos=61" if "bodies" in lie else "DELETE FROM rec WHERE pos=61"
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute(wrong))
    liar = Told(world, BACKUP, LIES[lie])
    assert rules(home, Tools(hubs=(), sources=[liar])) == ["loses a value" if "bodies" in lie else "not provable"]
    tools = Tools(hubs=(), sources=[liar, StoreSource(world.root / "closed")])
    assert repair.repair(home, tools).repaired == ["a"]
    is_as_before(home, world)


def test_a_hub_that_shows_no_signature_adds_nothing_behind_what_the_anchor_saw(world: World, memory_path: Path) -> None:
    home = shutil.copytree(world.root / "earlier", memory_path / "home")
    (home / "node.db").unlink()
    told = Told(world, HUB, lambda _, item: item)
    with corpus_of(home) as corpus:
        last = corpus.last()
    repair.repair(home, Tools(hubs=(), sources=[told]))
    with corpus_of(home) as corpus:
        assert corpus.last() == last


def test_a_source_that_is_away_is_told_of_and_gone_round(home: Path, world: World) -> None:
    PAYLOAD(home)

    class Away(Told):
        def held(self, stream: bytes, agent: str) -> list[Held]:
            """Does not answer."""
            raise HubUnavailable("nobody there")

    away = Away(world, HUB, lambda _, item: item)
    outcome = repair.repair(home, Tools(hubs=(), sources=[away, StoreSource(world.root / "closed")]))
    assert outcome.done
    assert outcome.plan.away == {"told": "nobody there"}


def test_a_backup_gives_what_it_has_and_the_hub_the_rest(home: Path, world: World) -> None:
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute("DELETE FROM rec WHERE pos IN (50, 61)"))
    backup = StoreSource(world.root / "earlier", BACKUP)
    planned = repair.plan(home, Tools(hubs=(), sources=[backup]))
    assert {(step.strategy, step.first) for step in planned.steps} == {("backup_restore", 50), ("backup_restore", 61)}
    (home / "agents/a/log.db").unlink()
    alone = Tools(hubs=(), sources=[backup])
    assert rules(home, alone) == ["lowers the head"]  # it would end where the backup does
    assert repair.repair(home, Tools(hubs=(world.hub.url,), sources=[backup])).repaired == ["a"]
    backup.close()
    is_as_before(home, world)


def test_a_rotten_blob_from_a_source_is_not_taken(home: Path, world: World) -> None:
    digest = min(each.name for each in (home / "blobs").rglob("*") if len(each.name) == 64)
    next((home / "blobs").rglob(digest)).unlink()
    outcome = repair.repair(home, Tools(hubs=(), sources=[Told(world, BACKUP, lambda _, item: item)]))
    assert outcome.blobs == 0
    assert any("digest" in why for line in outcome.attempts for why in line["tried"].values())
    assert not list((home / "blobs").rglob(digest))


def test_what_was_erased_does_not_come_back_from_a_copy(home: Path, world: World) -> None:
    with corpus_of(home) as corpus:
        gone = [corpus.at(pos).record for pos in (61, 63)]  # type: ignore[union-attr]
        told = Erasure(gone[0].stream, marks=frozenset(mark_of(record) for record in gone))
        reapply(corpus, BlobFiles(home / "blobs"), [told])
        corpus.write(lambda tx: tx.execute("UPDATE rec SET key='x' WHERE pos=62"))
        erased = [Erasure(gone[0].stream, marks=frozenset([mark_of(gone[1])]))]
        corpus.write(lambda tx: tx.execute("UPDATE rec SET why=0 WHERE pos=63"))  # no longer known here
    tools = Tools(
        hubs=(),
        sources=[StoreSource(world.root / "closed")],
        erased=erased,
    )
    assert repair.repair(home, tools).repaired == ["a"]
    with corpus_of(home) as corpus:
        found = [corpus.at(pos) for pos in (61, 62, 63)]
        assert [(each.body is None, each.why) for each in found if each] == [(True, 3), (False, 0), (True, 3)]
        assert verify_corpus(corpus).sound


# -- with somebody's word ---------------------------------------------------------------------------------------------


def test_a_value_that_nobody_has_goes_back_to_its_last_intact_version(home: Path, world: World) -> None:
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        versions = store.history("k11")
        newest, before = versions[0], versions[1].value
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute(f"UPDATE rec SET body=x'00' WHERE pos={newest.seq}"))
        last = corpus.last()
    assert rules(home) == ["loses a value"]
    outcome = repair.repair(home, ALONE, Policy(rollback=True))
    assert outcome.done
    (rolled,) = outcome.attempts[-1]["rolled_back"]
    assert (rolled["key"], rolled["lost"], rolled["back_to"]) == ("k11", newest.version, newest.version - 1)
    with corpus_of(home) as corpus:
        assert verify_corpus(corpus).sound
        assert [each.record.link for each in everything(corpus)][:last] == world.links
        made = everything(corpus)[last:]
        assert [each.record.kind for each in made] == ["recovery", "restore"]
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        assert store.get("k11") == before
        with pytest.raises(IntegrityError, match="quarantined"):
            store.get("k11", at=newest.version)


def test_a_tail_that_nobody_has_is_given_up_on_somebodys_word(world: World, memory_path: Path) -> None:
    home = shutil.copytree(world.root / "closed", memory_path / "home")
    (home / "node.db").unlink()  # it never had a hub
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute("DELETE FROM rec WHERE pos>150"))
    assert rules(home) == ["lowers the head"]
    assert repair.repair(home, ALONE, Policy(lost_tail=True)).repaired == ["a"]
    with corpus_of(home) as corpus:
        assert [each.record.link for each in everything(corpus)][:150] == world.links[:150]
        assert verify_corpus(corpus).sound
    assert repair.plan(home, ALONE).sound


def test_values_are_taken_back_to_a_moment(home: Path) -> None:
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        store.put("state", "right")
        store.put("stays", 1)
        moment = store._log.corpus.head(store._log.branch.id).hlc
        store.put("state", "wrong")
        store.put("new", "unwanted")
        store.delete("stays")
        messages = len(store.messages())
    shown = repair.to_moment(home, "a", moment, confirmed=False)
    assert [(each.key, each.then > 0) for each in shown] == [("new", False), ("state", True), ("stays", True)]
    assert repair.to_moment(home, "a", moment, confirmed=False) == shown  # looking changed nothing
    repair.to_moment(home, "a", moment, confirmed=True)
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        assert (store.get("state"), store.get("stays")) == ("right", 1)
        with pytest.raises(NotFound):
            store.get("new")
        assert store.get("state", at=2) == "wrong"  # history only grows
        assert len(store.messages()) == messages
        assert store.verify().sound
    (kept,) = [each for each in repair.all_incidents(home) if each.where == "a"]
    assert (Path(kept.path) / "changes.jsonl").read_text().count("\n") == 3
    PAYLOAD(home)
    with pytest.raises(IntegrityError, match="not sound"):
        repair.to_moment(home, "a", clock.pack(0), confirmed=True)


def test_a_plan_is_kept_to(home: Path, world: World) -> None:
    PAYLOAD(home)
    made = plan_json(repair.plan(home, world.tools("hub")))
    flip(log_at(home), log_at(home).read_bytes().index(b"value 41 ") + 1)
    outcome = repair.repair(home, world.tools("hub"), only=made)
    assert [each.rule for each in outcome.plan.refusals] == ["another plan"]
    made = plan_json(repair.plan(home, world.tools("hub")))
    assert repair.repair(home, world.tools("hub"), only=json.loads(json.dumps(made))).done
    with pytest.raises(UsageError, match="no plan"):
        repair.repair(home, world.tools("hub"), only={"format": 2})


# -- what a log may have been through ---------------------------------------------------------------------------------


def test_a_kill_between_the_old_file_and_the_new_one_is_gone_on_with(world: World, memory_path: Path) -> None:
    home = shutil.copytree(world.root / "killed", memory_path / "home")
    flip(log_at(home, "-wal"), 200_000)
    incidents.freeze(log_at(home), {})
    log_at(home, "-wal").unlink()
    log_at(home, "-shm").unlink()
    (home / "agents/a/.repair-x").mkdir()
    outcome = repair.repair(home, ALONE)
    assert outcome.repaired == ["a"]
    assert "quarantine" in outcome.attempts[0]["steps"][0]["source"]
    assert not (home / "agents/a/.repair-x").exists()
    is_as_before(home, world)


@pytest.mark.parametrize("fault", ["flip", "lost"])
def test_a_log_whose_key_was_changed_is_put_right_under_the_new_one(
    fault: str, world: World, memory_path: Path
) -> None:
    home = memory_path / "home"
    with Store(home, "r", hub=world.hub.url, limits=NO_LIMITS) as store:
        for n in range(20):
            store.put("k", f"value {n}")
        store.rotate()
        store.put("k", "last")
        assert store.flush(30)
    path = home / "agents/r/log.db"
    if fault == "flip":
        flip(path, path.read_bytes().index(b"value 11") + 2)
    else:
        path.unlink()
    assert repair.repair(home, world.tools("hub")).repaired == ["r"]
    with Store(home, "r", hub=world.hub.url, limits=NO_LIMITS) as store:
        assert store.get("k") == "last"
        store.put("k", "goes on")
        assert store.flush(30)
        assert store.verify().sound


def test_a_pruned_log_is_put_right_and_stays_pruned(home: Path, world: World) -> None:
    directory = attach(home)
    try:
        opened = directory.open_log("a", None)
        head = opened.corpus.head(opened.log.branch.id)
        signer = directory.keyring.signer(directory.keyring.current())
        assert prune(opened.log, signer.sign, settled=head.seq) > 20
        for n in range(30):
            opened.log.append([value("state", "after", f"later {n}")])
        directory.release_log(opened)
    finally:
        detach(directory)
    shutil.copytree(home, home.parent / "pruned")
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute("UPDATE rec SET key='x' WHERE pos=(SELECT max(pos)-3 FROM rec)"))
        before = [each.pos for each in everything(corpus)]
    tools = Tools(hubs=(), sources=[StoreSource(home.parent / "pruned")])
    assert repair.repair(home, tools).repaired == ["a"]
    with corpus_of(home) as corpus:
        assert [each.pos for each in everything(corpus)][: len(before)] == before
        assert verify_corpus(corpus).sound
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        assert store.get("after") == "later 29"
        assert store.get("k11") == world.values["k11"]


# -- evidence -------------------------------------------------------------------------------------------------------


def test_every_attempt_is_noted_beside_the_log_in_it_and_at_the_hub(home: Path, world: World) -> None:
    PAYLOAD(home)
    damaged = log_at(home).read_bytes()
    assert rules(home) == ["loses a value"]
    assert repair.repair(home, world.tools("hub")).done
    (kept,) = repair.all_incidents(home)  # the same damage is frozen once
    assert (Path(kept.path) / "log.db").read_bytes() == damaged
    assert {file["name"] for file in kept.files} >= {"log.db", "log.anchor"}
    assert [each["outcome"] for each in kept.attempts] == ["refused", "repaired"]
    last = kept.attempts[-1]
    assert last["steps"][0]["source"] == f"hub {world.hub.url}"
    assert (last["head_before"], last["head_after"]) == (len(world.links), len(world.links))
    assert [each["recovered"] > 0 for each in kept.attempts] == [False, True]
    assert json.loads((Path(kept.path) / "report.json").read_text())["refusals"]
    with Store(home, "a", hub=world.hub.url, limits=NO_LIMITS) as store:
        assert store.flush(30)
    hub = Hub(world.hub.url)
    with contextlib.closing(hub.client):
        from holdfast.corpus import Filter

        found = hub.records(Filter(agents=("a",), kinds=("recovery",)))
    assert kept.incident in [each.value["incident"] for each in found]


def test_a_log_that_nobody_can_put_right_is_frozen_until_it_is_released(home: Path) -> None:
    with corpus_of(home) as corpus:
        corpus.write(lambda tx: tx.execute("DELETE FROM rec WHERE pos=50"))
    assert rules(home) == ["not provable"]
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        assert store.get("k11")  # what is intact is read
        with pytest.raises(IntegrityError, match="frozen"):
            store.put("k11", "new")
        assert any("released" in problem for problem in store.health()["problems"])
    (kept,) = repair.all_incidents(home)
    incidents.release(home / "agents/a", kept.incident, SettableClock(1_800_000_000_000))
    with Store(home, "a", hub=(), limits=NO_LIMITS) as store:
        store.put("k11", "new")
    (kept,) = repair.all_incidents(home)
    assert not kept.here
    assert kept.attempts[-1]["released"]
    with pytest.raises(NotFound):
        incidents.release(home / "agents/a", kept.incident, SettableClock(0))
    with pytest.raises(UsageError):
        incidents.release(home / "agents/a", "../..", SettableClock(0))
