"""Files as the hub keeps them: a record with what is known of the file, beside it one that refers to its bytes.

A file is the key ``file_<id>`` of the collection `files` in the hub's own stream of its agent; its bytes are a blob,
named by its digest and stored once however often it comes. The record ``file_<id>/bytes`` refers to that blob as every
large value does, so whatever carries, backs up or checks blobs knows of it. Both are written in one transaction, when
the blob would survive a power cut.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from holdfast import clock, codec
from holdfast.collections.files import FileInfo, Stood
from holdfast.corpus import Filter, Stored, pages
from holdfast.corpus.sqlite import TAGS
from holdfast.errors import Conflict, HoldfastError, NotFound, UsageError
from holdfast.hub.core import Core
from holdfast.hub.own import Desk, check_agent
from holdfast.hub.principal import ADMIN, Principal
from holdfast.hub.routes_sync import sender_of
from holdfast.log import Draft, drafts, load
from holdfast.objects.blobs.reading import no_upload
from holdfast.records import BLOB, NAME_BYTES_MAX, PUT, VALUE, blob_reference, check_names

FILES: Final = "files"
PREFIX: Final = "file_"
BYTES: Final = "/bytes"
NAME_MAX: Final = 255
METADATA_BYTES_MAX: Final = 32 << 10
LOOKED_AT_MAX: Final = 50_000
OCTETS: Final = "application/octet-stream"
SAFE: Final = frozenset(
    f"{group}/{name}"
    for group, names in {
        "application": "gzip json pdf x-ndjson x-tar zip zstd",
        "audio": "aac flac mp4 mpeg ogg wav webm",
        "image": "avif bmp gif jpeg png webp",
        "text": "csv markdown plain",
        "video": "mp4 mpeg ogg webm",
    }.items()
    for name in names.split()
)
"""The media types that a file is served as; any other goes out as bytes. None of them runs a script in a browser."""
SERVED: Final = frozenset(f"{each}; charset=utf-8" if each.startswith("text/") else each for each in SAFE)
_UNSEEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING: Final = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class NewFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a client says of a file.

    Attributes:
        agent_id: whose it is; if not said, that of the agent who shows its token, and without one, anonymous.
        name: what it is called: metadata, and never a path here.
        media_type: what it is; application/octet-stream if not said.
        task_id: what it belongs to.
        metadata: whatever else is to be known of it.
        sha256: its digest in hex, if the client knows it: other bytes are then refused.
        msg_id: names this upload for ever: sent again, it is the same file.
    """

    agent_id: str | UnsetType = UNSET
    name: str = "unnamed"
    media_type: str = OCTETS
    task_id: str | None = None
    metadata: dict[str, Any] = {}
    sha256: str | None = None
    msg_id: str | None = None


def checked(given: NewFile, principal: Principal) -> tuple[str, NewFile]:
    """Whose file it is, and the same with its name in its one form.

    Raises:
        Denied: whoever asks may write no such file in that agent's name.
        UsageError: with the field that is wrong.
    """
    agent = sender_of(principal) if given.agent_id is UNSET else check_agent(given.agent_id, hub=False)
    principal.check_write(agent, FILES)
    kind = given.media_type.strip().lower() or OCTETS
    if len(kind) > NAME_MAX or not kind.isascii() or not kind.isprintable() or kind.count("/") < 1:
        raise UsageError(f"media_type must be a media type, got {kind!r:.80}", hint="such as application/pdf")
    for what, text in (("task_id", given.task_id), ("msg_id", given.msg_id)):
        if text is not None and not 0 < len(text.encode(errors="replace")) <= NAME_BYTES_MAX - 32:
            raise UsageError(f"{what} must be text of 1 to {NAME_BYTES_MAX - 32} bytes", hint="or leave it out")
    if given.msg_id:
        check_names(PUT, "", given.msg_id)
    digest_of(given.sha256)
    if len(codec.serialise(given.metadata)[1]) > METADATA_BYTES_MAX:
        raise UsageError(f"metadata has at most {METADATA_BYTES_MAX} bytes of JSON", hint="put the rest into a file")
    return agent, msgspec.structs.replace(given, name=safe_name(given.name), media_type=kind)


def upload_name(principal: Principal, nonce: bytes) -> bytes:
    """What an upload is called that begins with this nonce: 10 random bytes, and 6 by which its owner is known."""
    return nonce + hashlib.sha256(nonce + str(principal).encode()).digest()[:6]


def check_own(principal: Principal, upload: str) -> None:
    """Returns only if it may be an upload that this principal began; only that one goes on with it.

    Raises:
        Denied: it may write no files.
        NotFound: it is another's, and to this one as if it were not there.
    """
    principal.check_write(None, FILES)
    if not principal.may(ADMIN):
        try:
            given = bytes.fromhex(upload)
        except ValueError:
            given = b""
        if len(given) != 16 or not hmac.compare_digest(given, upload_name(principal, given[:10])):
            raise no_upload(upload)


def safe_name(name: str) -> str:
    """A client's name for a file, in Unicode's form C.

    Raises:
        UsageError: it is empty or too long, is or holds a path, or holds what cannot be seen.
    """
    found = unicodedata.normalize("NFC", name).strip()
    hint = "a file's name, without its path, of at most 255 bytes"
    if found in ("", ".", "..") or "/" in found or "\\" in found:
        raise UsageError(f"a file cannot be called {name!r:.80}", hint=hint)
    if any(unicodedata.category(sign) in _UNSEEN or sign in _TURNING for sign in found):
        raise UsageError(f"the name {name!r:.80} holds characters that cannot be seen", hint=hint)
    if len(found.encode()) > NAME_MAX:
        raise UsageError(f"the name {name!r:.80} has {len(found.encode())} bytes", hint=hint)
    return found


