"""Real damage is found, planned for and put right through the pages; so are backups, to the way back."""

from __future__ import annotations

import json
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from holdfast.cli import main
from holdfast.corpus import SqliteCorpus
from holdfast.hub.acts import RELEASE, Wanted
from holdfast.hub.tokens import SqliteTokens
from holdfast.integrity import verify_corpus
from holdfast.objects import BlobFiles
from tests.flow.hubs import HubProcess, until
from tests.flow.test_repair_hub import spoil
from tests.hub.pens import Pen
from tests.ui.conftest import asker
from tests.ui.furnishing import Furnisher
from tests.ui.visitor import Visitor


def furnished(hub: HubProcess) -> Pen:
    """Gives a hub what an agent wrote, and a word of a client that keeps no log."""
    pen = Pen("ada")
    for number in range(60):
        pen.put(f"k{number}", f"value {number} " * 20)
    Furnisher(asker(hub.url)).ship("laptop", [pen])
    say(hub, "before")
    return pen


def say(hub: HubProcess, text: str) -> None:
    body = json.dumps({"content": text, "sender": "curl", "recipient": "bob"}).encode()
    request = urllib.request.Request(f"{hub.url}/sync/message", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 201, 202)


def released(home: Path, incident: str) -> None:
    """Lets go of an incident by the command, which the trail tells, too."""
    assert main(["quarantine", "release", incident, "--yes", "--store", str(home)], standalone_mode=False) == 0
    with closing(SqliteTokens(home)) as store:
        (act,) = store.acts().page(Wanted(what=RELEASE))
    assert (act.about, act.by.via) == (incident, "command")


def texts(home: Path) -> tuple[list[str], int]:
    """What clients said, and how many records an agent has, in the files of a hub that was stopped."""
    corpus = SqliteCorpus(home / "hub.db", hub=True)
    try:
        assert verify_corpus(corpus, BlobFiles(home / "blobs")).findings == []
        found = [corpus.at(row[0]) for row in corpus.query("SELECT pos FROM rec ORDER BY pos")]
        said = [json.loads(each.payload())["body"] for each in found if each and each.record.author == "curl"]
        return said, sum(each is not None and each.agent == "ada" for each in found)
    finally:
        corpus.close()


def damage(hub: HubProcess) -> None:
    """Changes a bit of a stored payload and one of a stored header, as a bad disk or an intruder would."""
    hub.stop()
    corpus = SqliteCorpus(hub.directory / "hub.db", hub=True)
    corpus.write(lambda tx: tx.execute("UPDATE rec SET body=(SELECT body FROM rec WHERE pos=8) WHERE pos=7"))
    corpus.write(lambda tx: tx.execute("UPDATE rec SET version=9 WHERE pos=20"))
    corpus.close()
    hub.start()


def test_real_damage_is_found_planned_for_and_repaired_through_the_page(tmp_path: Path, chromium: Any) -> None:
    from tests.ui.test_browser import looked_at

    address = f"file:{tmp_path / 'backups'}"
    hub = HubProcess(tmp_path / "hub", backup=address, backup_every=0, scan_s=0)
    try:
        furnished(hub)
        ada = Visitor(hub)
        assert "Nothing is kept" in ada.page("/integrity")
        assert ada.run("/backups", "backup")["state"] == "done"
        assert ada.run("/integrity", "scan")["said"] == "0 findings"
        assert {each["state"] for each in ada.twin("/integrity.json")["checks"]} == {"good", "quiet"}
        damage(hub)
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{hub.url}/integrity")
        assert ada.run("/integrity", "scan")["said"] == "2 findings"
        page.locator(".tile", has_text="2 findings").wait_for()  # without a reload
        told = ada.twin("/integrity.json")
        found = {each["check"]: each for each in told["findings"]}
        assert {name: (each["agent"], each["seq"]) for name, each in found.items()} == {
            "checksum": ("ada", 7), "chain": ("ada", 20),
        }  # fmt: skip
        assert found["checksum"]["expected"] != found["checksum"]["actual"] != ""
        assert found["checksum"]["strategy"] == "backup_restore"
        assert [each["check"] for each in told["checks"] if each["state"] == "bad"] == ["checksum", "chain"]
        assert "2<small> findings" in ada.page("/")

        assert ada.run("/integrity", "plan")["state"] == "done"
        plan = ada.twin("/integrity.json")["plan"]
        assert [(step["strategy"], step["proven"]) for step in plan["steps"]] == [("backup_restore", True)]
        assert plan["refusals"] == []
        assert not looked_at(chromium, [(hub.url, "/integrity"), (hub.url, "/backups")])
        assert ada.twin("/integrity.json")["findings_total"] == 2, "a plan changes nothing"

        mended = ada.run("/integrity", "repair", strategy="proven")
        assert (mended["state"], mended["said"]) == ("done", "everything that was planned was done")
        until(lambda: ada.twin("/integrity.json")["last_round"], "everything was looked at again")
        page.locator(".tile.good", has_text="Everything is as it was written").wait_for(timeout=60_000)
        context.close()
        told = ada.twin("/integrity.json")
        assert (told["findings"], told["plan"]) == ([], None)
        (incident,) = told["incidents"]
        assert [each["outcome"] for each in incident["attempts"]] == ["repaired"]
        assert incident["size"] > 0
        status, _ = ada.send("/integrity", "release", incident=incident["incident"])
        assert status == 400, "it was not said that they are not needed"
        assert ada.send("/integrity", "release", incident=incident["incident"], sure="yes")[0] == 303
        assert not ada.twin("/integrity.json")["incidents"][0]["kept"]
        done = [(each["done"], each["way"]) for each in ada.twin("/audit.json")["acts"]]
        assert ("repair", "page") in done
        assert ("quarantine released", "page") in done
        hub.stop()
        assert texts(hub.directory) == (["before"], 60)
    finally:
        hub.kill()


