"""`holdfast repair` and `holdfast quarantine`, as somebody at a shell meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from holdfast.corpus import SqliteCorpus
from holdfast.hub.directory import HubDirectory
from holdfast.log import value
from holdfast.testing.corpus import log_of
from tests.cli.conftest import Run


@pytest.fixture
def damaged(home: Path, empty: Run) -> Path:
    """A store of which one payload was changed, and a copy from before."""
    store = home / "store"
    assert empty("init", "--agent", "main", "--store", store).code == 0
    for n in range(5):
        assert empty("put", "plan", json.dumps({"n": n}), "--store", store).code == 0
    shutil.copytree(store, home / "copy")
    corpus = SqliteCorpus(store / "agents/main/log.db")
    corpus.write(lambda tx: tx.execute("UPDATE rec SET body=x'7b7d' WHERE pos=5"))
    corpus.close()
    return store


def test_a_sound_store_needs_nothing(home: Path, empty: Run) -> None:
    empty("init", "--agent", "main", "--store", home / "store")
    empty("put", "k", "1", "--store", home / "store")
    done = empty("repair", "--store", home / "store")
    assert (done.code, done.text) == (0, "nothing to repair: 1 log looked at\n")
    assert empty("quarantine", "ls", "--json", "--store", home / "store").json == {"incidents": []}


def test_plan_repair_and_evidence(damaged: Path, home: Path, empty: Run) -> None:
    plan = empty("repair", "--plan", home / "plan.json", "--from", home / "copy", "--store", damaged)
    assert plan.code == 9
    assert "proven" in plan.text
    assert f"main log 5: checksum_match from copy {home / 'copy'}" in plan.text
    again = empty("repair", "--plan", home / "plan.json", "--store", damaged)
    assert (again.code, "there already" in again.err) == (2, True)
    alone = empty("repair", "--store", damaged)
    assert alone.code == 9
    assert "loses a value" in alone.err
    assert "--rollback" in alone.err
    done = empty("repair", home / "plan.json", "--from", home / "copy", "--store", damaged)
    assert (done.code, done.text.splitlines()[-1]) == (0, "repaired  main")
    assert empty("verify", "--store", damaged).code == 0
    assert json.loads(empty("get", "plan", "--store", damaged).text) == {"n": 4}
    (kept,) = empty("quarantine", "ls", "--json", "--store", damaged).json["incidents"]
    assert "repaired" in empty("quarantine", "ls", "--store", damaged).text
    shown = empty("quarantine", "show", kept["incident"], "--store", damaged).text
    assert "refused" in shown
    assert "log.db" in shown
    assert empty("quarantine", "show", kept["incident"], "--json", "--store", damaged).json["attempts"]
    assert empty("quarantine", "release", kept["incident"], "--store", damaged).code == 2
    assert empty("quarantine", "release", kept["incident"], "--yes", "--store", damaged).code == 0
    assert not Path(kept["path"]).exists()
    assert empty("quarantine", "release", kept["incident"], "--yes", "--store", damaged).code == 5


def test_a_rollback_in_json(damaged: Path, empty: Run) -> None:
    told = empty("repair", "--rollback", "--json", "--store", damaged).json
    assert (told["done"], told["repaired"]) == (True, ["main"])
    assert told["steps"][0]["strategy"] == "version_rollback"
    assert told["attempts"][-1]["rolled_back"] == [{"collection": "state", "key": "plan", "lost": 5, "back_to": 4}]
    assert json.loads(empty("get", "plan", "--store", damaged).text) == {"n": 3}


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_backup_has_what_is_lost(
    how: str, damaged: Path, home: Path, empty: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"file:{home / 'backups'}"
    assert empty("backup", "create", address, "--from", home / "copy").code == 0
    if how == "environment":
        monkeypatch.setenv("HOLDFAST_BACKUP", address)
    words = ("--backup", address) if how == "option" else ()
    done = empty("repair", *words, "--store", damaged)
    assert (done.code, f"main log 5: backup_restore from backup {address}" in done.text) == (0, True), done.text
    assert json.loads(empty("get", "plan", "--store", damaged).text) == {"n": 4}


def test_taking_values_back_to_a_moment(home: Path, empty: Run) -> None:
    store = home / "store"
    empty("init", "--agent", "main", "--store", store)
    empty("put", "plan", "1", "--store", store)
    moment = empty("history", "plan", "--json", "--store", store).text
    at = json.loads(moment.splitlines()[0])
    at = (at.get("versions") or [at])[0]["time"]
    empty("put", "plan", "2", "--store", store)
    shown = empty("repair", "--to-time", at, "--store", store)
    assert (shown.code, "--yes does it" in shown.text) == (0, True)
    assert empty("get", "plan", "--store", store).text.strip() == "2"
    assert empty("repair", "--to-time", at, "--yes", "--json", "--store", store).json["written"]
    assert empty("get", "plan", "--store", store).text.strip() == "1"
    assert empty("repair", "--yes", "--store", store).code == 2


def test_what_is_no_store_or_no_plan(home: Path, empty: Run) -> None:
    assert empty("repair", "--store", home / "nowhere").code == 10
    empty("init", "--agent", "main", "--store", home / "store")
    assert empty("repair", home / "nothing.json", "--store", home / "store").code == 5
    (home / "list.json").write_text("[]")
    assert empty("repair", home / "list.json", "--store", home / "store").code == 2
    HubDirectory(home / "hub").close()
    (home / "hub" / "hub.db").write_bytes(b"")
    refused = empty("repair", "--plan", "--store", home / "hub")
    assert (refused.code, "lowers the head" in refused.err) == (9, True)
    assert empty("repair", home / "plan.json", "--store", home / "hub").code == 2


def test_a_hubs_directory(home: Path, empty: Run) -> None:
    """Its file is as good as its records: here an index of them was lost."""
    HubDirectory(home / "hub").close()
    corpus = SqliteCorpus(home / "hub" / "hub.db", hub=True)
    log_of(corpus, home / "hub").append([value("state", "k", 1)])
    corpus.write(lambda tx: tx.execute("DELETE FROM state"))
    corpus.close()
    assert empty("repair", "--plan", "--json", "--store", home / "hub").json["steps"][0]["source"] == "its own records"
    done = empty("repair", "--store", home / "hub")
    assert (done.code, done.text.splitlines()[-1]) == (0, "repaired  hub"), done.err
    assert empty("quarantine", "ls", "--json", "--store", home / "hub").json["incidents"]


def test_a_hubs_standby_and_database_are_named_on_the_command_line(home: Path, empty: Run, damaged: Path) -> None:
    assert "is for a hub" in empty("repair", "--standby", "http://127.0.0.1:9", "--store", damaged).err
    hub = HubDirectory(home / "hub")
    hub.corpus.write(lambda tx: tx.execute("INSERT INTO state SELECT id, id, 'made up', 1, 0 FROM name WHERE id=1"))
    hub.close()
    found = empty("repair", "--plan", "--json", "--standby", "http://127.0.0.1:9", "--store", home / "hub")
    assert (found.code, list(found.json["away"])) == (9, ["standby http://127.0.0.1:9"])
    away = empty("repair", "--plan", "--database", "postgresql://nobody@127.0.0.1:9/none")
    assert (away.code, "cannot be reached" in away.err) == (7, True), away.err
    assert empty("repair", "--database", "postgresql://nobody@127.0.0.1:9/none", "--rollback").code == 2
