"""The file of a key, and the key of a file: one to one, readable, and possible on every file system.

``agent_configs/ceo`` stored as JSON is ``agent_configs/ceo.json``, beside the directory ``agent_configs/ceo`` of
``agent_configs/ceo/current``: the last segment and a suffix for its type make the file's name, so that files and
directories do not meet. What some system cannot have in a name is percent-encoded; a name that this encoding would not
have made is the name of no object. `PlainNames` adds no suffix: the key is the path.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

from holdfast.errors import StorageRefused
from holdfast.objects.keys import check_key
from holdfast.objects.port import TYPE

JSON: Final = ".json"
TEXT: Final = ".txt"
OTHER: Final = ".bin"
SUFFIXES: Final = (JSON, TEXT, OTHER)
MORE: Final = "%+"
"""Ends the name of a directory in which the rest of a long segment lies."""
ASIDE: Final = "%"
"""Ends the name of a plain file whose own name a directory needed. The encoding makes neither."""
_WAYS_MAX: Final = 1_000
_PART_BYTES: Final = 240  # a name has 255 bytes; a suffix and a mark must find room

_SIMPLE: Final = re.compile(r"[a-z0-9_-]+", re.IGNORECASE)
_SIMPLE_FOLDED: Final = re.compile(r"[a-z0-9_-]+")
_UNSAFE: Final = re.compile(r'[%<>:"|?*]')
_ESCAPED: Final = re.compile(r"(?:%[0-9A-F]{2})+")
_TOKEN: Final = re.compile(r"%[0-9A-F]{2}|.", re.DOTALL)
_DEVICE: Final = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.I | re.S
)


# A table of our own: Python's differs from version to version, and the system's from machine to machine.
_TYPES: Final = {
    "csv": "text/csv",
    "gif": "image/gif",
    "htm": "text/html",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "log": "text/plain",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "pdf": "application/pdf",
    "png": "image/png",
    "py": "text/x-python",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "toml": "application/toml",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webp": "image/webp",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
}


@functools.lru_cache(maxsize=100)
def kind_of(content_type: str) -> str:
    """The suffix of files of this type."""
    plain = content_type.partition(";")[0].strip().lower()
    if plain == "application/json" or plain.endswith("+json"):
        return JSON
    return TEXT if plain.startswith("text/") else OTHER


def type_of(name: str) -> str:
    """The type that a file's name speaks of; of ``report.pdf.bin`` what stands before the suffix."""
    name = name.removesuffix(ASIDE)
    stem, dot, suffix = name.removesuffix(OTHER).rpartition(".")
    return _TYPES.get(suffix.lower(), TYPE) if stem and dot else TYPE


