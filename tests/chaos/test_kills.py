"""SIGKILL at any moment, of anybody: every write that returned is there, once, in order, on both sides."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from pathlib import Path

import pytest

from holdfast.node.hub import Hub
from holdfast.node.store import Store
from tests.chaos import audit
from tests.chaos.conftest import PATIENCE_S, Cast, Served, Writer, until
from tests.promises import Count

WRITERS = [("north", "ada"), ("north", "ada"), ("north", "bob"), ("south", "cyd"), ("south", "cyd"), ("south", "dan")]
"""(node directory, agent): two processes of one agent, several agents of one directory, two directories."""
SEED = int(os.environ.get("CHAOS_SEED", "20240607"))


class Follower:
    """Somebody who listens to the hub through all its deaths."""

    def __init__(self, url: str) -> None:
        self.seen: list[audit.At] = []
        self._hub = Hub(url)
        self._changes = self._hub.changes()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for version in self._changes:
            self.seen.append((version.stream, version.seq, version.etag))

    def close(self) -> None:
        """Stops listening."""
        self._changes.close()
        self._thread.join(PATIENCE_S)
        self._hub.close()
        assert not self._thread.is_alive()


class Storm:
    """Two nodes, six writers and a hub, and what strikes them."""

    def __init__(self, cast: Cast, seed: int) -> None:
        self.cast, self.rng = cast, random.Random(seed)
        self.hub: Served = cast.hub().start()
        self.lives = [0] * len(WRITERS)
        self.writers = [self._born(slot) for slot in range(len(WRITERS))]
        self.struck = {"agent": 0, "hub": 0, "both": 0}

    def _born(self, slot: int) -> Writer:
        node, agent = WRITERS[slot]
        self.lives[slot] += 1
        return self.cast.writer(node, agent, f"w{slot}-{self.lives[slot]}", "--hub", self.hub.url)

    def strike(self, turn: int) -> None:
        """One kill (of two at once: both count), at a moment when everybody is writing as fast as he can."""
        slot = self.rng.randrange(len(self.writers))
        victim = self.writers[slot]
        victim.until("wrote")
        what = ("agent", "hub", "agent", "both")[turn % 4]
        self._order("sprint")
        target = victim.lines() + self.rng.randrange(200, 5_000)
        until(lambda: victim.lines() >= target or not victim.alive, "the victim writes")
        assert victim.alive, victim.said()
        threading.Event().wait(self.rng.uniform(0, 0.004))  # anywhere within a write, not always behind one
        if what != "hub":
            victim.process.kill()
        if what != "agent":
            self.hub.process.process.kill()
        self._order("walk")
        victim.process.wait(PATIENCE_S) if what != "hub" else None
        self.struck[what] += 1
        if what != "hub":
            victim.kill()
            self.writers[slot] = self._born(slot)
        if what != "agent":
            self.hub.kill()
            self._write_without_hub(slot)
            self.hub.start()

    def _write_without_hub(self, slot: int) -> None:
        """Writing goes on while nobody answers: for some writes, now and then for none."""
        other = self.writers[(slot + 1) % len(self.writers)]
        target = other.lines() + self.rng.choice([0, 0, 1_000, 4_000])
        until(lambda: other.lines() >= target or not other.alive, "writing goes on without the hub")
        assert other.alive, other.said()

    def _order(self, word: str) -> None:
        for writer in self.writers:
            writer.order(word)

    def settle(self) -> None:
        """Everybody finishes, and ships what is left."""
        self._order("stop")
        for writer in self.writers:
            found = writer.stop(2 * PATIENCE_S)
            flushed = [entry for entry in found if entry["what"] == "flushed"]
            assert flushed[0]["ok"], f"{writer.who} could not ship: {found[-3:]}"


def storm(cast: Cast, kills: int, seed: int, count: Count) -> None:
    """So many kills, and then the count."""
    play = Storm(cast, seed)
    follower = Follower(play.hub.url)
    turn = 0
    while play.struck["agent"] + play.struck["hub"] + 2 * play.struck["both"] < kills:
        play.strike(turn)
        turn += 1
    play.settle()
    look_through_the_hub(play, cast.home)
    play_end = [audit.node(cast.home / name) for name in ("north", "south")]
    known = sum(len(place.records) for place in play_end)
    with contextlib.suppress(AssertionError):  # what it lacks is said at the end, record by record
        until(lambda: len(follower.seen) >= known, "the follower has everything")
    follower.close()
    play.hub.stop()
    central = audit.hub(play.hub.path)
    journals = audit.Journals.read(cast.journals())
    ledger(play, journals, play_end, central)
    check(journals, play_end, central, follower.seen)
    struck = sum(play.struck.values()) + play.struck["both"]
    count(
        "SIGKILL of an agent or a hub that was writing",
        tried=struck,
        acknowledged_writes_all_there_once=len(journals.returned),
    )


def look_through_the_hub(play: Storm, home: Path) -> None:
    """What a reader is given is what the agent itself has, proven, for every key."""
    reader = Hub(play.hub.url)
    for node, agent in sorted(set(WRITERS)):
        with Store(home / node, agent, hub=[]) as store:
            for collection in ("state", "batches"):
                keys = store.keys(collection=collection)
                assert reader.keys(agent=agent, collection=collection) == keys
                for key in keys:
                    mine = store.get(key, collection=collection)
                    assert reader.get(key, agent=agent, collection=collection) == mine
            mine_said = [message.id for message in store.messages(agent=agent, limit=1000)]
            assert [m.id for m in reader.messages(agent=agent, limit=1000)] == mine_said
    reader.close()


def ledger(play: Storm, journals: audit.Journals, nodes: list[audit.Place], central: audit.Place) -> None:
    """For people: how much there was of everything."""
    live = sum(audit.survivors(journals, place) for place in nodes)
    tried = sum(map(len, journals.batches))
    unknown = tried - len(journals.returned) - len(journals.refused)
    print(
        f"\nkills {play.struck['agent'] + play.struck['hub'] + 2 * play.struck['both']}"
        f" (agent alone {play.struck['agent']}, hub alone {play.struck['hub']}, both at once {play.struck['both']})"
        f"\nwrites that returned {len(journals.returned):,}, of {sum(map(bool, play.lives))} writers in"
        f" {sum(play.lives)} lives; {central.kinds}"
        f"\nin flight when killed {unknown}, of which {live} are there"
        f"\non the hub {len(central.records):,} records in {central.branches} chains"
    )


def check(journals: audit.Journals, nodes: list[audit.Place], central: audit.Place, seen: list[audit.At]) -> None:
    """Nothing lost, doubled, halved, moved or changed, anywhere."""
    assert journals.failed == []
    assert journals.returned
    together = audit.Place("the nodes")
    for place in nodes:
        together.records += place.records
    for place in (together, central):
        assert audit.missing(journals, place) == []
        assert audit.doubled(place) == []
        assert audit.halves(journals, place) == []
        assert audit.order(place) == []
    assert [finding for place in (*nodes, central) for finding in place.wrong] == []
    assert central.branches == len(set(WRITERS)), "a kill looked like a fork"
    assert sorted(central.links) == sorted(together.links)
    assert audit.differing(nodes, central) == []
    shown = set(seen)
    unseen = [(pos, at) for pos, (at, _, _) in enumerate(central.records, 1) if at not in shown]
    assert unseen == [], "the follower was not shown everything"
    assert seen == [at for at, _, _ in central.records], "the follower saw something else than what is there"


@pytest.mark.timeout(300)
def test_twenty_kills_lose_and_double_nothing(cast: Cast, count: Count) -> None:
    storm(cast, 20, SEED, count)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kills", "seed"), [(100, SEED + 1), (300, SEED + 2)])
def test_many_kills_lose_and_double_nothing(cast: Cast, kills: int, seed: int, count: Count) -> None:
    storm(cast, kills, seed, count)
