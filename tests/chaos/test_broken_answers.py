"""A hub that dies in the middle of an answer: the reader asks again, skips nothing, and calls nothing corrupt."""

from __future__ import annotations

import hashlib
import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from holdfast.codec import FMT_BYTES
from holdfast.errors import HubUnavailable
from holdfast.node.hub import Hub
from holdfast.records import INLINE_BYTES_MAX
from holdfast.wire import HUB_HEADER

BLOB = b"large " * INLINE_BYTES_MAX
DIGEST = hashlib.sha256(BLOB).hexdigest()


class Dying(socketserver.ThreadingTCPServer):
    """A hub with four records, the third of them a blob, that dies twice sending it (once is tried again unseen)."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, after: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.after, self.deaths = after, 2
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def record(self, pos: int) -> dict[str, Any]:
        """One record as the feed shows it."""
        out: dict[str, Any] = {
            "pos": pos, "agent": "ada", "stream": "00" * 16, "seq": pos, "time": "2024-01-01T00:00:00Z", "kind": "put",
            "collection": "state", "key": f"k{pos}", "version": 1, "etag": f"{pos:064x}", "author": "", "gone": False,
            "value": pos,
        }  # fmt: skip
        if pos == 3:
            out |= {"value": None, "missing": "blob", "digest": DIGEST, "size": len(BLOB), "fmt": FMT_BYTES}
        return out


class Handler(BaseHTTPRequestHandler):
    """Answers the feed and the blob."""

    server: Dying
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """One request."""
        if self.path.startswith("/v1/blobs/"):
            return self._blob()
        cursor = self.headers.get("Last-Event-ID") or dict(
            part.partition("=")[::2] for part in self.path.partition("?")[2].split("&")
        ).get("after", "0")
        rows = [self.server.record(pos) for pos in range(int(cursor.partition("@")[0].partition(".")[0] or 0) + 1, 5)]
        if "text/event-stream" in (self.headers.get("Accept") or ""):
            self._head(200, "text/event-stream", None)
            for row in rows:
                self.wfile.write(f"event: record\nid: {row['pos']}.g1@0\ndata: {json.dumps(row)}\n\n".encode())
            self.close_connection = True
            return None
        self._whole({"records": rows, "cursor": "4.g1@0", "caught_up": True})
        return None

    def _blob(self) -> None:
        first = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        self._head(206, "application/octet-stream", len(BLOB) - first)
        if self.server.deaths:
            self.server.deaths -= 1
            self.wfile.write(BLOB[first : first + self.server.after])
            self.close_connection = True
            return
        self.wfile.write(BLOB[first:])

    def _whole(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self._head(200, "application/json", len(data))
        self.wfile.write(data)

    def _head(self, status: int, kind: str, length: int | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header(HUB_HEADER, "g1")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(params=[0, 1, 70_000], ids="dies after {} bytes".format)
def dying(request: pytest.FixtureRequest) -> Iterator[Dying]:
    """Such a hub."""
    with Dying(request.param) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_blob_that_breaks_off_is_no_corrupt_one(dying: Dying) -> None:
    with Hub(dying.url) as hub:
        with pytest.raises(HubUnavailable):
            list(hub.changes(live=False))
        assert [change.key for change in hub.changes(live=False)] == ["k1", "k2", "k3", "k4"]


def test_a_reader_whose_page_broke_off_resumes_where_it_stood(dying: Dying) -> None:
    with Hub(dying.url) as hub:
        changes = hub.changes(live=False)
        with pytest.raises(HubUnavailable):
            list(changes)
        assert [change.key for change in hub.changes(changes.cursor, live=False)] == ["k1", "k2", "k3", "k4"]


def test_a_live_reader_skips_nothing_when_a_blob_breaks_off(dying: Dying) -> None:
    with Hub(dying.url) as hub, hub.changes() as changes:
        found = [next(changes) for _ in range(4)]
    assert [change.key for change in found] == ["k1", "k2", "k3", "k4"]
    assert found[2].value == BLOB
