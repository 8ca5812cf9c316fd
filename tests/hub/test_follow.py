"""A hub that follows another comes to hold all that it holds, as proven as if nodes had brought it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import records, wire
from holdfast.corpus import SqliteCorpus
from holdfast.corpus.postgres import PostgresCorpus
from holdfast.corpus.postgres.blobs import BlobTable
from holdfast.integrity.scan import verify_corpus
from holdfast.objects import BlobFiles
from holdfast.seal import Signer, generate
from tests.flow.hubs import HubProcess, until
from tests.hub.lines import Line
from tests.hub.pens import Pen

Start = Callable[..., HubProcess]
UPLOAD = (
    b'--B\r\nContent-Disposition: form-data; name="msg_id"\r\n\r\nu-1\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nabc\r\n--B--\r\n'
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a hub in a directory by this name; all are ended."""
    begun: list[HubProcess] = []

    def make(name: str, **options: Any) -> HubProcess:
        begun.append(HubProcess(tmp_path / name, **options))
        return begun[-1]

    yield make
    for each in begun:
        each.kill()


def ask(hub: HubProcess, method: str, path: str, body: Any = None, **headers: str) -> Any:
    """The JSON (or bytes) of a request that must succeed."""
    line = Line(hub.url)
    try:
        status, told, data = line.ask(method, path, body, **headers)
        assert status < 300, (status, data)
        return json.loads(data) if told.get("content-type", "").startswith("application/json") else data
    finally:
        line.close()


def append(hub: HubProcess, *segments: wire.Segment) -> list[str]:
    """Ships segments as a node would; their verdicts."""
    line = Line(hub.url)
    try:
        return [each.state for each in line.append(*segments).verdicts]
    finally:
        line.close()


def heads(hub: HubProcess) -> dict[tuple[bytes, bytes], wire.Mark]:
    """Where every incarnation of every stream stands on a hub."""
    found, after = {}, 0
    while True:
        page = wire.decode(wire.Heads, ask(hub, "GET", f"/v1/heads?nonce={'ab' * 16}&after={after}"))
        found |= {(one.stream, at.inc): at.head for one in page.streams for at in one.heads}
        if page.next is None:
            return found
        after = page.next


def latest(hub: HubProcess) -> dict[tuple[str, str, str], Any]:
    """Every key's value on a hub, whole, by agent and collection; but for what tells where the hub put it."""
    out = {}
    records = {(r["agent"], r["collection"], r["key"]) for r in feed(hub) if r["collection"]}
    for agent, collection, key in records:
        line = Line(hub.url)
        status, _, data = line.ask("GET", f"/v1/latest?agent={agent}&collection={collection}&key={key}")
        line.close()
        found = json.loads(data)
        found.pop("pos", None)
        out[agent, collection, key] = found if status == 200 else status
    return out


def feed(hub: HubProcess) -> list[dict[str, Any]]:
    """Everything that a hub holds, in its order."""
    out, after = [], "0"
    while True:
        page = ask(hub, "GET", f"/v1/feed?after={after}")
        out += page["records"]
        after = page["cursor"]
        if page["caught_up"]:
            return out


def follows(hub: HubProcess) -> dict[str, Any]:
    """How a hub stands with the one that it follows."""
    found: dict[str, Any] = ask(hub, "GET", "/health")["follows"]
    return found


def until_alike(one: HubProcess, two: HubProcess) -> None:
    """Returns when both hold the same heads under the same names; all that follows from them must be the same then."""
    until(lambda: heads(one) == heads(two), "both hubs hold the same")
    assert latest(one) == latest(two)
    assert sorted(r["etag"] for r in feed(one)) == sorted(r["etag"] for r in feed(two))


def verified(hub: HubProcess) -> None:
    """Ends a hub in good order, and proves all that it holds."""
    hub.stop()
    corpus = SqliteCorpus(hub.directory / "hub.db", hub=True)
    try:
        scan = verify_corpus(corpus, BlobFiles(hub.directory / "blobs"))
        assert scan.sound, scan.findings
        assert scan.records > 0
    finally:
        corpus.close()


