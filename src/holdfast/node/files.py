"""Files at a hub from Python, as `Hub.files`: up and down in pieces, gone on with where a line broke, proven whole."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from holdfast.collections.files import FileInfo, Stood
from holdfast.disk import is_stream, sync_directory
from holdfast.errors import BlobCorrupt, Conflict, HubFull, HubUnavailable, Locked, NotFound, UsageError
from holdfast.log.drafts import new_id
from holdfast.node.parts import PAGE, Part, decode, encode, name_in_path
from holdfast.transport.client import REQUEST_S, HubClient

PIECE_BYTES: Final = 4 << 20
"""A file below it goes up in one request."""
PAUSES_S: Final = (0.1, 0.5, 2.0)
"""Between tries of a piece: a hub that is started again is there within them."""
PROVING_BYTES_PER_S: Final = 20 << 20
"""What a slow disk reads: a hub reads a file once more before it says that it has it."""
_PLAIN: Final = {"Content-Encoding": "identity"}
_MORE: Final = frozenset({"media_type", "sha256", "msg_id", "resume"})

Source = bytes | str | os.PathLike[str] | BinaryIO
T = TypeVar("T")


class _Listing(msgspec.Struct):
    """A page of files."""

    files: list[FileInfo]
    next: int | None


class Files(Part):
    """Bytes with a name, of an agent. Of each file a piece is in memory, never the whole, but for `read`."""

    _room = "/sync"

    def upload(
        self,
        source: Source,
        *,
        agent: str | None = None,
        name: str = "",
        task: str | None = None,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> Stood:
        """Uploads a file; once it returns, the hub would not lose it.

        A larger one goes in pieces; where the line breaks, it goes on from what the hub has. When the hub stays away
        or is full, the error's ``context["upload_id"]`` is what `resume` takes, for a day.

        Args:
            source: the bytes, the file that holds them, or a binary file object, from where it stands.
            agent: whose it is; if not said, that of the token.
            name: what it is called, if not as its source.
            task: what it belongs to.
            metadata: JSON values.
            more: ``media_type``; ``sha256`` in hex, where it is known; ``msg_id``, which names this upload for ever;
                ``resume``, an upload that broke off.

        Raises:
            Conflict: another file was uploaded with this `msg_id`.
            IntegrityError: the bytes do not have that `sha256`, or were changed while they were read.
            NotFound: there is no such upload to resume.
            HubFull: the hub has no room.
            HubUnavailable: the hub does not answer.
        """
        if unknown := more.keys() - _MORE:
            raise UsageError(f"unknown: {', '.join(sorted(unknown))}", hint=f"known are {', '.join(sorted(_MORE))}")
        resume = more.pop("resume", None) or ""
        with _opened(source) as (file, called):
            about = {"agent_id": agent, "name": name or called, "task_id": task, "metadata": metadata or {}, **more}
            # An id of its own, made here: a request that has to be repeated makes no second file.
            about["msg_id"] = more.get("msg_id") or new_id("upload")
            about = _checked({field: value for field, value in about.items() if value is not None})
            bytes_of = _Once(file)
            if not resume and len(bytes_of.piece(0)) < PIECE_BYTES:
                try:
                    return self._in_one(bytes_of, about)
                except HubUnavailable:
                    pass  # a line too slow for all of it is perhaps none for pieces of it
            return self._in_pieces(bytes_of, about, resume)

    def get(self, file_id: str) -> FileInfo:
        """What is known of a file.

        Raises:
            NotFound: there is none, or it was deleted.
        """
        return decode(self._ask("GET", f"files/{name_in_path(file_id)}/meta"), FileInfo)

    def find(self, *, agent: str | None = None, task: str | None = None, limit: int = 1000) -> list[FileInfo]:
        """The first `limit` files that match, in the order in which they came."""

        def pages(client: HubClient) -> list[FileInfo]:
            out: list[FileInfo] = []
            after: int | None = 0
            while after is not None and len(out) < limit:
                query = {"agent": agent, "task": task, "after": after, "limit": min(PAGE, limit - len(out))}
                page = decode(client.want("GET", "/sync/files", query=query), _Listing)
                out += page.files
                after = page.next
            return out

        return self._hub.ask(lambda hub: pages(hub.client))

    def delete(self, file_id: str) -> None:
        """Takes a file away; its history stays.

        Raises:
            NotFound: there is none.
        """
        self._ask("DELETE", f"files/{name_in_path(file_id)}")

    def read(self, file_id: str) -> bytes:
        """A file's bytes, proven by their digest; for those that fit into memory.

        Raises:
            NotFound: there is none.
            BlobCorrupt: what came does not have its digest.
        """
        found = self.get(file_id)
        data = b"".join(self._piece(found, at) for at in range(0, found.size, PIECE_BYTES))
        _prove(found, hashlib.sha256(data).hexdigest())
        return data

    def download(self, file_id: str, path: str | os.PathLike[str]) -> FileInfo:
        """Writes a file's bytes to `path`: all of them and proven by their digest, or none; returns what it is.

        What came before a break lies beside it, in a file whose name ends in ``.part``; the next call goes on from it.

        Raises:
            NotFound: there is no such file.
            BlobCorrupt: what came does not have its digest; what was at `path` before is there still.
            Locked: another call writes the same file there.
            HubUnavailable: no hub answers.
        """
        found, target = self.get(file_id), Path(path)
        if target.is_dir() or is_stream(target) or not target.parent.is_dir():
            raise UsageError(f"no file can be written at {str(path)!r:.200}", hint="a file's name, in a directory")
        known = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
        partial = target.with_name(f".{found.digest[:32]}-{known}.part")
        with _locked(partial) as file:
            digest, kept = self._fill(found, file)
            if digest != found.digest and kept:
                # What lay here had perhaps rotted here; the hub's word is asked for once more, and all of it.
                file.truncate(0)
                digest, _ = self._fill(found, file)
            if digest != found.digest:
                partial.unlink()
            _prove(found, digest)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(target)
            sync_directory(target.parent)
        return found

    # -- inside -------------------------------------------------------------------------------------------------

    def _in_one(self, source: _Once, about: dict[str, Any]) -> Stood:
        data = source.piece(0)
        boundary = os.urandom(16).hex()
        parts = []
        for field, value in {"sha256": source.digest(), **about}.items():
            text = encode(value) if isinstance(value, dict) else str(value).encode()
            parts.append(
                b'--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (_b(boundary), _b(field), text)
            )
        head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n\r\n' % _b(boundary)
        body = b"".join((*parts, head, data, b"\r\n--%s--\r\n" % _b(boundary)))
        headers = {**_PLAIN, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        return decode(self._client.want("POST", "/sync/files", body=body, headers=headers), Stood)

    def _in_pieces(self, source: _Once, about: dict[str, Any], upload: str) -> Stood:
        resumed = bool(upload)
        upload = upload or str(self._ask("POST", "uploads").json()["upload_id"])
        try:
            self._send(source, upload, resumed)
            finish = {"sha256": source.digest(), **about}
            patience = REQUEST_S + source.size / PROVING_BYTES_PER_S
            path = f"/sync/uploads/{name_in_path(upload)}/finish"
            headers = {"Content-Type": "application/json"}
            body = encode(finish)
            done = _again(lambda: self._client.want("POST", path, body=body, headers=headers, timeout=patience))
        except (HubUnavailable, HubFull) as error:
            error.context["upload_id"] = upload
            raise
        return decode(done, Stood)

    def _send(self, source: _Once, upload: str, resumed: bool) -> None:
        """Adds all that the hub does not have of an upload."""
        path = f"uploads/{name_in_path(upload)}"
        at = best = tries = 0
        lost = resumed
        while True:
            try:
                if lost:
                    at = int(self._client.want("GET", f"/sync/{path}").json()["offset"])  # this hub alone has it
                    lost = False
                if at > best:
                    best, tries = at, 0
                piece = source.piece(at)
                if not piece:
                    return
                headers = {**_PLAIN, "Upload-Offset": str(at), "Content-Type": "application/octet-stream"}
                at = int(self._client.want("PATCH", f"/sync/{path}", body=piece, headers=headers).json()["offset"])
            except (HubUnavailable, Conflict):
                # A conflict is a request of our own that was given up here and is not yet done with there.
                if tries == len(PAUSES_S):
                    raise
                time.sleep(PAUSES_S[tries])
                tries += 1
                lost = True
            except NotFound:
                if not resumed:
                    raise
                source.digest()
                return  # it may be finished already: then to finish it again says so

    def _piece(self, found: FileInfo, at: int) -> bytes:
        """The piece of a file that begins at `at`."""
        size = min(PIECE_BYTES, found.size - at)
        span = {"Range": f"bytes={at}-{at + size - 1}"}
        path = f"/sync/files/{name_in_path(found.file_id)}"
        data = _again(lambda: self._hub.ask(lambda hub: hub.client.want("GET", path, headers=span))).body
        if len(data) != size:
            raise BlobCorrupt(f"the hub sent {len(data)} bytes of {found.file_id} for {size}", digest=found.digest)
        return data

    def _fill(self, found: FileInfo, file: BinaryIO) -> tuple[str, int]:
        """Adds what is missing to a file's part; the digest of all of it, and how much was there."""
        if os.fstat(file.fileno()).st_size > found.size:
            file.truncate(0)
        file.seek(0)
        digest, at = hashlib.sha256(), 0
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            at += len(piece)
        kept = at
        while at < found.size:
            piece = self._piece(found, at)
            digest.update(piece)
            file.write(piece)
            file.flush()
            at += len(piece)
        return digest.hexdigest(), kept


