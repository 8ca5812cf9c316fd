"""What is known of a file's object: it travels with the file, or lies beside the tree where no file can carry it.

An extended attribute is set before the file gets its name, so both appear at once. A file system without them has a
sidecar instead, which names files by their inode numbers: it is written before the new file takes the old one's name
and then holds both, so it is right on either side of a crash.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from holdfast.objects.port import TYPE, ObjectInfo

ATTRIBUTE: Final = "user.holdfast"
HAS_ATTRIBUTES: Final = hasattr(os, "setxattr")
_LACKING: Final = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS)
_TOO_MUCH: Final = (errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EDQUOT)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an object beside its key."""

    etag: str
    size: int
    at: int
    """When it was stored: microseconds since 1970."""
    sha256: str
    type: str = TYPE
    metadata: dict[str, str] = {}

    def info(self, key: str) -> ObjectInfo:
        """In the port's form."""
        return ObjectInfo(
            key=key,
            size=self.size,
            etag=self.etag,
            modified=_EPOCH + timedelta(microseconds=self.at),
            content_type=self.type,
            metadata=self.metadata,
        )


ROTTEN: Final = About(etag="damaged", size=0, at=0, sha256="")
"""Of a file whose description cannot be read: no put ever gave this etag."""
# The first is of whatever is not in this list and stands behind; to add to the end is allowed, nothing else.
_COMMON: Final = ("", TYPE, "application/json", "text/plain; charset=utf-8", "text/plain")
_FORM: Final = struct.Struct(">B9s7s6s32s")
_rest = msgspec.json.Decoder(tuple[str, dict[str, str]]).decode


def new_etag() -> str:
    """One that there never was, of the length that `packed` takes."""
    return os.urandom(9).hex()


def packed(about: About) -> bytes:
    """A description as it is kept, with a sum over it: a bit may change in it as in any other bytes.

    Without metadata and with a common type it has 59 bytes: what ext4 can keep in the inode itself. One byte too many
    costs a block of the disk for each object, and a tenth of the time of a put.
    """
    kind = _COMMON.index(about.type) if about.type in _COMMON and not about.metadata else 0
    times = about.at.to_bytes(7, "big")
    body = _FORM.pack(
        kind, bytes.fromhex(about.etag), times, about.size.to_bytes(6, "big"), bytes.fromhex(about.sha256)
    )
    if not kind:
        body += msgspec.json.encode((about.type, about.metadata))
    return zlib.crc32(body).to_bytes(4, "big") + body


def unpacked(raw: bytes) -> About:
    """What `packed` was given.

    Raises:
        ValueError: they are other bytes.
    """
    body = raw[4:]
    if len(body) < _FORM.size or raw[:4] != zlib.crc32(body).to_bytes(4, "big"):
        raise ValueError("a changed description")
    kind, etag, at, size, digest = _FORM.unpack_from(body)
    if kind >= len(_COMMON):
        raise ValueError("a description of a later version")
    what, metadata = (_COMMON[kind], {}) if kind else _rest(body[_FORM.size :])
    return About(
        etag=etag.hex(),
        size=int.from_bytes(size, "big"),
        at=int.from_bytes(at, "big"),
        sha256=digest.hex(),
        type=what,
        metadata=metadata,
    )


def unpacked_or_rotten(raw: bytes) -> About:
    """What `packed` was given, or `ROTTEN`."""
    try:
        return unpacked(raw)
    except ValueError:
        return ROTTEN


def attach(fd: int, raw: bytes) -> bool:
    """Puts a description on a file; False if it cannot carry this one."""
    if not HAS_ATTRIBUTES:
        return False
    try:
        os.setxattr(fd, ATTRIBUTE, raw)
    except OSError as error:
        if error.errno in _LACKING or error.errno in _TOO_MUCH:
            return False  # ext4 says of a large one that the disk is full; if it is, the sidecar will say so again
        raise
    return True


def attached(file: int | str) -> bytes | None:
    """The description on a file; None if it has none, or is none to have any.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not HAS_ATTRIBUTES:
        return None
    try:
        return os.getxattr(file, ATTRIBUTE, follow_symlinks=isinstance(file, int))
    except OSError as error:
        if error.errno in _LACKING or error.errno == errno.ENODATA:
            return None
        raise


class Sidecars:
    """Descriptions in a directory of their own, one file for each file of the tree that needs one.

    Args:
        directory: made when the first is written.
        publish: writes bytes to a path, whole and safe when it returns.
    """

    def __init__(self, directory: Path, publish: Callable[[Path, bytes, bool], None]) -> None:
        self._directory = directory
        self._publish = publish

    def used(self) -> bool:
        """Whether there have ever been any."""
        return os.path.isdir(self._directory)

    def get(self, file: str, inode: int) -> bytes | None:
        """The description of the file with this name and inode; None if there is none."""
        return self._held(file).get(str(inode), None)

    def put(self, file: str, held: dict[int, bytes], *, durable: bool = True) -> None:
        """Writes the descriptions of the files that have this name now, or will have it next."""
        path = self._path(file)
        body = {str(inode): raw.hex() for inode, raw in held.items()}
        self._publish(path, msgspec.json.encode({"file": file, "held": body}), durable)

    def drop(self, file: str) -> None:
        """Forgets what there is about this name."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(file))

    def files(self) -> list[str]:
        """The names of which something is known, in no order."""
        found: list[str] = []
        for path in self._directory.glob("*/*"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(msgspec.json.decode(path.read_bytes())["file"])
        return found

    def _held(self, file: str) -> dict[str, bytes]:
        try:
            with open(self._path(file), "rb", buffering=0) as opened:
                body = msgspec.json.decode(opened.readall())
            return {inode: bytes.fromhex(raw) for inode, raw in body["held"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            return _Rotten()

    def _path(self, file: str) -> Path:
        name = hashlib.sha256(os.fsencode(file)).hexdigest()[:40]
        return self._directory / name[:2] / name[2:]


class _Rotten(dict[str, bytes]):
    """What a sidecar holds that cannot be read: nothing that anybody could take for a description."""

    def get(self, inode: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
        return b""
