"""The hub over HTTP, with the standard library: one keep-alive connection a caller, typed answers, honest failures.

Two ways to ask. `ask` gives whatever came back (`Answer`), for the shipper, whose protocol decides what a failure
means; `want` raises the error of our tree, for a person who waits. An answer without the header that every hub sends
is a proxy's or a captive portal's: it proves nothing, and counts as no answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from holdfast import codec, wire
from holdfast.errors import HubError, HubUnavailable, UsageError, from_wire

CONNECT_S: Final = 3.0
REQUEST_S: Final = 10.0
SECONDS_PER_MIB: Final = 1.0
SQUEEZE_BYTES: Final = 8 << 10
"""Above it a body is compressed, unless the hub is this machine's."""
ANSWER_BYTES_MAX: Final = 64 << 20
FEED_S: Final = 25.0
"""A live feed says something at least every 10 s; silence for longer is a dead line."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_IDLE_MAX: Final = 4

Body = bytes | Iterable[bytes] | None
Token = str | Path | Callable[[bool], str] | None
"""What a hub knows us by, the file that holds it, or what gives it: asked with True once a hub refused what it gave."""


class Answer(msgspec.Struct, frozen=True):
    """What came back: `gen` is the hub's generation, empty when the header that names it was missing."""

    status: int
    gen: str
    headers: Any
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether a hub said yes."""
        return 200 <= self.status < 300 and bool(self.gen)

    def decode(self, kind: type[Any]) -> Any:
        """The msgpack message in it.

        Raises:
            HubError: it holds something else.
        """
        try:
            return wire.decode(kind, self.body)
        except UsageError as error:
            raise HubError(f"the hub's answer is {error.message}") from error

    def json(self) -> Any:
        """The JSON value in it.

        Raises:
            HubError: it holds none.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise HubError(f"the hub's answer is not JSON: {error}") from error

    def error(self) -> HubError | Exception:
        """Why it was no yes."""
        if not self.gen:
            return HubUnavailable(
                f"something that is not a hub answered {self.status}",
                hint="is there a proxy, or a login page, between?",
            )
        try:
            return from_wire(json.loads(self.body), status=self.status)
        except ValueError:
            return HubError(f"the hub answered {self.status}", status=self.status)


