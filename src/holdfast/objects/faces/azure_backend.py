"""The seed's AzureStorageBackend: an Azure storage account's blobs, tables and queues, for asyncio."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from holdfast.errors import ObjectConflict
from holdfast.objects.azure_door import AzureAccount
from holdfast.objects.faces.account import CONTAINER, Access, AccountBackend
from holdfast.objects.opening import open_store
from holdfast.objects.port import ObjectStore
from holdfast.objects.queues.azure import AzureQueues
from holdfast.objects.tables.azure import AzureTables
from holdfast.objects.tables.keys import write_service


class AzureStorageBackend(AccountBackend):
    """Blobs, tables and queues of an Azure storage account. Nothing is asked of it before the first call.

    Args:
        connection_string: as the portal shows it, or ``UseDevelopmentStorage=true`` for an emulator on this machine.
        account_url: ``https://<account>.blob.core.windows.net``, in place of it.
        credential: beside `account_url`: of `azure.identity`, such as ``DefaultAzureCredential()``.
        urls: where ``table`` and ``queue`` are, if `account_url` does not tell.
        ca_file: a file with certificates to trust beside the system's.
        container: the one for `save`, `load` and the rest of `StorageBackend`.

    Raises:
        MissingExtra: Azure's packages are not installed: ``pip install 'holdfast[azure]'``.
        StorageRefused: not an account's address, or one in plain http that is not on this machine.
    """

    def __init__(
        self,
        connection_string: str | None = None,
        *,
        account_url: str | None = None,
        credential: Any = None,
        urls: Mapping[str, str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        container: str = CONTAINER,
    ) -> None:
        super().__init__(container)
        self.account = AzureAccount(
            connection_string, account_url=account_url, credential=credential, urls=urls, ca_file=ca_file
        )
        self._tables = AzureTables(self.account)
        self._queues = AzureQueues(self.account)

    @property
    def tables(self) -> AzureTables:
        """The account's tables."""
        return self._tables

    @property
    def queues(self) -> AzureQueues:
        """The account's queues."""
        return self._queues

    def _make_container(self, name: str, level: Access) -> bool:
        client = self.account.containers()
        public = None if level == "private" else level
        try:
            self.account.call(
                lambda: client.create_container(write_service(name), public_access=public),
                f"create the container {name!r}",
                again=True,
            )
        except ObjectConflict:
            return False
        return True

    def _has_container(self, name: str) -> bool:
        client = self.account.containers().get_container_client(write_service(name))
        return bool(self.account.call(client.exists, f"look for the container {name!r}", again=True))

    def _open_container(self, name: str) -> ObjectStore:
        return open_store(f"azure://{write_service(name)}", **self.account.store_options())

    def _close(self) -> None:
        super()._close()
        self.account.close()
