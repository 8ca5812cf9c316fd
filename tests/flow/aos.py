"""The storages on which the blocks of the AOS specification run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from holdfast.objects import StorageConfig, StorageManager
from tests.services_cloud import shared_azurite, shared_moto

Kind = str
KINDS = ("file", "azure", "s3")
logger = logging.getLogger("AOS.Storage")


def config_of(kind: Kind, directory: Path) -> StorageConfig:
    """A storage of this kind with nothing in it."""
    if kind == "azure":
        azurite = shared_azurite()
        return StorageConfig(
            storage_type="azure", connection_string=azurite.connection_string, container=azurite.container()
        )
    if kind == "s3":
        moto = shared_moto()
        return StorageConfig(storage_type="s3", bucket=moto.bucket(), **moto.options)
    return StorageConfig(storage_type="file", base_path=str(directory / "data"))


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> StorageConfig:
    """Each of the three that the specification names."""
    return config_of(request.param, tmp_path)


def run(config: StorageConfig, block: Callable[[StorageManager], Coroutine[Any, Any, None]]) -> None:
    """Runs a block on a manager of its own."""

    async def use() -> None:
        async with StorageManager(config) as storage:
            await block(storage)

    asyncio.run(use())
