"""Artifacts over HTTP: what a session made, where it lies, and its bytes, uploaded in parts and read by range."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
from msgspec import Meta

from holdfast.collections import sessions as parts
from holdfast.collections.sessions import ARTIFACT, CONTENT, Artifact, key_of
from holdfast.corpus import Stored
from holdfast.errors import Conflict, NotFound, UsageError
from holdfast.hub import storage_shapes as shapes
from holdfast.hub.api import Call, Operation, Reply, parameters_of
from holdfast.hub.exchange import Gone, Query, Receive, Scope, Send, answer, answer_json, header
from holdfast.hub.own import Desk
from holdfast.hub.pieces import part_header, range_of, room_for, send_range, take
from holdfast.hub.principal import principal_of
from holdfast.hub.routes_node import Part, Span
from holdfast.hub.routes_sessions import UNLESS, declare, next_page
from holdfast.hub.sessions import Sessions, author_of, no_artifact
from holdfast.hub.versions import etags
from holdfast.log import drafts
from holdfast.log.marks import SESSIONS
from holdfast.records import BLOB_BYTES_MAX, blob_reference

PATH: Final = "/storage/artifacts"
BYTES: Final = "application/octet-stream"
_PART = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_ASK = re.compile(r"bytes \*/(\d{1,18})")


class Upload(msgspec.Struct, frozen=True):
    """What the bytes must have as their SHA-256, if the sender knows it."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="of all bytes, in hex")] | None = None


class UploadBegun(msgspec.Struct):
    """An upload of which a part is here: where it goes on."""

    id: str
    offset: int


def operations(sessions: Sessions) -> Iterator[Operation]:
    """Everything about artifacts."""
    work, content = ArtifactWork(sessions), Content(sessions)
    yield declare(
        *("POST", "artifacts", "Note an artifact of a session", work.create),
        body=shapes.NewArtifact,
        answer=Artifact,
        status=201,
        also={200: Artifact},
        errors=(404, 409),
    )
    yield declare(
        *("GET", "artifacts", "The artifacts of a session", work.find),
        query=shapes.ArtifactsAsked,
        answer=list[Artifact],
        errors=(404,),
    )
    yield declare("GET", "artifacts/{id}", "One artifact", work.read, answer=Artifact, errors=(404,))
    yield declare("DELETE", "artifacts/{id}", "Delete an artifact", work.delete, answer=shapes.Deleted, errors=(404,))
    yield declare(
        *("GET", "artifacts/{id}/content", "An artifact's bytes", content),
        bare=True,
        headers={"Range": Span, **UNLESS},
        answer=bytes,
        gives=BYTES,
        also={206: bytes, 304: None},
        errors=(404, 416),
    )
    yield declare(
        *("PUT", "artifacts/{id}/content", "Upload an artifact's bytes, or a part of them", content),
        bare=True,
        query=Upload,
        headers={"Content-Range": Part},
        body=bytes,
        takes=("*/*",),
        answer=Artifact,
        also={202: UploadBegun},
        errors=(404, 409, 422),
    )


