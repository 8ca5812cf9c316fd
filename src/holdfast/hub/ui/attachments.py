"""What goes with a message: files, artifacts and blobs, and its own record; each to be saved, never shown in place.

The bytes come through the API's own endpoints, behind the same rights: a message that names a file opens it to nobody.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.collections.messages import ATTACHED
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, NotFound
from holdfast.hub import files
from holdfast.hub.exchange import Receive, Scope, Send
from holdfast.hub.principal import READ
from holdfast.hub.routes_artifacts import ArtifactWork, Content
from holdfast.hub.routes_files import Download
from holdfast.hub.routes_node import Blobs
from holdfast.hub.sessions import Sessions
from holdfast.hub.ui.letters import letter_url
from holdfast.hub.ui.routes import Ask, View
from holdfast.records import SEALED, read_blob_reference

ATTACHMENTS_MAX: Final = 20
_FILE: Final = re.compile(r"file_[0-9a-f]{32}")
_DIGEST: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_ARTIFACT: Final = re.compile(r"artifact_[A-Za-z0-9_.-]{1,100}")
_SANDBOX: Final = (b"content-security-policy", b"default-src 'none'; sandbox")


class Attachment(msgspec.Struct):
    """What a message names.

    Attributes:
        kind: file, artifact, blob; named: only its name is known.
        id: by which it is found here.
        name: what it is called.
        size: in bytes; None: not known.
        url: where it is saved from; empty: nowhere.
        says: why not.
    """

    kind: str
    id: str
    name: str
    size: int | None = None
    url: str = ""
    says: str = ""


def named_by(content: Any, extra: dict[str, Any]) -> list[Attachment]:
    """What a message names, beside what it says or in it, each once; where it lies was not looked at yet."""
    found: dict[tuple[str, str], Attachment] = {}
    for place in (extra, content):
        for field in ATTACHED if isinstance(place, dict) else ():
            given = place.get(field)
            for each in given if isinstance(given, list) else (given,):
                one = _one(each)
                if one is not None and len(found) < ATTACHMENTS_MAX:
                    found.setdefault((one.kind, one.id), one)
    return list(found.values())


def _one(given: Any) -> Attachment | None:
    name = ""
    if isinstance(given, dict):
        name = given["name"] if isinstance(given.get("name"), str) else ""
        ids = (given.get(field) for field in ("file_id", "artifact_id", "id", "digest", "sha256"))
        given = next((each for each in ids if isinstance(each, str) and each), name)
    if not isinstance(given, str) or not given:
        return None
    if _FILE.fullmatch(given):
        return Attachment("file", given, name or given)
    if digest := _DIGEST.fullmatch(given):
        return Attachment("blob", digest[1], name or f"{digest[1][:16]}…")
    if _ARTIFACT.fullmatch(given):
        return Attachment("artifact", given, name or given)
    return Attachment("named", given[:1_000], name or given[:1_000], says="only its name is known here")


async def looked_up(ask: Ask, msg: str, sender: str, found: list[Attachment]) -> list[Attachment]:
    """The same with where each is saved from, as far as whoever asks may."""
    for number, each in enumerate(found):
        if each.kind == "named":
            continue
        try:
            await _look_up(ask, each)
        except HoldfastError as error:
            each.says = error.message
        else:
            each.url = each.url or letter_url(msg, "artifacts", str(number), sender=sender)
    return found


async def _look_up(ask: Ask, each: Attachment) -> None:
    core = ask.core
    ask.principal.need(READ)  # who may act on his inbox alone reads nothing beside it
    if each.kind == "file":
        ask.principal.check_read(files.FILES)
        known = files.info(await core.read(lambda: files.find(core, each.id)))
        each.name, each.size = known.name, known.size
    elif each.kind == "artifact":
        sessions = Sessions(core)
        agent, session = await sessions.artifact(ask.principal, each.id)
        artifact = await core.read(lambda: ArtifactWork(sessions).shown(agent, session, each.id))
        each.name, each.size = artifact.name, artifact.size
        if artifact.digest is None:
            raise NotFound(f"its bytes were not uploaded; they are said to be at {artifact.path!r:.200}")
    else:
        digest = bytes.fromhex(each.id)
        if not await core.files(lambda: core.home.blobs.has(digest)):
            raise NotFound("it is not here")
        each.size = await core.files(lambda: core.home.blobs.size(digest))


async def attachment(ask: Ask, content: Any, extra: dict[str, Any], number: str) -> View:
    """GET /messages/{id}/artifacts/{number}: its bytes, by the API's own endpoint.

    Raises:
        NotFound: the message names nothing under this number, or nothing that is here.
    """
    found = named_by(content, extra)
    if not number.isdecimal() or len(number) > 3 or int(number) >= len(found) or found[int(number)].kind == "named":
        raise NotFound(f"the message has no artifact {number!r:.40}", hint="its page lists them")
    ask.principal.need(READ)
    each = found[int(number)]
    if each.kind == "file":
        return _sent(Download(ask.core), {"file_id": each.id}, each.name)
    if each.kind == "artifact":
        return _sent(Content(Sessions(ask.core)), {"id": each.id}, each.name)
    return _sent(Blobs(ask.core), {"digest": each.id}, each.name)


def record(ask: Ask, stored: Stored) -> View:
    """GET /messages/{id}/raw: the value of a message's record, byte for byte as it is covered by its hash."""
    name = f"{stored.record.key}.json" if stored.record.fmt == codec.FMT_JSON else stored.record.key
    if stored.is_blob and not stored.record.flags & SEALED:
        digest, _ = read_blob_reference(stored.payload())
        return _sent(Blobs(ask.core), {"digest": digest.hex()}, name)
    disposition = files.disposition(_file_name(name))
    headers = (("content-disposition", disposition), ("content-security-policy", _SANDBOX[1].decode()))
    return View(data=stored.payload(), kind=files.OCTETS, headers=headers)


def _file_name(name: str) -> str:
    """A name that a browser may save under."""
    return re.sub(r"[\\/\x00-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "_", name)[:200]


def _sent(endpoint: Any, where: dict[str, str], name: str) -> View:
    """What one of the API's endpoints sends, with what keeps a browser from showing it in place."""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                have = {header for header, _ in message["headers"]}
                more = [
                    (b"content-disposition", files.disposition(_file_name(name)).encode("ascii")),
                    (b"cache-control", b"no-store"),
                    _SANDBOX,
                ]
                message["headers"] = [*message["headers"], *(each for each in more if each[0] not in have)]
            await send(message)

        await endpoint({**scope, "path_params": where, "query_string": b""}, receive, marked)

    return View(stream=stream)
