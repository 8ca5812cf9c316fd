"""Keys and the names that a server sees: one to one, in the same order, and no file where a directory must be."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.errors import StorageRefused
from holdfast.objects.cloud.store import Naming, _before
from holdfast.objects.keys import check_key

SEGMENT = st.text(st.sampled_from(" !-./0aZ~ü🌊"), min_size=1, max_size=4)


@st.composite
def keys(draw: st.DrawFn) -> str:
    """Keys that are alike."""
    key = "/".join(draw(st.lists(SEGMENT, min_size=1, max_size=3)))
    try:
        return check_key(key)
    except StorageRefused:
        assume(False)
        raise


@given(st.lists(keys(), min_size=2, max_size=6, unique=True), st.sampled_from(["", "some/prefix/"]))
def test_marked_names_keep_the_order_and_never_collide(every: list[str], prefix: str) -> None:
    naming = Naming(prefix=prefix, marked=True)
    every = [key for key in every if " /" not in key]
    names = [naming.name(key) for key in sorted(every)]
    assert names == sorted(names)
    assert [naming.key(name) for name in names] == sorted(every)
    directories = {name[:at] for name in names for at, sign in enumerate(name) if sign == "/"}
    assert not directories & set(names)


@given(keys(), keys())
def test_a_listing_begins_before_all_that_has_the_prefix(prefix: str, other: str) -> None:
    begin = _before(prefix)
    assert begin < prefix
    if other > prefix or other.startswith(prefix):
        assert other > begin


@pytest.mark.parametrize("key", [".holdfast-probe/x", "a /b"])
def test_what_has_no_name_is_refused(key: str) -> None:
    with pytest.raises(StorageRefused):
        Naming(marked=True).name(key)


def test_the_names_of_others_are_no_keys() -> None:
    assert Naming(prefix="a/").key("ab/c") is None
    assert Naming(marked=True).key("a") is None
    assert Naming().key(".holdfast-probe/x") is None
