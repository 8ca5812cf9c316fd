"""The laws of `holdfast.objects.port` as tests, one class an aspect, for every store there will ever be.

    class Mine:
        def make(self, directory):
            return MyStore(directory)

    class TestMineBasic(Mine, Basic): ...

`make` gives a store over the same objects each time it is called with the same directory, if the store can be opened
twice (`SHARED`). pytest collects the classes; nothing here imports it. A test of what a store `lacks` asserts that it
refuses, before anything is written. The aspects about many writers are in `holdfast.testing.objects_many`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageRefused, StoreClosed
from holdfast.objects.port import ABSENT, CREATE, SWAP, SWAP_DELETE, TYPE, ObjectStore

LARGE = bytes(range(256)) * (5 << 12)  # 5 MiB, more than one piece, more than one part of an upload
KEYS = (
    "a",
    "a/b",
    "a/b/c",
    "a-b",
    "a.json",
    "a.json/b",
    "A",
    "agent_configs/ceo",
    "agent_configs/ceo/current",
    "models/lora_adapters/ceo/v1.2",
    "metrics/performance/2025-12",
    "with space/and  two",
    "percent%2Fsign/100%",
    "signs/!#$&'()*+,;=:@[]~^{}|<>?\"`",
    "grüße/日本語/🌊",
    "e\u0301/\u00e9",
    "dots/..a/b../.hidden/end.",
    "con/nul/aux.txt",
    "x" * 200 + "/" + "y" * 200,
)
"""Keys that some store on earth gets wrong."""
NOT_KEYS = ("", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\\b", "a\x00b", "a\nb", "a\x7f", "x" * 201)


class StoreContract:
    """What the aspects share; a store's class gives `make`."""

    SHARED: ClassVar[bool] = True
    """Whether two stores made for one directory have the same objects."""

    def make(self, directory: Path) -> ObjectStore:
        """The store for this directory."""
        raise NotImplementedError

    @contextlib.contextmanager
    def opened(self, directory: Path) -> Iterator[ObjectStore]:
        """The store, closed when the block ends."""
        with self.make(directory) as store:
            yield store


@contextlib.contextmanager
def refuses(*errors: type[Exception]) -> Iterator[list[Exception]]:
    """Fails unless the block raises one of these; it lies in the list then."""
    caught: list[Exception] = []
    try:
        yield caught
    except errors as error:
        caught.append(error)
        return
    raise AssertionError(f"nothing was raised; expected one of {[error.__name__ for error in errors]}")


def keys(store: ObjectStore, prefix: str = "", after: str = "", limit: int | None = None) -> list[str]:
    """What a listing names."""
    return [info.key for info in store.list(prefix, after=after, limit=limit)]


