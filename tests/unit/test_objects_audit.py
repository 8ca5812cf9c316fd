"""Audit: what is kept of an operation, where it goes, and that what cannot be audited is not done."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import signal
import stat
import threading
from datetime import datetime
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import ObjectConflict, ObjectNotFound, StorageRefused, StorageUnavailable
from holdfast.node.audit import AuditRecords
from holdfast.objects import ABSENT, AuditEvent, AuditFile, MemoryStore, audit_log, audit_to, set_audit_sink
from holdfast.objects.audit import default_audit_path, event
from holdfast.objects.layers import Audited, Metered
from holdfast.testing.faults import AFTER, Faults, FaultyStore


def said(events: list[AuditEvent]) -> list[tuple[str, str, str, str]]:
    return [(each.actor, each.action, each.resource, each.outcome) for each in events]


def test_a_write_is_announced_and_its_end_is_kept() -> None:
    events: list[AuditEvent] = []
    who = ["ada"]
    store = Audited(MemoryStore(), events.append, actor=lambda: who[0])
    info = store.put("a/b", b"1234", expect=ABSENT)
    who[0] = "bob"
    with pytest.raises(ObjectConflict):
        store.put("a/b", b"5", expect=ABSENT)
    store.read("a/b")
    store.delete("a/b")
    assert said(events) == [
        ("ada", "storage_write", "storage/a/b", "started"),
        ("ada", "storage_write", "storage/a/b", "success"),
        ("bob", "storage_write", "storage/a/b", "started"),
        ("bob", "storage_write", "storage/a/b", "failure"),
        ("bob", "storage_delete", "storage/a/b", "started"),
        ("bob", "storage_delete", "storage/a/b", "success"),
    ]
    assert events[1].context == {"store": store.name, "size": 4, "etag": info.etag}
    assert events[3].context["error"] == "object_conflict"
    assert events[5].context["existed"] is True
    assert all(datetime.fromisoformat(each.at).utcoffset() is not None for each in events)


def test_reads_are_kept_before_a_byte_is_handed_out() -> None:
    events: list[AuditEvent] = []
    store = Audited(MemoryStore(), events.append, actor="ada", reads=True)
    store.put("one", b"12")
    events.clear()
    store.read("one")
    store.get("one").close()
    store.head("one")
    list(store.list("o"))
    with pytest.raises(ObjectNotFound):
        store.read("nobody")
    assert said(events) == [
        ("ada", "storage_read", "storage/one", "success"),
        ("ada", "storage_read", "storage/one", "success"),
        ("ada", "storage_read", "storage/one", "success"),
        ("ada", "storage_list", "storage/o", "success"),
        ("ada", "storage_read", "storage/nobody", "failure"),
    ]


def broken(event: AuditEvent) -> None:
    raise RuntimeError("the sink is full")


def test_what_cannot_be_audited_is_not_done() -> None:
    below = MemoryStore()
    below.put("old", b"1")
    store = Audited(below, broken, reads=True)
    for call in (
        lambda: store.put("new", b"2"),
        lambda: store.delete("old"),
        lambda: store.read("old"),
        lambda: store.get("old"),
        lambda: list(store.list()),
    ):
        with pytest.raises(StorageUnavailable, match="the sink is full"):
            call()
    assert [info.key for info in below.list()] == ["old"]


def test_unless_it_is_told_to_and_then_the_log_has_it(caplog: pytest.LogCaptureFixture) -> None:
    store = Audited(MemoryStore(), broken, strict=False)
    with caplog.at_level(logging.ERROR, "holdfast.objects.audit"):
        store.put("one", b"1")
    assert store.read("one") == b"1"
    assert len(caplog.records) == 2
    assert "storage/one" in caplog.records[0].getMessage()


def test_an_end_that_is_not_kept_is_no_lie_about_the_write(caplog: pytest.LogCaptureFixture) -> None:
    events: list[AuditEvent] = []

    def once(event: AuditEvent) -> None:
        if events:
            raise RuntimeError("the sink is full")
        events.append(event)

    store = Audited(MemoryStore(), once)
    with caplog.at_level(logging.ERROR, "holdfast.objects.audit"):
        assert store.put("one", b"1").size == 1
    assert [each.outcome for each in events] == ["started"]
    assert "success" in caplog.text


def test_a_write_without_an_answer_is_a_failure_that_says_so() -> None:
    events: list[AuditEvent] = []
    store = Audited(FaultyStore(MemoryStore(), Faults(AFTER)), events.append)
    with pytest.raises(StorageUnavailable):
        store.put("one", b"1")
    assert events[-1].context["error"] == "storage_unavailable"


def test_the_seeds_call_writes_where_it_was_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def seed(key: str, data: bytes) -> None:
        await audit_log(
            actor="system",
            action="storage_write",
            resource=f"storage/{key}",
            outcome="success",
            context={"storage_type": "file", "data_size": len(data), "timestamp": datetime.now().isoformat()},
        )

    monkeypatch.delenv("HOLDFAST_AUDIT_FILE", raising=False)
    monkeypatch.setenv("HOLDFAST_STORE", str(tmp_path / "node"))
    asyncio.run(seed("default", b"12"))
    file = AuditFile(tmp_path / "node" / "audit.jsonl")
    assert default_audit_path() == file.path
    assert [each.resource for each in file.events()] == ["storage/default"]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    monkeypatch.setenv("HOLDFAST_AUDIT_FILE", str(tmp_path / "mine.jsonl"))
    asyncio.run(seed("named", b"12"))
    assert [each.resource for each in AuditFile(tmp_path / "mine.jsonl").events()] == ["storage/named"]
    everybody: list[AuditEvent] = []
    mine: list[AuditEvent] = []
    set_audit_sink(everybody.append)
    try:
        asyncio.run(seed("process", b"12"))
        with audit_to(mine.append):
            asyncio.run(seed("block", b"12"))
    finally:
        set_audit_sink(None)
    assert [each.resource for each in everybody] == ["storage/process"]
    assert [each.resource for each in mine] == ["storage/block"]
    assert mine[0].context["data_size"] == 2


def test_the_seeds_call_drops_nothing_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_AUDIT_FILE", str(tmp_path))  # a directory
    with pytest.raises(StorageUnavailable):
        asyncio.run(audit_log(actor="a", action="b", resource="c", outcome="d"))
    with pytest.raises(StorageRefused, match="actor"):
        asyncio.run(audit_log(actor="", action="b", resource="c", outcome="d"))
    with pytest.raises(StorageRefused, match="context"):
        asyncio.run(audit_log(actor="a", action="b", resource="c", outcome="d", context={"x": object()}))


def _write_events(path: Path, who: int) -> None:
    sink = AuditFile(path)
    for number in range(20):
        sink(event(actor=f"p{who}", action="a", resource=f"r/{number}", outcome="success", context={"x": "y" * 5000}))


def test_a_file_is_shared_by_processes_and_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"at": "2026-01-06T12:00:00Z", "act')
    fork = multiprocessing.get_context("spawn")
    children = [fork.Process(target=_write_events, args=(path, who)) for who in range(2)]
    for child in children:
        child.start()
    _write_events(path, 2)
    for child in children:
        child.join()
    lines = path.read_text().splitlines()
    assert len(lines) == 61
    assert all(json.loads(line)["outcome"] == "success" for line in lines[1:])
    found = list(AuditFile(path).events())
    for who in range(3):
        assert [each.resource for each in found if each.actor == f"p{who}"] == [f"r/{n}" for n in range(20)]


def test_events_are_records_of_a_node(tmp_path: Path) -> None:
    with holdfast.Store(tmp_path / "node", agent="files", hub=[]) as node:
        sink = AuditRecords(node)
        store = Audited(MemoryStore(), sink, actor="ada")
        store.put("one", b"1")
        store.delete("one")
        asyncio.run(_logged(sink))
    with holdfast.Store(tmp_path / "node", agent="files", hub=[]) as node:
        assert [(each.action, each.outcome) for each in AuditRecords(node).events()] == [
            ("storage_write", "started"),
            ("storage_write", "success"),
            ("storage_delete", "started"),
            ("storage_delete", "success"),
            ("login", "denied"),
        ]
        assert len(node.keys(collection="audit")) == 5


async def _logged(sink: AuditRecords) -> None:
    with audit_to(sink):
        await audit_log(actor="eve", action="login", resource="hub", outcome="denied")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_is_forked_in_the_middle_of_an_event_holds_nobody_up(tmp_path: Path) -> None:
    """The lock on the file belongs to the open file, which a forked child has too and does not close."""
    sink = AuditFile(tmp_path / "audit.jsonl")
    one = event(actor="ada", action="storage_write", resource="storage/a", outcome="success")
    ended, written = threading.Event(), threading.Event()

    def write() -> None:
        while not ended.is_set():
            sink(one)
            written.set()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    children = []
    try:
        for _ in range(8):  # most of the time of an event is its sync, under the lock
            assert written.wait(20)
            child = os.fork()
            if not child:
                try:
                    signal.alarm(60)
                    sink(one)
                    signal.pause()  # a worker that lives on
                finally:
                    os._exit(1)
            children.append(child)
            written.clear()
            assert written.wait(20), "the events of the parent wait for its child"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        ended.set()
        writer.join(20)
    assert len(list(sink.events())) >= 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_may_meter_though_a_thread_of_its_parent_was_counting() -> None:
    store = Metered(MemoryStore())
    with store._lock:
        child = os.fork()
        if not child:
            try:
                signal.alarm(20)
                store.put("a", b"1")
                os._exit(0 if store.stats().bytes_in == 1 else 2)
            finally:
                os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
