"""The laws of `holdfast.objects.tables.port` as tests, for every store of tables.

    class TestMine(TableContract):
        def make(self, directory):
            return MyTables(directory)

`make` gives a store over the same tables each time it is called with the same directory. pytest collects the class.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageRefused, StoreClosed
from holdfast.objects.tables.filters import quote, starts_with
from holdfast.objects.tables.port import Delete, Insert, Operation, TableStore, Update, Upsert
from holdfast.testing.objects import refuses
from holdfast.testing.objects_many import at_once

KEYS = (
    "",
    "#",
    "/",
    "A",
    "a",
    "a b",
    "a%2Fb",
    "a'b",
    "a-b",
    "a.b",
    "a/",
    "a/b",
    "a/b/c",
    "a0",
    "a>",
    "a?",
    "a@",
    "a[",
    "a\\b",
    "a]",
    "agent_configs/ceo",
    "e\u0301",
    "\u00e9",
    "日本語",
    "\U0001f30a",
    "\ue000",
)
"""In the order of a query: by UTF-16 units."""
VALUES: dict[str, Any] = {
    "text": "grüße\r\n\t\0 'quoted' 🌊",
    "empty": "",
    "looks_like_a_time": "2025-12-25T00:00:00Z",
    "yes": True,
    "no": False,
    "one": 1,
    "least": -(2**63),
    "most": 2**63 - 1,
    "whole": 1.0,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "infinite": float("-inf"),
    "bytes": bytes(range(256)),
    "none_of_them": b"",
    "moment": datetime(2026, 1, 6, 12, 30, 15, 123456, tzinfo=UTC),
    "elsewhere": datetime(2026, 1, 6, 12, 30, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "id": UUID("c9da6455-213d-42c9-9a79-3e9149a57833"),
}


class Word(str, Enum):  # noqa: UP042 - str() of it is not its text, which a StrEnum's is
    """Text that does not look like it."""

    KEY = "a/key"


def row(partition: str, key: str, **properties: Any) -> dict[str, Any]:
    """An entity."""
    return {"PartitionKey": partition, "RowKey": key, **properties}


class TableMaker:
    """How a store and a table in it are made."""

    def make(self, directory: Path) -> TableStore:
        """The store for this directory."""
        raise NotImplementedError

    def table(self, store: TableStore) -> str:
        """The name of a new table, one that Azure would not take as it is."""
        name = f"t_{secrets.token_hex(6)}"
        assert store.create_table(name) is True
        return name


class TableContract(TableMaker):
    """All laws; a store's class gives `make`."""

    def test_tables_are_made_listed_and_removed(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            name = self.table(store)
            assert store.create_table(name) is False
            assert store.create_table(name.upper()) is False  # Azure tells no capital letters apart
            plain = f"Plain{secrets.token_hex(6)}"
            assert store.create_table(plain) is True
            assert {name, plain} <= set(store.list_tables())
            store.insert(name, row("p", "r"))
            assert store.delete_table(name) is True
            assert store.delete_table(name) is False
            assert name not in store.list_tables()
            for call in (store.insert, store.upsert, store.update):
                with refuses(ObjectNotFound):
                    call(name, row("p", "r"))
            with refuses(ObjectNotFound):
                store.get(name, "p", "r")
            with refuses(ObjectNotFound):
                list(store.query(name))
            assert store.delete(name, "p", "r") is False
            for wrong in ("", "a/b", "ü", "x" * 64, "_" * 40, 5):
                with refuses(StorageRefused):
                    store.create_table(wrong)  # type: ignore[arg-type]

    def test_values_come_back_as_the_type_they_were(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            store.insert(table, row("p", "r", **VALUES, no_number=float("nan")))
            found = store.get(table, "p", "r")
            number = found.pop("no_number")
            assert number != number
            assert dict(found) == row("p", "r", **VALUES)
            assert {name: type(value) for name, value in found.items()} == {
                name: type(value) for name, value in row("p", "r", **VALUES).items()
            }
            store.upsert(table, row(Word.KEY, Word.KEY, word=Word.KEY, data=bytearray(b"x")), mode="replace")
            assert store.get(table, "a/key", "a/key") == row("a/key", "a/key", word="a/key", data=b"x")
            elsewhere = found["elsewhere"]
            assert isinstance(elsewhere, datetime)
            assert elsewhere.utcoffset() == timedelta(0)
            assert found.timestamp is not None
            assert found.timestamp.utcoffset() == timedelta(0)
            assert dict(next(store.query(table, "PartitionKey eq 'p'")))["most"] == 2**63 - 1

    def test_what_cannot_be_stored_is_refused_and_nothing_is_written(self, tmp_path: Path) -> None:
        wrong: list[dict[str, Any]] = [
            {"PartitionKey": "p"},
            {"PartitionKey": "p", "RowKey": 5},
            row("p", "a\nb"),
            row("p", "a\x7f"),
            row("p", "\ufffd"),
            row("p", "x" * 513),
            row("p", "/" * 257),
            row("p", "🌊" * 257),
            row("p", "r", nothing=None),
            row("p", "r", listed=[1]),
            row("p", "r", nested={"a": 1}),
            row("p", "r", large=2**63),
            row("p", "r", text="x" * 32_769),
            row("p", "r", text="🌊" * 16_385),
            row("p", "r", half="\ud800"),
            row("p", "r", data=b"x" * 65_537),
            row("p", "r", when=datetime(2026, 1, 6)),
            row("p", "r", when=datetime(1600, 1, 1, tzinfo=UTC)),
            row("p", "r", Timestamp="now"),
            row("p", "r", **{"a-b": 1}),
            row("p", "r", **{"x" * 256: 1}),
            row("p", "r", **{f"n{number}": 1 for number in range(253)}),
            row("p", "r", **{f"b{number}": b"x" * 65_536 for number in range(16)}),
        ]
        with self.make(tmp_path) as store:
            table = self.table(store)
            for entity in wrong:
                for call in (store.insert, store.upsert, store.update):
                    with refuses(StorageRefused):
                        call(table, entity)
                with refuses(StorageRefused):
                    store.transact(table, [Upsert(entity)])
            assert list(store.query(table)) == []

    def test_the_largest_that_can_be_is_stored(self, tmp_path: Path) -> None:
        largest = [
            row("p" * 512, "/" * 256, text="x" * 32_768, emoji="🌊" * 16_384, data=b"x" * 65_536),
            row("p", "many", **{f"n{number}": number for number in range(252)}, **{}),
            row("p", "large", **{f"b{number}": b"x" * 65_000 for number in range(16)}),
        ]
        with self.make(tmp_path) as store:
            table = self.table(store)
            for entity in largest:
                store.insert(table, entity)
                assert store.get(table, entity["PartitionKey"], entity["RowKey"]) == entity

    def test_keys_are_told_apart_and_come_in_order(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            for key in reversed(KEYS):
                store.insert(table, row("p/q", key, own=key))
            assert [entity["RowKey"] for entity in store.query(table)] == list(KEYS)
            for key in KEYS:
                assert store.get(table, "p/q", key)["own"] == key
                assert [entity["own"] for entity in store.query(table, f"RowKey eq {quote(key)}")] == [key]
            for bound in ("a/", "a.b", "a?", "a\\b"):
                after = [entity["RowKey"] for entity in store.query(table, f"RowKey gt {quote(bound)}")]
                assert after == [key for key in KEYS if key.encode("utf-16-be") > bound.encode("utf-16-be")]
            for prefix in ("a", "a/", "a/b", "agent_configs/", "日"):
                inside = [entity["RowKey"] for entity in store.query(table, starts_with("RowKey", prefix))]
                assert inside == [key for key in KEYS if key.startswith(prefix)]

    def test_one_who_inserts_wins(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            etag = store.insert(table, row("p", "r/1", v=1))
            with refuses(ObjectConflict):
                store.insert(table, row("p", "r/1", v=2))
            found = store.get(table, "p", "r/1")
            assert (found["v"], found.etag) == (1, etag)

    def test_merge_keeps_and_replace_does_not(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            store.upsert(table, row("p", "r", a=1, b=2))
            store.upsert(table, row("p", "r", b="two", c=3))
            assert store.get(table, "p", "r") == row("p", "r", a=1, b="two", c=3)
            store.update(table, row("p", "r", a=5))
            assert store.get(table, "p", "r") == row("p", "r", a=5, b="two", c=3)
            store.update(table, row("p", "r", d=4), mode="replace")
            assert store.get(table, "p", "r") == row("p", "r", d=4)
            store.upsert(table, row("p", "r", e=5), mode="replace")
            assert store.get(table, "p", "r") == row("p", "r", e=5)
            with refuses(ObjectNotFound):
                store.update(table, row("p", "nobody"))
            with refuses(StorageRefused):
                store.upsert(table, row("p", "r"), mode="mix")  # type: ignore[arg-type]

    def test_an_etag_lets_through_who_knows_the_entity(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            first = store.insert(table, row("p", "r", v=1))
            second = store.update(table, row("p", "r", v=2), etag=first)
            assert second != first
            assert store.get(table, "p", "r").etag == second
            for stale in (first, None):
                etag = stale or first
                with refuses(ObjectConflict):
                    store.update(table, row("p", "r", v=9), etag=etag, mode="replace" if stale else "merge")
                with refuses(ObjectConflict):
                    store.delete(table, "p", "r", etag=etag)
            assert store.get(table, "p", "r")["v"] == 2
            assert store.delete(table, "p", "r", etag=second) is True
            with refuses(ObjectConflict):
                store.update(table, row("p", "r", v=9), etag=second)
            with refuses(ObjectConflict):
                store.delete(table, "p", "r", etag=second)
            assert store.delete(table, "p", "r") is False
            with refuses(ObjectNotFound):
                store.get(table, "p", "r")

    def test_filters_find_what_they_say(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            moment = datetime(2026, 1, 6, 12, tzinfo=UTC)
            for number in range(6):
                more = {"big": 2**40 + number} if number % 2 else {"text": f"it's {number}"}
                when = moment + timedelta(days=number)
                entity = row("p", f"r/{number}", n=number, f=number / 2, even=number % 2 == 0, when=when, **more)
                store.insert(table, entity | {"data": bytes([number]), "id": UUID(int=number)})
            for text, numbers in FILTERS.items():
                found = [entity["n"] for entity in store.query(table, text)]
                assert found == numbers, text
            for wrong in WRONG_FILTERS:
                with refuses(StorageRefused):
                    store.page(table, wrong)

    def test_select_gives_the_keys_and_what_was_asked_for(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            etag = store.insert(table, row("p", "r", a=1, b=2))
            assert store.get(table, "p", "r", select=["b", "nobody"]) == row("p", "r", b=2)
            found = next(store.query(table, "a eq 1", select=["b", "nobody"]))
            assert found == row("p", "r", b=2)
            assert found.etag == etag
            with refuses(StorageRefused):
                store.get(table, "p", "r", select="a")

    def test_pages_follow_each_other(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            for partition in ("p/1", "p/2"):
                store.transact(table, [Insert(row(partition, f"r/{number:02}", n=number)) for number in range(20)])

            def pages(size: int, text: str = "") -> Iterator[list[Any]]:
                after: str | None = None
                while True:
                    page = store.page(table, text, size=size, after=after)
                    yield [(entity["PartitionKey"], entity["n"]) for entity in page.entities]
                    after = page.next
                    if after is None:
                        return

            every = [("p/1", number) for number in range(20)] + [("p/2", number) for number in range(20)]
            for size in (1, 7, 20, 40, 1000):
                found = list(pages(size))
                assert [entity for page in found for entity in page] == every
                assert max(map(len, found)) <= size
            assert [entity for page in pages(4, "n ge 15") for entity in page] == [e for e in every if e[1] >= 15]
            assert len(list(store.query(table, limit=7))) == 7
            assert list(store.query(table, limit=0)) == []
            for size, after in ((0, None), (1001, None), (5, "nonsense"), (5, "W10=")):
                with refuses(StorageRefused):
                    store.page(table, size=size, after=after)

    def test_a_transaction_is_done_whole_or_not_at_all(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            assert store.transact(table, []) == []
            etags = store.transact(table, [Insert(row("p/1", f"r/{n}", n=n)) for n in range(100)])
            assert len(set(etags)) >= 1
            assert store.get(table, "p/1", "r/7").etag == etags[7]
            good: list[Operation] = [
                Upsert(row("p/1", "new", n=100)),
                Upsert(row("p/1", "r/1", m=1)),
                Update(row("p/1", "r/2", m=2), "replace", etags[2]),
                Delete("p/1", "r/3", etags[3]),
                Delete("p/1", "r/4"),
            ]
            # Each of these spoils it, wherever it stands.
            spoilers: list[tuple[Operation, type[Exception]]] = [
                (Insert(row("p/1", "r/9")), ObjectConflict),
                (Update(row("p/1", "nobody")), ObjectNotFound),
                (Update(row("p/1", "r/9"), etag=etags[2].replace("1", "2")), ObjectConflict),
                (Delete("p/1", "nobody"), ObjectNotFound),
                (Delete("p/1", "r/9", etags[2].replace("1", "2")), ObjectConflict),
            ]
            for spoiler, error in spoilers:
                with refuses(error) as caught:
                    store.transact(table, [*good[:2], spoiler, *good[2:]])
                assert caught[0].context["index"] == 2  # type: ignore[attr-defined]
            assert [entity["n"] for entity in store.query(table)] == sorted(range(100), key=lambda n: f"r/{n}")
            done = store.transact(table, good)
            assert done[3:] == ["", ""]
            assert store.get(table, "p/1", "r/1") == row("p/1", "r/1", n=1, m=1)
            assert store.get(table, "p/1", "r/2") == row("p/1", "r/2", m=2)
            assert store.get(table, "p/1", "r/2").etag == done[2]
            assert len(list(store.query(table))) == 99

    def test_a_transaction_that_cannot_be_is_refused(self, tmp_path: Path) -> None:
        data = b"x" * 65_000
        wrong: list[list[Any]] = [
            [Upsert(row("p", str(number))) for number in range(101)],
            [Upsert(row("p", "1")), Upsert(row("q", "2"))],
            [Upsert(row("p", "1")), Delete("p", "1")],
            [Upsert(row("p", str(number), **{f"b{n}": data for n in range(14)})) for number in range(5)],
            [("upsert", row("p", "1"))],
        ]
        with self.make(tmp_path) as store:
            table = self.table(store)
            for operations in wrong:
                with refuses(StorageRefused):
                    store.transact(table, operations)
            assert list(store.query(table)) == []

    def test_of_many_who_insert_one_wins_and_no_update_is_lost(self, tmp_path: Path) -> None:
        threads, rounds = 16, 4
        won: list[int] = []
        with self.make(tmp_path) as store:
            table = self.table(store)
            store.insert(table, row("p", "counter", n=0))

            def work(number: int) -> None:
                for turn in range(rounds):
                    try:
                        store.insert(table, row("p", f"turn/{turn}", by=number))
                        won.append(turn)
                    except ObjectConflict:
                        pass
                for _ in range(2):
                    while True:
                        found = store.get(table, "p", "counter")
                        n = found["n"]
                        assert isinstance(n, int)
                        try:
                            store.update(table, row("p", "counter", n=n + 1), etag=found.etag)
                            break
                        except ObjectConflict:
                            continue

            at_once(threads, work)
            assert sorted(won) == list(range(rounds))
            assert store.get(table, "p", "counter")["n"] == 2 * threads

    def test_a_forked_child_and_its_parent_go_on(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            table = self.table(store)
            store.insert(table, row("p", "parent"))
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    store.insert(table, row("p", "child"))
                    code = 0 if len(list(store.query(table))) == 2 else 2
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            store.insert(table, row("p", "after"))
            assert [entity["RowKey"] for entity in store.query(table)] == ["after", "child", "parent"]

    def test_another_client_finds_it_and_a_closed_one_says_so(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store, self.make(tmp_path) as other:
            table = self.table(store)
            store.insert(table, row("p", "r"))
            assert other.get(table, "p", "r") == row("p", "r")
            assert other.health().ok
            store.close()
            store.close()
            with refuses(StoreClosed):
                store.get(table, "p", "r")


FILTERS = {
    "": [0, 1, 2, 3, 4, 5],
    "PartitionKey eq 'p' and RowKey ge 'r/2' and RowKey lt 'r/4'": [2, 3],
    "n eq 3": [3],
    "n ne 3": [0, 1, 2, 4, 5],
    "n gt 3 or n lt 1": [0, 4, 5],
    "not (n ge 1L)": [0],
    "n ge 1 and n le 4 and not (n eq 2 or n eq 3)": [1, 4],
    "n lt 3 or n gt 3 and even eq true": [0, 1, 2, 4],
    "big gt 1099511627777L": [3, 5],
    "big eq 1099511627779": [3],
    "f gt 1.0 and f le 2.0": [3, 4],
    "even eq true": [0, 2, 4],
    "even ne TRUE": [1, 3, 5],
    "text eq 'it''s 2'": [2],
    "text ne 'it''s 2'": [0, 4],
    "text gt 'it''s 2'": [4],
    "not (text eq 'it''s 2')": [0, 1, 3, 4, 5],
    "nobody eq 1": [],
    "nobody ne 1": [],
    "not (nobody ne 1)": [0, 1, 2, 3, 4, 5],
    "when ge datetime'2026-01-10T12:00:00Z'": [4, 5],
    "when lt datetime'2026-01-07T13:00:00+01:00'": [0],
    "when eq datetime'2026-01-06T12:00:00.000Z'": [0],
    "data eq X'03' or data eq binary'04'": [3, 4],
    "id eq guid'00000000-0000-0000-0000-000000000002'": [2],
    "Timestamp gt datetime'2020-01-01T00:00:00Z' and (((n eq 1)))": [1],
}
"""Of six entities with `n` from 0 to 5."""
WRONG_FILTERS = (
    "n",
    "n eq",
    "eq 5",
    "n = 5",
    "n eq 5 and",
    "n eq 5 n eq 6",
    "(n eq 5",
    "n eq 5)",
    "text eq 'open",
    "text eq it",
    "5 eq 5",
    "true",
    "RowKey eq 5",
    "even gt true",
    "data lt X'00'",
    "id ge guid'00000000-0000-0000-0000-000000000002'",
    "id eq guid'nonsense'",
    "when eq datetime'yesterday'",
    "n eq 9223372036854775808",
    "n eq 1e999",
    "n eq 5; DROP TABLE x",
    "(" * 60 + "n eq 5" + ")" * 60,
    " or ".join(f"text eq '{number}'" for number in range(16)),
    " or ".join(f"n eq {number}" for number in range(8)),
)
