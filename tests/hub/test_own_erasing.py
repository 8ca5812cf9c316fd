"""Erasing what plain clients wrote: a subject's sessions, one session, an agent's records; nothing of them stays."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast import records
from holdfast.corpus import SqliteCorpus
from holdfast.corpus.space import Reserve
from holdfast.errors import NotFound, UsageError
from holdfast.hub.app import create_app
from holdfast.hub.backup import hub_source
from holdfast.hub.directory import HubDirectory
from holdfast.hub.own_erasing import OwnErasing, Wanted
from holdfast.hub.sessions import FORKS
from holdfast.integrity.backup import Moment, Repository, create, restore
from holdfast.integrity.scan import verify_corpus
from holdfast.log.erasure import erasures
from holdfast.node.erase import erase_at_hub
from holdfast.node.hub import Hub
from holdfast.objects import BlobFiles
from holdfast.objects.files.store import FileStore
from tests.flow.hubs import HubProcess, until
from tests.hub.conftest import Room
from tests.hub.pens import Pen
from tests.hub.test_erasing import residue
from tests.hub.test_storage_artifacts import note
from tests.hub.test_storage_metrics import LATENCY
from tests.hub.test_storage_sessions import begin, say


class Told:
    """What plain clients tell a hub of two users; every text of the first is a canary."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.canaries: list[str] = []
        room = Room(client, None)  # type: ignore[arg-type]
        for user, session in (("p-17", "session_one"), ("p-17", "session_two"), ("p-18", "session_other")):
            begin(room, id=session, user_id=user, metadata={"note": self.canary(user)})
            for number in range(12):
                say(room, session, f"{self.canary(user)} said {'at length ' * 90 * (number % 3 == 0)}")
            made = note(room, session_id=session, name=self.canary(user))
            content = (self.canary(user) * 4_000).encode()
            assert client.put(f"/storage/artifacts/{made['id']}/content", content=content).status_code == 200
            labels = {"who": self.canary(user)}
            sample = {**LATENCY, "session_id": session, "labels": labels}
            assert client.post("/storage/metrics", json=sample).status_code == 201
        # Handed over to another user since: every version counts.
        assert client.put("/storage/sessions/session_two", json={"user_id": "p-19"}).status_code == 200

    def canary(self, user: str) -> str:
        made = os.urandom(16).hex()
        if user == "p-17":
            self.canaries.append(made)
        return made

    def erase(self, **asked: Any) -> Any:
        return self.client.post("/v1/erase", json=asked)


def bodies(directory: Path) -> list[bytes]:
    """What the file holds of the subject's sessions, as it is stored: compressed where it was."""
    corpus = SqliteCorpus(directory / "hub.db", hub=True, read_only=True)
    try:
        sql = "SELECT body FROM rec WHERE body IS NOT NULL AND (key LIKE 'session_one/%' OR key LIKE 'session_two/%')"
        return [bytes(row[0]) for row in corpus.query(sql) if len(row[0]) > 40]
    finally:
        corpus.close()


def left(directory: Path, told: Told, packed: list[bytes]) -> list[str]:
    """The files in which anything of it is found, as it was said or as it was stored."""
    needles = [each.encode() for each in told.canaries] + packed
    return [name for needle in needles for name in residue(directory, needle)]


def test_a_subject_is_erased_from_the_hubs_own_streams_and_nobody_else(room: Room) -> None:
    told = Told(room.client)
    ada = Pen("ada")
    ada.put("hers", {"text": "a node's own"})
    room.append(ada.segment())
    until(lambda: room.get("/v1/search", q=told.canaries[1])["records"], "the index is full")
    assert told.erase(subject="p-17", reason="p-17 asked").status_code == 400, "the reason stays readable for ever"
    answer = told.erase(subject="p-17", reason="asked to, ticket 4711")
    assert answer.status_code == 200, answer.text
    report = answer.json()
    # For each of two sessions: itself, 12 messages, an artifact and its bytes, a figure; a change; two deletions.
    assert (report["records"], report["blobs"]) == (2 * 16 + 1 + 2, 2)
    assert sorted(report["agents"]) == ["metrics", "researcher"] or report["agents"] == ["researcher"]
    assert report["left"] == []
    until(lambda: not room.core.corpus.meta("erasing"), "nothing is left to erase")
    for session in ("session_one", "session_two"):
        assert room.client.get(f"/storage/sessions/{session}").status_code == 404
        assert room.client.post(f"/storage/sessions/{session}/restore").status_code == 404
        body = {"session_id": session, "role": "user", "content": "more"}
        assert room.client.post("/storage/history", json=body).status_code == 404
    for canary in told.canaries:
        assert room.get("/v1/search", q=canary)["records"] == []
        assert canary not in json.dumps(room.records())
    assert len(room.get("/storage/history", session_id="session_other")) == 12
    assert [each["session_id"] for each in room.get("/storage/metrics")] == ["session_other"]
    assert [each["value"] for each in room.records() if each["key"] == "hers"] == [{"text": "a node's own"}]
    scan = verify_corpus(room.core.corpus, room.core.home.blobs)
    assert scan.findings == [], "and the history proves itself"
    found = [each for each in erasures(room.core.corpus) if each.marks]
    assert sum(len(each.marks) for each in found) == report["records"]
    assert {each.reason for each in found} == {"asked to, ticket 4711"}
    assert told.erase(subject="p-17").status_code == 404


