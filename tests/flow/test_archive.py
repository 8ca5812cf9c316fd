"""Archives: read without Holdfast, by a hub as if nothing had gone, and never with what was erased."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast import codec
from holdfast.corpus import SqliteCorpus
from holdfast.errors import Conflict, IntegrityError, NotCached, UsageError
from holdfast.hub.backup import finish_hub, hub_source
from holdfast.integrity import verify_corpus
from holdfast.integrity.archive import Archive, prove, select
from holdfast.integrity.backup import Repository, create, restore
from holdfast.node.directory import Limits
from holdfast.node.erase import erase_key
from holdfast.node.evicting import Asking, asked
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.objects import BlobFiles
from holdfast.objects.files.store import FileStore
from holdfast.objects.memory import MemoryStore
from holdfast.transport.client import HubClient
from tests.flow.hubs import HubProcess
from tests.services import shared_postgres

LATER = 1 << 43
VALUES: dict[str, Any] = {
    "json": {"a": [1, 2.5, None, 'ü\n"quoted" ,"value":'], "b": True},
    "text": 'several\nlines, and ,"value": in it',
    "bytes": bytes(range(256)),
    "null": None,
    "large": os.urandom(100_000),
}


def fill(store: Store) -> None:
    for key, value in VALUES.items():
        store.put(key, "an older one of " + key)
        store.put(key, value)
    for number in range(30):
        store.post({"said": f"lighthouse {number}"}, to="bob", msg_id=f"m{number}")
    assert store.flush()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where archives are put."""
    return tmp_path / "archive"


@pytest.fixture
def store(on_node: Callable[..., Store]) -> Store:
    """A store whose values are all at the hub."""
    store = on_node("node", "ada")
    fill(store)
    return store


def spared(store: Store, url: str) -> tuple[int, frozenset[int]]:
    """What of a store's log may leave the node, as its hub says: up to where, and what of that not."""
    directory, client, asking = store._directory, HubClient(url), Asking(store._directory)
    spare = asked([client], asking, directory.node_id)[store._log.branch.stream]
    asking.close()
    client.close()
    return spare.mark.seq, spare.kept


def archived(hub: HubProcess, place: Path, *, drop: bool) -> int:
    """Archives everything of a hub that runs; how many bodies it let go."""
    with hub_source(str(hub.directory)) as source, FileStore(place) as store:
        archive, corpus = Archive(store), source.parts[0].corpus
        archive.run(corpus, source.parts[0].blobs, before_ms=LATER >> 1)
        return archive.drop(corpus, f"file:{place}", before_ms=LATER >> 1) if drop else 0


