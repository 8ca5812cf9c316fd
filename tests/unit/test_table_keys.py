"""Keys and names as Azure has them: one to one, in the same order, and nothing in them that Azure refuses."""

from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.errors import StorageRefused
from holdfast.objects.tables.keys import (
    check_key,
    check_name,
    ordered,
    read_key,
    read_service,
    read_table,
    write_key,
    write_service,
    write_table,
)

keys = st.text(
    st.sampled_from("ab/.\\[#\"?>-0@]% '\ufffc🌊") | st.characters(exclude_categories=["Cs", "Cc"]), max_size=6
)
names = st.text(st.sampled_from("aBz019_-.hfHF"), min_size=1, max_size=12) | st.sampled_from(
    [
        "tables",
        "Tables",
        "hf0a",
        "HF0a",
        "hf-a",
        "hf-a0ub",
        "a_b",
        "sensitive_data",
        "agent_tasks",
        "models",
        "abc",
        "a--b",
    ]
)


@given(keys, keys)
def test_keys_keep_their_order_and_come_back(one: str, other: str) -> None:
    for key in (one, other):
        try:
            check_key(key)
        except StorageRefused:
            assume(False)
    assert not re.search(r"[/\\#?\x00-\x1f\x7f-\x9f]", write_key(one))
    assert read_key(write_key(one)) == one
    assert (ordered(write_key(one)) < ordered(write_key(other))) == (ordered(one) < ordered(other))
    assert (write_key(one) == write_key(other)) == (one == other)


@given(st.lists(names, min_size=2, max_size=20, unique=True))
def test_names_are_ones_that_azure_takes_and_come_back(given_names: list[str]) -> None:
    services = [write_service(name) for name in given_names]
    assert len(set(services)) == len(services)
    tables = {write_table(name).lower() for name in given_names}
    assert len(tables) == len({name.lower() for name in given_names})
    for name in given_names:
        assert re.fullmatch(r"(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*", write_service(name))
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]{2,62}", write_table(name))
        assert write_table(name).lower() != "tables"
        assert read_service(write_service(name)) == name
        assert read_table(write_table(name)) == name


def test_what_azure_takes_is_left_alone_and_the_rest_can_be_read() -> None:
    assert [write_service(name) for name in ("models", "agent-tasks", "a1b")] == ["models", "agent-tasks", "a1b"]
    assert write_table("Conversations") == "Conversations"
    assert write_service("sensitive_data") == "hf-sensitive0udata"
    assert write_table("agent_tasks") == "hf0agent0utasks"
    assert read_service("hf-not0xours") is None
    assert read_table("hf0not0xours") is None
    for what in ("table", "queue", "container"):
        assert check_name("agent_tasks", what) == "agent_tasks"
