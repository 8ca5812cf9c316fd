"""The tree of a file store as it lies there: where the file of a key can be, and what a directory has of objects."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from holdfast.objects.files.names import MORE, TypedNames
from holdfast.objects.keys import KEY_BYTES_MAX


class Where(NamedTuple):
    """Where the file of a key can be."""

    directory: str
    names: list[str]
    """The directory's, below the root."""
    stem: str
    candidates: list[str]

    def found(self, directory: int | None = None) -> tuple[list[str], list[str]]:
        """The candidates that are there, best first, and those whose place something else has.

        Args:
            directory: open, if it is: names in it are found sooner than by their paths.
        """
        files: list[str] = []
        taken: list[str] = []
        for name in self.candidates:
            try:
                mode = os.lstat(name if directory else f"{self.directory}/{name}", dir_fd=directory).st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            (files if stat.S_ISREG(mode) else taken).append(name)
        return files, taken

    def relative(self, file: str) -> str:
        """The path below the root of a file of this name."""
        return "/".join((*self.names, file))


class Entry(NamedTuple):
    """A file, or a directory whose key ends with a slash."""

    key: str
    path: str
    file: bool
    rank: int


def where_of(root: str, names: TypedNames, key: str) -> Where:
    """Where the file of a key can be."""
    way, stem = names.place(key)
    return Where("/".join((root, *way)), way, stem, names.candidates(stem))


def entries(names: TypedNames, base: str, path: str, prefix: str, after: str) -> Iterator[Entry]:
    """What lies in a directory that can have to do with these keys, in order of the keys."""
    best: dict[str, Entry] = {}
    for entry in _scan(names, base, path, ()):
        key = entry.key
        if entry.file:
            if not key.startswith(prefix) or key <= after:
                continue
            other = best.get(key)
            if other is not None and other.rank <= entry.rank:
                continue
        elif not (key.startswith(prefix) or prefix.startswith(key)) or not (key > after or after.startswith(key)):
            continue
        best[key] = entry
    # The key of a directory ends with its slash, and all keys in it begin so: one order for both.
    return iter([best[key] for key in sorted(best)])


def _scan(names: TypedNames, base: str, path: str, carried: tuple[str, ...]) -> Iterator[Entry]:
    try:
        found = [*os.scandir(path)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        name = entry.name
        if name[0] == ".":
            continue
        if entry.is_dir(follow_symlinks=False):
            if name.endswith(MORE):
                yield from _scan(names, base, entry.path, (*carried, name))
                continue
            segment = names.directory_segment(name, carried)
            if segment is not None:
                yield Entry(f"{base}{segment}/", entry.path, False, 0)
        elif entry.is_file(follow_symlinks=False):
            stood = names.segment(name, carried)
            if stood is not None and (len(base) < 200 or len((base + stood[0]).encode()) <= KEY_BYTES_MAX):
                yield Entry(base + stood[0], entry.path, True, stood[1])
