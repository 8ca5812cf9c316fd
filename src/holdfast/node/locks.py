"""Whose turn it is among the processes that share a directory. A lock ends with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone(directory: Path, lock: str) -> Iterator[bool]:
    """Whether nobody else is at it, for as long as the block lasts; whoever is not waits for nobody.

    Args:
        directory: what is shared.
        lock: the name of the file in it that stands for the work; it is made, and stays.
    """
    fd = os.open(directory / lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Waits until nobody else changes a directory as a whole, and keeps others waiting while the block lasts.

    The directory itself carries the lock: the files that are changed so are replaced, and could not.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
