"""How values and lists become rows of LangGraph's checkpoints, and come back."""

from __future__ import annotations

import importlib.util
import random
import uuid
from typing import Any

import pytest

if importlib.util.find_spec("langgraph") is None:
    pytest.skip("LangGraph is not installed: make test-integrations", allow_module_level=True)

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from holdfast.errors import IntegrityError, UsageError
from holdfast.integrations.langgraph import paths, rows
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
    dice = random.Random(3)
    known = [str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(20)]
    for _ in range(3000):
        one, cut, sign = dice.choice(known), dice.randrange(37), dice.choice("!-.0159:`afgz}AB")
        known.append(
            dice.choice([one[:cut], one[:cut] + sign + one[cut + 1 :], one[:cut] + sign, one + sign])[:99] or "0"
        )
    assert [paths.id_of(paths.turned(each)) for each in known] == known
    assert sorted(known, key=lambda each: paths.checkpoint_key("t", "n", each)) == sorted(known, reverse=True)
    assert len(paths.turned(known[0])) == 22
    for bad in ("", "a b", "a/b", "a~", "\xe4", "x" * 201):
        with pytest.raises(UsageError, match="no id of a checkpoint"):
            paths.turned(bad)


def test_rows_are_said_shortly_and_read_as_they_were() -> None:
    dice = random.Random(5)
    parent, other = str(uuid.uuid4()), str(uuid.uuid4())
    head = {"v": 4, "ts": "2026-11-22T06:45:52.044578+00:00", "channel_versions": {"a": 1}, "updated_channels": ["a"]}
    for _ in range(500):
        seen = dice.choice([{}, {"__input__": {}}, {"__input__": {}, "n": {"a": 1}}, {"__input__": None}])
        told = dice.choice([{"versions_seen": seen}, {"versions_seen": seen, "pending_sends": []}, {}])
        when = dice.choice([{}, {"ts": "2026-11-22T06:45:52+00:00"}, {"ts": "2026-11-22"}, {"ts": 7}])
        new, raw_new = {"n": 1, "s": dice.choice(["x", ["x", ["a", 0, 9, 7]]])}, {"n": 1, "b": "eA=="}
        steps = dice.choice([[], [[0, 3]], [[0, 3], new], [[0, 3], raw_new], [[1, 2], [0, 1]]])
        whole = {"l": steps, "of": dice.choice([parent, other, "1"]), "crc": 7, "w": 9}
        pieces = [
            {"t": "msgpack", "s": each} for each in (["x", ["a", 0, 9, 7], "y"], [["*b", 0, 1, 9, 7]], [["a", 0, 9, 7]])
        ]
        values = [
            *pieces,
            {"j": None},
            {"j": [1]},
            {"t": "msgpack", "s": "x"},
            {"t": "null", "s": ""},
            {"t": "msgpack", "b": "eA=="},
        ]
        lists = [
            whole,
            whole | {"same": True},
            {"l": []},
            {"l": [{"n": 1, "s": "x"}]},
            {"l": steps, "of": other, "crc": 1},
        ]
        raw = {
            "head": {"j": head | told | when} if dice.random() < 0.9 else {"t": "msgpack", "s": "x"},
            "meta": {"j": dice.choice([{}, {"parents": {}}, {"parents": {"": "x"}}, {"parents": {}, "step": 1}])},
            "values": {"a": dice.choice([*values, *lists, {"at": parent}, {"at": other}]), "b": dice.choice(lists)},
            **dice.choice([{}, {"parent": parent}, {"parent": "no UUID"}, {"parent": parent.upper()}]),
        }
        assert rows.full(rows.short(raw)) == rows.full(raw) == raw
        inside = dice.choice([*values, *pieces, {"in": ["a", "b"], "crc": 7}])
        path = dice.choice(["", "~__pregel_pull, n", "~__pregel_push, 0"])
        raw = {"task_path": path, "writes": [[0, "a", inside], [-1, "b", dice.choice(values)]]}
        assert rows.full(rows.short(raw)) == rows.full(raw) == raw


def test_what_is_none_of_ours_is_told() -> None:
    for row in ({}, {"s": 7}, {"b": "***"}, {"s": "\u2000"}):
        with pytest.raises(IntegrityError):
            bytes_of(row)
    for count, body in ((2, b"\x01"), (1, b"\x01\x02"), (1, b"\xc1"), (1, b"\xd9"), (1, b"\xdf\x00")):
        with pytest.raises(IntegrityError):
            members(count, body)