class Basic(StoreContract):
    """Put, get, head, delete, one client."""

    def test_what_was_put_is_what_is_read(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            for body in (b"", b"x", b"\x00\xff" * 700, b'{"a": 1}'):
                put = store.put("one", body, content_type="application/json", metadata={"Who": "ada", "n": "1"})
                assert (put.key, put.size) == ("one", len(body))
                assert store.read("one") == body
                head = store.head("one")
                assert (head.key, head.size, head.etag) == ("one", len(body), put.etag)
                assert (head.content_type, head.metadata) == ("application/json", {"who": "ada", "n": "1"})
                with store.get("one") as content:
                    assert content.info.etag == put.etag
                    assert content.info.size == len(body)
                    assert b"".join(content) == body

    def test_a_put_takes_the_place_of_all_that_was_there(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            first = store.put("one", b"long before", content_type="text/plain", metadata={"a": "1"})
            second = store.put("one", b"now")
            head = store.head("one")
            assert first.etag != second.etag == head.etag
            assert (head.size, head.content_type, head.metadata) == (3, TYPE, {})
            assert store.read("one") == b"now"

    def test_a_key_without_an_object_is_a_key_error_and_says_which(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            for call in (store.read, store.head, lambda key: store.get(key).read()):
                with refuses(ObjectNotFound) as caught:
                    call("nobody/here")
                assert isinstance(caught[0], KeyError)
                assert "nobody/here" in str(caught[0])
            assert not store.exists("nobody/here")
            assert store.delete("nobody/here") is False

    def test_a_deletion_says_whether_there_was_one(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            store.put("one", b"1")
            assert store.exists("one")
            assert store.delete("one") is True
            assert store.delete("one") is False
            assert not store.exists("one")
            assert keys(store) == []
            store.put("one", b"2")
            assert store.read("one") == b"2"

    def test_times_are_in_utc_and_now(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            store.put("one", b"1")
            modified = store.head("one").modified
            assert modified.utcoffset() == timedelta(0)
            assert abs(datetime.now(UTC) - modified) < timedelta(minutes=5)

    def test_a_body_comes_from_pieces_or_from_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "source.bin"
        file.write_bytes(LARGE)
        with self.opened(tmp_path / "store") as store:
            assert store.put("pieces", iter([b"a", b"", b"bc" * 3])).size == 7
            assert store.read("pieces") == b"abcbcbc"
            assert store.put("view", memoryview(bytearray(b"abc"))).size == 3
            assert store.read("view") == b"abc"
            assert store.put("file", file, metadata={"a": "b"}, content_type="x/y").size == len(LARGE)
            assert hashlib.sha256(store.read("file")).digest() == hashlib.sha256(LARGE).digest()
            assert (store.head("file").metadata, store.head("file").content_type) == ({"a": "b"}, "x/y")

    def test_a_source_that_breaks_leaves_what_was_there(self, tmp_path: Path) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise RuntimeError("the source broke")

        with self.opened(tmp_path) as store:
            with refuses(RuntimeError):
                store.put("new", broken())
            assert keys(store) == []
            before = store.put("old", b"whole")
            with refuses(RuntimeError):
                store.put("old", broken())
            assert store.read("old") == b"whole"
            assert store.head("old").etag == before.etag
            assert keys(store) == ["old"]

    def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        store.put("one", b"1")
        store.close()
        store.close()
        for call in (lambda: store.put("one", b"2"), lambda: store.read("one"), lambda: list(store.list())):
            with refuses(StoreClosed):
                call()

    def test_a_healthy_store_says_so_and_shows_no_secret(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            health = store.health()
            assert health.ok, health.error
            assert health.store == store.name
            assert set(health.lacks) == set(store.lacks)

    def test_another_client_sees_it_at_once(self, tmp_path: Path) -> None:
        if not self.SHARED:
            return
        with self.opened(tmp_path) as one, self.opened(tmp_path) as other:
            etag = one.put("shared", b"1", metadata={"a": "1"}).etag
            assert (other.read("shared"), other.head("shared").etag) == (b"1", etag)
            assert keys(other) == ["shared"]
            other.delete("shared")
            assert not one.exists("shared")
            assert keys(one) == []

    def test_it_is_there_after_opening_again(self, tmp_path: Path) -> None:
        if not self.SHARED:
            return
        with self.opened(tmp_path) as store:
            before = store.put("kept", LARGE, content_type="x/y", metadata={"a": "1"})
        with self.opened(tmp_path) as store:
            head = store.head("kept")
            assert (head.etag, head.size, head.content_type) == (before.etag, len(LARGE), "x/y")
            assert head.metadata == {"a": "1"}
            assert store.read("kept") == LARGE


class Ranges(StoreContract):
    """Parts of an object."""

    def test_ranges_are_those_of_a_slice(self, tmp_path: Path) -> None:
        body = bytes(range(256)) * 40
        with self.opened(tmp_path) as store:
            store.put("one", body)
            store.put("empty", b"")
            spans = [(0, 1), (0, 0), (5, 5), (10, 300), (10_000, None), (10_239, 10_240), (10_239, 99_999)]
            for start, stop in [*spans, (0, 10_240), (10_240, None), (20_000, 30_000), (0, None)]:
                assert store.read("one", start=start, stop=stop) == body[start:stop], (start, stop)
                with store.get("one", start=start, stop=stop) as content:
                    assert content.info.size == len(body)
                    assert b"".join(content) == body[start:stop]
            assert store.read("empty", start=0, stop=10) == store.read("empty", start=3) == b""
            for start, stop in ((-1, None), (3, 2)):
                with refuses(StorageRefused):
                    store.read("one", start=start, stop=stop)
            with refuses(ObjectNotFound):
                store.read("nobody", start=0, stop=1)

    def test_a_range_of_a_large_object(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            store.put("large", LARGE)
            for start, stop in ((1, 3), (len(LARGE) - 3, None), ((1 << 20) - 2, (1 << 20) + 2), (1 << 22, None)):
                assert store.read("large", start=start, stop=stop) == LARGE[start:stop]

    def test_reading_may_end_early(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            store.put("large", LARGE)
            with store.get("large") as content:
                assert LARGE.startswith(next(iter(content)))
            content.close()
            assert store.delete("large") is True


class Names(StoreContract):
    """Keys, as hard as they come."""

    def test_every_key_keeps_its_own_object(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            for key in KEYS:
                store.put(key, key.encode())
            assert keys(store) == sorted(KEYS)
            for key in KEYS:
                assert store.read(key).decode() == key
                assert store.head(key).key == key
            for key in KEYS[::2]:
                assert store.delete(key) is True
            assert keys(store) == sorted(KEYS[1::2])
            for key in KEYS[1::2]:
                assert store.read(key).decode() == key

    def test_what_is_no_key_is_refused_with_the_reason(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            for key in NOT_KEYS:
                for call in (lambda key: store.put(key, b"x"), store.read, store.head, store.delete):
                    with refuses(StorageRefused) as caught:
                        call(key)
                    assert ": " in str(caught[0])
            assert keys(store) == []

    def test_metadata_and_types_that_no_header_carries_are_refused(self, tmp_path: Path) -> None:
        bad = ({"a b": "1"}, {"a": "x\ny"}, {"a": "ü"}, {"a": " x"}, {"A": "1", "a": "2"}, {"a": "x" * 2001}, {"": "x"})
        with self.opened(tmp_path) as store:
            for metadata in bad:
                with refuses(StorageRefused):
                    store.put("one", b"1", metadata=metadata)
            for kind in ("", "text/plain\r\nX: y", "ü/x"):
                with refuses(StorageRefused):
                    store.put("one", b"1", content_type=kind)
            assert not store.exists("one")
            store.put(
                "one",
                b"1",
                metadata={
                    "a": "x" * 1999,
                },
            )
            assert store.head("one").metadata == {"a": "x" * 1999}


class Listing(StoreContract):
    """Order, prefixes, pages."""

    def test_prefixes_are_of_keys_and_not_of_segments(self, tmp_path: Path) -> None:
        names = ["a", "a-", "a/b", "a/b/c", "a/bc", "a0", "ab", "b/x", "b/x/y"]
        with self.opened(tmp_path) as store:
            for name in reversed(names):
                store.put(name, b"1")
            assert keys(store) == sorted(names)
            for prefix in ("a", "a/", "a/b", "a/b/", "b", "b/x", "zz", "a/bc", "a-"):
                assert keys(store, prefix) == [name for name in sorted(names) if name.startswith(prefix)], prefix
            for prefix in ("/", "a//", "a\\"):
                with refuses(StorageRefused):
                    keys(store, prefix)

    def test_pages_go_on_after_the_last_key(self, tmp_path: Path) -> None:
        names = sorted(f"p/{number:03}/{'x' * (number % 3)}k" for number in range(60))
        with self.opened(tmp_path) as store:
            for name in names:
                store.put(name, name.encode())
            store.put("q", b"")
            seen: list[str] = []
            while page := keys(store, "p/", after=seen[-1] if seen else "", limit=7):
                assert len(page) <= 7
                seen += page
            assert seen == names
            assert keys(store, limit=0) == []
            for limit in (-1, 1.5, "2"):
                with refuses(StorageRefused):
                    keys(store, limit=limit)  # type: ignore[arg-type]
            assert keys(store, after="p/030") == [name for name in [*names, "q"] if name > "p/030"]
            assert keys(store, after="zzz") == []
            for info in store.list("p/00"):
                head = store.head(info.key)
                assert (info.size, info.etag) == (head.size, head.etag)
            store.put("typed", b"1", content_type="text/plain", metadata={"a": "1"})
            for info in store.list("typed"):
                known = (info.content_type, info.metadata) == ("text/plain", {"a": "1"})
                assert known or not store.lists_all


class Conditions(StoreContract):
    """One winner, one client after the other. What a store lacks, it refuses."""

    def test_only_the_first_creates(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            if CREATE in store.lacks:
                with refuses(StorageRefused):
                    store.put("one", b"1", expect=ABSENT)
                assert not store.exists("one")
                return
            first = store.put("one", b"1", expect=ABSENT, metadata={"a": "1"})
            with refuses(ObjectConflict):
                store.put("one", b"2", expect=ABSENT)
            assert (store.read("one"), store.head("one").etag) == (b"1", first.etag)
            store.delete("one")
            store.put("one", b"3", expect=ABSENT)
            assert store.read("one") == b"3"

    def test_only_who_knows_the_current_one_changes_it(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            first = store.put("one", b"1")
            if SWAP in store.lacks:
                with refuses(StorageRefused):
                    store.put("one", b"2", expect=first.etag)
                assert store.read("one") == b"1"
                return
            second = store.put("one", b"2", expect=first.etag)
            for stale in (first.etag, "no-such-etag"):
                with refuses(ObjectConflict):
                    store.put("one", b"3", expect=stale)
            assert (store.read("one"), store.head("one").etag) == (b"2", second.etag)
            store.delete("one")
            with refuses(ObjectConflict, ObjectNotFound):
                store.put("one", b"4", expect=second.etag)
            assert not store.exists("one")

    def test_only_who_knows_the_current_one_deletes_it(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            first = store.put("one", b"1")
            if SWAP_DELETE in store.lacks:
                with refuses(StorageRefused):
                    store.delete("one", expect=first.etag)
                assert store.read("one") == b"1"
                return
            second = store.put("one", b"2")
            with refuses(ObjectConflict):
                store.delete("one", expect=first.etag)
            assert store.read("one") == b"2"
            assert store.delete("one", expect=second.etag) is True
            with refuses(ObjectConflict, ObjectNotFound):
                store.delete("one", expect=second.etag)

    def test_a_large_object_is_created_once_too(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            if CREATE in store.lacks:
                return
            store.put("large", LARGE, expect=ABSENT)
            with refuses(ObjectConflict):
                store.put("large", LARGE[::-1], expect=ABSENT)
            assert store.read("large") == LARGE

    def test_what_is_no_etag_is_refused(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            store.put("one", b"1")
            for wrong in ("", 1, b"x", True):
                with refuses(StorageRefused):
                    store.put("one", b"2", expect=wrong)  # type: ignore[arg-type]
            assert store.read("one") == b"1"

    def test_the_conflict_says_what_is_current(self, tmp_path: Path) -> None:
        with self.opened(tmp_path) as store:
            if SWAP in store.lacks:
                return
            first = store.put("one", b"1")
            current = store.put("one", b"2").etag
            with refuses(ObjectConflict) as caught:
                store.put("one", b"3", expect=first.etag)
            assert isinstance(caught[0], ObjectConflict)
            assert caught[0].context["etag"] in (current, None)
