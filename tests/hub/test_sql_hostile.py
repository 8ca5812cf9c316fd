"""Hostile SQL: refused or stopped within limits on either database, the hub and its data unharmed; layer by layer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import apsw
import pytest

from holdfast import codec
from holdfast.corpus import SqliteCorpus, sandbox
from holdfast.corpus.postgres import sqlviews, sqlworker
from holdfast.corpus.sandbox import Question, Sandbox
from holdfast.hub.database import HubDatabase
from tests.flow.hubs import HubProcess
from tests.hub import hostile_sql
from tests.hub.conftest import Room
from tests.hub.lines import Line
from tests.hub.test_sql import children, fill, memory, rows
from tests.promises import Count

EVERYWHERE = ("WRITES", "SPYING", "TRICKS", "LARGE", "HEAVY")
SECONDS = 0.15
SECONDS_OF_A_DATABASE = 0.05
"""What has no end there takes a processor for as long; its memory is bounded by the server."""
MEMORY_KIB_MAX = 120 << 10
"""A worker's: what Python and SQLite are (24 MB), the heap it may have (48 MB), and its answers."""


@pytest.fixture
def full(room: Room) -> Room:
    """A hub with something in it."""
    fill(lambda path, body: room.client.post(path, json=body))
    return room


def test_the_corpus_is_large_enough_and_without_repeats() -> None:
    corpus = [sql for group in EVERYWHERE for sql in getattr(hostile_sql, group)]
    assert len(corpus) >= 150
    assert [sql for sql in corpus if corpus.count(sql) > 1] == []


def test_hostile_statements_are_refused_or_stopped_and_nothing_is_harmed(
    hub: HubProcess, line: Line, count: Count
) -> None:
    fill(lambda path, body: line.json("POST", path, body))
    before = line.json("GET", "/v1/feed?limit=500")
    files = set(hub.directory.rglob("*"))
    here = sorted(os.listdir())
    wrong, peak = [], 0
    expected = {"WRITES": {"forbidden", "syntax"}, "SPYING": {"forbidden", "syntax"}}
    expected["TRICKS"] = expected["LARGE"] = {"forbidden", "syntax", "size", "values", "memory", "request"}
    expected["HEAVY"] = {"time", "memory", "size", "forbidden", "syntax"}
    for group, reasons in expected.items():
        for sql in getattr(hostile_sql, group):
            status, _, body = line.ask("POST", "/relay/query", {"sql": sql, "timeout": SECONDS})
            found = json.loads(body)
            told = found.get("error", {}).get("context", {}).get("reason", "request")
            if status != 400 or told not in reasons:
                wrong.append((sql[:90], status, str(found)[:160]))
            for child in children(hub.pid):
                peak = max(peak, memory(child, "VmHWM"))
    assert wrong == []
    assert 0 < peak < MEMORY_KIB_MAX
    assert memory(hub.pid, "VmRSS") < 50 << 10
    # Nothing is changed, nothing has appeared, the file is sound, and the next is answered.
    assert line.json("POST", "/relay/query", {"sql": "SELECT count(*) FROM candidates"})["rows"] == [[3]]
    assert line.json("GET", "/v1/feed?limit=500") == before
    assert line.json("GET", "/readyz")["ready"] is True
    assert sorted(os.listdir()) == here
    assert set(hub.directory.rglob("*")) == files
    hub.stop()
    corpus = SqliteCorpus(hub.directory / "hub.db", hub=True)
    assert corpus.engine.scrub() == []
    corpus.close()
    many = sum(len(getattr(hostile_sql, group)) for group in expected)
    count("hostile SQL on SQLite", tried=many, refused_or_stopped=many)


