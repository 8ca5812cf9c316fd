"""SQL over views: strangers' statements are refused or stopped within limits, and harm neither the hub nor its data."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast.corpus import sandbox, views
from holdfast.errors import HoldfastError
from holdfast.hub import principal, sqlroom
from holdfast.hub.directory import HubDirectory
from holdfast.hub.exchange import answer_error
from holdfast.hub.principal import Principal, set_principal
from tests.flow.hubs import HubProcess, until
from tests.house.doc_blocks import blocks
from tests.hub import hostile_sql
from tests.hub.conftest import Room
from tests.hub.lines import Line
from tests.hub.pens import Pen

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
MESSAGES = 400


def fill(post: Any) -> None:
    """What the statements are asked about."""
    batch = [
        {
            **{"msg_id": f"m-{n}", "sender": f"agent-{n % 5}", "recipient": "commander", "task_id": f"task-{n % 20}"},
            **{"role": "user", "content": f"please call back number {n} " + "la" * (n % 400)},
        }
        for n in range(MESSAGES)
    ]
    post("/sync/messages", {"batch_id": "b", "messages": batch})
    people = [("c-1", "Ada", 36, ["math", "code"]), ("c-2", "Bob", 17, []), ("c-3", "Cy", 50, ["law"])]
    for row, name, age, skills in people:
        data = {"id": row, "name": name, "age": age, "skills": skills}
        post("/relay/immediate", {"agent_id": "recruiter", "table": "candidates", "data": data})
    post("/relay/immediate", {"agent_id": "recruiter", "table": "records", "data": {"id": 1, "of": "somebody"}})


def ask(room: Room, sql: str, **more: Any) -> Any:
    """The answer to a statement that must work."""
    answer = room.client.post("/relay/query", json={"sql": sql, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows(room: Room, sql: str, *params: Any) -> list[Any]:
    """Its rows."""
    return ask(room, sql, params=list(params))["rows"]  # type: ignore[no-any-return]


def reason(answer: Any) -> str:
    """Why a statement was refused."""
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "usage"
    return str(answer.json()["error"].get("context", {}).get("reason", "request"))


def memory(pid: int, what: str) -> int:
    """KiB of a process: VmRSS now, VmHWM at most."""
    return int(Path(f"/proc/{pid}/status").read_text().partition(f"{what}:")[2].split()[0])


def children(pid: int) -> list[int]:
    """The processes that it started."""
    found = [Path(task, "children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [int(child) for text in found for child in text.split()]


@pytest.fixture
def full(room: Room) -> Room:
    """A hub with something in it."""
    fill(lambda path, body: room.client.post(path, json=body))
    return room


def test_harmless_statements_work(full: Room) -> None:
    only_here = hostile_sql.HARMLESS_SQLITE if isinstance(full.core.home, HubDirectory) else []
    for sql in [*hostile_sql.HARMLESS, *only_here]:
        found = ask(full, sql)
        assert (found["truncated"], found["count"]) == (False, len(found["rows"])), sql
        assert all(len(row) == len(found["columns"]) for row in found["rows"]), sql
        assert found["rows"] or sql in ("SELECT 1 WHERE 1=0", "SELECT * FROM files"), sql


def test_the_page_about_sql_is_true(full: Room) -> None:
    text = PAGE.read_text("utf-8")
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)`", text, re.MULTILINE))
    assert set(shown) == set(views.NAMES)
    for view, columns in shown.items():
        assert ask(full, f"SELECT * FROM {view} LIMIT 1")["columns"] == columns.split(", ")
    examples = [block.text for block in blocks(text) if block.language == "sql"]
    assert len(examples) >= 2
    for sql in examples:
        assert ask(full, sql)["truncated"] is False


# -- what is answered -------------------------------------------------------------------------------------------


def test_an_answer_has_columns_rows_and_parameters(full: Room) -> None:
    sql = "SELECT name, age FROM candidates WHERE age > ? AND name <> ? ORDER BY age"
    assert ask(full, sql, params=[20, "Bob"]) == {
        **{"columns": ["name", "age"], "rows": [["Ada", 36], ["Cy", 50]], "count": 2, "truncated": False}
    }
    named = ask(full, "SELECT name FROM candidates WHERE age < :most", params={"most": 20}, shape="objects")
    assert named["rows"] == [{"name": "Bob"}]
    values = ask(full, "SELECT ?, ?, ?, ?, ?, x'0001'", params=[None, True, 1.5, "ä", -5])["rows"]
    assert values == [[None, 1, 1.5, "ä", -5, base64.b64encode(b"\0\1").decode()]]
    twice = ask(full, "SELECT 1 AS a, 2 AS a", shape="objects")
    assert (twice["columns"], twice["rows"]) == (["a", "a_2"], [{"a": 1, "a_2": 2}])


def test_answers_end_at_their_limits_and_say_so(full: Room) -> None:
    cut = ask(full, "SELECT id FROM messages", limit=3)
    assert (cut["count"], cut["truncated"]) == (3, "rows")
    assert ask(full, "SELECT id FROM messages LIMIT 3", limit=3)["truncated"] is False
    assert ask(full, "SELECT id FROM messages", limit=0)["rows"] == []
    many = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM r) SELECT ? FROM r"
    wide = ask(full, many, params=["x" * 100_000], limit=10_000, timeout=5)
    assert (wide["count"], wide["truncated"]) == (20, "bytes")


@pytest.mark.parametrize(
    "body",
    [
        {"sql": 7},
        {"sql": "x" * 20_001},
        {"sql": "SELECT 1", "limit": -1},
        {"sql": "SELECT 1", "limit": 10_001},
        {"sql": "SELECT 1", "limit": True},
        {"sql": "SELECT 1", "timeout": 0},
        {"sql": "SELECT 1", "timeout": 99},
        {"sql": "SELECT 1", "timeout": "1"},
        {"sql": "SELECT 1", "shape": "csv"},
        {"sql": "SELECT 1", "table": "t"},
        {"sql": "SELECT 1", "params": "x"},
        {"sql": "SELECT 1", "params": [1]},
        {"sql": "SELECT ?", "params": [[1]]},
        {"sql": "SELECT ?", "params": [{}]},
        {"sql": "SELECT ?", "params": [1 << 64]},
        {"sql": "SELECT ?", "params": [1 << 63]},
        {"sql": "SELECT ?", "params": ["x" * 300_000]},
        {"sql": "SELECT :a", "params": {}},
        {"sql": "SELECT :a", "params": {"b": 1}},
        {"sql": "SELECT ?", "params": [1] * 65},
    ],
)
def test_a_bad_question_is_refused(room: Room, body: Any) -> None:
    data = json.dumps(body).encode()
    assert reason(room.client.post("/relay/query", content=data)) in ("request", "values")


def test_a_refusal_says_why_and_names_the_views(full: Room) -> None:
    answer = full.client.post("/relay/query", json={"sql": "SELECT * FROM candidats"})
    assert reason(answer) == "syntax"
    error = answer.json()["error"]
    assert error["message"] == "SQL: no such table: candidats"
    assert "latest, messages, metrics, records" in error["hint"]
    assert "candidates" in error["hint"]
    spying = full.client.post("/relay/query", json={"sql": "WITH records AS (SELECT * FROM rec) SELECT * FROM records"})
    assert reason(spying) == "forbidden"
    salt = full.client.post("/relay/query", json={"sql": "SELECT salt, records.pos FROM records, rec"})
    for each in (answer, spying, salt):
        assert not re.search(r"[is][0-9a-f]{32}", each.text), "the names that nobody may know"


# -- who may ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "collections", "status"),
    [
        ({principal.READ, principal.SQL}, ("*",), 200),
        ({principal.ADMIN}, ("messages",), 200),
        ({principal.READ}, ("*",), 403),
        ({principal.SQL}, ("*",), 403),
        ({principal.READ, principal.SQL}, ("messages",), 403),
    ],
)
def test_sql_wants_its_scope_and_every_collection(room: Room, scopes: Any, collections: Any, status: int) -> None:
    who = Principal(kind="service", name="s", scopes=frozenset(scopes), collections=collections)

    found = [r for r in room.client.app.routes if r.path == "/relay/query"]  # type: ignore[attr-defined]
    assert len(found) == 1
    guarded = found[0].endpoint

    async def asked(scope: Any, receive: Any, send: Any) -> None:
        set_principal(scope, who)
        try:
            await guarded(scope, receive, send)
        except HoldfastError as error:
            await answer_error(send, error)

    assert TestClient(asked).post("/", json={"sql": "SELECT 1"}).status_code == status


# -- the views --------------------------------------------------------------------------------------------------


def test_what_is_deleted_is_in_records_alone(room: Room) -> None:
    def relay(operation: str, row: str) -> None:
        body = {"agent_id": "r", "table": "t", "operation": operation, "data": {"id": row}}
        assert room.client.post("/relay/immediate", json=body).status_code == 200

    for row in ("a/1", "a/2", "b/1"):
        relay("insert", row)
    relay("delete", "b/1")
    assert rows(room, "SELECT id FROM t ORDER BY id") == [["a/1"], ["a/2"]]
    done = room.client.post("/sync/files", files={"file": ("x.txt", b"abc")}, data={"agent_id": "r", "task_id": "t"})
    file_id = done.json()["file_id"]
    (found,) = ask(room, "SELECT * FROM files", shape="objects")["rows"]
    assert (found["file_id"], found["name"], found["size"], found["task_id"]) == (file_id, "x.txt", 3, "t")
    assert rows(room, "SELECT missing, bytes, digest FROM latest WHERE key=?", f"{file_id}/bytes") == [
        ["blob", 3, done.json()["digest"]]
    ]
    room.client.delete(f"/sync/files/{file_id}")  # one record, by prefix
    for view in ("files", "latest WHERE collection='files'"):
        assert rows(room, f"SELECT * FROM {view}") == []
    gone = rows(room, "SELECT key, kind, deleted FROM records WHERE deleted=1 ORDER BY pos")
    assert gone == [["b/1", "delete", 1], [file_id, "delete-prefix", 1]]


def test_the_views_tell_what_the_other_endpoints_tell(full: Room) -> None:
    columns = "pos, agent, author, stream, seq, time, kind, collection, key, version, etag, deleted, value"
    told = rows(full, f"SELECT {columns} FROM records ORDER BY pos LIMIT 500")
    for row, record in zip(told, full.records(), strict=True):
        shown = dict(zip(columns.split(", "), row, strict=True))
        assert json.loads(shown.pop("value")) == record.pop("value")
        assert bool(shown.pop("deleted")) == record.pop("gone")
        assert shown == record
    first = full.get("/query/messages", order="oldest", limit=1)["messages"][0]
    sql = "SELECT id, ms/1000.0, task, sender, recipient, role, content, priority FROM messages ORDER BY pos LIMIT 1"
    (row,) = rows(full, sql)
    fields = ("msg_id", "timestamp", "task_id", "sender", "recipient", "role", "content")
    assert row == [*(first[name] for name in fields), "normal"]


def test_values_that_are_not_in_the_file_are_null(room: Room) -> None:
    def decide(key: str, value: Any) -> None:
        body = {"agent": "a", "collection": "c", "key": key, "value": value}
        assert room.client.post("/v1/decide", json=body).status_code == 200

    decide("large", "x" * 70_000)
    decide("packed", {"text": "y" * 5_000})
    decide("text", 'a "word"')
    decide("huge", {"n": (1 << 63) - 1})
    told = dict((key, rest) for key, *rest in rows(room, "SELECT key, format, value, bytes, missing FROM latest"))
    assert told["large"] == ["text", None, 70_000, "blob"]
    assert json.loads(told["packed"][1]) == {"text": "y" * 5_000}
    assert told["text"] == ["text", '"a \\"word\\""', 8, None]
    assert json.loads(told["huge"][1]) == {"n": (1 << 63) - 1}


def test_a_table_s_view_has_the_fields_seen_so_far(room: Room) -> None:
    def put(table: str, **data: Any) -> None:
        body = {"agent_id": "r", "table": table, "data": data}
        assert room.client.post("/relay/immediate", json=body).status_code == 200

    put("people", id=1, name="Ada", **{"odd name": 1, 'quo"ted': 2, "select": 3})
    assert ask(room, "SELECT * FROM people")["columns"] == ["id", "agent_id", "name", "odd name", 'quo"ted', "select"]
    assert rows(room, 'SELECT "odd name", "quo""ted", "select" FROM people') == [[1, 2, 3]]
    put("people", id=2, age=3, NAME="other", agent_id="given")
    assert rows(room, "SELECT id, agent_id, name, age FROM people ORDER BY id") == [
        [1, "r", "Ada", None],
        [2, "given", None, 3],
    ]
    put("wide", id=1, **{f"f{n:03}": n for n in range(300)})
    assert len(ask(room, "SELECT * FROM wide")["columns"]) == views.FIELDS_MAX
    put("rec", id=1, name="mine")
    put("state-of it", id=1, ok=True)
    assert rows(room, "SELECT name FROM rec") == [["mine"]]
    assert rows(room, 'SELECT ok FROM "state-of it"') == [[1]]
    assert ask(room, "SELECT count(*) FROM records")["rows"] == [[5]]


def test_what_the_storage_service_keeps_is_in_views_of_its_own(room: Room) -> None:
    """Written as it writes: the kinds and keys of its records are what the views go by."""
    pen = Pen("planner")

    def part(key: str, kind: str, collection: str = "sessions", **value: Any) -> None:
        pen.put(key, value, collection=collection, kind=kind)

    for s in ("session_1", "session_2"):
        part(f"{s}/session", "session", agent_name="planner", user_id="u", status="active", metadata={"a": 1})
        part(f"{s}/msg/msg_{s}", "message", role="user", content=["hi"], timestamp="2026-01-06T12:00:00Z")
        part(f"{s}/state", "state", data={"step": 1}, updated_at="2026-01-06T12:00:00Z")
        part(f"{s}/artifact/artifact_{s}/about", "artifact", name="plan.md", type="text", path="p", size=3)
    part("metric_1", "metric", "metrics", entity_type="tool", entity_name="t", metric_name="ms", value=1.5, labels={})
    pen.put("session_2/", {}, collection="sessions", kind="delete-prefix", flags=8)
    room.append(pen.segment())
    assert rows(room, "SELECT id, agent_name, user_id, status, metadata, version FROM sessions") == [
        ["session_1", "planner", "u", "active", '{"a":1}', 1]
    ]
    assert rows(room, "SELECT id, session_id, role, content, timestamp FROM history") == [
        ["msg_session_1", "session_1", "user", '["hi"]', "2026-01-06T12:00:00Z"]
    ]
    assert rows(room, "SELECT session_id, data, version FROM state") == [["session_1", '{"step":1}', 1]]
    assert rows(room, "SELECT id, session_id, name, type, size, digest FROM artifacts") == [
        ["artifact_session_1", "session_1", "plan.md", "text", 3, None]
    ]
    assert rows(room, "SELECT id, entity_name, metric_name, value FROM metrics WHERE value > 1") == [
        ["metric_1", "t", "ms", 1.5]
    ]


def test_names_that_are_taken_get_another() -> None:
    found = views.names_of(["messages", "A", "a", "sqlite_x", "table_b", "files", "table_files"])
    assert found == {
        **{"A": "A", "table_b": "table_b", "table_files": "table_files"},
        **{"table_messages": "messages", "table_a": "a", "table_sqlite_x": "sqlite_x"},
    }


def test_more_tables_than_are_remembered_can_be_asked(room: Room) -> None:
    batch = [{"agent_id": "r", "table": f"t{n}", "data": {"id": n}} for n in range(sandbox.TABLES_MAX + 10)]
    room.client.post("/relay/batch", json=batch)
    for _ in range(2):
        for n in range(0, sandbox.TABLES_MAX + 10):
            assert rows(room, f"SELECT id FROM t{n}") == [[n]]


def test_what_a_node_wrote_badly_harms_no_query(room: Room) -> None:
    """A body that is not what its header says is NULL, and the rest is answered."""
    rows(room, "SELECT 1")

    def job(tx: Any) -> None:
        for pos, (fmt, plen, body) in enumerate(
            [
                (2, 3, b"{{{"),
                (2, 2, b"\xff\xfe"),
                (1, 2, b"\xff\xfe"),
                (2, 9, b"{}"),
                (2, 1 << 30, b"{}"),
                (7, 2, b"{}"),
                (2, 20_000, b"[" * 20_000),
            ],
            1000,
        ):
            tx.execute(
                "INSERT INTO rec(pos, branch, seq, hlc, agent, author, kind, coll, key, fmt, flags, version, prior,"
                " plen, phash, salt, link, codec, why, body)"
                " VALUES(?,1,?,1,1,1,1,1,?,?,1,1,0,?,x'00',x'00',x'00',0,0,?)",
                (pos, pos, f"k{pos}", fmt, plen, body),
            )

    room.core.corpus.write(job)
    assert rows(room, "SELECT value FROM records WHERE pos>=1000") == [[None]] * 7


# -- the worker -------------------------------------------------------------------------------------------------


def test_the_worker_is_started_by_the_first_question_and_lives_on(room: Room) -> None:
    assert room.core.sql.workers() == []
    rows(room, "SELECT 1")
    (pid,) = room.core.sql.workers()
    rows(room, "SELECT 1")
    assert room.core.sql.workers() == [pid]
    modules = Path(f"/proc/{pid}/maps").read_text()
    assert "uvloop" not in modules
    assert b"HOLDFAST" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_worker_that_died_is_replaced_unseen(room: Room) -> None:
    rows(room, "SELECT 1")
    (pid,) = room.core.sql.workers()
    os.kill(pid, signal.SIGKILL)
    assert rows(room, "SELECT 2") == [[2]]
    assert room.core.sql.workers() != [pid]


def test_a_worker_that_is_stuck_is_killed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(room, "SELECT 1")
    (pid,) = room.core.sql.workers()
    monkeypatch.setattr(sqlroom, "GRACE_S", 0.05)
    os.kill(pid, signal.SIGSTOP)  # stuck where no clock is looked at
    answer = room.client.post("/relay/query", json={"sql": "SELECT 1", "timeout": 0.05})
    assert reason(answer) == "time"
    assert room.core.sql.workers() == []
    monkeypatch.undo()
    assert rows(room, "SELECT 1") == [[1]]


def test_workers_end_with_the_hub(hub: HubProcess, line: Line) -> None:
    line.json("POST", "/relay/query", {"sql": "SELECT 1"})
    (worker,) = children(hub.pid)
    hub.kill()
    until(lambda: not alive(worker), "the worker has ended")
    hub.start()
    line.close()


def alive(pid: int) -> bool:
    """Whether it runs; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_questions_wait_their_turn_and_too_many_are_sent_away(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlroom, "WAITING_MAX", -sqlroom.WORKERS)
    answer = room.client.post("/relay/query", json={"sql": "SELECT 1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "hub_unavailable")
