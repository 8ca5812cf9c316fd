"""An account in a directory of this machine, with the calls of `AzureStorageBackend`: the same code on a laptop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from holdfast.errors import StorageRefused
from holdfast.objects.faces.account import CONTAINER, Access, AccountBackend
from holdfast.objects.port import ObjectStore
from holdfast.objects.queues.port import DEQUEUES_MAX
from holdfast.objects.queues.sqlite import SqliteQueues
from holdfast.objects.sqlite import SqliteStore
from holdfast.objects.tables.keys import write_service
from holdfast.objects.tables.sqlite import SqliteTables

_ACCOUNT: Final = "account.db"
_CONTAINERS: Final = "containers"


class EmbeddedStorageBackend(AccountBackend):
    """Blobs, tables and queues in SQLite files: what `AzureStorageBackend` is, without Azure.

    ``account.db`` holds tables and queues, ``containers/<name>.db`` the blobs of one container. Several processes may
    use the directory. Nothing in it is public, whatever a container's access level.

    Args:
        path: the directory; made if it is not there, for its owner alone.
        container: the one for `save`, `load` and the rest of `StorageBackend`.
        max_dequeues: how often a message is given out before it is a dead letter; None: for ever.

    Raises:
        StorageRefused: not a directory, or a newer Holdfast's.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, container: str = CONTAINER, max_dequeues: int | None = DEQUEUES_MAX
    ) -> None:
        super().__init__(container)
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise StorageRefused(f"not a directory: {self.path}", hint="name one, or one that is not there")
        self._tables = SqliteTables(self.path / _ACCOUNT)
        self._queues = SqliteQueues(self.path / _ACCOUNT, max_dequeues=max_dequeues)

    @property
    def tables(self) -> SqliteTables:
        """The account's tables."""
        return self._tables

    @property
    def queues(self) -> SqliteQueues:
        """The account's queues."""
        return self._queues

    def _file(self, name: str) -> Path:
        # Azure's names: they have no capital letters, which some file systems do not tell apart.
        return self.path / _CONTAINERS / f"{write_service(name)}.db"

    def _make_container(self, name: str, level: Access) -> bool:
        if self._has_container(name):
            return False
        self._open_container(name).close()
        return True

    def _has_container(self, name: str) -> bool:
        return self._file(name).exists()

    def _open_container(self, name: str) -> ObjectStore:
        return SqliteStore(self._file(name))
