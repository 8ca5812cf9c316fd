"""Files by HTTP: streamed, resumable, stored once, named safely, served safely, deleted without loss of history."""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import HubUnavailable
from holdfast.hub import files
from holdfast.hub.database import HubDatabase
from holdfast.hub.directory import HubDirectory
from tests.flow.hubs import HubProcess
from tests.hub.conftest import Room

BODY = bytes(range(256)) * 3000  # three pieces
DIGEST = hashlib.sha256(BODY).hexdigest()


def upload(
    room: Room, body: bytes = BODY, name: str = "report.pdf", kind: str = "application/pdf", **fields: str
) -> Any:
    answer = room.client.post("/sync/files", files={"file": (name, body, kind)}, data=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def form(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    """A form as some other client would write it; a part's name may bring more of its header."""
    out = b""
    for name, data in parts:
        out += b'--B\r\nContent-Disposition: form-data; name="%b\r\n\r\n%b\r\n' % (name.encode("latin-1"), data)
    return out + end


def post(room: Room, body: bytes, kind: str = "multipart/form-data; boundary=B") -> Any:
    return room.client.post("/sync/files", content=body, headers={"Content-Type": kind})


def blobs_of(room: Room) -> list[str]:
    return [digest.hex() for digest in room.core.home.blobs.iter()]


def left_in(room: Room) -> list[str]:
    home = room.core.home
    if isinstance(home, HubDatabase):
        return [str(row) for row in home.corpus.engine.query("SELECT id FROM blob WHERE NOT done")]
    assert isinstance(home, HubDirectory)
    partial = home.path / "blobs" / "partial"
    return os.listdir(partial) if partial.exists() else []


def test_a_file_is_stored_and_comes_back(room: Room) -> None:
    done = upload(room, agent_id="recruiter", task_id="t-1", metadata='{"pages": 3}')
    file_id = done["file_id"]
    assert done == {"status": "stored", "file_id": file_id, "name": "report.pdf", "size": len(BODY), "digest": DIGEST}
    assert file_id.startswith("file_")
    meta = room.get(f"/sync/files/{file_id}/meta")
    assert meta.pop("uploaded_at").endswith("Z")
    assert meta == {
        **{"file_id": file_id, "agent_id": "recruiter", "name": "report.pdf", "size": len(BODY), "digest": DIGEST},
        **{"media_type": "application/pdf", "task_id": "t-1", "metadata": {"pages": 3}},
    }
    got = room.client.get(f"/sync/files/{file_id}")
    assert (got.status_code, got.content) == (200, BODY)
    assert got.headers["content-type"] == "application/pdf"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["etag"] == f'"{DIGEST}"'
    assert got.headers["content-disposition"].startswith('attachment; filename="report.pdf"')
    # Whoever follows the hub gets the bytes with the record: one of the two refers to the blob as any value does.
    reference, record = room.records()
    assert (reference["key"], reference["missing"], reference["digest"]) == (f"{file_id}/bytes", "blob", DIGEST)
    assert (record["agent"], record["collection"], record["key"]) == ("recruiter", "files", file_id)


def test_the_same_bytes_are_stored_once_and_are_two_files(room: Room) -> None:
    one, two = upload(room, name="a.txt"), upload(room, name="b.txt", agent_id="other")
    assert one["file_id"] != two["file_id"]
    assert blobs_of(room) == [DIGEST]
    assert left_in(room) == []
    assert [each["name"] for each in room.get("/sync/files")["files"]] == ["a.txt", "b.txt"]


def test_fields_may_come_before_and_behind_the_file(room: Room) -> None:
    parts = [('agent_id"', b"ada"), ('file"; filename="x.bin"', b"abc"), ('task_id"', b"t"), ('name"', b"other.bin")]
    for order in (parts, [parts[1], parts[0], *parts[2:]], parts[::-1]):
        answer = post(room, form(*order))
        assert answer.status_code == 200, answer.text
        meta = room.get(f"/sync/files/{answer.json()['file_id']}/meta")
        assert (meta["agent_id"], meta["task_id"], meta["name"], meta["size"]) == ("ada", "t", "other.bin", 3)


def test_a_known_msg_id_is_the_same_file_and_never_another(room: Room) -> None:
    first = upload(room, msg_id="u-1")
    again = upload(room, msg_id="u-1")
    assert (again["status"], again["file_id"]) == ("duplicate", first["file_id"])
    assert len(room.records()) == 2
    other = room.client.post("/sync/files", files={"file": ("x", b"other")}, data={"msg_id": "u-1"})
    refused(other, 409, "conflict")
    assert upload(room, msg_id="u-1", agent_id="somebody-else")["status"] == "stored"


def test_files_are_listed_by_agent_and_task_in_pages(room: Room) -> None:
    for number in range(5):
        upload(room, name=f"{number}", agent_id=f"a{number % 2}", task_id="t" if number < 4 else "")
    first = room.get("/sync/files", limit=2)
    rest = room.get("/sync/files", after=first["next"])
    assert [each["name"] for each in first["files"] + rest["files"]] == ["0", "1", "2", "3", "4"]
    assert rest["next"] is None
    assert [each["name"] for each in room.get("/sync/files", agent="a0", task="t")["files"]] == ["0", "2"]


def test_a_deleted_file_is_gone_and_its_history_stays(room: Room) -> None:
    file_id = upload(room)["file_id"]
    assert room.client.delete(f"/sync/files/{file_id}").json() == {"status": "deleted", "id": file_id}
    for path in (f"/sync/files/{file_id}", f"/sync/files/{file_id}/meta"):
        refused(room.client.get(path), 404, "not_found")
    refused(room.client.delete(f"/sync/files/{file_id}"), 404, "not_found")
    assert room.get("/sync/files")["files"] == []
    history = room.get("/v1/history", agent="anonymous", collection="files", key=file_id)["records"]
    assert [each["gone"] for each in history] == [True, False]
    assert blobs_of(room) == [DIGEST]


@pytest.mark.parametrize("path", ["x", "file_", "file_x", "file_x/meta", "file_%00", "x/y"])
def test_what_is_no_file_is_not_found(room: Room, path: str) -> None:
    upload(room)
    refused(room.client.get(f"/sync/files/{path}"), 404, "not_found")


def test_the_record_of_the_bytes_is_no_file_of_its_own(room: Room) -> None:
    file_id = upload(room)["file_id"]
    refused(room.client.get(f"/sync/files/{file_id}%2Fbytes"), 404, "not_found")
    with pytest.raises(files.NotFound):
        files.find(room.core, f"{file_id}/bytes")


# -- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *["", " ", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", "C:\\x", "a\nb", "a\0b", "a\x1b[2J", "x" * 256],
        *["ä" * 128, "a\u202egpj.exe", "a\u2028b", "a\x7f", "\ud800"],
    ],
)
def test_a_name_that_is_not_safe_is_refused(name: str) -> None:
    with pytest.raises(files.UsageError):
        files.safe_name(name)


