"""Following against a file system that does everything to its files: whatever happens, at rest the log holds each file
to the byte, every message of it once, and each state that it ever held."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.cli.following.follower import WAIT_NS, Follower
from holdfast.cli.following.ledger import Head, Ledger
from holdfast.cli.transcripts.tools import TOOLS
from holdfast.collections.sessions import MESSAGE, key_of
from holdfast.node.directory import Limits
from holdfast.node.store import Store

NAMES = ("one", "two")
START_NS = 1_800_000_000_000_000_000
CLAUDE = TOOLS["claude-code"]


def line(number: int, text: str = "said") -> bytes:
    """A line of a transcript: most are messages, some are none, are broken, empty, or long."""
    if number % 11 == 7:
        return b"{broken\n"
    if number % 11 == 8:
        return b'{"type": "progress", "n": %d}\n' % number
    if number % 11 == 9:
        return b"\r\n"
    long = "x" * 70_000 if number % 11 == 10 else ""
    said = {"type": "user", "sessionId": "s", "uuid": f"u{number}", "message": {"role": "user"}}
    said["message"]["content"] = f"{text} {number} {long}"  # type: ignore[index]
    return json.dumps(said).encode() + b"\n"


LINES = st.lists(st.integers(0, 40), min_size=1, max_size=6)
FILES = st.sampled_from(NAMES)


class FollowMachine(RuleBasedStateMachine):
    """Two followers that run on and on, others that begin and are killed, and a clock that files are stamped with."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.folder = self.home / "tool" / "projects" / "p"
        self.folder.mkdir(parents=True)
        self.now = START_NS
        self.past: list[tuple[str, Head, bytes]] = []
        self.told: list[tuple[str, str]] = []
        self.rested = False

    @initialize()
    def begin(self) -> None:
        """Opens the store, and lets two followers begin."""
        self.store = Store(self.home / "node", "ada", hub=[], limits=Limits(0, 0))
        self.ledger = Ledger(self.store)
        self.long_ones = [self.follower(), self.follower()]

    def teardown(self) -> None:
        """Closes and forgets it."""
        self.store.close()
        shutil.rmtree(self.home)

    def follower(self) -> Follower:
        """One that knows nothing but the log."""
        return Follower(
            self.store,
            CLAUDE,
            self.home / "tool",
            lambda place, why: self.told.append((place, why)),
            now_ns=lambda: self.now,
        )

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.folder / f"{name}.jsonl"

    def written(self, name: str) -> None:
        """Stamps a file with the clock, whose grain is coarse."""
        self.now += 3_000_000
        stamp = self.now // 10_000_000 * 10_000_000
        os.utime(self.path(name), ns=(stamp, stamp))
        self.rested = False

    # -- what tools do --------------------------------------------------------------------------------------------

    @rule(name=FILES, numbers=LINES, half=st.integers(0, 60))
    def append(self, name: str, numbers: list[int], half: int) -> None:
        """Lines are appended; the last one may not be whole yet."""
        data = b"".join(map(line, numbers))
        with self.path(name).open("ab") as file:
            file.write(data[: len(data) - half] if half else data)
        self.written(name)

    @rule(name=FILES, keep=st.floats(0, 1))
    def truncate(self, name: str, keep: float) -> None:
        """A file is cut short."""
        if self.path(name).exists():
            os.truncate(self.path(name), int(self.path(name).stat().st_size * keep))
            self.written(name)

    @rule(name=FILES, numbers=LINES, within=st.booleans(), common=st.floats(0, 1))
    def rewrite(self, name: str, numbers: list[int], within: bool, common: float) -> None:
        """A file is written anew, in its place or beside; it may begin as before."""
        path = self.path(name)
        before = path.read_bytes() if path.exists() else b""
        data = before[: int(len(before) * common)] + b"".join(map(line, numbers))
        if within:
            path.write_bytes(data)
        else:
            path.with_suffix(".new").write_bytes(data)
            path.with_suffix(".new").replace(path)
        self.written(name)

    @rule(name=FILES, at=st.floats(0, 1), and_append=st.booleans())
    def edit(self, name: str, at: float, and_append: bool) -> None:
        """A word in the midst is replaced by one as long; the file may grow at the same moment."""
        path = self.path(name)
        data = path.read_bytes() if path.exists() else b""
        place = data.find(b"said", int(len(data) * at))
        if place >= 0:
            more = line(1, "grew") if and_append else b""
            path.write_bytes(data[:place] + b"told" + data[place + 4 :] + more)
            self.written(name)

    @rule(name=FILES, other=FILES)
    def move(self, name: str, other: str) -> None:
        """A file takes another's place."""
        if self.path(name).exists() and name != other:
            self.path(name).replace(self.path(other))
            self.written(other)

    @rule(name=FILES)
    def delete(self, name: str) -> None:
        """A file goes."""
        self.path(name).unlink(missing_ok=True)
        self.rested = False

    # -- who follows ----------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), later=st.sampled_from([0, 0, 1, 500, 3_000]))
    def follow(self, which: int, later: int) -> None:
        """One of the two that run on looks at everything."""
        self.now += later * 1_000_000
        self.long_ones[which].walk()
        self.long_ones[which].once()

    @rule(commits=st.integers(0, 4))
    def killed(self, commits: int) -> None:
        """One begins, and ends in the midst."""
        left = iter(range(commits))
        stop: Callable[[], bool] = lambda: next(left, None) is None  # noqa: E731
        one = self.follower()
        one.walk()
        one.once(stop)

    @rule(which=st.sampled_from([0, 1, None]))
    def rest(self, which: int | None) -> None:
        """Nobody writes for two minutes, and somebody follows, who may know nothing but the log."""
        self.now += 2 * WAIT_NS
        one = self.follower() if which is None else self.long_ones[which]
        one.walk()
        one.once()
        self.rested = True
        again = self.follower()
        head = self.ledger.store.health()["head"]
        again.walk()
        assert not again.once(), "what is at rest was written again"
        assert self.ledger.store.health()["head"] == head
        for name in NAMES:
            fid = self.ledger.fid("claude-code", f"projects/p/{name}.jsonl")
            found = self.ledger.head(fid)
            if self.path(name).exists() and found is not None:
                self.past.append((fid, found[0], self.path(name).read_bytes()))

    # -- what holds -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.rested)
    @invariant()
    def at_rest_all_is_there(self) -> None:
        """Every file to the byte, and every message once."""
        for name in NAMES:
            path = self.path(name)
            if not path.exists() or not path.stat().st_size:
                continue
            fid = self.ledger.fid("claude-code", f"projects/p/{name}.jsonl")
            found = self.ledger.head(fid)
            assert found is not None, f"{name} is not followed"
            head = found[0]
            data = path.read_bytes()
            assert b"".join(self.ledger.content(fid, head)) == data
            assert head.lines == data.count(b"\n")
            said: dict[str, str] = {}
            for text in data.split(b"\n"):
                try:
                    event = json.loads(text)
                    said[event["uuid"]] = event["message"]["content"]
                except (ValueError, TypeError, KeyError):
                    continue
            told = self.messages(head.conversation)
            elsewhere = [each for other in head.before for each in self.messages(other)]
            for content in said.values():
                # Too long to be shown whole, it is shown cut; told elsewhere, it is known by its number.
                here = any(each.startswith(content[:1_000]) for versions in told for each in versions)
                there = any(versions[0].split()[1] == content.split()[1] for versions in elsewhere)
                assert here or there, f"{content[:1_000]!r} of {name} is not told"
            ours = [versions[0].split()[1] for versions in told]
            assert head.said == len(ours) == len(set(ours)), f"a message of {name} is there twice"

    @precondition(lambda self: self.rested)
    @invariant()
    def what_was_kept_stays(self) -> None:
        """Each earlier state can be given back."""
        for fid, head, data in self.past[-12:]:
            assert b"".join(self.ledger.content(fid, head)) == data

    def messages(self, conversation: str) -> list[list[str]]:
        """What was said in a session: each message's versions, newest first."""
        keys = self.store.keys(key_of(conversation, MESSAGE), collection="sessions") if conversation else []
        past = (self.store.history(key, collection="sessions") for key in keys)
        return [[version.value["content"] for version in versions] for versions in past]


@pytest.mark.parametrize("many", [12, pytest.param(300, marks=pytest.mark.long)])
def test_whatever_happens_to_the_files_the_log_holds_them(many: int) -> None:
    limits = settings(max_examples=many, stateful_step_count=20, deadline=None, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(FollowMachine, settings=limits)
