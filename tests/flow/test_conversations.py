"""Real conversations, imported on one node, are read back identical and in order on another, hub or new hub."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.collections import Message, message_of
from holdfast.node.store import Store
from tests.flow.hubs import HubProcess

DATA = Path(os.environ.get("HOLDFAST_DATA") or Path(__file__).parents[2].parent / "shared" / "data")
FILE = DATA / "conversations.json"
COUNT = 5_308
COMMAND = "import sys; from holdfast.cli import main; sys.argv[0] = 'holdfast'; main()"

pytestmark = pytest.mark.skipif(
    not FILE.is_file(), reason="needs conversations.json, which is not part of the project: HOLDFAST_DATA=<its folder>"
)

Said = dict[str, Any]


def holdfast(*words: str | Path) -> str:
    """What a command line says; it succeeded."""
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, words)], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def originals() -> list[list[Said]]:
    """The conversations as they lie in the file; fields that say nothing count as not there."""
    found = json.loads(FILE.read_bytes())
    return [[{k: v for k, v in said.items() if v is not None or k == "content"} for said in c["traj"]] for c in found]


def original(message: Message) -> Said:
    """The message as it was before it was imported."""
    return {"role": message.role, "content": message.body, **message.extra.get("rest", {})}


def read_all(store: Store) -> dict[str, list[Message]]:
    """Every imported message by conversation, in the order in which the hub shows them."""
    threads: dict[str, list[Message]] = {}
    with store.changes(agent="archive") as changes:
        for change in itertools.islice(changes, COUNT):
            message = message_of(change)
            threads.setdefault(message.thread or "", []).append(message)
    return threads


def check(store: Store) -> None:
    """All of it is there, the same and in order, whichever way it is asked for."""
    expected = originals()
    threads = read_all(store)
    assert [[original(message) for message in said] for said in threads.values()] == expected
    assert sum(1 for _ in store.changes(live=False, agent="archive")) == COUNT
    for thread, said in list(threads.items())[::10]:
        found = store.messages(thread=thread, limit=1000)
        assert [(m.id, original(m)) for m in found] == [(m.id, original(m)) for m in said]


def test_conversations_are_the_same_on_another_node_and_again_from_a_refilled_hub(
    hub: HubProcess, on_node: Callable[..., Store], tmp_path: Path
) -> None:
    assert sum(map(len, originals())) == COUNT
    a = tmp_path / "a"
    holdfast("--store", a, "init", "--agent", "archive", "--hub", hub.url)
    told = json.loads(holdfast("--json", "--store", a, "import", FILE))
    assert (told["new"], told["already"], told["bad"], told["outbox"]) == (COUNT, 0, 0, 0)
    check(on_node("b", "reader"))

    again = json.loads(holdfast("--json", "--store", a, "import", FILE))
    assert (again["new"], again["already"]) == (0, COUNT)

    hub.kill()
    shutil.rmtree(hub.directory)
    hub.start()
    on_node("a", "archive")  # it is enough that the node is there
    check(on_node("c", "reader"))
    check(on_node("b", "reader"))
