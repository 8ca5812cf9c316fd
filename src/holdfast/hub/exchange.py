"""How the hub reads requests and writes answers: capped bodies in, JSON or msgpack out, errors of one form."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from typing import Any, Final
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
VISIT: Final = "holdfast.visit"
"""Where a request's scope holds the gate's `Visit`."""
NESTED_MAX: Final = 64
"""Lists and objects within each other, in JSON."""
ITEMS_MAX: Final = 250_000
"""Things in one JSON body: as Python holds them, 8 MiB of empty lists are 180 MB."""
_LONG_NUMBER: Final = b"0" * 19
_TO_ZERO: Final = bytes.maketrans(b"123456789", b"0" * 9)
_TO_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NOT_SQUARE: Final = bytes(each for each in range(256) if each not in b"[]")
_NUMBER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
RETRY_AFTER: Final = {507: b"10", 503: b"2", 429: b"1", 408: b"1"}
"""Seconds that a client is to stay away: long enough to free a disk, short enough not to be missed."""

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
        HubUnavailable: too much of other bodies is under way.
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
        if (more or len(parts) > 1) and VISIT in scope:
            scope[VISIT].hold(len(part))  # what is not whole yet may stay for as long as its sender likes
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


def check_media(data: bytes) -> None:
    """The same as `check_json` for msgpack, whose things may be one byte each.

    Raises:
        UsageError: too large (status 413), or what `check_json` refuses.
    """
    if len(data) > ITEMS_MAX:
        raise too_large(len(data), ITEMS_MAX)
    check_json(encode_json(_decode_media(data)))


def parse_json(data: bytes) -> Any:
    """The value in a JSON body.

    Raises:
        UsageError: it is not JSON.
    """
    check_json(data)
    try:
        return _decode_json(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the body is not JSON: {error}", hint="see docs/http.md for what belongs here") from error


def check_json(data: bytes, *, apart: bool = False) -> None:
    """Returns only if this JSON can be read at all: its size in things, its nesting, its numbers.

    Args:
        data: the body, or a part of one.
        apart: whether it is a list whose parts are looked at singly, later: only its size counts now.

    Raises:
        UsageError: too many things, nested deeper than `NESTED_MAX`, or a whole number beyond 64 bits.
    """
    brackets = data.count(b"[") + data.count(b"{")
    many = brackets + data.count(b",") > ITEMS_MAX
    if apart and not many:
        return
    if brackets <= NESTED_MAX and not many and _LONG_NUMBER not in data.translate(_TO_ZERO):
        return
    # What stands in texts does not count; without the escapes, every second piece between quotes is one.
    bare = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    if many and sum(map(bare.count, (b"[", b"{", b","))) > ITEMS_MAX:
        raise UsageError(f"more than {ITEMS_MAX:,} things in one body", hint="send several", limit=ITEMS_MAX)
    if apart:
        return
    left = bare.translate(_TO_SQUARE).translate(None, _NOT_SQUARE)
    for _ in range(NESTED_MAX):  # each round takes the innermost pairs
        left = left.replace(b"[]", b"")
        if not left:
            break
    else:
        raise UsageError(f"the body is nested deeper than {NESTED_MAX}", hint="flatten it", limit=NESTED_MAX)
    if _LONG_NUMBER not in bare.translate(_TO_ZERO):
        return
    for found in _NUMBER.finditer(bare):
        text = found[0]
        if len(text) > 18 and text.lstrip(b"-").isdigit() and (len(text) > 30 or not -(1 << 63) <= int(text) < 1 << 63):
            hint = "they go from -2^63 to 2^63-1; send it as text"
            raise UsageError(f"a whole number of {len(text)} digits in the body", hint=hint)


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
    if error.status == 408:
        extra.append((b"connection", b"close"))  # the rest of the body may yet come
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


class Rest:
    """What is left of a coroutine that was begun without a task, for a task to await.

    Args:
        coroutine: begun by ``send(None)``.
        first: what that gave.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: Any) -> None:
        self._coroutine = coroutine
        self._first = first

    def __await__(self) -> Generator[Any, Any, Any]:
        yield self._first
        return (yield from self._coroutine.__await__())


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