class ArtifactWork:
    """What each operation does.

    Args:
        sessions: of this hub.
    """

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._core = sessions.core

    async def create(self, call: Call) -> Reply:
        """Notes an artifact. With an `id` that a client gives, a repeat of the request answers 200 and adds nothing."""
        asked: shapes.NewArtifact = call.body
        session = asked.session_id
        agent = await self._sessions.writable(call.principal, session)
        artifact = asked.id or parts.made_id("artifact")
        body = parts.ArtifactBody(
            name=asked.name,
            type=asked.type,
            path=asked.path,
            size=asked.size,
            created_at=self._sessions.now(),
            metadata=asked.metadata or {},
        )
        key = key_of(session, ARTIFACT, artifact)
        ready = await self._sessions.ready(
            agent, parts.draft(ARTIFACT, key, body, author=author_of(call.principal, agent))
        )

        def work(desk: Desk) -> tuple[Stored, bool]:
            before = desk.first("ref", artifact) if asked.id else None
            if before is None:
                return desk.append(ready), True
            current = desk.newest(SESSIONS, key)
            if current is None or before.agent != agent or before.record.key != key:
                raise Conflict(f"the id {artifact} is another artifact's", hint="an id names one artifact, for ever")
            if current.is_blob:
                desk.open_files()
            return current, False

        stored, made = await self._sessions.write(call.principal, session, work, call.size)
        if not made:
            known = await self._core.read(lambda: parts.body_of(stored, self._core.home.blobs))
            body.created_at = known.created_at if known is not None else ""
            if known != body:
                raise Conflict(f"the id {artifact} is another artifact's", hint="an id names one artifact, for ever")
        return Reply(await self._core.read(lambda: self.shown(agent, session, artifact)), status=201 if made else 200)

    async def find(self, call: Call) -> Reply:
        """The artifacts of a session by their ids; the next page's cursor is in `X-Next-Cursor` and `Link`."""
        asked: shapes.ArtifactsAsked = call.query
        session = asked.session_id
        agent = await self._sessions.readable(call.principal, session)

        def look() -> tuple[list[Artifact], str]:
            self._sessions.root(agent, session)
            out: list[Artifact] = []
            skip = asked.offset
            for about, content in self._sessions.artifacts(agent, session, asked.after or ""):
                if len(out) == asked.limit:
                    return out, out[-1].id
                found = parts.artifact_in(about, parts.reference_in(content), self._core.home.blobs)
                if found is None or asked.type not in (None, found.type):
                    continue
                if skip:
                    skip -= 1
                    continue
                out.append(found)
            return out, ""

        found, following = await self._core.read(look)
        return Reply(found, headers=next_page(PATH, asked, following))

    async def read(self, call: Call) -> Artifact:
        """One artifact: where it lies, and the digest and size of its bytes if they were uploaded."""
        agent, session = await self._sessions.artifact(call.principal, call.path["id"])
        return await self._core.read(lambda: self.shown(agent, session, call.path["id"]))

    async def delete(self, call: Call) -> shapes.Deleted:
        """Deletes an artifact; its history stays, and its bytes with it."""
        artifact = call.path["id"]
        _, session = await self._sessions.artifact(call.principal, artifact, write=True)

        def work(desk: Desk) -> None:
            if desk.newest(SESSIONS, key_of(session, ARTIFACT, artifact)) is None:
                raise no_artifact(artifact)
            author = author_of(call.principal, desk.agent)
            prefix = f"{session}/artifact/{artifact}/"
            self._sessions.change(desk, drafts.remove(SESSIONS, prefix, prefix=True, author=author))

        await self._sessions.write(call.principal, session, work)
        return shapes.Deleted(status="deleted", id=artifact)

    def shown(self, agent: str, session: str, artifact: str) -> Artifact:
        """An artifact as everybody sees it, read from the corpus.

        Raises:
            NotFound: it was deleted.
        """
        corpus = self._core.corpus
        about = corpus.newest(agent, SESSIONS, key_of(session, ARTIFACT, artifact))
        content = corpus.newest(agent, SESSIONS, key_of(session, CONTENT, artifact)) if about is not None else None
        found = parts.artifact_in(about, parts.reference_in(content), self._core.home.blobs) if about else None
        if found is None:
            raise no_artifact(artifact)
        return found