def rotate(pen: Pen) -> Signer:
    """Hands the pen's stream over to a new key; returns that key, in force behind this record's segment."""
    new = Signer(generate())
    pen.write("", 0, new.public_key, kind=records.ROTATE, flags=0, base=records.ZERO32, key_version=0)
    return new


def history(primary: HubProcess) -> None:
    """Writes what a hub may meet in its life: blobs, forks, deletions, rotations, plain clients, decisions."""
    pen, lone = Pen("ada"), Pen("bob")
    for number in range(700):
        pen.put(f"k/{number % 50}", number)
        if number % 7 == 6:
            assert append(primary, pen.segment(number - 5, number + 1)) == ["ack"]
    other = pen.fork()
    other.stamp += 1 << 40
    new = rotate(pen)
    other.put("k/1", "the other life")
    other.put("k/2", "only there")
    third = other.fork()
    third.put("k/3", "a third")
    assert append(primary, other.segment(701), third.segment(703)) == ["ack", "ack"]
    turn = pen.segment(701)
    pen.signer = new
    pen.put("k/4", "under a new key")
    pen.write("k/1", 0, b"{}", kind=records.DELETE_PREFIX, flags=records.TOMBSTONE, collection="state")
    assert append(primary, turn, pen.segment(702)) == ["ack", "ack"]  # both in one commit
    large = os.urandom(200_000)
    digest = hashlib.sha256(large).digest()
    reference = digest + len(large).to_bytes(8, "big")
    lone.write("large", 1, reference, collection="state", flags=records.VALUE | records.BLOB)
    assert append(primary, lone.segment()) == ["blobs"]
    ask(primary, "PUT", f"/v1/blobs/{digest.hex()}", large)
    assert append(primary, lone.segment()) == ["ack"]
    lone.write("bad", 1, b"{not json", collection="messages", kind="message")
    item = lone.items[-1]
    lone.items[-1] = wire.Item(item.header, item.salt, item.codec, None, wire.QUARANTINED)
    assert append(primary, lone.segment(2)) == ["ack"]
    for number in range(40):
        message = {"msg_id": f"m-{number}", "sender": "boss", "recipient": "ada", "content": "x" * number}
        ask(primary, "POST", "/sync/message", message | {"task_id": "t", "timestamp": 1_700_000_000 + number})
    row = {"agent_id": "boss", "table": "people", "data": {"id": "p", "name": "Ada"}}
    ask(primary, "POST", "/relay/immediate", row)
    ask(primary, "POST", "/relay/immediate", row | {"operation": "delete"})
    claim = {"agent": "ada", "collection": "claims", "key": "task", "value": 1, "expect": 0}
    ask(primary, "POST", "/v1/decide", claim)


def test_a_standby_that_comes_late_takes_all_of_a_hubs_past(start: Start) -> None:
    primary = start("primary")
    history(primary)
    primary.kill()
    primary.start()
    ask(primary, "POST", "/sync/message", {"msg_id": "later", "sender": "boss", "content": "in another generation"})
    standby = start("standby", follow=primary.url)
    until_alike(primary, standby)
    until(lambda: follows(standby)["state"] == "level", "it knows that it has all")
    told = follows(standby)
    assert (told["lag_records"], told["lag_s"], told["problems"]) == (0, 0.0, [])
    assert told["key"] == ask(primary, "GET", "/health")["key"]
    ready = ask(standby, "GET", "/readyz")
    assert ready["ready"]
    assert ready["follows"]["url"] == primary.url
    # What plain clients look for is found as it was there, times that they gave included.
    for query in ("agent=ada", "task=t&since=1700000010", "agent=boss&order=oldest&limit=5"):
        wanted, got = (ask(hub, "GET", f"/query/messages?{query}") for hub in (primary, standby))
        assert wanted["messages"]
        assert got["total"] == wanted["total"]
        key = lambda message: message["msg_id"]  # noqa: E731
        assert sorted(got["messages"], key=key) == sorted(wanted["messages"], key=key)
    verified(standby)


