"""An S3 server that keeps objects as files and ignores preconditions: what it lacks is found, said and refused.

Its overwrites are not atomic either: a reader in between may see half of one, without the metadata that would tell. So
of the races none is run here, but all of them in `test_objects_arbitrated`, where no body is ever overwritten.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from holdfast.errors import StorageRefused
from holdfast.objects import ABSENT, ObjectStore, open_store
from holdfast.objects.port import CREATE, NESTED, SWAP
from holdfast.testing.objects import Basic, Conditions, Listing, Names, Ranges
from tests.services_cloud import Rclone, shared_rclone


class Plain:
    """How it is made: a bucket for each directory."""

    made: ClassVar[dict[Path, str]] = {}

    def make(self, directory: Path) -> ObjectStore:
        if directory not in self.made:
            self.made[directory] = shared_rclone().bucket()
        return open_store(f"s3://{self.made[directory]}", names="marked", **shared_rclone().options)


class TestPlainBasic(Plain, Basic): ...


class TestPlainRanges(Plain, Ranges): ...


class TestPlainNames(Plain, Names):
    def test_metadata_and_types_that_no_header_carries_are_refused(self, tmp_path: Path) -> None:
        """This server counts its own headers too, so what S3 allows may be too much; it says so, and we pass it on."""
        with self.opened(tmp_path) as store:
            with pytest.raises(StorageRefused, match="MetadataTooLarge"):
                store.put("one", b"1", metadata={"a": "x" * 1999})
            assert not store.exists("one")
            store.put("one", b"1", metadata={"a": "x" * 1700})
            assert store.head("one").metadata == {"a": "x" * 1700}


class TestPlainListing(Plain, Listing): ...


class TestPlainConditions(Plain, Conditions): ...


def test_what_it_ignores_is_lacked_and_said_why(rclone: Rclone) -> None:
    with open_store(f"s3://{rclone.bucket()}", **rclone.options) as store:
        assert {CREATE, SWAP, NESTED} <= store.lacks
        health = store.health()
        assert health.ok
        assert "ignores If-None-Match" in health.note
        assert "ignores If-Match" in health.note
        first = store.put("one", b"1")
        for expect in (ABSENT, first.etag):
            with pytest.raises(StorageRefused, match="lacks"):
                store.put("one", b"2", expect=expect)
        assert store.read("one") == b"1"
        assert [info.key for info in store.list()] == ["one"]


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b/c", "a"), ("a", "a/b/c")])
def test_a_key_under_an_object_is_refused_and_nothing_lost(rclone: Rclone, first: str, second: str) -> None:
    with open_store(f"s3://{rclone.bucket()}", retries=1, **rclone.options) as store:
        store.put(first, b"1")
        with pytest.raises(StorageRefused, match="keeps objects as files"):
            store.put(second, b"2")
        assert store.read(first) == b"1"
        assert [info.key for info in store.list()] == [first]


def test_a_marked_store_refuses_what_would_collide(rclone_directory: Rclone) -> None:
    bucket = rclone_directory.bucket()
    with open_store(f"s3://{bucket}", names="marked", **rclone_directory.options) as store:
        store.put("a", b"1")
        store.put("a/b", b"2")
        with pytest.raises(StorageRefused, match="end with a space"):
            store.put("a /b", b"3")
        assert [info.key for info in store.list()] == ["a", "a/b"]
    assert rclone_directory.served is not None
    assert sorted(p.name for p in (rclone_directory.served / bucket).rglob("*") if p.is_file()) == ["a ", "b "]
