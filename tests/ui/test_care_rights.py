"""Who may look after a hub, what the audit trail tells of him, and that two who ask for the same get one run."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.hub import acts
from holdfast.hub.acts import Act, Actor
from holdfast.hub.backup import finish_hub, hub_source
from holdfast.hub.directory import HubDirectory
from holdfast.hub.tokens import SqliteTokens, Wish, create, revoke
from holdfast.integrity import backup
from holdfast.log.erasure import drafts_of, mark_of
from holdfast.objects.files.store import FileStore
from tests.flow.hubs import until
from tests.hub.pens import Pen
from tests.ui.furnishing import HOSTILE
from tests.ui.inside import BROWSER, Guarded, Inside

PAGES = ("/integrity", "/backups", "/audit", "/audit/export?form=csv")


def told(hub: Inside, path: str = "/audit.json") -> list[dict[str, Any]]:
    answer = hub.client.get(path)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["acts"]
    return found


def test_who_may_see_and_who_may_act(guarded: Guarded) -> None:
    guarded.furnisher.nodes()
    for role in ("public", "blind"):
        guarded.sign_in(role)
        assert [guarded.page(path).status_code for path in PAGES] == [403] * 4, role
        assert guarded.client.get("/ui/events?page=integrity").status_code == 403
    guarded.sign_in("public")
    assert "/integrity" not in guarded.good("/"), "no link to what he may not see"
    guarded.sign_in("reader")
    for path in PAGES:
        assert guarded.page(path).status_code == 200
        assert 'action="/integrity/act"' not in guarded.page(path).text
    token = guarded.forms("/integrity")[-1]["form_token"]
    for path, what in (("/integrity/act", "scan"), ("/backups/act", "backup")):
        answer = guarded.send(path, {"form_token": token, "what": what})
        assert (answer.status_code, "admin" in answer.text) == (403, True)
    assert guarded.client.get("/integrity.json").json()["runs"] == []
    guarded.sign_in("admin")
    form = next(each for each in guarded.forms("/integrity") if each.get("what") == "scan")
    assert guarded.send("/integrity/act", form).headers["location"] == "/integrity?done=scan"
    until(lambda: guarded.client.get("/integrity.json").json()["runs"][0]["state"] == "done", "it has ended")
    assert guarded.client.get("/integrity.json").json()["runs"][0]["who"] == "person root"
    assert guarded.send("/integrity/act", {**form, "what": "no-such"}).status_code == 400


def test_the_trail_tells_who_did_what_by_every_way(guarded: Guarded) -> None:
    core, client = guarded.core, guarded.client
    store = core.home.open_tokens()
    made, _ = create(store, Wish(kind="person", name="eve"))
    revoke(store, made.id)
    guarded.ask("POST", "/sync/message", json.dumps({"content": "x", "sender": "a", "recipient": "b"}).encode())
    guarded.furnisher.everything()
    pen = Pen("ada")
    erased = pen.put("secret", {"name": "Eve"})
    pen.put("gone", 1)
    pen.put("gone", {}, kind="delete", flags=8)
    ada = drafts_of([], [mark_of(erased)], "she asked for it")[0]
    pen.write("", ada.fmt, ada.payload, kind=ada.kind, flags=0)
    guarded.furnisher.ship("tower", [pen])
    client.cookies.clear()
    (form,) = (each for each in guarded.forms("/sign-in") if "next" in each)
    assert guarded.send("/sign-in", {**form, "token": "hf_person_x_y_z"}).status_code == 401
    guarded.sign_in("admin")
    key = "/data/table%2Fleads/acme?agent=recruiter-1"
    form = next(each for each in guarded.forms(key) if each.get("what") == "delete")
    assert guarded.send("/data/change", {**form, "reason": "sold"}).status_code == 303
    until(lambda: {"erase", "delete"} <= {each["done"] for each in told(guarded)}, "the log was read")
    found = told(guarded)
    assert [each["time"] for each in found] == sorted((each["time"] for each in found), reverse=True)
    by = {(each["done"], each["way"], each["who"]): each for each in found}
    assert by["token made", "command", acts.by_machine().who]["target"] in {"person eve", "service public"} | {
        f"{kind} {name}" for kind, name in (("person", "root"), ("person", "ada"), ("service", "leads"))
    }
    assert ("token revoked", "command", acts.by_machine().who) in by
    assert by["sign-in", "page", "root"]["token"] == guarded.ids["admin"]
    assert by["sign-in refused", "page", ""]["details"] == {"address": "testclient", "by": "token"}
    assert by["change", "api", "root"]["target"].startswith(("POST /", "PUT /"))
    assert by["delete", "page", "root"]["target"] == "table/leads/acme of recruiter-1"
    assert by["delete", "page", "root"]["record"], "the log's word and the page's are one act"
    assert by["delete", "log", "ada"]["target"] == "state/gone of ada"
    assert by["erase", "log", "ada"]["target"] == "records of ada"
    assert len([each for each in found if each["target"].startswith("table/leads/acme")]) == 1
    assert "sold" not in json.dumps(found)
    assert "Eve" not in json.dumps([each for each in found if each["way"] == "log"])

    assert {each["who"] for each in told(guarded, "/audit.json?who=root&what=sign-in")} == {"root"}
    first = found[0]["time"]
    assert told(guarded, "/audit.json?since=2099-01-01T00:00") == []
    assert first in {each["time"] for each in told(guarded, "/audit.json?until=2099-01-01T00:00")}
    assert client.get("/audit?before=nonsense", headers=BROWSER).status_code == 400
    lines = [json.loads(line) for line in client.get("/audit/export?form=jsonl").text.splitlines()]
    assert lines[-len(found) :] == found
    rows = list(csv.DictReader(io.StringIO(client.get("/audit/export?form=csv&what=sign-in").text)))
    assert {row["who"] for row in rows} == {"root"}
    forms = [each for each in guarded.forms("/audit")]
    assert guarded.send("/sign-out", {"form_token": forms[0]["form_token"]}).status_code == 303
    guarded.sign_in("admin")
    assert told(guarded, "/audit.json?what=sign-out")[0]["who"] == "root"
    store.close()


def test_a_long_trail_is_read_page_by_page_and_nothing_in_it_acts(inside: Inside) -> None:
    store = inside.core.audit.store
    by = [Actor(kind="person", who=text[:100], token=text[:20], via=acts.PAGE) for text in HOSTILE]
    store.add(
        [
            Act(by=by[n % len(by)], what=acts.CHANGE, about=HOSTILE[n % len(by)], at_ms=1_000 + n // 3,
                detail={HOSTILE[n % len(by)][:50]: "=cmd()"})
            for n in range(130)
        ]
    )  # fmt: skip
    seen, place = [], "/audit.json"
    while place:
        answer = inside.client.get(place).json()
        seen += [each["time"] for each in answer["acts"]]
        place = f"/audit.json?before={answer['next']}" if answer["next"] else ""
    assert (len(seen), seen) == (130, sorted(seen, reverse=True))
    page = inside.good("/audit")
    assert "<script>window" not in page
    assert "<img src=x" not in page
    cells = [cell for row in csv.reader(io.StringIO(inside.client.get("/audit/export?form=csv").text)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+"))]


def test_two_who_ask_for_the_same_get_one_run(inside: Inside) -> None:
    inside.furnisher.nodes()
    scanning, care = inside.core.scanning, inside.core.care
    form = next(each for each in inside.forms("/integrity") if each.get("what") == "scan")
    with scanning._turning:  # so that it cannot end
        assert [inside.send("/integrity/act", form).status_code for _ in range(3)] == [303] * 3
        (run,) = inside.client.get("/integrity.json").json()["runs"]
        assert run["state"] == "running"
        assert "goes on" in inside.good("/integrity")
        assert len(care._tasks) == 1
    until(lambda: inside.client.get("/integrity.json").json()["runs"][0]["state"] == "done", "it has ended")
    assert inside.client.get("/integrity.json").json()["runs"][0]["begun"] == run["begun"]
    assert inside.core.scanning.progress.records == 2 * inside.core.feed.head, "the tip and the round, once"


def test_a_hub_that_cannot_pause_says_which_command_does_it(inside: Inside) -> None:
    page = inside.good("/backups")
    assert "holdfast serve --backup ADDRESS" in page
    assert inside.client.get("/integrity.json").json()["command"].startswith("holdfast repair --store ")
    form = next(each for each in inside.forms("/integrity") if each.get("what") == "scan")
    answer = inside.send("/integrity/act", {**form, "what": "repair", "strategy": "proven", "keep": "0"})
    assert (answer.status_code, "plan" in answer.text) == (400, True)
    answer = inside.send("/backups/act", {**form, "what": "backup"})
    assert (answer.status_code, "--backup ADDRESS" in answer.text) == (400, True)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://key:secret@bucket/hub?endpoint=x", "s3://…@bucket/hub"),
        ("file:/mnt/a@b", "file:/mnt/a@b"),
        ("azure://container/hub?sas=secret", "azure://container/hub"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, shown: str) -> None:
    from holdfast.hub.ui.backups import shown_address

    assert shown_address(address) == shown


def test_the_trail_goes_along_with_a_backup(tmp_path: Path) -> None:
    HubDirectory(tmp_path / "hub").close()
    with closing(SqliteTokens(tmp_path / "hub")) as store:
        create(store, Wish(kind="person", name="eve"))
        by = Actor(kind="agent", who="ada", via=acts.LOG)
        store.acts().add([Act(by=by, what=acts.DELETE, about="k", at_ms=1, ref=b"r" * 32)])
    with FileStore(tmp_path / "backups") as kept, hub_source(str(tmp_path / "hub")) as source:
        backup.create(backup.Repository(kept), source)
        finish: Any = lambda work, documents: finish_hub(work, documents, tmp_path / "hub")  # noqa: E731
        backup.restore(backup.Repository(kept), tmp_path / "back", finish=finish)
    assert whats(tmp_path / "back") == [acts.TOKEN, acts.IMPORTED], "the log tells its own again"


def whats(home: Path) -> list[str]:
    with closing(SqliteTokens(home)) as store:
        return [each.what for each in acts.all_of(store.acts())]