def test_hubs_on_either_database_follow_each_other(start: Start, database: str) -> None:
    primary = start("primary")
    history(primary)
    standby = start("standby", follow=primary.url, database=database)
    until_alike(primary, standby)
    third = start("third", follow=standby.url)
    until_alike(standby, third)
    standby.stop()
    corpus = PostgresCorpus(database)
    assert [str(finding) for finding in verify_corpus(corpus, BlobTable(corpus.engine)).findings] == []
    corpus.close()
    verified(third)


def test_a_message_sent_again_to_the_standby_is_the_same_message(start: Start) -> None:
    primary = start("primary")
    message = {"msg_id": "m", "sender": "boss", "recipient": "ada", "content": "hello"}
    ask(primary, "POST", "/sync/message", message)
    large = {"msg_id": "l", "sender": "boss", "content": "x" * 100_000}
    ask(primary, "POST", "/sync/message", large)
    standby = start("standby", follow=primary.url)
    until_alike(primary, standby)
    primary.kill()
    for each in (message, large):
        batch = {"batch_id": "b", "messages": [each]}
        assert ask(standby, "POST", "/sync/message", each)["status"] == "stored"
        assert ask(standby, "POST", "/sync/messages", batch)["verdicts"][0]["status"] == "duplicate"
    assert len(feed(standby)) == 2
    line = Line(standby.url)
    # The id names one message for ever, whoever sends another one under it.
    assert line.ask("POST", "/sync/message", message | {"sender": "other"})[0] == 409
    assert line.ask("POST", "/v1/decide", {"agent": "a", "collection": "c", "key": "k", "value": 1})[0] == 200
    line.close()


def requests(hub: HubProcess) -> list[Any]:
    """What a hub answers to requests that have ids."""
    row = {"agent_id": "boss", "table": "people"}
    ada, bob = {"id": "ada", "name": "Ada"}, {"id": "bob", "name": "Bob"}
    claim = {"agent": "ada", "collection": "claims", "key": "task", "value": 1, "expect": 0, "id": "d-1"}
    return [
        ask(hub, "POST", "/relay/immediate", row | {"data": ada, "msg_id": "q-1"}),
        ask(hub, "POST", "/relay/immediate", row | {"data": bob, "msg_id": "q-2", "operation": "insert"}),
        ask(hub, "POST", "/v1/decide", claim)["etag"],
        ask(hub, "POST", "/sync/files", UPLOAD, Content_Type="multipart/form-data; boundary=B")["file_id"],
    ]


def test_a_request_repeated_at_a_standby_gets_its_first_answer(start: Start, database: str) -> None:
    primary = start("primary")
    answers = requests(primary)
    row = {"agent_id": "boss", "table": "people"}
    ask(primary, "POST", "/relay/immediate", row | {"data": {"id": "ada", "name": "Ada L."}})
    ask(primary, "POST", "/relay/immediate", row | {"data": {"id": "bob"}, "operation": "delete"})
    standby = start("standby", follow=primary.url, database=database)
    third = start("third", follow=standby.url)
    until_alike(primary, standby)
    until_alike(standby, third)
    primary.kill()
    for hub in (standby, third):
        held = feed(hub)
        assert requests(hub) == answers
        assert feed(hub) == held, "what came after them stands, and nothing was written twice"
    verified(third)


def test_decisions_go_on_where_the_primary_left_them(start: Start) -> None:
    primary = start("primary")
    claim = {"agent": "ada", "collection": "claims", "key": "task", "value": "ada's", "expect": 0}
    version = ask(primary, "POST", "/v1/decide", claim)
    standby = start("standby", follow=primary.url)
    until_alike(primary, standby)
    line = Line(standby.url)
    assert line.ask("POST", "/v1/decide", claim | {"value": "bob's"})[0] == 409
    assert line.ask("POST", "/v1/decide", claim | {"value": "bob's", "expect": version["etag"]})[0] == 200
    line.close()
    pen = Pen("hub")
    pen.put("task", "spoofed", collection="claims")
    assert append(standby, pen.segment()) == ["denied"]


