"""What a saver remembers of messages, against one that remembers nothing."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("langgraph") is None:
    pytest.skip("LangGraph is not installed: make test-integrations", allow_module_level=True)

from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6

from holdfast import Store
from holdfast.integrations.langgraph import HoldfastSaver, paths

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours


def checkpoint(values: list[Any], number: int) -> Any:
    made = {"id": str(uuid6(clock_seq=number)), "channel_values": {"l": values}, "channel_versions": {"l": number}}
    return empty_checkpoint() | made


def test_messages_are_gone_by_only_where_they_are_what_they_were(tmp_path: Path) -> None:
    """What a saver knows of a list of messages against one that knows nothing, while everything in it is changed."""
    dice = random.Random(11)
    with Store(tmp_path / "node", "graph", hub=[]) as store:
        differ(store, dice)


def differ(store: Store, dice: random.Random) -> None:
    saver, at = HoldfastSaver(store), {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    values: list[Any] = []
    known = 0
    for number in range(60):
        kind = dice.choice([HumanMessage, AIMessage, AIMessageChunk, ToolMessage])
        more = {"tool_call_id": "1"} if kind is ToolMessage else {"more": {"deep": [number]}} if number == 50 else {}
        values = [
            *values,
            kind(f"what was said {number}", id=str(number), response_metadata={"at": [{"n": number}]}, **more),
        ]
        if number > 8:
            change(dice, values)
        expected = HoldfastSaver(store).serde.loads_typed(saver.serde.dumps_typed(values))
        at = saver.put(at, checkpoint(values, number), {"step": number}, {"l": number + 1})
        for each in (saver, saver, HoldfastSaver(store)):
            found = each.get_tuple(at).checkpoint["channel_values"]["l"]
            assert [message.__getstate__() for message in found] == [message.__getstate__() for message in expected]
            assert list(map(type, found)) == list(map(type, expected))
            found[0].response_metadata["at"][0]["n"] = "of the one who read it"
        known += saver._threads.image(paths.checkpoint_key("t", "", "0"), "l", saver.serde) is not None
        if dice.random() < 0.5:
            values = saver.get_tuple(at).checkpoint["channel_values"]["l"]
    assert known > 40


def change(dice: random.Random, values: list[Any]) -> None:
    """Changes something in a list of messages, or in one of them where it stands."""
    where = dice.randrange(len(values))
    match dice.randrange(7):
        case 0:
            values[where].response_metadata["at"][0]["n"] = dice.choice([1, 1.0, True, "1", None])
        case 1:
            values[where].additional_kwargs[str(dice.random())] = [where]
        case 2:
            values[where] = HumanMessage(values[where].content, response_metadata=values[where].response_metadata)
        case 3:
            values[:] = values[dice.randrange(4) :]
        case _:
            pass
