"""Blobs: what is kept beside the records because it is large, who names it, where it lies, and whether it is sound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from holdfast import clock, codec
from holdfast.clock import iso
from holdfast.collections import sessions as parts
from holdfast.collections.sessions import ARTIFACT, CONTENT, key_of
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.hub.files import BYTES, FILES
from holdfast.hub.pieces import PIECE_BYTES
from holdfast.hub.ui.blob_use import BlobUse, Use, reference_of
from holdfast.hub.ui.pages import ROWS, ArtifactsAt
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.hub.ui.rows import readable
from holdfast.log.marks import SESSIONS
from holdfast.records import SEALED

OCTETS: Final = "application/octet-stream"
SANDBOX: Final = "default-src 'none'; sandbox"
NAME_MAX: Final = 120


class ArtifactRow(msgspec.Struct):
    """A blob, and the newest record that names it; `here` is null where to ask would mean to ask another machine."""

    digest: str
    size: int
    name: str
    type: str
    references: int
    agent: str
    collection: str
    key: str
    time: str
    here: bool | None


class ArtifactsPage(msgspec.Struct):
    """Blobs, the newest named first; `next` goes into `after`. `counted` is the part of all records looked at."""

    artifacts: list[ArtifactRow]
    next: str | None
    counted: float
    left_out: int
    total_size: int
    stored: str


class Reference(msgspec.Struct):
    """A record that names a blob; `current`: it is the value of its key now."""

    agent: str
    collection: str
    key: str
    version: int
    time: str
    current: bool


class Verified(msgspec.Struct):
    """What came of reading a blob, and when."""

    sound: bool
    at: str


class ArtifactPage(msgspec.Struct):
    """One blob: the newest records that name it, of `references` in all."""

    artifact: ArtifactRow
    stored: str
    references: list[Reference]
    verified: Verified | None


async def artifacts(ask: Ask) -> View:
    """GET /artifacts: the blobs that records name."""
    asked: ArtifactsAt = ask.query
    if asked.after and not asked.after.isdigit():
        raise UsageError(f"not a place in the list: {asked.after!r:.80}", hint="begin at /artifacts")
    use = await _use(ask)
    most, below = ROWS * ask.scale, int(asked.after) if asked.after else 1 << 62
    found: list[tuple[bytes, Use]] = []
    size = 0
    for digest in reversed(use.found):
        each = use.found[digest]
        if not _may_know(ask, each):
            continue
        size += each.size
        if len(found) <= most and each.places[-1] < below:
            found.append((digest, each))
    here = await _here(ask, [digest for digest, _ in found[:most]])
    rows = await ask.core.read(lambda: [_row(ask, digest, each, here.get(digest)) for digest, each in found[:most]])
    following = str(found[most - 1][1].places[-1]) if len(found) > most else None
    page = ArtifactsPage(rows, following, round(use.done, 3), use.left_out, size, _stored(ask))
    return View(template="artifacts.html", title="Artifacts", data=page, rows="artifacts")


async def artifact(ask: Ask) -> View:
    """GET /artifacts/{digest}: one of them; /artifacts/{digest}/content: its bytes, to be kept and not to be run."""
    if len(ask.parts) == 2 and ask.parts[1] == "content":
        return await _content(ask, ask.parts[0])
    if len(ask.parts) != 1:
        raise no_page(ask.scope["path"])
    return await _one(ask, ask.parts[0], None)


async def verify(ask: Ask) -> View:
    """POST /artifacts/verify: reads a blob whole, and says whether its bytes have its digest."""
    text = ask.form.get("digest", "")
    digest, _ = await _known(ask, text)
    sound = await ask.core.files(lambda: ask.core.home.blobs.verify(digest))
    return await _one(ask, text, Verified(sound, iso(ask.core.home.wall.now_ms())))


async def _one(ask: Ask, text: str, verified: Verified | None) -> View:
    digest, use = await _known(ask, text)
    core = ask.core
    here = await core.files(lambda: bool(core.home.blobs.has(digest)))

    def look() -> ArtifactPage:
        references = []
        for pos in reversed(use.places):
            stored = core.corpus.at(pos)
            named = reference_of(stored)
            if stored is None or named is None or named[0] != digest:
                continue  # erased, evicted or pruned since
            record = stored.record
            if not ask.principal.may_read(record.collection):
                continue
            newest = core.corpus.newest(stored.agent, record.collection, record.key)
            references.append(
                Reference(
                    agent=stored.agent,
                    collection=record.collection,
                    key=record.key,
                    version=record.key_version,
                    time=clock.to_iso(record.hlc),
                    current=newest is not None and newest.pos == pos,
                )
            )
        return ArtifactPage(_row(ask, digest, use, here), _stored(ask), references, verified)

    data = await core.read(look)
    return View(template="artifact.html", title=data.artifact.name or text[:16], data=data)


async def _content(ask: Ask, text: str) -> View:
    digest, use = await _known(ask, text)
    core = ask.core
    if not await core.files(lambda: bool(core.home.blobs.has(digest))):
        raise NotFound(f"the bytes of {text} are not here", hint="the node that wrote them may still have them")
    size = await core.files(lambda: int(core.home.blobs.size(digest)))
    row = await core.read(lambda: _row(ask, digest, use, True))
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in row.name)[:NAME_MAX].strip(".")
    headers = (
        ("content-disposition", f'attachment; filename="{name or text}"'),
        ("content-length", str(size)),
        ("content-security-policy", SANDBOX),
        ("etag", f'"{text}"'),
    )
    return View(kind=OCTETS, headers=headers, pieces=_pieces(core, digest, size))


async def _pieces(core: Any, digest: bytes, size: int) -> AsyncIterator[bytes]:
    blobs = core.home.blobs
    for at in range(0, size, PIECE_BYTES):
        # Whoever keeps them proves the whole by its name; each byte is read once.
        length = min(PIECE_BYTES, size - at)
        part = await core.files(lambda at=at, length=length: blobs.read(digest, at, length, verify=False))
        if len(part) != length:
            raise NotFound(f"the blob {digest.hex()} is shorter than it was")
        yield part


async def _use(ask: Ask) -> BlobUse:
    use: BlobUse = ask.front.blob_use()
    await use.look()
    return use


async def _known(ask: Ask, text: str) -> tuple[bytes, Use]:
    """The blob that a path names, if whoever asks may know of it.

    Raises:
        NotFound: nothing names it, as far as he may know.
    """
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    use = await _use(ask)
    found = use.found.get(digest)
    if found is None or text != digest.hex() or not _may_know(ask, found):
        more = "; not all records were looked at yet, so try again" if use.done < 1 else ""
        raise NotFound(f"no record names a blob {text!r:.80}", hint=f"Artifacts shows those that there are{more}")
    return digest, found


def _may_know(ask: Ask, use: Use) -> bool:
    principal = ask.principal
    return principal.reads_everything or any(principal.may_read(each) for each in use.collections)


async def _here(ask: Ask, digests: list[bytes]) -> dict[bytes, bool]:
    """Which of these are on this hub's disk; nothing is said of an object store, which is another machine's."""
    core = ask.core
    if core.options.blobs:
        return {}
    return await core.files(lambda: {digest: bool(core.home.blobs.has(digest)) for digest in digests})


def _stored(ask: Ask) -> str:
    if ask.core.options.blobs:
        return "an object store, in front of which the newest lie on this hub's disk"
    return "the database" if ask.core.options.database else "this hub's disk"


def _row(ask: Ask, digest: bytes, use: Use, here: bool | None) -> ArtifactRow:
    """A blob by the newest record that names it and may be read; reads the corpus, so for threads."""
    core, stored = ask.core, None
    references = use.references
    for pos in reversed(use.places):
        found = core.corpus.at(pos)
        if found is not None and ask.principal.may_read(found.record.collection):
            stored = found
            break
    if not ask.principal.reads_everything:  # how often others name it is none of his business
        references = 0
    if stored is None:
        return ArtifactRow(digest.hex(), use.size, "", "", references, "", "", "", "", here)
    record = stored.record
    name, kind = _named(core, stored)
    return ArtifactRow(
        digest=digest.hex(),
        size=use.size,
        name=name[:NAME_MAX],
        type=kind[:NAME_MAX],
        references=references,
        agent=stored.agent,
        collection=record.collection,
        key=record.key,
        time=clock.to_iso(record.hlc),
        here=here,
    )


def _named(core: Any, stored: Stored) -> tuple[str, str]:
    """What the bytes are called where they were uploaded, and of what type they are said to be."""
    record = stored.record
    if record.flags & SEALED:
        return "", "sealed"
    if record.collection == SESSIONS and record.kind == CONTENT:
        session, artifact = parts.session_of(record.key), parts.id_of(record.key)
        about = core.corpus.newest(stored.agent, SESSIONS, key_of(session, ARTIFACT, artifact))
        try:
            body = parts.body_of(about, core.home.blobs) if about is not None else None
        except HoldfastError:
            body = None
        return (body.name, body.type) if isinstance(body, parts.ArtifactBody) else (artifact, "artifact")
    if record.collection == FILES and record.key.endswith(BYTES):
        about = core.corpus.newest(stored.agent, FILES, record.key.removesuffix(BYTES))
        said = readable(core, about) if about is not None else None
        if isinstance(said, dict):
            name, kind = said.get("name"), said.get("media_type")
            return name if isinstance(name, str) else "", kind if isinstance(kind, str) else "file"
    return record.key, "JSON value" if record.fmt == codec.FMT_JSON else "bytes"