def test_a_session_or_what_an_agent_wrote_is_erased_alone(room: Room) -> None:
    told = Told(room.client)
    wrong: list[dict[str, str]] = [
        {},
        {"subject": "a", "session": "b"},
        {"collection": "x"},
        {"agent": "a", "key": "k"},
    ]
    assert [told.erase(**asked).status_code for asked in wrong] == [400] * len(wrong)
    assert told.erase(session="session_one").json()["records"] == 17
    assert len(room.get("/storage/history", session_id="session_two")) == 12
    for text in ("first", "second"):
        wish = {"agent": "bob", "collection": "seats", "key": "12a", "value": text}
        assert room.client.post("/v1/decide", json=wish).status_code == 200
    room.client.post("/v1/decide", json={"agent": "bob", "collection": "seats", "key": "12b", "value": "kept"})
    assert told.erase(agent="hub", collection="seats", key="12a").json()["records"] == 2
    seats = {each["key"]: each.get("missing") for each in room.records() if each["collection"] == "seats"}
    assert seats == {"12a": "redacted", "12b": None}
    again = {"agent": "bob", "collection": "seats", "key": "12a", "value": "third"}
    assert room.client.post("/v1/decide", json=again).status_code == 200, "the key may be written again"
    # What a node has shipped only that node can erase, and that is said.
    ada = Pen("ada")
    ada.put("hers", "a node's own")
    room.append(ada.segment())
    assert told.erase(agent="ada").json()["left"] == ["1 records that nodes have shipped: erase them there"]
    assert [each["value"] for each in room.records() if each["key"] == "hers"] == ["a node's own"]
    assert verify_corpus(room.core.corpus, room.core.home.blobs).findings == []


def test_no_byte_stays_and_an_old_backup_brings_none_back(tmp_path: Path) -> None:
    where, store = tmp_path / "hub", FileStore(tmp_path / "bak")

    def back_up() -> str:
        with hub_source(str(where)) as source:
            return create(Repository(store), source).backup

    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    with TestClient(create_app(HubDirectory(where, settle="acked", reserve=reserve), scan_s=0)) as client:
        told = Told(client)
        until(lambda: client.get("/v1/search", params={"q": told.canaries[-3]}).json()["records"], "the index is full")
    packed, old = bodies(where), back_up()
    assert len(left(where, told, packed)) > len(told.canaries)
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    with TestClient(create_app(HubDirectory(where, settle="acked", reserve=reserve), scan_s=0)) as client:
        answer = client.post("/v1/erase", json={"subject": "p-17"}).json()
        assert (answer["records"], answer["clean"]) == (35, True)
        assert left(where, told, packed) == [], "while it serves"
    assert left(where, told, packed) == []
    back_up()
    # Of the backup from before nothing of it comes back, whether or not the erasing record does.
    made = restore(Repository(store), tmp_path / "back", Moment(backup=old), finish=lambda *_: None)
    assert made.erased == 33, "the two deletions came later than that backup"
    assert left(tmp_path / "back", told, packed) == []
    corpus = SqliteCorpus(tmp_path / "back" / "hub.db", hub=True)
    assert verify_corpus(corpus, BlobFiles(tmp_path / "back" / "blobs")).findings == []
    corpus.close()


