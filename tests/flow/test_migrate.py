"""A whole hub goes from a directory to a database and back, and nobody who uses it notices; killed, it goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from holdfast import codec, records, wire
from holdfast.cli import main
from holdfast.corpus import SqliteCorpus, index, search
from holdfast.corpus.postgres import door
from holdfast.errors import Conflict, HoldfastError, HubUnavailable, IntegrityError, Locked, NoStore, UsageError
from holdfast.hub import migrate as migrating
from holdfast.hub import tokens
from holdfast.hub.acts import TOKEN, Wanted
from holdfast.hub.app import create_app
from holdfast.hub.database import HubDatabase
from holdfast.hub.directory import HubDirectory
from holdfast.hub.migrate import migrate
from holdfast.integrity import verify_corpus
from holdfast.log import load
from holdfast.query import where
from holdfast.seal import Signer
from tests import forks
from tests.flow.hubs import HubProcess, until
from tests.hub.conftest import Room
from tests.hub.pens import Pen
from tests.services import shared_postgres

MESSAGE = {
    "msg_id": "m1",
    "sender": "bob",
    "content": "the quick brown fox",
    "recipient": "ada",
    "timestamp": 1_600_000_000,
}
GONE = {"flags": records.TOMBSTONE, "collection": "state"}
STRANGE = "nul \0 and \1, quote ' \\ \t \n, 日本 🦊"


@contextlib.contextmanager
def hub_at(place: str) -> Iterator[Room]:
    """The hub of this place, running inside the test."""
    if place.startswith("postgres"):
        home: Any = HubDatabase(place, settle="acked")
    else:
        home = HubDirectory(place.removeprefix("sqlite:"), settle="acked")
    app = create_app(home)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Room(client, app.state.core)


def write_history(room: Room, more: int = 0) -> Pen:
    """All kinds of things that a hub can hold; the pen goes on with its stream."""
    pen, client = Pen("ada"), room.client
    index.declare(room.core.corpus, "state", ["n"])
    for number in range(40):
        pen.put(f"k/{number % 12}", {"n": number, "text": "compressible " * (number * 4)})
    pen.put(STRANGE, {"text": STRANGE})
    pen.write("k/3", codec.FMT_JSON, b"{}", kind="delete", **GONE)
    pen.write("k/1", codec.FMT_JSON, b"{}", kind=records.DELETE_PREFIX, **GONE)
    pen.message("from-ada", "hello fox", to="bob", task="t1")
    pen.message("long", "hello", thread="é" * 1001)  # longer than an index entry of a database may be
    data = b"blob" * 700_000
    digest = hashlib.sha256(data).digest()
    reference = records.blob_reference(digest, len(data))
    pen.write("big", codec.FMT_BYTES, reference, collection="state", flags=records.VALUE | records.BLOB)
    assert client.put(f"/v1/blobs/{digest.hex()}", content=data).status_code == 201
    assert room.append(pen.segment()).verdicts[0].state == "ack"
    rotated = pen.head.seq + 1
    signer = Signer(bytes(range(32)))
    pen.write("", codec.FMT_BYTES, signer.public_key, kind=records.ROTATE, flags=0)
    assert room.append(pen.segment(rotated)).verdicts[0].state == "ack"
    pen.signer = signer
    other = pen.fork()
    pen.put("k/2", "after the rotation")
    assert room.append(pen.segment(rotated + 1)).verdicts[0].state == "ack"
    other.stamp += 9 << 16
    other.put("k/2", "of another life")
    other.put("theirs", 1)
    assert room.append(other.segment(rotated + 1)).verdicts[0].state == "ack"
    for number in range(5):
        bob = Pen(f"bob-{number}")
        for at in range(20 + more):
            bob.put(f"n/{at}", {"at": at})
        for first in range(1, bob.head.seq + 1, 500):
            room.append(bob.segment(first, min(first + 499, bob.head.seq)))
    assert client.post("/sync/message", json=MESSAGE).json()["status"] == "stored"
    said = {"state": "done", "reader": "bob", "result": {"foxes": 1}}
    assert client.post("/v1/messages/from-ada/state", json=said).json()["state"] == "done"
    (session,) = [client.post("/storage/sessions", json={"agent_name": "ada", "user_id": "u"}).json()["id"]]
    for text in ("first", "second fox"):
        said = {"session_id": session, "role": "user", "content": text}
        assert client.post("/storage/history", json=said).status_code == 201
    figure = {"entity_type": "tool", "entity_name": "search", "metric_name": "ms", "session_id": session}
    for value in (0.1, 12.5, 1 / 3):
        body = {**figure, "value": value, "labels": {"model": "x"}}
        assert client.post("/storage/metrics", json=body).status_code == 201
    note = {"session_id": session, "name": "report", "type": "file", "path": "/tmp/report.txt"}
    assert client.post("/storage/artifacts", json=note).status_code == 201
    assert client.put("/storage/cache/c1", json={"value": {"cached": True}, "ttl": None}).status_code == 200
    return pen


def everything(room: Room, each: int = 1) -> dict[str, Any]:
    """What anybody can ask of a hub, by what was asked; of so many keys one."""
    while search.fill(room.core.corpus):
        pass
    found: dict[str, Any] = {}
    versions, cursor = [], "0"
    while True:
        page = room.get("/v1/feed", after=cursor, limit=100)
        versions += page["records"]
        cursor = page["cursor"]
        if page["caught_up"]:
            break
    found["feed"] = versions
    after: str | None = ""
    found["records"] = []
    while after is not None:
        page = room.get("/v1/records", limit=200, **({"after": after} if after else {}))
        found["records"] += page["records"]
        after = page["next"]
    keys = {(each["agent"], each["collection"], each["key"]) for each in versions if each.get("key")}
    assert len(keys) > 100
    for agent, collection, key in sorted(keys)[::each]:
        asked = {"agent": agent, "collection": collection, "key": key}
        for path in ("/v1/latest", "/v1/history"):
            answer = room.client.get(path, params=asked)
            found[f"{path} {asked}"] = answer.status_code, answer.json(), answer.headers.get("etag")
    for path in ("/v1/agents", "/storage/metrics", "/storage/sessions"):
        found[path] = room.get(path)
    found["inbox"] = room.get("/query/messages", agent="ada")
    for box in ("ada", "bob"):
        mail = room.get("/v1/inbox", **{"for": box, "state": "all"})["mail"]
        assert mail
        found[f"mail of {box}"] = [{name: said for name, said in each.items() if name != "cursor"} for each in mail]
    found["delivery"] = room.get("/v1/messages/from-ada/delivery")
    found["search"] = [each["key"] for each in room.get("/v1/search", q="fox")["records"]]
    assert len(found["search"]) >= 3
    for session in found["/storage/sessions"]:
        for kind in ("history", "artifacts"):
            found[kind] = room.get(f"/storage/{kind}", session_id=session["id"])
    found["aggregate"] = room.get("/storage/metrics/aggregate", metric_name="ms")
    answer = room.client.get("/v1/heads", params={"nonce": "00" * 16}, headers={"Accept": wire.MEDIA})
    assert answer.status_code == 200, answer.text
    found["heads"] = wire.decode(wire.Heads, answer.content).streams
    found["proof"] = wire.decode(
        wire.Proof,
        room.client.get("/v1/latest", params={"agent": "ada", "key": "theirs"}, headers={"Accept": wire.MEDIA}).content,
    ).trail
    scan = verify_corpus(room.core.corpus, room.core.home.blobs)
    assert scan.findings == []
    found["scan"] = scan.records, scan.branches, scan.keys, scan.signatures, scan.blobs
    found["hub"] = room.core.home.hub_id
    asked = index.Query(collection="state", condition=where("n") >= 3, order=("-n",))
    page = index.find(room.core.corpus, asked, lambda stored: load(stored, room.core.home.blobs))
    found["index"] = page.way, [stored.record.key for stored in page.found]
    assert page.way == "collect:n"
    assert len(page.found) > 5
    return found


def test_a_hub_goes_to_a_database_and_back_and_nobody_notices(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, back = f"sqlite:{tmp_path / 'hub'}", f"sqlite:{tmp_path / 'back'}"
    with hub_at(source) as room:
        pen = write_history(room)
        before = everything(room)
        cursor = room.get("/v1/feed", after=0, limit=50)["cursor"]
    files = {path: path.read_bytes() for path in (tmp_path / "hub").rglob("*") if path.name in ("hub.db", "keys.db")}
    with monkeypatch.context() as hasty:
        hasty.setattr(door.Database.__init__, "__kwdefaults__", {"idle_ms": 1})  # what else is opened has no patience
        moved = migrate(source, database)
    assert (moved.verified, moved.resumed) == (True, False)
    assert (moved.records, moved.copied, moved.blobs) == (len(before["feed"]), len(before["feed"]), 1)
    assert moved.tags_left == 1
    assert (moved.keys, moved.signatures) == (before["scan"][2], before["scan"][3])
    assert {path: path.read_bytes() for path in files} == files, "the source is as it was"
    with hub_at(database) as room:
        assert everything(room) == before
        rest = room.get("/v1/feed", after=cursor, limit=500)
        assert rest["records"] == before["feed"][50:]
        assert "reset" not in rest
        assert [gen for gen, _ in room.core.home.lineage].count(moved.generation) == 1
        assert room.client.post("/sync/message", json=MESSAGE).json()["status"] == "stored"
        assert room.client.post("/sync/message", json={**MESSAGE, "content": "other"}).status_code == 409
        assert room.core.corpus.last() == moved.records, "what was known is known"
        told = room.hello(pen.hello()).streams[0]
        assert (told.state, told.at) == ("ok", pen.head)
        pen.put("k/2", "written behind the migration")
        assert room.append(pen.segment(pen.head.seq)).verdicts[0].state == "ack"
        new = {**MESSAGE, "msg_id": "m2"}
        assert room.client.post("/sync/message", json=new).json()["status"] == "stored"
        fresh = Pen("carol")
        fresh.put("x", 1)
        assert room.append(fresh.segment()).verdicts[0].state == "ack"
        more = room.get("/v1/feed", after=rest["cursor"], limit=500)
        assert [each["pos"] for each in more["records"]] == [moved.records + n for n in (1, 2, 3)]
        then = everything(room)
    with monkeypatch.context() as hasty:
        hasty.setattr(door.Database.__init__, "__kwdefaults__", {"idle_ms": 1})
        migrate(database, back)
    with hub_at(back) as room:
        assert everything(room) == then
        assert room.get("/v1/feed", after=rest["cursor"], limit=500)["records"] == more["records"]
        assert room.get("/v1/feed", after=more["cursor"])["records"] == []
        assert room.get("/storage/cache/c1")["value"] == {"cached": True}
        assert room.client.post("/sync/message", json={**new, "msg_id": "m3"}).json()["status"] == "stored"
        pen.put("k/2", "home again")
        assert room.append(pen.segment(pen.head.seq)).verdicts[0].state == "ack"
        assert verify_corpus(room.core.corpus, room.core.home.blobs).findings == []


# Ends itself as kill -9 would, at a point that it is given: when this was told, or half-way through a transaction.
KILLED = """
import os, signal, sys
from holdfast.hub.migrate import migrate
source, target, what, least = sys.argv[1:]
if what == "within":
    from holdfast.corpus.postgres.transaction import PostgresTransaction
    from holdfast.corpus.transaction import SqliteTransaction
    for kind in (PostgresTransaction, SqliteTransaction):
        def fill(self, table, columns, rows, real=kind.fill):
            real(self, table, columns, rows[: len(rows) // 2])
            self.sql("SELECT 1")
            os.kill(os.getpid(), signal.SIGKILL)
        kind.fill = fill
def told(said, done, total):
    if said.startswith(what) and done >= int(least):
        os.kill(os.getpid(), signal.SIGKILL)
migrate(source, target, told=told)
"""
POINTS = [
    *(("prove", 0), ("copy name", 1), ("within", 0), ("copy branch", 1), ("copy rec", 1000), ("within", 0)),
    *(("copy rec", 3000), ("copy tag", 0), ("copy blobs", 1), ("prove", 0), ("compare state", 0)),
]


def alone_with(database: str) -> None:
    """Waits until the server has noticed that whoever was there is gone: until then he holds his locks."""
    others = "SELECT 1 FROM pg_stat_activity WHERE datname=current_database() AND pid<>pg_backend_pid()"
    others += " AND backend_type='client backend'"
    with psycopg.connect(database, autocommit=True) as connection:
        until(lambda: not connection.execute(others).fetchall(), "nobody else is connected")


@pytest.mark.parametrize("back", [False, True], ids=["to_a_database", "to_a_directory"])
def test_killed_anywhere_it_goes_on_and_is_served_only_when_it_is_whole(
    tmp_path: Path, database: str, back: bool
) -> None:
    source, target = f"sqlite:{tmp_path / 'hub'}", database
    if back:
        source, target = shared_postgres().database(), f"sqlite:{tmp_path / 'back'}"
    with hub_at(source) as room:
        write_history(room, more=700)
        before = everything(room, each=40)
    place = source if back else database
    for what, least in POINTS:
        alone_with(place)
        done = forks.run("-c", KILLED, source, target, what, str(least), timeout=120)
        assert done.returncode == -signal.SIGKILL, (what, least, done.stderr)
        alone_with(place)
        if what != "prove":
            with pytest.raises(UsageError, match="unfinished migration"):
                HubDatabase(target) if not back else HubDirectory(target.removeprefix("sqlite:"))
    alone_with(place)
    moved = migrate(source, target)
    assert (moved.resumed, moved.verified, moved.copied) == (True, True, 0)
    with hub_at(target) as room:
        assert everything(room, each=40) == before


def refused(kind: type[HoldfastError], source: str, target: str, what: str) -> None:
    with pytest.raises(kind, match=what) as told:
        migrate(source, target)
    assert told.value.hint


def test_nobody_serves_it_meanwhile_and_nothing_is_overwritten(tmp_path: Path, database: str) -> None:
    source, other = f"sqlite:{tmp_path / 'hub'}", f"sqlite:{tmp_path / 'other'}"
    for place in (source, other, database):
        with hub_at(place) as room:
            room.append(written().segment())
    empty = shared_postgres().database()
    hubs = [HubProcess(tmp_path / "hub"), HubProcess(tmp_path / "none", database=database)]
    try:
        refused(Locked, source, empty, "served")
        refused(Locked, database, f"sqlite:{tmp_path / 'new'}", "served")
    finally:
        for hub in hubs:
            hub.stop()
    with contextlib.closing(migrating.DatabasePlace(database)), pytest.raises(Locked, match="migrated"):
        HubDatabase(database)
    refused(Conflict, source, database, "holds a hub already")
    refused(Conflict, source, other, "holds a hub already")
    refused(UsageError, source, str(tmp_path / "hub"), "same place")
    refused(NoStore, empty, other, "no hub")
    refused(UsageError, source, "postgresql:", "no database")
    made = tmp_path / "made"
    made.mkdir()
    with contextlib.closing(tokens.SqliteTokens(made)) as store:
        tokens.create(store, tokens.Wish(kind="service", name="stranger", collections=("*",)))
    refused(Conflict, source, str(made), "tokens or a key")
    refused(NoStore, f"sqlite:{tmp_path / 'nowhere'}", empty, "no hub")
    assert not (tmp_path / "nowhere").exists()


def written(agent: str = "ada") -> Pen:
    """An agent that has written one record."""
    pen = Pen(agent)
    pen.put("k", 1)
    return pen


def test_a_hub_whose_connection_broke_does_not_write_into_a_migration(tmp_path: Path, database: str) -> None:
    with contextlib.closing(HubDatabase(database)) as home, psycopg.connect(database, autocommit=True) as other:
        mine = "FROM pg_stat_activity WHERE datname=current_database() AND pid<>pg_backend_pid()"
        other.execute(f"SELECT pg_terminate_backend(pid) {mine}")
        until(lambda: not other.execute(f"SELECT 1 {mine}").fetchall(), "its connections are gone")
        with contextlib.closing(migrating.DatabasePlace(database)), pytest.raises(HubUnavailable, match="migrated"):
            home.corpus.write(lambda tx: tx.set_meta("k", 1))
        home.corpus.write(lambda tx: tx.set_meta("k", 2))
        assert home.corpus.meta("k") == 2


def test_an_unfinished_one_takes_only_the_very_same_source(tmp_path: Path, database: str) -> None:
    source, other = f"sqlite:{tmp_path / 'hub'}", f"sqlite:{tmp_path / 'other'}"
    for place in (source, other):
        with hub_at(place) as room:
            room.append(written().segment())

    class Stop(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if what == "copy state":
            raise Stop

    with pytest.raises(Stop):
        migrate(source, database, told=stop)
    refused(Conflict, other, database, "of another hub")
    refused(Conflict, database, f"sqlite:{tmp_path / 'new'}", "unfinished migration itself")
    with hub_at(source) as room:
        room.append(written("carol").segment())
    refused(Conflict, source, database, "older state of this hub")


@pytest.mark.parametrize("what", ["body", "link", "state", "blob"])
def test_a_damaged_source_is_reported_and_not_copied(tmp_path: Path, database: str, what: str) -> None:
    with hub_at(f"sqlite:{tmp_path / 'hub'}") as room:
        write_history(room)
    if what == "blob":
        (blob,) = [path for path in (tmp_path / "hub" / "blobs").rglob("*") if len(path.name) == 64]
        blob.chmod(0o600)
        blob.write_bytes(b"rotten" * 1000)
    else:
        corpus = SqliteCorpus(tmp_path / "hub" / "hub.db", hub=True)
        sql = {
            "body": "UPDATE rec SET body=zeroblob(length(body)) WHERE pos=5",
            "link": "UPDATE rec SET hlc=hlc+1 WHERE pos=5",
            "state": "UPDATE state SET gone=0 WHERE gone<>0",
        }[what]
        corpus.write(lambda tx: tx.execute(sql))
        corpus.close()
    refused(IntegrityError, f"sqlite:{tmp_path / 'hub'}", database, "source does not prove")
    with contextlib.closing(HubDatabase(database)) as home:
        assert home.corpus.last() == 0, "nothing was copied"


def tables(database: str) -> bool:
    from holdfast.corpus.postgres import Database

    return migrating.has_tables(Database(database))


def test_the_command_tells_what_it_did_and_what_it_could_not(
    tmp_path: Path, database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    source = f"sqlite:{tmp_path / 'hub'}"
    with hub_at(source) as room:
        write_history(room)
        count = room.core.corpus.last()
    store = tokens.SqliteTokens(tmp_path / "hub")
    _, text = tokens.create(store, tokens.Wish(kind="person", name="me", scopes=("admin",), collections=("*",)))
    store.close()

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["migrate", "corpus", *words], standalone_mode=False)
        return (code, *capfd.readouterr())

    code, out, err = run(source, database, "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["records"], told["blobs"], told["copied"], told["verified"]) == (0, count, 1, 0, False)
    assert not tables(database), "a dry run makes nothing"
    code, out, err = run(source, database)
    assert code == 0
    assert f"migrated {count} records of" in out
    assert "verified: every record" in out
    assert "never again" in err
    assert "1 tag left out" in err
    code, _, err = run(source, database, "--json")
    assert (code, json.loads(err)["error"]["code"]) == (6, "conflict")
    code, out, _ = run(database, str(tmp_path / "copy"), "--json")
    assert (code, json.loads(out)["tokens"]) == (0, 1)
    with contextlib.closing(tokens.SqliteTokens(tmp_path / "copy")) as kept:
        found = tokens.Tokens(kept).look(text.encode())
        assert getattr(found, "name", "") == "me", "who could ask the source can ask what came of it"
        made = next(each for each in reversed(kept.acts().page(Wanted())) if each.what == TOKEN)
        assert (made.about, made.by.via) == ("person me", "command"), "who did what came along, twice"
