"""Shelves of rows, on which adapters keep their things: on a node, at a hub, and with everybody else's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast import AsyncHub, AsyncStore, Conflict, Hub, Store, UsageError
from holdfast.node.shelf import HubShelf, NodeShelf, Row, Shelf, Span, every, first, merged, place_of
from tests.flow.hubs import HubProcess

LIMIT_S = 30.0


def shown(shelf: Shelf, prefix: str = "") -> dict[str, Any]:
    return {row.key: row.raw["n"] for row in every(shelf, prefix, limit=2)}


def row(key: str, agent: str, version: int, time: float, **raw: Any) -> Row:
    return Row(key, agent, version, time, lambda: {"path": key, **raw})


def test_rows_are_read_in_the_order_of_their_keys(tmp_path: Path) -> None:
    with Store(tmp_path / "node", "a", hub=[]) as store:
        shelf = NodeShelf(store, "things")
        assert shelf.here
        shelf.put_many((f"b/{number:04}", {"n": number}) for number in range(900))  # more than a batch may hold
        shelf.put("a", {"n": -1}, 0)
        asyncio.run(shelf.aput("c", {"n": -2}, 0))
        with pytest.raises(Conflict):
            shelf.put("a", {"n": 7}, 0)
        assert list(shown(shelf)) == ["a", *(f"b/{number:04}" for number in range(900)), "c"]
        assert first(shelf, "b/", "b/0500").raw["n"] == 501  # type: ignore[union-attr]
        (old,) = shelf.scan("a", limit=1).rows
        shelf.put("a", {"n": 1}, old.version)
        shelf.drop([old])  # it has changed since
        assert shown(shelf, "a") == {"a": 1}
        shelf.drop(shelf.scan("a").rows)
        shelf.drop_all("b/")
        assert shown(shelf) == {"c": -2}


def test_sealed_rows_are_rows(tmp_path: Path) -> None:
    with Store(tmp_path / "node", "a", hub=[], sealed=["things"]) as store:
        shelf = NodeShelf(store, "things")
        shelf.put_many([(f"k/{number}", {"n": number}) for number in range(5)])
        assert shown(shelf) == {f"k/{number}": number for number in range(5)}
        shelf.drop_all("k/")
        assert shown(shelf) == {}


def test_everybodys_rows_are_one_shelf(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    try:
        with (
            Store(tmp_path / "1", "one", hub=hub.url) as one,
            Store(tmp_path / "2", "two", hub=hub.url) as two,
            Hub(hub.url) as plain,
        ):
            here, there, through = (
                NodeShelf(one, "things"),
                NodeShelf(two, "things"),
                HubShelf(plain, "things", "three"),
            )
            here.put_many((f"k/{number}", {"n": number}) for number in range(7))
            through.put("k/9", {"n": 9}, 0)
            assert one.flush(LIMIT_S)
            there.put("k/8", {"n": 8})
            assert two.flush(LIMIT_S)
            for shelf in (here, there, through):
                assert shown(shelf) == {f"k/{number}": number for number in range(10) if number != 7}
            for number, shelf in enumerate((there, through)):  # another's row is taken away, and one's own put there
                shelf.drop(shelf.scan(f"k/{number}").rows)
                there.put("k/6", {"n": 60})
            assert two.flush(LIMIT_S)
            for shelf in (here, there, through):
                assert shown(shelf) == {"k/2": 2, "k/3": 3, "k/4": 4, "k/5": 5, "k/6": 60, "k/8": 8, "k/9": 9}
            assert [each.raw["n"] for each in first(here, "k/6").rivals] == [6]  # type: ignore[union-attr]
            there.drop_all("k/")
            assert two.flush(LIMIT_S)
            assert shown(here) == shown(there) == shown(through) == {}
            here.put("k/1", {"n": 11})
            assert one.flush(LIMIT_S)
            assert shown(there) == {"k/1": 11}
            hub.kill()
            assert shown(here) == {f"k/{number}": number for number in range(7)} | {"k/1": 11}  # one's own
        with Store(tmp_path / "2", "two", hub=[]) as alone:
            assert shown(NodeShelf(alone, "things")) == {}  # what says of others' rows that they are gone is no row
    finally:
        hub.kill()


def test_a_row_replaces_what_its_writer_has_seen_and_no_more() -> None:
    first_, second = row("k", "a", 1, 10.0, n=1), row("k", "b", 1, 5.0, n=2, over={"a": 1})
    (found,) = merged([Span([first_], ""), Span([second], "")]).rows
    assert (found.raw["n"], found.rivals) == (2, [])  # though by another clock it is older
    third = row("k", "a", 2, 1.0, n=3)
    (found,) = merged([Span([third, second], "")]).rows
    assert [each.raw["n"] for each in (*found.rivals, found)] == [3, 2]
    gone = row("k", "b", 2, 99.0, gone=True, over={"a": 1})
    assert merged([Span([first_, gone], "")]).rows == []
    assert [each.raw["n"] for each in merged([Span([third, gone], "")]).rows] == [3]


def test_spans_end_where_the_first_of_them_does() -> None:
    short = Span([row("a", "x", 1, 1.0), row("c", "x", 1, 1.0)], "c")
    long = Span([row("b", "y", 1, 1.0), row("d", "y", 1, 1.0)], "")
    found = merged([short, long])
    assert ([each.key for each in found.rows], found.after) == (["a", "b", "c"], "c")


def test_places_are_what_people_have(tmp_path: Path) -> None:
    place = place_of(tmp_path / "node", "me")
    assert place.store is not None
    assert place_of(place.store, "other").agent == "me"
    place.close()
    place.close()
    assert place_of("http://127.0.0.1:9", "me").hub is not None
    assert place_of(AsyncHub("http://127.0.0.1:9"), "me").agent == "me"

    async def awaited() -> None:
        async with AsyncStore(tmp_path / "node", "her", hub=[]) as store:
            assert place_of(store, "me").agent == "her"

    asyncio.run(awaited())
    with pytest.raises(UsageError, match="place"):
        place_of(None, "me")
