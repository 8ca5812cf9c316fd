"""Bytes to and from an open file, whole: what the system calls leave to a loop."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from holdfast.errors import StorageRefused

PIECE_BYTES: Final = 1 << 20
LARGE_BYTES: Final = 4 << 20
"""From here on a thread costs little beside a digest: that of 4 MiB takes 2.5 ms."""
Bytes: TypeAlias = bytes | bytearray | memoryview


def pieces_of(source: Bytes | Path | Iterable[bytes]) -> Iterable[bytes]:
    """What is to be stored, piece by piece.

    Raises:
        StorageRefused: it is nothing of that, such as text.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return (bytes(source),)
    if isinstance(source, Path):
        return _of_file(source)
    # Text is made of texts, and an empty one of nothing: it would be stored as no bytes at all.
    if isinstance(source, str | Mapping) or not isinstance(source, Iterable):
        raise StorageRefused(
            f"an object is bytes, pieces of bytes or a Path, not {type(source).__name__}: {source!r:.80}",
            hint="text.encode(), or json.dumps(value).encode(); StorageManager.save takes values",
        )
    return source


def _of_file(path: Path) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def chunks_of(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in chunks of `size`, but for the last; none for no bytes."""
    held: list[bytes] = []
    have = 0
    for piece in pieces:
        at = 0
        while have + len(piece) - at >= size:
            end = at + size - have
            held.append(piece[at:end])
            yield b"".join(held) if len(held) > 1 else held[0]
            held, have, at = [], 0, end
        if at < len(piece):
            held.append(piece[at:])
            have += len(piece) - at
    if held:
        yield b"".join(held)


def write_at(fd: int, data: bytes, at: int) -> int:
    """Writes all of it at an offset; returns where it ends."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view[:PIECE_BYTES], at)
        view = view[done:]
        at += done
    return at


@contextlib.contextmanager
def beside(update: Callable[[bytes], None], data: bytes) -> Iterator[None]:
    """Updates a digest with the bytes; with many of them while the block runs. It is done when the block has ended."""
    thread = threading.Thread(target=update, args=(data,), name="holdfast-digest") if len(data) >= LARGE_BYTES else None
    try:
        if thread is not None:
            thread.start()
    except RuntimeError:  # this process may have no more of them
        thread = None
    if thread is None:
        update(data)
    try:
        yield
    finally:
        if thread is not None:
            thread.join()


def read_at(fd: int, size: int, offset: int) -> bytes:
    """So many bytes from an offset on, or what there is of them."""
    pieces: list[bytes] = []
    while size and (piece := os.pread(fd, min(size, PIECE_BYTES), offset)):
        pieces.append(piece)
        size -= len(piece)
        offset += len(piece)
    return b"".join(pieces)


def digest_of(fd: int) -> bytes:
    """The SHA-256 of a whole file."""
    found, at = hashlib.sha256(), 0
    while piece := os.pread(fd, PIECE_BYTES, at):
        found.update(piece)
        at += len(piece)
    return found.digest()
