"""How the hub reads requests and writes answers: capped bodies in, JSON or msgpack out, errors of one form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from holdfast import codec, wire
from holdfast.errors import HoldfastError, HubFull, HubUnavailable, UsageError
from holdfast.wire import BODY_BYTES_MAX

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON: Final = b"application/json"
MEDIA: Final = wire.MEDIA.encode()
RETRY_AFTER: Final = {507: b"10", 503: b"2"}
"""Seconds that a client is to stay away: long enough to free a disk, short enough not to be missed."""

T = TypeVar("T")

encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode
_decode_media = msgspec.msgpack.Decoder().decode


class Gone(Exception):
    """The client went away before its request was whole: nobody is left to be told."""


def too_large(size: int, cap: int) -> UsageError:
    """The error of a body above its cap, status 413."""
    error = UsageError(f"the body is {size} bytes, the most is {cap}", hint="send less at once", limit=cap)
    error.status = 413
    return error


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a header, in lower-case name; empty if it was not sent."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return b""


async def body_of(scope: Scope, receive: Receive, cap: int = BODY_BYTES_MAX) -> bytes:
    """The body, decoded from its content coding; both sizes capped.

    Raises:
        UsageError: too large (status 413), or a coding that is unknown or damaged.
        Gone: the client left.
    """
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > cap:
        raise too_large(int(declared), cap)
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        part = message.get("body", b"")
        size += len(part)
        if size > cap:
            raise too_large(size, cap)
        parts.append(part)
        more = message.get("more_body", False)
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    coding = header(scope, b"content-encoding").decode("latin-1").strip().lower()
    try:
        return codec.inflate(coding, data, cap)
    except UsageError as error:
        if "limit" in error.context:
            error.status = 413
        elif "unknown content encoding" in error.message:
            error.status = 415
        raise


def parse(scope: Scope, data: bytes) -> Any:
    """The value in a body: msgpack where its type says so, else JSON.

    Raises:
        UsageError: it is neither.
    """
    if header(scope, b"content-type").startswith(MEDIA):
        try:
            return _decode_media(data)
        except msgspec.MsgspecError as error:
            raise UsageError(f"the body is not msgpack: {error}", hint="its Content-Type says that it is") from error
    return parse_json(data)


def parse_json(data: bytes) -> Any:
    """The value in a JSON body.

    Raises:
        UsageError: it is not JSON.
    """
    try:
        return _decode_json(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}", hint="see docs/http.md for what belongs here") from error


def parts_of(data: bytes, shape: type[T], hint: str) -> T:
    """A body whose parts stay as they came (`msgspec.Raw`), so that a long list is not unfolded all at once.

    Raises:
        UsageError: it has another shape.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the body does not have its shape: {error}", hint=hint) from error


async def answer(send: Send, data: bytes, *, kind: bytes = JSON, status: int = 200, extra: Any = ()) -> None:
    """Sends a whole answer."""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(data)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def answer_json(send: Send, value: Any, *, status: int = 200) -> None:
    """Sends a value as JSON."""
    await answer(send, encode_json(value), status=status)


async def answer_error(send: Send, error: HoldfastError) -> None:
    """Sends an error in its wire form, with its status and, where waiting helps, how long."""
    extra = []
    if error.status in RETRY_AFTER:
        extra.append((b"retry-after", RETRY_AFTER[error.status]))
    if error.status == 401:
        extra.append((b"www-authenticate", b"Bearer"))
    if error.status == 405:
        extra.append((b"allow", error.context.get("allow", "").encode()))
    await answer(send, encode_json(error.to_wire()), status=error.status, extra=extra)


def as_hubs(error: HoldfastError, *, broken: bool = False) -> HoldfastError:
    """The same error as a hub tells it: a full or failed disk here is the hub's, not the asking node's.

    Args:
        error: what went wrong.
        broken: whether the hub's own file has failed.
    """
    if error.code in ("node_full", "full"):
        return HubFull(error.message, hint=error.hint, **error.context)
    if broken and error.code in ("integrity", "closed"):
        return HubUnavailable(f"this hub cannot go on: {error.message}", hint="restart it; nodes keep everything")
    return error


class Query:
    """The parameters of a request, as texts by name: `api.Parameters` says what each must be.

    Args:
        scope: of the request.
    """

    def __init__(self, scope: Scope) -> None:
        try:
            pairs = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
        except (UnicodeDecodeError, ValueError) as error:
            raise UsageError(
                f"the query is not percent-encoded UTF-8: {error}", hint="encode names and values"
            ) from error
        self._pairs: dict[str, list[str]] = {}
        for name, value in pairs:
            self._pairs.setdefault(name, []).append(value)

    def names(self) -> set[str]:
        """The parameters that were given."""
        return set(self._pairs)

    def text(self, name: str, default: str | None = None) -> str | None:
        """The parameter, or the default where it was not given."""
        found = self._pairs.get(name)
        return found[-1] if found else default

    def many(self, name: str) -> tuple[str, ...]:
        """A parameter that may be given several times; empty ones do not count."""
        return tuple(value for value in self._pairs.get(name, ()) if value)
