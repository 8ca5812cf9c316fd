"""What nodes append: written once, in order, with its past, whatever is sent twice or in another life."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast import codec, records, wire
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.node.proof import prove
from holdfast.seal import Signer, verify
from tests.hub.conftest import Room
from tests.hub.pens import Pen


def values(room: Room) -> list[tuple[int, str, Any]]:
    return [(each["seq"], each["key"], each["value"]) for each in room.records()]


def test_appended_records_are_acknowledged_and_shown_in_commit_order(room: Room, pen: Pen) -> None:
    pen.put("plan", {"step": 1})
    pen.put("plan", {"step": 2})
    verdict = room.append(pen.segment()).verdicts[0]
    assert (verdict.state, verdict.at) == ("ack", pen.head)
    assert room.hello(pen.hello()).streams[0].settled == 2
    assert values(room) == [(1, "plan", {"step": 1}), (2, "plan", {"step": 2})]
    assert room.get("/v1/latest", agent="ada", key="plan")["value"] == {"step": 2}


def test_the_same_segment_again_adds_nothing_and_is_acknowledged(room: Room, pen: Pen) -> None:
    pen.put("plan", 1)
    room.append(pen.segment())
    assert room.append(pen.segment()).verdicts[0].state == "ack"
    assert len(room.records()) == 1


def test_several_streams_go_in_one_request(room: Room) -> None:
    pens = [Pen(f"agent-{n}") for n in range(20)]
    for pen in pens:
        pen.put("k", pen.agent)
    answer = room.append(*(pen.segment() for pen in pens))
    assert {verdict.state for verdict in answer.verdicts} == {"ack"}
    assert [each["agent"] for each in room.records()] == [pen.agent for pen in pens]


def test_a_gap_a_wrong_signature_and_another_generation_store_nothing(room: Room, pen: Pen) -> None:
    for number in range(3):
        pen.put("k", number)
    assert room.append(pen.segment(2)).verdicts[0].state == "gap"
    assert room.append(pen.segment(signature=bytes(64))).verdicts[0].state == "denied"
    assert room.append(pen.segment(), gen="elsewhere").regen
    assert room.records() == []


def test_a_poison_record_is_refused_alone_and_its_envelope_taken(room: Room, pen: Pen) -> None:
    pen.put("good", 1)
    pen.write("bad", codec.FMT_JSON, b"{not json", collection="messages", kind="message")
    pen.put("good", 2)
    verdict = room.append(pen.segment()).verdicts[0]
    assert verdict.state == "rejected"
    assert [refused.seq for refused in verdict.rejected] == [2]
    item = pen.items[1]
    pen.items[1] = wire.Item(item.header, item.salt, item.codec, None, wire.QUARANTINED)
    assert room.append(pen.segment()).verdicts[0].state == "ack"
    shown = room.records()
    assert [each.get("missing") for each in shown] == [None, "quarantined", None]
    asked = room.hello(pen.hello()).streams[0]
    assert (asked.state, asked.envelopes) == ("ok", [2])


def test_json_too_deep_to_read_is_poison_and_not_a_failure_of_the_hub(room: Room, pen: Pen) -> None:
    deep = b"[" * 20_000 + b"]" * 20_000
    pen.write("deep", codec.FMT_JSON, deep, collection="messages", kind="message")
    pen.put("good", 1)
    verdict = room.append(pen.segment()).verdicts[0]
    assert (verdict.state, [refused.seq for refused in verdict.rejected]) == ("rejected", [1])
    other = Pen("bob")
    other.write("deep", codec.FMT_JSON, deep, collection="table/t")
    assert room.append(other.segment()).verdicts[0].state == "ack"
    assert room.client.post("/relay/query", json={"table": "t"}).json()["rows"] == []
    assert room.client.get("/v1/records").status_code == 200


@pytest.mark.parametrize("agent", ["hub", "", "a\nb", "x" * 256])
def test_a_name_that_no_agent_can_have_is_denied(room: Room, agent: str) -> None:
    pen = Pen(agent)
    pen.put("task-7", "spoofed", collection="claims")
    assert room.append(pen.segment()).verdicts[0].state == "denied"
    assert room.records() == []


def test_two_lives_of_a_stream_are_both_kept_and_the_later_change_is_the_value(room: Room, pen: Pen) -> None:
    pen.put("shared", "before")
    room.append(pen.segment())
    other = pen.fork()
    other.stamp += 5 << 16
    pen.put("mine", 1)
    pen.put("shared", "here")
    room.append(pen.segment(2))
    other.put("theirs", 2)
    other.put("shared", "there, later")
    assert room.append(other.segment(2)).verdicts[0].state == "ack"
    assert len(room.records()) == 5
    assert room.get("/v1/latest", agent="ada", key="shared")["value"] == "there, later"
    assert room.get("/v1/latest", agent="ada", key="mine")["value"] == 1
    assert room.get("/v1/latest", agent="ada", key="theirs")["value"] == 2
    history = room.get("/v1/history", agent="ada", key="shared")["records"]
    assert [each["value"] for each in history] == ["there, later", "here", "before"]
    told = room.hello(pen.hello()).streams[0]
    assert (told.state, told.at) == ("ok", pen.head)
    assert [(each.inc, each.head) for each in told.others] == [(other.inc, other.head)]


def test_an_older_change_that_arrives_late_takes_its_place_in_the_history(room: Room, pen: Pen) -> None:
    other = pen.fork()
    for number in range(3):
        other.put("k", f"early-{number}")
    pen.stamp += 100 << 16
    for number in range(3):
        pen.put("k", f"late-{number}")
    room.append(pen.segment())
    room.append(other.segment())
    assert room.get("/v1/latest", agent="ada", key="k")["value"] == "late-2"
    history = [each["value"] for each in room.get("/v1/history", agent="ada", key="k")["records"]]
    assert history == ["late-2", "late-1", "late-0", "early-2", "early-1", "early-0"]


def test_a_deletion_by_prefix_hides_an_older_value_that_comes_after_it(room: Room, pen: Pen) -> None:
    other = pen.fork()
    other.put("tmp/a", "older than the deletion")
    pen.stamp += 100 << 16
    gone = {"kind": records.DELETE_PREFIX, "flags": records.TOMBSTONE, "collection": "state"}
    pen.write("tmp/", codec.FMT_JSON, b"{}", **gone)
    room.append(pen.segment())
    room.append(other.segment())
    assert room.client.get("/v1/latest", params={"agent": "ada", "key": "tmp/a"}).status_code == 404
    other.stamp += 200 << 16
    other.put("tmp/a", "younger")
    room.append(other.segment(2))
    assert room.get("/v1/latest", agent="ada", key="tmp/a")["value"] == "younger"


def test_a_missing_blob_is_asked_for_before_its_record_is_stored(room: Room, pen: Pen) -> None:
    data = b"x" * 100_000
    digest = hashlib.sha256(data).digest()
    reference = records.blob_reference(digest, len(data))
    pen.write("big", codec.FMT_BYTES, reference, collection="state", flags=records.VALUE | records.BLOB)
    verdict = room.append(pen.segment()).verdicts[0]
    assert (verdict.state, verdict.blobs) == ("blobs", [digest])
    assert room.records() == []
    assert room.client.put(f"/v1/blobs/{digest.hex()}", content=data).status_code == 201
    assert room.append(pen.segment()).verdicts[0].state == "ack"
    (shown,) = room.records()
    assert (shown["missing"], shown["digest"], shown["size"]) == ("blob", digest.hex(), len(data))
    latest = room.get("/v1/latest", agent="ada", key="big")
    assert (latest["encoding"], len(latest["value"])) == ("base64", 133_336)


def test_what_a_node_lost_can_be_pulled_whole(room: Room, pen: Pen) -> None:
    for number in range(7):
        pen.put("k", number)
    room.append(pen.segment(1, 3))
    other = pen.fork()
    room.append(other.segment(4))
    query = {"stream": pen.stream.hex(), "inc": other.inc.hex(), "after": 1, "limit": 4}
    answer = room.client.get("/v1/pull", params=query)
    pulled = wire.decode(wire.Pulled, answer.content)
    assert (pulled.first, pulled.prev, pulled.head, pulled.more) == (2, pen.marks[1].link, pen.head, True)
    assert [item.header for item in pulled.items] == [item.header for item in pen.items[1:5]]
    rest = room.client.get("/v1/pull", params={**query, "after": 5})
    pulled = wire.decode(wire.Pulled, rest.content)
    assert ([item.header for item in pulled.items], pulled.more) == ([i.header for i in pen.items[5:]], False)
    message = records.head_message(pen.stream, pen.head.seq, pen.head.link)
    assert pulled.signature == pen.signer.sign(message)
    assert room.client.get("/v1/pull", params={**query, "inc": "00" * 16}).status_code == 404
    assert room.client.get("/v1/pull", params={**query, "after": 99}).status_code == 404


def test_a_pull_is_never_cut_inside_a_batch(room: Room, pen: Pen) -> None:
    for number in range(6):
        more = records.MORE if number in (2, 3) else 0
        pen.put("k", number, flags=records.VALUE | more)
    room.append(pen.segment())
    query = {"stream": pen.stream.hex(), "inc": pen.inc.hex(), "after": 0, "limit": 3}
    pulled = wire.decode(wire.Pulled, room.client.get("/v1/pull", params=query).content)
    assert (len(pulled.items), pulled.more) == (5, True)


def test_each_record_is_proven_by_the_next_signed_head(room: Room, pen: Pen) -> None:
    for number in range(100):
        pen.put(f"k{number}", number)
    room.append(pen.segment(1, 1))
    room.append(pen.segment(2, 40))
    for seq in range(41, 101):
        room.append(pen.segment(seq, seq))
    for number in (0, 1, 20, 39, 40, 77, 99):
        params = {"agent": "ada", "key": f"k{number}"}
        answer = room.client.get("/v1/latest", params=params, headers={"Accept": wire.MEDIA})
        proof = wire.decode(wire.Proof, answer.content)
        assert prove(proof, "ada", verify).record.key == f"k{number}"
        assert len(proof.trail) < 64


def test_a_proof_holds_across_a_rotated_key_and_a_fork(room: Room, pen: Pen) -> None:
    pen.put("old", 1)
    signer = Signer(bytes(32))
    rotate = {"kind": records.ROTATE, "flags": 0}
    pen.write("", codec.FMT_BYTES, signer.public_key, **rotate)
    room.append(pen.segment())
    pen.signer = signer
    pen.put("new", 2)
    other = pen.fork()
    room.append(pen.segment(3))
    other.put("branch", 3)
    room.append(other.segment(4))
    for key in ("old", "new", "branch"):
        answer = room.client.get("/v1/latest", params={"agent": "ada", "key": key}, headers={"Accept": wire.MEDIA})
        assert prove(wire.decode(wire.Proof, answer.content), "ada", verify).record.key == key


def test_what_the_hub_wrote_is_proven_like_a_nodes(room: Room) -> None:
    room.client.post("/sync/message", json={"msg_id": "m1", "sender": "bob", "content": "hi"})
    params = {"agent": "bob", "collection": "messages", "key": "m1"}
    answer = room.client.get("/v1/latest", params=params, headers={"Accept": wire.MEDIA})
    found = prove(wire.decode(wire.Proof, answer.content), "bob", verify)
    assert (found.record.author, found.agent) == ("bob", "bob")


def test_many_writers_at_once_lose_nothing_and_positions_have_no_gap(room: Room) -> None:
    pens = [Pen(f"agent-{n}") for n in range(8)]

    def ship(pen: Pen) -> None:
        for number in range(1, 26):
            pen.put("k", number)
            assert room.append(pen.segment(number)).verdicts[0].state == "ack"

    threads = [threading.Thread(target=ship, args=(pen,)) for pen in pens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = room.records()
    assert [each["pos"] for each in shown] == list(range(1, 201))
    for pen in pens:
        assert [each["seq"] for each in shown if each["agent"] == pen.agent] == list(range(1, 26))


@pytest.mark.parametrize("restart", ["clean", "copied", "unclean", "node"])
def test_a_generation_goes_on_only_behind_a_clean_stop_of_this_very_file(tmp_path: Path, restart: str) -> None:
    where = tmp_path / "hub"
    first = HubDirectory(where)
    with TestClient(create_app(first)) as client:
        client.post("/sync/message", json={"msg_id": "m1", "content": 1})
        if restart == "unclean":
            mark = first.close
            first.close = lambda *, clean=True: mark(clean=False)  # type: ignore[method-assign, misc]
    if restart == "copied":
        data = (where / "hub.db").read_bytes()
        (where / "hub.db").unlink()
        (where / "hub.db").write_bytes(data)
    second = HubDirectory(where)
    assert (second.gen == first.gen) is (restart in ("clean", "node"))
    assert [mark for _, mark in second.lineage] == ([0] if restart in ("clean", "node") else [0, 1])
    with TestClient(create_app(second)) as client:
        sent = {"msg_id": "m1", "content": 1}
        assert client.post("/sync/message", json=sent).status_code == 200
        client.post("/sync/message", json={"msg_id": "m2", "content": 2})
        shown = client.get("/v1/feed").json()["records"]
        assert [each["seq"] for each in shown] == [1, 2]
        lives = client.get("/v1/agents").json()["agents"][0]["streams"][0]["incarnations"]
        assert lives == (1 if restart in ("clean", "node") else 2)
