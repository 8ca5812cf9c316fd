"""How values and lists become rows of LangGraph's checkpoints, and come back."""

from __future__ import annotations

import importlib.util
import random
from typing import Any

import pytest

if importlib.util.find_spec("langgraph") is None:
    pytest.skip("LangGraph is not installed: make test-integrations", allow_module_level=True)

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from holdfast.errors import IntegrityError, UsageError
from holdfast.integrations.langgraph import paths
from holdfast.integrations.langgraph.lists import Lost, body_of, steps_of, walked
from holdfast.integrations.langgraph.packing import bytes_of, list_body, list_data, members, packed, unpacked

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours


def test_values_come_back_as_they_were() -> None:
    serde = InMemorySaver().serde
    values: list[Any] = [
        *(None, True, 1, 1.0, -(2**63), 2**64 - 1, "ä\udc80" * 3, b"\x00\xff" * 99, float("inf"), {1: 2}, {"a": [{}]}),
        *([], [1], [b"", "x" * 70, {"a": [1] * 40}], list(range(70_000)), AIMessage("hi", id="1"), {"s"}),
        *(random.Random(1).randbytes(5000), ["\x01" * 300, 2**40, -5, 1.5, None] * 9),
    ]
    for value in values:
        row = packed(value, serde)
        assert repr(unpacked(row, serde)) == repr(serde.loads_typed(serde.dumps_typed(value)))
        if type(value) is list:
            data = serde.dumps_typed(value)[1]
            count, body = list_body(data)
            assert len(members(count, body)) == count == len(value)
            assert list_data(count, body) == data


def test_steps_lead_from_any_list_to_any_other() -> None:
    dice = random.Random(7)
    serde = InMemorySaver().serde

    def body(values: list[str], base: Any = None) -> Any:
        return body_of(*list_body(serde.dumps_typed(values)[1]), base)

    values: list[str] = []
    first = base = body(values)
    lots: list[Any] = []
    for _ in range(300):
        cut = dice.randrange(len(values) + 1)
        change = dice.randrange(5)
        if change < 3:
            values = [*values, f"{dice.random()} " * dice.randrange(1, 4)]
        elif change == 3:
            values = [*values[cut:], *values[:cut]] if dice.random() < 0.5 else values[cut // 2 :]
        else:
            values = [*values[:cut], "changed " * 3, *values[cut + 1 :]]
        new = body(values, base)
        steps, _ = steps_of(base, new)
        lots.append((steps, base.crc))
        assert walked(base, [(steps, base.crc)]) == new
        base = new
    assert walked(first, lots) == base
    assert serde.loads_typed(("msgpack", list_data(base.count, base.data))) == values
    with pytest.raises(Lost):
        walked(first, lots[1:])


def test_larger_ids_come_first_and_are_read_back() -> None:
    ids = ["1f1e6266-f72a-6955-8255-ef1b5c24ce51", "1f1e6266-f72a-6955-8255-ef1b5c24ce5", "1", "0", "z-old", "A}"]
    keys = sorted(ids, key=lambda each: paths.checkpoint_key("t", "n", each))
    assert keys == sorted(ids, reverse=True)
    assert [paths.parts(paths.checkpoint_key("t/\xe4", "n|1", each), {}) for each in ids] == [
        ("t/\xe4", "n|1", each) for each in ids
    ]
    for bad in ("", "a b", "a/b", "a~", "\xe4", "x" * 201):
        with pytest.raises(UsageError, match="no id of a checkpoint"):
            paths.turned(bad)


def test_what_is_none_of_ours_is_told() -> None:
    for row in ({}, {"s": 7}, {"b": "***"}, {"s": "\u2000"}):
        with pytest.raises(IntegrityError):
            bytes_of(row)
    for count, body in ((2, b"\x01"), (1, b"\x01\x02"), (1, b"\xc1"), (1, b"\xd9"), (1, b"\xdf\x00")):
        with pytest.raises(IntegrityError):
            members(count, body)
