"""Inboxes of a hub: who gets what, in which tab, whoever says what of it and in whatever order that arrives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast import codec, records
from holdfast.collections import mailbox
from holdfast.collections.delivery import TABS
from holdfast.corpus import SqliteCorpus
from holdfast.corpus.moving import MAILED
from holdfast.hub.home import Home
from holdfast.log import drafts
from holdfast.log.erasure import drafts_of, erase, mark_of
from holdfast.testing.clock import SettableClock
from holdfast.testing.corpus import log_of
from tests.hub.conftest import Room
from tests.hub.pens import Pen
from tests.hub.roles import House

NOW = 1_800_000_000_000


@pytest.fixture
def home(home: Home) -> Home:
    """The same, by a clock that stands."""
    home.wall = SettableClock(NOW)
    return home


def send(room: Room, msg_id: str, to: str | None = "people", **fields: Any) -> None:
    message = {"msg_id": msg_id, "sender": "ada", "recipient": to, "content": f"about {msg_id}", **fields}
    answer = room.client.post("/sync/message", json=message)
    assert answer.status_code == 200, answer.text


def say(room: Room, msg_id: str, state: str, reader: str = "boss", **more: Any) -> Any:
    answer = room.client.post(f"/v1/messages/{msg_id}/state", json={"state": state, "reader": reader, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(room: Room, state: str = "unread", to: str = "people", **query: Any) -> list[str]:
    found = room.get("/v1/inbox", **{"for": to, "state": state, "order": "oldest", **query})
    return [each["msg_id"] for each in found["mail"]]


def later(room: Room, seconds: float) -> None:
    room.core.home.wall.advance(seconds)  # type: ignore[attr-defined]


def test_each_gets_what_is_addressed_to_him_as_it_was_sent(room: Room) -> None:
    send(
        room, "m1", "bob", kind="report", priority="hot", task_id="t", thread="th", timestamp=1_700_000_000.5, mood="!"
    )
    send(room, "m2", "people")
    send(room, "m3", None)
    (mail,) = room.get("/v1/inbox", **{"for": "bob"})["mail"]
    envelope = {
        **{"msg_id": "m1", "timestamp": 1_700_000_000.5, "task": "t", "sender": "ada", "recipient": "bob"},
        **{"kind": "report", "priority": "hot", "thread": "th", "content": "about m1", "role": None},
        **{"in_reply_to": None, "dedupe": None, "expires_at": None, "options": None, "state": "unread", "needs": True},
    }
    assert {name: mail[name] for name in envelope} == envelope
    assert mail["extra"] == {"mood": "!", "timestamp": 1_700_000_000.5}
    assert ids(room, "all") == ["m2"]
    assert ids(room, "all", "nobody") == []
    assert room.get("/v1/messages/m3")["recipient"] is None


def test_a_message_lies_in_one_tab_at_a_time_and_undo_takes_it_back(room: Room) -> None:
    for number in range(3):
        send(room, f"m{number}", kind="question" if number == 2 else "message")
    walk = [("read", "read"), ("acknowledged", "acknowledged"), ("done", "done"), ("read", "done")]
    for state, tab in walk:
        say(room, "m1", state)
        assert [name for name in TABS if ids(room, name) == ["m1"]] == [tab], state
    say(room, "m1", "archived")
    assert (ids(room, "archived"), ids(room, "done")) == (["m1"], [])
    say(room, "m1", "undo")
    assert (ids(room, "archived"), ids(room, "done")) == ([], ["m1"])
    say(room, "m1", "unread")
    assert ids(room) == ["m0", "m1", "m2"]
    assert ids(room, "needs") == ["m2"]
    answer = room.client.post("/v1/messages/m0/state", json={"state": "undo", "reader": "boss"})
    assert answer.status_code == 400, "nothing was said of it"


def test_people_share_an_inbox_and_an_agents_is_its_own(room: Room) -> None:
    send(room, "for-people")
    send(room, "for-bob", "bob")
    say(room, "for-people", "acknowledged", "eve")
    assert ids(room) == [], "one of them has taken it on"
    say(room, "for-people", "unread", "dan")
    assert ids(room) == ["for-people"], "and another one has put it back for all"
    say(room, "for-bob", "done", "eve")
    assert ids(room, to="bob") == ["for-bob"], "what others say of an agent's mail moves nothing"
    said = say(room, "for-bob", "done", "bob", result={"rows": 3})
    assert ids(room, to="bob") == []
    assert {name: each["state"] for name, each in said["readers"].items()} == {"bob": "done", "eve": "done"}
    assert said["readers"]["bob"]["result"] == {"rows": 3}
    assert (said["state"], said["recipient"]) == ("done", "bob")


def test_what_expires_and_what_is_snoozed_moves_by_itself(room: Room) -> None:
    send(room, "brief", expires_at=NOW / 1000 + 60)
    send(room, "kept", expires_at=NOW / 1000 + 60)
    send(room, "later")
    say(room, "kept", "acknowledged")
    say(room, "later", "snoozed", until=NOW / 1000 + 30)
    counts = room.get("/v1/inbox", counts=True)["counts"]
    assert (counts["unread"], counts["snoozed"], counts["acknowledged"], counts["expired"]) == (1, 1, 1, 0)
    later(room, 30)
    assert ids(room) == ["brief", "later"]
    later(room, 30)
    assert ids(room) == ["later"]
    assert ids(room, "expired") == ["brief"]
    assert ids(room, "acknowledged") == ["kept"], "what was taken on does not expire"
    assert room.get("/v1/messages/brief/delivery")["state"] == "expired"
    say(room, "later", "snoozed")
    later(room, 1e6)
    assert ids(room, "snoozed") == ["later"], "until somebody takes it back"
    say(room, "later", "inbox")
    assert ids(room) == ["later"]


def test_its_sender_alone_withdraws_a_message(room: Room) -> None:
    send(room, "q", kind="question", options=["yes", "no"])
    denied = room.client.post("/v1/messages/q/state", json={"state": "withdrawn", "reader": "boss"})
    assert denied.status_code == 403
    assert say(room, "q", "withdrawn", "ada")["state"] == "withdrawn"
    assert (ids(room), ids(room, "withdrawn")) == ([], ["q"])
    assert say(room, "q", "asked", "ada")["readers"] == {}
    assert ids(room) == ["q"]


def test_nobody_speaks_in_anothers_name_from_his_own_log(room: Room) -> None:
    send(room, "order", "cy")
    forged = [
        ("said", b'{"body":"pay mallory","to":"cy"}', {"collection": "messages", "kind": "message"}),
        ("order", b"{}", {"collection": "messages", "kind": "delete", "flags": records.TOMBSTONE}),
        ("order", b'{"of":"ada","withdrawn":true}', {"collection": "delivery"}),
    ]
    for key, payload, changes in forged:
        mallory = Pen("mallory")
        mallory.put("own", 1)
        mallory.write(key, codec.FMT_JSON, payload, author="ada", **changes)
        verdict = room.append(mallory.segment()).verdicts[0]
        assert (verdict.state, "'ada'" in verdict.reason) == ("denied", True), verdict
        assert room.append(mallory.segment(1, 1)).verdicts[0].state == "ack", "what is his own is taken"
    cy = Pen("cy")
    cy.write("order", codec.FMT_JSON, b'{"of":"ada","state":"read"}', collection="delivery", author="cy")
    assert room.append(cy.segment()).verdicts[0].state == "ack", "who names himself says nothing new"
    assert ids(room, "all", "cy") == ["order"]
    assert [each["sender"] for each in room.get("/query/messages")["messages"]] == ["ada"]
    assert room.get("/v1/messages/order")["state"] == "read"


def test_pages_are_keyset_both_ways_and_counts_are_capped(room: Room) -> None:
    names = [f"m{number:02}" for number in range(25)]
    messages = [
        {"msg_id": name, "sender": "ada", "recipient": "bob", "content": 1, "priority": "hot" if number % 3 else None}
        for number, name in enumerate(names)
    ]
    assert room.client.post("/sync/messages", json={"messages": messages}).status_code == 200
    for order, expected in (("oldest", names), ("newest", names[::-1])):
        found, after = [], ""
        while after is not None:
            page = room.get("/v1/inbox", **{"for": "bob", "order": order, "limit": 7, "after": after})
            found += [each["msg_id"] for each in page["mail"]]
            after = page["next"]
        assert found == expected
    cursor = page["cursor"]
    send(room, "new", "bob")
    assert ids(room, to="bob", after=cursor) == ["new"]
    assert room.get("/v1/inbox", **{"for": "bob", "counts": True})["counts"]["needs"] == 16


def test_one_dedupe_key_of_one_sender_is_one_message(room: Room) -> None:
    def post(sender: str, content: str) -> str:
        body = {"dedupe_key": "daily", "sender": sender, "recipient": "people", "content": content}
        answer = room.client.post("/sync/message", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["msg_id"])

    first = post("ada", "monday")
    assert post("ada", "monday, again") == first
    assert post("bob", "monday") != first
    shown = room.get("/v1/inbox", order="oldest")["mail"]
    assert [(each["sender"], each["content"]) for each in shown] == [("ada", "monday"), ("bob", "monday")]
    both = {"dedupe_key": "k", "msg_id": "m", "content": 1}
    assert room.client.post("/sync/message", json=both).status_code == 400


def test_mail_of_nodes_and_of_any_size_arrives_and_what_is_deleted_is_gone(room: Room) -> None:
    ada, bob = Pen("ada"), Pen("bob")
    for pen in (ada, bob):
        pen.message("same-id", "hello", to="cy")
    ada.message("other", "hello", to="cy")
    room.append(ada.segment(), bob.segment())
    large = {"msg_id": "large", "sender": "ada", "recipient": "cy", "content": "x" * 100_000}
    assert room.client.post("/sync/message", json=large).status_code == 200
    shown = room.get("/v1/inbox", **{"for": "cy", "order": "oldest"})["mail"]
    assert [(each["sender"], each["msg_id"]) for each in shown][:1] == [("ada", "same-id")]
    assert sorted(each["sender"] for each in shown if each["msg_id"] == "same-id") == ["ada", "bob"]
    assert [len(each["content"]) for each in shown if each["msg_id"] == "large"] == [100_000]
    several = room.client.get("/v1/messages/same-id")
    assert (several.status_code, several.json()["error"]["context"]) == (409, {"senders": ["ada", "bob"]})
    say(room, "same-id", "done", "cy", sender="bob")
    assert [(each["sender"]) for each in room.get("/v1/inbox", **{"for": "cy"})["mail"]].count("bob") == 0
    ada.write("other", codec.FMT_JSON, b"{}", collection="messages", kind="delete", flags=records.TOMBSTONE)
    room.append(ada.segment(3))
    assert "other" not in ids(room, "all", "cy")
    assert room.client.get("/v1/messages/other").status_code == 404


def test_a_word_that_comes_before_its_message_counts_and_so_does_all_of_it_made_anew(room: Room) -> None:
    ada, bob = Pen("ada"), Pen("bob")
    bob.put("m1", {"of": "ada", "state": "acknowledged"}, collection="delivery")
    bob.put("m2", {"of": "ada", "state": "bogus"}, collection="delivery")
    bob.put("m2", {"of": "ada", "place": "archived", "until": -1}, collection="delivery")
    bob.put("m2", ["no", "act"], collection="delivery")
    for _ in range(2):
        bob.put("m\1\0", {"of": "ada", "state": "read"}, collection="delivery")
    bob.put("m3", {"of": "a\0da", "state": "read"}, collection="delivery")
    bob.message("n\1\0", "hello", to="bob")
    bob.message("n1", "hello", to="b\0b")
    bob.message("n2", "hello", to=["bob"])
    room.append(bob.segment())
    for name in ("m1", "m2"):
        ada.message(name, "hello", to="bob")
    room.append(ada.segment())
    assert (ids(room, to="bob"), ids(room, "acknowledged", "bob")) == (["m2"], ["m1"])

    def tables() -> list[Any]:
        rows = room.core.corpus.query("SELECT box, msg, sender, needs, tab, was FROM mail ORDER BY pos")
        return [rows, room.core.corpus.query("SELECT msg, sender, reader, reading FROM delivery ORDER BY msg")]

    before = tables()

    def forget(tx: Any) -> None:
        for statement in ("DELETE FROM mail WHERE pos>?", "DELETE FROM delivery WHERE done_pos>=?"):
            tx.sql(statement, (0,))
        tx.set_meta(MAILED, 0)

    room.core.corpus.write(forget)
    while mailbox.fill(room.core.corpus, room.core.home.blobs, lot=1):
        pass
    assert tables() == before


@pytest.mark.parametrize("looked", [True, False])
def test_what_is_erased_is_in_no_inbox(room: Room, looked: bool) -> None:
    ada = Pen("ada")
    secret = ada.message("m1", "secret", to="bob-whose-name-is-secret-too")
    room.append(ada.segment())
    if looked:
        assert ids(room, to="bob-whose-name-is-secret-too") == ["m1"]
    for draft in drafts_of([], [mark_of(secret)], "asked to"):
        ada.write("", draft.fmt, draft.payload, kind=records.REDACT, flags=0)
    room.append(ada.segment(2))
    assert ids(room, "all", to="bob-whose-name-is-secret-too") == []
    assert room.core.corpus.query("SELECT * FROM mail") == []


def test_what_is_erased_while_it_is_taken_up_is_in_no_inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = SqliteCorpus(tmp_path / "c.db", hub=True)
    log = log_of(corpus, tmp_path)
    draft = drafts.message({"body": "secret", "to": "bob"})
    (stored,) = log.append([draft])
    write, erased = corpus.write, list[int]()

    def between(job: Any) -> Any:
        if not erased:
            erased.append(stored.pos)
            erase(log, [], [mark_of(stored.record)])
        return write(job)

    monkeypatch.setattr(corpus, "write", between)
    assert mailbox.fill(corpus, log.blobs) == 1
    assert corpus.query("SELECT * FROM mail") == []
    corpus.close()


def test_the_feed_of_one_recipient_brings_his_messages_alone(room: Room) -> None:
    for number, to in enumerate(("bob", "people", "bob", None)):
        send(room, f"m{number}", to)
    room.client.put("/storage/cache/k", json={"value": 1})
    found = room.get("/v1/feed", to="bob")
    assert [each["key"] for each in found["records"]] == ["m0", "m2"]
    send(room, "m4", "bob")
    send(room, "m5", "eve")
    assert [each["key"] for each in room.get("/v1/feed", to="bob", after=found["cursor"])["records"]] == ["m4"]


def test_a_page_of_a_million_is_walked_by_an_index(room: Room) -> None:
    corpus = room.core.corpus
    if corpus.inline:
        wanted = mailbox.Wanted(box="people", view="open", after=5, newest_first=True)
        asked: list[str] = []
        query = corpus.engine.query
        corpus.engine.query = lambda sql, args=(): asked.append(sql) or query(sql, args)  # type: ignore[method-assign, func-returns-value]
        mailbox.page(corpus, wanted)
        corpus.engine.query = query  # type: ignore[method-assign]
        plan = [row[3] for row in query(f"EXPLAIN QUERY PLAN {asked[0]}", ("", 0, 0, 0, 1) * 4 + (1,))]
        walks = [line for line in plan if "mail" in line]
        assert len(walks) == 4
        assert all("INDEX mail_tab (box=? AND tab=? AND needs=? AND pos<?)" in line for line in walks), plan
    assert mailbox.counts(corpus, "people")["open"] == 0


# -- rights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home", ["directory"], indirect=True)
def test_who_is_written_to_reads_it_whatever_else_he_may(house: House) -> None:
    from holdfast.hub.tokens import SqliteTokens, Wish, create

    store = SqliteTokens(house.home.path)
    for role, wish in {
        "person": Wish(kind="person", name="eve", scopes=("inbox:act",)),
        "bobs": Wish(kind="agent", name="bob", scopes=("inbox:act",)),
        "elsewhere": Wish(kind="agent", name="zoe", collections=("public/*",)),
    }.items():
        house.texts[role] = create(store, wish)[1]
    store.close()
    for name, to in (("p", "people"), ("b", "bob"), ("z", "zoe")):
        body = {"msg_id": name, "content": 1, "recipient": to}
        assert house.ask("owner", "POST", "/sync/message", body).status_code == 200
    boxes = ("people", "bob", "zoe")
    may = {
        role: [house.ask(role, "GET", f"/v1/inbox?for={box}").status_code for box in boxes]
        for role in ("none", "reader", "person", "bobs", "elsewhere")
    }
    assert may == {
        "none": [401] * 3,
        "reader": [200] * 3,
        "person": [200, 403, 403],
        "bobs": [403, 200, 403],
        "elsewhere": [403, 403, 200],
    }
    sees = {role: [house.ask(role, "GET", f"/v1/messages/{name}").status_code for name in "pbz"] for role in may}
    assert sees["person"] == [200, 404, 404]
    assert sees["bobs"] == [404, 200, 404]
    said = house.ask("person", "POST", "/v1/messages/p/state", {"state": "acknowledged"})
    assert (said.status_code, list(said.json()["readers"])) == (200, ["eve"])
    for role, name, reader, status in (
        ("person", "p", "bob", 403),
        ("person", "b", "eve", 404),
        ("bobs", "b", "bob", 200),
        ("elsewhere", "z", "zoe", 403),
        ("reader", "p", "dashboard", 403),
    ):
        answer = house.ask(role, "POST", f"/v1/messages/{name}/state", {"state": "read", "reader": reader})
        assert answer.status_code == status, (role, name, answer.text)
    record = json.loads(house.ask("admin", "GET", "/v1/feed?collection=delivery").text)["records"][0]
    assert (record["agent"], record["author"], record["key"]) == ("eve", "eve", "p")
    assert record["value"] == {"of": "ada", "state": "acknowledged"}
