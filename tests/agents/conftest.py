"""Stores of agents on a disk with room and on a clock that stands still; closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.agents import AgentStorage, BaseStorage, CommanderStorage, RecruiterAgentStorage
from holdfast.node.directory import Limits
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess

ROOMY = Limits(floor_bytes=0, ballast_bytes=0)


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def opened(tmp_path: Path, clock: SettableClock) -> Iterator[Callable[..., Any]]:
    """Opens a storage of a class, on `tmp_path/node` if nothing else is said."""
    made: list[BaseStorage] = []

    def make(kind: Callable[..., BaseStorage], *args: Any, **options: Any) -> Any:
        options = {"data_dir": tmp_path / "node", "limits": ROOMY, "clock": clock} | options
        made.append(kind(*args, **options))
        return made[-1]

    yield make
    for storage in reversed(made):
        storage.__exit__()


@pytest.fixture
def keyed(opened: Callable[..., Any]) -> AgentStorage:
    found: AgentStorage = opened(AgentStorage, "my-agent")
    return found


@pytest.fixture
def recruiter(opened: Callable[..., Any]) -> RecruiterAgentStorage:
    found: RecruiterAgentStorage = opened(RecruiterAgentStorage)
    return found


@pytest.fixture(scope="session")
def one_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    hub = HubProcess(tmp_path_factory.mktemp("hub") / "hub")
    yield hub
    hub.kill()


@pytest.fixture(params=["own", "shared"])
def commanders(
    request: pytest.FixtureRequest, opened: Callable[..., Any], tmp_path: Path
) -> tuple[CommanderStorage, CommanderStorage]:
    """Two of them on one board: on one machine, which decides, or on two, for which the hub decides."""
    if request.param == "own":
        return opened(CommanderStorage), opened(CommanderStorage)
    url = request.getfixturevalue("one_hub").url
    one, other = (
        opened(CommanderStorage, htpc_url=url, shared=True, data_dir=tmp_path / name) for name in ("one", "other")
    )
    for table in one.shared:  # what the test before left
        for row in list(one.table(table).each()):
            one.table(table).delete(row.id)
    for each in (one, other):  # both ask the hub for its time before the test moves theirs
        asyncio.run(each.task_counts())
    return one, other