def test_backups_are_made_verified_drilled_and_gone_back_to_through_the_page(tmp_path: Path) -> None:
    address = f"file:{tmp_path / 'backups'}"
    hub = HubProcess(tmp_path / "hub", backup=address, backup_every=0, scan_s=0, backup_preset="day")
    try:
        furnished(hub)
        ada = Visitor(hub)
        assert ada.run("/backups", "backup")["state"] == "done"
        (first,) = ada.twin("/backups.json")["snapshots"]
        assert (first["records"], first["verified"], first["damaged"]) == (61, True, False)
        say(hub, "after")
        assert ada.run("/backups", "backup")["state"] == "done"
        assert ada.run("/backups", "verify")["said"].startswith("sound: ")
        drilled = ada.run("/backups", "drill")["said"]
        assert drilled.startswith("2 backups came back and proved themselves")
        told = ada.twin("/backups.json")
        assert (told["verified"], told["last_drill"] is not None, told["size"] > 0) == (2, True, True)
        assert ada.run("/backups", "prune")["said"] == "would let go of 0 backups, 2 stay"

        place = f"/backups?restore={first['name']}"
        status, said = ada.send(place, "restore", typed="something else")
        assert (status, "something else" in said) == (400, True)
        assert ada.send(place, "restore", typed=first["short"])[0] == 303
        until(lambda: ada.twin("/backups.json")["runs"][-1]["state"] == "done", "it is back", 60)
        run = ada.twin("/backups.json")["runs"][-1]
        assert run["said"].startswith(f"went back to {first['short']}; before it: ")
        (incident,) = ada.twin("/integrity.json")["incidents"]
        assert [each["outcome"] for each in incident["attempts"]] == ["restored"]
        until(lambda: ada.twin("/backups.json")["runs"][0]["who"] == "hub the hub", "it is backed up as it is now")
        until(lambda: ada.twin("/backups.json")["runs"][0]["state"] == "done", "that backup is made", 60)
        assert ada.twin("/backups.json")["snapshots"][0]["records"] == 61
        say(hub, "on")
        acts = ada.twin("/audit.json")["acts"]
        assert [each["details"]["backup"] for each in acts if each["done"] == "restore"] == [first["name"]]
        hub.stop()
        assert texts(hub.directory) == (["before", "on"], 60)

        spoil(hub.directory / "hub.db", b"value 7 value 7")  # bits of a page, below every check of records
        hub.start()
        assert ada.page("/").count("<h1>Overview</h1>") == 1
        run = ada.run("/integrity", "plan")
        assert run["said"] == "2 steps", (ada.twin("/integrity.json")["plan"], ada.twin("/backups.json")["snapshots"])
        assert ada.run("/integrity", "repair", strategy="proven")["said"] == "everything that was planned was done"
        hub.stop()
        assert texts(hub.directory) == (["before", "on"], 60)
        released(hub.directory, incident["incident"])

        spoiled = sorted((tmp_path / "backups" / "segments").rglob("*"))[-1]
        spoiled.write_bytes(spoiled.read_bytes()[:-1] + b"!")
        hub.start()
        wrong = ada.run("/backups", "verify")
        assert (wrong["state"], wrong["said"].startswith("sound")) == ("done", False)
    finally:
        hub.kill()
