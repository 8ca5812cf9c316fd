"""What nodes ask: hello, append, pull, and blobs. Bare ASGI: these are the hub's hot paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast import wire
from holdfast.corpus.chains import unknown_branch
from holdfast.corpus.heads import stretch
from holdfast.errors import Conflict, UsageError
from holdfast.hub.api import ANY, Operation, parameters_of
from holdfast.hub.core import Core
from holdfast.hub.exchange import (
    MEDIA,
    Query,
    Receive,
    Scope,
    Send,
    answer,
    answer_json,
    body_of,
    header,
)
from holdfast.hub.judge import denials
from holdfast.hub.pieces import part_header, range_of, room_for, send_range, take
from holdfast.hub.principal import APPEND, READ, Principal, principal_of
from holdfast.hub.shapes import Number
from holdfast.protocol import ingest
from holdfast.records import BLOB_BYTES_MAX

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
BYTES: Final = b"application/octet-stream"
_HEX: Final = "[0-9a-fA-F]"


Digest = Annotated[
    str,
    Meta(
        description="SHA-256 of the blob, in hex",
        examples=["2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"],
        extra_json_schema={"pattern": f"^{_HEX}{{64}}$"},
    ),
]
Id = Annotated[str, Meta(extra_json_schema={"pattern": f"^{_HEX}{{32}}$"})]
Span = Annotated[
    str, Meta(description="one range, such as bytes=0-1023", extra_json_schema={"pattern": "^(bytes=[0-9]{1,10}-)?$"})
]
Part = Annotated[
    str,
    Meta(
        description="where a part of an upload lies, such as bytes 0-1023/4096",
        extra_json_schema={"pattern": "^bytes [0-9]{1,10}-[0-9]{1,10}/([0-9]{1,10}|\\*)$"},
    ),
]


class Stretch(msgspec.Struct, frozen=True):
    """Which records of which branch."""

    stream: Annotated[Id, Meta(description="the log, in hex")]
    inc: Annotated[Id, Meta(description="the incarnation, in hex")]
    after: Annotated[Number, Meta(description="records behind this number")] = 0
    limit: Annotated[int, Meta(ge=1, le=wire.RECORDS_MAX, description="how many at most")] = wire.RECORDS_MAX
    signed: Annotated[int, Meta(ge=0, le=1, description="1: up to a signed head, as they can be passed on")] = 0


class Stored(msgspec.Struct):
    """A blob that is here as a whole."""

    digest: Digest
    size: int


class Begun(msgspec.Struct):
    """A blob of which a part is here: up to where."""

    digest: Digest
    offset: int


def operations(core: Core) -> Iterator[Operation]:
    """What nodes say and ask."""

    def declare(method: str, path: str, endpoint: Any, needs: str, summary: str, **more: Any) -> Operation:
        return Operation(method=method, path=path, endpoint=endpoint, needs=needs, summary=summary, tag="nodes", **more)

    def said(path: str, endpoint: Any, summary: str, **more: Any) -> Operation:
        # msgpack, in the structs of `holdfast.wire`: nothing that a JSON schema could describe.
        shapes: dict[str, Any] = {"body": bytes, "takes": (wire.MEDIA,), "answer": bytes, "gives": wire.MEDIA}
        return declare("POST", path, endpoint, APPEND, summary, **shapes, **more)

    yield said("/v1/hello", Hello(core), "Where the hub stands with a node's streams")
    yield said("/v1/append", Append(core), "Records of a node's agents", hot=True, errors=(409,))
    yield declare(
        *("GET", "/v1/pull", Pull(core), READ, "A stretch of an incarnation's chain"),
        or_needs=APPEND,
        query=Stretch,
        answer=bytes,
        gives=wire.MEDIA,
        errors=(404,),
    )
    blob: dict[str, Any] = {"path": "/v1/blobs/{digest}", "endpoint": Blobs(core), "where": {"digest": Digest}}
    yield declare(
        "HEAD", needs=READ, summary="Whether a blob is here, or where its upload stands", also={404: None}, **blob
    )
    yield declare(
        "GET",
        needs=READ,
        summary="A blob's bytes",
        headers={"Range": Span},
        answer=bytes,
        gives=BYTES.decode(),
        also={206: bytes},
        errors=(404, 416),
        **blob,
    )
    yield declare(
        "PUT",
        needs=APPEND,
        summary="A blob, or a part of it",
        headers={"Content-Range": Part},
        body=bytes,
        takes=(ANY,),
        answer=Stored,
        also={201: Stored, 202: Begun},
        errors=(409, 422),
        **blob,
    )


class Hello:
    """POST /v1/hello: where the hub knows a node's streams to stand."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        core = self._core
        message = wire.decode(wire.Hello, await body_of(scope, receive))
        if message.version != wire.PROTOCOL:
            raise UsageError(
                f"the node speaks protocol {message.version}, this hub {wire.PROTOCOL}",
                hint="update the older of the two",
            )

        def look() -> wire.HelloAnswer:
            with core.home.snapshot() as chains:
                found = ingest.hello(chains, core.home.identity, message, core.home.wall.now_ms())
            # What it may take for acknowledged must have survived a power cut first.
            core.corpus.sync()
            wish = core.wishes.of(message.node)
            return msgspec.structs.replace(found, wish=wish) if wish is not None else found

        found = await core.read(look)
        core.saw(message.node, message, found)
        core.wishes.heard(message.node)
        core.heads.told(found)
        await answer(send, wire.encode(found), kind=MEDIA)


