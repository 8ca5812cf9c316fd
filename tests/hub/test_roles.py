"""Every route and every role: who may do what, and who writes in whose name."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from holdfast import wire
from tests.hub.pens import Pen
from tests.hub.roles import BLOB, DENIED_BY_VERDICT, DIGEST, EXPECTED, FORM, IN_A_NAME, ROLES, House, form, of_ada

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


def asked(house: House, name: str, role: str) -> Any:
    """The answer to what a route's case asks in a role."""
    case, method = EXPECTED[name], name.partition(" ")[0]
    path = f"{case.path}?{of_ada(house)}" if case.path == "/v1/pull" else case.path.replace("*", role)
    path = re.sub("<(.*)>", lambda found: house.files[found[1]], path)
    return house.ask(role, method, path, case.body(house, role), **case.headers)


def test_every_route_knows_every_role(furnished: House) -> None:
    house = furnished
    names = [f"{operation.method} {operation.path}" for operation in house.operations]
    assert sorted(names) == sorted(EXPECTED), "a route without its expectations, or the other way round"
    got = {}
    for name, case in EXPECTED.items():
        answers = [asked(house, name, role) for role in ROLES]
        got[name] = tuple(outcome(answer, case.path) for answer in answers)
        for answer, status in zip(answers, got[name], strict=True):
            if answer.status_code in (401, 403) and not name.startswith("HEAD"):
                assert answer.json()["error"]["code"] == {401: "unauthenticated", 403: "denied"}[status], name
    assert got == {name: case.statuses for name, case in EXPECTED.items()}


def test_a_stranger_learns_no_more_than_nobody(house: House) -> None:
    house.texts["stranger"] = house.texts["owner"][:-3] + "abc"
    house.texts["forged"] = house.texts["owner"].replace(house.texts["owner"].split("_")[3], "0" * 43)
    for name, case in EXPECTED.items():
        method = name.partition(" ")[0]
        body = case.body(house, "none")
        nobody, *strangers = (
            house.ask(role, method, case.path.replace("*", "owner"), body, **case.headers)
            for role in ("none", "stranger", "forged")
        )
        assert [each.status_code for each in strangers] == [nobody.status_code] * 2, name
    for role in ("none", "stranger"):
        assert house.ask(role, "GET", "/no/such/path").status_code == 401
        assert house.ask(role, "DELETE", "/v1/feed").status_code == 401


# -- writing as another -----------------------------------------------------------------------------------------


def test_nobody_writes_in_anothers_name_anywhere(furnished: House) -> None:
    house = furnished
    before = house.core.corpus.last()
    # Another agent, a node of other agents, and a service that writes for a third; each asks for what is ada's.
    for role in ("none", "reader", "other", "eves", "zoes"):
        got = {name: outcome(asked(house, name, role), EXPECTED[name].path) for name in IN_A_NAME}
        assert got == dict.fromkeys(IN_A_NAME, 401 if role == "none" else 403), role
        assert house.core.corpus.last() == before, role
    for name in ("other", "eves", "zoes"):
        shown = house.ask("owner", "GET", f"/storage/artifacts/artifact_{name}/content")
        assert shown.content == name.encode()


def test_an_upload_is_only_there_for_whoever_began_it(house: House) -> None:
    upload = house.ask("other", "POST", "/sync/uploads").json()["upload_id"]
    path = f"/sync/uploads/{upload}"
    assert house.ask("other", "PATCH", path, BLOB, Upload_Offset="0").status_code == 200
    ends = {"agent_id": "ada", "sha256": DIGEST}
    for method, where, body in (
        ("GET", path, None),
        ("HEAD", path, None),
        ("PATCH", path, b"more"),
        ("POST", f"{path}/finish", ends),
        ("DELETE", path, None),
    ):
        there = house.ask("owner", method, where, body, Upload_Offset=str(len(BLOB)))
        nowhere = house.ask("owner", method, where.replace(upload, "0" * 32), body, Upload_Offset=str(len(BLOB)))
        assert (there.status_code, nowhere.status_code) == (404, 404), (method, there.text)
        assert there.text.replace(upload, "0" * 32) == nowhere.text
        assert house.ask("keeper", method, where, body, Upload_Offset="0").status_code == 403, "no files for it at all"
    assert house.ask("other", "POST", f"{path}/finish", ends).status_code == 403, "its own, but in another's name"
    done = house.ask("other", "POST", f"{path}/finish", {"sha256": DIGEST})
    assert done.status_code == 200, done.text
    found = house.ask("reader", "GET", f"/sync/files/{done.json()['file_id']}/meta").json()
    assert (found["agent_id"], found["size"]) == ("bob", len(BLOB)), "whose token it is, as none was named"


def test_no_message_keeps_anothers_request_from_being_carried_out(house: House) -> None:
    bob = house.pens["bob"]
    taken = ("relay:ada:r1", "file:ada:f1", "decide:d1")
    for msg_id in taken:
        assert house.ask("other", "POST", "/sync/message", {"msg_id": msg_id, "content": 1}).status_code == 200
    bob.message("relay:ada:r2", "by a node")
    assert house.append("other", bob.segment(1)).verdicts[0].state == "ack"
    for number in ("r1", "r2"):
        row = {"agent_id": "ada", "table": "t", "data": {"id": number}, "msg_id": number}
        assert [house.ask("owner", "POST", "/relay/immediate", row).status_code for _ in range(2)] == [200, 200]
    rows = house.ask("reader", "POST", "/relay/query", {"table": "t"}).json()["rows"]
    assert [each["id"] for each in rows] == ["r1", "r2"]
    body = form("f", "ada").replace(
        b"--x--", b'--x\r\nContent-Disposition: form-data; name="msg_id"\r\n\r\nf1\r\n--x--'
    )
    told = [house.ask("owner", "POST", "/sync/files", body, **FORM).json()["status"] for _ in range(2)]
    assert told == ["stored", "duplicate"]
    decided = {"agent": "ada", "collection": "claims", "key": "k", "value": 1, "id": "d1"}
    assert house.ask("owner", "POST", "/v1/decide", decided).status_code == 200


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


def test_only_administrators_have_the_hub_write_what_is_its_own(house: House) -> None:
    rule = {"address": "https://ntfy.example/topic"}
    assert house.ask("admin", "PUT", "/v1/notify/phone", rule).status_code == 201
    ended = {"agent": "ada", "collection": "notify", "key": "phone", "delete": True}
    assert house.ask("owner", "POST", "/v1/decide", ended).status_code == 403
    said = {"version": 1, "conflict": "cas"}
    assert house.ask("owner", "PUT", "/v1/collections/notify/schema?agent=ada", said).status_code == 200
    item = "/v1/collections/notify/items/phone?agent=ada"
    assert house.ask("owner", "PUT", item, {"value": {"on": False}}).status_code == 403
    assert house.ask("owner", "DELETE", item).status_code == 403
    assert [each["name"] for each in house.ask("admin", "GET", "/v1/notify").json()["rules"]] == ["phone"]
    assert house.ask("admin", "POST", "/v1/decide", ended).status_code == 200
