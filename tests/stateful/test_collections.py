"""A collection against a plain dict: whatever is put, changed, deleted and asked for, both say the same."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast import Collection, Hub, Schema, Store
from holdfast.node.directory import Limits
from holdfast.query import AllOf, AnyOf, Condition, Not, matches, members, sort_key, where
from tests.flow.hubs import HubProcess
from tests.services import shared_postgres

SCHEMA: Schema[Any] = Schema(None, index=("n", "tags", "in.x"), text=("words",))
KEYS = st.sampled_from(["a", "b", "c/d", "ü", "e", "f"])
NUMBERS = st.sampled_from([-1, 0, 1, 1.5, 2, 2**53, 1e300])
TEXTS = st.sampled_from(["", "a", "A", "ab", "b", "ü", "a" * 199 + "b", "a" * 250 + "b", "a" * 250 + "c"])
SCALARS = st.one_of(NUMBERS, TEXTS, st.booleans(), st.none())
WORDS = st.sampled_from(["red", "Red green", "green blue", "blue, red", ""])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "n": SCALARS,
        "tags": st.lists(SCALARS, max_size=3),
        "in": st.one_of(
            st.fixed_dictionaries({"x": SCALARS}), st.lists(st.fixed_dictionaries({"x": SCALARS}), max_size=2)
        ),
        "plain": SCALARS,
        "words": st.one_of(WORDS, st.lists(WORDS, max_size=2)),
    },
)
FIELDS = st.sampled_from(["n", "tags", "in.x", "plain", "words"])


def one_test() -> st.SearchStrategy[Condition]:
    """One field held against something."""
    texts_or_numbers = st.one_of(NUMBERS, TEXTS)
    return st.one_of(
        st.builds(lambda field, value: where(field) == value, FIELDS, SCALARS),
        st.builds(lambda field, values: where(field).is_in(values), FIELDS, st.lists(SCALARS, max_size=3)),
        st.builds(lambda field, value: where(field) < value, FIELDS, texts_or_numbers),
        st.builds(lambda field, value: where(field) <= value, FIELDS, texts_or_numbers),
        st.builds(lambda field, value: where(field) > value, FIELDS, texts_or_numbers),
        st.builds(lambda field, value: where(field) >= value, FIELDS, texts_or_numbers),
        st.builds(lambda field, value: where(field).starts(value), FIELDS, TEXTS),
        st.builds(lambda field, there: where(field).exists(there), FIELDS, st.booleans()),
        st.builds(lambda field, words: where(field).text(words), FIELDS, st.sampled_from(["red", "BLUE red"])),
    )


CONDITIONS = st.recursive(
    one_test(),
    lambda inner: st.one_of(
        st.builds(lambda parts: AllOf(all=tuple(parts)), st.lists(inner, max_size=3)),
        st.builds(lambda parts: AnyOf(any=tuple(parts)), st.lists(inner, max_size=3)),
        st.builds(lambda part: Not(no=part), inner),
    ),
    max_leaves=5,
)
ORDERS = st.lists(
    st.tuples(st.sampled_from(["n", "tags", "in.x", "plain"]), st.booleans()),
    max_size=2,
    unique_by=lambda each: each[0],
)
WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, VALUES),
        st.tuples(st.just("update"), KEYS, VALUES),
        st.tuples(st.just("delete"), KEYS, st.none()),
    ),
    min_size=1,
    max_size=14,
)
ASKED = st.lists(st.tuples(CONDITIONS, ORDERS, st.integers(1, 4)), min_size=1, max_size=4)
_names = itertools.count()


def play(make: Callable[[str], Collection[Any]], writes: list[Any], asked: list[Any]) -> None:
    """Writes into a collection and into a dict, and asks both."""
    collection = make(f"c{next(_names)}")
    model: dict[str, Any] = {}
    for number, (what, key, value) in enumerate(writes):
        if what == "put":
            collection.put(key, value)
            model[key] = value
        elif what == "update":
            collection.update(key, value, default={})
            model[key] = {**model.get(key, {}), **value}
        elif key in model:
            collection.delete(key)
            del model[key]
        assert collection.get(key, default=None) == model.get(key)
        if number % 5 == 0:
            assert collection.count() == len(model)
    for condition, order, limit in asked:
        ask(collection, model, condition, order, limit)
    assert dict(collection.items()) == model


def ask(collection: Collection[Any], model: dict[str, Any], condition: Condition, order: Any, limit: int) -> None:
    """One question to both."""
    wanted = {key: value for key, value in model.items() if matches(condition, value)}
    names = [f"-{field}" if down else field for field, down in order]
    found, after = list[tuple[str, Any]](), ""
    while True:
        page = collection.find(condition, order=names, limit=limit, after=after)
        assert len(page) == limit or not page.cursor
        found += page.items
        after = page.cursor
        if not after:
            break
    assert sorted(key for key, _ in found) == sorted(wanted)
    assert dict(found) == wanted
    for (_, one), (_, other) in itertools.pairwise(found):
        for field, down in order:
            mine, theirs = place(one, field, down), place(other, field, down)
            if mine != theirs:
                assert (mine > theirs) == down
                break
    assert collection.count(condition) == len(wanted)
    for group in collection.aggregate("n", by="tags", condition=condition):
        inside = [value for value in wanted.values() if kin(value, group.by)]
        assert group.count == len(inside)
        numbers = [n for value in inside for n in members(value, "n") if type(n) in (int, float)]
        assert group.sum == (pytest.approx(sum(numbers)) if numbers else None)


def place(value: Any, field: str, down: bool) -> bytes:
    """What a value is ordered by: its least member, or its greatest."""
    keys = [key for each in members(value, field) if (key := sort_key(each)) is not None]
    return (max if down else min)(keys, default=b"\x00")


def kin(value: Any, member: Any) -> bool:
    """Whether a value belongs to the group of a member, as the index shows it."""
    found = [sort_key(each) for each in members(value, "tags")]
    if member is None:
        return not found
    return any(key is not None and key[:201] == sort_key(member) for key in found)


@given(WRITES, ASKED)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_on_a_node(node: Store, writes: list[Any], asked: list[Any]) -> None:
    play(lambda name: node.collection(name, SCHEMA), writes, asked)


@given(WRITES, ASKED)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_at_a_hub(client: Hub, writes: list[Any], asked: list[Any]) -> None:
    play(lambda name: client.collection(name, SCHEMA, agent="ada"), writes, asked)


@pytest.fixture(scope="module")
def node() -> Iterator[Store]:
    """A store for all examples."""
    with tempfile.TemporaryDirectory() as home, Store(home, "ada", hub=[], limits=Limits(0, 0, 0)) as store:
        yield store


@pytest.fixture(scope="module", params=["directory", "database"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub for all examples, of either kind."""
    options = {"database": shared_postgres().corpus()} if request.param == "database" else {}
    process = HubProcess(Path(tmp_path_factory.mktemp("collections")) / "hub", **options)
    with Hub(process.url) as opened:
        yield opened
    process.kill()
