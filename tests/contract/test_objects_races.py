"""Sixteen writers at every store that lets one of them win: no two winners of a key, and no count lost."""

from __future__ import annotations

from typing import ClassVar

import pytest

from holdfast.testing.objects_many import Races
from tests.contract.test_objects_arbitrated import OverRclone
from tests.contract.test_objects_azure import Azure
from tests.contract.test_objects_file import Files, Sidecars
from tests.contract.test_objects_holdfast import Node
from tests.contract.test_objects_memory import Memory
from tests.contract.test_objects_postgres import Postgres
from tests.contract.test_objects_redis import Redis
from tests.contract.test_objects_s3 import S3
from tests.contract.test_objects_sqlite import Sqlite

pytestmark = pytest.mark.long


class AtLength(Races):
    """A hundred rounds of sixteen."""

    COUNTERS: ClassVar[tuple[int, int] | None] = (16, 100)


class TestFile(Files, AtLength): ...


class TestSidecar(Sidecars, AtLength): ...


class TestMemory(Memory, AtLength): ...


class TestSqlite(Sqlite, AtLength): ...


class TestPostgres(Postgres, AtLength): ...


class TestRedis(Redis, AtLength): ...


class TestHoldfast(Node, AtLength): ...


class TestS3(S3, AtLength): ...


class TestArbitrated(OverRclone, AtLength): ...


class TestAzure(Azure, AtLength): ...
