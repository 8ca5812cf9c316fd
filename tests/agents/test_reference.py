"""docs/agents.md names every call, and every class and call says what it promises."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from holdfast import agents

PAGE = (Path(__file__).parents[2] / "docs" / "agents.md").read_text("utf-8")
DATA = {"agent", "indexes", "words", "shared"}
"""What a subclass says of itself."""


@pytest.mark.parametrize("name", [name for name in agents.__all__ if name != "Page"])
def test_every_call_is_in_the_reference(name: str) -> None:
    kind = getattr(agents, name)
    calls = {call: member for call, member in inspect.getmembers(kind) if not call.startswith("_") and call not in DATA}
    reference = PAGE.partition("## Every call")[2]
    assert [call for call in calls if f"`{call}`" not in reference] == []
    assert [call for call, member in calls.items() if not inspect.getdoc(member)] == []
    assert inspect.getdoc(kind)
