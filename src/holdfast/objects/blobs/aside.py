"""A blob out of sight, while everybody who may refer to it is asked: it comes back, or goes for good."""

from __future__ import annotations

import contextlib
from pathlib import Path

from holdfast.disk import sync_directory
from holdfast.objects.blobs.files import BlobFiles


def put_aside(files: BlobFiles, digest: bytes) -> None:
    """Takes a blob out of sight; one that is not there, or is aside already, is as it should be."""
    aside = _place(files, digest)
    aside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        files.path(digest).rename(aside)


def bring_back(files: BlobFiles, digest: bytes) -> None:
    """Puts a blob back that is aside, unless it was written again meanwhile."""
    aside, path = _place(files, digest), files.path(digest)
    with contextlib.suppress(FileNotFoundError):
        if path.exists():
            aside.unlink()
        else:
            aside.rename(path)
            for directory in [*path.parents][:3]:
                sync_directory(directory)


def drop_aside(files: BlobFiles, digest: bytes) -> None:
    """Removes a blob that is aside, for good."""
    aside = _place(files, digest)
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
        sync_directory(aside.parent)
        sync_directory(files.path(digest).parent)


def _place(files: BlobFiles, digest: bytes) -> Path:
    path = files.path(digest)
    return path.parents[2] / "aside" / path.name
