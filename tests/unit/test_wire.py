"""Messages to bytes and back; cursors; where a reader resumes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import wire
from holdfast.errors import UsageError
from holdfast.wire import Cursor, Item, Mark, Segment, resume

MARK = Mark(3, bytes(32))


def test_a_message_comes_back_as_it_was() -> None:
    item = Item(b"header", b"", 0, None, wire.EVICTED)
    segment = Segment(bytes(16), bytes(16), "scout", bytes(32), 4, bytes(32), [item], b"signature")
    append = wire.Append("g1", 7, [segment], "node0")
    assert wire.decode(wire.Append, wire.encode(append)) == append


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x81\xa3gen\x01", wire.encode(MARK)])
def test_anything_else_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(UsageError, match="not a Append"):
        wire.decode(wire.Append, data)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_and_never_crash(data: bytes) -> None:
    with contextlib.suppress(UsageError):
        wire.decode(wire.Hello, data)


def test_a_cursor_is_its_text() -> None:
    cursor = Cursor(17, (("g0", 0), ("g1", 12)))
    assert str(cursor) == "17.g1@12.g0@0"
    assert Cursor.parse(str(cursor)) == cursor
    assert Cursor.parse("0") == Cursor(0)


@pytest.mark.parametrize("text", ["", "x", "-1", "3.g", "3.g@", "3.@4", "3.g@-1", "3.g@x", "3..", "3.a b@1"])
def test_what_is_not_a_cursor_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a cursor"):
        Cursor.parse(text)


@pytest.mark.parametrize(
    ("cursor", "lineage", "head", "expected"),
    [
        ("0", [("a", 0)], 9, 0),
        ("5.a@0", [("a", 0)], 9, 5),
        ("5.a@0", [("a", 0), ("b", 7)], 9, 5),
        ("8.a@0", [("a", 0), ("b", 7)], 9, 7),
        ("8.b@7.a@0", [("a", 0), ("b", 7)], 9, 8),
        ("8.b@7.a@0", [("a", 0), ("c", 4)], 9, 4),
        ("8.b@7.a@0", [("x", 0)], 9, 0),
        ("8.a@0", [("a", 0)], 6, 6),
        ("8.c@7.b@3", [("a", 0), ("b", 3), ("c", 7)], 9, 8),
    ],
)
def test_a_reader_resumes_where_its_history_and_the_hubs_part(
    cursor: str, lineage: list[tuple[str, int]], head: int, expected: int
) -> None:
    assert resume(Cursor.parse(cursor), lineage, head) == expected


def test_a_cursor_carries_only_the_newest_generations() -> None:
    lineage = tuple((f"g{k}", k) for k in range(20))
    assert Cursor.parse(str(Cursor(30, lineage))).lineage == lineage[-wire.LINEAGE_MAX :]
