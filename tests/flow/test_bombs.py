"""Forty ways to have a hub fill its memory or wait for ever: each is refused, and the hub is as it was before."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import re
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from holdfast import wire
from tests.flow.hubs import HubProcess
from tests.promises import Count

MIB = 1 << 20
ZEROS = bytes(MIB)
GROWTH_MAX = 16 * MIB
JSON_PATHS = ("/sync/message", "/sync/messages", "/relay/immediate", "/relay/batch", "/relay/query", "/v1/decide")


def zeros(size: int, level: int = 3) -> bytes:
    """So many zeros, as a zstd frame that does not say how many they are."""
    maker = zstandard.ZstdCompressor(level=level, write_content_size=False).compressobj()
    return b"".join([maker.compress(ZEROS) for _ in range(size // MIB)]) + maker.flush()


def liar(size: int) -> bytes:
    """A zstd frame that says it holds so much and does not."""
    frame = bytearray(zstandard.ZstdCompressor(write_content_size=True).compress(bytes(70_000)))
    # Magic, then a descriptor that says: the size takes 8 bytes, and there is a window.
    return b"\x28\xb5\x2f\xfd\xc0\x58" + size.to_bytes(8, "little") + bytes(frame[9:])


def gzipped(size: int) -> bytes:
    """So many zeros, gzipped."""
    maker = zlib.compressobj(9, wbits=31)
    return b"".join([maker.compress(ZEROS) for _ in range(size // MIB)]) + maker.flush()


def messages(value: bytes) -> bytes:
    """A value where a message's content belongs."""
    return b'{"content": %b}' % value


def row(value: bytes) -> bytes:
    """A value where a row's field belongs."""
    return b'{"agent_id": "a", "table": "t", "data": {"id": "r", "v": %b}}' % value


def decision(value: bytes) -> bytes:
    """A value where a decision's belongs."""
    return b'{"agent": "a", "collection": "c", "key": "k", "value": %b}' % value


DEEP = b"[" * 1000 + b"]" * 1000
ABYSS = b"[" * 4_000_000
NESTED = b'{"a":' * 65 + b"1" + b"}" * 65
WIDE = b"[" + b"[]," * 2_700_000 + b"[]]"
HUGE = b"9" * 1_000_000
ZSTD, GZIP = {"Content-Encoding": "zstd"}, {"Content-Encoding": "gzip"}
MEDIA = {"Content-Type": wire.MEDIA}

BODIES: dict[str, tuple[str, Callable[[], bytes], dict[str, str]]] = {
    "64 MiB by zstd, appended": ("/v1/append", lambda: zeros(64 * MIB), ZSTD),
    "64 MiB by zstd, said hello": ("/v1/hello", lambda: zeros(64 * MIB), ZSTD),
    "64 MiB by zstd, posted": ("/sync/message", lambda: zeros(64 * MIB, 9), ZSTD),
    "a frame that says 2^40": ("/v1/append", lambda: liar(1 << 40), ZSTD),
    "a frame that says 8 MiB and is not": ("/relay/batch", lambda: liar(8 * MIB), ZSTD),
    "a window of 2 GiB": ("/sync/messages", lambda: b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(100), ZSTD),
    "many small frames": ("/relay/batch", lambda: zeros(MIB) * 200, ZSTD),
    "64 MiB by gzip, posted": ("/sync/message", lambda: gzipped(64 * MIB), GZIP),
    "64 MiB by gzip, appended": ("/v1/append", lambda: gzipped(64 * MIB), GZIP),
    "gzip of gzip": ("/relay/query", lambda: gzip.compress(gzipped(64 * MIB)), GZIP),
    "many members": ("/sync/messages", lambda: gzip.compress(bytes(MIB)) * 500, GZIP),
    "1,000 lists deep": ("/sync/message", lambda: messages(DEEP), {}),
    "4,000,000 lists deep": ("/sync/message", lambda: messages(ABYSS), {}),
    "an abyss in a batch": ("/sync/messages", lambda: b'{"messages": [%b' % ABYSS, {}),
    "an abyss of rows": ("/relay/batch", lambda: ABYSS, {}),
    "an abyss, packed": ("/relay/query", lambda: gzip.compress(ABYSS), GZIP),
    "65 objects deep": ("/relay/immediate", lambda: row(NESTED), {}),
    "65 objects deep, decided": ("/v1/decide", lambda: decision(NESTED), {}),
    "deep filters": ("/relay/query", lambda: b'{"table": "t", "filters": %b}' % NESTED, {}),
    "2,700,000 lists in one": ("/sync/message", lambda: messages(WIDE), {}),
    "2,700,000 lists as rows": ("/relay/batch", lambda: WIDE, {}),
    "2,700,000 lists, decided": ("/v1/decide", lambda: decision(WIDE), {}),
    "a number of a million digits": ("/sync/message", lambda: messages(HUGE), {}),
    "2^63 in a row": ("/relay/immediate", lambda: row(b"%d" % (1 << 63)), {}),
    "-2^63-1, decided": ("/v1/decide", lambda: decision(b"%d" % (-(1 << 63) - 1)), {}),
    "a huge limit": ("/relay/query", lambda: b'{"table": "t", "limit": %b}' % HUGE, {}),
    "four billion items, packed": ("/v1/decide", lambda: b"\xdd\xff\xff\xff\xff", MEDIA),
    "four billion pairs, packed": ("/v1/append", lambda: b"\xdf\xff\xff\xff\xff", MEDIA),
    "four billion bytes, packed": ("/v1/hello", lambda: b"\xc6\xff\xff\xff\xff", MEDIA),
    "a million lists deep, packed": ("/v1/decide", lambda: b"\x91" * 1_000_000, MEDIA),
}


