"""Filters of tables: what SQL finds is what the filter means, and what goes to Azure means the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import StorageRefused
from holdfast.objects import SqliteTables
from holdfast.objects.tables import quote, starts_with
from holdfast.objects.tables.filters import holds, parse, to_azure
from holdfast.testing.tables import WRONG_FILTERS, row

NAMES = ("a", "b", "PartitionKey", "RowKey")
texts = st.text(st.sampled_from("ab/.-0'\" \0é\ue000🌊"), max_size=3)
keys = st.text(st.sampled_from("ab/.-0'# é\ue000🌊"), max_size=3)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 2), timezones=st.just(UTC))
floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1.0, -0.5])
literals = st.one_of(
    texts,
    st.booleans(),
    st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
    floats,
    st.binary(max_size=2),
    moments,
    st.integers(0, 2).map(lambda number: UUID(int=number)),
)
values = literals | st.sampled_from([float("nan"), float("inf"), float("-inf")])
entities = st.builds(
    lambda partition, key, properties: row(partition, key, **properties),
    keys,
    keys,
    st.dictionaries(st.sampled_from("ab"), values, max_size=2),
)


@st.composite
def comparisons(draw: st.DrawFn) -> str:
    """A comparison that is one on every store."""
    name = draw(st.sampled_from(NAMES))
    literal: Any = draw(keys if name.endswith("Key") else literals)
    ordered = not isinstance(literal, bool | bytes | UUID)
    sign = draw(st.sampled_from(("eq", "ne", "gt", "ge", "lt", "le") if ordered else ("eq", "ne")))
    return f"{name} {sign} {quote(literal)}"


filters = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
    ),
    max_leaves=3,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SqliteTables:
    return SqliteTables(tmp_path_factory.mktemp("filters") / "account.db")


@settings(max_examples=60)
@given(text=filters, rows=st.lists(entities, max_size=8, unique_by=lambda e: (e["PartitionKey"], e["RowKey"])))
def test_sql_finds_what_the_filter_means(store: SqliteTables, text: str, rows: list[dict[str, Any]]) -> None:
    store.delete_table("rows")
    store.create_table("rows")
    for entity in rows:
        store.insert("rows", entity)
    tree = parse(text)
    found = [(entity["PartitionKey"], entity["RowKey"]) for entity in store.query("rows", text)]
    wanted = [(entity["PartitionKey"], entity["RowKey"]) for entity in rows if holds(tree, entity)]
    assert sorted(found) == sorted(wanted), (text, rows)
    assert found == sorted(found, key=lambda pair: [part.encode("utf-16-be") for part in pair])


@given(text=filters, rows=st.lists(entities, min_size=1, max_size=4))
def test_what_goes_to_azure_means_the_same(text: str, rows: list[dict[str, Any]]) -> None:
    from holdfast.objects.tables.keys import write_key

    sent = to_azure(parse(text))
    assert sent is not None
    for entity in rows:
        there = entity | {name: write_key(entity[name]) for name in ("PartitionKey", "RowKey")}
        assert holds(_lenient(sent), there) == holds(parse(text), entity), (text, sent)


def _lenient(text: str) -> Any:
    """Azure's form of a filter as a tree: more comparisons, and keys as they are there."""
    from holdfast.objects.tables import filters as module

    class Reader(module._Parser):
        def _comparison(self) -> module.Comparison:
            name = self._next()["word"]
            sign = self._word(*module._SIGNS)
            return module.Comparison(name, sign, self._literal())

    return Reader(text).whole()


@pytest.mark.parametrize("text", WRONG_FILTERS)
def test_what_is_none_is_refused_before_anything_is_asked(text: str) -> None:
    with pytest.raises(StorageRefused) as caught:
        parse(text)
    assert len(str(caught.value)) > 20


WORDS = ["a", "eq", "(", ")", "'x'", "5", "5L", "and", "or", "not", "X'0'", "'", '"', "datetime'"]


@given(st.text(max_size=40) | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        tree = parse(text)
    except StorageRefused:
        return
    if tree is not None:
        assert to_azure(tree)


@pytest.mark.parametrize("digits", ["9" * 5000, "1e" + "9" * 5000, "(" * 31_000, "a eq 'x' or " * 2600 + "a eq 'x'"])
def test_an_attack_by_length_is_refused_and_costs_nothing(digits: str) -> None:
    with pytest.raises(StorageRefused):
        parse(digits if digits[0] in "(a" else f"a eq {digits}")


def test_quoting_lets_nothing_out() -> None:
    evil = "' or RowKey ne '"
    tree = parse(f"a eq {quote(evil)}")
    assert holds(tree, row("p", "r", a=evil))
    assert not holds(tree, row("p", "r", a="other"))
    for value in (None, [1], float("nan"), 2**63, datetime(2026, 1, 1)):
        with pytest.raises(StorageRefused):
            quote(value)  # type: ignore[arg-type]


@given(prefix=st.text(min_size=1, max_size=3), text=st.text(max_size=5))
def test_a_prefix_is_a_range(prefix: str, text: str) -> None:
    try:
        tree = parse(starts_with("RowKey", prefix))
    except StorageRefused:
        assert prefix[-1] >= "\ufffc"
        return
    for candidate in (text, prefix + text, prefix[:-1] + text):
        assert holds(tree, row("p", candidate)) == candidate.startswith(prefix)
