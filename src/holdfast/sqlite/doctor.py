"""Looks at a write-ahead log before SQLite does: tells an honest loss of power from rot.

SQLite ends its replay at the first frame that does not fit and resets the file: behind one flipped
bit every commit is gone, without an error. Here every frame is judged by itself, from the checksum
stored in its predecessor, so that frames behind a bad one still count: whole commits behind a bad
frame were not torn off by a power cut, they were written and synced, and then something rotted.

Two rules, either is enough to say damaged:

* At least two valid commit frames lie behind the first bad frame. One is not enough: a power cut may
  keep the later sectors of the last, unsynced commit and lose its earlier ones. Where commits are not
  synced one by one (levels BASIC and ADVANCED) a power cut may rarely look like damage; the anchor and
  the hub decide then, and a needless quarantine costs only a copy.
* One valid commit frame lies there, and one flipped bit explains the bad frame. That finds a flip in
  the last commit but one. A flip in the last commit of all looks like a torn tail, and only the anchor
  or the hub can tell: taking one flipped bit alone for damage was tried, and misjudged 4 in 3,200 honest
  power cuts (a lost sector may differ from the zeros before it in few bits, and the checksum is weak).

Everything here touches files beside SQLite: call it only under the first opener's exclusive lock, and
`examine` only while this process has no connection to the database, because closing a file drops the
POSIX locks that SQLite holds on it.

Source: sqlite.org/fileformat2.html section 4; Alagappan et al., "Protocol-Aware Recovery" (2018).
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from array import array
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

State = Literal["absent", "empty", "clean", "torn-tail", "damaged", "header-damaged"]
"""Not there; holding no frame; whole; cut short by a crash; losing what was acknowledged (two)."""

COMMITS_BEHIND_MIN: Final = 2
"""From how many valid commits behind a bad frame on it is damage; see the module's rules."""

_HEADER: Final = struct.Struct(">8I")
_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24
_MAGIC: Final = 0x377F0682  # its last bit says that checksums are over big-endian words
_PAGE_SIZES: Final = tuple(1 << n for n in range(9, 17))
_WORD: Final = 0xFFFFFFFF
_BATCH_BYTES: Final = 1 << 20
_COPY_BYTES: Final = 1 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What a WAL holds, and whether SQLite would silently throw some of it away.

    `frames` and `commits` count what SQLite would replay. `first_bad` is the number (from 0) of the
    frame that stops it, None when simply nothing follows. `frames_behind` and `commits_behind` are valid
    all the same. `flipped`: one turned bit explains why that frame does not fit.
    """

    state: State
    size: int = 0
    page_size: int = 0
    frames: int = 0
    commits: int = 0
    first_bad: int | None = None
    frames_behind: int = 0
    commits_behind: int = 0
    flipped: bool = False

    @property
    def damaged(self) -> bool:
        """Whether opening the database now would throw away what had been acknowledged."""
        return self.state in ("damaged", "header-damaged")


def examine(path: Path, page_size: int | None = None) -> Diagnosis:
    """Says what SQLite would make of ``<path>-wal``, and changes nothing.

    Args:
        path: the database file (not the WAL).
        page_size: the database's, in bytes; then its file is not opened here, which would drop a lock on it.

    Returns:
        The diagnosis. The WAL is read once, at some 250 MB/s; zeros and an older run's frames faster.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        file = open(f"{path}-wal", "rb", buffering=0)  # noqa: SIM115 - only the open may miss
    except FileNotFoundError:
        return Diagnosis(state="absent")
    with file:
        size = os.fstat(file.fileno()).st_size
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return Diagnosis(state="empty", size=size)
        magic, _, page_size, _, _, _, *stored = _HEADER.unpack(header)
        seed = (stored[0], stored[1])
        fits = (
            magic & ~1 == _MAGIC
            and page_size in _PAGE_SIZES
            and _checksum(header[:24], (0, 0), big=bool(magic & 1)) == seed
        )
        if not fits:
            said = _page_size(path) if page_size is None else page_size
            return _without_header(file, said, header, size)
        scan = _Scan(page_size, header[16:24], seed, big=bool(magic & 1))
        scan.run(file)
        return scan.diagnosis(size, file)


