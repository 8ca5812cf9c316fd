"""Files that assistants make and hand on: bytes by name, the same on all machines, with every version.

The bytes are objects of the agent that wrote them (`holdfast.node.objects`), proven when they are read. Which agent's
version is the one of a name is kept beside them, for all machines.
"""

from __future__ import annotations

import hashlib
import logging
import mimetypes
from typing import Any, Final

import msgspec

from holdfast.corpus.search import WORDS
from holdfast.errors import BlobCorrupt, NotFound, UsageError
from holdfast.integrations.mcp_server.shared import Raw, Shared
from holdfast.node.objects import OBJECTS, HoldfastStore
from holdfast.node.shelf import Row

logger = logging.getLogger(__name__)

COLLECTION: Final = "mcp-artifacts"
BYTES_MAX: Final = 16 << 20
"""A body is held whole in memory, several times over on its way through JSON."""
BINARY: Final = "application/octet-stream"
_TEXTS: Final = ("application/json", "application/xml", "application/yaml", "application/toml", "image/svg+xml")
_ENDINGS: Final = {".md": "text/markdown", ".yaml": "application/yaml", ".yml": "application/yaml"}


class Artifact(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A file by name.

    Attributes:
        name: with slashes for folders.
        mediaType: of its bytes.
        size: in bytes.
        sha256: of its bytes, in hex.
        agent: who wrote it.
        version: of this name in that agent's log.
        time: when, in seconds since 1970.
        description: what it is.
    """

    name: str
    mediaType: str
    size: int
    sha256: str
    agent: str
    version: int
    time: float
    description: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is meant to be read as UTF-8 text."""
        kind = self.mediaType.partition(";")[0].strip().lower()
        return kind.startswith("text/") or kind in _TEXTS or kind.endswith(("+json", "+xml"))


class Artifacts:
    """The files of all machines. Safe to share among threads.

    Args:
        shared: where it is kept which there are.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._objects = HoldfastStore(shared.store)

    def put(self, name: str, data: bytes, *, media_type: str = "", description: str = "") -> Artifact:
        """Keeps bytes under a name; what was there stays as an earlier version.

        Raises:
            UsageError: too many bytes, or an impossible name.
        """
        if len(data) > BYTES_MAX:
            raise UsageError(f"{len(data):,} bytes", hint=f"at most {BYTES_MAX:,}; larger files go through the hub")
        kind = media_type or _media_type_of(name, data)
        digest = hashlib.sha256(data).hexdigest()
        there = _sound(self.shared.rows([name]).get(name)) if name else None
        if there and (there.sha256, there.mediaType, there.description) == (digest, kind, description):
            return there  # said again: nothing new
        about = self._objects.put(name, data, content_type=kind)
        told: Raw = {
            "name": name,
            "mediaType": kind,
            "size": len(data),
            "sha256": digest,
            "agent": self.shared.store.agent,
            "version": int(about.version or 0),
            "description": description,
            WORDS: f"{name} {description}",
        }
        self.shared.change({name: lambda _: told})
        return self.about(name)

    def about(self, name: str) -> Artifact:
        """What is known of a file.

        Raises:
            NotFound: there is none of this name.
        """
        found = _sound(self.shared.rows([name]).get(name))
        if found is None:
            raise NotFound(f"there is no artifact {name!r:.200}", hint="artifact_list shows what there is")
        return found

    def get(self, name: str) -> tuple[Artifact, bytes]:
        """A file with its bytes, proven to be those that were put.

        Raises:
            NotFound: there is none of this name; or its bytes are not on this machine, and no hub answers.
        """
        found = self.about(name)
        data = self.shared.store.get(name, agent=found.agent, at=found.version, collection=OBJECTS)
        if not isinstance(data, bytes) or hashlib.sha256(data).hexdigest() != found.sha256:
            raise BlobCorrupt(f"the bytes of {name!r:.200} are not those of its digest", hint="holdfast verify")
        return found, data

    def find(self, prefix: str = "") -> list[Artifact]:
        """The files whose names begin so, in the order of their names."""
        return [found for row in self.shared.every(prefix) if (found := _sound(row)) is not None]


def _sound(row: Row | None) -> Artifact | None:
    if row is None:
        return None
    try:
        fields: dict[str, Any] = {name: value for name, value in row.raw.items() if name in Artifact.__struct_fields__}
        return msgspec.convert({**fields, "time": row.time / 1000}, Artifact)
    except (msgspec.ValidationError, TypeError):
        logger.warning("%s of %s is no artifact", row.key, row.agent)
        return None


def _media_type_of(name: str, data: bytes) -> str:
    """What a file seems to be, by its name and, where that says nothing, its bytes."""
    dot = name.rpartition("/")[2].rfind(".")
    ending = name.rpartition("/")[2][dot:].lower() if dot >= 0 else ""
    guessed = _ENDINGS.get(ending) or mimetypes.guess_type(name)[0]
    if guessed:
        return guessed
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return BINARY
    return BINARY if b"\0" in data else "text/plain"
