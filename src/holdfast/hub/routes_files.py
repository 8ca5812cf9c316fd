"""Files by HTTP: POST /sync/files in one go, uploads that can be resumed, and what is there (docs/http.md, Files).

An upload is streamed: the hub holds a piece of it, never the whole. It becomes a file when its bytes have survived;
until then nobody sees it. A part of an upload stays when its client goes away, for a day.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast.collections.files import FileInfo, Stood
from holdfast.errors import BlobCorrupt, NotCached, NotFound, UsageError
from holdfast.hub import files
from holdfast.hub.api import ANY, Call, Nothing, Operation, Reply, parameters_of, typed
from holdfast.hub.core import Core
from holdfast.hub.exchange import Gone, Query, Receive, Scope, Send, answer, encode_json, header, too_large
from holdfast.hub.files import NewFile
from holdfast.hub.forms import Form, arriving, plain
from holdfast.hub.pieces import PIECE_BYTES, part_header, range_of, room_for, send_range
from holdfast.hub.principal import READ, WRITE, principal_of
from holdfast.hub.routes_node import Span
from holdfast.hub.shapes import AfterPos, Agent, Limit, Writer
from holdfast.objects.blobs.reading import no_upload
from holdfast.records import BLOB_BYTES_MAX

_OFFSET: Final = b"upload-offset"
_NO_QUERY: Final = parameters_of(Nothing)


FileId = Annotated[
    str,
    Meta(description="the file's", examples=["file_x"], extra_json_schema={"pattern": "^file_[0-9a-f]{32}$"}),
]
UploadId = Annotated[str, Meta(description="the upload's", extra_json_schema={"pattern": "^[0-9a-f]{32}$"})]
Offset = Annotated[
    str,
    Meta(description="where the bytes go: how many are there", extra_json_schema={"pattern": "^(0|[1-9][0-9]{0,8})$"}),
]


ETag = Annotated[str, Meta(description="the digest in quotes, as the header ETag told it")]


class FileForm(msgspec.Struct, kw_only=True):
    """The form of an upload: the file, and what is to be known of it, in any order."""

    file: Annotated[str, Meta(description="the file itself", extra_json_schema={"format": "binary"})]
    agent_id: Annotated[Writer, Meta(description="whose it is")] = "anonymous"
    name: Annotated[str, Meta(max_length=255, description="in place of the name that came with the file")] | None = None
    media_type: Annotated[str, Meta(description="in place of what came with the file")] | None = None
    task_id: Annotated[str, Meta(max_length=200, description="what it belongs to")] | None = None
    metadata: Annotated[str, Meta(description="a JSON object: whatever else is to be known")] | None = None
    sha256: Annotated[str, Meta(description="its digest in hex: other bytes are then refused")] | None = None
    msg_id: Annotated[str, Meta(max_length=200, description="with one, it is stored once, for ever")] | None = None


class Which(msgspec.Struct, frozen=True, kw_only=True):
    """Which files are listed."""

    agent: Agent | None = None
    task: Annotated[str, Meta(description="only what belongs to this")] | None = None
    after: AfterPos = 0
    limit: Limit = 100


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A page of files; `next` goes into `after`, null is the end."""

    files: list[FileInfo]
    next: int | None


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """Where an upload stands, in bytes."""

    upload_id: str
    offset: int


