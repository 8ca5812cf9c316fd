"""Notifications out: told to a machine elsewhere, at least once and under one id, when and as the rule says."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast.corpus.space import Reserve
from holdfast.hub.app import create_app
from holdfast.hub.database import HubDatabase
from holdfast.hub.directory import HubDirectory
from holdfast.hub.notify import outbox
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess, until
from tests.hub.receivers import Came, Receiver
from tests.services import shared_postgres

HOUR_MS = 3_600_000
NOON_MS = 1_795_348_800_000
"""2026-11-22 12:00 UTC."""
HERE = ("127.0.0.1",)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Somebody who listens."""
    made = Receiver()
    yield made
    made.close()


class Teller:
    """A hub inside the test that may notify this machine, by a clock that stands still."""

    def __init__(self, client: TestClient, clock: SettableClock) -> None:
        self.client, self.clock = client, clock
        self.core = client.app.state.core  # type: ignore[attr-defined]

    def rule(self, name: str, address: str = "", status: int = 201, **more: Any) -> Any:
        """Makes or changes a rule."""
        body = {**({"address": address} if address else {}), **more}
        answer = self.client.put(f"/v1/notify/{name}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def say(self, msg_id: str, kind: str = "question", content: Any = "a secret word", **more: Any) -> None:
        """Posts a message to people."""
        body = {"msg_id": msg_id, "sender": "ada", "recipient": "people", "kind": kind, "content": content, **more}
        answer = self.client.post("/sync/message", json=body)
        assert answer.status_code == 200, answer.text

    def kick(self) -> None:
        """Has it look at once."""
        self.client.portal.call(self.core.notifying.kick)  # type: ignore[union-attr]

    def state(self) -> Any:
        """The rules and what was given up."""
        return self.client.get("/v1/notify").json()

    def waiting(self) -> list[outbox.Notice]:
        """What is still to be told."""
        return outbox.letters(self.core.corpus, outbox.WAITING, 100)

    def taken_up(self) -> None:
        """Waits until the rules were asked about the newest record, which is a message."""
        wanted = self.core.corpus.last()
        self.kick()
        until(lambda: (self.core.corpus.meta(outbox.TOLD) or 0) >= wanted, "the rules were asked")


@contextlib.contextmanager
def telling(home: Any, clock: SettableClock, **options: Any) -> Iterator[Teller]:
    """A hub that is served inside the test."""
    app = create_app(home, **{"notify_hosts": HERE, "scan_s": 0, **options})
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Teller(client, clock)


def directory(path: Path, clock: SettableClock) -> HubDirectory:
    """A hub's directory whose disk is never too full."""
    return HubDirectory(path / "hub", settle="acked", wall=clock, reserve=Reserve(path, floor_bytes=0, ballast_bytes=0))


@pytest.fixture(params=["directory", "database"])
def teller(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Teller]:
    """A hub in a directory, and one in a database."""
    clock = SettableClock(NOON_MS)
    if request.param == "database":
        home: Any = HubDatabase(shared_postgres().corpus(), settle="acked", wall=clock)
    else:
        home = directory(tmp_path, clock)
    with telling(home, clock) as made:
        yield made


def signed(came: Came, secret: str) -> bool:
    """Whether a webhook bears the signature of whoever has this key."""
    head = f"{came.headers['webhook-id']}.{came.headers['webhook-timestamp']}.".encode()
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mine = "v1," + base64.b64encode(hmac.digest(key, head + came.body, "sha256")).decode()
    return hmac.compare_digest(mine, came.headers["webhook-signature"])


def test_what_needs_a_person_is_told_and_nothing_else_leaves(teller: Teller, receiver: Receiver) -> None:
    teller.say("before")
    made = teller.rule("ops", f"{receiver.url}/hook?key=T0P", link="http://hub.lan:8084/")
    assert made["secret"].startswith("whsec_")
    assert made["rule"]["where"] == receiver.url
    teller.say("idle", "note")
    teller.say("q/1", thread="t1")
    until(lambda: receiver.came, "it came")
    came = receiver.came[0]
    assert came.path == "/hook?key=T0P"
    assert signed(came, made["secret"])
    assert not signed(came, "whsec_" + base64.b64encode(bytes(32)).decode())
    said = came.json
    (told,) = said.pop("messages")
    assert (said["type"], said["rule"], said["count"], said["id"]) == ("messages", "ops", 1, came.headers["webhook-id"])
    assert (told["id"], told["sender"], told["kind"]) == ("q/1", "ada", "question")
    assert told["link"] == "http://hub.lan:8084/messages/q%2F1"
    assert b"secret word" not in came.body
    # The rule is a record with a history, and says nothing that is secret.
    record = teller.client.get("/v1/latest", params={"agent": "hub", "collection": "notify", "key": "ops"})
    assert record.status_code == 200
    assert "T0P" not in record.text
    assert made["secret"] not in record.text
    again = teller.rule("ops", status=200, form="ntfy", body=True, kinds=["note"])
    assert (again["secret"], again["rule"]["version"]) == (None, 2)
    teller.say("q2")
    teller.say("n2", "note", content="in full")
    until(lambda: len(receiver.came) == 2, "the second came")
    assert (receiver.came[1].body, receiver.came[1].headers["title"]) == (b"in full", "note from ada")
    until(lambda: teller.state()["rules"][0]["sent"] == 2, "both are noted")
    assert teller.client.delete("/v1/notify/ops").status_code == 200
    assert teller.state()["rules"] == []
    assert teller.client.get("/v1/notify/ops").status_code == 405


def test_what_comes_in_quiet_hours_waits_and_comes_as_one(teller: Teller, receiver: Receiver) -> None:
    teller.rule("ops", receiver.url, quiet="12:00-13:00", zone="UTC")
    for number in range(60):
        teller.say(f"q{number}")
    teller.taken_up()
    (waits,) = teller.waiting()
    assert (waits.many, waits.next_ms, len(waits.positions)) == (60, NOON_MS + HOUR_MS, 50)
    teller.clock.advance(3_599)
    teller.kick()
    teller.say("last")
    teller.taken_up()
    assert receiver.came == []
    teller.clock.advance(1)
    teller.kick()
    until(lambda: receiver.came, "they came")
    assert (receiver.came[0].json["count"], len(receiver.came[0].json["messages"])) == (61, 50)


def test_a_rate_holds_back_and_tells_of_the_rest_together(teller: Teller, receiver: Receiver) -> None:
    teller.rule("ops", receiver.url, rate=1)
    teller.say("q1")
    until(lambda: len(receiver.came) == 1, "the first came")
    until(lambda: not teller.waiting(), "it is noted")
    teller.say("q2")
    teller.say("q3")
    teller.taken_up()
    until(lambda: [each.many for each in teller.waiting()] == [2], "both wait")
    assert teller.waiting()[0].due_ms == NOON_MS + HOUR_MS
    teller.clock.advance(3_600)
    teller.kick()
    until(lambda: len(receiver.came) == 2, "the rest came")
    assert [each["id"] for each in receiver.came[1].json["messages"]] == ["q2", "q3"]


def test_what_is_not_taken_is_seen_tried_given_up_and_sent_again(teller: Teller, receiver: Receiver) -> None:
    receiver.answer = lambda number: (503, {"Retry-After": "30"}) if number < 3 else (500, {})
    teller.rule("ops", receiver.url)
    teller.say("q1")
    until(lambda: receiver.came, "the first try")
    until(lambda: teller.waiting() and teller.waiting()[0].said, "it is noted")
    assert teller.waiting()[0].next_ms == NOON_MS + 30_000
    teller.clock.advance(30)
    teller.kick()
    until(lambda: len(receiver.came) == 2, "the second try")

    def warned(what: str) -> bool:
        return any(what in each for each in teller.client.get("/readyz").json()["warnings"])

    until(lambda: warned("the rule ops are not taken: it answered 503"), "it is seen")
    teller.clock.advance(25 * 3_600)
    teller.kick()
    until(lambda: teller.state()["given_up"], "it is given up")
    (letter,) = teller.state()["given_up"]
    assert (letter["rule"], letter["messages"], letter["tries"], letter["why"]) == ("ops", 1, 3, "it answered 500")
    until(lambda: warned("1 notification was given up"), "that is seen, too")
    until(lambda: "1 notification was given up" in teller.client.get("/", headers={"Accept": "text/html"}).text, "…")
    assert "holdfast_notifications_given_up 1.0" in teller.client.get("/metrics").text
    receiver.answer = lambda number: (200, {})
    assert teller.client.post("/v1/letters", json={"what": "retry", "ids": [letter["id"]]}).json() == {"count": 1}
    until(lambda: len(receiver.came) == 4, "it is sent again")
    assert len({each.headers["webhook-id"] for each in receiver.came}) == 1
    until(lambda: not warned("given up"), "all is well")
    until(lambda: teller.state()["rules"][0]["sent"] == 1, "it is noted")


def test_a_redirect_is_not_followed_and_an_address_that_is_not_allowed_not_reached(
    tmp_path: Path, receiver: Receiver
) -> None:
    elsewhere = Receiver()
    receiver.answer = lambda number: (307, {"Location": f"{elsewhere.url}/"})
    clock = SettableClock(NOON_MS)
    with telling(directory(tmp_path, clock), clock) as teller:
        teller.rule("ops", receiver.url)
        teller.rule("local", elsewhere.url.replace("127.0.0.1", "localhost"), senders=["nobody"])
        tried = teller.client.post("/v1/notify/ops/test").json()
        assert (tried["ok"], tried["status"], "redirects are not followed" in tried["said"]) == (False, 307, True)
        teller.say("q1")
        until(lambda: teller.state()["given_up"], "it is given up at once")
        assert teller.client.post("/v1/letters", json={"what": "drop"}).json() == {"count": 1}
        receiver.answer = lambda number: (204, {})
        assert teller.client.post("/v1/notify/ops/test").json() == {"ok": True, "status": 204, "said": ""}
        assert receiver.came[-1].json["type"] == "test"
        assert teller.client.post("/v1/notify/none/test").status_code == 404
        many = len(receiver.came)
    with telling(directory(tmp_path, clock), clock, notify_hosts=()) as teller:
        for name in ("ops", "local"):
            tried = teller.client.post(f"/v1/notify/{name}/test").json()
            assert (tried["ok"], "is not a public address" in tried["said"]) == (False, True), "loopback is not"
        assert len(receiver.came) == many
        assert elsewhere.came == []
    elsewhere.close()


def test_a_rule_changed_by_who_may_not_sends_nothing_anywhere(tmp_path: Path, receiver: Receiver) -> None:
    clock = SettableClock(NOON_MS)
    with telling(directory(tmp_path, clock), clock) as teller:
        teller.rule("ops", receiver.url)
        where = {"agent": "hub", "collection": "notify", "key": "ops"}
        value = teller.client.get("/v1/latest", params=where).json()["value"]
        wish = {"agent": "eve", "collection": "notify", "key": "ops", "value": {**value, "body": True}}
        assert teller.client.post("/v1/decide", json=wish).status_code == 200
        teller.say("q1")
        until(lambda: teller.state()["given_up"], "it is given up")
        assert "does not open" in teller.state()["rules"][0]["trouble"]
        assert receiver.came == []
        teller.rule("ops", receiver.url, status=200)
        assert teller.client.post("/v1/letters", json={"what": "retry"}).json() == {"count": 1}
        until(lambda: receiver.came, "its administrator made it good")


def test_what_was_erased_since_is_not_told(tmp_path: Path, receiver: Receiver) -> None:
    clock = SettableClock(NOON_MS)
    with telling(directory(tmp_path, clock), clock) as teller:
        teller.rule("ops", receiver.url, quiet="12:00-13:00", body=True)
        teller.say("q1", content="hide me")
        teller.say("q2", content="show me")
        teller.taken_up()
        pos = teller.waiting()[0].positions[0]
        teller.core.corpus.write(lambda tx: tx.drop_body(pos, 3))
        teller.clock.advance(3_600)
        teller.kick()
        until(lambda: receiver.came, "it came")
        said = receiver.came[0].json
        assert ([each["id"] for each in said["messages"]], b"hide me" in receiver.came[0].body) == (["q2"], False)


def test_a_hub_that_dies_between_sending_and_noting_sends_again_under_the_same_id(
    tmp_path: Path, receiver: Receiver
) -> None:
    hub = HubProcess(tmp_path / "hub", notify_hosts=list(HERE))
    try:
        receiver.hook = lambda came: hub.kill() if len(receiver.came) == 1 else None
        put(hub.url, receiver.url)
        post(hub.url, "q1")
        until(lambda: receiver.came and hub._process is None, "it is dead, and its message was sent")
        hub.start()
        until(lambda: len(receiver.came) == 2, "it is sent again")
        ids = {each.headers["webhook-id"] for each in receiver.came}
        assert (len(ids), receiver.came[0].json["messages"]) == (1, receiver.came[1].json["messages"])
        until(lambda: listed(hub.url)["rules"][0]["sent"] == 1, "once is noted")
        hub.stop()
        hub.start()
        post(hub.url, "q2")
        until(lambda: len(receiver.came) == 3, "the next came")
        assert [each["id"] for each in receiver.came[2].json["messages"]] == ["q2"], "and the first not again"
    finally:
        hub.kill()


def test_of_several_processes_each_message_is_told_by_one(tmp_path: Path, receiver: Receiver) -> None:
    database = shared_postgres().corpus()
    hubs = [HubProcess(tmp_path / f"hub{n}", database=database, notify_hosts=list(HERE)) for n in range(2)]
    try:
        put(hubs[0].url, receiver.url, rate=3_600)
        for number in range(30):
            post(hubs[number % 2].url, f"q{number}")
        wanted = {f"q{number}" for number in range(30)}

        def told() -> list[str]:
            return [each["id"] for came in list(receiver.came) for each in came.json["messages"]]

        until(lambda: set(told()) >= wanted, "all are told")
        until(lambda: listed(hubs[1].url)["rules"][0]["waiting"] == 0, "and noted")
        assert sorted(told()) == sorted(wanted), "none twice"
        hubs[0].kill()
        post(hubs[1].url, "later")
        until(lambda: "later" in told(), "whoever is left goes on", 60)
    finally:
        for hub in hubs:
            hub.kill()


def put(url: str, address: str, **more: Any) -> None:
    """Makes the rule ops."""
    _ask(url, "PUT", "/v1/notify/ops", {"address": address, **more})


def post(url: str, msg_id: str) -> None:
    """Posts a question."""
    _ask(url, "POST", "/sync/message", {"msg_id": msg_id, "recipient": "people", "kind": "question", "content": 1})


def listed(url: str) -> Any:
    """The rules."""
    return _ask(url, "GET", "/v1/notify")


def _ask(url: str, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())
