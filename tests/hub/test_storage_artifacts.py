"""Artifacts: what is noted of them, and their bytes: in one piece or in parts, read whole or by range."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import msgspec
import pytest

from holdfast.collections.sessions import Artifact
from holdfast.errors import HubUnavailable
from holdfast.hub.routes_artifacts import Content
from holdfast.hub.sessions import Sessions
from tests.hub.conftest import Room
from tests.hub.test_storage_sessions import begin, pages

BYTES = bytes(range(256)) * 2000


@pytest.fixture
def path(room: Room) -> str:
    """An artifact without bytes."""
    begin(room, id="session_s")
    made = note(room, name="naïve report.pdf")
    return f"/storage/artifacts/{made['id']}"


def note(room: Room, **fields: Any) -> Any:
    body = {"session_id": "session_s", "name": "a", "type": "pdf", "path": "s3://b/a.pdf", "size": 7, **fields}
    answer = room.client.post("/storage/artifacts", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_an_artifact_keeps_its_path_and_size(room: Room, path: str) -> None:
    found = room.get(path)
    assert (found["path"], found["size"], found["digest"]) == ("s3://b/a.pdf", 7, None)
    assert room.get("/storage/artifacts", session_id="session_s") == [found]
    missing = room.client.get(f"{path}/content")
    assert (missing.status_code, missing.json()["error"]["hint"]) == (404, "they are said to be at 's3://b/a.pdf'")


def test_artifacts_are_listed_by_page_and_type(room: Room) -> None:
    begin(room, id="session_s")
    made = [note(room, type=("pdf", "png")[n % 2], id=f"artifact_{n}", metadata={"n": n}) for n in range(7)]
    room.client.put("/storage/artifacts/artifact_3/content", content=b"123")
    listed = [each for page in pages(room, "/storage/artifacts", session_id="session_s", limit=2) for each in page]
    assert [each["id"] for each in listed] == [each["id"] for each in made]
    assert (listed[3]["size"], listed[3]["digest"]) == (3, hashlib.sha256(b"123").hexdigest())
    png = room.get("/storage/artifacts", session_id="session_s", type="png", offset=1)
    assert [each["metadata"] for each in png] == [{"n": 3}, {"n": 5}]
    assert room.client.delete("/storage/artifacts/artifact_3").status_code == 200
    assert room.client.get("/storage/artifacts/artifact_3").status_code == 404
    assert len(room.get("/storage/artifacts", session_id="session_s")) == 6


def test_bytes_come_back_whole_and_by_range(room: Room, path: str) -> None:
    made = room.client.put(f"{path}/content", content=BYTES).json()
    assert (made["size"], made["digest"]) == (len(BYTES), hashlib.sha256(BYTES).hexdigest())
    assert room.get(path) == made
    answer = room.client.get(f"{path}/content")
    assert answer.content == BYTES
    assert answer.headers["etag"] == f'"{made["digest"]}"'
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''na%C3%AFve%20report.pdf"
    assert answer.headers["x-content-type-options"] == "nosniff"
    for asked, span in {
        "10-19": (10, 20),
        "511990-": (511990, 512000),
        "-5": (511995, 512000),
        "0-": (0, 512000),
    }.items():
        part = room.client.get(f"{path}/content", headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, BYTES[slice(*span)])
        assert part.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/512000"
    assert room.client.get(f"{path}/content", headers={"Range": "bytes=512000-"}).status_code == 416
    assert room.client.get(f"{path}/content", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    stale = {"Range": "bytes=0-1", "If-Range": '"other"'}
    assert room.client.get(f"{path}/content", headers=stale).status_code == 200


def test_new_bytes_are_a_new_version_and_the_same_ones_are_not(room: Room, path: str) -> None:
    for content in (b"one", b"one", b"two", b""):
        made = room.client.put(f"{path}/content", content=content).json()
        assert (made["size"], room.client.get(f"{path}/content").content) == (len(content), content)
    key = [each["key"] for each in room.records() if each["kind"] == "content"][-1]
    versions = room.get("/v1/history", agent="researcher", collection="sessions", key=key)["records"]
    assert len(versions) == 3


@pytest.mark.parametrize("named", [True, False], ids=["digest known", "digest unknown"])
def test_an_upload_goes_on_where_it_broke_off(room: Room, path: str, named: bool) -> None:
    query = f"?sha256={hashlib.sha256(BYTES).hexdigest()}" if named else ""
    total = len(BYTES)

    def part(first: int, last: int) -> Any:
        headers = {"Content-Range": f"bytes {first}-{last - 1}/{total}"}
        return room.client.put(f"{path}/content{query}", content=BYTES[first:last], headers=headers)

    assert part(0, 100_000).json()["offset"] == 100_000
    asked = room.client.put(f"{path}/content{query}", headers={"Content-Range": f"bytes */{total}"})
    assert (asked.status_code, asked.json()["offset"]) == (202, 100_000)
    wrong = part(200_000, 300_000)
    assert (wrong.status_code, wrong.json()["error"]["context"]) == (409, {"offset": 100_000})
    assert room.client.get(f"{path}/content").status_code == 404
    assert part(100_000, total).json()["size"] == total
    assert room.client.get(f"{path}/content").content == BYTES


def test_bytes_with_another_digest_than_was_named_are_refused(room: Room, path: str) -> None:
    answer = room.client.put(f"{path}/content?sha256={'0' * 64}", content=BYTES)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "blob_corrupt")
    assert room.client.put(f"{path}/content?sha256=abc", content=BYTES).status_code == 400
    assert room.client.put(f"{path}/content", content=b"", headers={"Content-Range": "nonsense"}).status_code == 400
    assert room.client.put("/storage/artifacts/artifact_none/content", content=BYTES).status_code == 404
    assert list(room.core.home.blobs.iter()) == []


def test_the_blob_of_an_artifact_is_one_that_nodes_and_standbys_fetch(room: Room, path: str) -> None:
    digest = room.client.put(f"{path}/content", content=BYTES).json()["digest"]
    assert room.client.get(f"/v1/blobs/{digest}").content == BYTES
    assert [each["digest"] for each in room.records() if each["kind"] == "content"] == [digest]


def test_bytes_that_were_taken_away_while_they_were_uploaded_are_not_noted(room: Room, path: str) -> None:
    shown = msgspec.convert(room.get(path), Artifact)
    note_of = functools.partial(Content(Sessions(room.core))._note, shown, hashlib.sha256(BYTES).digest(), len(BYTES))
    assert room.client.portal is not None
    with pytest.raises(HubUnavailable, match="taken away"):
        room.client.portal.call(note_of, {})
    assert room.get(path)["digest"] is None
    room.core.home.blobs.put(BYTES)
    assert room.client.portal.call(note_of, {}).digest == hashlib.sha256(BYTES).hexdigest()
