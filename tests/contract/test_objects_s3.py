"""S3, as moto speaks it, keeps the laws of object stores."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from holdfast.objects import ObjectStore, open_store
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from holdfast.testing.objects_many import Races
from tests.services_cloud import shared_moto


class S3:
    """How it is made: a bucket for each directory."""

    made: ClassVar[dict[Path, str]] = {}

    def make(self, directory: Path) -> ObjectStore:
        service = shared_moto()
        if directory not in self.made:
            self.made[directory] = service.bucket()
        return open_store(f"s3://{self.made[directory]}/some/prefix", **service.options)


class TestS3Basic(S3, Basic): ...


class TestS3Ranges(S3, Ranges): ...


class TestS3Names(S3, Names): ...


class TestS3Listing(S3, Listing): ...


class TestS3Conditions(S3, Conditions): ...


class TestS3Races(S3, Races):
    ROUNDS = 6
