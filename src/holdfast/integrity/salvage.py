"""Reads rows out of a damaged SQLite file and its WAL without SQLite: page by page, whatever the trees say.

SQLite stops at the first bad page, and throws away every WAL frame behind a bad one. The bytes are still there: each
page says of itself which rows it holds. What is found here is only offered; it counts where a hash proves it, so stale
pages and rotten ones do no harm. For files that nobody has open: copies in quarantine, or under the exclusive lock.

Source: sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

_TABLE_LEAF: Final = 13
_INDEX_LEAF: Final = 10
_INDEX_INNER: Final = 2
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = 24
_PAGE_SIZE: Final = 4096
_RESERVED: Final = 8
_COLUMNS_MAX: Final = 64
_PAYLOAD_MAX: Final = 1 << 20
_WIDTHS: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
_BROKEN: Final = (IndexError, struct.error, ValueError, UnicodeDecodeError)

Row = tuple[Any, ...]


class Image:
    """A database file and its WAL as plain bytes.

    Args:
        path: the database file; it and its ``-wal`` may be missing or of any length.

    Raises:
        OSError: a file is there and cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._fds = [_open(path), _open(Path(f"{path}-wal"))]
        self._frames: dict[int, list[int]] = {}  # page -> where its images lie in the WAL, the newest last
        wal = self._fds[1]
        if wal >= 0:
            self._map(wal)

    def rows(self) -> Iterator[Row]:
        """Every row of every page that looks like one: of the newest pages first, the same row perhaps again."""
        wal, file = self._fds[1], self._fds[0]
        if wal >= 0:
            offsets = sorted((at for places in self._frames.values() for at in places), reverse=True)
            for at in offsets:
                yield from self._page(os.pread(wal, _PAGE_SIZE, at), first=False)
        if file >= 0:
            size = os.fstat(file).st_size
            for at in range(0, size, _PAGE_SIZE):
                yield from self._page(os.pread(file, _PAGE_SIZE, at), first=at == 0)

    def is_cut(self) -> bool:
        """Whether the file is shorter than its own header says, or not there at all."""
        file = self._fds[0]
        if file < 0:
            return True
        head = os.pread(file, 100, 0)
        pages = int.from_bytes(head[28:32], "big") if len(head) == 100 else 1
        # Pages that a commit added lie in the WAL until a checkpoint; those of a lost page count are in no file.
        return os.fstat(file).st_size < pages * _PAGE_SIZE and pages not in self._frames and pages < 1 << 31

    def close(self) -> None:
        """Closes the files; a second close is fine."""
        for fd in self._fds:
            if fd >= 0:
                os.close(fd)
        self._fds = [-1, -1]

    def _map(self, wal: int) -> None:
        size = os.fstat(wal).st_size
        for at in range(_WAL_HEADER, size - _PAGE_SIZE - _FRAME_HEADER + 1, _FRAME_HEADER + _PAGE_SIZE):
            number = int.from_bytes(os.pread(wal, 4, at), "big")
            if number:
                self._frames.setdefault(number, []).append(at + _FRAME_HEADER)

    def _page(self, data: bytes, *, first: bool) -> Iterator[Row]:
        at = 100 if first else 0
        if len(data) < _PAGE_SIZE or data[at] not in (_TABLE_LEAF, _INDEX_LEAF, _INDEX_INNER):
            return
        kind = data[at]
        count = int.from_bytes(data[at + 3 : at + 5], "big")
        cells = at + (12 if kind == _INDEX_INNER else 8)
        for number in range(min(count, (_PAGE_SIZE - cells) // 2)):
            try:
                place = int.from_bytes(data[cells + 2 * number : cells + 2 * number + 2], "big")
                yield from self._cell(data, place, kind)
            except _BROKEN:
                continue  # one cell that is none; its neighbours may be whole

    def _cell(self, data: bytes, at: int, kind: int) -> Iterator[Row]:
        at += 4 if kind == _INDEX_INNER else 0
        size, at = _varint(data, at)
        rowid = None
        if kind == _TABLE_LEAF:
            rowid, at = _varint(data, at)
        if size > _PAYLOAD_MAX:
            return
        room = _PAGE_SIZE - _RESERVED
        most = room - 35 if kind == _TABLE_LEAF else (room - 12) * 64 // 255 - 23
        if size <= most:
            yield _record(data[at : at + size], rowid)
            return
        least = (room - 12) * 32 // 255 - 23
        local = least + (size - least) % (room - 4)
        local = local if local <= most else least
        begin, following = data[at : at + local], int.from_bytes(data[at + local : at + local + 4], "big")
        seen = set()
        for newest in (True, False):  # the rest as the WAL has it, and as the file has it: a hash says which is right
            whole = self._overflow(begin, following, size, newest=newest)
            if len(whole) == size and whole not in seen:
                seen.add(whole)
                yield _record(whole, rowid)

    def _overflow(self, begin: bytes, page: int, size: int, *, newest: bool) -> bytes:
        parts, have = [begin], len(begin)
        while page and have < size:
            data = self._read(page, newest=newest)
            if len(data) < _PAGE_SIZE:
                break
            page = int.from_bytes(data[:4], "big")
            part = data[4 : min(_PAGE_SIZE - _RESERVED, 4 + size - have)]
            parts.append(part)
            have += len(part)
        return b"".join(parts)

    def _read(self, page: int, *, newest: bool) -> bytes:
        places = self._frames.get(page)
        if places and newest:
            return os.pread(self._fds[1], _PAGE_SIZE, places[-1])
        return os.pread(self._fds[0], _PAGE_SIZE, (page - 1) * _PAGE_SIZE) if self._fds[0] >= 0 else b""


def is_record(row: Sequence[Any]) -> bool:
    """Whether a row has the shape of a record's (`holdfast.corpus.rows.COLUMNS`, perhaps with one more)."""
    if len(row) not in (22, 23) or not isinstance(row[8], str):
        return False
    numbers = (*row[:8], *row[9:13], row[15], row[19], row[20])
    hashes = (row[16], row[18])
    return (
        all(isinstance(number, int) for number in numbers)
        and all(isinstance(digest, bytes) and len(digest) == 32 for digest in hashes)
        and isinstance(row[17], bytes)
        and isinstance(row[21], bytes | None)
        and all(isinstance(row[n], bytes | None) for n in (13, 14))
    )


def is_name(row: Sequence[Any]) -> bool:
    """Whether a row has the shape of an interned name's."""
    return len(row) == 2 and isinstance(row[0], int) and isinstance(row[1], str)


def _record(payload: bytes, rowid: int | None) -> Row:
    size, at = _varint(payload, 0)
    types = []
    while at < size:
        kind, at = _varint(payload, at)
        types.append(kind)
    if at != size or not 0 < len(types) <= _COLUMNS_MAX:
        raise ValueError("not a record")
    out: list[Any] = []
    for kind in types:
        width = (kind - 12) // 2 if kind >= 12 else _WIDTHS[kind]
        piece = payload[at : at + width]
        if len(piece) != width:
            raise ValueError("cut short")
        at += width
        out.append(_value(kind, piece))
    if rowid is not None and out[0] is None:
        out[0] = rowid
    return tuple(out)


def _value(kind: int, piece: bytes) -> Any:
    if kind >= 12:
        return piece.decode() if kind % 2 else piece
    if kind == 0:
        return None
    if kind == 7:
        return struct.unpack(">d", piece)[0]
    return kind - 8 if kind in (8, 9) else int.from_bytes(piece, "big", signed=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n in range(8):
        byte = data[at + n]
        value = (value << 7) | (byte & 127)
        if byte < 128:
            return value, at + n + 1
    value = (value << 8) | data[at + 8]
    return value - (1 << 64 if value >> 63 else 0), at + 9


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
