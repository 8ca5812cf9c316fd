"""Azure's tables keep the laws of tables: on Azurite, over http with the account's key."""

from __future__ import annotations

from pathlib import Path

from holdfast.objects import AzureAccount, AzureTables
from holdfast.testing.tables import TableContract
from tests.services_cloud import shared_azurite


class TestAzureTables(TableContract):
    def make(self, directory: Path) -> AzureTables:
        return AzureTables(AzureAccount(shared_azurite().connection_string))
