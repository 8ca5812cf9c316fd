"""What the hub refuses and how: too much, too little room, no token, a blob that is not itself, a disk that fails."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from holdfast import codec, wire
from holdfast.corpus.space import Reserve
from holdfast.errors import Locked, UsageError
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from tests.hub.conftest import Room
from tests.hub.pens import Pen

MIB = 1 << 20


class Impatient:
    """A clock that makes every answer of the disk an old one."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += 1.0
        return self.seconds

    def now_ms(self) -> int:
        return 0


class Disk:
    """A disk whose free space the test decides."""

    def __init__(self) -> None:
        self.free = 1 << 30

    def __call__(self, _: Path) -> Any:
        return SimpleNamespace(f_bavail=self.free, f_frsize=1, f_blocks=1 << 31)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def crowded(tmp_path: Path, disk: Disk) -> Iterator[Room]:
    """A hub on that disk."""
    reserve = Reserve(tmp_path, statvfs=disk, clock=Impatient(), floor_bytes=10 * MIB, ballast_bytes=0)
    with TestClient(app := create_app(HubDirectory(tmp_path / "hub", reserve=reserve))) as client:
        yield Room(client, app.state.core)


def test_a_full_disk_answers_507_before_it_is_full_and_recovers_by_itself(crowded: Room, disk: Disk, pen: Pen) -> None:
    pen.put("k", 1)
    crowded.append(pen.segment())
    disk.free = 5 * MIB
    pen.put("k", 2)
    body = wire.encode(wire.Append(crowded.core.home.gen, 1, [pen.segment(2)]))
    refused = [
        crowded.client.post("/v1/append", content=body),
        crowded.client.post("/sync/message", json={"content": 1}),
        crowded.client.post("/relay/immediate", json={"agent_id": "r", "table": "t", "data": {}}),
        crowded.client.post("/v1/decide", json={"agent": "a", "collection": "c", "key": "k", "value": 1}),
        crowded.client.put("/v1/blobs/" + "ab" * 32, content=b"x" * 100),
    ]
    for answer in refused:
        assert answer.status_code == 507, answer.text
        assert answer.json()["error"]["code"] == "hub_full"
        assert int(answer.headers["retry-after"]) > 0
    assert crowded.get("/v1/latest", agent="ada", key="k")["value"] == 1
    ready = crowded.client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["disk"][:4]) == (503, "full")
    disk.free = 1 << 30
    assert crowded.append(pen.segment(2)).verdicts[0].state == "ack"
    assert crowded.client.get("/readyz").status_code == 200


def test_a_commit_that_meets_a_full_disk_answers_507_and_the_next_one_is_tried(room: Room, pen: Pen) -> None:
    engine = room.core.corpus.engine
    engine.writer_execute("PRAGMA max_page_count=1").fetchall()
    for number in range(3):
        pen.put(f"k{number}", os.urandom(30_000).hex())
    body = wire.encode(wire.Append(room.core.home.gen, 1, [pen.segment()]))
    full = room.client.post("/v1/append", content=body)
    assert (full.status_code, full.json()["error"]["code"]) == (507, "hub_full")
    assert room.records() == []
    engine.writer_execute("PRAGMA max_page_count=1073741823").fetchall()
    assert room.append(pen.segment()).verdicts[0].state == "ack"


def test_a_failed_sync_acknowledges_nothing_and_ends_all_writing_loudly(tmp_path: Path, pen: Pen, caplog) -> None:
    broken = False

    def datasync(fd: int) -> None:
        if broken:
            raise OSError(5, "Input/output error")
        os.fdatasync(fd)

    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    app = create_app(HubDirectory(tmp_path / "hub", reserve=reserve, datasync=datasync))
    with TestClient(app, raise_server_exceptions=False) as client:
        pen.put("k", 1)
        gen = app.state.core.home.gen
        body = wire.encode(wire.Append(gen, 1, [pen.segment()], line=b"a node"))
        broken = True
        taken = wire.decode(wire.AppendAnswer, client.post("/v1/append", content=body).content)
        assert (taken.verdicts[0].state, taken.safe) == ("ack", 0)
        for message in (wire.Append(gen, 2, [], line=b"a node"), wire.Append(gen, 3, [pen.segment()], line=b"a node")):
            answer = client.post("/v1/append", content=wire.encode(message))
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "hub_unavailable")
            assert answer.headers["retry-after"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
        assert client.get("/v1/records").status_code >= 500
    assert "refuses writes" in caplog.text
    broken = False
    second = HubDirectory(tmp_path / "hub")
    assert second.gen != app.state.core.home.gen
    second.close()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("path", ["/v1/append", "/v1/hello", "/sync/message", "/sync/messages", "/relay/batch"])
def test_a_bomb_is_refused_with_413(room: Room, coding: str, path: str) -> None:
    zeros = bytes(64 * MIB)
    bomb = gzip.compress(zeros) if coding == "gzip" else codec.deflate("zstd", zeros)
    assert len(bomb) < MIB
    answer = room.client.post(path, content=bomb, headers={"Content-Encoding": coding})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "usage")


