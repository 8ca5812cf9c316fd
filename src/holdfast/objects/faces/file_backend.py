"""The AOS seed's `FileStorageBackend`: files by their paths below a directory, for asyncio.

The path is the key and the file's name: ``write("path/to/file.json", …)`` makes ``data/path/to/file.json``. Values come
back as they were written, whatever the name; a file that somebody dropped there is read as its name says. A store with
typed names over the same directory, such as `StorageManager` has, knows this file as the object ``path/to/file``.
"""

from __future__ import annotations

import os
from typing import Any

from holdfast.objects.faces.backend import StoreBackend
from holdfast.objects.files.store import FileStore
from holdfast.objects.values.serial import deserialise, serialise


class FileStorageBackend(StoreBackend):
    """Files below a directory, each whole or not there, and safe when `write` returns.

    Args:
        base_path: the directory; made if it is not there.
    """

    def __init__(self, base_path: str | os.PathLike[str] = "./data") -> None:
        super().__init__(FileStore(base_path, names="plain"))

    async def write(self, path: str, data: Any) -> None:
        """Stores a value in place of what was there; when it returns, it survives a power cut.

        Args:
            path: below the directory, with ``/`` between its parts.
            data: bytes, text, or what JSON can say (`objects.values.serial`).

        Raises:
            StorageRefused: a path that cannot be, or a value that would not come back as it is.
            StorageError: it could not be stored; what was there is as it was.
        """
        body, content_type = serialise(data)
        await self.save(path, body, content_type)

    async def read(self, path: str) -> Any:
        """The value at a path, as it was written; of a file dropped there: JSON, text or bytes, as its name says.

        Raises:
            ObjectNotFound: there is none; it is a `KeyError` too.
            ObjectCorrupt: its bytes are not what was stored, or not what its name says.
            StorageError: it could not be read.
        """
        body, content_type = await self.load_typed(path)
        return deserialise(body, content_type, key=path)

    async def list_files(self, prefix: str = "") -> list[str]:
        """The paths that begin with `prefix`, in order."""
        return await self.list_keys(prefix)
