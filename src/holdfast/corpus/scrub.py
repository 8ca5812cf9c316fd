"""Reads every page of a file from the disk, also those that no query would meet, and says which are not as written."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable
from typing import Final, Literal

import apsw

Part = Literal["size", "indexes"] | tuple[int, int]
PAGES_NAMED_MAX: Final = 100
ALL: Final = 1 << 32
"""More pages than a file can have."""
RESERVED: Final = 8
_TRIES: Final = 5


def examine(connection: apsw.Connection, sized: Callable[[], int], page_size: int, part: Part) -> list[str]:
    """What is wrong with one part of the file, in words; empty when it is sound.

    Reads through SQLite's own file handle: opening the file beside it would drop SQLite's locks on closing.

    Args:
        connection: a fresh one, so that no cache answers for the disk.
        sized: the file's size in bytes, as of the call.
        page_size: bytes of a page.
        part: ``size``, ``indexes``, or (the first page, how many at most) of the pages.
    """
    if part == "indexes":
        return _indexes(connection)
    try:
        # In this order: what a checkpoint moves meanwhile is in the WAL as seen before, or in the file as seen after.
        count = int(connection.pragma("page_count"))
        covered = _in_wal(connection, page_size)
        size = sized()
    except apsw.Error as error:
        return [f"the file cannot be opened: {error}"]
    if part == "size":
        return _size(count, size, page_size, covered)
    return _pages(connection, size, page_size, covered, part)


def _size(count: int, size: int, page_size: int, covered: set[int]) -> list[str]:
    found = []
    if size % page_size and size // page_size + 1 not in covered:
        found.append(f"the file ends inside a page: {size} bytes")
    lost = sum(number not in covered for number in range(size // page_size + 1, count + 1)) - len(found)
    if lost > 0:
        found.append(f"the file is {lost} pages too short: {size} bytes for {count} pages of {page_size}")
    return found


def _pages(
    connection: apsw.Connection, size: int, page_size: int, covered: set[int], span: tuple[int, int]
) -> list[str]:
    found = []
    first, many = span
    for number in range(first, min(-(-size // page_size), first + many - 1) + 1):
        if number not in covered and not _sound(connection, number, page_size):
            found.append(f"page {number} is not what was written")
            if len(found) >= PAGES_NAMED_MAX:
                return [*found, "and perhaps more: the scrub stops here"]
    first_seen = first == 1 and size >= page_size and 1 not in covered
    if first_seen and not found and _reserved(connection, page_size) != RESERVED:
        found.append("the header says that pages carry no checksums")
    return found


def _indexes(connection: apsw.Connection) -> list[str]:
    try:
        # What rotted is the pages' finding; here only what SQLite would believe of its own trees.
        connection.execute("PRAGMA checksum_verification=0").fetchall()
        return [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    except apsw.Error as error:
        return [f"the file cannot be checked: {error}"]


def _in_wal(connection: apsw.Connection, page_size: int) -> set[int]:
    """The pages of which the WAL has a copy: a checkpoint that lost power may leave them torn, harmlessly."""
    pages: set[int] = set()
    with contextlib.suppress(apsw.Error):  # no WAL
        salts = connection.read("main", 1, 0, 32)[1][16:24]
        for at in itertools.count(32, 24 + page_size):
            whole, frame = connection.read("main", 1, at, 24)
            if not whole or frame[8:16] != salts:
                break
            pages.add(int.from_bytes(frame[:4], "big"))
    return pages


def _sound(connection: apsw.Connection, number: int, page_size: int) -> bool:
    # A page that a checkpoint is just writing may be met half-written; what rotted stays so.
    for attempt in range(_TRIES):
        try:
            whole, _ = connection.read("main", 0, (number - 1) * page_size, page_size)
        except apsw.Error:
            time.sleep(0.001 * attempt)
        else:
            return whole
    return False


def _reserved(connection: apsw.Connection, page_size: int) -> int:
    try:
        return connection.read("main", 0, 0, page_size)[1][20]
    except apsw.Error:
        return -1
