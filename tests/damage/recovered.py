"""What SQLite makes of a database and its WAL, told from the bytes alone: equal for files that it reads alike.

After a power cut most states differ only in what nobody will ever read: sectors behind the WAL's last valid commit, and
pages of the file of which the WAL has a newer copy. `recovered` leaves those out, so that thousands of states come down
to the few hundred that are different. It is an aid of the tests, and held against SQLite there.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from collections.abc import Mapping
from typing import Final

from holdfast.sqlite import doctor

PAGE: Final = 4096
FRAME: Final = PAGE + 24
_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")


@functools.lru_cache(maxsize=4096)
def _sum(data: bytes, seed: tuple[int, int], big: bool) -> tuple[int, int]:
    first, second = doctor._checksum(data, seed, big=big)
    return first, second


def valid(wal: bytes) -> tuple[int, set[int]]:
    """How many frames of a WAL SQLite replays, and the pages that they hold."""
    if len(wal) < 32:
        return 0, set()
    header = _HEADER.unpack_from(wal)
    big = bool(header[0] & 1)
    seed = _sum(wal[:24], (0, 0), big)
    if header[0] >> 1 != 0x377F0682 >> 1 or header[2] != PAGE or seed != header[6:8]:
        return 0, set()
    frames, pages, pending = 0, set[int](), set[int]()
    for number, at in enumerate(range(32, len(wal) - FRAME + 1, FRAME), 1):
        page, size, *rest = _FRAME.unpack_from(wal, at)
        if tuple(rest[:2]) != header[4:6] or not page:
            break
        seed = _sum(wal[at : at + 8] + wal[at + 24 : at + FRAME], seed, big)
        if seed != tuple(rest[2:]):
            break
        pending.add(page)
        if size:
            frames, pages = number, pages | pending
            pending = set()
    return frames, pages


def recovered(files: Mapping[str, bytes], database: str = "log.db") -> bytes:
    """A digest of what there is to be read in these files, and of all files but the database's as they are."""
    wal = files.get(f"{database}-wal", b"")
    frames, pages = valid(wal)
    digest = hashlib.sha256()
    for name in sorted(files):
        data = files[name]
        if name == f"{database}-wal":
            data = wal[: 32 + frames * FRAME] if frames else b""
        elif name == database and pages:
            seen = bytearray(data)
            for page in pages:
                at = (page - 1) * PAGE
                if at < len(seen):
                    seen[at : at + PAGE] = bytes(min(PAGE, len(seen) - at))
            data = bytes(seen)
        digest.update(b"%d %s %d " % (len(name), name.encode(), len(data)) + data)
    return digest.digest()
