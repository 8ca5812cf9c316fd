"""A hub whose blobs move to an object store: acknowledged at its own disk's speed, served from wherever they are."""

from __future__ import annotations

from pathlib import Path

import pytest

import holdfast
from holdfast.errors import StorageRefused
from holdfast.hub.app import create_app
from holdfast.hub.garbage import collect, references
from holdfast.hub.home import open_home
from holdfast.hub.options import Options
from holdfast.integrity import verify_corpus
from holdfast.objects.blobs.stored import PREFIX, StoredBlobs
from tests.flow.hubs import HubProcess

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