def test_a_name_is_kept_in_one_form_and_saved_under_it(room: Room) -> None:
    done = upload(room, name="Lebenslauf “e\u0301”; 100%.pdf")
    assert done["name"] == "Lebenslauf “é”; 100%.pdf"
    got = room.client.get(f"/sync/files/{done['file_id']}").headers["content-disposition"]
    plain, coded = 'filename="Lebenslauf ____ 100_.pdf"', "Lebenslauf%20%E2%80%9C%C3%A9%E2%80%9D%3B%20100%25.pdf"
    assert got == f"attachment; {plain}; filename*=UTF-8''{coded}"


@pytest.mark.parametrize(
    ("kind", "served"),
    [
        ("text/html", files.OCTETS),
        ("image/svg+xml", files.OCTETS),
        ("application/xhtml+xml", files.OCTETS),
        ("text/javascript", files.OCTETS),
        ("text/plain; charset=latin-1", "text/plain; charset=utf-8"),
        ("IMAGE/PNG", "image/png"),
        ("x/y", files.OCTETS),
    ],
)
def test_only_harmless_media_types_are_served(room: Room, kind: str, served: str) -> None:
    file_id = upload(room, kind=kind)["file_id"]
    assert room.client.get(f"/sync/files/{file_id}").headers["content-type"] == served
    assert room.get(f"/sync/files/{file_id}/meta")["media_type"] == kind.lower()


