"""A server between a client and a real one, which does to single requests what networks and clouds do to them."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Answer = tuple[int, list[tuple[str, str]], bytes]
_DROPPED = {"transfer-encoding", "connection", "content-length", "date", "server"}


class FaultProxy:
    """Passes everything on, except for what it was told to spoil.

    Args:
        port: where the real server listens on this machine.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.log: list[str] = []
        self._plan: list[tuple[str, str]] = []
        self._always: dict[str, str] = {}
        self._lock = threading.Lock()
        self.released = threading.Event()
        outer = self

        class Handler(_Handler):
            proxy = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def spoil(self, method: str, *faults: str) -> None:
        """The next requests of this method meet these faults, one each."""
        with self._lock:
            self._plan += [(method, fault) for fault in faults]

    def always(self, method: str, fault: str) -> None:
        """Every request of this method does."""
        self._always[method] = fault

    def heal(self) -> None:
        """From now on nothing is spoiled."""
        with self._lock:
            self._plan.clear()
            self._always.clear()

    def fault(self, method: str) -> str:
        """What this request meets; it is used up."""
        with self._lock:
            for at, (wanted, fault) in enumerate(self._plan):
                if wanted == method:
                    del self._plan[at]
                    self.log.append(f"{method} {fault}")
                    return fault
            if fault := self._always.get(method, ""):
                self.log.append(f"{method} {fault}")
            return fault

    def close(self) -> None:
        """Lets go of whoever hangs, and ends."""
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"

    def _do(self) -> None:
        fault = self.proxy.fault(self.command)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "reset-upload":
            self.rfile.read(length // 2)
            return self._reset()
        body = self.rfile.read(length)
        if fault == "hang":
            self.proxy.released.wait(60)
            return self._reset()
        if fault.isdecimal():
            return self._answer((int(fault), [("Retry-After", "0")], _error("InternalError")))
        if fault.startswith("says-"):
            _, status, code = fault.split("-")
            return self._answer((int(status), [], _error(code)))
        answer = self._passed_on(body)
        if fault == "lost-answer":
            return self._reset()
        if fault == "500-after":
            return self._answer((500, [], _error("InternalError")))
        if fault == "changed" and answer[2]:
            answer = (answer[0], answer[1], answer[2][:-1] + bytes([answer[2][-1] ^ 1]))
        return self._answer(answer, half=fault == "half-answer")

    def _passed_on(self, body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body or None, headers)
            got = connection.getresponse()
            content = got.read()
            kept = [(name, value) for name, value in got.getheaders() if name.lower() not in _DROPPED]
            if self.command == "HEAD":
                kept.append(("Content-Length", got.getheader("Content-Length") or "0"))
            return got.status, kept, content
        finally:
            connection.close()

    def _answer(self, answer: Answer, *, half: bool = False) -> None:
        status, headers, content = answer
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status != 204:
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self.wfile.flush()
            self._reset()

    def _reset(self) -> None:
        """Breaks the connection off as a crash does, without a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):  # the client hung up, or we did
            self.close_connection = True

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _do


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>a fault</Message></Error>".encode()


@pytest.fixture
def proxies() -> Iterator[list[FaultProxy]]:
    """Proxies that end with the test."""
    made: list[FaultProxy] = []
    yield made
    for proxy in made:
        proxy.close()
