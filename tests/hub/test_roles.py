"""Every route and every role: who may do what, and what nobody who may not see it learns in any way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from holdfast import wire
from holdfast.hub.directory import HubDirectory
from tests.hub.pens import Pen
from tests.hub.roles import BLOB, CANARY, DENIED_BY_VERDICT, DIGEST, EXPECTED, ROLES, House, deleted, of_ada


@pytest.fixture
def house(home: HubDirectory) -> Iterator[House]:
    """A hub with a record of ada's, one of bob's, and a blob."""
    for opened in House(home).open():
        for name, pen in opened.pens.items():
            pen.put("k", 1)
            assert opened.append({"ada": "owner", "bob": "other"}[name], pen.segment()).verdicts[0].state == "ack"
        assert opened.ask("owner", "PUT", f"/v1/blobs/{DIGEST}", BLOB).status_code == 201
        yield opened


# -- every route ------------------------------------------------------------------------------------------------


def outcome(answer: Any, path: str) -> int:
    """The status that counts."""
    if answer.status_code != 200 or path not in DENIED_BY_VERDICT:
        return int(answer.status_code)
    if path == "/v1/append":
        (verdict,) = wire.decode(wire.AppendAnswer, answer.content).verdicts
        return {"denied": 403, "ack": 200}[verdict.state]
    (told,) = answer.json()["verdicts"]
    if told["status"] != "rejected":
        return 200
    return {"denied": 403}[told["error"]["code"]]


def test_every_route_knows_every_role(house: House) -> None:
    names = [f"{operation.method} {operation.path}" for operation in house.operations]
    assert sorted(names) == sorted(EXPECTED), "a route without its expectations, or the other way round"
    got = {}
    for name, case in EXPECTED.items():
        method, path, answers = name.partition(" ")[0], case.path, []
        for role in ROLES:
            what = house.fresh(path, role)  # so that what one takes away is there for the next
            asked = f"{path}?{of_ada(house)}" if path == "/v1/pull" else path.replace("{n}", what)
            answers.append(house.ask(role, method, asked, case.body(house, what), **case.headers))
        got[name] = tuple(outcome(answer, path) for answer in answers)
        for answer, status in zip(answers, got[name], strict=True):
            if answer.status_code in (401, 403) and method != "HEAD":
                assert answer.json()["error"]["code"] == {401: "unauthenticated", 403: "denied"}[status], name
    assert got == {name: case.statuses for name, case in EXPECTED.items()}


def test_a_stranger_learns_no_more_than_nobody(house: House) -> None:
    house.texts["stranger"] = house.texts["owner"][:-3] + "abc"
    house.texts["forged"] = house.texts["owner"].replace(house.texts["owner"].split("_")[3], "0" * 43)
    for name, case in EXPECTED.items():
        method = name.partition(" ")[0]
        body = case.body(house, "none") if case.body is not deleted else None
        nobody, *strangers = (
            house.ask(role, method, case.path.replace("{n}", "1"), body, **case.headers)
            for role in ("none", "stranger", "forged")
        )
        assert [each.status_code for each in strangers] == [nobody.status_code] * 2, name
    for role in ("none", "stranger"):
        assert house.ask(role, "GET", "/no/such/path").status_code == 401
        assert house.ask(role, "DELETE", "/v1/feed").status_code == 401


# -- writing as another -----------------------------------------------------------------------------------------


def test_nothing_of_what_was_refused_was_written(house: House) -> None:
    before = house.core.corpus.last()
    for role in ("none", "reader", "other"):
        for name, case in EXPECTED.items():
            method, path = name.split()
            if method in ("POST", "PUT") and case.statuses[2] == 403 and not path.startswith("/storage"):
                assert outcome(house.ask(role, method, path, case.body(house, role), **case.headers), path) in (
                    401,
                    403,
                )
    assert house.core.corpus.last() == before


def test_a_batch_of_many_senders_loses_only_the_others(house: House) -> None:
    batch = {"batch_id": "b", "messages": [{"sender": name, "content": name} for name in ("bob", "ada", "eve")]}
    told = house.ask("owner", "POST", "/sync/messages", batch).json()["verdicts"]
    assert [each["status"] for each in told] == ["rejected", "stored", "rejected"]
    assert "agent ada may not write as the agent 'bob'" in told[0]["error"]["message"]
    rows = [{"agent_id": name, "table": "t", "data": {"id": name}} for name in ("ada", "bob")]
    told = house.ask("owner", "POST", "/relay/batch", {"operations": rows}).json()
    assert (told["count"], [each["status"] for each in told["verdicts"]]) == (1, ["stored", "rejected"])


def test_a_message_without_a_sender_is_the_agents_who_shows_its_token(house: House) -> None:
    assert house.ask("owner", "POST", "/sync/message", {"msg_id": "m", "content": 1}).status_code == 200
    batch = {"node_id": "laptop", "messages": [{"msg_id": "n", "content": 2}]}
    assert house.ask("owner", "POST", "/sync/messages", batch).json()["verdicts"][0]["status"] == "stored"
    found = house.ask("reader", "GET", "/query/messages?agent=ada").json()["messages"]
    assert [(each["msg_id"], each["sender"]) for each in found] == [("n", "ada"), ("m", "ada")]
    assert house.ask("admin", "POST", "/sync/message", {"msg_id": "o", "content": 1}).status_code == 200
    assert house.ask("reader", "GET", "/v1/latest?agent=anonymous&collection=messages&key=o").status_code == 200


def test_one_stream_that_is_denied_does_not_hold_up_the_others(house: House) -> None:
    ada, bob = house.pens["ada"], house.pens["bob"]
    ada.put("k", 2)
    bob.put("k", 2)
    answer = house.append("owner", bob.segment(2), ada.segment(2))
    assert [(verdict.state, verdict.stream) for verdict in answer.verdicts] == [
        ("denied", bob.stream),
        ("ack", ada.stream),
    ]
    assert "agent ada may not write as the agent 'bob'" in answer.verdicts[0].reason
    assert house.append("owner", bob.segment(2)).verdicts[0].state == "denied"
    assert house.ask("reader", "GET", "/v1/latest?agent=bob&key=k").json()["value"] == 1
    assert house.append("other", bob.segment(2)).verdicts[0].state == "ack"


def test_a_stolen_token_without_the_key_extends_nothing_and_the_key_without_a_token_neither(house: House) -> None:
    ada = house.pens["ada"]
    thief = Pen("ada")
    thief.put("k", "stolen")
    stolen = msgspec.structs.replace(thief.segment(), stream=ada.stream, public_key=ada.public_key)
    assert house.append("owner", stolen).verdicts[0].state == "denied", "the signature is another key's"
    house.append("owner", thief.segment())
    streams = house.ask("admin", "GET", "/v1/agents?limit=1").json()["agents"][0]["streams"]
    assert {each["stream"]: each["seq"] for each in streams} == {ada.stream.hex(): 1, thief.stream.hex(): 1}
    ada.put("k", 2)
    message = wire.Append(house.core.home.gen, 7, [ada.segment(2)], "node-1")
    for role, status in (("none", 401), ("reader", 403)):
        answer = house.ask(role, "POST", "/v1/append", wire.encode(message), Content_Type=wire.MEDIA)
        assert answer.status_code == status


def test_a_push_that_is_replayed_adds_nothing_whoever_sends_it(house: House) -> None:
    ada = house.pens["ada"]
    ada.put("k", 2)
    push = ada.segment(1)
    assert house.append("owner", push).verdicts[0].state == "ack"
    last, latest = house.core.corpus.last(), house.ask("reader", "GET", "/v1/latest?agent=ada&key=k").content
    for role in ("owner", "admin", "appender"):
        assert house.append(role, push, push).verdicts[0].state == "ack"
    assert house.append("other", push).verdicts[0].state == "denied"
    assert house.core.corpus.last() == last
    assert house.ask("reader", "GET", "/v1/latest?agent=ada&key=k").content == latest


def test_globs_bound_what_a_node_writes(house: House) -> None:
    eve, mallory = Pen("eve-1"), Pen("mallory")
    for pen in (eve, mallory):
        pen.put("k", 1, collection="public/news")
    answer = house.append("narrow", eve.segment(), mallory.segment())
    assert [verdict.state for verdict in answer.verdicts] == ["ack", "denied"]
    eve.put("k", 1, collection="private")
    denied = house.append("narrow", eve.segment(2)).verdicts[0]
    assert (denied.state, denied.reason) == ("denied", "node narrow may not write to 'private'")
    row = {"agent_id": "eve-1", "table": "public", "data": {"id": 1}}
    assert house.ask("narrow", "POST", "/relay/immediate", row).status_code == 403
    assert house.ask("narrow", "POST", "/sync/message", {"sender": "ada", "content": 1}).status_code == 403
    decided = {"agent": "ada", "collection": "public/claims", "key": "k", "value": 1}
    assert house.ask("narrow", "POST", "/v1/decide", decided).status_code == 200
    assert house.ask("narrow", "POST", "/v1/decide", {**decided, "agent": "zoe"}).status_code == 403
    assert house.ask("narrow", "POST", "/v1/decide", {**decided, "collection": "state"}).status_code == 403


# -- reading ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hiding(house: House) -> House:
    """The same hub with public records among many that say canary in every place that a record has."""
    secret = Pen(f"{CANARY}-agent")
    shared = Pen("shared")
    for number in range(30):
        secret.put(f"{CANARY}-{number}", f"{CANARY} word", collection=f"{CANARY}-collection")
        shared.put(f"{CANARY}-{number}", {"text": f"{CANARY} word"}, collection=f"table/{CANARY}")
        if number % 10 == 0:
            shared.put(f"open-{number}", "word", collection="public/news")
    for pen in (secret, shared):
        assert house.append("admin", pen.segment()).verdicts[0].state == "ack"
    for sender in ("shared", f"{CANARY}-agent"):
        post = {"msg_id": f"{CANARY}-{sender}", "sender": sender, "content": f"{CANARY} word"}
        assert house.ask("admin", "POST", "/sync/message", post).status_code == 200
    for table in ("public-1", f"{CANARY}-rows"):
        row = {"agent_id": "shared", "table": table, "data": {"id": "r-1", "at": table}}
        assert house.ask("admin", "POST", "/relay/immediate", row).status_code == 200
    house.ask("admin", "POST", "/v1/hello", wire.encode(secret.hello()), Content_Type=wire.MEDIA)
    house.ask("admin", "POST", "/v1/hello", wire.encode(shared.hello()), Content_Type=wire.MEDIA)
    house.pens |= {"secret": secret, "shared": shared}
    return house


def test_whoever_reads_public_collections_finds_all_of_them_and_nothing_else(hiding: House) -> None:
    def keys(path: str) -> list[str]:
        out: list[str] = []
        after = None
        while True:
            found = hiding.ask("public", "GET", f"{path}&limit=2" + (f"&after={after}" if after else "")).json()
            out += [each["key"] for each in found["records"]]
            after = found.get("next") or (None if found.get("caught_up", True) else found["cursor"])
            if not after:
                return out

    wanted = ["open-0", "open-10", "open-20", "r-1"]
    assert keys("/v1/feed?") == wanted
    assert keys("/v1/records?order=oldest") == wanted
    assert keys("/v1/records?") == wanted[::-1]
    assert keys("/v1/records?agent=shared&collection=public/news") == wanted[2::-1]
    found = hiding.ask("public", "GET", "/v1/search?q=word").json()
    assert [each["key"] for each in found["records"]] == wanted[2::-1]
    assert hiding.ask("public", "GET", "/v1/agents").json() == {
        "agents": [{"agent": "shared", "streams": []}],
        "next": None,
    }
    nodes = hiding.ask("public", "GET", "/v1/nodes").json()
    assert ([each["agents"] for each in nodes["nodes"]], nodes["total"]) == ([["shared"]], 1)
    assert hiding.ask("public", "POST", "/relay/query", {"table": "public-1"}).json()["count"] == 1
    assert hiding.ask("public", "GET", "/v1/latest?agent=shared&collection=public/news&key=open-0").status_code == 200
    assert hiding.ask("public", "GET", "/v1/history?agent=shared&collection=public/news&key=open-0").status_code == 200


def test_what_is_hidden_shows_nowhere_and_its_absence_looks_the_same(hiding: House) -> None:
    where = f"agent={CANARY}-agent&collection={CANARY}-collection"
    secret = hiding.pens["secret"]
    asked = [
        "/v1/feed?limit=500",
        f"/v1/feed?agent={CANARY}-agent",
        f"/v1/feed?prefix={CANARY}",
        "/v1/feed?format=json&wait=0&after=now",
        "/v1/records?limit=1000",
        f"/v1/records?agent={CANARY}-agent",
        f"/v1/records?key={CANARY}-1",
        f"/v1/search?q={CANARY}",
        "/v1/search?q=word&limit=1000",
        "/v1/agents",
        "/v1/nodes",
        "/health",
        "/readyz",
    ]
    for path in asked:
        answer = hiding.ask("public", "GET", path)
        assert answer.status_code == 200, (path, answer.text)
        assert CANARY not in answer.text.replace(f'"message":"{CANARY}', ""), path
    # What names a hidden collection is denied whether anything lies there or not.
    for path in (
        f"/v1/latest?{where}&key={CANARY}-1",
        f"/v1/history?{where}&key={CANARY}-1",
        f"/v1/keys?{where}",
        f"/v1/records?collection={CANARY}-collection",
        f"/v1/search?q=word&collection={CANARY}-collection",
        f"/v1/feed?collection={CANARY}-collection",
        f"/v1/feed?collection=public/news&collection={CANARY}-collection",
        f"/v1/heads?nonce={'ab' * 16}",
        "/query/messages",
        "/v1/count",
        f"/v1/count?agent={CANARY}-agent",
        f"/query/messages?agent={CANARY}-agent",
    ):
        there = hiding.ask("public", "GET", path)
        nowhere = hiding.ask("public", "GET", path.replace(CANARY, "nothing"))
        assert (there.status_code, nowhere.status_code) == (403, 403), path
        assert there.text.replace(CANARY, "nothing") == nowhere.text, path
    number = hiding.session()
    for path in ("", "sessions/session_", "state/session_", "history?session_id=session_", "artifacts/artifact_"):
        answers = [hiding.ask("public", "GET", f"/storage/{path or 'metrics?limit='}{each}") for each in (number, "99")]
        assert [each.status_code for each in answers] == [403, 403], path
        assert answers[0].text.replace(f"_{number}", "_99") == answers[1].text
    for table in (CANARY, "nothing"):
        assert hiding.ask("public", "POST", "/relay/query", {"table": table}).status_code == 403
    pull = f"/v1/pull?stream={secret.stream.hex()}&inc={secret.inc.hex()}"
    for role in ("public", "narrow"):
        there, nowhere = (hiding.ask(role, "GET", each) for each in (pull, pull.replace(secret.inc.hex(), "0" * 32)))
        assert (there.status_code, nowhere.status_code) == (404, 404)
        assert there.text.replace(secret.inc.hex(), "0" * 32) == nowhere.text
    assert hiding.ask("admin", "GET", pull).status_code == 200


def test_a_live_feed_shows_what_may_be_seen_alone(hiding: House) -> None:
    shared = hiding.pens["shared"]
    cursor = hiding.ask("public", "GET", "/v1/feed?after=now").json()["cursor"]
    shared.put("live-1", f"{CANARY}", collection=f"table/{CANARY}")
    shared.put("live-2", "seen", collection="public/news")
    first = shared.head.seq - 1
    assert hiding.append("admin", shared.segment(first)).verdicts[0].state == "ack"
    found = hiding.ask("public", "GET", f"/v1/feed?wait=20&after={cursor}")
    assert [each["key"] for each in found.json()["records"]] == ["live-2"]
    assert CANARY not in found.text


def test_scopes_are_kept_apart(house: House) -> None:
    for method, path, body in (
        ("GET", "/v1/records", None),
        ("GET", "/v1/feed", None),
        ("POST", "/sync/message", {"content": 1}),
    ):
        refused = house.ask("appender", method, path, body)
        assert refused.status_code == 403
        assert refused.json()["error"]["context"]["scope"].startswith("records:")
    pull = f"/v1/pull?{of_ada(house)}"
    assert house.ask("appender", "GET", pull).status_code == 200, "a node takes back what is its agents'"