class Credential:
    """A token, the file it is read from, or what gives it; `refresh` reads or asks again."""

    def __init__(self, token: Token) -> None:
        self._source = token
        self._token: str | None = None
        # A file that is away is the hub's business to complain about: local writes must go on without it.
        with contextlib.suppress(UsageError):
            self._token = self._read(False)

    def refresh(self) -> None:
        """Reads the file, or asks, again; a token that was given stays what it is."""
        self._token = self._read(True)

    def _read(self, anew: bool) -> str | None:
        if isinstance(self._source, Path):
            try:
                return self._source.read_text().strip() or None
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"cannot read the token: {error}", hint="is the file there, and readable?") from error
        return self._source(anew) if callable(self._source) else self._source

    def headers(self) -> dict[str, str]:
        """The header that shows it, if there is one."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


class HubClient:
    """One hub's address. Safe to share among threads; each request has a connection of its own while it runs.

    Args:
        url: such as ``http://hub:8084``.
        token: what it knows us by, or the file that holds it.
    """

    def __init__(self, url: str, token: Token | Credential = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"not a hub's address: {url!r}", hint="such as http://hub:8084")
        self.url = url.rstrip("/")
        self.credential = token if isinstance(token, Credential) else Credential(token)
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        self._near = self._host in _LOOPBACK
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()  # guards _idle, _busy and _hung_up
        self._hung_up = False

    # -- asking -------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = REQUEST_S,
    ) -> Answer:
        """Whatever came back.

        Raises:
            HubUnavailable: nothing did; `context["kind"]` says ``network`` or ``timeout``.
        """
        sent = {**self.credential.headers(), **(headers or {})}
        if body is not None:
            if len(body) > SQUEEZE_BYTES and not self._near and "Content-Encoding" not in sent:
                body = codec.deflate("zstd", body)
                sent["Content-Encoding"] = "zstd"
            timeout += len(body) / (1 << 20) * SECONDS_PER_MIB
        while True:
            connection, used = self._take()
            try:
                connection.timeout = timeout
                if connection.sock is not None:
                    connection.sock.settimeout(timeout)
                else:
                    self._connect(connection, timeout)
                connection.request(method, self._path + path, body, sent)
                answer = self._read(connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                self._drop(connection)
                if used and not isinstance(error, TimeoutError):
                    continue  # the hub had closed an idle connection: nothing was lost, every request may be repeated
                raise self._unavailable(error) from error
            except BaseException:
                self._drop(connection)
                raise
            self._give(connection)
            return answer

    def want(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = REQUEST_S,
    ) -> Answer:
        """What a hub said to a request that it granted.

        Raises:
            HubUnavailable: no hub answered.
            HoldfastError: the hub's own error, as the class that its code names.
        """
        answer = self.ask(method, _target(path, query), body=body, headers=headers, timeout=timeout)
        if not answer.ok:
            raise answer.error()
        return answer

    def stream(
        self, path: str, query: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, socket.socket]:
        """An answer that does not end: its lines are read by the caller, who closes both.

        Raises:
            HubUnavailable: no hub answered.
            HoldfastError: the hub's own error.
        """
        connection = self._new(FEED_S)
        try:
            self._connect(connection, FEED_S)
            line: socket.socket = connection.sock
            connection.request("GET", self._path + _target(path, query), None, {**self.credential.headers(), **headers})
            response = connection.getresponse()
            if response.status != 200 or not response.headers.get(wire.HUB_HEADER):
                raise self._read(response).error()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if isinstance(error, HubError):
                raise
            raise self._unavailable(error) from error
        except BaseException:
            connection.close()
            raise
        return response, line

    # -- blobs --------------------------------------------------------------------------------------------------

    def blob_size(self, digest: bytes) -> int | None:
        """How many bytes of a blob the hub holds, all or the beginning; None: nothing of it."""
        answer = self.ask("HEAD", f"/v1/blobs/{digest.hex()}")
        if answer.status == 404 and answer.gen:
            offset = answer.headers.get("Upload-Offset")
            return int(offset) if offset and offset.isdigit() and int(offset) else None
        if not answer.ok:
            raise answer.error()
        return int(answer.headers.get("Content-Length") or 0)

    def get_blob(self, digest: bytes, offset: int, length: int) -> bytes:
        """A range of a blob; the caller proves the whole."""
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}
        return self.want("GET", f"/v1/blobs/{digest.hex()}", headers=headers).body

    def close(self) -> None:
        """Closes the idle connections; a second close is fine."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def hang_up(self) -> None:
        """Ends every request that is under way, in whatever thread, and refuses new ones."""
        with self._lock:
            self._hung_up = True
            lines = [each.sock for each in self._busy if each.sock is not None]
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

    # -- inside -------------------------------------------------------------------------------------------------

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._hung_up:
                raise HubUnavailable(f"the line to {self.url} is closed", hint="open the store again", kind="network")
            used = bool(self._idle)
            found = self._idle.pop() if used else self._new(REQUEST_S)
            self._busy.add(found)
            return found, used

    def _give(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if connection.sock is not None and len(self._idle) < _IDLE_MAX and not self._hung_up:
                self._idle.append(connection)
                return
        connection.close()

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def _new(self, timeout: float) -> http.client.HTTPConnection:
        if self._tls is not None:
            return _SecureLine(self._host, self._port, timeout=timeout, context=self._tls)
        return _Line(self._host, self._port, timeout=timeout)

    def _connect(self, connection: http.client.HTTPConnection, timeout: float) -> None:
        connection.timeout = CONNECT_S
        connection.connect()  # sets TCP_NODELAY
        line = connection.sock
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A line that went dead without a word is given up after 10 s and not after 15 minutes.
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(REQUEST_S * 1000))
        line.settimeout(timeout)

    def _read(self, response: http.client.HTTPResponse) -> Answer:
        body = response.read(ANSWER_BYTES_MAX + 1)
        if len(body) > ANSWER_BYTES_MAX:
            raise http.client.HTTPException(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        if response.length:  # `read` with a size says nothing of an answer that broke off
            raise http.client.IncompleteRead(body, response.length)
        response.read()
        gen = response.headers.get(wire.HUB_HEADER) or ""
        return Answer(response.status, gen, response.headers, body)

    def _unavailable(self, error: BaseException) -> HubUnavailable:
        kind = "timeout" if isinstance(error, TimeoutError) else "network"
        why = str(error) or type(error).__name__
        hint = "what was written here is kept, and shipped when it does"
        if isinstance(error, ssl.SSLCertVerificationError):
            hint = "if its certificate is of an authority of your own, name that in SSL_CERT_FILE"
        return HubUnavailable(
            f"{self.url} does not answer: {why}",
            hint=hint,
            kind=kind,
        )


class _Line(http.client.HTTPConnection):
    """A connection that sends a request's head and body together: apart they wake the hub twice."""

    _head = b""

    def send(self, data: Any) -> None:
        """Holds back what is small and begins a request."""
        if isinstance(data, bytes) and not self._head:
            self._head = data
            return
        self._flush(data if isinstance(data, bytes) else b"")
        if not isinstance(data, bytes):
            super().send(data)

    def getresponse(self) -> http.client.HTTPResponse:
        """Sends what was held back, and waits."""
        self._flush()
        return super().getresponse()

    def _flush(self, more: bytes = b"") -> None:
        held, self._head = self._head, b""
        if held or more:
            super().send(held + more)


class _SecureLine(_Line, http.client.HTTPSConnection):
    """The same over TLS."""


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    # The empty text is a value (a key may be empty); None is none, and so is an empty tuple.
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path
