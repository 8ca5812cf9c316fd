"""A hub's damaged directory: back from its backup, its own proven tail and its nodes; what nobody proves is refused."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Store
from holdfast.corpus import SqliteCorpus
from holdfast.errors import Locked, UsageError
from holdfast.hub import repair
from holdfast.hub.backup import hub_source
from holdfast.hub.repair import Tools, is_on_course
from holdfast.hub.repair_standby import Standby
from holdfast.integrity import verify_corpus
from holdfast.integrity.backup import Repository, create, drill
from holdfast.integrity.recovery import Policy
from holdfast.node.directory import Limits
from holdfast.objects import BlobFiles
from holdfast.objects.files.store import FileStore
from tests.flow.hubs import HubProcess, until

LIMITS = Limits(floor_bytes=0, ballast_bytes=0)
LARGE = bytes(range(256)) * 300


class Place:
    """A hub that was backed up half-way, its node, and what a plain client told it; copies of the hub are damaged."""

    def __init__(self, root: Path) -> None:
        self.root, self.node, self.address = root, root / "node", f"file:{root / 'backups'}"
        process = HubProcess(root / "sound")
        try:
            with Store(self.node, "ada", hub=process.url, limits=LIMITS) as store:
                for n in range(40):
                    store.put(f"k{n}", f"value {n} " * 20)
                    store.post(f"message {n}", to="bob", task=f"t{n % 3}")
                    if n == 10:
                        store.put("large", LARGE)
                    if n in (19, 39):
                        assert store.flush(30)
                        plain(process.url, f"plain {n}")
                    if n == 19:
                        self.back_up()
            process.kill()
            self.truth = told(root / "sound")
        finally:
            process.kill()

    def back_up(self) -> None:
        with hub_source(str(self.root / "sound")) as source, FileStore(self.root / "backups") as store:
            create(Repository(store), source)
            signer = source.signer(Repository(store).keys[0])
            assert signer is not None
            assert drill(Repository(store), signer).ok

    def copy(self, to: Path) -> Path:
        return shutil.copytree(self.root / "sound", to, ignore=shutil.ignore_patterns("*-shm"))


def plain(url: str, text: str) -> None:
    """What a client without a log writes."""
    body = json.dumps({"content": text, "sender": "curl", "recipient": "bob"}).encode()
    request = urllib.request.Request(f"{url}/sync/message", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 201, 202)


def change(url: str, request: str, name: str) -> Any:
    """What a hub answers to a client without a log that changes a row, and names its request."""
    body = {"agent_id": "boss", "table": "people", "data": {"id": "p", "name": name}, "msg_id": request}
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{url}/relay/immediate", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def told(hub: Path) -> dict[str, Any]:
    """Every record's link and text, in the order of branches and numbers, and what a task finds."""
    corpus = SqliteCorpus(hub / "hub.db", hub=True)
    try:
        rows = corpus.query("SELECT r.link, r.body FROM rec r JOIN branch b ON b.id=r.branch ORDER BY b.inc, r.seq")
        tags = corpus.query("SELECT t.k, t.v, r.link FROM tag t JOIN rec r ON r.pos=t.pos ORDER BY 1, 2, 3")
        return {"records": rows, "tags": tags}
    finally:
        corpus.close()


def plain_texts(hub: Path) -> list[str]:
    corpus = SqliteCorpus(hub / "hub.db", hub=True)
    try:
        found = [corpus.at(row[0]) for row in corpus.query("SELECT pos FROM rec ORDER BY pos")]
        return [json.loads(each.payload())["body"] for each in found if each and each.record.author == "curl"]
    finally:
        corpus.close()


def is_sound(hub: Path) -> None:
    corpus = SqliteCorpus(hub / "hub.db", hub=True)
    try:
        assert verify_corpus(corpus, BlobFiles(hub / "blobs")).findings == []
    finally:
        corpus.close()


