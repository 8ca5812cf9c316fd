"""Reads every page of a file from the disk, also those that no query would meet, and says which are not as written."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import Final

import apsw

PAGES_NAMED_MAX: Final = 100
RESERVED: Final = 8
_TRIES: Final = 5


def examine(connection: apsw.Connection, size: int, page_size: int) -> list[str]:
    """What is wrong with the file's pages and indexes, in words; empty when it is sound.

    Reads through SQLite's own file handle: opening the file beside it would drop SQLite's locks on closing.

    Args:
        connection: a fresh one, so that no cache answers for the disk.
        size: the file's size in bytes.
        page_size: bytes of a page.
    """
    found = []
    try:
        connection.execute("PRAGMA user_version").fetchall()  # opens the WAL
        covered = _in_wal(connection, page_size)
    except apsw.Error as error:
        return [f"the file cannot be opened: {error}"]
    if size % page_size and size // page_size + 1 not in covered:
        found.append(f"the file ends inside a page: {size} bytes")
    for number in range(1, size // page_size + 1):
        if number not in covered and not _sound(connection, number, page_size):
            found.append(f"page {number} is not what was written")
            if len(found) >= PAGES_NAMED_MAX:
                return [*found, "and perhaps more: the scrub stops here"]
    if size >= page_size and 1 not in covered and not found and _reserved(connection, page_size) != RESERVED:
        found.append("the header says that pages carry no checksums")
    try:
        found += [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    except apsw.Error as error:
        found.append(f"the file cannot be checked: {error}")
    return found


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
