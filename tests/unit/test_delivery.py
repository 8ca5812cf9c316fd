"""What acts come to: the same in any order, however often they come, wherever they are put together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.collections.delivery import (
    NOTHING,
    STATES,
    TABS,
    Act,
    Events,
    Reading,
    act,
    act_of,
    reader_of,
    reading_of,
    state_of,
    tab_at,
    together,
)
from holdfast.errors import UsageError

WORDS = ["delivered", "read", "acknowledged", "done", "snoozed", "archived", "inbox", "unread", "withdrawn", "asked"]
said = st.tuples(
    st.integers(1, 12),  # stamps of several machines, that may be the same
    st.builds(
        lambda word, until: act(word, "ada", until=until if word == "snoozed" else None),
        st.sampled_from(WORDS),
        st.sampled_from([None, 5.0, 9.0]),
    ),
)


def folded(acts: Any) -> Reading:
    return together(reading_of(stamp, each) for stamp, each in acts)


def by_hand(acts: Any) -> tuple[int, int]:
    """The rank and the place, said once more and slowly: what one would expect of a list of acts."""
    undone = max(((s, STATES.index(a.state)) for s, a in acts if a.undo and a.state), default=(0, 0))
    since = [STATES.index(a.state) for s, a in acts if a.state and not a.undo and s > undone[0]]
    places = [(s, ["inbox", "snoozed", "archived"].index(a.place), a.until) for s, a in acts if a.place]
    return max([undone[1], *since]), max(places, default=(0, 0, 0))[1]


@given(st.lists(said, max_size=12), st.data())
def test_any_order_any_grouping_and_repeats_come_to_the_same(acts: Any, data: st.DataObject) -> None:
    reading = folded(acts)
    shuffled = data.draw(st.permutations(acts))
    cut = data.draw(st.integers(0, len(acts)))
    assert folded(shuffled[:cut]).merge(folded(shuffled[cut:])) == reading
    assert folded([*shuffled, *acts]) == reading
    assert (reading.rank, reading.place[1]) == by_hand(acts)
    kept = msgspec.json.decode(msgspec.json.encode(reading), type=Reading)
    assert kept == reading, "and so it is when it was written down between"


@given(st.lists(st.sampled_from([w for w in WORDS if w != "delivered"]), min_size=1, max_size=8))
def test_undo_brings_back_how_it_was_before_the_last_word(words: list[str]) -> None:
    acts = [(stamp, act(word, "ada")) for stamp, word in enumerate(words, 1)]
    before, after = Events(acts[:-1]).reading, Events([*acts, (99, Events(acts).undo("ada"))]).reading
    seen = [(each.rank, each.place[1], each.is_withdrawn) for each in (before, after)]
    assert seen[0] == seen[1]


def test_the_highest_state_wins_and_the_newest_place() -> None:
    acts = [(5, act("done", "ada", result=7)), (6, act("read", "ada")), (2, act("archived", "ada"))]
    assert (folded(acts).rank, folded(acts).place[1]) == (4, 2)
    acts.append((7, act("inbox", "ada")))
    shown = reader_of(folded(acts), Events(acts).result)
    assert (shown.state, shown.place, shown.result) == ("done", "inbox", 7)


@pytest.mark.parametrize(
    ("words", "now", "tab"),
    [
        ((), 0, "unread"),
        (("delivered",), 0, "unread"),
        (("read",), 0, "read"),
        (("acknowledged",), 0, "acknowledged"),
        (("done",), 99_000, "done"),
        (("snoozed",), 4_999, "snoozed"),
        (("snoozed",), 5_000, "unread"),
        (("read", "snoozed"), 5_000, "read"),
        (("snoozed",), 10_000, "expired"),
        (("archived",), 99_000, "archived"),
        (("archived", "inbox"), 0, "unread"),
        (("done", "unread"), 0, "unread"),
        (("read",), 10_000, "expired"),
    ],
)
def test_where_a_message_lies(words: tuple[str, ...], now: int, tab: str) -> None:
    acts = [(n, act(word, "ada", until=5.0 if word == "snoozed" else None)) for n, word in enumerate(words, 1)]
    assert tab_at(folded(acts), False, 10_000, now) == tab
    assert tab in TABS


def test_what_was_withdrawn_is_gone_unless_it_was_taken_on() -> None:
    taken, withdrawn = folded([(1, act("acknowledged", "ada"))]), folded([(2, act("withdrawn", "ada"))])
    assert tab_at(NOTHING, True, None, 0) == "withdrawn"
    assert tab_at(taken, True, None, 0) == "acknowledged"
    assert state_of({"ada": withdrawn}, "ada", 1, False) == "withdrawn"
    assert state_of({"bob": withdrawn}, "ada", 1, False) == "delivered", "only its sender's word counts"
    assert state_of({"ada": withdrawn, "bob": taken}, "ada", 1, True) == "acknowledged"


@pytest.mark.parametrize(
    "value",
    [None, 1, {}, {"of": 1}, {"of": "ada", "state": "x"}, {"of": "ada", "place": "x"}, {"of": "ada", "until": -1.0}],
)
def test_what_is_no_act_says_nothing(value: Any) -> None:
    assert act_of(value) is None


def test_an_act_is_read_as_it_was_written() -> None:
    for each in (act("done", "ada", result={"n": 1}), act("snoozed", "ada", until=5.5), act("unread", "ada")):
        assert act_of(each.value()) == each
    assert act("read", "ada").value() == {"of": "ada", "state": "read"}


@pytest.mark.parametrize(
    ("word", "more"),
    [
        ("nope", {}),
        ("read", {"until": 1.0}),
        ("read", {"result": 1}),
        *(("snoozed", {"until": until}) for until in (0.0, -5.0, 1e12, float("nan"), float("inf"))),
    ],
)
def test_a_wrong_word_is_refused(word: str, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        act(word, "ada", **more)
    assert isinstance(act("read", "ada"), Act)