def test_a_body_too_long_is_refused_whether_it_says_so_or_not(room: Room) -> None:
    assert room.client.post("/sync/message", content=bytes(9 * MIB)).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(9):
            yield bytes(MIB)

    assert room.client.post("/sync/message", content=pieces()).status_code == 413


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [("br", b"{}", 415), ("gzip", b"{}", 400), ("zstd", b"{}", 400), ("gzip", gzip.compress(b"{}", mtime=0)[:-4], 400)],
)
def test_an_unknown_or_damaged_coding_is_refused(room: Room, coding: str, body: bytes, status: int) -> None:
    answer = room.client.post("/sync/message", content=body, headers={"Content-Encoding": coding})
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/v1/append", "/v1/hello"])
@pytest.mark.parametrize("body", [b"", b"\xc1", b"{}", msgspec.msgpack.encode({"gen": 1}), b"\x93\x01"])
def test_what_is_no_message_of_the_protocol_is_refused(room: Room, path: str, body: bytes) -> None:
    answer = room.client.post(path, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage")


def test_another_protocol_and_too_many_records_are_refused(room: Room, pen: Pen) -> None:
    hello = msgspec.structs.replace(pen.hello(), version=99)
    assert room.client.post("/v1/hello", content=wire.encode(hello)).status_code == 400
    pen.put("k", 1)
    many = wire.Append(room.core.home.gen, 1, [msgspec.structs.replace(pen.segment(), items=pen.items * 1001)])
    assert room.client.post("/v1/append", content=wire.encode(many)).status_code == 413


def test_without_the_token_nothing_but_probes_is_answered(tmp_path: Path) -> None:
    with TestClient(create_app(HubDirectory(tmp_path / "hub"), token="s3cret")) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
            for method, path in (
                ("GET", "/v1/feed"),
                ("POST", "/v1/append"),
                ("GET", "/query/messages"),
                ("GET", "/x"),
            ):
                answer = client.request(method, path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
                assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/livez", "/readyz", "/health", "/version"):
            assert client.get(path).status_code == 200
        good = {"Authorization": "Bearer s3cret"}
        assert client.get("/v1/feed", headers=good).status_code == 200


def test_one_directory_has_one_hub_and_no_node(tmp_path: Path) -> None:
    first = HubDirectory(tmp_path / "hub")
    with pytest.raises(Locked, match=f"already served by process {os.getpid()}"):
        HubDirectory(tmp_path / "hub")
    first.close()
    HubDirectory(tmp_path / "hub").close()
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="is a node's directory"):
        HubDirectory(tmp_path / "node")


def test_a_blob_is_uploaded_whole_or_resumed_and_read_in_ranges(room: Room) -> None:
    data = os.urandom(3 * MIB + 17)
    digest = hashlib.sha256(data).hexdigest()
    where, client = f"/v1/blobs/{digest}", room.client
    missing = client.head(where)
    assert (missing.status_code, missing.headers["upload-offset"]) == (404, "0")

    def put(first: int, last: int) -> Any:
        span = {"Content-Range": f"bytes {first}-{last - 1}/{len(data)}"}
        return client.put(where, content=data[first:last], headers=span)

    assert (put(0, MIB).status_code, put(0, MIB).status_code) == (202, 409)
    assert client.head(where).headers["upload-offset"] == str(MIB)
    conflict = put(2 * MIB, 3 * MIB).json()["error"]
    assert (conflict["code"], conflict["context"]) == ("conflict", {"offset": MIB})
    done = put(MIB, len(data))
    assert (done.status_code, done.json()) == (201, {"digest": digest, "size": len(data)})
    assert put(0, len(data)).status_code == 200
    head = client.head(where)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
    assert client.get(where).content == data
    part = client.get(where, headers={"Range": "bytes=1000000-2500000"})
    assert (part.status_code, part.content) == (206, data[1_000_000:2_500_001])
    assert part.headers["content-range"] == f"bytes 1000000-2500000/{len(data)}"
    assert client.get(where, headers={"Range": "bytes=-5"}).content == data[-5:]
    assert client.get(where, headers={"Range": f"bytes={len(data) - 3}-"}).content == data[-3:]
    assert client.get(where, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    assert client.get(where, headers={"Range": "lines=1-2"}).status_code == 400


def test_an_upload_begun_is_completed_by_a_whole_one(room: Room) -> None:
    data = os.urandom(2 * MIB)
    where = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    span = {"Content-Range": f"bytes 0-999/{len(data)}"}
    assert room.client.put(where, content=data[:1000], headers=span).status_code == 202
    assert room.client.put(where, content=data).status_code == 201
    assert room.client.get(where).content == data


def test_bytes_that_have_another_digest_are_refused_and_not_kept(room: Room) -> None:
    where = "/v1/blobs/" + "ab" * 32
    answer = room.client.put(where, content=b"not these")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "blob_corrupt")
    assert room.client.head(where).headers["upload-offset"] == "0"
    assert room.client.get(where).status_code == 404
    assert room.client.get("/v1/blobs/xyz").status_code == 400