def test_hubs_that_follow_each_other_come_to_hold_the_same_and_rest(start: Start) -> None:
    one = start("one")
    two = start("two", follow=one.url)
    one.stop()
    one.options["follow"] = two.url
    one.start()
    pen, half = Pen("ada"), Pen("bob")
    pen.put("k", 1)
    append(one, pen.segment())
    pen.put("k", 2)
    append(two, pen.segment())
    # A copied node that shows one half to each hub under one name: both halves are kept, under two.
    half.put("k", "common")
    copy = half.fork()
    copy.inc = half.inc
    half.put("k", "one")
    copy.stamp += 9 << 16
    copy.put("k", "two")
    copy.put("more", 1)
    append(one, half.segment())
    append(two, copy.segment())
    for number, hub in enumerate((one, two)):
        ask(hub, "POST", "/sync/message", {"msg_id": f"m{number}", "sender": "boss", "content": "x"})
        ask(hub, "POST", "/v1/decide", {"agent": "a", "collection": "c", "key": f"{number}", "value": number})
    until(lambda: len(feed(one)) == len(feed(two)) == 10, "both hold all records")
    until(lambda: follows(one)["state"] == follows(two)["state"] == "level", "both know it")
    assert latest(one) == latest(two)
    assert latest(one)["bob", "state", "k"]["value"] == "two"
    assert {head for (stream, _), head in heads(one).items() if stream == half.stream} == {half.head, copy.head}
    assert {head for (stream, _), head in heads(two).items() if stream == half.stream} == {half.head, copy.head}
    rest = [ask(hub, "GET", "/health")["commits"] for hub in (one, two)]
    pen.put("k", 3)
    append(one, pen.segment())
    until(lambda: len(feed(two)) == 11, "the record went over")
    until(lambda: follows(one)["lag_records"] == follows(two)["lag_records"] == 0, "both rest")
    assert [ask(hub, "GET", "/health")["commits"] for hub in (one, two)] == [each + 1 for each in rest]
    verified(one)
    verified(two)


def test_following_goes_on_after_either_hub_was_killed(start: Start) -> None:
    primary = start("primary")
    standby = start("standby", follow=primary.url)
    pens = [Pen(f"agent-{number}") for number in range(5)]
    for round_ in range(6):
        for pen in pens:
            for number in range(60):
                pen.put(f"{round_}/{number}", number)
            assert append(primary, pen.segment(round_ * 60 + 1)) == ["ack"]
        (standby if round_ % 2 else primary).kill()
        (standby if round_ % 2 else primary).start()
    until_alike(primary, standby)
    for pen in pens:
        seqs = [each["seq"] for each in feed(standby) if each["agent"] == pen.agent]
        assert seqs == list(range(1, 361))
    verified(standby)


def test_what_the_primary_lost_is_kept_and_comes_back_when_it_follows_in_turn(start: Start, tmp_path: Path) -> None:
    primary = start("primary")
    ask(primary, "POST", "/sync/message", {"msg_id": "a", "sender": "boss", "content": 1})
    primary.stop()
    shutil.copytree(primary.directory, tmp_path / "backup")
    primary.start()
    standby = start("standby", follow=primary.url)
    ask(primary, "POST", "/sync/message", {"msg_id": "b", "sender": "boss", "content": 2})
    until_alike(primary, standby)
    primary.kill()
    shutil.rmtree(primary.directory)
    shutil.copytree(tmp_path / "backup", primary.directory)
    primary.start()
    ask(primary, "POST", "/sync/message", {"msg_id": "c", "sender": "boss", "content": 3})
    until(lambda: len(feed(standby)) == 3, "it went on with the older copy")
    assert [each["key"] for each in feed(primary)] == ["a", "c"]
    primary.stop()
    primary.options["follow"] = standby.url
    primary.start()
    until_alike(primary, standby)
    assert [each["key"] for each in feed(primary)] == ["a", "c", "b"]
    ask(primary, "POST", "/sync/message", {"msg_id": "d", "sender": "boss", "content": 4})
    until_alike(primary, standby)
    verified(primary)


