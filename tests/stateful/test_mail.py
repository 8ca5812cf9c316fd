"""Acts of several machines reach several hubs in any order, cut anywhere, and in the end all hubs show the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from holdfast.collections import mailbox
from holdfast.collections.delivery import DELIVERY, STATES, Act, act, act_of, reading_of, tab_at, together
from holdfast.corpus import Branch, SqliteCorpus, Stored
from holdfast.corpus.scribe import Scribe
from holdfast.log import Log, drafts, load
from holdfast.objects import BlobFiles
from holdfast.protocol.ports import Row
from holdfast.records import genesis, stream_id
from holdfast.testing.clock import SettableClock

MACHINES = (("ada", "1"), ("bob", "1"), ("bob", "2"), ("eve", "1"))
"""Agents, one of them on two machines."""
MESSAGES = ("m1", "m2")
HUBS = 2
WORDS = ("delivered", "read", "acknowledged", "done", "snoozed", "archived", "inbox", "unread")


def branch_of(agent: str, machine: str) -> Branch:
    """A stream of its own for each machine."""
    key = f"{agent}/{machine}".encode().ljust(32, b".")
    stream = stream_id(key, agent)
    return Branch(0, stream, machine.encode() * 16, agent, key, key, True, 0, genesis(stream), 0, genesis(stream))


class Mail(RuleBasedStateMachine):
    """Machines that write, hubs that take what they wrote bit by bit, and a list of all that was ever said."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.clock = SettableClock(1_000_000)
        self.written: dict[tuple[str, str], list[Stored]] = {machine: [] for machine in MACHINES}
        self.logs = {}
        for agent, machine in MACHINES:
            corpus = SqliteCorpus(self.directory / f"{agent}-{machine}.db")
            begun = branch_of(agent, machine)
            branch = corpus.write(lambda tx, begun=begun: tx.open_branch(begun))
            blobs = BlobFiles(self.directory / "blobs")
            self.logs[agent, machine] = Log(corpus, branch, blobs=blobs, wall=self.clock)
        self.hubs = [SqliteCorpus(self.directory / f"hub-{number}.db", hub=True) for number in range(HUBS)]
        self.taken = [dict.fromkeys(MACHINES, 0) for _ in self.hubs]
        self.branches = [
            {m: hub.write(lambda tx, m=m: tx.open_branch(branch_of(*m))).id for m in MACHINES} for hub in self.hubs
        ]
        for number, msg in enumerate(MESSAGES):
            words = {"body": msg, "to": ("people", "bob")[number], "expires_at": 2_000.0 if number else None}
            self._write(("ada", "1"), drafts.message({k: v for k, v in words.items() if v}, msg_id=msg))

    @rule(machine=st.sampled_from(MACHINES), msg=st.sampled_from(MESSAGES), word=st.sampled_from(WORDS))
    def say(self, machine: tuple[str, str], msg: str, word: str) -> None:
        until = 1_500.0 if word == "snoozed" else None
        self._write(machine, drafts.value(DELIVERY, msg, act(word, "ada", until=until).value()))

    @rule(word=st.sampled_from(["withdrawn", "asked"]))
    def take_back(self, word: str) -> None:
        self._write(("ada", "1"), drafts.value(DELIVERY, "m2", act(word, "ada").value()))

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(hub=st.integers(0, HUBS - 1), machine=st.sampled_from(MACHINES), most=st.integers(1, 4))
    def ship(self, hub: int, machine: tuple[str, str], most: int) -> None:
        first = self.taken[hub][machine]
        part = self.written[machine][first : first + most]
        if part:
            rows = [Row(self.branches[hub][machine], each.record, each.item()) for each in part]
            agents = {part[0].record.stream: machine[0]}
            self.hubs[hub].write(lambda tx: Scribe(tx, agents).write(rows, {}, {}))
            self.taken[hub][machine] += len(part)

    @rule(hub=st.integers(0, HUBS - 1), lot=st.integers(1, 3))
    def fill(self, hub: int, lot: int) -> None:
        mailbox.fill(self.hubs[hub], None, lot)

    @rule(hub=st.integers(0, HUBS - 1))
    def look(self, hub: int) -> None:
        while mailbox.fill(self.hubs[hub], None):
            pass
        self._check(self.hubs[hub], {m: self.written[m][:count] for m, count in self.taken[hub].items()})

    def teardown(self) -> None:
        if not hasattr(self, "hubs"):
            return
        for number, hub in enumerate(self.hubs):
            for machine in reversed(MACHINES) if number else MACHINES:
                while self.taken[number][machine] < len(self.written[machine]):
                    self.ship(number, machine, 3)
            while mailbox.fill(hub, None, 2):
                pass
            self._check(hub, self.written)
        views = [self._view(hub) for hub in self.hubs]
        assert views[0] == views[1]
        for corpus in (*self.hubs, *(log.corpus for log in self.logs.values())):
            corpus.close()
        shutil.rmtree(self.directory)

    # -- inside -------------------------------------------------------------------------------------------------

    def _write(self, machine: tuple[str, str], draft: Any) -> None:
        self.written[machine] += self.logs[machine].append([draft])

    def _check(self, hub: SqliteCorpus, got: dict[tuple[str, str], list[Stored]]) -> None:
        """Each message lies where a plain reading of all the acts that came says."""
        acts: dict[str, list[tuple[str, int, Act]]] = {}
        there = set()
        for (agent, _), stored in got.items():
            for each in stored:
                if each.record.collection != DELIVERY:
                    there.add(each.record.key)
                elif (found := act_of(load(each, None))) is not None:
                    acts.setdefault(each.record.key, []).append((agent, each.record.hlc, found))
        shown = {row[0]: (row[1], row[2]) for row in hub.query("SELECT msg, tab, due_ms FROM mail")}
        assert set(shown) == there
        for msg in there:
            said = acts.get(msg, [])
            counts = said if msg == "m1" else [each for each in said if each[0] == "bob"]
            reading = together(reading_of(stamp, each) for _, stamp, each in counts)
            withdrawn = together(reading_of(stamp, each) for who, stamp, each in said if who == "ada").is_withdrawn
            tab = tab_at(reading, withdrawn, None, 0)
            assert mailbox.TABS[shown[msg][0]] == tab
            due = 1_500_000 if tab == "snoozed" else 2_000_000 if msg == "m2" and tab in ("unread", "read") else None
            assert shown[msg][1] == due

    @staticmethod
    def _view(hub: SqliteCorpus) -> Any:
        mail = hub.query("SELECT msg, sender, box, tab, was, due_ms, expires_ms FROM mail ORDER BY msg")
        said = hub.query("SELECT msg, sender, reader, reading FROM delivery ORDER BY msg, sender, reader")
        for msg, _, reader, reading in said:
            found = msgspec.json.decode(reading, type=mailbox.Reading)
            assert 0 <= found.rank < len(STATES), (msg, reader)
        return [mail, said]


@pytest.mark.parametrize("many", [12, pytest.param(250, marks=pytest.mark.long)])
def test_in_the_end_all_hubs_show_the_same(many: int) -> None:
    limits = settings(max_examples=many, stateful_step_count=40, deadline=None, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(Mail, settings=limits)
