"""A machine elsewhere that takes notifications, and remembers what came."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec


class Came(msgspec.Struct, frozen=True):
    """A request as it came; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body as JSON."""
        return json.loads(self.body)


class Receiver:
    """Takes requests on loopback.

    Attributes:
        came: what came so far.
        answer: what is answered next: a status and headers; may be another one for each request.
        hook: called with each request before it is answered.
    """

    def __init__(self) -> None:
        self.came: list[Came] = []
        self.answer: Callable[[int], tuple[int, dict[str, str]]] = lambda number: (200, {})
        self.hook: Callable[[Came], None] = lambda came: None
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                came = Came(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                with receiver._lock:
                    receiver.came.append(came)
                    number = len(receiver.came)
                receiver.hook(came)
                status, headers = receiver.answer(number)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:
                pass  # a hub that was killed does not wait for its answer

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