class _Scan:
    """One pass over the frames of a WAL whose page size, salts and byte order are known."""

    def __init__(self, page_size: int, salts: bytes, seed: tuple[int, int], *, big: bool) -> None:
        self.page_size = page_size
        self.frame_bytes = page_size + _FRAME_HEADER_BYTES
        self.salts = salts
        self.big = big
        self.stored = seed  # the checksum that the frame before the next one carries
        self.frames = self.commits = self.valid_behind = self.commits_behind = 0
        self.ends_in_commit = True
        self.stopped: int | None = None  # the first frame that SQLite would not replay
        self.stopped_seed = seed
        self.begun = False  # frames of this run lie at or behind the stop

    def run(self, file: BinaryIO) -> None:
        """Reads every whole frame, in batches."""
        file.seek(_HEADER_BYTES)
        batch = max(1, _BATCH_BYTES // self.frame_bytes) * self.frame_bytes
        zeros = bytes(batch)
        number = 0
        while len(data := _read(file, batch)) >= self.frame_bytes:
            whole = len(data) // self.frame_bytes
            # A prefilled WAL is mostly zeros: one comparison for a MiB of them, no look at frames.
            if data == zeros[: len(data)]:
                self._stop(number)
                self.stored = (0, 0)
            else:
                self._batch(data[: whole * self.frame_bytes], number, whole)
            number += whole

    def _batch(self, data: bytes, number: int, n: int) -> None:
        quads = array("Q", data)
        width = self.frame_bytes // 8
        salts = quads[1::width]
        want = array("Q", self.salts)[0]
        stored = struct.unpack(f">{2 * n}I", quads[2::width].tobytes())
        before, self.stored = self.stored, (stored[-2], stored[-1])
        hits = salts.count(want)
        if not hits:  # an older run's frames, left from before the last reset
            self._stop(number, before)
            return
        low = salts.index(want)
        high = n - salts[::-1].index(want)
        if low:
            self._stop(number, before)
            before = (stored[2 * low - 2], stored[2 * low - 1])
        numbers = struct.unpack(f">{2 * n}I", quads[0::width].tobytes())
        part = quads[low * width : high * width]
        bad = _misfits(part, width, stored[2 * low : 2 * high], before, big=self.big)
        if self.stopped is None and hits == n and not any(bad) and all(numbers[0::2]):
            self.frames += n  # the usual case, without a look at each frame
            self.commits += n - numbers[1::2].count(0)
            self.ends_in_commit = numbers[-1] > 0
            return
        for i in range(low, high):
            page, size = numbers[2 * i], numbers[2 * i + 1]
            ours = salts[i] == want and page != 0
            self._judge(number + i, before, begun=ours, good=ours and not bad[i - low], commit=size)
            before = (stored[2 * i], stored[2 * i + 1])
        if high < n:
            self._stop(number + high, before)

    def _judge(self, number: int, seed: tuple[int, int], *, begun: bool, good: bool, commit: int) -> None:
        if self.stopped is None and good:
            self.frames += 1
            self.commits += commit > 0
            self.ends_in_commit = commit > 0
            return
        self._stop(number, seed)
        self.begun |= begun
        if good:
            self.valid_behind += 1
            self.commits_behind += commit > 0

    def _stop(self, number: int, seed: tuple[int, int] | None = None) -> None:
        if self.stopped is None:
            self.stopped = number
            self.stopped_seed = seed or self.stored

    def diagnosis(self, size: int, file: BinaryIO) -> Diagnosis:
        """What the pass amounts to."""
        evidence = self._one_bit_off(file)
        state: State
        if self.commits_behind + evidence >= COMMITS_BEHIND_MIN:
            state = "damaged"
        elif self.begun or not self.ends_in_commit:
            state = "torn-tail"
        else:
            state = "clean" if self.frames else "empty"
        return Diagnosis(
            state=state,
            size=size,
            page_size=self.page_size,
            frames=self.frames,
            commits=self.commits,
            first_bad=self.stopped if self.begun or evidence else None,
            frames_behind=self.valid_behind,
            commits_behind=self.commits_behind,
            flipped=evidence > 0,
        )

    def _one_bit_off(self, file: BinaryIO) -> int:
        """How many commits behind it is worth that one turned bit explains the frame at the stop."""
        if self.stopped is None:
            return 0
        file.seek(_HEADER_BYTES + self.stopped * self.frame_bytes)
        frame = _read(file, self.frame_bytes)
        salts = int.from_bytes(frame[8:16], "big") ^ int.from_bytes(self.salts, "big")
        if len(frame) < self.frame_bytes or salts.bit_count() > 1:
            return 0
        stored = _stored(frame)
        have = self._sum(frame, self.stopped_seed)
        if salts or have == stored:
            return 2 if have == stored and salts else 0  # a frame of ours, for certain
        if (have[0] ^ stored[0]).bit_count() + (have[1] ^ stored[1]).bit_count() == 1:
            # The checksum itself was hit, so the frame behind was judged from a wrong one.
            following = _read(file, self.frame_bytes)
            if following[8:16] == self.salts and self._sum(following, have) == _stored(following):
                self.valid_behind += 1
                self.commits_behind += any(following[4:8])
            return 1
        # The checksum is linear: a bit b that turned in word k of n moved it by ± 2^b × (F(n-1-k), F(n-k)) mod 2^32,
        # Fibonacci numbers. Of two neighbours one is odd, so b can be read off the difference. Which k it was cannot
        # be told for high b (they repeat), so this finds a flip but must not be used to turn it back.
        moved = [(a - b) & _WORD for a, b in zip(have, stored, strict=True)]
        either = moved[0] | moved[1]
        bit = (either & -either).bit_length() - 1
        signs = {(moved[0], moved[1]), (-moved[0] & _WORD, -moved[1] & _WORD)}
        first, second = 0, 1
        for _ in range((self.frame_bytes - 16) // 4):
            if (first << bit & _WORD, second << bit & _WORD) in signs:
                return 1
            first, second = second, (first + second) & _WORD
        return 0

    def _sum(self, frame: bytes, seed: tuple[int, int]) -> tuple[int, int]:
        half = _checksum(frame[:8], seed, big=self.big)
        return _checksum(frame[_FRAME_HEADER_BYTES:], half, big=self.big)


def _misfits(quads: array[int], width: int, stored: tuple[int, ...], seed: tuple[int, int], *, big: bool) -> list[bool]:
    """Which of the frames do not have the checksum they carry.

    The checksum's recurrence runs in step over all frames of a batch, each frame a 64-bit lane of one big
    integer, because Python adds a thousand lanes as fast as it adds two ints (measured: 160 to 350 MB/s; word
    by word 30). Sums stay below 2^62 for 20 steps of two words, so they are cut to 32 bits only then.
    """
    n = len(stored) // 2
    if big:
        words = array("I", quads.tobytes())
        words.byteswap()
        quads = array("Q", words.tobytes())
    low = int.from_bytes(b"\xff\xff\xff\xff\0\0\0\0" * n, "little")
    carried = (*seed, *stored)
    s0, s1 = _lanes(carried[0:-2:2]), _lanes(carried[1:-2:2])
    for step, k in enumerate((0, *range(3, width)), 1):  # 1, 2: the salts and the stored checksum
        lanes = int.from_bytes(quads[k::width].tobytes(), "little")
        first = lanes & low
        s0 += first + s1
        s1 += ((lanes ^ first) >> 32) + s0
        if step % 20 == 0:
            s0 &= low
            s1 &= low
    wrong = (s0 & low ^ _lanes(stored[0::2])) | (s1 & low ^ _lanes(stored[1::2]))
    if not wrong:
        return [False] * n
    return [lane != 0 for lane in struct.unpack(f"<{n}Q", wrong.to_bytes(8 * n, "little"))]


def _stored(frame: bytes) -> tuple[int, int]:
    return int.from_bytes(frame[16:20], "big"), int.from_bytes(frame[20:24], "big")


def _lanes(values: tuple[int, ...]) -> int:
    return int.from_bytes(struct.pack(f"<{len(values)}Q", *values), "little")


def _checksum(data: bytes, seed: tuple[int, int], *, big: bool) -> tuple[int, int]:
    """SQLite's WAL checksum, word by word: the plain form, for one frame."""
    s0, s1 = seed
    words = struct.unpack(f"{'>' if big else '<'}{len(data) // 4}I", data)
    for first, second in zip(words[0::2], words[1::2], strict=True):
        s0 = (s0 + first + s1) & _WORD
        s1 = (s1 + second + s0) & _WORD
    return s0, s1


def _without_header(file: BinaryIO, said: int, header: bytes, size: int) -> Diagnosis:
    """Judges a WAL whose header does not fit, by what the frames say of themselves."""
    best = Diagnosis(state="header-damaged", size=size)
    if _only_zeros(file):
        return Diagnosis(state="empty", size=size)
    seed = struct.unpack(">2I", header[24:32])
    for page_size in _likely_sizes(said, header):
        file.seek(_HEADER_BYTES)
        salts = [_read(file, page_size + _FRAME_HEADER_BYTES)[8:16] for _ in range(3)]
        likely = [s for s in (salts[0], salts[1]) if (*salts, header[16:24]).count(s) > 1]
        for big in (False, True) if likely else ():
            scan = _Scan(page_size, likely[0], (seed[0], seed[1]), big=big)
            scan.run(file)
            best = Diagnosis(
                state="header-damaged",
                size=size,
                page_size=page_size,
                frames_behind=scan.frames + scan.valid_behind,
                commits_behind=scan.commits + scan.commits_behind,
            )
            if best.frames_behind:
                return best
    return best


def _page_size(path: Path) -> int:
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as database:
        return int.from_bytes(_read(database, 18)[16:18], "big")
    return 0


def _likely_sizes(database: int, header: bytes) -> list[int]:
    said = [65536 if s == 1 else s for s in (database, int.from_bytes(header[8:12], "big"))]
    return [*dict.fromkeys(s for s in (*said, *_PAGE_SIZES) if s in _PAGE_SIZES)]


def _only_zeros(file: BinaryIO) -> bool:
    file.seek(_HEADER_BYTES)
    zeros = bytes(_BATCH_BYTES)
    while piece := _read(file, _BATCH_BYTES):
        if piece != zeros[: len(piece)]:
            return False
    return True


def _read(file: BinaryIO, size: int) -> bytes:
    """Up to `size` bytes, fewer only at the end of the file (a raw read may return fewer at will)."""
    pieces: list[bytes] = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def prefill(path: Path, size: int) -> int:
    """Gives the WAL its size beforehand, in zeros behind what it holds: later syncs write no metadata.

    Call it when the database is open and nobody writes yet, under the first opener's exclusive lock.
    Opening and closing the WAL beside SQLite is safe: SQLite locks the database and the -shm, not the
    WAL. Zeros are no frame to SQLite (page 0, other salts), and before a header they are no header.

    Args:
        path: the database file.
        size: bytes that the WAL shall have.

    Returns:
        The WAL's size afterwards: as before when there was no room or no WAL (it only saves time).
    """
    try:
        fd = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        had = os.fstat(fd).st_size
        at = max(had, _HEADER_BYTES)
        if size <= at:
            return had
        zeros = memoryview(bytes(min(_COPY_BYTES, size - at)))
        try:
            # Written and not only reserved: posix_fallocate left half of the gain (486 µs, written 324).
            while at < size:
                at += os.pwrite(fd, zeros[: size - at], at)
            os.fdatasync(fd)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            os.ftruncate(fd, had)
            return had
        return size
    finally:
        os.close(fd)