class FinishedUpload(NewFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What finishes an upload: what its file is, and the digest that its bytes must have."""

    sha256: str


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken away."""

    status: str
    id: str


def operations(core: Core) -> Iterator[Operation]:
    """Files, and uploads on the way to be some."""
    room = Files(core)

    def declare(method: str, path: str, endpoint: Any, summary: str, **more: Any) -> Operation:
        needs = READ if method == "GET" and "uploads" not in path else WRITE
        return Operation(method=method, path=path, endpoint=endpoint, needs=needs, summary=summary, tag="files", **more)

    uploads, one = "/sync/uploads", "/sync/files/{file_id}"
    this = f"{uploads}/{{upload_id}}"
    upload, file = {"upload_id": UploadId}, {"file_id": FileId}
    yield declare(
        *("POST", "/sync/files", PostFile(core), "Upload a file in one request"),
        body=FileForm,
        takes=("multipart/form-data",),
        answer=Stood,
        errors=(409, 422),
    )
    yield declare("GET", "/sync/files", typed(room.listing), "The files there are", query=Which, answer=Listing)
    yield declare("POST", uploads, typed(room.begin), "Begin an upload", answer=Upload, status=201)
    yield declare("GET", this, typed(room.stands), "Where an upload stands", where=upload, answer=Upload, errors=(404,))
    yield declare(
        *("PATCH", this, Extend(core), "Add bytes to an upload"),
        where=upload,
        headers={"Upload-Offset": Offset},
        body=bytes,
        takes=(ANY,),
        answer=Upload,
        errors=(404, 409),
    )
    yield declare("DELETE", this, typed(room.drop), "Give an upload up", where=upload, answer=Removed, errors=(404,))
    yield declare(
        *("POST", f"{this}/finish", typed(room.finish), "Make a file of an upload"),
        where=upload,
        body=FinishedUpload,
        answer=Stood,
        errors=(404, 409, 422),
    )
    yield declare(
        *("GET", one, Download(core), "A file's bytes"),
        where=file,
        headers={"Range": Span, "If-None-Match": ETag},
        answer=bytes,
        gives="application/octet-stream",
        or_gives=tuple(sorted(files.SERVED)),
        also={206: bytes, 304: None},
        errors=(404, 416),
    )
    yield declare(
        "GET", f"{one}/meta", typed(room.meta), "What is known of a file", where=file, answer=FileInfo, errors=(404,)
    )
    yield declare("DELETE", one, typed(room.remove), "Take a file away", where=file, answer=Removed, errors=(404,))


class Files:
    """What needs no stream: lists, metadata, and the ends of uploads."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def listing(self, call: Call) -> Listing:
        """GET /sync/files: in the order in which they came."""
        call.principal.check_read(files.FILES)
        which: Which = call.query
        found, following = await self._core.read(
            lambda: files.listed(self._core, which.agent or None, which.task, which.after, which.limit)
        )
        return Listing(files=found, next=following)

    async def meta(self, call: Call) -> FileInfo:
        """GET /sync/files/{file_id}/meta."""
        call.principal.check_read(files.FILES)
        return files.info(await self._core.read(lambda: files.find(self._core, call.path["file_id"])))

    async def remove(self, call: Call) -> Removed:
        """DELETE /sync/files/{file_id}: one record; what it was stays in its history."""
        file_id = call.path["file_id"]
        call.principal.check_write(None, files.FILES)  # of what is there and of what is not
        found = await self._core.read(lambda: files.find(self._core, file_id))
        call.principal.check_change(found.agent, files.FILES, files.no_file(file_id))
        await files.remove(self._core, file_id, found.agent)
        return Removed(status="deleted", id=file_id)

    async def begin(self, call: Call) -> Reply:
        """POST /sync/uploads."""
        call.principal.check_write(None, files.FILES)
        room_for(self._core, 0)
        name = files.upload_name(call.principal, os.urandom(10))
        upload = await self._core.files(lambda: self._core.home.blobs.begin(name))
        where = (("location", f"/sync/uploads/{upload}"), ("upload-offset", "0"))
        return Reply(Upload(upload_id=upload, offset=0), headers=where)

    async def stands(self, call: Call) -> Reply:
        """GET or HEAD /sync/uploads/{upload_id}."""
        upload = call.path["upload_id"]
        files.check_own(call.principal, upload)
        at = await self._core.files(lambda: self._core.home.blobs.stands(upload))
        return Reply(Upload(upload_id=upload, offset=at), headers=(("upload-offset", str(at)),))

    async def drop(self, call: Call) -> Removed:
        """DELETE /sync/uploads/{upload_id}."""
        upload = call.path["upload_id"]
        files.check_own(call.principal, upload)
        if not await self._core.files(lambda: self._core.home.blobs.drop(upload)):
            raise no_upload(upload)
        return Removed(status="dropped", id=upload)

    async def finish(self, call: Call) -> Stood:
        """POST /sync/uploads/{upload_id}/finish; again, it answers the same."""
        core, upload = self._core, call.path["upload_id"]
        agent, given = files.checked(call.body, call.principal)
        files.check_own(call.principal, upload)
        wanted, file_id = files.digest_of(given.sha256), files.PREFIX + upload
        try:
            # A part of it may have been in no cache when the power went: what counts is what is read back.
            digest, size = await core.files(lambda: core.home.blobs.complete(upload, expect=wanted))
        except NotFound:
            done = await core.read(lambda: _done(core, file_id))
            if done is None or done.digest != given.sha256 or done.agent_id != agent:
                raise
            return Stood(status="stored", file_id=file_id, name=done.name, size=done.size, digest=done.digest)
        return await files.keep(core, agent, given, file_id, digest, size)


class PostFile:
    """POST /sync/files: multipart/form-data with the part `file` and fields before or behind it → 200 `Stood`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        core, principal = self._core, principal_of(scope)
        _NO_QUERY.read(Query(scope))
        principal.check_write(None, files.FILES)  # before anything is taken in
        form = Form(core, scope)
        try:
            agent, given = files.checked(await form.take(receive), principal)
            digest, size = await form.complete(files.digest_of(given.sha256))
        except BaseException:
            await form.drop()
            raise
        done = await files.keep(core, agent, given, f"{files.PREFIX}{form.upload}", digest, size)
        await answer(send, encode_json(done))


class Extend:
    """PATCH /sync/uploads/{upload_id}: the body goes behind the bytes that are there, at `Upload-Offset`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        core, blobs = self._core, self._core.home.blobs
        _NO_QUERY.read(Query(scope))
        upload = scope["path_params"]["upload_id"]
        files.check_own(principal_of(scope), upload)
        given, length = header(scope, _OFFSET), header(scope, b"content-length")
        if not given.isdigit() or len(given) > 18:
            raise UsageError(
                f"the header Upload-Offset must say where the bytes go, got {given.decode('latin-1')!r:.80}",
                hint="what GET on this upload answers",
            )
        plain(scope)
        at, size = int(given), int(length) if length.isdigit() else 0
        if at + size > BLOB_BYTES_MAX:
            raise too_large(at + size, BLOB_BYTES_MAX)
        room_for(core, size)
        # Nothing is taken in vain: whoever is mistaken about the offset learns it before his bytes are read.
        await core.files(lambda: blobs.extend(upload, at, b""))
        waiting = bytearray()

        async def write() -> None:
            nonlocal at
            data, start = bytes(waiting), at
            waiting.clear()
            if data:
                at = await core.files(lambda: blobs.extend(upload, start, data))

        try:
            async for data in arriving(receive):
                waiting += data
                if len(waiting) >= PIECE_BYTES:
                    await write()
        except Gone:
            await write()  # what came before the client left stays
            raise
        await write()
        await answer(send, encode_json(Upload(upload_id=upload, offset=at)), extra=[(_OFFSET, b"%d" % at)])


class Download:
    """GET and HEAD /sync/files/{file_id}: the bytes, or one range of them; to be saved, never to be shown in place."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        core, blobs = self._core, self._core.home.blobs
        principal_of(scope).check_read(files.FILES)
        _NO_QUERY.read(Query(scope))
        file_id = scope["path_params"]["file_id"]
        found = files.info(await core.read(lambda: files.find(core, file_id)))
        digest = bytes.fromhex(found.digest)
        try:
            size = await core.files(lambda: blobs.size(digest))
        except NotFound as error:
            raise NotCached(f"the bytes of {file_id} are not here", hint="ask again", digest=found.digest) from error
        etag = b'"%s"' % found.digest.encode()
        headers = [
            (b"etag", etag),
            (b"accept-ranges", b"bytes"),
            (b"content-disposition", files.disposition(found.name).encode("ascii")),
            (b"content-security-policy", b"default-src 'none'; sandbox"),
        ]
        asked = header(scope, b"range").decode("latin-1")
        if header(scope, b"if-range") not in (b"", etag):
            asked = ""  # a range of another file: he gets this one whole
        first, last = range_of(asked, size)
        if _names(header(scope, b"if-none-match"), etag):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers += part_header(asked, first, last, size)
        headers.append((b"content-type", files.served_as(found.media_type).encode()))
        headers.append((b"content-length", b"%d" % (last - first + 1)))
        start = {"type": "http.response.start", "status": 206 if asked else 200, "headers": headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body", "body": b""})
        elif asked:
            await send(start)
            await send_range(core, send, digest, first, last)
        else:
            await self._whole(digest, start, send)

    async def _whole(self, digest: bytes, start: Any, send: Send) -> None:
        """Sends all of it; if it rotted, the end never comes."""
        core = self._core
        with await core.files(lambda: core.home.blobs.open(digest)) as reader:
            part = await core.files(lambda: reader.read(PIECE_BYTES))
            await send(start)
            while part:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                part = await core.files(lambda: reader.read(PIECE_BYTES))
        await send({"type": "http.response.body", "body": b""})


def _done(core: Core, file_id: str) -> FileInfo | None:
    try:
        return files.info(files.find(core, file_id))
    except (NotFound, BlobCorrupt):
        return None


def _names(header_value: bytes, etag: bytes) -> bool:
    """Whether an If-None-Match holds this etag."""
    given = [each.strip().removeprefix(b"W/") for each in header_value.split(b",")]
    return etag in given or b"*" in given
