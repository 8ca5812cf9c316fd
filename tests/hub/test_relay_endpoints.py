"""The relay: rows of tables by HTTP; repeats add nothing, each operation has its own verdict, filters narrow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub.conftest import Room


def relay(room: Room, operation: str, data: Any, table: str = "candidates", **more: Any) -> tuple[int, Any]:
    body = {"agent_id": "recruiter", "table": table, "operation": operation, "data": data, **more}
    answer = room.client.post("/relay/immediate", json=body)
    return answer.status_code, answer.json()


def rows(room: Room, filters: Any = None, table: str = "candidates", **more: Any) -> Any:
    answer = room.client.post("/relay/query", json={"table": table, "filters": filters, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_unknown_table_appears_with_its_first_row(room: Room) -> None:
    assert rows(room) == {"table": "candidates", "rows": [], "count": 0}
    done = relay(room, "insert", {"id": "c1", "name": "Ada"})
    assert done == (200, {"status": "stored", "table": "candidates", "id": "c1", "version": 1})
    row = {"id": "c1", "name": "Ada", "agent_id": "recruiter"}
    assert rows(room) == {"table": "candidates", "rows": [row], "count": 1}
    (record,) = room.records()
    assert (record["agent"], record["author"]) == ("recruiter", "recruiter")
    assert (record["collection"], record["key"]) == ("table/candidates", "c1")


def test_each_operation_does_what_its_name_says(room: Room) -> None:
    relay(room, "insert", {"id": 1, "name": "Ada", "age": 36})
    status, answer = relay(room, "insert", {"id": 1, "name": "Bob"})
    assert (status, answer["error"]["code"], answer["error"]["context"]) == (409, "conflict", {"current_version": 1})
    assert relay(room, "update", {"id": 1, "age": 37})[1]["version"] == 2
    assert rows(room)["rows"] == [{"id": 1, "name": "Ada", "age": 37, "agent_id": "recruiter"}]
    assert relay(room, "upsert", {"id": 1, "name": "Ada L."})[1]["version"] == 3
    assert rows(room)["rows"] == [{"id": 1, "name": "Ada L.", "agent_id": "recruiter"}]
    assert relay(room, "delete", {"id": 1}) == (
        200,
        {"status": "deleted", "table": "candidates", "id": "1", "version": 4},
    )
    assert rows(room)["rows"] == []
    assert relay(room, "update", {"id": 1, "age": 1})[0] == 404
    assert relay(room, "delete", {"id": 1})[1]["version"] == 0
    assert relay(room, "insert", {"id": 1, "name": "Again"})[1]["version"] == 5


def test_repeating_an_operation_adds_no_record(room: Room) -> None:
    for _ in range(3):
        relay(room, "insert", {"id": 1, "a": 1})
        relay(room, "upsert", {"id": 2, "a": 1})
        relay(room, "update", {"id": 1, "b": 2})
    # A retried insert still is no conflict with itself, only an update in between makes it one.
    assert len(room.records()) == 3


def test_a_known_msg_id_is_answered_as_the_first_time(room: Room) -> None:
    first = relay(room, "upsert", {"id": 1, "a": 1}, msg_id="op-1")
    relay(room, "upsert", {"id": 1, "a": 2}, msg_id="op-2")
    assert relay(room, "upsert", {"id": 1, "a": 1}, msg_id="op-1") == first
    assert rows(room)["rows"][0]["a"] == 2
    assert len(room.records()) == 2


def test_the_primary_key_may_be_another_field_or_be_made_here(room: Room) -> None:
    assert relay(room, "insert", {"email": "a@x", "n": 1}, key="email")[1]["id"] == "a@x"
    made = relay(room, "insert", {"n": 2})[1]["id"]
    assert made.startswith("row_")
    assert {row.get("id") for row in rows(room)["rows"]} == {None, made}


def test_a_batch_has_a_verdict_for_each_and_later_ones_see_what_earlier_ones_wrote(room: Room) -> None:
    batch = [
        {"agent_id": "r", "table": "t", "operation": "insert", "data": {"id": 1, "a": 1}},
        {"agent_id": "r", "table": "t", "operation": "update", "data": {"id": 1, "b": 2}},
        {"agent_id": "r", "table": "t", "operation": "explode", "data": {}},
        {"agent_id": "r", "table": "t", "operation": "update", "data": {"id": 9}},
        {"agent_id": "q", "table": "t", "operation": "upsert", "data": {"id": 1, "of": "q"}},
        7,
    ]
    answer = room.client.post("/relay/batch", json=batch).json()
    assert (answer["status"], answer["count"]) == ("acked", 3)
    told = [(verdict["status"], verdict.get("version")) for verdict in answer["verdicts"]]
    assert told == [
        ("stored", 1),
        ("stored", 2),
        ("rejected", None),
        ("rejected", None),
        ("stored", 1),
        ("rejected", None),
    ]
    assert answer["verdicts"][3]["error"]["code"] == "not_found"
    found = rows(room, table="t")["rows"]
    assert found == [{"id": 1, "a": 1, "b": 2, "agent_id": "r"}, {"id": 1, "of": "q", "agent_id": "q"}]
    assert rows(room, table="t", agent_id="q")["count"] == 1
    assert room.client.post("/relay/batch", json={"operations": batch}).json()["count"] == 2
    assert room.client.post("/relay/batch", json={"x": 1}).status_code == 400


def test_a_batch_beyond_500_is_split_and_wholly_written(room: Room) -> None:
    batch = [{"agent_id": "r", "table": "t", "data": {"id": n}} for n in range(1100)]
    assert room.client.post("/relay/batch", json=batch).json()["count"] == 1100
    first = rows(room, table="t", limit=1000)
    assert (first["count"], "next" in first) == (1000, True)
    assert rows(room, table="t", limit=1000, after=first["next"])["count"] == 100


@pytest.fixture
def people(room: Room) -> Room:
    for row in (
        {"id": 1, "name": "Ada", "age": 36, "skills": ["math", "code"], "job": {"title": "lead"}},
        {"id": 2, "name": "Bob", "age": 17, "skills": [], "job": None},
        {"id": 3, "name": "Cy", "age": "unknown", "open": True},
    ):
        relay(room, "upsert", row)
    return room


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, [1, 2, 3]),
        ({"name": "Ada"}, [1]),
        ({"age": {"gte": 17}}, [1, 2]),
        ({"age": {"gt": 17, "lt": 99}}, [1]),
        ({"age": {"lte": 17}}, [2]),
        ({"age": {"ne": 17}}, [1, 3]),
        ({"name": {"in": ["Bob", "Cy"]}}, [2, 3]),
        ({"skills": {"contains": "math"}}, [1]),
        ({"skills": {"contains": ["math", "code"]}}, [1]),
        ({"name": {"contains": "d"}}, [1]),
        ({"open": {"exists": True}}, [3]),
        ({"open": {"exists": False}}, [1, 2]),
        ({"job.title": "lead"}, [1]),
        ({"job": None}, [2, 3]),
        ({"agent_id": "recruiter", "open": True}, [3]),
        ({"agent_id": "other"}, []),
    ],
)
def test_filters_find_the_rows_they_name(people: Room, filters: Any, ids: list[int]) -> None:
    assert [row["id"] for row in rows(people, filters)["rows"]] == ids


@pytest.mark.parametrize(
    "body",
    [
        {"table": ""},
        {"table": 7},
        {"table": "t", "filters": []},
        {"table": "t", "filters": {"a": {"like": "x"}}},
        {"table": "t", "filters": {"a": {"in": 3}}},
        {"table": "t", "filters": {"a": {"exists": 3}}},
        {"table": "t", "limit": -1},
        {"table": "t", "limit": 1001},
        {"sql": "DROP TABLE t"},
        [],
    ],
)
def test_a_bad_query_is_refused(room: Room, body: Any) -> None:
    answer = room.client.post("/relay/query", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage")


@pytest.mark.parametrize(
    "change",
    [
        {"agent_id": ""},
        {"agent_id": "hub"},
        {"agent_id": 7},
        {"table": None},
        {"table": "a\nb"},
        {"data": [1]},
        {"data": {"id": True}},
        {"data": {"id": {}}},
        {"operation": "update", "data": {"a": 1}},
        {"key": ""},
        {"msg_id": 7},
        {"extra": 1},
    ],
)
def test_a_bad_operation_is_refused_and_nothing_is_stored(room: Room, change: dict[str, Any]) -> None:
    body = {"agent_id": "r", "table": "t", "operation": "insert", "data": {"id": 1}, **change}
    answer = room.client.post("/relay/immediate", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage")
    assert room.records() == []


def test_what_was_carried_out_without_a_record_is_not_carried_out_again_later(room: Room) -> None:
    relay(room, "upsert", {"id": 1, "a": 1})
    same = relay(room, "upsert", {"id": 1, "a": 1}, msg_id="same")
    gone = relay(room, "delete", {"id": 2}, msg_id="gone")
    assert (same[1]["version"], gone[1]["status"]) == (1, "deleted")
    relay(room, "upsert", {"id": 1, "a": 2})
    relay(room, "upsert", {"id": 2, "a": 2})
    before = len(room.records())
    # Its answer was lost on the way, so its client sends it again, behind what others have written since.
    assert relay(room, "upsert", {"id": 1, "a": 1}, msg_id="same") == same
    assert relay(room, "delete", {"id": 2}, msg_id="gone") == gone
    assert [row["a"] for row in rows(room)["rows"]] == [2, 2]
    assert len(room.records()) == before
    both = [{"agent_id": "r", "table": "t", "data": {"id": 1, "n": 1}, "msg_id": "one"}] * 2
    assert room.client.post("/relay/batch", json=both).json()["count"] == 2
    assert rows(room, table="t")["count"] == 1


def test_a_msg_id_that_another_change_had_is_refused_and_never_answered_as_stored(room: Room) -> None:
    made = relay(room, "insert", {"name": "Ada"}, msg_id="op")
    assert relay(room, "insert", {"name": "Ada"}, msg_id="op") == made, "an id that was made here is told again"
    for what, data, table in (
        ("upsert", {"id": "other"}, "candidates"),
        ("upsert", {"id": made[1]["id"]}, "elsewhere"),
        ("delete", {"id": made[1]["id"]}, "candidates"),
    ):
        status, answer = relay(room, what, data, table, msg_id="op")
        assert (status, answer["error"]["code"]) == (409, "conflict"), (what, data)
        assert answer["error"]["context"] == {"table": "candidates", "id": made[1]["id"]}
    assert (rows(room)["count"], rows(room, table="elsewhere")["count"]) == (1, 0)


def test_a_row_that_was_erased_may_be_written_again_and_holds_nothing_up(room: Room) -> None:
    for number in range(4):
        relay(room, "insert", {"id": number, "name": f"secret-{number}"})
    asked = {"agent": "recruiter", "collection": "table/candidates"}
    assert room.client.post("/v1/erase", json=asked).json()["records"] == 4
    assert relay(room, "update", {"id": 0, "name": "x"})[0] == 404, "there is nothing to update"
    assert relay(room, "upsert", {"id": 0, "name": "Ada"})[1]["version"] == 2
    assert relay(room, "insert", {"id": 1, "name": "Bob"})[1]["version"] == 2
    assert relay(room, "delete", {"id": 2})[1]["version"] == 2
    assert [row["name"] for row in rows(room)["rows"]] == ["Ada", "Bob"]


def test_a_row_that_lost_its_body_is_written_anew_beside_its_neighbours(room: Room) -> None:
    for number in range(2):
        relay(room, "insert", {"id": number, "a": number})
    (first, _) = room.records()

    def lose(tx: Any) -> None:
        tx.sql("UPDATE rec SET body=NULL, why=2 WHERE pos=?", (first["pos"],))

    room.core.corpus.write(lose)
    batch = [
        {"agent_id": "recruiter", "table": "candidates", "operation": what, "data": {"id": row, "a": 7}}
        for row, what in ((0, "update"), (1, "update"), (0, "upsert"))
    ]
    answer = room.client.post("/relay/batch", json=batch)
    assert answer.status_code == 200, answer.text
    assert [verdict["status"] for verdict in answer.json()["verdicts"]] == ["rejected", "stored", "stored"]
    assert [row["a"] for row in rows(room)["rows"]] == [7, 7]