def test_a_standby_erases_it_too_and_the_right_to_erase_is_asked_for(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub", token="operators-secret-token", scan_s=0)
    standby = HubProcess(
        tmp_path / "standby",
        follow=hub.url,
        follow_token="operators-secret-token",
        token="another-secret-token",
        scan_s=0,
    )
    try:
        secret = os.urandom(16).hex()
        for path, body in (
            ("/storage/sessions", {"id": "session_one", "agent_name": "researcher", "user_id": "p-17"}),
            ("/storage/history", {"session_id": "session_one", "role": "user", "content": secret}),
        ):
            headers = {"Content-Type": "application/json", "Authorization": "Bearer operators-secret-token"}
            request = urllib.request.Request(f"{hub.url}{path}", json.dumps(body).encode(), headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status == 201
        until(lambda: residue(tmp_path / "standby", secret.encode()), "the standby has it")
        with Hub(hub.url, "operators-secret-token") as at:
            with pytest.raises(UsageError):
                erase_at_hub(at, subject="p-17", session="session_one")
            with pytest.raises(NotFound):
                erase_at_hub(at, agent="researcher", place=("sessions", "session_none"))
            report = erase_at_hub(at, subject="p-17", reason="asked to")
            assert (report.records, report.agents, report.clean) == (3, ["researcher"], True)
            with pytest.raises(NotFound):
                erase_at_hub(at, subject="p-17")
        assert residue(tmp_path / "hub", secret.encode()) == []
        until(lambda: not residue(tmp_path / "standby", secret.encode()), "no byte of it is on the standby")
    finally:
        hub.kill()
        standby.kill()


def test_the_hubs_own_redact_record_is_one_of_its_own_stream(room: Room) -> None:
    begin(room, id="session_one", user_id="p-17")
    room.client.post("/v1/erase", json={"session": "session_one"})
    (told,) = [each for each in room.records() if each["kind"] == records.REDACT]
    assert (told["agent"], told["collection"], told["key"]) == ("researcher", "", "")


def breaking_in(room: Room, monkeypatch: pytest.MonkeyPatch, call: int, work: Callable[[], Awaitable[Any]]) -> None:
    """Has something happen before the hub's so many-th write into its own streams from now on."""
    write, calls = room.core.own.write, 0

    async def interrupted(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            monkeypatch.setattr(room.core.own, "write", write)
            await work()
        return await write(*args, **options)

    monkeypatch.setattr(room.core.own, "write", interrupted)


def test_an_erasure_that_broke_off_goes_on_when_it_is_asked_for_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told(room.client)
    monkeypatch.setattr("holdfast.hub.own_erasing.NAMED_MAX", 4)

    async def breaks() -> None:
        raise RuntimeError("the power went")

    breaking_in(room, monkeypatch, 6, breaks)  # two deletions, three lots, and no more
    assert told.erase(subject="p-17").status_code == 500
    shown = json.dumps(room.records())
    assert sum(canary in shown for canary in told.canaries) > 0, "it broke off before all was gone"
    assert told.erase(subject="p-17").status_code == 200
    shown = json.dumps(room.records())
    assert [canary for canary in told.canaries if canary in shown] == []
    assert told.erase(subject="p-17").status_code == 404


@pytest.mark.parametrize("what", ["fork", "restore"])
def test_what_is_copied_while_it_is_erased_is_erased_too(
    room: Room, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begin(room, id="session_one", user_id="p-17")
    canaries = [os.urandom(16).hex() for _ in range(9)]
    for canary in canaries:
        say(room, "session_one", canary)
    if what == "restore":
        room.client.delete("/storage/sessions/session_one")
    monkeypatch.setattr("holdfast.hub.sessions.LOT", 3)

    async def erase() -> None:
        await OwnErasing(room.core).erase(Wanted(subject="p-17"))

    breaking_in(room, monkeypatch, 2, erase)  # behind the first lot that is written again
    body = {"id": "session_copy"} if what == "fork" else None
    assert room.client.post(f"/storage/sessions/session_one/{what}", json=body).status_code == 404
    shown = json.dumps(room.records())
    assert [canary for canary in canaries if canary in shown] == []
    for session in ("session_one", "session_copy"):
        assert room.client.get(f"/storage/sessions/{session}").status_code == 404
    assert not room.core.corpus.meta(FORKS)


def test_a_session_of_which_something_was_erased_is_copied_without_it(room: Room) -> None:
    begin(room, id="session_one")
    for number in range(3):
        say(room, "session_one", f"said {number}", id=f"msg_{number}")
    room.client.put("/storage/state/session_one", json={"data": "gone"})
    for part in ("msg/msg_1", "state"):
        asked = {"agent": "researcher", "collection": "sessions", "key": f"session_one/{part}"}
        assert room.client.post("/v1/erase", json=asked).status_code == 200
    assert room.client.post("/storage/sessions/session_one/fork", json={"id": "session_copy"}).status_code == 201
    found = room.get("/storage/history", session_id="session_copy")
    assert [each["content"] for each in found] == ["said 0", "said 2"]
    assert room.client.get("/storage/state/session_copy").status_code == 404
    assert not room.core.corpus.meta(FORKS), "it is whole"