# -- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        form(('agent_id"', b"a")),
        form(('file"; filename="a"', b"x"), ('file"; filename="b"', b"x")),
        form(('file"; filename="a/b"', b"x")),
        form(('file"; filename="a"', b"x"), ('agent_id"', b"hub")),
        form(('file"; filename="a"', b"x"), ('agent_id"', b"\xff")),
        form(('file"; filename="a"', b"x"), ('metadata"', b"[1]")),
        form(('file"; filename="a"', b"x"), ('metadata"', b'{"a":')),
        form(('file"; filename="a"', b"x"), ('sha256"', b"00")),
        form(('file"; filename="a"', b"x"), ('media_type"', b"pdf")),
        form(('file"; filename="a"', b"x"), ('path"', b"/etc")),
        form(('file"; filename="a"', b"x"), end=b""),
        form(*[('task_id"', b"x")] * 40),
        form(('file"; filename="\xff"', b"x")),
        b'--B\r\nContent-Disposition: form-data; name="' + b"x" * 9000 + b'"\r\n\r\n',
    ],
)
def test_a_bad_form_is_refused_and_leaves_nothing(room: Room, body: bytes) -> None:
    refused(post(room, body), 400, "usage")
    assert (room.records(), blobs_of(room), left_in(room)) == ([], [], [])


@pytest.mark.parametrize("kind", ["application/json", "", "multipart/mixed; boundary=B"])
def test_what_is_no_form_is_unsupported(room: Room, kind: str) -> None:
    refused(post(room, form(('file"; filename="a"', b"x")), kind), 415, "usage")


def test_a_boundary_must_be_given_and_fields_are_short(room: Room) -> None:
    refused(post(room, b"", "multipart/form-data"), 400, "usage")
    refused(post(room, b"", "multipart/form-data; boundary=" + "x" * 999), 400, "usage")
    refused(post(room, form(('metadata"', b"x" * 70_000))), 413, "usage")


def test_other_bytes_than_promised_are_refused(room: Room) -> None:
    answer = room.client.post("/sync/files", files={"file": ("x", b"abc")}, data={"sha256": DIGEST})
    refused(answer, 422, "blob_corrupt")
    assert (room.records(), blobs_of(room), left_in(room)) == ([], [], [])
    assert upload(room, sha256=DIGEST)["digest"] == DIGEST


def test_too_large_compressed_or_without_room_is_refused(room: Room) -> None:
    whole = {"Content-Type": "multipart/form-data; boundary=B", "Content-Length": str(6 << 30)}
    refused(room.client.post("/sync/files", content=iter([b""]), headers=whole), 413, "usage")
    coded = {"Content-Type": "multipart/form-data; boundary=B", "Content-Encoding": "gzip"}
    refused(room.client.post("/sync/files", content=b"", headers=coded), 415, "usage")
    room.core.home.reserve.check = full  # type: ignore[method-assign]
    refused(post(room, form(('file"; filename="a"', b"x"))), 507, "hub_full")
    refused(room.client.post("/sync/uploads"), 507, "hub_full")


def full(_: int = 0) -> None:
    from holdfast.errors import NodeFull

    raise NodeFull("no room")


# -- ranges -----------------------------------------------------------------------------------------------------