class Content:
    """GET (with Range) and PUT (whole, or in parts by Content-Range) of /storage/artifacts/{id}/content."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._core = sessions.core
        self._work = ArtifactWork(sessions)
        self._parameters = parameters_of(Upload)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        artifact, write = scope["path_params"]["id"], scope["method"] == "PUT"
        agent, session = await self._sessions.artifact(principal_of(scope), artifact, write=write)
        shown = await self._core.read(lambda: self._work.shown(agent, session, artifact))
        if write:
            await self._put(shown, scope, receive, send)
        else:
            await self._get(shown, scope, send)

    async def _get(self, shown: Artifact, scope: Scope, send: Send) -> None:
        if shown.digest is None:
            raise NotFound(
                f"the bytes of {shown.id} were not uploaded", hint=f"they are said to be at {shown.path!r:.200}"
            )
        blobs, digest = self._core.home.blobs, bytes.fromhex(shown.digest)
        etag = f'"{shown.digest}"'
        extra = [
            (b"etag", etag.encode()),
            (b"accept-ranges", b"bytes"),
            (b"content-security-policy", b"default-src 'none'; sandbox"),
            (b"content-disposition", f"attachment; filename*=UTF-8''{quote(shown.name, safe='')}".encode()),
        ]
        size = await self._core.files(lambda: blobs.size(digest))
        asked = header(scope, b"range").decode("latin-1")
        if header(scope, b"if-range").decode("latin-1") not in ("", etag):
            asked = ""  # a range of other bytes: he gets these whole
        first, last = range_of(asked, size)
        if {shown.digest, "*"}.intersection(etags(header(scope, b"if-none-match").decode("latin-1"))):
            await answer(send, b"", status=304, extra=extra)
            return
        extra += part_header(asked, first, last, size)
        length = b"%d" % (last - first + 1)
        headers = [(b"content-type", BYTES.encode()), (b"content-length", length), *extra]
        await send({"type": "http.response.start", "status": 206 if asked else 200, "headers": headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
        else:
            await send_range(self._core, send, digest, first, last)

    async def _put(self, shown: Artifact, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = self._parameters.read(Query(scope)).sha256
        blobs = self._core.home.blobs
        offset, total = _part(header(scope, b"content-range").decode("latin-1"))
        length = header(scope, b"content-length")
        size = total if total is not None else int(length) if length.isdigit() and len(length) < 19 else 0
        self._admit(size)
        # Parts are known by what they belong to; a whole upload is nobody else's, and begins where it begins.
        name = bytes.fromhex(wanted) if wanted else os.urandom(32)
        if not wanted and total is not None:
            name = hashlib.sha256(f"{shown.session_id}/{shown.id}/{total}".encode()).digest()
        at = await self._core.files(lambda: blobs.resume(name))
        if wanted and not await self._core.files(lambda: blobs.missing([name])):
            at = size = await self._core.files(lambda: blobs.size(name))
            await _drain(receive)
        elif offset is None and total is not None:  # only asks where it stands
            await _drain(receive)
            await answer_json(send, UploadBegun(shown.id, at), status=202)
            return
        else:
            if offset is not None and offset != at:
                raise Conflict(f"the upload stands at {at}, not at {offset}", hint="go on from there", offset=at)
            at = await take(self._core, name, at, at if offset is None else 0, receive, most=total)
        if total is not None and at < total:
            await answer_json(send, UploadBegun(shown.id, at), status=202)
            return
        if not at:  # no byte came: an empty file is one, too
            await self._core.files(lambda: blobs.append(name, 0, b""))
        if wanted:
            digest, size = name, await self._core.files(lambda: blobs.finish(name))
        else:
            digest, size = await self._core.files(lambda: blobs.finish_found(name))
        await answer_json(send, await self._note(shown, digest, size, scope))

    def _admit(self, size: int) -> None:
        if size > BLOB_BYTES_MAX:
            error = UsageError(f"{size} bytes, the most is {BLOB_BYTES_MAX}", hint="in several artifacts")
            error.status = 413
            raise error
        room_for(self._core, size)

    async def _note(self, shown: Artifact, digest: bytes, size: int, scope: Scope) -> Artifact:
        """Writes which bytes the artifact has; they are safe already."""
        principal = principal_of(scope)
        agent = await self._sessions.agent_of(shown.session_id)
        reference = blob_reference(digest, size)
        draft = parts.reference(shown.session_id, shown.id, reference, author=author_of(principal, agent))

        def work(desk: Desk) -> None:
            if desk.newest(SESSIONS, key_of(shown.session_id, ARTIFACT, shown.id)) is None:
                raise no_artifact(shown.id)
            current = desk.newest(SESSIONS, draft.key)
            if parts.reference_in(current) != (digest, size):
                self._core.own.check_blob(desk, digest)
                self._sessions.change(desk, draft)

        await self._sessions.write(principal, shown.session_id, work)
        return await self._core.read(lambda: self._work.shown(agent, shown.session_id, shown.id))


async def _drain(receive: Receive) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        more = message.get("more_body", False)


def _part(text: str) -> tuple[int | None, int | None]:
    """Where a part begins and how long the whole is; None where it was not said."""
    if not text:
        return None, None
    if asked := _ASK.fullmatch(text.strip()):
        return None, int(asked[1])
    found = _PART.fullmatch(text.strip())
    if not found:
        raise UsageError(f"cannot read the content range {text!r:.80}", hint="such as bytes 0-1023/4096")
    first, last, total = map(int, found.groups())
    if not first <= last < total:
        raise UsageError(f"not a part of anything: {text!r:.80}", hint="such as bytes 0-1023/4096")
    return first, total
