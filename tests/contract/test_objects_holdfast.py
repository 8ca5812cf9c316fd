"""A node keeps the laws of object stores, and gives versions, times and copies at the hub with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import holdfast
from holdfast.errors import ObjectConflict, ObjectNotFound, StorageRefused, StoreClosed
from holdfast.node.objects import INFO, OBJECTS, HoldfastStore
from holdfast.objects import ObjectStore
from holdfast.testing.objects import LARGE, Basic, Conditions, Listing, Names, Ranges, keys
from holdfast.testing.objects_many import Races


class Node:
    """How it is made."""

    def make(self, directory: Path) -> ObjectStore:
        return holdfast.open_store(f"holdfast:{directory / 'node'}?agent=ada")


class TestHoldfastBasic(Node, Basic): ...


class TestHoldfastRanges(Node, Ranges): ...


class TestHoldfastNames(Node, Names): ...


class TestHoldfastListing(Node, Listing): ...


class TestHoldfastConditions(Node, Conditions): ...


class TestHoldfastRaces(Node, Races):
    ROUNDS = 40


def opened(path: Path, agent: str = "ada") -> HoldfastStore:
    store = holdfast.open_store(f"holdfast:{path}?agent={agent}")
    assert isinstance(store, HoldfastStore)
    return store


def test_every_version_stays_and_can_be_read_and_made_the_newest(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put("plan", b"one", content_type="text/plain", metadata={"by": "ada"})
        store.put("plan", LARGE)
        store.delete("plan")
        with pytest.raises(ObjectNotFound):
            store.read("plan")
        store.put("plan", b"four")
        found = store.versions("plan")
        assert [(info.version, info.size, info.content_type) for info in found] == [
            ("4", 4, "application/octet-stream"),
            ("2", len(LARGE), "application/octet-stream"),
            ("1", 3, "text/plain"),
        ]
        assert store.read_at("plan", 2) == LARGE
        assert store.read_at("plan", found[2].modified) == b"one"
        with pytest.raises(ObjectNotFound):
            store.read_at("plan", 3)
        info = store.rollback("plan", 1)
        assert (info.version, info.content_type, info.metadata) == ("5", "text/plain", {"by": "ada"})
        assert store.read("plan") == b"one"
        for missing in (lambda: store.versions("nobody"), lambda: store.read_at("nobody", 1)):
            with pytest.raises(ObjectNotFound):
                missing()


def test_an_object_is_the_value_of_its_key_and_its_type_a_record_before_it(tmp_path: Path) -> None:
    with holdfast.Store(tmp_path, agent="ada") as node:
        objects = HoldfastStore(node)
        objects.put("a/b", b'{"n": 1}', content_type="application/json")
        assert node.get("a/b", collection=OBJECTS) == b'{"n": 1}'
        assert node.get("a/b", collection=INFO)["type"] == "application/json"
        objects.close()
        assert node.get("a/b", collection=OBJECTS)  # a store that was given stays open


def test_a_merge_of_branches_that_parts_them_does_not_take_the_type_away(tmp_path: Path) -> None:
    """A merge writes each key by itself: the digest in the info still says whose it is."""
    with holdfast.Store(tmp_path, agent="ada") as node, HoldfastStore(node) as objects:
        objects.put("one", b"body", content_type="text/plain", metadata={"a": "1"})
        info = node.get("one", collection=INFO)
        node.put("one", info, collection=INFO)
        node.put("between", 1)
        node.put("one", b"body", collection=OBJECTS)
        assert (objects.head("one").content_type, objects.head("one").metadata) == ("text/plain", {"a": "1"})
        node.put("one", b"other", collection=OBJECTS)
        assert (objects.head("one").content_type, objects.head("one").metadata) == ("application/octet-stream", {})


def test_agents_on_one_machine_have_objects_of_their_own(tmp_path: Path) -> None:
    with opened(tmp_path, "ada") as ada, opened(tmp_path, "bob") as bob:
        ada.put("one", b"hers")
        assert keys(bob) == []
        bob.put("one", b"his", expect=0)
        with pytest.raises(ObjectConflict):
            ada.put("one", b"again", expect=bob.head("one").etag)
        assert (ada.read("one"), bob.read("one")) == (b"hers", b"his")


def test_a_forked_child_is_refused_and_says_why(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.put("one", b"1")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.put("one", b"2")
            except StoreClosed as error:
                code = 0 if error.hint else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert store.read("one") == b"1"


@pytest.mark.parametrize(
    "address", ["holdfast:", "holdfast:./x", "holdfast:?agent=ada", "holdfast:./x?agent=a&colour=red"]
)
def test_an_address_that_names_no_node_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageRefused):
        holdfast.open_store(address)
    assert not list(tmp_path.iterdir())
