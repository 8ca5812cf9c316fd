"""Files, tables, SQL and counts from Python, plain and awaited, against a hub in a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast import AsyncHub, Conflict, Hub, HubUnavailable, IntegrityError, NotFound, UsageError
from holdfast.errors import BlobCorrupt, Locked
from holdfast.node import files
from holdfast.node.files import _locked
from holdfast.transport.client import Answer, HubClient
from tests.flow.hubs import HubProcess

PIECE = 100_000


@pytest.fixture
def client(hub: HubProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, as a client sees it whose pieces are small, and who tries again at once."""
    monkeypatch.setattr(files, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(files, "PAUSES_S", (0, 0, 0))
    with Hub(hub.url) as found:
        yield found


class Line:
    """The line to a hub, which breaks where it is told to: after the hub has got (a part of) a request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken: list[tuple[str, str]] = []
        """The requests that break next: method and the end of the path; in this order."""
        self.asked: list[tuple[str, str]] = []
        whole = HubClient.want

        def want(client: HubClient, method: str, path: str, **options: Any) -> Answer:
            self.asked.append((method, path.rpartition("/")[2] if "finish" in path else path.split("/")[2]))
            if self.broken and self.asked[-1] == self.broken[0]:
                self.broken.pop(0)
                if method == "PATCH":  # half of it gets there
                    options["body"] = options["body"][: len(options["body"]) // 2]
                whole(client, method, path, **options)
                raise HubUnavailable("the line broke", kind="network")
            return whole(client, method, path, **options)

        monkeypatch.setattr(HubClient, "want", want)


def test_a_file_goes_up_is_found_and_comes_down(client: Hub, tmp_path: Path) -> None:
    (tmp_path / "räport.pdf").write_bytes(b"four pages")
    kept = client.files.upload(
        tmp_path / "räport.pdf", agent="ada", task="t-1", metadata={"pages": 4}, media_type="application/pdf"
    )
    assert (kept.status, kept.size, kept.name) == ("stored", 10, "räport.pdf")
    known = client.files.get(kept.file_id)
    assert (known.agent_id, known.task_id, known.metadata) == ("ada", "t-1", {"pages": 4})
    assert (known.media_type, known.digest) == ("application/pdf", hashlib.sha256(b"four pages").hexdigest())
    assert client.files.read(kept.file_id) == b"four pages"
    other = client.files.upload(b"", agent="bob", name="empty", msg_id="once")
    assert client.files.upload(b"", agent="bob", name="empty", msg_id="once").status == "duplicate"
    assert client.files.read(other.file_id) == b""
    assert client.files.download(other.file_id, tmp_path / "empty").size == 0
    assert [each.file_id for each in client.files.find()] == [kept.file_id, other.file_id]
    assert [each.file_id for each in client.files.find(limit=1)] == [kept.file_id]
    assert client.files.find(agent="bob") == client.files.find(limit=9)[1:]
    assert [each.file_id for each in client.files.find(task="t-1")] == [kept.file_id]
    client.files.delete(kept.file_id)
    with pytest.raises(NotFound):
        client.files.get(kept.file_id)
    with pytest.raises(NotFound):
        client.files.delete(kept.file_id)


def test_what_is_no_file_is_said_and_nothing_is_stored(client: Hub, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        client.files.upload(b"x", name="../etc/passwd")
    with pytest.raises(UsageError, match="nowhere"):
        client.files.upload(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not bytes"):
        client.files.upload(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="read back"):
        client.files.upload(b"x", metadata={"when": b"bytes"})
    with pytest.raises(UsageError, match="unknown: color"):
        client.files.upload(b"x", color="red")
    with pytest.raises(UsageError, match="task_id cannot be 7"):
        client.files.upload(b"x", task=7)  # type: ignore[arg-type]
    for data in (b"x", os.urandom(PIECE)):
        with pytest.raises(IntegrityError):
            client.files.upload(data, sha256="0" * 64)
    client.files.upload(b"x", msg_id="once")
    with pytest.raises(Conflict):
        client.files.upload(b"y", msg_id="once")
    assert [each.size for each in client.files.find()] == [1]


@pytest.mark.parametrize("again", [True, False], ids=["a file", "a pipe"])
def test_an_upload_goes_on_where_the_line_broke(
    client: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    data = os.urandom(5 * PIECE // 2)
    (tmp_path / "big.bin").write_bytes(data)
    line = Line(monkeypatch)
    line.broken = [("PATCH", "uploads"), ("PATCH", "uploads"), ("POST", "finish")]
    with (tmp_path / "big.bin").open("rb") as file:
        monkeypatch.setattr(client.client, "_near", False)  # to a hub far away bodies are compressed: files are not
        kept = client.files.upload(file if again else _Pipe(file), agent="ada")
    assert line.broken == []
    assert [each for each in line.asked if each[0] == "GET"] == [("GET", "uploads")] * 2
    assert (kept.size, kept.digest) == (len(data), hashlib.sha256(data).hexdigest())
    assert kept.name == ("big.bin" if again else "unnamed")
    assert client.files.read(kept.file_id) == data
    assert len(client.files.find()) == 1


def test_a_small_upload_whose_answer_was_lost_is_one_file(client: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch)
    line.broken = [("POST", "files")]
    kept = client.files.upload(b"small", agent="ada")
    assert (line.broken, kept.status) == ([], "duplicate")
    assert [each.file_id for each in client.files.find()] == [kept.file_id]


def test_an_upload_that_was_given_up_is_resumed(
    client: Hub, hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * PIECE)
    (tmp_path / "big.bin").write_bytes(data)
    real, sent = HubClient.want, list[int]()

    def want(line: HubClient, method: str, path: str, **options: Any) -> Answer:
        if method == "PATCH":
            sent.append(int(options["headers"]["Upload-Offset"]))
            if sent == [0, PIECE]:
                hub.kill()
        return real(line, method, path, **options)

    monkeypatch.setattr(HubClient, "want", want)
    with pytest.raises(HubUnavailable) as caught:
        client.files.upload(tmp_path / "big.bin", agent="ada")
    hub.start()
    sent.clear()
    resume = caught.value.context["upload_id"]
    kept = client.files.upload(tmp_path / "big.bin", agent="ada", resume=resume)
    assert sent == [PIECE, 2 * PIECE]
    assert client.files.upload(tmp_path / "big.bin", agent="ada", resume=resume).file_id == kept.file_id  # finished
    assert client.files.read(kept.file_id) == data
    with pytest.raises(NotFound):
        client.files.upload(data, resume="0" * 32)


def test_a_download_goes_on_and_is_proven(
    client: Hub, hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 * PIECE + 1)
    kept = client.files.upload(data, agent="ada")
    real, ranges = HubClient.want, list[str]()
    broken = ["bytes=100000-199999"] * 4

    def want(line: HubClient, method: str, path: str, **options: Any) -> Answer:
        span = (options.get("headers") or {}).get("Range", "")
        if span:
            ranges.append(span)
        if broken and span == broken[0]:
            broken.pop()
            raise HubUnavailable("the line broke", kind="network")
        return real(line, method, path, **options)

    monkeypatch.setattr(HubClient, "want", want)
    target = tmp_path / "down"
    target.write_bytes(b"before")
    with pytest.raises(HubUnavailable):
        client.files.download(kept.file_id, target)
    assert target.read_bytes() == b"before"
    ranges.clear()
    client.files.download(kept.file_id, target)
    assert ranges[0] == "bytes=100000-199999"
    assert target.read_bytes() == data
    broken += ["bytes=100000-199999"] * 4
    with pytest.raises(HubUnavailable):
        client.files.download(kept.file_id, tmp_path / "other")
    (part,) = tmp_path.glob(".*.part")
    part.write_bytes(b"what rotted here is asked for again")
    with _locked(part), pytest.raises(Locked):
        client.files.download(kept.file_id, tmp_path / "other")
    client.files.download(kept.file_id, tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == data
    (blob,) = [each for each in hub.directory.rglob("*") if each.is_file() and each.stat().st_size == len(data)]
    blob.chmod(0o600)
    with blob.open("r+b") as rotting:
        rotting.seek(2 * PIECE)
        rotting.write(bytes(8))
    with pytest.raises(BlobCorrupt):
        client.files.download(kept.file_id, target)
    with pytest.raises(BlobCorrupt):
        client.files.read(kept.file_id)
    assert target.read_bytes() == data
    assert list(tmp_path.glob(".*.part")) == []
    with pytest.raises(UsageError):
        client.files.download(kept.file_id, tmp_path)


class _Pipe(io.RawIOBase):
    """A source that can be read once, and gives less than it is asked for."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        return bytes(self._file.read(min(size, 30_000)))


def test_rows_of_tables(client: Hub) -> None:
    tables = client.tables
    assert tables.put("people", {"id": "p-1", "name": "Ada", "age": 36}, agent="ada").version == 1
    assert tables.insert("people", {"mail": "b@x", "age": 20}, agent="bob", key="mail").id == "b@x"
    with pytest.raises(Conflict):
        tables.insert("people", {"id": "p-1", "name": "Eve"}, agent="ada")
    assert tables.update("people", {"id": "p-1", "age": 37}, agent="ada", msg_id="once").version == 2
    assert tables.update("people", {"id": "p-1", "age": 99}, agent="ada", msg_id="once").version == 2
    with pytest.raises(NotFound):
        tables.update("people", {"id": "p-9", "age": 1}, agent="ada")
    verdicts = tables.batch(
        [
            {"table": "people", "row": {"name": "Cy", "age": 50}, "agent": "ada"},
            {"table": "people", "row": {"id": "p-9"}, "agent": "ada", "operation": "update"},
            {"table": "people", "row": {"id": "p-2"}, "agent": "ada", "operation": "dance"},
            {"table": "people", "row": {"mail": "b@x"}, "agent": "bob", "operation": "delete", "key": "mail"},
        ]
    )
    assert [each.status for each in verdicts] == ["stored", "rejected", "rejected", "deleted"]
    assert isinstance(verdicts[1].error, NotFound)
    assert isinstance(verdicts[2].error, UsageError)
    assert verdicts[0].id.startswith("row_")
    assert [each["name"] for each in tables.find("people")] == ["Ada", "Cy"]
    assert [each["name"] for each in tables.find("people", filters={"age": {"gte": 40}})] == ["Cy"]
    assert tables.find("people", agent="bob") == []
    assert len(tables.find("people", limit=1)) == 1
    assert tables.delete("people", "p-1", agent="ada").status == "deleted"
    with pytest.raises(UsageError):
        tables.find("people", filters={"age": {"near": 40}})
    with pytest.raises(UsageError, match="read back"):
        tables.put("people", {"id": "p-3", "photo": b"png"}, agent="ada")


def test_many_rows_come_page_by_page(client: Hub) -> None:
    tables = client.tables
    tables.batch([{"table": "t", "row": {"id": number}, "agent": "ada"} for number in range(2100)])
    assert [each["id"] for each in tables.find("t", limit=2050)] == list(range(2050))


def test_sql_and_counts(client: Hub) -> None:
    for number in range(3):
        client.post(f"word {number}", agent="ada", to="bob", task="t-1", thread="x" if number else "y")
    found = client.sql("SELECT content, ? AS n FROM messages WHERE task = ? ORDER BY pos", [1, "t-1"], limit=2)
    assert (found.columns, found.truncated) == (["content", "n"], "rows")
    assert found.objects() == [{"content": "word 0", "n": 1}, {"content": "word 1", "n": 1}]
    assert client.sql("SELECT count(*) FROM messages WHERE sender = :who", {"who": "ada"}, timeout=2).rows == [[3]]
    for statement, reason in (("SELEC 1", "syntax"), ("SELECT * FROM rec", "forbidden")):
        with pytest.raises(UsageError) as caught:
            client.sql(statement)
        assert caught.value.context["reason"] == reason
    with pytest.raises(UsageError):
        client.sql("SELECT ?", "a")
    assert client.count(to="bob") == 3
    assert client.count(to="bob", thread="x", agent="ada", task="t-1") == 2
    assert client.count(to="eve") == 0
    assert client.count(most=2) == 2
    first = client.sql("SELECT min(pos) FROM messages").rows[0][0]
    assert client.count(to="bob", after=first) == 2


def _address_of(silent: socket.socket) -> str:
    """An address where nobody listens."""
    silent.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{silent.getsockname()[1]}"


def test_of_several_hubs_the_next_one_is_read_from_and_the_first_is_written_to(client: Hub, hub: HubProcess) -> None:
    kept = client.files.upload(b"bytes", agent="ada")
    client.tables.put("t", {"id": 1}, agent="ada")
    with socket.socket() as silent, Hub([_address_of(silent), hub.url]) as several:
        assert several.files.read(kept.file_id) == b"bytes"
        assert len(several.files.find()) == len(several.tables.find("t")) == 1
        assert several.sql("SELECT 1").rows == [[1]]
        assert several.count() == 0
        with pytest.raises(HubUnavailable):
            several.files.upload(b"more", agent="ada")
        with pytest.raises(HubUnavailable):
            several.tables.put("t", {"id": 2}, agent="ada")
    assert len(client.files.find()) == len(client.tables.find("t")) == 1


def test_awaited_it_is_the_same(hub: HubProcess, tmp_path: Path) -> None:
    async def talk() -> None:
        async with AsyncHub(hub.url) as client:
            kept = await client.files.upload(b"bytes", agent="ada", task="t")
            assert await client.files.read(kept.file_id) == b"bytes"
            assert await client.files.download(kept.file_id, tmp_path / "f") == await client.files.get(kept.file_id)
            assert len(await client.files.find(task="t")) == 1
            await client.files.delete(kept.file_id)
            await client.tables.put("t", {"id": 1, "n": 1}, agent="ada")
            await client.tables.update("t", {"id": 1, "n": 2}, agent="ada")
            await client.tables.insert("t", {"id": 2}, agent="ada")
            await client.tables.delete("t", 2, agent="ada")
            assert (await client.tables.batch([{"table": "t", "row": {"id": 1}, "agent": "ada"}]))[0].version == 3
            assert await client.tables.find("t") == [{"id": 1, "agent_id": "ada"}]
            assert (await client.sql("SELECT id FROM t")).objects() == [{"id": 1}]
            assert await client.count(to="ada") == 0

    asyncio.run(talk())