class Append:
    """POST /v1/append: records of a node's agents, answered once they are taken; `safe` says what the disk has."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        message = wire.decode(wire.Append, await body_of(scope, receive))
        records = sum(len(segment.items) for segment in message.segments)
        if records > 2 * wire.RECORDS_MAX or len(message.segments) > wire.STREAMS_MAX:
            error = UsageError(
                f"{records} records at once, the most is {wire.RECORDS_MAX}", hint="send less", limit=wire.RECORDS_MAX
            )
            error.status = 413
            raise error
        principal = principal_of(scope)
        if principal.writes_everything:
            found = await self._core.writer.append(message)
        else:
            found = await self._append_some(principal, message)
        self._core.saw(message.node)
        self._core.heads.took(message, found)
        self._core.meters.intake.took(message, found)
        if message.node in self._core.wishes.fresh:
            found = msgspec.structs.replace(found, ask=True)
        await answer(send, wire.encode(found), kind=MEDIA)

    async def _append_some(self, principal: Principal, message: wire.Append) -> wire.AppendAnswer:
        """Appends what this principal may write; the rest is denied by itself, and holds nothing else up."""
        denied = denials(principal, message)
        passed = [segment for number, segment in enumerate(message.segments) if number not in denied]
        found = await self._core.writer.append(msgspec.structs.replace(message, segments=passed))
        if not denied or found.regen:
            return found
        rest = iter(found.verdicts)
        verdicts = [denied.get(number) or next(rest) for number in range(len(message.segments))]
        return msgspec.structs.replace(found, verdicts=verdicts)


class Pull:
    """GET /v1/pull: records of a branch, for the node that lost them, or (`signed`) as they can be passed on.

    Others' branches are for whoever may read everything.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._parameters = parameters_of(Stretch)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        asked: Stretch = self._parameters.read(Query(scope))
        stream, inc = _bytes(asked.stream, 16, "stream"), _bytes(asked.inc, 16, "inc")
        principal = principal_of(scope)

        def look() -> wire.Pulled:
            with self._core.home.snapshot() as chains:
                if not (principal.may(READ) and principal.reads_everything):
                    facts = chains.streams([stream]).get(stream)
                    if facts is None or not principal.writes_as(facts.agent):
                        # Not "denied": that would say that there is one.
                        raise unknown_branch(stream, inc)
                if asked.signed:
                    return stretch(chains, stream, inc, asked.after, limit=asked.limit)
                return chains.pull(stream, inc, asked.after, limit=asked.limit)

        await answer(send, wire.encode(await self._core.read(look)), kind=MEDIA)


