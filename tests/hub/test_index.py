"""A hub's index says what its newest versions say, whichever branch they came from and in whatever order."""

from __future__ import annotations

import random
from typing import Any

import pytest

from holdfast import codec, records
from holdfast.corpus import index
from holdfast.integrity import verify_corpus
from holdfast.log import load
from holdfast.query import where
from tests.hub.conftest import Room
from tests.hub.pens import Pen

GONE = {"flags": records.TOMBSTONE, "collection": "people"}


def found(room: Room, agents: tuple[str, ...] = (), least: int = 0) -> dict[tuple[str, str], Any]:
    """What the index finds, by agent and key."""
    core = room.core
    asked = index.Query(
        collection="people", agents=agents, condition=where("years") >= least, order=("years",), limit=1000
    )
    page = index.find(core.corpus, asked, lambda stored: load(stored, core.home.blobs))
    assert not page.way.startswith("scan")
    values = [load(stored, core.home.blobs) for stored in page.found]
    assert values == sorted(values, key=lambda value: value["years"])
    return {(stored.agent, stored.record.key): value for stored, value in zip(page.found, values, strict=True)}


def newest(room: Room, agents: tuple[str, ...] = ("ada", "bob"), least: int = 0) -> dict[tuple[str, str], Any]:
    """What the newest versions are."""
    corpus = room.core.corpus
    each = [(agent, stored) for agent in agents for stored in corpus.keys(agent, "people")]
    values = {(agent, stored.record.key): load(stored, None) for agent, stored in each}
    return {at: value for at, value in values.items() if value["years"] >= least}


@pytest.mark.parametrize("seed", range(4))
def test_the_index_follows_whichever_branch_wins(room: Room, seed: int) -> None:
    choose = random.Random(seed)
    index.declare(room.core.corpus, "people", ["years"])
    ada, bob = Pen("ada"), Pen("bob")
    for pen in (ada, bob):
        for number in range(4):
            pen.put(f"k{number}", {"years": number}, collection="people")
        assert room.append(pen.segment()).verdicts[0].state == "ack"
    clone = ada.fork()
    pens = [ada, clone, bob]
    shown = 0
    for _ in range(12):
        pen = choose.choice(pens)
        first = pen.head.seq + 1
        pen.stamp += choose.randrange(0, 60) << 16
        for _ in range(choose.randrange(1, 4)):
            key, what = f"k{choose.randrange(6)}", choose.randrange(6)
            if what == 0:
                pen.write(key, codec.FMT_JSON, b"{}", kind="delete", **GONE)
            elif what == 1:
                pen.write(choose.choice(["", "k1", "k"]), codec.FMT_JSON, b"{}", kind=records.DELETE_PREFIX, **GONE)
            else:
                pen.put(key, {"years": choose.randrange(50)}, collection="people")
        if choose.randrange(3) == 0:
            index.fill(room.core.corpus, lot=1)
        assert room.append(pen.segment(first)).verdicts[0].state == "ack"
        if choose.randrange(2):
            assert found(room) == newest(room)
            shown += 1
    least = choose.randrange(20)
    assert found(room, ("ada",), least) == newest(room, ("ada",), least)
    assert found(room, ("nobody",)) == {}
    assert shown
    assert [str(finding) for finding in verify_corpus(room.core.corpus, room.core.home.blobs).findings] == []
