"""Of a WAL that SQLite would not replay to its end: how much the database file has already.

SQLite replays what lies before the first bad frame over what the file holds. If no checkpoint has moved what lies
behind it, that makes the state of an earlier commit. If one has, older pages come over newer ones and make a database
that never was, with a right checksum on every page. And if everything was moved, the file alone is right.

How far a checkpoint went stands in the -shm, which a killed process leaves as it was. Where that tells of another WAL
(after a power cut), or is not there, a page that is in the file as it is in the WAL counts as moved. That may be wrong,
since SQLite writes pages that did not change when it balances a tree; but what is moved, and in which order, depends on
who was reading meanwhile, and cannot be told from the files.

Source: sqlite.org/walformat.html section 2.
"""

from __future__ import annotations

import hashlib
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from holdfast.sqlite.doctor import Diagnosis
from holdfast.sqlite.quarantine import Read

Standing: TypeAlias = Literal["earlier", "whole", "mixed"]
"""With the WAL's good beginning: the state of an earlier commit; without it: all there ever was; neither."""

_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24


class _Frame(NamedTuple):
    number: int
    page: int
    commit: bool
    salts: bytes
    digest: bytes


def judge(path: Path, diagnosis: Diagnosis, database: Read) -> Standing:
    """Says what the file and the WAL are to each other, where the WAL is damaged.

    Args:
        path: the database file.
        diagnosis: the doctor's.
        database: reads the database file.

    Returns:
        The standing. Of a bad frame one changed bit is understood; one spoilt further counts as not in the file.

    Raises:
        OSError: the WAL cannot be read.
    """
    size = diagnosis.page_size
    stop = diagnosis.first_bad or 0
    # Without the bytes that a page has to spare: its checksum there is made when it is written to the file.
    used = size - int.from_bytes(database(1, 20), "big")

    def page(number: int) -> bytes:
        return database(size, (number - 1) * size)[:used] if number > 0 else b""

    if not size:
        return "earlier"  # not a frame in it makes sense
    frames = list(_frames(path, diagnosis, stop, used))
    bad = -1 if diagnosis.state == "header-damaged" else stop
    wal = _Wal(frames, bad, page)
    wal.bad_moved = bad >= 0 and _moved(_bad(path, size, stop), used, page)
    ends = [f.number for f in frames if f.commit or f.number == bad]
    if ends and wal.moved_all(ends[-1]):
        return "whole"
    begin = max((end + 1 for end in ends if end < stop), default=0)
    tried = _tried(path, frames)
    if tried is not None:
        return "mixed" if tried > begin else "earlier"
    if not diagnosis.flipped and diagnosis.state == "damaged":
        return "earlier"  # several commits that were not synced yet, torn by a power cut: no checkpoint has seen them
    replayed = {f.page for f in frames if f.number < begin}
    behind = [f for f in frames if f.number >= begin and f.number != bad and f.page not in replayed]
    return "mixed" if wal.bad_moved or any(map(wal.has, behind)) else "earlier"


class _Wal:
    """The frames by their pages, beside the file."""

    def __init__(self, frames: list[_Frame], bad: int, page: Callable[[int], bytes]) -> None:
        self.bad = bad
        self.bad_moved = False
        spoilt = next((f for f in frames if f.number == bad), None)
        self._bad_digest = spoilt.digest if spoilt else b""
        self._bad_pages = {spoilt.page, *(spoilt.page ^ (1 << bit) for bit in range(32))} if spoilt else set()
        self._versions: dict[int, list[_Frame]] = defaultdict(list)
        for frame in frames:
            self._versions[frame.page].append(frame)
        self._page = page
        self._file: dict[int, bytes] = {}

    def moved_all(self, end: int) -> bool:
        """Whether every page is in the file as it was last written, the bad frame's too."""
        later = any(f.number > self.bad for number in self._bad_pages for f in self._versions.get(number, ()))
        explained = self.bad < 0 or self.bad_moved or later
        return explained and all(self._fits(page, self._last(page, end)) for page in self._versions)

    def has(self, frame: _Frame) -> bool:
        """Whether the frame is in the file."""
        return frame.digest == self._in_file(frame.page)

    def _fits(self, page: int, last: _Frame | None) -> bool:
        if last is None or last.number == self.bad or last.digest == self._in_file(page):
            return True
        return page in self._bad_pages and self._in_file(page) == self._bad_digest

    def _last(self, page: int, end: int) -> _Frame | None:
        versions = self._versions[page]
        count = bisect_right(versions, end, key=lambda frame: frame.number)
        return versions[count - 1] if count else None

    def _in_file(self, page: int) -> bytes:
        if page not in self._file:
            self._file[page] = _digest(self._page(page))
        return self._file[page]


def _frames(path: Path, diagnosis: Diagnosis, stop: int, used: int) -> Iterator[_Frame]:
    """The frames of the WAL's last run, and the bad one, whatever it says."""
    with open(f"{path}-wal", "rb") as wal:
        header = wal.read(_HEADER_BYTES)
        salts, number = header[16:24], 0
        while len(frame := wal.read(_FRAME_HEADER_BYTES + diagnosis.page_size)) > _FRAME_HEADER_BYTES:
            if number == 0 and diagnosis.state == "header-damaged":
                salts = frame[8:16]
            if frame[8:16] == salts or number == stop:
                digest = _digest(frame[_FRAME_HEADER_BYTES:][:used])
                yield _Frame(number, int.from_bytes(frame[:4], "big"), any(frame[4:8]), salts, digest)
            number += 1


def _tried(path: Path, frames: list[_Frame]) -> int | None:
    """How many frames a checkpoint may have moved, by the -shm; None if that is not of this WAL's last commit."""
    try:
        with open(f"{path}-shm", "rb") as shm:
            index = shm.read(136)
    except FileNotFoundError:
        return None
    last = max((f.number for f in frames if f.commit), default=-1)
    if len(index) < 136 or index[:48] != index[48:96] or last < 0:
        return None
    if index[32:40] != frames[-1].salts or int.from_bytes(index[16:20], sys.byteorder) != last + 1:
        return None
    return max(int.from_bytes(index[at : at + 4], sys.byteorder) for at in (96, 128))  # moved; begun to be moved


def _bad(path: Path, size: int, stop: int) -> bytes:
    with open(f"{path}-wal", "rb") as wal:
        wal.seek(_HEADER_BYTES + stop * (size + _FRAME_HEADER_BYTES))
        return wal.read(_FRAME_HEADER_BYTES + size)


def _moved(frame: bytes, used: int, page: Callable[[int], bytes]) -> bool:
    """Whether the bad frame is in the file, but for one bit of its bytes, or of its page's number."""
    number, data = int.from_bytes(frame[:4], "big"), frame[_FRAME_HEADER_BYTES:][:used]
    have = page(number)
    off = int.from_bytes(data, "big") ^ int.from_bytes(have, "big")
    if len(have) == len(data) and off.bit_count() <= 1:
        return True
    return any(page(number ^ (1 << bit)) == data for bit in range(32))


def _digest(page: bytes) -> bytes:
    return hashlib.blake2b(page, digest_size=16).digest()
