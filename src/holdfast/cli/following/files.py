"""A tool's files: found below its folders, and read by whole lines in bounded memory."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from holdfast import codec
from holdfast.cli.transcripts.tools import PACKED, Tool

LOT_BYTES: Final = 256 << 10
LOT_LINES: Final = 200
"""So many bytes or lines are read, and written in one commit."""
LINE_BYTES_MAX: Final = 16 << 20
"""A longer line is kept in pieces, and not read."""
PIECE_BYTES: Final = 1 << 20
_UNPACKED_MAX: Final = 16 << 30

Complain = Callable[[str, str], None]
"""Told of a path and what is wrong with it."""


class Found(msgspec.Struct, frozen=True):
    """A file of a tool: `rel` is its path below the tool's folder, with slashes."""

    rel: str
    path: str
    kind: str


def home_of(tool: Tool, given: Path | None) -> Path:
    """The tool's folder: a given one, or the environment's, or the usual one.

    A folder that is itself one of the places in it (``~/.claude/projects``) stands for the folder around it.
    """
    if given is not None:
        path = Path(os.path.abspath(given.expanduser()))
        return path.parent if path.name in tool.places and not (path / path.name).is_dir() else path
    named = os.environ.get(tool.variable)
    if named:
        return Path(os.path.abspath(Path(named).expanduser())) / tool.inside
    return Path.home() / tool.home


def find(tool: Tool, home: Path, complain: Complain) -> Iterator[Found]:
    """Every file of a tool, in a steady order; what cannot be looked into is told, and passed over.

    A folder without any of the tool's places stands for the first of them, unless it is the tool's usual one.
    """
    places = [(place, str(home / place)) for place in tool.places if (home / place).is_dir()]
    if not places and home.is_dir() and home != home_of(tool, None):
        places = [(tool.places[0], str(home))]
    seen: set[tuple[int, int]] = set()
    for rel, path in places:
        yield from _below(tool, rel, path, complain, seen)


def _below(tool: Tool, rel: str, path: str, complain: Complain, seen: set[tuple[int, int]]) -> Iterator[Found]:
    try:
        here = os.stat(path)
        if (here.st_dev, here.st_ino) in seen:
            return  # links in a circle, or two ways to one folder
        seen.add((here.st_dev, here.st_ino))
        with os.scandir(path) as listed:
            entries = sorted(listed, key=lambda each: each.name)
    except OSError as error:
        complain(path, error.strerror or str(error))
        return
    for entry in entries:
        inside = f"{rel}/{entry.name}"
        try:
            folder = entry.is_dir()
            kind = "" if folder else tool.kind(inside)
            if kind and entry.is_symlink():
                status = entry.stat()
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
        except OSError as error:
            complain(entry.path, error.strerror or str(error))
            continue
        if folder:
            yield from _below(tool, inside, entry.path, complain, seen)
        elif kind:
            yield Found(inside, entry.path, kind)


@contextmanager
def opened(path: str) -> Iterator[tuple[BinaryIO, os.stat_result, int]]:
    """A file to read from, its status, and how many bytes it gives; a packed one is unpacked beside, on the disk.

    Raises:
        OSError: it cannot be read, or is no file.
        UsageError: it is packed, and damaged.
    """
    # A pipe of this name would never answer; what is no file is refused once its kind is known.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "no file", path)
        if not path.endswith(PACKED):
            yield file, status, status.st_size
            return
        with tempfile.TemporaryFile() as plain:
            pieces = iter(lambda: file.read(PIECE_BYTES), b"")
            for piece in codec.expanded("zstd", pieces, _UNPACKED_MAX):
                plain.write(piece)
            size = plain.tell()
            yield plain, status, size


def read(file: BinaryIO, start: int, size: int) -> bytes:
    """So many bytes from there; fewer where the file ends before."""
    file.seek(start)
    pieces: list[bytes] = []
    while size > 0 and (piece := file.read(min(size, PIECE_BYTES))):
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def whole_lines(file: BinaryIO, start: int, end: int) -> list[bytes]:
    """The next lines with their ends, about `LOT_BYTES` of them, or one that is longer.

    None at all: no line ends before `end`, or the next one is longer than `LINE_BYTES_MAX`.
    """
    data = read(file, start, min(LOT_BYTES, end - start))
    cut = data.rfind(b"\n") + 1
    if cut:
        return _split(data[:cut])
    reach = line_end(file, start + len(data), min(end, start + LINE_BYTES_MAX))
    return [read(file, start, reach - start)] if reach else []


def line_end(file: BinaryIO, start: int, end: int) -> int:
    """Where the line that begins at `start` ends, however long it is; 0 if not before `end`."""
    while start < end:
        piece = read(file, start, min(PIECE_BYTES, end - start))
        if not piece:
            return 0
        found = piece.find(b"\n")
        if found >= 0:
            return start + found + 1
        start += len(piece)
    return 0


def _split(data: bytes) -> list[bytes]:
    return [line + b"\n" for line in data.split(b"\n", LOT_LINES)[:-1]]