def spoil(path: Path, needle: bytes) -> None:
    """Turns a bit in every place where a text stands in a file."""
    data = bytearray(path.read_bytes())
    at = data.find(needle)
    assert at >= 0
    while at >= 0:
        data[at + 2] ^= 4
        at = data.find(needle, at + 1)
    path.write_bytes(bytes(data))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture
def hub(place: Place, tmp_path: Path) -> Path:
    """A closed copy of the hub: its WAL is in the file."""
    home = place.copy(tmp_path / "hub")
    corpus = SqliteCorpus(home / "hub.db", hub=True)
    corpus.close()
    return home


def refilled(hub: Path, place: Place, tmp_path: Path) -> None:
    """Serves a repaired hub, and lets its node ship what it lacks."""
    process = HubProcess(hub)
    try:
        node = shutil.copytree(place.node, tmp_path / "node", ignore=shutil.ignore_patterns("*sock*"))
        with Store(node, "ada", hub=process.url, limits=LIMITS) as store:
            assert store.flush(30)
    finally:
        process.kill()


def test_damage_below_the_backup_costs_nothing(place: Place, hub: Path, tmp_path: Path) -> None:
    spoil(hub / "hub.db", b"value 7 value 7")
    found = repair.plan(hub, Tools(backups=[place.address]))
    assert [(each.strategy, each.part) for each in found.steps] == [
        ("backup_restore", "hub.db"), ("checksum_match", "hub.db"),
    ]  # fmt: skip
    assert not found.refusals
    assert all(step.proven for step in found.steps)
    outcome = repair.repair(hub, Tools(backups=[place.address]))
    assert (outcome.done, outcome.repaired) == (True, ["hub"]), outcome.plan.refusals
    assert told(hub) == place.truth
    is_sound(hub)
    assert repair.plan(hub, Tools()).sound
    line = json.loads((hub / "quarantine" / "incidents.jsonl").read_text().splitlines()[-1])
    assert (line["outcome"], line["own_records"] > 20) == ("repaired", True)
    kept = next((hub / "quarantine").glob("*/hub.db"))
    assert kept.read_bytes() != (hub / "hub.db").read_bytes()
    refilled(hub, place, tmp_path)
    is_sound(hub)
    corpus = SqliteCorpus(hub / "hub.db", hub=True)
    assert corpus.one("SELECT count(*) FROM lineage")[0] >= 2, "readers are told that positions may have moved"
    corpus.close()


def test_damage_behind_the_backup_is_refused_until_somebody_gives_up_what_only_the_hub_had(
    place: Place, hub: Path, tmp_path: Path
) -> None:
    spoil(hub / "hub.db", b"value 30 value 30")
    tools = Tools(backups=[place.address])
    before = (hub / "hub.db").read_bytes()
    outcome = repair.repair(hub, tools)
    assert [each.rule for each in outcome.plan.refusals] == ["lowers the head"]
    assert (hub / "hub.db").read_bytes() == before
    outcome = repair.repair(hub, tools, Policy(lost_tail=True))
    assert outcome.done
    assert plain_texts(hub) == ["plain 19"], "the later one was in no log but the hub's"
    is_sound(hub)
    refilled(hub, place, tmp_path)
    is_sound(hub)
    lost = {bytes(row[0]) for row in place.truth["records"]} - {bytes(row[0]) for row in told(hub)["records"]}
    assert len(lost) == 1, "the node brought all of its own again"


def test_a_file_that_is_gone_comes_back_from_the_backup_and_the_nodes(place: Place, hub: Path, tmp_path: Path) -> None:
    os.remove(hub / "hub.db")
    (hub / "hub.db-wal").unlink(missing_ok=True)
    assert [each.rule for each in repair.plan(hub, Tools(backups=[place.address])).refusals] == ["lowers the head"]
    outcome = repair.repair(hub, Tools(backups=[place.address]), Policy(lost_tail=True))
    assert outcome.done, outcome.plan.refusals
    refilled(hub, place, tmp_path)
    is_sound(hub)
    assert plain_texts(hub) == ["plain 19"]