def test_ranges_and_conditions(room: Room) -> None:
    path = f"/sync/files/{upload(room)['file_id']}"

    def get(**headers: str) -> Any:
        return room.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    part = get(range="bytes=10-19")
    assert (part.status_code, part.content) == (206, BODY[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(BODY)}"
    assert get(range="bytes=-5").content == BODY[-5:]
    assert get(range="bytes=700000-").content == BODY[700000:]
    refused(get(range="bytes=9999999-"), 416, "usage")
    refused(get(range="lines=1-2"), 400, "usage")
    same = get(if_none_match=f'"x", W/"{DIGEST}"')
    assert (same.status_code, same.content) == (304, b"")
    assert get(if_none_match='"x"').status_code == 200
    assert get(range="bytes=0-1", if_range='"other"').content == BODY
    assert get(range="bytes=0-1", if_range=f'"{DIGEST}"').content == BODY[:2]
    head = room.client.head(path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(BODY)))


def test_an_empty_file_is_a_file(room: Room) -> None:
    path = f"/sync/files/{upload(room, b'')['file_id']}"
    assert room.client.get(path).content == b""
    refused(room.client.get(path, headers={"Range": "bytes=0-"}), 416, "usage")


# -- uploads that are resumed -----------------------------------------------------------------------------------


def begin(room: Room) -> str:
    answer = room.client.post("/sync/uploads")
    assert (answer.status_code, answer.json()["offset"]) == (201, 0)
    assert answer.headers["location"] == f"/sync/uploads/{answer.json()['upload_id']}"
    return str(answer.json()["upload_id"])


def patch(room: Room, upload_id: str, offset: Any, data: bytes) -> Any:
    headers = {"Upload-Offset": str(offset)}
    return room.client.patch(f"/sync/uploads/{upload_id}", content=data, headers=headers)


def finish(room: Room, upload_id: str, **fields: Any) -> Any:
    return room.client.post(f"/sync/uploads/{upload_id}/finish", json={"sha256": DIGEST, **fields})


def test_an_upload_is_resumed_where_it_stands_and_finished_once(room: Room) -> None:
    upload_id = begin(room)
    assert patch(room, upload_id, 0, BODY[:300_000]).json() == {"upload_id": upload_id, "offset": 300_000}
    late = patch(room, upload_id, 0, BODY[:300_000])
    refused(late, 409, "conflict")
    assert late.json()["error"]["context"]["offset"] == 300_000
    head = room.client.head(f"/sync/uploads/{upload_id}")
    assert (head.status_code, head.headers["upload-offset"]) == (200, "300000")
    assert patch(room, upload_id, 300_000, BODY[300_000:]).headers["upload-offset"] == str(len(BODY))
    assert room.get("/sync/files")["files"] == []
    fields = {"agent_id": "ada", "name": "x.bin", "metadata": {"a": 1}}
    done = finish(room, upload_id, **fields)
    assert done.json() == {
        **{"status": "stored", "file_id": f"file_{upload_id}", "name": "x.bin"},
        **{"size": len(BODY), "digest": DIGEST},
    }
    assert finish(room, upload_id, **fields).json() == done.json()
    refused(finish(room, upload_id, agent_id="eve"), 404, "not_found")
    assert room.client.get(f"/sync/files/file_{upload_id}").content == BODY
    assert len(room.get("/sync/files")["files"]) == 1
    refused(patch(room, upload_id, 0, b"x"), 404, "not_found")


def test_a_finish_proves_the_bytes(room: Room) -> None:
    upload_id = begin(room)
    patch(room, upload_id, 0, b"something else")
    refused(finish(room, upload_id), 422, "blob_corrupt")
    refused(room.client.get(f"/sync/uploads/{upload_id}"), 404, "not_found")
    assert (room.records(), blobs_of(room), left_in(room)) == ([], [], [])


