"""A hub's database whose rows were changed or removed by somebody's SQL: found, and put right from what proves them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import Store
from holdfast.corpus.postgres import Database, PostgresCorpus
from holdfast.corpus.postgres.blobs import BlobTable
from holdfast.errors import Locked
from holdfast.hub.backup import hub_source
from holdfast.hub.repair import Tools
from holdfast.hub.repair_database import plan_database, repair_database
from holdfast.hub.repair_standby import Standby
from holdfast.integrity import verify_corpus
from holdfast.integrity.backup import Repository, create
from holdfast.integrity.recovery import Policy
from holdfast.objects.files.store import FileStore
from tests.flow.hubs import HubProcess, until
from tests.flow.test_repair_hub import LARGE, LIMITS, plain, plain_texts
from tests.services import shared_postgres


class World:
    """A hub in a database, backed up half-way, with a standby that has all of it; and its node."""

    def __init__(self, root: Path) -> None:
        self.root, self.address, self.backups = root, shared_postgres().corpus(), f"file:{root / 'backups'}"
        hub = HubProcess(root / "served", database=self.address)
        standby = HubProcess(root / "standby", follow=hub.url)
        try:
            with Store(root / "node", "ada", hub=hub.url, limits=LIMITS) as store:
                for n in range(30):
                    store.put(f"k{n}", f"value {n} " * 20)
                    plain(hub.url, f"plain {n} " * 20)
                    if n == 9:
                        store.put("large", LARGE)
                        assert store.flush(30)
                        self.back_up()
                assert store.flush(30)
            until(lambda: len(plain_texts(root / "standby")) == 30, "the standby has it")
        finally:
            hub.kill()
            standby.kill()

    def back_up(self) -> None:
        with hub_source(self.address) as source, FileStore(self.root / "backups") as store:
            create(Repository(store), source)

    def sql(self, *statements: str) -> Any:
        connection, _ = Database(self.address).connect()
        with contextlib.closing(connection):
            for each in statements:
                found = connection.execute(each)
            return found.fetchall() if found.description else []

    def told(self) -> dict[str, Any]:
        return {
            "records": self.sql("SELECT link, body FROM rec ORDER BY link"),
            "state": self.sql("SELECT s.key, r.link, s.gone=0 FROM state s JOIN rec r ON r.pos=s.pos ORDER BY 1, 2"),
            "tags": self.sql("SELECT t.k, t.v, r.link FROM tag t JOIN rec r ON r.pos=t.pos ORDER BY 1, 2, 3"),
        }

    def is_sound(self) -> None:
        corpus = PostgresCorpus(Database(self.address))
        try:
            assert verify_corpus(corpus, BlobTable(corpus.engine)).findings == []
        finally:
            corpus.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    return World(tmp_path_factory.mktemp("world"))


def test_changed_and_removed_rows_come_back_from_the_backup_and_from_what_the_database_proves(world: World) -> None:
    truth = world.told()
    assert plan_database(world.address).sound
    world.sql(
        "UPDATE rec SET body='\\x00'::bytea WHERE pos=4",
        "DELETE FROM rec WHERE pos IN (7, 8)",
        "UPDATE rec SET key='another' WHERE pos=11",
        "DELETE FROM state WHERE key='k3'",
        "DELETE FROM tag WHERE k=1",
    )
    # Without anything that proves these rows it is refused, and why is kept beside copies of them.
    outcome = repair_database(world.address)
    assert [each.rule for each in outcome.plan.refusals] == ["lowers the head"]
    assert len(world.told()["records"]) == len(truth["records"]) - 2, "nothing was changed"
    (kept,) = world.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'holdfast_quarantine%'")
    ((line,),) = world.sql(f"SELECT line FROM {kept[0]}.account")
    assert (json.loads(line)["outcome"], "lowers the head" in line) == ("refused", True)
    world.sql(f"DROP SCHEMA {kept[0]} CASCADE")
    world.sql(
        "INSERT INTO vec VALUES(1, 4, 0, '\\x00000000'::bytea)",
        # As where the database finds near vectors itself: it refers to what is replaced.
        "CREATE TABLE near(id bigint PRIMARY KEY REFERENCES vec(id) ON DELETE CASCADE)",
        "INSERT INTO near VALUES(1)",
    )
    found = plan_database(world.address, Tools(backups=[world.backups]))
    assert ([each.strategy for each in found.steps], found.refusals) == (["backup_restore", "checksum_match"], [])
    outcome = repair_database(world.address, Tools(backups=[world.backups]))
    assert (outcome.done, outcome.repaired) == (True, ["hub"]), outcome.plan.refusals
    assert world.told() == truth
    assert world.sql("SELECT (SELECT count(*) FROM vec), (SELECT count(*) FROM near)") == [(0, 0)], "of other positions"
    world.is_sound()
    assert plan_database(world.address).sound
    (kept,) = world.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'holdfast_quarantine%'")
    assert world.sql(f"SELECT count(*) FROM {kept[0]}.rec WHERE key='another'") == [(1,)], "evidence"
    world.sql(f"DROP SCHEMA {kept[0]} CASCADE")


def test_what_lies_behind_the_backup_comes_back_from_the_standby_and_the_hub_goes_on(world: World) -> None:
    before = {row[0] for row in world.told()["records"]}
    newest = world.sql("SELECT max(pos) FROM rec")[0][0]
    generations = world.sql("SELECT count(*) FROM lineage")[0][0]
    world.sql(f"DELETE FROM rec WHERE pos={newest - 20}", f"UPDATE rec SET link=phash WHERE pos={newest - 9}")
    tools = Tools(backups=[world.backups])
    assert [each.rule for each in plan_database(world.address, tools).refusals] == ["lowers the head"]
    standby = HubProcess(world.root / "standby")
    try:
        both = Tools(backups=[world.backups], standby=Standby(standby.url))
        outcome = repair_database(world.address, both)
        assert (outcome.done, outcome.repaired) == (True, ["hub"]), outcome.plan.refusals
        assert outcome.attempts[-1]["refetched"] > 0
    finally:
        standby.kill()
    assert {row[0] for row in world.told()["records"]} == before
    world.is_sound()
    assert world.sql("SELECT count(*) FROM lineage")[0][0] > generations, "readers are told that positions have moved"
    hub = HubProcess(world.root / "served", database=world.address)
    try:
        plain(hub.url, "plain again")
        with Store(world.root / "node", "ada", hub=hub.url, limits=LIMITS) as store:
            store.put("k1", "later")
            assert store.flush(30)
        with pytest.raises(Locked):
            plan_database(world.address)
    finally:
        hub.kill()
    world.is_sound()
    assert len(before) + 2 == len(world.told()["records"])


def test_a_lost_tail_is_given_up_on_a_word_and_a_blob_is_fetched(world: World) -> None:
    world.sql("UPDATE rec SET hlc=hlc+1 WHERE pos=(SELECT max(pos)-1 FROM rec)")
    world.sql("UPDATE chunk SET data='\\x00'::bytea WHERE at=0")
    outcome = repair_database(world.address, Tools(backups=[world.backups]), Policy(lost_tail=True))
    assert (outcome.done, outcome.blobs or outcome.repaired == ["hub"]) == (True, True), outcome.plan.refusals
    world.is_sound()
