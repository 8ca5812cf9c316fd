"""Blobs to which nothing refers: those that a crash left between a blob and its record, or that lost their records."""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from holdfast.integrity.checks import BLOB_SCRUB, Finding


def orphans(digests: Iterable[bytes], referred: Container[bytes]) -> Iterator[Finding]:
    """Blobs to which nothing refers: no damage, but room that nobody uses, or the remains of lost records."""
    for digest in digests:
        if digest not in referred:
            what = f"no record refers to the blob {digest.hex()}"
            yield Finding(
                BLOB_SCRUB, "", 0, what, "it only takes room, unless records are missing too", "a reference", "none"
            )


def old_files(blobs: Any, grace_s: float) -> Iterator[bytes]:
    """The blobs that lie here as files, and have for a while."""
    path = getattr(blobs, "path", None)
    if path is None:
        return  # where blobs are objects or rows, their own collector knows
    before = time.time() - grace_s
    for digest in blobs.iter():
        at: Path = path(digest)
        try:
            if at.stat().st_mtime <= before:
                yield digest
        except FileNotFoundError:
            continue