class _Once:
    """Bytes that are read and hashed in their order, and read again only where a line broke.

    Args:
        file: where they come from; its position now is their beginning.

    Attributes:
        size: how many were read so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._base = file.tell() if hasattr(file, "seekable") and file.seekable() else None
        self._hash = hashlib.sha256()
        self.size = 0
        self._start = 0
        self._held = b""

    def piece(self, at: int) -> bytes:
        """What there is from `at` on, up to a piece; nothing at the end.

        Raises:
            UsageError: it was read already, and cannot be again.
        """
        if at < self._start:
            if self._base is None:
                raise UsageError(
                    f"the hub lost what came behind byte {at}, and the source cannot be read again",
                    hint="upload it from a file",
                )
            self._file.seek(self._base + at)
            self._start, self._held = at, b""
            self._next()
        while at >= self._start + len(self._held):
            if not self._next():
                return b""
        return self._held[at - self._start :]

    def digest(self) -> str:
        """The SHA-256 of all of it, in hex; reads on to its end."""
        while self._next():
            pass
        return self._hash.hexdigest()

    def _next(self) -> bool:
        parts, missing = [], PIECE_BYTES
        while missing:
            part = self._file.read(missing)
            if not isinstance(part, bytes):
                raise UsageError(f"the source gave {type(part).__name__}, not bytes", hint="open it with 'rb'")
            if not part:
                break
            parts.append(part)
            missing -= len(part)
        if not parts:
            return False
        self._start += len(self._held)
        self._held = b"".join(parts)
        end = self._start + len(self._held)
        if end > self.size:
            self._hash.update(self._held[max(0, self.size - self._start) :])
            self.size = end
        return True


@contextmanager
def _opened(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    """A source as a file object, and what it is called."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source), "unnamed"
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            file = path.open("rb")
        except OSError as error:
            raise UsageError(f"cannot read {str(path)!r:.200}: {error.strerror}", hint="a file to upload") from error
        with file:
            yield file, path.name
    elif hasattr(source, "read"):
        name = getattr(source, "name", None)
        yield source, (Path(name).name if isinstance(name, str) else "") or "unnamed"
    else:
        raise UsageError(f"cannot upload {type(source).__name__}", hint="bytes, a path, or a binary file object")


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The part of a download, which one call at a time writes."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with os.fdopen(fd, "r+b") as file:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Locked(f"{path.name} is being written by another download", hint="wait for it") from error
            if _is_at(fd, path):
                yield file
                return
            # Whoever had it was done with it meanwhile: what we hold is his file now.


def _is_at(fd: int, path: Path) -> bool:
    """Whether an open file is the one at this path."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _checked(about: dict[str, Any]) -> dict[str, Any]:
    """What is said of a file, alike whichever way it goes."""
    for field, value in about.items():
        if not isinstance(value, dict if field == "metadata" else str):
            raise UsageError(f"{field} cannot be {value!r:.80}", hint="metadata is a dict, all else text")
    encode(about)
    return about


def _prove(found: FileInfo, digest: str) -> None:
    if digest != found.digest:
        raise BlobCorrupt(
            f"the bytes of {found.file_id} are not those of its digest",
            hint="ask another hub; holdfast verify on this one",
            digest=found.digest,
        )


def _again(ask: Callable[[], T]) -> T:
    """The answer to what may be asked again, which it is where the line breaks."""
    for pause in PAUSES_S:
        try:
            return ask()
        except HubUnavailable:
            time.sleep(pause)
    return ask()


def _b(text: str) -> bytes:
    return text.encode()
