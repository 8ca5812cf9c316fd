"""A reader's cursor survives being text, and never leads past something unread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import UsageError
from holdfast.wire import LINEAGE_MAX, Cursor, resume

positions = st.integers(0, 2**63 - 1)
names = st.text("0123456789abcdef", min_size=1, max_size=32)


@st.composite
def lineages(draw: st.DrawFn, longest: int = LINEAGE_MAX) -> list[tuple[str, int]]:
    """Generations, oldest first, each with the last position before it began."""
    gens = draw(st.lists(names, min_size=0, max_size=longest, unique=True))
    firsts = sorted(draw(st.lists(positions, min_size=len(gens), max_size=len(gens))))
    return list(zip(gens, firsts, strict=True))


@given(positions, lineages())
def test_a_cursor_is_read_back_from_its_text(pos: int, lineage: list[tuple[str, int]]) -> None:
    cursor = Cursor(pos, tuple(lineage))
    assert Cursor.parse(str(cursor)) == cursor


@given(positions, lineages(LINEAGE_MAX * 2))
def test_a_long_lineage_keeps_its_newest_generations(pos: int, lineage: list[tuple[str, int]]) -> None:
    assert Cursor.parse(str(Cursor(pos, tuple(lineage)))).lineage == tuple(lineage[-LINEAGE_MAX:])


@given(st.text())
def test_any_text_is_a_cursor_or_a_usage_error(text: str) -> None:
    try:
        found = Cursor.parse(text)
    except UsageError:
        return
    assert 0 <= found.pos < 2**63
    assert Cursor.parse(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1.5", "1.a", "1.a@", "1.@5", "1.a@-5", "1.a b@5", "1..a@5", f"{2**63}", "9" * 5000]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a cursor"):
        Cursor.parse(text)


@given(positions, lineages(), lineages(), positions)
def test_reading_on_never_skips(
    pos: int, theirs: list[tuple[str, int]], ours: list[tuple[str, int]], head: int
) -> None:
    at = resume(Cursor(pos, tuple(theirs)), ours, head)
    assert 0 <= at <= min(pos, head)


@given(lineages(), st.data())
def test_within_one_history_a_reader_goes_on_where_it_was(lineage: list[tuple[str, int]], data: st.DataObject) -> None:
    last = lineage[-1][1] if lineage else 0
    head = data.draw(st.integers(last, 2**63 - 1))
    pos = data.draw(st.integers(last, head))
    if lineage:
        assert resume(Cursor(pos, tuple(lineage)), lineage, head) == pos


def test_after_a_restore_a_reader_goes_back_to_where_the_histories_part() -> None:
    hub = [("a", 0), ("b", 100)]
    assert resume(Cursor(150, (("a", 0),)), hub, 400) == 100, "it had seen what the hub lost"
    assert resume(Cursor(80, (("a", 0),)), hub, 400) == 80
    assert resume(Cursor(150, (("a", 0), ("c", 90))), hub, 400) == 90, "it had followed another history"
    assert resume(Cursor(150, (("x", 0),)), hub, 400) == 0, "it knows nothing that the hub knows"


def test_a_reader_of_a_followed_hub_goes_on_where_all_that_is_here_was_there() -> None:
    here = [("x", 0), ("y", 70)]
    marks = [("a", 40, 30), ("a", 90, 60), ("b", 130, 110)]
    assert resume(Cursor(89, (("a", 0),)), here, 200, marks) == 30, "it has not seen all of the second mark"
    assert resume(Cursor(90, (("a", 0),)), here, 200, marks) == 60
    assert resume(Cursor(140, (("a", 0), ("b", 100))), here, 200, marks) == 110
    assert resume(Cursor(140, (("a", 0), ("c", 50))), here, 200, marks) == 30, "of that life it has seen only 50"
    assert resume(Cursor(140, (("c", 0),)), here, 200, marks) == 0, "another hub's"
    assert resume(Cursor(140, (("b", 0),)), here, 100, marks) == 100, "never beyond what is here"
    assert resume(Cursor(65, (("x", 0),)), here, 200, marks) == 65