def test_without_a_backup_what_is_derived_is_made_again_and_nothing_else_is_given_up(place: Place, hub: Path) -> None:
    corpus = SqliteCorpus(hub / "hub.db", hub=True)
    corpus.write(lambda tx: tx.execute("DELETE FROM tag WHERE k=1"))
    corpus.write(lambda tx: tx.execute("DELETE FROM state WHERE key='k3'"))
    corpus.close()
    outcome = repair.repair(hub)
    assert outcome.done, outcome.plan.refusals
    assert told(hub) == place.truth
    is_sound(hub)
    spoil(hub / "hub.db", b"value 7 value 7")
    assert [each.rule for each in repair.plan(hub).refusals] == ["lowers the head"]


def test_a_blob_comes_back_from_the_backup(place: Place, hub: Path) -> None:
    (digest,) = BlobFiles(hub / "blobs").iter()
    path = BlobFiles(hub / "blobs").path(digest)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert [each.rule for each in repair.plan(hub).refusals] == ["loses a value"]
    outcome = repair.repair(hub, Tools(backups=[place.address]))
    assert (outcome.done, outcome.blobs, outcome.repaired) == (True, 1, [])
    assert BlobFiles(hub / "blobs").verify(digest)
    assert repair.plan(hub).sound


def test_what_is_sound_or_served_or_no_hub_is_left_alone(place: Place, hub: Path, tmp_path: Path) -> None:
    before = (hub / "hub.db").read_bytes()
    assert repair.repair(hub).plan.sound
    assert (hub / "hub.db").read_bytes() == before
    process = HubProcess(hub)
    try:
        with pytest.raises(Locked):
            repair.repair(hub)
    finally:
        process.kill()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError):
        repair.plan(tmp_path / "nothing")


def test_no_room_and_anothers_backup(place: Place, hub: Path) -> None:
    spoil(hub / "hub.db", b"value 7 value 7")
    found = repair.plan(hub, Tools(backups=[place.address], free=lambda _: 1000))
    assert [each.rule for each in found.refusals] == ["no room"]
    found = repair.plan(hub, Tools(backups=[place.address], signer="00" * 32))
    assert f"backup {place.address}" in found.away
    assert [each.rule for each in found.refusals] == ["lowers the head"]


def test_a_backup_of_another_course_is_built_on_by_no_repair() -> None:
    first, second = ("g1", 0), ("g2", 61)
    assert is_on_course([], [first], 62), "nobody can tell"
    assert is_on_course([first], [first], 62)
    assert is_on_course([first, second], [first], 61)
    assert not is_on_course([first, second], [first], 62), "the hub was put back to 61"
    assert is_on_course([first, second], [first, second], 70)
    assert is_on_course([first], [first, second], 70), "the file is the older of the two"
    assert not is_on_course([first, second], [("g0", 0)], 1)


class Pair:
    """A hub with a standby that has all of it; neither was ever backed up. Copies of the hub are damaged."""

    def __init__(self, root: Path) -> None:
        self.root, self.node = root, root / "node"
        hub = HubProcess(root / "sound")
        self.standby = HubProcess(root / "standby", follow=hub.url)
        try:
            with Store(self.node, "ada", hub=hub.url, limits=LIMITS) as store:
                for n in range(20):
                    store.put(f"k{n}", f"value {n} " * 20)
                store.put("large", LARGE)
                assert store.flush(30)
            self.first = change(hub.url, "once", "Ada")
            change(hub.url, "then", "Ada L.")
            for n in range(30):
                plain(hub.url, f"plain {n} " * 20)
            until(lambda: links(root / "standby") == links(root / "sound"), "the standby has it")
        finally:
            hub.kill()
        self.standby.kill()
        self.standby = HubProcess(root / "standby")  # from here on it stands alone

    def copy(self, to: Path) -> Path:
        home = shutil.copytree(self.root / "sound", to, ignore=shutil.ignore_patterns("*-shm"))
        SqliteCorpus(home / "hub.db", hub=True).close()
        return home


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    yield made
    made.standby.kill()