def test_a_blob_that_the_primary_has_lost_keeps_nothing_else_away(start: Start) -> None:
    primary = start("primary")
    pen = Pen("ada")
    lost, kept = os.urandom(100_000), os.urandom(100_000)
    for name, data in (("lost", lost), ("kept", kept)):
        digest = hashlib.sha256(data).digest()
        ask(primary, "PUT", f"/v1/blobs/{digest.hex()}", data)
        reference = digest + len(data).to_bytes(8, "big")
        pen.write(name, 2, reference, collection="state", flags=records.VALUE | records.BLOB)
    pen.put("k", 1)
    assert append(primary, pen.segment()) == ["ack"]
    BlobFiles(primary.directory / "blobs").delete(hashlib.sha256(lost).digest())
    standby = start("standby", follow=primary.url)
    until(lambda: len(feed(standby)) == 3, "all records are here")
    assert latest(standby)["ada", "state", "k"]["value"] == 1
    assert [each.get("missing") for each in feed(standby)] == ["quarantined", "blob", None]
    (problem,) = follows(standby)["problems"]
    assert hashlib.sha256(lost).hexdigest() in problem
    assert problem in ask(standby, "GET", "/readyz")["warnings"]
    # So the node that has it keeps it: the standby says that it holds only the envelope.
    line = Line(standby.url)
    assert line.hello(pen.hello()).streams[0].envelopes == [1]
    line.close()


def test_another_hub_at_the_same_address_is_refused(start: Start, tmp_path: Path) -> None:
    primary = start("primary")
    ask(primary, "POST", "/sync/message", {"msg_id": "a", "sender": "boss", "content": 1})
    standby = start("standby", follow=primary.url)
    until(lambda: len(feed(standby)) == 1, "it follows")
    primary.kill()
    primary.directory = tmp_path / "stranger"
    primary.start()
    ask(primary, "POST", "/sync/message", {"msg_id": "b", "sender": "mallory", "content": 2})
    until(lambda: follows(standby)["state"] == "refused", "it noticed")
    assert "another hub is there" in follows(standby)["problems"][0]
    assert ask(standby, "GET", "/readyz")["ready"]
    standby.stop()
    standby.start()
    until(lambda: follows(standby)["state"] == "refused", "it remembers")
    assert [each["key"] for each in feed(standby)] == ["a"]
    standby.stop()
    standby.options["follow_key"] = ask(primary, "GET", "/health")["key"]
    standby.start()
    until(lambda: [each["key"] for each in feed(standby)] == ["a", "b"], "it was told that this is meant")


def test_a_standby_reads_its_token_anew_when_it_is_refused(start: Start, tmp_path: Path) -> None:
    primary = start("primary", token="right")
    bearer = {"Authorization": "Bearer right"}
    ask(primary, "POST", "/sync/message", {"msg_id": "a", "sender": "boss", "content": 1}, **bearer)
    token = tmp_path / "token"
    token.write_text("wrong\n")
    from starlette.testclient import TestClient

    from holdfast.hub.app import create_app

    with TestClient(create_app(tmp_path / "standby", follow=primary.url, follow_token=token)) as client:
        until(lambda: client.get("/health").json()["follows"]["state"] == "denied", "it was refused")
        assert client.get("/v1/feed").json()["records"] == []
        token.write_text("right\n")
        until(lambda: len(client.get("/v1/feed").json()["records"]) == 1, "it reads the new one")


@pytest.mark.parametrize("key", ["zz", "ab" * 31])
def test_what_is_no_key_is_refused_at_once_and_leaves_the_directory_free(tmp_path: Path, key: str) -> None:
    from holdfast.errors import UsageError
    from holdfast.hub.app import create_app
    from holdfast.hub.directory import HubDirectory

    with pytest.raises(UsageError, match="64 hex digits"):
        create_app(tmp_path / "hub", follow="http://127.0.0.1:1", follow_key=key)
    HubDirectory(tmp_path / "hub").close()