@pytest.mark.parametrize("home", ["database"], indirect=True)
def test_hostile_statements_harm_no_database(full: Room, count: Count) -> None:
    before = full.records()
    wrong, peak, many, within = [], 0, 0, 0
    for group in (*EVERYWHERE, "POSTGRES"):
        for sql in getattr(hostile_sql, group):
            answer = full.client.post("/relay/query", json={"sql": sql, "timeout": SECONDS_OF_A_DATABASE})
            found = answer.json()
            told = found.get("error", {}).get("context", {}).get("reason", "request")
            # What another engine takes for too large may be answered, within the limits of an answer.
            answered = group in ("LARGE", "HEAVY") and answer.status_code == 200 and found["count"] <= 1000
            many, within = many + 1, within + answered
            if not answered and (answer.status_code != 400 or told == "failed"):
                wrong.append((sql[:90], answer.status_code, str(found)[:160]))
            for child in full.core.sql.workers():
                peak = max(peak, memory(child, "VmHWM"))
    assert wrong == []
    assert 0 < peak < MEMORY_KIB_MAX
    assert full.records() == before
    assert rows(full, "SELECT count(*) FROM candidates") == [[3]]
    count("hostile SQL on PostgreSQL", tried=many, refused_or_stopped=many - within, answered_within_the_limits=within)


@pytest.mark.parametrize("home", ["database"], indirect=True)
def test_what_a_statement_sets_does_not_outlive_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    home = room.core.home
    assert isinstance(home, HubDatabase)
    with home.corpus.engine.reader() as connection:
        gateway = sqlworker.Gateway(sqlviews.prepare(connection, home.corpus.database, home.signer))
    monkeypatch.setattr(sqlworker, "calls_of", lambda _: set())  # as if the list of functions had a hole
    sets = "SELECT set_config('work_mem', '1GB', false), pg_advisory_lock(7)::text, lo_create(0)"
    assert gateway.ask(Question(sets)).reason == ""
    told = "SELECT current_setting('work_mem'), current_setting('transaction_read_only'),"
    told += " (SELECT count(*) FROM pg_locks WHERE locktype='advisory' AND objid=7),"
    told += " (SELECT count(*) FROM pg_largeobject_metadata)"
    assert json.loads(gateway.ask(Question(told)).data)["rows"] == [["4MB", "on", 0, 0]]
    assert gateway.ask(Question("SELECT * FROM holdfast.rec")).reason == "forbidden"


# -- the sandbox itself: each layer holds without the others ----------------------------------------------------


@pytest.fixture
def box(full: Room) -> Iterator[Sandbox]:
    opened = Sandbox(full.core.home.path / "hub.db")
    yield opened
    opened.close()


def test_without_the_authorizer_the_file_still_cannot_be_written(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "_may", lambda *_: True)
    for sql in (
        "DELETE FROM rec",
        f"DELETE FROM {box._schema}.rec",
        "PRAGMA user_version=9",
        "VACUUM INTO 'stolen.db'",
    ):
        assert box.ask(Question(sql)).reason == "forbidden", sql
    for sql in (f"DELETE FROM {box._schema}.rec", f"CREATE TABLE {box._schema}.x(y)"):
        with pytest.raises(apsw.ReadOnlyError):
            box._db.execute(sql)
    box._db.execute("PRAGMA query_only=0")
    with pytest.raises(apsw.ReadOnlyError):
        box._db.execute(f"DELETE FROM {box._schema}.rec")


def test_a_clock_that_runs_out_stops_a_statement_between_rows(box: Sandbox) -> None:
    ticks = iter(range(10_000_000))
    box._clock = lambda: next(ticks)  # each look at it takes a second
    assert box.ask(Question("SELECT id FROM messages", seconds=50)).reason == "time"


def test_every_function_that_may_be_called_is_there(box: Sandbox) -> None:
    box._db.authorizer, box._end = None, float("inf")
    there = {row[0].lower() for row in box._db.execute("SELECT name FROM pragma_function_list")}
    special = {"current_date", "current_time", "current_timestamp"}
    assert sandbox.FUNCTIONS - special - there == set()


def test_a_body_that_unfolds_to_too_much_is_no_value(box: Sandbox) -> None:
    packed, body = codec.pack(b'"' + b"x" * (sandbox.VALUE_BYTES_MAX + 10) + b'"')
    assert box._value(2, 1, packed, sandbox.VALUE_BYTES_MAX + 12, body) is None
