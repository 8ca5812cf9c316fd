"""A hub whose blobs move to an object store: acknowledged at its own disk's speed, served from wherever they are."""

from __future__ import annotations

import hashlib
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import holdfast
from holdfast import codec
from holdfast.corpus.space import Reserve
from holdfast.errors import StorageRefused
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.hub.garbage import collect, references
from holdfast.hub.home import open_home
from holdfast.hub.options import Options
from holdfast.integrity import verify_corpus
from holdfast.objects.blobs.stored import PREFIX, StoredBlobs
from holdfast.objects.memory import MemoryStore
from holdfast.records import BLOB, VALUE, blob_reference
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess
from tests.hub.conftest import Room
from tests.hub.pens import Pen

LARGE = bytes(range(256)) * 1000


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_large_values_move_and_are_read_from_there(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    place = {"database": request.getfixturevalue("database")} if where == "postgresql" else {}
    address = f"sqlite:{tmp_path / 'blobs.db'}"
    hub = HubProcess(tmp_path / "hub", blobs=address, **place)
    try:
        with holdfast.Store(tmp_path / "node", agent="ada", hub=hub.url) as store:
            store.put("large", LARGE)
            store.put("small", 1)
            assert store.flush(30)
        hub.stop()
        home = open_home(None if place else hub.directory, Options(blobs=address, **place))
        try:
            assert isinstance(home.blobs, StoredBlobs)
            assert home.blobs.move() == 1
            (digest,) = references(home.corpus)
            assert [digest.hex() in info.key for info in home.blobs.store.list(PREFIX)] == [True]
            assert verify_corpus(home.corpus, home.blobs).sound
            home.blobs.put(b"nobody refers to it")
            home.blobs.move()
            done = collect(home, grace_s=60)
            assert (done.blobs, done.live, done.marked) == (2, 1, 1)
        finally:
            home.close()
        hub.start()
        with holdfast.Hub(hub.url) as reader:
            assert reader.get("large", agent="ada") == LARGE
    finally:
        hub.stop()


def test_a_store_that_cannot_be_opened_keeps_the_hub_from_starting(tmp_path: Path) -> None:
    with pytest.raises(StorageRefused):
        create_app(tmp_path / "hub", blobs="nowhere:")
    create_app(tmp_path / "hub").state.core.home.close()  # and nothing was left locked


def test_a_blob_that_was_condemned_before_its_record_came_is_sent_again(tmp_path: Path) -> None:
    home = HubDirectory(tmp_path / "hub", settle="acked", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    home.wall = clock = SettableClock(1_800_000_000_000)
    home.blobs = StoredBlobs(MemoryStore(), home.blobs)
    app, digest = create_app(home), hashlib.sha256(LARGE).digest()
    path = f"/v1/blobs/{digest.hex()}"
    with TestClient(app, raise_server_exceptions=False) as client:
        room, pen = Room(client, app.state.core), Pen()
        assert client.put(path, content=LARGE).status_code == 201
        home.blobs.move()
        assert collect(home, grace_s=60).marked == 1, "its node went away before it sent the record"
        pen.write("large", codec.FMT_BYTES, blob_reference(digest, len(LARGE)), flags=VALUE | BLOB, collection="state")
        assert room.append(pen.segment()).verdicts[0].blobs == [digest]
        asked = client.head(path)
        assert (asked.status_code, asked.headers["upload-offset"]) == (200, "0"), "it can be read, and is to be sent"
        assert client.put(path, content=LARGE).status_code == 201
        assert room.append(pen.segment()).verdicts[0].state == "ack"
        home.blobs.move()
        clock.advance(3600)
        assert collect(home, grace_s=60).deleted == 1
        assert client.get(path).content == LARGE


def test_a_node_sends_a_blob_that_its_hub_is_about_to_collect(tmp_path: Path) -> None:
    address = f"sqlite:{tmp_path / 'blobs.db'}"
    hub = HubProcess(tmp_path / "hub", blobs=address)
    try:
        place = f"{hub.url}/v1/blobs/{hashlib.sha256(LARGE).hexdigest()}"
        with urllib.request.urlopen(urllib.request.Request(place, LARGE, method="PUT"), timeout=30) as answer:
            assert answer.status == 201, "and then the node went away"
        hub.stop()
        home = open_home(hub.directory, Options(blobs=address))
        try:
            assert home.blobs.move() == 1
            assert collect(home, grace_s=3600).marked == 1
        finally:
            home.close()
        hub.start()
        with holdfast.Store(tmp_path / "node", agent="ada", hub=hub.url) as store:
            store.put("large", LARGE)
            assert store.flush(20)
    finally:
        hub.stop()
