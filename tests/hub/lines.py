"""Talking to a hub as a node and as a browser would: typed requests, and a feed that is read event by event."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from holdfast import wire


class Line:
    """One connection to a hub."""

    def __init__(self, url: str, *, timeout: float = 20.0) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body); a body that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        self.connection.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = self.connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def json(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The JSON of a request that must succeed."""
        status, _, data = self.ask(method, path, body, **headers)
        assert status < 300, (status, data)
        return json.loads(data)

    def gen(self) -> str:
        """The hub's generation."""
        return self.ask("GET", "/livez")[1]["holdfast-hub"]

    def append(self, *segments: wire.Segment, gen: str = "", req: int = 7) -> wire.AppendAnswer:
        """Sends segments, of the hub's present generation unless told otherwise."""
        message = wire.Append(gen or self.gen(), req, list(segments), "node-1")
        status, _, data = self.ask("POST", "/v1/append", wire.encode(message), Content_Type=wire.MEDIA)
        assert status == 200, data
        return wire.decode(wire.AppendAnswer, data)

    def hello(self, message: wire.Hello) -> wire.HelloAnswer:
        """What the hub knows."""
        status, _, data = self.ask("POST", "/v1/hello", wire.encode(message), Content_Type=wire.MEDIA)
        assert status == 200, data
        return wire.decode(wire.HelloAnswer, data)

    def close(self) -> None:
        """Hangs up."""
        self.connection.close()


class Events:
    """A live feed, event by event."""

    def __init__(self, url: str, query: str = "", *, last: str = "", token: str = "", timeout: float = 20.0) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout)
        extra = f"Last-Event-ID: {last}\r\n" if last else ""
        extra += f"Authorization: Bearer {token}\r\n" if token else ""
        request = f"GET /v1/feed?{query} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: text/event-stream\r\n{extra}\r\n"
        self.socket.sendall(request.encode())
        self.response = http.client.HTTPResponse(self.socket)
        self.response.begin()
        self.cursor = ""

    def __iter__(self) -> Iterator[tuple[str, str, Any]]:
        """(event, id, data); comments come as ("comment", "", text)."""
        event, data = "message", ""
        for line in self.response:
            text = line.decode().rstrip("\n")
            name, _, value = text.partition(": ")
            if not text:
                if data:
                    yield event, self.cursor, json.loads(data)
                event, data = "message", ""
            elif text.startswith(":"):
                yield "comment", "", text
            elif name == "event":
                event = value
            elif name == "id":
                self.cursor = value
            elif name == "data":
                data = value

    def until(self, event: str) -> list[tuple[str, str, Any]]:
        """All events up to and with the first of this name."""
        out = []
        for each in self:
            out.append(each)
            if each[0] == event:
                return out
        raise AssertionError(f"the feed ended without {event!r}: {out}")

    def records(self, count: int) -> list[Any]:
        """The next so many records."""
        out: list[Any] = []
        if count:
            for event, _, data in self:
                if event == "record":
                    out.append(data)
                    if len(out) == count:
                        break
        return out

    def close(self) -> None:
        """Hangs up."""
        self.response.close()
        self.socket.close()