class Wire:
    """A connection without manners: what is sent byte by byte, and what comes back."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)

    def send(self, data: bytes) -> Wire:
        self.socket.sendall(data)
        return self

    def end(self) -> int:
        """The status of the answer; 0 where the connection was closed without one."""
        got = b""
        with contextlib.suppress(ConnectionResetError, TimeoutError):
            while b"\r\n" not in got and (part := self.socket.recv(65536)):
                got += part
        self.socket.close()
        found = re.match(rb"HTTP/1.1 (\d+)", got)
        return int(found[1]) if found else 0


def head(path: str, *lines: str) -> bytes:
    """The head of a POST."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()


SLOW: dict[str, tuple[int, Callable[[Wire], Wire]]] = {
    "a connection that says nothing": (0, lambda w: w),
    "a head that stops": (0, lambda w: w.send(b"POST /sync/message HTTP/1.1\r\nHost: 127")),
    "a body that stops": (408, lambda w: w.send(head("/sync/message", "Content-Length: 100") + b"{")),
    "a body that never begins": (408, lambda w: w.send(head("/v1/append", "Content-Length: 100"))),
    "a chunk that stops": (408, lambda w: w.send(head("/sync/messages", "Transfer-Encoding: chunked") + b"5\r\n{")),
    "a blob that stops": (
        408,
        lambda w: w.send(head(f"/v1/blobs/{'ab' * 32}", "Content-Length: 9").replace(b"POST", b"PUT")),
    ),
    "a body of a terabyte": (
        413,
        lambda w: w.send(head("/sync/message", f"Content-Length: {1 << 40}", "Connection: close")),
    ),
    "a header of a megabyte": (431, lambda w: w.send(head("/sync/message", "X: " + "x" * MIB))),
    "10,000 headers": (431, lambda w: w.send(head("/sync/message", *[f"X-{n}: 1" for n in range(10_000)]))),
    "200 short headers": (
        431,
        lambda w: w.send(head("/livez", "Connection: close", *[f"X-{n}: 1" for n in range(200)])),
    ),
}


def memory(hub: HubProcess, field: str = "VmRSS") -> int:
    """What the hub has of the machine's memory, in bytes."""
    status = Path(f"/proc/{hub.pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub that waits for a body half a second and no more."""
    process = HubProcess(tmp_path / "hub", fresh=True, pause_s=0.5)
    yield process
    process.kill()


def ask(hub: HubProcess, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=60)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_forty_bombs_leave_a_hub_as_it_was(guarded: HubProcess, count: Count) -> None:
    assert len(BODIES) + len(SLOW) == 40
    for number in range(20):  # what it needs for anything is not to be counted
        assert ask(guarded, "/sync/message", messages(msgspec.json.encode("x" * 40_000 * number)), {})[0] == 200
    before, most = memory(guarded), memory(guarded, "VmHWM")
    for name, (path, make, headers) in BODIES.items():
        status, told = ask(guarded, path, make(), headers)
        assert status in (400, 413), f"{name}: {status} {told}"
        assert told["error"]["code"] == "usage", f"{name}: {told}"
        assert told["error"]["message"], name
    waiting = {name: send(Wire(guarded.port)) for name, (_, send) in SLOW.items()}
    got = {name: wire.end() for name, wire in waiting.items()}
    assert got == {name: status for name, (status, _) in SLOW.items()}
    assert memory(guarded) - before < GROWTH_MAX
    assert memory(guarded, "VmHWM") - most < 4 * GROWTH_MAX, "not even for a moment"
    assert ask(guarded, "/sync/message", messages(b"1"), {})[0] == 200
    count("a bomb sent to a hub", tried=40, refused_or_cut_off=40)