@pytest.mark.parametrize("fields", [{"sha256": None}, {"sha256": "x"}, {"name": "a/b"}, {"agent_id": "hub"}, {"x": 1}])
def test_a_bad_finish_is_refused_and_the_upload_stays(room: Room, fields: dict[str, Any]) -> None:
    upload_id = begin(room)
    patch(room, upload_id, 0, BODY)
    refused(finish(room, upload_id, **fields), 400, "usage")
    assert room.get(f"/sync/uploads/{upload_id}")["offset"] == len(BODY)
    assert finish(room, upload_id).status_code == 200


def test_an_upload_can_be_given_up(room: Room) -> None:
    upload_id = begin(room)
    path = f"/sync/uploads/{upload_id}"
    assert room.client.delete(path).json() == {"status": "dropped", "id": upload_id}
    refused(room.client.delete(path), 404, "not_found")
    refused(finish(room, upload_id), 404, "not_found")


@pytest.mark.parametrize("offset", ["", "x", "-1", "1" * 30])
def test_an_offset_must_be_said(room: Room, offset: str) -> None:
    refused(patch(room, begin(room), offset, b"x"), 400, "usage")


def test_more_than_the_most_is_refused_before_it_comes(room: Room) -> None:
    upload_id = begin(room)
    refused(patch(room, upload_id, 6 << 30, b"x"), 413, "usage")


# -- a hub of its own -------------------------------------------------------------------------------------------


def test_a_large_file_needs_little_memory_and_survives_a_kill(hub: HubProcess, tmp_path: Path) -> None:
    def high_kib() -> int:
        status = Path(f"/proc/{hub.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    size, piece = 64 << 20, b"\x5a" * (1 << 20)
    digest = hashlib.sha256(piece * 64).hexdigest()
    line = http.client.HTTPConnection("127.0.0.1", hub.port)
    line.request("GET", "/livez")
    line.getresponse().read()
    before = high_kib()
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
    line.request(
        "POST",
        "/sync/files",
        body=iter([head, *[piece] * 64, b"\r\n--B--\r\n"]),
        headers={
            "Content-Type": "multipart/form-data; boundary=B",
            "Content-Length": str(len(head) + size + len(b"\r\n--B--\r\n")),
        },
    )
    answer = line.getresponse()
    text = answer.read()
    assert (answer.status, digest.encode() in text) == (200, True), text
    assert high_kib() - before < 8 << 10, "the hub held more than a piece of it"
    # Half an upload, then the hub is killed: the other half goes on from there.
    line.request("POST", "/sync/uploads", headers={"Content-Length": "0"})
    upload_id = json.loads(line.getresponse().read())["upload_id"]
    path = f"/sync/uploads/{upload_id}"
    line.request("PATCH", path, body=piece, headers={"Upload-Offset": "0"})
    line.getresponse().read()
    line.close()
    hub.kill()
    hub.start()
    line.request("GET", path)
    at = json.loads(line.getresponse().read())["offset"]
    assert at == len(piece)
    line.request("PATCH", path, body=b"end", headers={"Upload-Offset": str(at)})
    line.getresponse().read()
    body = json.dumps({"sha256": hashlib.sha256(piece + b"end").hexdigest(), "name": "resumed"})
    line.request("POST", f"{path}/finish", body=body)
    assert line.getresponse().status == 200
    line.close()


def test_bytes_that_were_taken_away_while_they_were_uploaded_are_not_referred_to(room: Room) -> None:
    # As an erasure of the same bytes does, between the end of their upload and the record that refers to them.
    given = files.NewFile(name="report.pdf")
    keep = functools.partial(files.keep, room.core, "ada", given, "file_" + "0" * 32, hashlib.sha256(BODY).digest())
    assert room.client.portal is not None
    with pytest.raises(HubUnavailable, match="taken away"):
        room.client.portal.call(keep, len(BODY))
    assert room.records() == []
    room.core.home.blobs.put(BODY)
    assert room.client.portal.call(keep, len(BODY)).status == "stored"
