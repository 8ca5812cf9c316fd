"""What people and agents ask: one key and its past, lists in keyset pages, search, who is there; and decisions."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest

from holdfast import clock, wire
from holdfast.errors import UsageError
from holdfast.log import versions
from tests.flow.hubs import until
from tests.hub.conftest import Room
from tests.hub.pens import Pen

FRAME = {
    "pos",
    "agent",
    "stream",
    "seq",
    "time",
    "kind",
    "collection",
    "key",
    "version",
    "etag",
    "author",
    "gone",
    "value",
}


@pytest.fixture
def filled(room: Room, pen: Pen) -> Room:
    """ada: three versions of plan, one each of a…e, and a note that is gone; bob: messages."""
    for number in range(3):
        pen.put("plan", {"step": number})
    for key in "abcde":
        pen.put(f"k/{key}", key)
    pen.put("note", "secret", collection="notes")
    pen.write("note", 2, b'{"reason":"old"}', collection="notes", kind="delete", flags=8)
    room.append(pen.segment())
    bob = Pen("bob")
    for number in range(4):
        bob.message(f"m{number}", f"word{number} shared", to="ada" if number % 2 else None, task=f"t{number // 2}")
    room.append(bob.segment())
    return room


def test_latest_gives_the_newest_version_with_its_etag(filled: Room, pen: Pen) -> None:
    answer = filled.client.get("/v1/latest", params={"agent": "ada", "key": "plan"})
    shown = answer.json()
    assert set(shown) == FRAME
    assert (shown["value"], shown["version"], shown["pos"]) == ({"step": 2}, 3, 3)
    assert answer.headers["etag"] == f'"{shown["etag"]}"'
    assert shown["etag"] == pen.marks[3].link.hex()
    assert versions.shown(shown).to_version().value == {"step": 2}


def test_an_earlier_version_is_named_by_its_number_or_by_a_time(filled: Room, pen: Pen) -> None:
    def latest(**query: Any) -> Any:
        return filled.get("/v1/latest", agent="ada", key="plan", **query)["value"]["step"]

    assert [latest(version=n) for n in (1, 2, 3)] == [0, 1, 2]
    second = clock.iso((1_700_000_000_000 << 16) + (2 << 16) >> 16)
    assert latest(at=second) == 1
    assert latest(at=1_700_000_000.001) == 0
    missing = filled.client.get("/v1/latest", params={"agent": "ada", "key": "plan", "at": "1970-01-02"})
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"agent": "ada", "key": "nothing"}, 404),
        ({"agent": "nobody", "key": "plan"}, 404),
        ({"agent": "ada", "key": "note", "collection": "notes"}, 404),
        ({"agent": "ada", "key": "plan", "version": "9"}, 404),
        ({"agent": "ada"}, 400),
        ({"key": "plan"}, 400),
        ({"agent": "ada", "key": "plan", "version": "x"}, 400),
        ({"agent": "ada", "key": "plan", "version": "1", "at": "1"}, 400),
        ({"agent": "ada", "key": "plan", "at": "noon"}, 400),
    ],
)
def test_what_is_not_there_is_404_and_what_is_no_question_400(filled: Room, query: Any, status: int) -> None:
    answer = filled.client.get("/v1/latest", params=query)
    assert answer.status_code == status
    assert answer.json()["error"]["hint"]


def test_history_comes_newest_first_in_pages_with_deletions(filled: Room) -> None:
    first = filled.get("/v1/history", agent="ada", key="plan", limit=2)
    assert [each["version"] for each in first["records"]] == [3, 2]
    rest = filled.get("/v1/history", agent="ada", key="plan", limit=2, after=first["next"])
    assert ([each["version"] for each in rest["records"]], rest["next"]) == ([1], None)
    gone, was = filled.get("/v1/history", agent="ada", key="note", collection="notes")["records"]
    assert (gone["gone"], gone["value"], was["value"]) == (True, {"reason": "old"}, "secret")
    assert filled.client.get("/v1/history", params={"agent": "ada", "key": "x"}).status_code == 404


def test_keys_come_in_order_in_pages_without_what_is_gone(filled: Room) -> None:
    first = filled.get("/v1/keys", agent="ada", prefix="k/", limit=3)
    assert [each["key"] for each in first["keys"]] == ["k/a", "k/b", "k/c"]
    assert set(first["keys"][0]) == {"key", "version", "etag", "time", "kind", "bytes"}
    rest = filled.get("/v1/keys", agent="ada", prefix="k/", limit=3, after=first["next"])
    assert ([each["key"] for each in rest["keys"]], rest["next"]) == (["k/d", "k/e"], None)
    assert filled.get("/v1/keys", agent="ada", collection="notes")["keys"] == []
    assert filled.get("/v1/keys", agent="nobody") == {"keys": [], "next": None}


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ({"agent": "bob"}, [4, 3, 2, 1]),
        ({"agent": "bob", "order": "oldest"}, [1, 2, 3, 4]),
        ({"agent": "bob", "order": "asc"}, [1, 2, 3, 4]),
        ({"to": "ada"}, [4, 2]),
        ({"task": "t1"}, [4, 3]),
        ({"to": "ada", "task": "t1"}, [4]),
        ({"collection": "messages", "key": "m2"}, [3]),
        ({"agent": "ada", "kind": "delete"}, [10]),
        ({"agent": ["ada", "bob"], "key": "plan"}, [3, 2, 1]),
        ({"agent": "bob", "since": "1700000000.003"}, [4, 3]),
        ({"agent": "bob", "until": "1700000000.003"}, [2, 1]),
        ({"agent": "nobody"}, []),
    ],
)
def test_records_are_found_by_what_they_are(filled: Room, query: dict[str, Any], seqs: list[int]) -> None:
    found = filled.get("/v1/records", **query)
    assert [each["seq"] for each in found["records"]] == seqs
    assert found["next"] is None


def test_record_pages_follow_on_each_other_both_ways(filled: Room) -> None:
    for order in ("newest", "oldest"):
        seen, after = [], 0
        while after is not None:
            page = filled.get("/v1/records", limit=4, after=after, order=order)
            seen += [each["pos"] for each in page["records"]]
            after = page["next"]
        assert seen == (list(range(14, 0, -1)) if order == "newest" else list(range(1, 15)))


def test_what_is_new_to_somebody_is_counted_behind_where_he_has_read(filled: Room) -> None:
    first, second = (each["pos"] for each in filled.get("/v1/records", to="ada", order="oldest")["records"])
    assert filled.get("/v1/count", to="ada") == {"count": 2, "capped": False}
    assert filled.get("/v1/count", to="ada", after=first) == {"count": 1, "capped": False}
    assert filled.get("/v1/count", to="ada", after=second) == {"count": 0, "capped": False}
    assert filled.get("/v1/count", to="ada", most=1) == {"count": 1, "capped": True}
    assert filled.get("/v1/count", task="t1", agent="bob") == {"count": 2, "capped": False}
    assert filled.client.get("/v1/count", params={"most": 0}).status_code == 400


def test_search_finds_what_was_just_written_and_what_is_indexed(filled: Room) -> None:
    def keys(**query: Any) -> list[str]:
        return [each["key"] for each in filled.get("/v1/search", **query)["records"]]

    assert keys(q="shared") == ["m3", "m2", "m1", "m0"]
    until(lambda: filled.core.corpus.meta("fts_pos") == 14, "the index is filled")
    assert keys(q="shared") == ["m3", "m2", "m1", "m0"]
    assert keys(q="word2 shared", agent="bob") == ["m2"]
    assert keys(q="shared", agent="ada") == []
    assert keys(q="shared", limit=1) == ["m3"]
    assert keys(q="secret") == []
    assert filled.get("/v1/search", q="shared")["partial"] is False
    assert filled.client.get("/v1/search").status_code == 400
    assert filled.client.get("/v1/search", params={"q": "..."}).status_code == 400


def test_search_finds_an_agents_own_whatever_its_name(room: Room) -> None:
    names = ["o'neil", 'the "second"', "back\\slash", "…", "a b", "b", "Ünï_code-1", "@b"]
    for name in names:
        room.client.post("/sync/message", json={"sender": name, "content": "common words"})
    head = room.core.corpus.last()
    until(lambda: room.core.corpus.meta("fts_pos") == head, "the index is filled")
    for name in names:
        found = room.get("/v1/search", q="common", agent=name)["records"]
        assert [each["agent"] for each in found] == [name]
    assert len(room.get("/v1/search", q="common", agent=names[:3])["records"]) == 3
    assert len(room.get("/v1/search", q="common")["records"]) == len(names)


def test_agents_and_nodes_are_listed(filled: Room, pen: Pen) -> None:
    filled.client.post("/sync/message", json={"sender": "zed", "content": 1})
    first = filled.get("/v1/agents", limit=2)
    assert ([each["agent"] for each in first["agents"]], first["next"]) == (["ada", "bob"], "bob")
    (stream,) = first["agents"][0]["streams"]
    shown = {"stream": pen.stream.hex(), "seq": 10, "link": pen.head.link.hex(), "incarnations": 1, "hub": False}
    assert stream == shown
    rest = filled.get("/v1/agents", after="bob")
    assert [(each["agent"], each["streams"][0]["hub"]) for each in rest["agents"]] == [("zed", True)]
    filled.hello(pen.hello())
    found = filled.get("/v1/nodes")
    assert [(each["node"], each["agents"]) for each in found["nodes"]] == [("node-of-ada", ["ada"]), ("node-1", [])]
    assert set(found["nodes"][0]) == {"node", "last_seen", "agents"}
    assert found["total"] == 2


def decide(room: Room, **asked: Any) -> tuple[int, Any]:
    body = {"agent": "w1", "collection": "locks", "key": "task-1", **asked}
    answer = room.client.post("/v1/decide", json=body)
    return answer.status_code, answer.json()


def test_a_decision_is_taken_once_and_the_loser_learns_the_current_version(room: Room) -> None:
    status, won = decide(room, value={"owner": "w1"}, expect=0)
    assert (status, won["version"], won["author"], won["agent"]) == (200, 1, "w1", "hub")
    status, lost = decide(room, agent="w2", value={"owner": "w2"}, expect=0)
    assert (status, lost["error"]["code"]) == (409, "conflict")
    assert lost["error"]["context"] == {"current_version": 1, "etag": won["etag"]}
    assert decide(room, value={"owner": "w1", "step": 2}, expect=1)[1]["version"] == 2
    assert decide(room, value=3, expect=won["etag"])[0] == 409
    assert decide(room, delete=True, expect=2)[1]["gone"] is True
    assert decide(room, value="free again", expect=0)[0] == 200
    assert decide(room, value="whatever is there")[0] == 200
    assert room.get("/v1/latest", agent="hub", collection="locks", key="task-1")["value"] == "whatever is there"


def test_a_repeated_decision_gets_its_first_answer(room: Room) -> None:
    first = decide(room, value=1, expect=0, id="r1")
    assert decide(room, value=1, expect=0, id="r1") == first
    assert decide(room, agent="w2", value=1, expect=0, id="r1")[0] == 409
    assert len(room.records()) == 1


def test_of_many_who_ask_at_once_one_wins(room: Room) -> None:
    outcomes: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: outcomes.append(decide(room, agent=f"w{n}", value=n, expect=0)[0]))
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [200] + [409] * 11
    assert len(room.records()) == 1


def test_a_decision_may_be_asked_in_msgpack(room: Room) -> None:
    body = msgspec.msgpack.encode({"agent": "w", "collection": "c", "key": "k", "value": b"\x00\xff", "expect": 0})
    answer = room.client.post("/v1/decide", content=body, headers={"Content-Type": wire.MEDIA})
    assert versions.shown(answer.content).to_version().value == b"\x00\xff"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"value": 1, "delete": True},
        {"value": 1, "key": 7},
        {"value": 1, "collection": ""},
        {"value": 1, "agent": ""},
        {"value": 1, "agent": "hub"},
        {"value": 1, "expect": True},
        {"value": 1, "expect": 1.5},
        {"value": 1, "id": ""},
        {"value": 1, "surprise": 1},
        {"value": 1, "key": "a\u0000"},
    ],
)
def test_a_bad_decision_is_refused_and_nothing_is_stored(room: Room, asked: dict[str, Any]) -> None:
    status, answer = decide(room, **asked)
    assert (status, answer["error"]["code"]) == (400, "usage")
    assert room.records() == []


def test_an_unknown_path_and_a_wrong_method_answer_in_our_form(room: Room) -> None:
    missing = room.client.get("/v2/latest")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = room.client.get("/v1/append")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "usage")
    for answer in (missing, wrong):
        assert answer.headers["holdfast-hub"] == room.core.home.gen


def test_a_failure_of_our_own_is_a_500_that_tells_nothing_and_stands_in_the_log(
    room: Room, caplog, monkeypatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("the inside of the hub")

    monkeypatch.setattr(room.core.corpus, "page", broken)
    answer = room.client.get("/v1/records")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "inside" not in answer.text
    assert "the inside of the hub" in caplog.text


@pytest.mark.parametrize("data", [b"{}", b"not json", b"\xff", {"agent": "ada"}, b'{"agent":1}'])
def test_what_shows_no_version_is_said_to(data: dict[str, str] | bytes) -> None:
    with pytest.raises(UsageError, match="no version"):
        versions.shown(data)
