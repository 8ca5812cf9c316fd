"""What the pages of nodes, agents, data, artifacts and sessions show and do, over HTTP."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import time
from typing import Any
from urllib.parse import quote

import msgspec

from holdfast import wire
from holdfast.hub.tokens import Wish, create
from holdfast.hub.ui.exports import cell
from holdfast.hub.ui.pages import ROWS
from tests.hub.pens import Pen
from tests.ui.inside import Guarded, Inside

# -- nodes -------------------------------------------------------------------------------------------------------


def _told(inside: Inside, path: str) -> Any:
    answer = inside.client.get(path)
    assert answer.status_code == 200, (path, answer.text)
    return answer.json()


def test_a_node_shows_what_it_told_of_itself(inside: Inside) -> None:
    pen = Pen("ada")
    pen.put("k", 1)
    inside.furnisher.ship("laptop", [pen])
    refused = [wire.Refusal("ada", 7, "too_big", "70,000 bytes inline")]
    about = wire.Report(
        host="ada's machine",
        version="1.2.3",
        caches={"ada": wire.Cached(900, 1000, True), "bob": wire.Cached(1, 2)},
        disk_free=1 << 30,
        disk_total=4 << 30,
        owed_bytes=12_345,
        refusals=3,
        refused=refused,
    )
    for number in range(40):
        pen.put(f"later/{number}", number)
    hello = msgspec.structs.replace(
        pen.hello(), node="laptop", report=about, oldest_ms=round(time.time() * 1000) - 9_000
    )
    inside.ask("POST", "/v1/hello", wire.encode(hello), wire.MEDIA)
    node = _told(inside, "/nodes/laptop.json")["node"]
    assert (node["state"], node["at_risk"], node["at_risk_bytes"], node["host"]) == (
        *("catching-up", 40, 12_345),
        "ada's machine",
    )
    assert node["caches"] == [{"agent": "ada", "used": 900, "limit": 1000, "full": True}], (
        "of agents that it speaks for"
    )
    shown = html.unescape(inside.good("/nodes/laptop"))
    for text in (
        "ada's machine",
        "1.2.3",
        "1.0 GiB free of 4.0 GiB",
        "too_big: 70,000 bytes inline",
        "Full",
        "3 payloads",
    ):
        assert text in shown, text
    assert '<meter min="0" max="1000"' in inside.good("/nodes")
    assert "Cache full: ada on ada's machine" in html.unescape(inside.good("/"))
    inside.core.nodes["laptop"].seen_ms -= 3_600_000
    assert "everything here is as of" in inside.good("/nodes/laptop")
    inside.furnisher.ship_from("laptop", pen, 2)
    assert _told(inside, "/nodes.json")["nodes"][0]["at_risk"] == 0


def test_a_node_is_asked_by_its_page_and_forgotten_by_its_name(guarded: Guarded) -> None:
    guarded.furnisher.nodes()
    store = guarded.core.home.open_tokens()
    create(store, Wish(kind="node", name="tower", agents=("*",)))
    store.close()
    guarded.sign_in("reader")
    assert "Pause" not in guarded.good("/nodes/deck")
    assert "Never seen" not in guarded.good("/nodes"), "who has a token is for whoever may see tokens"
    (token,) = {each["form_token"] for each in guarded.forms("/nodes/deck")}
    asked = {"form_token": token, "node": "deck", "what": "pause"}
    assert guarded.send("/nodes/change", asked).status_code == 403
    guarded.sign_in("admin")
    assert "tower" in guarded.good("/nodes")

    def press(what: str, **more: str) -> Any:
        form = next(each for each in guarded.forms("/nodes/deck") if each.get("what") == what)
        return guarded.send("/nodes/change", {**form, **more})

    done = press("pause")
    assert done.headers["location"] == "/nodes/deck?done=paused"
    shown = guarded.good(done.headers["location"])
    assert "Paused" in shown
    assert "Not heard of yet: it is to pause" in shown
    overview = guarded.client.get("/overview.json").json()
    assert overview["nodes"]["paused"] == 1
    assert not any("deck" in each["what"] for each in overview["needs_you"]), "somebody wanted it so"
    answer = guarded.furnisher.hello("deck", [Pen("coder-2")])
    assert answer.wish is not None
    assert answer.wish.paused
    assert press("sync").status_code == press("resume").status_code == 303
    assert guarded.client.get("/nodes/deck.json").json()["node"]["paused"] is False
    assert press("forget", name="Deck").status_code == 400
    assert press("forget", name="deck").headers["location"] == "/nodes?done=forgotten"
    assert guarded.page("/nodes/deck").status_code == 404
    assert guarded.send("/nodes/change", {**asked, "form_token": token}).status_code == 403


# -- agents ------------------------------------------------------------------------------------------------------


def test_an_agent_shows_what_it_has_before_it_and_gets_a_word(inside: Inside) -> None:
    commander, worker = Pen("commander"), Pen("worker-1")
    declared = {"version": 1, "index": ["assigned_agent", "created_at"]}
    commander.put("tasks", declared, collection="schemas")
    commander.put("worker-1", {"id": "worker-1", "role": "coder", "status": "busy"}, collection="agents")
    for number, whose in enumerate(("worker-1", "other", "worker-1")):
        task = {"id": f"t{number}", "title": f"Task {number}", "status": "assigned", "assigned_agent": whose}
        commander.put(f"t{number}", {**task, "created_at": f"2026-01-0{number + 1}T00:00:00Z"}, collection="tasks")
    worker.put("d1", {"decision_type": "route", "chosen_option": "north"}, collection="decisions")
    worker.put("note", {"text": "all is well"})
    inside.furnisher.ship("n", [commander, worker])
    said = {"sender": "commander", "recipient": "worker-1", "content": "begin"}
    inside.furnisher.json("POST", "/sync/message", said)
    told = _told(inside, "/agents/worker-1.json")
    assert (told["agent"]["role"], told["agent"]["status"], told["agent"]["unread"]) == ("coder", "busy", 1)
    assert [each["title"] for each in told["work"]["tasks"]] == ["Task 2", "Task 0"]
    assert [(each["title"], each["status"]) for each in told["work"]["decisions"]] == [("route", "north")]
    shown = html.unescape(inside.good("/agents/worker-1"))
    assert '{"text":"all is well"}' in shown
    (form,) = (each for each in inside.forms("/agents/worker-1") if each.get("agent") == "worker-1")
    empty = inside.send("/agents/send", {**form, "text": " ", "kind": "task", "priority": "hot"})
    assert empty.status_code == 400
    assert '<option value="hot" selected>' in empty.text, "nothing that was chosen is lost"
    for _ in range(2):  # a button that is pressed twice
        done = inside.send("/agents/send", {**form, "text": "<b>stop</b>", "kind": "task", "priority": "hot"})
        assert done.headers["location"] == "/agents/worker-1?done=sent"
    mail = _told(inside, "/v1/inbox?for=worker-1&counts=true")["mail"]
    assert [(each["content"], each["kind"], each["priority"]) for each in mail][:1] == [("<b>stop</b>", "task", "hot")]
    assert len(mail) == 2
    assert "<b>stop" not in inside.good("/agents/worker-1")


# -- data --------------------------------------------------------------------------------------------------------


def _walk(inside: Inside, place: str, pattern: str) -> list[str]:
    found: list[str] = []
    while place:
        text = inside.good(place)
        found += re.findall(pattern, text)
        following = re.search(r'href="([^"]+)" rel="next"', text)
        place = html.unescape(following[1]) if following else ""
    return found


def test_keys_open_by_their_parts_and_miss_nothing(inside: Inside) -> None:
    pen = Pen("ada")
    folders = {f"d{number:02}/": 3 for number in range(ROWS + 10)}
    for folder, many in folders.items():
        for number in range(many):
            pen.put(f"{folder}x/{number}", number)
    for key in ("alone/one", "plain", "d05/top", "d05/x"):
        pen.put(key, 1)
    for start in range(1, pen.head.seq + 1, 400):
        if start == 1:
            gen = inside.furnisher.hello("n", [pen]).gen
        message = wire.Append(gen, start, [pen.segment(start, min(start + 399, pen.head.seq))], "n")
        inside.ask("POST", "/v1/append", wire.encode(message), wire.MEDIA)
    place = "/data/state?agent=ada"
    told = _told(inside, "/data/state.json?agent=ada")
    assert [each["prefix"] for each in told["folders"]] + [each["key"] for each in told["keys"]] == [
        *(f"d{number:02}/" for number in range(ROWS - 1)),
        "alone/one",
    ], "a folder of one is the key itself"
    assert _walk(inside, place, r"prefix=(d\d\d)%2F") == [folder[:3] for folder in folders]
    inner = _told(inside, "/data/state.json?agent=ada&prefix=d05/")
    assert ([each["prefix"] for each in inner["folders"]], [each["key"] for each in inner["keys"]]) == (
        ["d05/x/"],
        ["d05/top", "d05/x"],
    )
    keys = _walk(inside, f"{place}&flat=1", r'href="/data/state/([^"?]+)\?')
    assert len(keys) == len(set(keys)) == sum(folders.values()) + 4


def test_values_are_found_by_their_fields_with_and_without_an_index(inside: Inside) -> None:
    pen, other = Pen("ada"), Pen("bob")
    for number in range(60):
        row = {"status": "open" if number % 3 else "done", "n": number, "tags": ["a", f"t{number % 4}"]}
        pen.put(f"k{number:02}", row)
        pen.put(f"k{number:02}", row, collection="jobs")
    other.put("b", {"status": "done", "n": 7}, collection="jobs")
    pen.put("jobs", {"version": 1, "index": ["status", "n"]}, collection="schemas")
    inside.furnisher.ship("n", [pen, other])
    page = _told(inside, "/data/state.json?agent=ada")
    facets = {each["field"]: dict(each["values"]) for each in page["facets"]}
    assert (page["looked"], facets["status"]) == (60, {'"open"': 40, '"done"': 20})
    assert "n" not in facets, "what is different everywhere parts nothing"
    link = re.search(r'href="([^"]+field=status[^"]+)"', inside.good("/data/state?agent=ada"))
    assert link
    assert len(_walk(inside, html.unescape(link[1]), r'href="/data/state/(k\d\d)\?')) in (20, 40)
    for query, count in (
        ("field=n&op=ge&value=50", 10),
        ("field=tags&op=has&value=t1", 15),
        ("field=status&op=starts&value=do", 20),
        ("field=n&op=eq&value=%2250%22", 0),
    ):
        assert len(_walk(inside, f"/data/state?agent=ada&{query}", r'href="/data/state/(k\d\d)\?')) == count, query
    told = _told(inside, "/data/jobs.json?field=status&op=eq&value=done")
    assert len(told["keys"]) == 21, "everybody's, by the index that was declared"
    assert {each["agent"] for each in told["keys"]} == {"ada", "bob"}
    assert inside.page("/data/jobs?field=tags&op=has&value=t1").status_code == 400, "no index: choose an agent"
    assert inside.page("/data/state?agent=ada&field=n&op=near&value=1").status_code == 400


def test_everything_is_seen_as_it_was(inside: Inside) -> None:
    pen, at = Pen("ada"), 1_700_000_000

    def put_at(seconds: int, key: str, value: Any, collection: str = "state") -> None:
        pen.stamp = ((at + seconds) * 1000) << 16
        pen.put(key, value, collection=collection)

    put_at(10, "plan", {"step": 1})
    put_at(20, "gone", 1)
    put_at(30, "plan", {"step": 2})
    put_at(40, "new", 1, "later")
    inside.furnisher.ship("n", [pen])
    then = "2023-11-14T22:13:45"  # 25 seconds in
    banner = "You see the state of 2023-11-14 22:13:45 UTC"
    assert [each["name"] for each in _told(inside, f"/data.json?at={then}")["collections"]] == ["state"]
    page = inside.good(f"/data?at={then}")
    assert banner in page
    link = html.unescape(re.findall(r'href="(/data/state\?[^"]+)"', page)[0])
    page = inside.good(link)
    assert banner in page
    assert '{"step":1}' in html.unescape(page)
    assert [each["version"] for each in _told(inside, link.replace("state?", "state.json?"))["keys"]] == [1, 1]
    link = html.unescape(re.findall(r'href="(/data/state/plan\?[^"]+)"', page)[0])
    page = inside.good(link)
    assert banner in page
    assert '"step": 1' in html.unescape(page)
    assert "Back to now" in page
    text = inside.client.get(f"/data/state?agent=ada&at={then}&format=jsonl").text
    assert {each["key"]: each["value"] for each in map(json.loads, text.splitlines())} == {
        "gone": 1,
        "plan": {"step": 1},
    }


def test_a_key_tells_where_it_comes_from_and_what_changed_line_by_line(inside: Inside) -> None:
    pen = Pen("ada")
    pen.put("plan", {"text": "one\ntwo", "same": [1, 2], "$ends": 1_900_000_000_000})
    last = pen.put("plan", {"text": "one", "same": [1, 2], "$ends": 1_900_000_000_000})
    pen.put("k", 1)
    pen.put("k", {"version": 1, "at": 1_900_000_000_000}, collection="expiry")
    inside.furnisher.ship("laptop", [pen])
    told = _told(inside, "/data/state/plan.json?agent=ada&diff=1..2")
    assert [(each["what"], each["text"].strip()) for each in told["lines"] if each["what"] in ("added", "removed")] == [
        ("removed", '"text": "one\\ntwo"'),
        ("added", '"text": "one"'),
    ]
    source = told["provenance"]
    assert (source["stream"], source["seq"], source["nodes"], source["through_hub"]) == (
        *(pen.stream.hex(), 2, ["laptop"]),
        False,
    )
    assert source["replaces"] == last.base.hex()
    assert source["payload_hash"] == last.payload_hash.hex()
    assert told["ends"] == _told(inside, "/data/state/k.json?agent=ada")["ends"] == "2030-03-17T17:46:40.000Z"
    tree = html.unescape(inside.good("/data/state/plan?agent=ada&view=tree"))
    assert re.search(r"<summary><bdi>same</bdi>.*2 members", tree)


def test_a_new_version_is_written_or_what_was_typed_stays(guarded: Guarded) -> None:
    change = {"agent_id": "recruiter-1", "table": "leads", "data": {"id": "acme", "n": 1}}
    guarded.furnisher.json("POST", "/relay/immediate", change)
    place = "/data/table%2Fleads/acme?agent=recruiter-1"
    guarded.sign_in("writer")

    def form() -> dict[str, str]:
        return next(each for each in guarded.forms(place) if each.get("what") == "write")

    before = form()
    wrong = guarded.send("/data/change", {**before, "value": '{"n": <b>}'})
    assert wrong.status_code == 400
    assert "{&#34;n&#34;: &lt;b&gt;}</textarea>" in wrong.text
    assert guarded.send("/data/change", {**before, "value": '{"id": "acme", "n": 2}'}).status_code == 303
    late = guarded.send("/data/change", {**before, "value": '{"id": "acme", "n": 3}'})
    assert late.status_code == 409
    assert '{"id": "acme", "n": 3}</textarea>' in html.unescape(late.text)
    assert '"n": 2' in html.unescape(late.text), "and what is there now"
    assert guarded.send("/data/change", {**form(), "value": '{"id": "acme", "n": 3}'}).status_code == 303
    told = guarded.client.get("/data/table%2Fleads/acme.json?agent=recruiter-1").json()
    assert (told["shown"]["version"], told["shown_value"]["value"]["n"], told["shown"]["author"]) == (3, 3, "leads")
    guarded.sign_in("reader")
    assert "Write a new version" not in guarded.good(place)


def test_every_list_is_a_file_and_no_cell_is_a_command(inside: Inside) -> None:
    for text in ("=1+1", "+1", "-1", "@x", "\tx", "\rx"):
        assert cell(text) == f"'{text}"
    assert [cell(each) for each in (-1, None, True, ["=1"], "a=1", "")] == ["-1", "", "true", '["=1"]', "a=1", ""]
    inside.furnisher.everything()
    pens = [Pen(f"agent-{number:03}") for number in range(ROWS + 5)]
    for pen in pens:
        pen.put("=cmd()", {"a": 1})
    inside.furnisher.ship("n", pens)
    for place, many, column in (
        ("/nodes", 4, "node"),
        ("/agents", len(pens) + 5, "agent"),
        ("/data", 0, "name"),
        ("/sessions", 1, "id"),
        ("/data/state", 0, "key"),
        ("/data/table%2Fleads/acme?agent=recruiter-1", 4, "version"),
    ):
        mark = "&" if "?" in place else "?"
        answer = inside.client.get(f"{place}{mark}format=csv")
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert answer.headers["content-disposition"].startswith("attachment;")
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
        lines = inside.client.get(f"{place}{mark}format=jsonl").text.splitlines()
        assert len(rows) == len(lines) >= max(1, many), place
        for row, line in zip(rows, map(json.loads, lines), strict=True):
            assert row[column].removeprefix("'") == str(line[column])
    state = inside.client.get("/data/state?format=csv").text
    assert "'=cmd()" in state
    assert inside.client.get("/data/state?format=xml").status_code == 400
    assert inside.client.get("/data/state?agent=recruiter-1&format=jsonl").text.count("\n") == 12
    key = inside.client.get("/data/state/plan%2F00?agent=recruiter-1&format=jsonl").text
    assert [json.loads(line)["value"]["done"] for line in key.splitlines()] == [True, False]


# -- artifacts ---------------------------------------------------------------------------------------------------


def test_artifacts_are_listed_downloaded_and_verified(inside: Inside) -> None:
    inside.furnisher.talk()
    evil = b"<script>window.owned=1</script>" + b"x" * 70_000
    about = {"session_id": inside.furnisher.session, "name": "re/port.html", "type": "text/html"}
    made = inside.furnisher.json("POST", "/storage/artifacts", about)
    inside.ask("PUT", f"/storage/artifacts/{made['id']}/content", evil, "text/html")
    row = {"agent_id": "a", "table": "t", "data": {"id": "big", "text": "y" * 100_000}}
    inside.furnisher.json("POST", "/relay/immediate", row)
    listed = _told(inside, "/artifacts.json")
    assert [(each["name"], each["type"], each["here"]) for each in listed["artifacts"]] == [
        ("big", "JSON value", True),
        ("re/port.html", "text/html", True),
    ]
    digest = listed["artifacts"][1]["digest"]
    assert digest in inside.good(f"/sessions/{inside.furnisher.session}")
    page = inside.good(f"/artifacts/{digest}")
    assert "re/port.html" in page
    answer = inside.client.get(f"/artifacts/{digest}/content")
    assert answer.content == evil
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="re-port.html"'
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    (form,) = (each for each in inside.forms(f"/artifacts/{digest}") if "digest" in each)
    assert "Sound" in inside.send("/artifacts/verify", form).text
    path = inside.core.home.blobs.path(bytes.fromhex(digest))
    path.chmod(0o600)
    path.write_bytes(evil[:-1] + b"?")
    assert "Not sound" in inside.send("/artifacts/verify", form).text
    path.unlink()
    assert "Not here" in inside.good("/artifacts")
    for place in (f"/artifacts/{digest}/content", f"/artifacts/{'0' * 64}", "/artifacts/x", f"/artifacts/{digest}/y"):
        assert inside.page(place).status_code == 404, place


def test_artifacts_are_for_whoever_may_read_a_record_that_names_them(guarded: Guarded) -> None:
    for collection in ("table/leads", "public/news"):
        row = {"agent_id": "a", "table": collection.removeprefix("table/"), "data": {"id": "x", "t": "z" * 90_000}}
        row["data"]["of"] = collection
        guarded.furnisher.json("POST", "/relay/immediate", row)
    guarded.sign_in("reader")
    every = [each["digest"] for each in guarded.client.get("/artifacts.json").json()["artifacts"]]
    assert len(every) == 2
    guarded.sign_in("public")
    told = guarded.client.get("/artifacts.json").json()
    assert told["artifacts"] == []
    assert told["total_size"] == 0
    for digest in every:
        assert guarded.page(f"/artifacts/{digest}").status_code == 404
        assert guarded.page(f"/artifacts/{digest}/content").status_code == 404


# -- sessions ----------------------------------------------------------------------------------------------------


def test_a_session_is_read_by_day_taken_along_ended_deleted_and_brought_back(inside: Inside) -> None:
    inside.furnisher.talk()
    name = inside.furnisher.session
    parts = [{"type": "text", "text": "I look."}, {"type": "tool_use", "name": "search", "input": {"q": "<b>"}}]
    said = {"session_id": name, "role": "assistant", "content": parts}
    inside.furnisher.json("POST", "/storage/history", said)
    place = f"/sessions/{name}"
    page = html.unescape(inside.good(place))
    assert re.search(r'<h3 class="day-of">\d{4}-\d\d-\d\d</h3>', page)
    assert "<summary>tool_use search</summary>" in page
    assert "<summary>search</summary>" in page, "a tool's answer is folded"
    assert '<p class="text"><bdi>I look.</bdi></p>' in page
    assert "⚙" in page
    lines = inside.client.get(f"{place}?format=jsonl").text.splitlines()
    assert [next(iter(json.loads(line))) for line in lines] == ["session", *["message"] * 4]
    told = inside.client.get(f"{place}?format=md")
    assert told.headers["content-disposition"] == f'attachment; filename="{name}.md"'
    assert "**user**" in told.text
    assert "> Whom did you find?" in told.text

    def press(at: str, what: str) -> str:
        form = next(each for each in inside.forms(at) if each.get("what") == what)
        answer = inside.send("/sessions/change", form)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    assert press(place, "end") == f"{place}?done=ended"
    assert _told(inside, f"{place}.json")["session"]["status"] == "ended"
    assert press(place, "reopen") == f"{place}?done=reopened"
    assert "4 messages, 0 artifacts, no state" in inside.good(place)
    stale = next(each for each in inside.forms(place) if each.get("what") == "delete")
    press(place, "end")
    assert inside.send("/sessions/change", stale).status_code == 409, "it is not as it was shown"
    gone = press(place, "delete")
    assert inside.page(place).status_code == 404
    assert press(gone, "restore") == f"{place}?done=restored"
    assert len(_told(inside, f"{place}.json")["messages"]) == 4
    press(place, "delete")
    assert [each["id"] for each in _told(inside, "/sessions.json?deleted=1")["sessions"]] == [name]
    press("/sessions?deleted=1", "restore")
    assert [each["id"] for each in _told(inside, "/sessions.json?status=ended")["sessions"]] == [name]
    assert _told(inside, "/sessions.json?status=active")["sessions"] == []


def test_sessions_are_changed_by_whoever_may_write_them(guarded: Guarded) -> None:
    guarded.furnisher.talk()
    place = f"/sessions/{guarded.furnisher.session}"
    guarded.sign_in("reader")
    assert "Delete this session" not in guarded.good(place)
    (token,) = {each["form_token"] for each in guarded.forms(place)}
    form = {"form_token": token, "session": guarded.furnisher.session, "what": "end"}
    assert guarded.send("/sessions/change", form).status_code == 403
    guarded.sign_in("writer")
    form = next(each for each in guarded.forms(place) if each.get("what") == "end")
    assert guarded.send("/sessions/change", form).status_code == 303
    assert guarded.send("/sessions/change", {**form, "session": quote("../x")}).status_code == 404
