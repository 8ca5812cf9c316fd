"""Azure's queues keep the laws of queues: on Azurite, over http with the account's key."""

from __future__ import annotations

from pathlib import Path

from holdfast.objects import AzureAccount, AzureQueues
from holdfast.testing.queues import QueueContract
from tests.services_cloud import shared_azurite


class TestAzureQueues(QueueContract):
    def make(self, directory: Path, max_dequeues: int | None = 5) -> AzureQueues:
        return AzureQueues(AzureAccount(shared_azurite().connection_string), max_dequeues=max_dequeues)