class TypedNames:
    """Names with a suffix for the type that an object had when it was created.

    Args:
        folding: the file system takes ``A`` and ``a``, or two forms of ``é``, for the same name.
    """

    aside = OTHER
    """Ends the name that a file without suffix is given when a directory needs its own."""

    def __init__(self, folding: bool = False) -> None:
        self.folding = folding
        self._simple = _SIMPLE_FOLDED if folding else _SIMPLE
        self._ways: dict[str, list[str]] = {}

    def directories(self, key: str) -> list[str]:
        """The directories on the way to the file of a key, the names in order."""
        above = key[: key.rfind("/") + 1]
        way = self._ways.get(above)
        if way is None:
            way = [part for segment in above.split("/")[:-1] for part in self._parts(self.directory(segment))]
            if len(self._ways) >= _WAYS_MAX:
                self._ways.clear()
            self._ways[above] = way
        return way

    def place(self, key: str) -> tuple[list[str], str]:
        """The directories in which the file of a key lies, and the name that it has without a suffix."""
        way = self.directories(key)
        *more, stem = self._parts(self.encoded(key[key.rfind("/") + 1 :]))
        return (way + more if more else way), stem

    def candidates(self, stem: str) -> list[str]:
        """Every name that the file with this stem can have; best first."""
        # A file that somebody dropped here without a suffix comes before the name it is given when it is moved aside,
        # so that a reader who goes through them in this order does not miss it.
        bare = () if stem.endswith(SUFFIXES) else ("",)
        return [stem + suffix for suffix in (JSON, TEXT, *bare, OTHER)]

    def name(self, stem: str, content_type: str) -> str:
        """The name of the file that a new object gets; one of the `candidates`."""
        return stem + kind_of(content_type)

    def segment(self, name: str, carried: tuple[str, ...] = ()) -> tuple[str, int] | None:
        """The last segment of the key of a file, and how good a name for it this is (0 is best); None: no object's.

        Args:
            name: the file's.
            carried: the `MORE` directories it lies in.
        """
        stem, rank = name, 2
        for suffix in SUFFIXES:
            if name.endswith(suffix):
                stem, rank = name[: -len(suffix)], {JSON: 0, TEXT: 1, OTHER: 3}[suffix]
        found = self._decoded(stem, carried, directory=False)
        return None if found is None else (found, rank)

    def directory_segment(self, name: str, carried: tuple[str, ...] = ()) -> str | None:
        """The segment that a directory's name stands for; None: no object lies there."""
        return self._decoded(name, carried, directory=True)

    def shared(self, key: str) -> str:
        """What the files of this key have in common, however they are named: for locks."""
        return key

    def directory(self, segment: str) -> str:
        """A segment as a directory's name, which never looks like a file's."""
        name = self.encoded(segment)
        if name.endswith(SUFFIXES):
            stem, _, suffix = name.rpartition(".")
            name = f"{stem}%2E{suffix}"
        return name

    def encoded(self, segment: str) -> str:
        """A segment as the beginning of a file's name."""
        if self._simple.fullmatch(segment) and not _DEVICE.fullmatch(segment):
            return segment
        if self.folding:
            whole = unicodedata.is_normalized("NFC", segment)
            name = "".join(
                _percent(sign) if _UNSAFE.match(sign) or _folds(sign) or (sign > "\x7f" and not whole) else sign
                for sign in segment
            )
        else:
            name = _UNSAFE.sub(lambda found: _percent(found[0]), segment)
        if name[0] == ".":
            name = "%2E" + name[1:]
        if name[-1] in ". ":
            name = name[:-1] + _percent(name[-1])
        if _DEVICE.fullmatch(name):
            name = _percent(name[0]) + name[1:]
        return name

    def _parts(self, name: str) -> list[str]:
        """A name in parts that a file system takes; all but the last are `MORE` directories."""
        if len(name) <= _PART_BYTES // 4 or len(name.encode()) <= _PART_BYTES:
            return [name]
        parts: list[str] = []
        part = ""
        size = 0
        for token in _TOKEN.findall(name):
            room = len(token.encode())
            if size + room > _PART_BYTES:
                parts.append(part + MORE)
                part, size = "", 0
            part, size = part + token, size + room
        return [*parts, part]

    def _decoded(self, name: str, carried: tuple[str, ...], directory: bool) -> str | None:
        if not carried and self._simple.fullmatch(name) and len(name) <= 200 and not _DEVICE.fullmatch(name):
            return name
        whole = "".join(part.removesuffix(MORE) for part in carried) + name
        try:
            segment = _ESCAPED.sub(lambda found: bytes.fromhex(found[0].replace("%", "")).decode(), whole)
            if "/" in segment:
                return None
            check_key(segment)
        except (UnicodeDecodeError, StorageRefused):
            return None
        made = self._parts(self.directory(segment) if directory else self.encoded(segment))
        return segment if made == [*carried, name] else None


class PlainNames(TypedNames):
    """The key is the path, as the seed's file backend has it: nothing is added to it."""

    aside = ASIDE

    def candidates(self, stem: str) -> list[str]:
        return [stem, stem + ASIDE]

    def name(self, stem: str, content_type: str) -> str:
        return stem

    def segment(self, name: str, carried: tuple[str, ...] = ()) -> tuple[str, int] | None:
        rank = 1 if name.endswith(ASIDE) else 0
        found = self._decoded(name.removesuffix(ASIDE), carried, directory=False)
        return None if found is None else (found, rank)

    def shared(self, key: str) -> str:
        # `TypedNames` over the same directory has this file under a key without the suffix: one lock for both.
        stem, dot, suffix = key.rpartition(".")
        return stem if f"{dot}{suffix}" in SUFFIXES and stem and stem[-1] != "/" else key

    def directory(self, segment: str) -> str:
        return self.encoded(segment)


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _folds(sign: str) -> bool:
    """Whether some file system may take another sign for this one."""
    return sign.casefold() != sign or sign.upper().casefold() != sign
