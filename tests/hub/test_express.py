"""The express lane answers what uvicorn's usual way would, however the bytes arrive."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from holdfast import codec, wire
from holdfast.hub.express import head_of
from tests.flow.hubs import HubProcess
from tests.hub.lines import Line
from tests.hub.pens import Pen

START = b"POST /v1/append HTTP/1.1\r\nHost: hub\r\n"


class Wire:
    """A connection on which every byte is ours."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self.socket = socket.create_connection((at.hostname, at.port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        status = int(self._file.readline().split()[1])
        headers = {}
        while (row := self._file.readline().strip()) != b"":
            name, _, value = row.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, self._file.read(int(headers["content-length"]))


@pytest.fixture
def raw(hub: HubProcess) -> Iterator[Wire]:
    made = Wire(hub.url)
    yield made
    made.socket.close()


@pytest.fixture
def gen(line: Line) -> str:
    return line.gen()


def request(body: bytes, *more: bytes) -> bytes:
    return START + b"".join(row + b"\r\n" for row in more) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def append(gen: str, pen: Pen, first: int, req: int = 1) -> bytes:
    return wire.encode(wire.Append(gen, req, [pen.segment(first)], line=b"line"))


def acked(found: tuple[int, dict[str, str], bytes]) -> int:
    status, headers, body = found
    assert (status, headers["content-type"]) == (200, wire.MEDIA), body
    assert headers["holdfast-hub"]
    verdict = wire.decode(wire.AppendAnswer, body).verdicts[0]
    assert verdict.state == "ack"
    return verdict.at.seq


def test_a_request_is_answered_whole_in_pieces_and_packed(raw: Wire, gen: str, pen: Pen) -> None:
    pen.put("k", 1)
    raw.socket.sendall(request(append(gen, pen, 1)))
    assert acked(raw.answer()) == 1
    pen.put("k", 2)
    data = request(append(gen, pen, 2))
    for at in (30, len(START) + 5, data.index(b"\r\n\r\n") + 4, len(data) - 1):
        raw.socket.sendall(data[:at])
        raw.socket.sendall(data[at:])
        assert acked(raw.answer()) == 2
    pen.put("k", 3)
    raw.socket.sendall(request(codec.deflate("zstd", append(gen, pen, 3)), b"content-encoding: zstd"))
    assert acked(raw.answer()) == 3


def test_requests_that_do_not_wait_for_their_answers_are_answered_in_order(raw: Wire, gen: str, pen: Pen) -> None:
    data = b""
    for number in range(1, 6):
        pen.put("k", number)
        data += request(append(gen, pen, number, req=number))
        data += b"GET /livez HTTP/1.1\r\nHost: hub\r\n\r\n"
    raw.socket.sendall(data)
    for number in range(1, 6):
        assert acked(raw.answer()) == number
        assert raw.answer()[0] == 200


def test_what_is_wrong_is_told_as_always(raw: Wire, line: Line, gen: str, pen: Pen) -> None:
    pen.put("k", 1)
    raw.socket.sendall(request(b"nonsense"))
    status, headers, body = raw.answer()
    found = line.ask("POST", "/v1/append", b"nonsense")
    assert (status, headers["content-type"]) == (400, "application/json")
    assert json.loads(body) == json.loads(found[2])
    raw.socket.sendall(request(append("elsewhere", pen, 1)))
    assert wire.decode(wire.AppendAnswer, raw.answer()[2]).regen
    chunks = append(gen, pen, 1)
    raw.socket.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(chunks), chunks))
    assert acked(raw.answer()) == 1, "a form that is not for the express lane"


def test_a_body_is_never_taken_for_a_request(raw: Wire, line: Line, gen: str, pen: Pen) -> None:
    pen.put("k", 1)
    inner = request(append(gen, pen, 1))
    head = b"POST /relay/immediate HTTP/1.1\r\nHost: hub\r\nContent-Length: %d\r\n\r\n" % len(inner)
    raw.socket.sendall(head)
    line.json("GET", "/health")  # by now the hub has read the head
    raw.socket.sendall(inner)
    assert raw.answer()[0] == 400
    assert line.json("GET", "/v1/feed")["records"] == []


@pytest.mark.parametrize(
    "rows",
    [
        b"Content-Length: 1\r\nContent-Length: 1",
        b"Content-Length: +1",
        b"Content-Length: 1\r\nTransfer-Encoding: chunked",
        b"Content-Length: 1\r\nExpect: 100-continue",
        b"Content-Length: 1\r\nConnection: close",
        b"Content-Length: 1\r\nAccept: a\nTransfer-Encoding: chunked",
        b"Content-Length: 1\r\n folded: yes",
        b"Accept: x",
        b"Content-Length: 999999999",
    ],
)
def test_what_could_be_read_in_two_ways_is_not_for_the_express_lane(rows: bytes) -> None:
    assert head_of(START + rows + b"\r\n\r\nx") is None


def test_every_answer_arrives_whole_whatever_its_form(raw: Wire, line: Line) -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\n" * 3
    name = hashlib.sha256(data).hexdigest()
    at = f"/v1/blobs/{name}".encode()
    head = b"PUT %b HTTP/1.1\r\nHost: hub\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (at, len(data))
    raw.socket.sendall(head)
    assert raw.socket.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.socket.sendall(data)
    assert raw.answer()[0] == 201
    for number in range(2):
        raw.socket.sendall(b"GET %b HTTP/1.1\r\nHost: hub\r\n\r\n" % at)
        assert raw.answer()[2] == data, f"a body that looks like a head, {number}"
    assert line.ask("HEAD", at.decode())[1]["upload-offset"] == str(len(data))
    raw.socket.sendall(b"GET /nowhere HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
    assert raw.answer()[0] == 404
    assert raw.socket.recv(1) == b""