def digest_of(text: str | None) -> bytes | None:
    """A SHA-256 in hex as bytes; None for None.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32 or len(text) != 64:
        raise UsageError(f"sha256 must be 64 hex digits, got {text!r:.80}", hint="as sha256sum prints it")
    return found


async def keep(core: Core, agent: str, given: NewFile, file_id: str, digest: bytes, size: int) -> Stood:
    """Writes down a file whose bytes are stored; answered when the record, too, would survive a power cut."""
    log = await core.own.log_of(agent)
    value = {
        "name": given.name,
        "size": size,
        "media_type": given.media_type,
        "digest": digest.hex(),
        "task_id": given.task_id,
        "metadata": given.metadata,
        "uploaded_at": clock.iso(core.home.wall.now_ms()),
    }
    draft = drafts.value(FILES, file_id, value, author=agent)
    tags = [(TAGS["msg_id"], file_id)]
    if given.task_id:
        tags.append((TAGS["task"], given.task_id))
    request = f"file:{agent}:{given.msg_id}" if given.msg_id else ""
    reference = Draft(PUT, FILES, file_id + BYTES, codec.FMT_BYTES, blob_reference(digest, size), VALUE | BLOB, agent)
    asked = ((TAGS["request"], request),) if request else ()
    parts = [
        core.own.ready(log, msgspec.structs.replace(reference, tags=asked)),
        core.own.ready(log, msgspec.structs.replace(draft, tags=tuple(tags))),
    ]

    def work(desk: Desk) -> Stored:
        before = desk.request(request) if request else None
        if before is None:
            core.own.check_blob(desk, digest)
            for part in parts:
                stored = desk.append(part)
            return stored
        return before

    done: Stored = await core.own.write(agent, work, size=len(draft.payload), quick=True)
    known = done.record.key.removesuffix(BYTES)
    if known == file_id:
        return Stood(status="stored", file_id=file_id, name=given.name, size=size, digest=digest.hex())
    try:
        first = info(await core.read(lambda: find(core, known)))
    except NotFound:  # deleted since: the upload was carried out once, and that was it
        return Stood(status="duplicate", file_id=known, name=given.name, size=size, digest=digest.hex())
    if first.digest != digest.hex():
        raise Conflict(
            f"another file was uploaded with the msg_id {given.msg_id!r:.80}",
            hint="an id names one upload, for ever",
            file_id=known,
        )
    return Stood(status="duplicate", file_id=known, name=first.name, size=first.size, digest=first.digest)


async def remove(core: Core, file_id: str, agent: str) -> None:
    """Takes a file away with one record; its history stays."""
    log = await core.own.log_of(agent)
    ready = core.own.ready(log, drafts.remove(FILES, file_id, prefix=True, author=agent))
    await core.own.write(agent, lambda desk: desk.append(ready), quick=True)


def find(core: Core, file_id: str) -> Stored:
    """The record of a file.

    Raises:
        NotFound: there is none, or it was deleted.
    """
    if file_id.startswith(PREFIX) and not file_id.endswith(BYTES):
        first = core.corpus.find_tag("msg_id", file_id)
        if first is None or first.record.collection != FILES:
            # What another hub wrote came without its tags.
            page = core.corpus.page(Filter(collection=FILES, key=file_id, limit=1))
            first = page[0] if page else None
        found = core.corpus.newest(first.agent, FILES, file_id) if first is not None else None
        if found is not None and not found.is_blob:
            return found
    raise no_file(file_id)


def no_file(file_id: str) -> NotFound:
    """The error of a file that is not there."""
    return NotFound(f"there is no file {file_id!r:.80}", hint="GET /sync/files lists them")


def listed(
    core: Core, agent: str | None, task: str | None, after: int, limit: int
) -> tuple[list[FileInfo], int | None]:
    """Files in the order in which they came, and the position to go on behind; None at the end."""
    out: list[FileInfo] = []
    last = seen = 0
    for seen, stored in enumerate(pages.live(core.corpus, FILES, agent=agent, after=after), 1):
        if len(out) >= limit or seen > LOOKED_AT_MAX:
            return out, last
        last = stored.pos
        if stored.is_blob:
            continue
        try:
            found = info(stored)
        except HoldfastError:
            continue  # somebody else's idea of a file
        if task is None or found.task_id == task:
            out.append(found)
    return out, None


def info(stored: Stored) -> FileInfo:
    """What is known of the file in a record.

    Raises:
        HoldfastError: nothing: its body is gone, or it is no file's.
    """
    value = load(stored, None)
    fields = {"file_id": stored.record.key, "agent_id": stored.record.author or stored.agent}
    try:
        return msgspec.convert({**value, **fields}, FileInfo)
    except (msgspec.ValidationError, TypeError) as error:
        raise NotFound(f"{stored.record.key!r:.80} is no file: {error}", hint="GET /sync/files lists them") from error


def disposition(name: str) -> str:
    """The Content-Disposition that saves a file under its name, whatever is in it (RFC 6266, RFC 8187)."""
    plain = "".join(sign if sign.isascii() and sign.isprintable() and sign not in '"\\%;' else "_" for sign in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def served_as(kind: str) -> str:
    """The media type that a file goes out as."""
    plain = kind.partition(";")[0].strip()
    return (f"{plain}; charset=utf-8" if plain.startswith("text/") else plain) if plain in SAFE else OCTETS
