"""The list of messages over HTTP, on both engines: what it shows, to whom, and what its forms do."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from typing import Any
from urllib.parse import urlencode

import pytest

from holdfast.collections import mail_lists
from holdfast.hub.principal import INBOX
from holdfast.hub.tokens import Wish, create
from holdfast.hub.ui.messages import ROWS
from holdfast.hub.ui.messages_rows import below_title, subject_of
from tests.hub.pens import Pen
from tests.ui.inside import Guarded, Inside


def listed(inside: Inside, query: str = "") -> dict[str, Any]:
    """The twin of a list."""
    answer = inside.client.get(f"/messages.json?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(inside: Inside, query: str = "") -> list[str]:
    """The ids on one page of a list, the oldest first."""
    return [row["id"] for row in listed(inside, query)["rows"]][::-1]


def fields(inside: Inside, query: str = "tab=feed") -> dict[str, str]:
    """The hidden fields of the form around a list."""
    return next(each for each in inside.forms(f"/messages?{query}") if "as_of" in each)


def names(inside: Inside, query: str = "tab=feed") -> dict[str, str]:
    """How forms name the messages of a list, by their ids."""
    return {row["id"]: row["at"] for row in listed(inside, query)["rows"]}


def act(inside: Inside, what: str, *wanted: str, query: str = "tab=feed", **more: Any) -> Any:
    """Presses a button above the list."""
    at = names(inside, query)
    return inside.send("/messages/act", {**fields(inside, query), "what": what, "at": [at[w] for w in wanted], **more})


def state(inside: Inside, msg_id: str) -> str:
    """How far a message is, as the API tells it."""
    return str(json.loads(inside.ask("GET", f"/v1/messages/{msg_id}"))["state"])


@pytest.fixture
def house(guarded: Guarded) -> Guarded:
    """A hub with some mail, and somebody who reads all of it."""
    send = guarded.furnisher.send
    send("m1", kind="question", sender="coder-1", content="Deploy?")
    send("m2", kind="report", content="a lead in Berlin", task_id="t-1", priority="hot")
    send("m3", None, kind="alert", sender="coder-2", content={"subject": "disk full", "file": "df.txt"})
    send("m4", "commander", kind="report", content="for the commander alone")
    send("m5", kind="report", role="analyst", priority="low", content="numbers of the day")
    guarded.sign_in("admin")
    return guarded


def test_tabs_fields_and_tokens_find_the_same(house: Guarded) -> None:
    deck = [Pen("coder-1")]
    deck[0].put("x", 1)
    house.core.saw("desk", deck[0].hello())
    assert ids(house) == ["m1", "m2", "m3"], "what needs you: a question, what is hot, an alert"
    assert ids(house, "tab=feed") == ["m1", "m2", "m3", "m5"]
    assert ids(house, "tab=feed&to=*") == ["m1", "m2", "m3", "m4", "m5"]
    assert ids(house, "tab=feed&to=commander") == ["m4"]
    for field, token, found in (
        ("from=coder-2", "from:coder-2", ["m3"]),
        ("role=coder", "role:coder", ["m1", "m3"]),
        ("role=analyst", "role:analyst", ["m5"]),
        ("node=desk", "node:desk", ["m1"]),
        ("node=desk&from=coder-2", "node:desk from:coder-2", []),
        ("kind=report", "kind:report", ["m2", "m5"]),
        ("priority=hot", "priority:hot", ["m2"]),
        ("priority=high%2B", "priority:high+", ["m2"]),
        ("task=t-1", 'task:"t-1"', ["m2"]),
        ("has=artifact", "has:artifact", ["m3"]),
        ("is=unread", "is:unread", ["m1", "m2", "m3", "m5"]),
        ("until=2020-01-01", "before:2020-01-01", []),
        ("time=15m", "after:2020-01-01", ["m1", "m2", "m3", "m5"]),
        ("q=berlin", "berlin", ["m2"]),
        ("q=lead&kind=report", "lead kind:report", ["m2"]),
        ("q=lead&kind=question", "lead kind:question", []),
        ("q=full", "disk full", ["m3"]),
    ):
        assert ids(house, f"tab=feed&{field}") == found, field
        assert ids(house, urlencode({"tab": "feed", "q": token})) == found, token
    assert "Berlin" in house.good("/reports?tab=feed"), "the seed's other name"
    for wrong, says in (
        ("kind=report&is=nonsense", "is cannot be"),
        ("q=before:nonsense", "before"),
        ("q=%22%22+is:read+%3F", "nothing to search"),
        ("node=nowhere&q=keep+me", "has spoken to this hub"),
        ("tab=nonsense", "tab cannot be"),
    ):
        answer = house.page(f"/messages?{wrong}")
        assert answer.status_code in (400, 404), answer.text
        assert re.search(r'role="alert">.*' + says if says != "before" else "alert", answer.text), answer.text
        typed = dict(part.split("=") for part in wrong.split("&")).get("q", "")
        typed = typed.replace("+", " ").replace("%22", "&#34;").replace("%3F", "?")
        assert typed in answer.text, "nothing typed is lost"


def test_a_list_goes_on_and_on_without_gap_or_repeat(house: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(70):
        low = {"kind": "a" if number < 35 else "b", "role": "x" if number >= 35 or not number else "y"}
        low["task_id"] = "t" if number % 20 else "rare"
        house.furnisher.send(f"n{number:02}", content=f"word {number}", **low)
    wanted = [f"n{number:02}" for number in range(69, -1, -1)]

    def walk(query: str) -> list[str]:
        seen, after, pages = list[str](), 0, 0
        while after is not None:
            page = listed(house, f"{query}&after={after}")
            seen += [row["id"] for row in page["rows"]]
            assert len(page["rows"]) <= ROWS
            after, pages = page["next"], pages + 1
            assert pages < 50
        return seen

    assert walk("tab=feed")[:70] == wanted
    assert walk("tab=feed&q=word") == wanted
    assert walk("tab=feed&task=rare") == ["n60", "n40", "n20", "n00"]
    monkeypatch.setattr(mail_lists, "STEPS", 8)
    assert listed(house, "tab=feed&kind=a&role=x")["cut"], "what is looked at is bounded"
    assert "Look further" in house.good("/messages?tab=feed&kind=a&role=x")
    assert walk("tab=feed&kind=a&role=x") == ["n00"], "and found all the same"
    page = listed(house, "tab=feed&has=artifact&priority=normal&role=coder&kind=alert")
    assert [row["id"] for row in page["rows"]] == ["m3"]
    head = listed(house, "tab=feed")["as_of"]
    house.furnisher.send("late")
    assert ids(house, f"tab=feed&as_of={head}")[-1] == "n69"
    assert ids(house, "tab=feed")[-1] == "late"


def test_repeats_are_one_row_with_a_counter(house: Guarded) -> None:
    for number in range(12):
        house.furnisher.send("", sender=f"coder-{number}", kind="alert", dedupe_key="slow", content="slow")
    keyed = [row for row in listed(house)["rows"] if row["dedupe"] == "slow"]
    assert [(row["sender"], row["repeats"]) for row in keyed] == [("coder-11", 12)]
    assert "×12" in house.good("/messages")
    assert len(ids(house, "group=slow")) == 12
    act(house, "archive", keyed[0]["id"], query="tab=needs")
    (newest,) = [row for row in listed(house)["rows"] if row["dedupe"] == "slow"]
    assert (newest["sender"], newest["repeats"]) == ("coder-10", 11)


def test_what_the_buttons_do_the_api_tells_and_undo_takes_back(house: Guarded) -> None:
    answer = act(house, "acknowledge", "m1", "m2", back="/messages?tab=needs&kind=")
    assert answer.status_code == 303
    where = answer.headers["location"]
    assert where.startswith("/messages?tab=needs&kind=&done=acknowledged&n=2&undo=")
    assert (state(house, "m1"), state(house, "m2")) == ("acknowledged", "acknowledged")
    assert ids(house) == ["m3"]
    assert ids(house, "tab=done") == ["m1", "m2"]
    told = json.loads(house.ask("GET", "/v1/messages/m1/delivery"))
    assert told["readers"]["root"]["state"] == "acknowledged", "its sender sees who it was"
    assert "2 messages acknowledged." in house.good(where)
    undo = next(form for form in house.forms(where) if "undo" in form)
    back = house.send("/messages/act", {**undo, "what": "undo"})
    assert back.status_code == 303, back.text
    assert ids(house) == ["m1", "m2", "m3"]
    assert len(list(house.core.corpus.versions("root", "delivery", "m1"))) == 2, "a record of its own"
    assert house.send("/messages/act", {**undo, "what": "undo"}).status_code == 409, "not what was said since"

    act(house, "archive", "m2")
    assert (ids(house, "tab=archived"), ids(house, "tab=feed&q=berlin&is=archived")) == (["m2"], ["m2"]), "findable"
    assert ids(house, "tab=feed&q=berlin") == []
    act(house, "reopen", "m2", query="tab=archived")
    assert state(house, "m2") == "unread"
    act(house, "snooze", "m2", until="1h")
    (row,) = listed(house, "tab=snoozed")["rows"]
    assert row["id"] == "m2"
    assert row["until"] is not None
    assert "until 20" in house.good("/messages?tab=snoozed")
    act(house, "done", "m3")
    act(house, "unread", "m3")
    at = names(house)
    done = house.send("/messages/act", {**fields(house), "one": f"done:{at['m5']}"}, Accept="application/json")
    told = {"what": "done", "count": 1, "says": "1 message done.", "undo": "", "unread": 2}
    assert done.json() | {"undo": ""} == told
    assert [state(house, each) for each in ("m3", "m5")] == ["unread", "done"]
    by_id = {"what": "acknowledge", "ids": ["m1"], "form_token": fields(house)["form_token"], "back": "//evil.example"}
    assert house.send("/messages/act", by_id).headers["location"].startswith("/messages?done=")
    asked = act(house, "execute", "m3", back="/messages?tab=feed&kind=alert")
    assert asked.headers["location"] == "/messages/m3?tab=feed&kind=alert&sender=coder-2#execute"


def test_what_cannot_be_done_says_why_and_does_nothing(house: Guarded) -> None:
    form, at = fields(house), names(house)
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"what": "acknowledge"}, 400),
        ({"what": "explode", "at": at["m1"]}, 400),
        ({"what": "snooze", "at": at["m1"], "when": "2020-01-01T00:00"}, 400),
        ({"what": "acknowledge", "at": at["m1"].partition(".")[0] + "." + "0" * 16}, 409),
        ({"what": "acknowledge", "at": "1"}, 400),
        ({"what": "acknowledge", "ids": "nothing"}, 404),
        ({"what": "undo", "undo": "1-99999999999"}, 400),
        ({"what": "undo", "undo": "1-2"}, 409),
        ({"what": "acknowledge", "ids": "m4"}, 403),
        ({"what": "acknowledge", "at": at["m1"], "form_token": "x"}, 403),
        ({"what": "archive", "all": "1", "query": "tab=feed&to=*"}, 403),
        ({"what": "execute", "at": [at["m1"], at["m2"]]}, 400),
    ]
    for more, status in wrong:
        answer = house.send("/messages/act", {**form, **more})
        assert answer.status_code == status, (more, answer.text)
    assert ids(house, "tab=feed") == ["m1", "m2", "m3", "m5"]
    assert listed(house)["counts"]["unread"] == 4
    foreign = house.send("/messages/act", {**form, "what": "acknowledge", "at": at["m1"]}, Origin="http://evil.example")
    assert foreign.status_code == 403
    into = act(house, "acknowledge", "m4", query="tab=feed&to=commander")
    assert into.status_code == 303, "who may write as an agent may speak for it, in its inbox"
    told = json.loads(house.ask("GET", "/v1/messages/m4/delivery"))
    assert list(told["readers"]) == ["commander"]
    assert "said in its name" in house.good("/messages?tab=feed&to=commander")


def test_all_that_match_are_counted_shown_and_counted_again(house: Guarded) -> None:
    for number in range(40):
        house.furnisher.send(f"r{number}", kind="report", sender="reasoner-1", content=f"result {number}")
    query = "tab=feed&kind=report&from=reasoner-1"
    form = fields(house, query)
    asked = house.send("/messages/act", {**form, "all": "1", "all_what": "archive"})
    assert asked.status_code == 200
    text = html.unescape(asked.text)
    assert "40 messages will be archived" in text
    assert re.findall(r"<li><bdi>(result \d+)", text) == [f"result {number}" for number in range(39, 34, -1)], "samples"
    assert re.search(r"<bdi>reasoner-1</bdi></th><td class=\"n\">40<", text), "how they divide"
    sure = {k: html.unescape(v) for k, v in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text)}
    assert (sure["expect"], sure["as_of"]) == ("40", form["as_of"])

    house.furnisher.send("late", kind="report", sender="reasoner-1", content="came after the look")
    act(house, "done", "r39", query=query)
    act(house, "archive", "r38", query=query)
    stale = house.send("/messages/act", {**sure, "what": "archive"})
    assert stale.status_code == 409
    assert "It was 40 messages when you were asked, and is 39 now" in stale.text
    assert ids(house, "tab=archived") == ["r38"], "nothing was done"
    again = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', stale.text))
    again = {name: html.unescape(value) for name, value in again.items()}
    done = house.send("/messages/act", {**again, "what": "archive"})
    assert (done.status_code, "n=39" in done.headers["location"]) == (303, True)
    assert ids(house, query) == ["late"]
    assert listed(house, query)["counts"]["archived"] == 40
    undo = next(each for each in house.forms(done.headers["location"]) if "undo" in each)
    assert house.send("/messages/act", {**undo, "what": "undo"}).status_code == 303
    assert ids(house, "tab=archived") == ["r38"]
    searched = fields(house, f"{query}&q=result")
    found = house.send("/messages/act", {**searched, "all": "1", "all_what": "done"})
    assert "39 messages will be done" in found.text


def test_who_may_not_read_sees_neither_page_nor_number(house: Guarded) -> None:
    house.furnisher.send("for-ada", "ada", kind="question", content="only for ada")
    house.sign_in("reader")
    assert ids(house) == ["m1", "m2", "m3", "for-ada"], "the inbox of people, and one's own"
    house.sign_in("admin")
    assert "for-ada" not in ids(house)
    store = house.core.home.open_tokens()
    _, text = create(store, Wish(kind="person", name="eve", scopes=(INBOX,)))
    store.close()
    house.core.gate.tokens.refresh()
    house.texts["eve"] = text
    house.sign_in("eve")
    assert ids(house) == ["m1", "m2"], "who only acts on the inbox has that of people, and no other"
    assert act(house, "acknowledge", "m1", query="tab=needs").status_code == 303
    assert house.page("/messages?to=*").status_code == 403
    assert house.page("/messages?to=commander").status_code == 403
    assert "commander" not in house.good("/messages"), "nor a name"
    for role in ("public", "blind"):
        house.sign_in(role)
        assert house.page("/messages").status_code == 403, role
        page = house.page("/nodes").text
        assert 'href="/messages"' not in page
        assert "mail-badge" not in page


def test_the_number_is_on_every_page_and_stops_at_999(house: Guarded) -> None:
    def shown(place: str) -> str:
        text = house.good(place)
        found = re.search(r'id="mail-badge" class="badge mail"( hidden)?>.*?<span class="figure">(.*?)<', text)
        assert found is not None, place
        return "" if found[1] else found[2]

    places = ("/", "/nodes", "/agents", "/data", "/sessions", "/messages", "/messages?to=commander&tab=feed")
    assert [shown(place) for place in places] == ["4"] * len(places)
    act(house, "archive", "m1", "m2", "m3", "m5")
    assert [shown(place) for place in places] == [""] * len(places)
    lot = [{"msg_id": f"x{n}", "sender": "a", "recipient": "people", "content": n} for n in range(1001)]
    house.furnisher.json("POST", "/sync/messages", {"messages": lot})
    assert [shown(place) for place in places] == ["999+"] * len(places)


def test_views_are_saved_as_records_and_forgotten(house: Guarded) -> None:
    form = next(each for each in house.forms("/messages?tab=feed&kind=alert&q=from:coder-2") if "query" in each)
    saved = house.send("/messages/views", {**form, "what": "save", "name": "<my> alerts"})
    assert saved.headers["location"] == "/messages?tab=feed&q=from%3Acoder-2&kind=alert"
    (view,) = listed(house)["views"]
    assert view == {"name": "<my> alerts", "query": "tab=feed&q=from%3Acoder-2&kind=alert", "own": True}
    assert ids(house, view["query"]) == ["m3"]
    assert "&lt;my&gt; alerts" in house.good("/messages")
    record = json.loads(house.ask("GET", "/v1/records?collection=views"))["records"][0]
    assert record["value"] == {"query": view["query"]}, "so that it is on every machine"
    for wrong in ({"name": ""}, {"name": "x" * 61}, {"name": "x", "query": "tab=nonsense"}, {"what": "burn"}):
        bad = house.send("/messages/views", {**form, "what": "save", "name": "x", **wrong})
        assert bad.status_code == 400, bad.text
    house.sign_in("reader")
    assert listed(house)["views"] == [], "each has his own"
    house.sign_in("admin")
    forget = next(each for each in house.forms("/messages") if each.get("name") == "<my> alerts")
    assert house.send("/messages/views", {**forget, "what": "forget"}).status_code == 303
    assert listed(house)["views"] == []


def test_an_export_holds_the_whole_list(house: Guarded) -> None:
    for number in range(ROWS + 5):
        house.furnisher.send(f"e{number}", kind="report", content={"rows": number})
    house.furnisher.send("formula", kind="report", content="=HYPERLINK(1)")
    answer = house.client.get("/messages?tab=feed&format=csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="messages.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == ROWS + 10
    assert rows[0] | {"time": ""} == {
        **{"id": "formula", "time": "", "sender": "recruiter-1", "to": "people", "kind": "report"},
        **{"priority": "normal", "state": "unread", "needs": "false", "task": "", "role": "recruiter"},
        **{"node": "", "content": "'=HYPERLINK(1)"},
    }
    lines = house.client.get("/messages?tab=feed&kind=report&q=rows&format=jsonl").text.splitlines()
    assert lines == [], "names of fields are not words"
    lines = house.client.get("/messages?tab=feed&kind=report&format=jsonl").text.splitlines()
    assert [json.loads(line)["content"] for line in lines][1] == {"rows": ROWS + 4}
    assert house.page("/messages?format=xlsx").status_code == 400


def test_an_empty_list_names_what_comes_next(inside: Inside) -> None:
    assert "holdfast ask" in inside.good("/messages")
    assert "holdfast send" in inside.good("/messages?tab=feed")
    assert "Clear them" in inside.good("/messages?tab=feed&kind=none")
    inside.furnisher.send("m", "commander")
    assert "everybody&#39;s mail" in inside.good("/messages") or "everybody's mail" in inside.good("/messages")
    assert ids(inside, "tab=feed&to=*") == ["m"]


def test_a_title_is_read_out_without_its_marks() -> None:
    for body, title in (
        ("\n# Build **17** is `ready`: [log](https://a.example/x)\n\nmore", "Build 17 is ready: log"),
        ({"text": "_Hot_ lead &amp; \\*more\\*"}, "Hot lead & *more*"),
        ("> ![cat](https://a.example/cat.png)", "cat"),
        ("task_17 of a_b_c costs 2 * 3 * 4 < 30", "task_17 of a_b_c costs 2 * 3 * 4 < 30"),
        ("<b>x</b> [x](javascript:x)", "<b>x</b> [x](javascript:x)"),
        ("****", "****"),
        ({"rows": "**x**"}, '{"rows": "**x**"}'),
        ("**" + "x" * 200 + "**", "x" * 119 + "…"),
        ("`" * 3_000, "`" * 119 + "…"),
        ("[" * 3_000, "[" * 119 + "…"),
        (None, "(empty)"),
    ):
        assert subject_of(body) == title
    assert below_title("# Build **17**\n\nIt is here.", "Build 17").strip() == "It is here."
    assert below_title("Build 17\nis here.", "Build 17") == "Build 17\nis here."