def links(hub: Path) -> set[bytes]:
    return {bytes(row[0]) for row in told(hub)["records"]}


def test_a_standby_gives_back_what_plain_clients_wrote_and_no_backup_has(pair: Pair, tmp_path: Path) -> None:
    home = pair.copy(tmp_path / "hub")
    before = links(home)
    spoil(home / "hub.db", b"plain 11 plain 11")
    spoil(home / "hub.db", b"value 7 value 7")
    assert [each.rule for each in repair.plan(home).refusals] == ["lowers the head"]
    tools = Tools(standby=Standby(pair.standby.url))
    found = repair.plan(home, tools)
    assert (found.refusals, [each.strategy for each in found.steps][-1]) == ([], "refetch"), found.away
    assert found.steps[-1].source == f"standby {pair.standby.url}"
    outcome = repair.repair(home, tools)
    assert (outcome.done, outcome.repaired) == (True, ["hub"]), outcome.plan.refusals
    assert links(home) == before, "every record, of nodes and of plain clients"
    is_sound(home)
    line = json.loads((home / "quarantine" / "incidents.jsonl").read_text().splitlines()[-1])
    assert (line["outcome"], line["source"], line["refetched"] > 0) == ("repaired", f"standby {pair.standby.url}", True)
    process = HubProcess(home)
    try:
        assert change(process.url, "once", "Ada") == pair.first, (
            "it was carried out before the damage, and not once more"
        )
        plain(process.url, "plain again")
    finally:
        process.kill()
    is_sound(home)
    assert sorted(plain_texts(home)) == sorted([*(f"plain {n} " * 20 for n in range(30)), "plain again"])


def test_a_standby_that_lacks_some_of_it_proves_nothing_and_another_hub_is_none(pair: Pair, tmp_path: Path) -> None:
    home = pair.copy(tmp_path / "hub")
    process = HubProcess(home)
    plain(process.url, "late " * 30)  # after the standby was parted from it
    process.kill()
    SqliteCorpus(home / "hub.db", hub=True).close()
    spoil(home / "hub.db", b"plain 11 plain 11")
    damaged = (home / "hub.db").read_bytes()
    tools = Tools(standby=Standby(pair.standby.url))
    outcome = repair.repair(home, tools)
    assert [each.rule for each in outcome.plan.refusals] == ["lowers the head"]
    assert (home / "hub.db").read_bytes() == damaged
    (report,) = (home / "quarantine").glob("*/report.json")
    assert "lowers the head" in report.read_text()
    # With a word to give that one up, everything else comes from the standby.
    outcome = repair.repair(home, tools, Policy(lost_tail=True))
    assert outcome.done, outcome.plan.refusals
    assert len(plain_texts(home)) == 30
    is_sound(home)
    twin = HubProcess(pair.copy(tmp_path / "twin"))
    try:
        found = repair.plan(home, Tools(standby=Standby(twin.url)))
        assert "is this hub itself" in found.away[f"standby {twin.url}"]
    finally:
        twin.kill()
    assert f"standby {twin.url}" in repair.plan(home, Tools(standby=Standby(twin.url))).away, "nobody answers there"


def test_a_blob_comes_back_from_the_standby(pair: Pair, tmp_path: Path) -> None:
    home = pair.copy(tmp_path / "hub")
    (digest,) = BlobFiles(home / "blobs").iter()
    BlobFiles(home / "blobs").path(digest).unlink()
    assert [each.rule for each in repair.plan(home).refusals] == ["loses a value"]
    outcome = repair.repair(home, Tools(standby=Standby(pair.standby.url)))
    assert (outcome.done, outcome.blobs, outcome.attempts[-1]["strategy"]) == (True, 1, "refetch")
    assert BlobFiles(home / "blobs").verify(digest)