def without_holdfast(place: Path) -> dict[tuple[str, str, int], Any]:
    """The program of docs/retention.md: every value of an archive, proven, with the standard library and zstandard."""
    import zstandard

    found = {}
    for path in sorted(place.glob("*.jsonl.zst*")):
        with path.open("rb") as file:
            head, *lines = zstandard.ZstdDecompressor().stream_reader(file).read().splitlines(keepends=True)
        assert json.loads(head)["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
        for line in lines:
            row = json.loads(line)
            if "missing" in row:
                continue
            if "text" in row:
                payload = value = row["text"].encode()
            elif "base64" in row:
                payload = value = base64.b64decode(row["base64"])
            else:
                payload, value = line.rstrip()[line.index(b',"value":') + 9 : -1], row["value"]
            salt = base64.b64decode(row["salt"])
            assert hashlib.sha256(b"hf/pay/1\0" + salt + payload).hexdigest() == row["payload_hash"]
            found[row["collection"], row["key"], row["version"]] = value
    return found


def test_a_hub_reads_from_its_archive_what_it_let_go(
    store: Store, hub: HubProcess, place: Path, tmp_path: Path
) -> None:
    gone = archived(hub, place, drop=True)
    assert gone == len(VALUES) * 2 - 1 + 30, "all but the payload above 64 KiB"
    reader = Hub(hub.url)
    for key, value in VALUES.items():
        assert reader.get(key, agent="ada") == value
        assert reader.get(key, agent="ada", at=1) == "an older one of " + key
    assert [each.body["said"] for each in reader.messages(to="bob", limit=40)] == [f"lighthouse {n}" for n in range(30)]
    assert len(reader.search("lighthouse", limit=40)) == 30
    assert [change.key for change in reader.changes(live=False)][-1] == "m29"
    # The node sees nothing of it: what it may evict is what it was, and it ships on.
    assert spared(store, hub.url) == (len(VALUES) * 2 + 30, frozenset())
    store.put("after", 1)
    assert store.flush()
    assert reader.get("after", agent="ada") == 1
    # Killed and started anew it still knows where they are; without the archive it says that it cannot.
    hub.kill()
    hub.start()
    assert reader.get("json", agent="ada") == VALUES["json"]
    hub.stop()
    place.rename(tmp_path / "away")
    hub.start()
    with pytest.raises(NotCached):
        reader.get("json", agent="ada")
    assert reader.keys(agent="ada") == sorted([*VALUES, "after"])
    shutil.rmtree(place)  # the hub found none, and made room for one
    (tmp_path / "away").rename(place)
    hub.stop()
    reader.close()
    # A backup made now holds all of it, wherever the archive will be.
    repository = Repository(MemoryStore())
    with hub_source(str(hub.directory)) as source:
        assert create(repository, source).missing == 0
    home = hub.directory
    restore(repository, tmp_path / "back", finish=lambda work, said: finish_hub(work, said, home) and None)
    corpus = SqliteCorpus(tmp_path / "back" / "hub.db", hub=True)
    try:
        assert not corpus.query("SELECT 1 FROM rec WHERE body IS NULL")
        found = verify_corpus(corpus, BlobFiles(tmp_path / "back" / "blobs"))
        assert found.findings == []
    finally:
        corpus.close()


def test_an_archive_is_read_without_holdfast_and_goes_on_where_it_stood(
    store: Store, hub: HubProcess, place: Path
) -> None:
    archived(hub, place, drop=False)
    found = without_holdfast(place)
    assert found["state", "json", 2] == VALUES["json"]
    assert found["state", "text", 2] == VALUES["text"].encode()
    assert found["state", "bytes", 2] == VALUES["bytes"]
    assert found["messages", "m7", 1]["body"] == {"said": "lighthouse 7"}
    digest = hashlib.sha256(VALUES["large"]).hexdigest()
    assert (place / "blobs" / f"{digest}.bin").read_bytes() == VALUES["large"]
    before = {path.name: path.stat().st_mtime_ns for path in place.glob("*.zst*")}
    store.put("json", "newer")
    assert store.flush()
    archived(hub, place, drop=False)
    after = {path.name: path.stat().st_mtime_ns for path in place.glob("*.zst*")}
    assert before.items() < after.items()
    assert without_holdfast(place)["state", "json", 3] == b"newer"
    with FileStore(place) as files:
        archive = Archive(files)
        entry = archive.manifest()[0].files[0]
        assert archive.verify(entry) == entry.records
        assert len(list(select(archive, lambda line: line.collection == "messages"))) == 30
        path = place / f"{entry.name}.bin"  # as a directory names what is neither JSON nor text
        data = path.read_bytes()
        spoilt = codec.deflate("zstd", codec.inflate("zstd", data).replace(b"lighthouse 7", b"lighthouse 8"))
        path.write_bytes(spoilt)
        with pytest.raises(IntegrityError):
            archive.lines(entry)


def test_a_value_that_is_not_its_headers_is_no_value(store: Store, hub: HubProcess, place: Path) -> None:
    """Also one in a file whose own checksum was made to fit."""
    import msgspec

    archived(hub, place, drop=True)
    with FileStore(place) as files:
        archive = Archive(files)
        manifest, etag = archive.manifest()
        entry = manifest.files[0]
        rows = [row.replace(b"lighthouse 7", b"lighthouse 8") for _, row in archive.lines(entry)]
        changed = next(line for line, row in archive.lines(entry) if b"lighthouse 7" in row)
        facts = {"oldest": entry.oldest, "newest": entry.newest, "agents": entry.agents, "erased": 0}
        ends = [line for line, _ in (archive.lines(entry)[0], archive.lines(entry)[-1])]
        forged = archive._write(rows, ends, facts)
        archive._publish(msgspec.structs.replace(manifest, files=[forged, *manifest.files[1:]]), etag)
        with pytest.raises(IntegrityError):
            archive.verify(forged)
        prove(changed)
    reader = Hub(hub.url)
    with pytest.raises(NotCached):
        reader.get("m7", agent="ada", collection="messages")
    assert reader.get("m8", agent="ada", collection="messages")["body"] == {"said": "lighthouse 8"}
    reader.close()


def test_what_is_erased_leaves_the_archive_with_the_next_run(store: Store, hub: HubProcess, place: Path) -> None:
    archived(hub, place, drop=True)
    for key in ("text", "large"):
        erase_key(store._directory, "ada", key, collection="state", reason="asked to")
    store._poke()
    assert store.flush()
    archived(hub, place, drop=True)
    found = without_holdfast(place)
    assert not [at for at in found if at[1] in ("text", "large")]
    assert found["state", "json", 2] == VALUES["json"]
    for path in place.glob("*.zst*"):
        assert b"several" not in codec.inflate("zstd", path.read_bytes())
    assert not list((place / "blobs").glob(f"{hashlib.sha256(VALUES['large']).hexdigest()}*"))
    reader = Hub(hub.url)
    assert reader.get("json", agent="ada") == VALUES["json"]
    reader.close()


def test_an_archive_is_one_hubs_and_a_node_has_its_own(store: Store, on_node: Callable[..., Store]) -> None:
    with MemoryStore() as files:
        archive = Archive(files, "agents/ada/")
        made = archive.run(store._log.corpus, store._directory.blobs, before_ms=LATER >> 1)
        assert made.records == len(VALUES) * 2 + 30
        with pytest.raises(UsageError, match="only a hub's"):
            archive.drop(store._log.corpus, "file:x", before_ms=LATER >> 1)
        other = on_node("other", "bob", hub=[])
        other.put("k", 1)
        with pytest.raises(Conflict, match="another hub"):
            archive.run(other._log.corpus, other._directory.blobs, before_ms=LATER >> 1)
        # What is newer than the limit stays out of it.
        early = Archive(files, "early/").run(store._log.corpus, store._directory.blobs, before_ms=1)
        assert (early.records, early.files) == (0, 0)


def test_a_hub_on_postgresql_reads_from_its_archive_too(tmp_path: Path) -> None:
    address, place = shared_postgres().corpus(), f"file:{tmp_path / 'archive'}"
    hub = HubProcess(tmp_path / "hub", database=address)
    reader = Hub(hub.url)
    try:
        with Store(tmp_path / "node", "ada", hub=hub.url, limits=Limits(floor_bytes=0, ballast_bytes=0)) as store:
            fill(store)
            with hub_source(address) as source, FileStore(tmp_path / "archive") as files:
                archive, corpus = Archive(files), source.parts[0].corpus
                made = archive.run(corpus, source.parts[0].blobs, before_ms=LATER >> 1)
                assert archive.drop(corpus, place, before_ms=LATER >> 1) == made.records - 1
            for key, value in VALUES.items():
                assert reader.get(key, agent="ada") == value
            assert len(reader.messages(to="bob", limit=40)) == 30
            assert spared(store, hub.url) == (made.records, frozenset())
    finally:
        reader.close()
        hub.kill()
