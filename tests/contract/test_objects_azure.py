"""Azure Blob, as Azurite speaks it, keeps the laws of object stores."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from holdfast.objects import ObjectStore, open_store
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Races
from tests.services_cloud import shared_azurite


class Azure:
    """How it is made: a container for each directory."""

    made: ClassVar[dict[Path, str]] = {}

    def make(self, directory: Path) -> ObjectStore:
        service = shared_azurite()
        if directory not in self.made:
            self.made[directory] = service.container()
        return open_store(
            f"azure://{self.made[directory]}/some/prefix", **{"connection_string": service.connection_string}
        )


class TestAzureBasic(Azure, Basic): ...


class TestAzureRanges(Azure, Ranges): ...


class TestAzureNames(Azure, Names): ...


class TestAzureListing(Azure, Listing): ...


class TestAzureConditions(Azure, Conditions): ...


class TestAzureRaces(Azure, Races):
    ROUNDS = 6