class Blobs:
    """HEAD, GET (with Range) and PUT (whole, or resumed by Content-Range) of /v1/blobs/{sha256 in hex}."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        digest = _bytes(scope["path_params"]["digest"], 32, "digest")
        if scope["method"] == "PUT":
            await self._put(digest, scope, receive, send)
        elif scope["method"] == "HEAD":
            await self._head(digest, send)
        else:
            await self._get(digest, scope, send)

    async def _head(self, digest: bytes, send: Send) -> None:
        blobs = self._core.home.blobs
        if await self._core.files(lambda: blobs.has(digest)):
            size = await self._core.files(lambda: blobs.size(digest))
            # Of one that its store has condemned (`objects.blobs.collect`) the bytes can be read, and are to be sent.
            ends = await self._core.files(lambda: blobs.resume(digest) if blobs.missing([digest]) else size)
            await _start(send, 200, size, [(b"accept-ranges", b"bytes"), (b"upload-offset", b"%d" % ends)])
        else:
            offset = await self._core.files(lambda: blobs.resume(digest))
            await _start(send, 404, 0, [(b"upload-offset", b"%d" % offset)])
        await send({"type": "http.response.body", "body": b""})

    async def _get(self, digest: bytes, scope: Scope, send: Send) -> None:
        blobs = self._core.home.blobs
        size = await self._core.files(lambda: blobs.size(digest))
        asked = header(scope, b"range").decode("latin-1")
        first, last = range_of(asked, size)
        extra = [(b"accept-ranges", b"bytes"), (b"etag", b'"%s"' % digest.hex().encode())]
        extra += part_header(asked, first, last, size)
        await _start(send, 206 if asked else 200, last - first + 1, extra)
        await send_range(self._core, send, digest, first, last)

    async def _put(self, digest: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        blobs = self._core.home.blobs
        length = header(scope, b"content-length")
        size = int(length) if length.isdigit() else 0
        room_for(self._core, size)
        offset, total = _content_range(header(scope, b"content-range").decode("latin-1"))
        if total is None and size:
            total = size
        if (total or 0) > BLOB_BYTES_MAX:
            error_413 = UsageError(f"a blob of {total} bytes, the most is {BLOB_BYTES_MAX}")
            error_413.status = 413
            raise error_413
        if not await self._core.files(lambda: blobs.missing([digest])):
            await answer_json(
                send, {"digest": digest.hex(), "size": await self._core.files(lambda: blobs.size(digest))}
            )
            return
        at = await self._core.files(lambda: blobs.resume(digest))
        if offset is not None and offset != at:
            raise Conflict(f"the upload stands at {at}, not at {offset}", hint="go on from there", offset=at)
        # Sent whole again: what lies here already is not written twice; the digest proves the sum of both.
        at = await take(self._core, digest, at, 0 if offset is not None else at, receive)
        if not at:  # not a byte came: all there is of the empty blob, and a wrong one of any other
            at = await self._core.files(lambda: blobs.append(digest, 0, b""))
        if total is not None and at < total:
            await answer_json(send, {"digest": digest.hex(), "offset": at}, status=202)
            return
        stored = await self._core.files(lambda: blobs.finish(digest))
        await answer_json(send, {"digest": digest.hex(), "size": stored}, status=201)


async def _start(send: Send, status: int, length: int, extra: Any) -> None:
    headers = [(b"content-type", BYTES), (b"content-length", b"%d" % length), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _bytes(text: str, size: int, what: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != size or len(text) != 2 * size:
        raise UsageError(f"{what} must be {2 * size} hex digits, got {text!r:.80}", hint="as hello told it")
    return found


def _content_range(text: str) -> tuple[int | None, int | None]:
    """Where an upload goes on and how long the whole is; None where it was not said."""
    if not text:
        return None, None
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if not found:
        raise UsageError(f"cannot read the content range {text!r:.80}", hint="such as bytes 0-1023/4096")
    first, _, total = found.groups()
    return int(first), None if total == "*" else int(total)
