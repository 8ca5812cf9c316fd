"""fsspec's file system ``holdfast://``: files whose every version stays, in a node's log or at a hub.

    fs = fsspec.filesystem("holdfast", where="./node", agent="laptop")
    with fs.open("reports/june.csv", "wb") as file: ...

The one door to fsspec. It finds the class by its entry point, so nothing need be imported.
"""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any, Final, cast

from holdfast.errors import Conflict, MissingExtra
from holdfast.integrations.bodies import SIZE, Bodies
from holdfast.integrations.entries import Conversation
from holdfast.integrations.place import Place, Where

try:
    from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("fsspec is not installed", hint="pip install 'holdfast[fsspec]'") from error

COLLECTION: Final = "files-by-path"


class HoldfastFileSystem(AbstractFileSystem):
    """Files by path. A file is there whole when it is closed, or not at all; it is held in memory until then.

    Directories are what paths imply: one is there as long as a file is in it, or `mkdir` was asked for it by this
    object. Earlier versions: `versions(path)`, and ``open(path, at=revision)``.

    Args:
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
    """

    protocol = "holdfast"
    root_marker = ""
    cachable = False

    def __init__(
        self,
        where: Where = "",
        agent: str | None = None,
        *,
        shared: bool | None = None,
        collection: str = COLLECTION,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.bodies = Bodies(Place(where, agent=agent, shared=shared), collection)
        self._made: set[str] = set()

    # -- looking --------------------------------------------------------------------------------------------------

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """What is directly below a path; of a file, itself.

        Raises:
            FileNotFoundError: there is neither a file nor a directory of this name.
        """
        path = self._strip_protocol(path)
        prefix = f"{path}/" if path else ""
        rows: dict[str, dict[str, Any]] = {}
        for key, found in self.bodies.list(prefix).items():
            first, _, rest = key[len(prefix) :].partition("/")
            if rest:
                rows[prefix + first] = _directory(prefix + first)
            else:
                rows.setdefault(key, _file(key, found))
        for made in self._made:
            if made.startswith(prefix) and made != path:
                first = prefix + made[len(prefix) :].partition("/")[0]
                rows.setdefault(first, _directory(first))
        if not rows and path and path not in self._made:
            about = self.bodies.info(path)
            if about is None:
                raise FileNotFoundError(path)
            rows[path] = _file(path, about)
        found_rows = [rows[name] for name in sorted(rows)]
        return found_rows if detail else [row["name"] for row in found_rows]

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """What is known of a file or a directory.

        Raises:
            FileNotFoundError: there is neither.
        """
        path = self._strip_protocol(path)
        found = self.bodies.info(path, at=options.get("at")) if path else None
        if found is not None:
            return _file(path, found)
        if not path or path in self._made or any(made.startswith(f"{path}/") for made in self._made):
            return _directory(path)
        if self.bodies.list(f"{path}/"):
            return _directory(path)
        raise FileNotFoundError(path)

    def modified(self, path: str) -> datetime:
        """When a file was last written."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def created(self, path: str) -> datetime:
        """When a file was first written."""
        return datetime.fromtimestamp(self.info(path)["created"], UTC)

    def versions(self, path: str) -> list[dict[str, Any]]:
        """What a file was after each change, newest first; ``open(path, at=version["revision"])`` reads it."""
        path = self._strip_protocol(path)
        return [_file(path, each) for each in self.bodies.conversations.history(path.split("/"))]

    # -- writing --------------------------------------------------------------------------------------------------

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
        """Has an empty directory be there for this object; files make theirs by themselves.

        Raises:
            FileExistsError: it is there.
        """
        path = self._strip_protocol(path)
        if self.exists(path):
            raise FileExistsError(path)
        self._made.add(path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """The same, with those above it."""
        path = self._strip_protocol(path)
        if not self.exists(path):
            self._made.add(path)
        elif not exist_ok or self.isfile(path):
            raise FileExistsError(path)

    def rmdir(self, path: str) -> None:
        """Takes an empty directory away.

        Raises:
            OSError: it is not empty.
        """
        path = self._strip_protocol(path)
        if self.bodies.list(f"{path}/") or any(made.startswith(f"{path}/") for made in self._made):
            raise OSError(f"{path} is not empty")
        if path not in self._made:
            raise FileNotFoundError(path)
        self._made.discard(path)

    def rm_file(self, path: str) -> None:
        """Takes a file away; its versions stay."""
        if not self.bodies.delete(self._strip_protocol(path)):
            raise FileNotFoundError(path)

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Takes files away, and (`recursive`) all that is below a directory.

        Raises:
            FileNotFoundError: there is nothing of this name.
        """
        for each in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
            if not self.bodies.delete(each):
                self._made.discard(each)

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copies a file, or makes a directory like it."""
        data = self.bodies.get(self._strip_protocol(path1))
        if data is None:
            if self.isdir(path1):
                self.makedirs(path2, exist_ok=True)
                return
            raise FileNotFoundError(path1)
        self.bodies.put(self._strip_protocol(path2), data)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        """Writes a file whole; with ``mode="create"`` only where there is none.

        Raises:
            FileExistsError: there is one.
        """
        self._put(self._strip_protocol(path), value, new=mode == "create")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        """The bytes of a file, or some of them; ``at=`` reads an earlier version."""
        data = self.bodies.get(self._strip_protocol(path), at=options.get("at"))
        if data is None:
            raise FileNotFoundError(path)
        return data[start:end]

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **options: Any,
    ) -> Any:
        if mode == "rb":
            return io.BytesIO(self.cat_file(path, at=options.get("at")))
        if mode == "xb" and self.exists(path):
            raise FileExistsError(path)
        return _Writing(self, path, mode=mode, autocommit=autocommit, **options)

    def _put(self, path: str, data: bytes, *, new: bool) -> None:
        try:
            self.bodies.put(path, data, expect=0 if new else None)
        except Conflict as error:
            raise FileExistsError(path) from error

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.bodies.place.close()


class _Writing(AbstractBufferedFile):
    """A file that is being written: gathered in memory, and put whole when it is closed."""

    def __init__(self, fs: HoldfastFileSystem, path: str, mode: str, autocommit: bool, **options: Any) -> None:
        super().__init__(fs, path, mode=mode, autocommit=autocommit, **options)
        self._whole = bytearray()
        if "a" in mode:
            self._whole += fs.bodies.get(path) or b""
            self.loc = len(self._whole)

    def _initiate_upload(self) -> None:
        self.offset = 0

    def _upload_chunk(self, final: bool = False) -> bool:
        self._whole += self.buffer.getvalue()
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self) -> None:
        """Puts what was written in the file's place."""
        cast(HoldfastFileSystem, self.fs)._put(self.path, bytes(self._whole), new="x" in self.mode)

    def discard(self) -> None:
        """Forgets what was written."""
        self._whole.clear()


def _file(name: str, found: Conversation) -> dict[str, Any]:
    return {
        "name": name,
        "size": found.state.get(SIZE, 0),
        "type": "file",
        "created": found.created / 1000,
        "mtime": found.updated / 1000,
        "revision": found.revision,
    }


def _directory(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}
