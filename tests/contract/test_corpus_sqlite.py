"""SQLite keeps the laws of a corpus, as an agent's file and as a hub's."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from holdfast.clock import pack
from holdfast.corpus import Filter, SqliteCorpus
from holdfast.corpus.index import ways
from holdfast.log import message, remove
from holdfast.testing import corpus as laws
from holdfast.testing import corpus_index as indexes
from holdfast.testing import corpus_many as many
from holdfast.testing import corpus_search as searches
from holdfast.testing.clock import SettableClock
from holdfast.testing.corpus import log_of, names, put


class AgentFile:
    """One agent's log: pos is seq."""

    def make(self, directory: Path) -> SqliteCorpus:
        return SqliteCorpus(directory / "log.db")


class HubFile:
    """Everybody's logs in one file."""

    def make(self, directory: Path) -> SqliteCorpus:
        return SqliteCorpus(directory / "hub.db", hub=True)


class TestAgentBasic(AgentFile, laws.Basic): ...


class TestAgentHistory(AgentFile, laws.History): ...


class TestAgentPaging(AgentFile, laws.Paging): ...


class TestAgentFeed(AgentFile, laws.Feed): ...


class TestAgentBatches(AgentFile, laws.Batches): ...


class TestAgentNames(AgentFile, laws.Names): ...


class TestAgentScopes(AgentFile, laws.Scopes): ...


class TestAgentConcurrency(AgentFile, many.Concurrency): ...


class TestAgentTransactions(AgentFile, many.Transactions): ...


class TestAgentIndexes(AgentFile, indexes.Indexes): ...


class TestAgentSearching(AgentFile, searches.Searching): ...


class TestAgentIndexesInSmallSteps(AgentFile):
    """So that orders are walked along, and more than one chunk of them."""

    @pytest.mark.parametrize("few", [0, 5])
    def test_pages(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
        for name, size in (("FEW", few), ("CHUNK", 2), ("CHUNK_MAX", 5), ("STEP", 3)):
            monkeypatch.setattr(ways, name, size)
        suite = indexes.Indexes()
        monkeypatch.setattr(suite, "make", self.make)
        suite.test_pages_hold_what_the_conditions_mean_declared_or_not(tmp_path)


class TestHubBasic(HubFile, laws.Basic): ...


class TestHubHistory(HubFile, laws.History): ...


class TestHubPaging(HubFile, laws.Paging): ...


class TestHubFeed(HubFile, laws.Feed): ...


class TestHubBatches(HubFile, laws.Batches): ...


class TestHubNames(HubFile, laws.Names): ...


class TestHubScopes(HubFile, laws.Scopes): ...


class TestHubConcurrency(HubFile, many.Concurrency): ...


class TestHubTransactions(HubFile, many.Transactions): ...


class TestHubIndexes(HubFile, indexes.Indexes): ...


class TestHubSearching(HubFile, searches.Searching): ...


def test_a_hub_keeps_its_agents_apart(tmp_path: Path) -> None:
    corpus = HubFile().make(tmp_path)
    logs = {agent: log_of(corpus, tmp_path, agent) for agent in ("ada", "bob", "Ada")}
    for agent, log in logs.items():
        put(log, "k", agent)
        put(log, "a/1", agent)
        log.append([message({"to": "ada", "body": agent}, msg_id=f"m-{agent}")])
    logs["ada"].append([remove("state", "a/", prefix=True)])
    for agent in logs:
        found = corpus.newest(agent, "state", "k")
        assert found is not None
        assert found.agent == agent
        assert names(corpus.keys(agent, "state", "", "", 10)) == (["k"] if agent == "ada" else ["a/1", "k"])
        assert {stored.agent for stored in corpus.page(Filter(agents=(agent,)))} == {agent}
    assert corpus.agents() == ["Ada", "ada", "bob"]
    assert [stored.agent for stored in corpus.page(Filter(to="ada"))] == ["Ada", "bob", "ada"]
    assert names(corpus.page(Filter(to="ada", agents=("bob", "Ada"), newest_first=False))) == ["m-bob", "m-Ada"]
    corpus.close()


def test_a_time_filter_on_a_hub_meets_what_arrives_late(tmp_path: Path) -> None:
    """A node was away for a day: its records are old by their stamp and new by their position."""
    corpus = HubFile().make(tmp_path)
    day = 86_400_000
    wall = SettableClock(100 * day)
    here, away = log_of(corpus, tmp_path, "here", wall), log_of(corpus, tmp_path, "away", SettableClock(99 * day))
    for hour in range(24):
        put(here, f"h{hour:02}")
        arrived, pos = wall.now_ms(), corpus.last()
        corpus.write(lambda tx, at=arrived, pos=pos: tx.execute("INSERT INTO arrival VALUES(?,?)", (at, pos)))
        wall.advance(3600)
    put(away, "late")
    ordered = Filter(newest_first=False)
    assert names(corpus.page(Filter(since=pack(99 * day), until=pack(100 * day)))) == ["late"]
    evening = Filter(since=pack(100 * day + 20 * 3_600_000), newest_first=False)
    assert names(corpus.page(evening)) == ["h20", "h21", "h22", "h23"]
    assert len(corpus.page(ordered)) == 25
    cursor = corpus.page(Filter(newest_first=False, limit=24))[-1].pos
    assert names(corpus.page(Filter(newest_first=False, after=cursor))) == ["late"], "a cursor is a place, not a time"
    corpus.close()


FORK = textwrap.dedent("""
    import os, sys, threading
    from pathlib import Path
    from holdfast.corpus import SqliteCorpus
    from holdfast.errors import StoreClosed

    corpus = SqliteCorpus(Path(sys.argv[1]) / "log.db", hub=sys.argv[2] == "hub")
    corpus.write(lambda tx: tx.set_meta("before", 1))
    inside, go_on = threading.Event(), threading.Event()

    def slow(tx):
        tx.set_meta("during", 1)
        inside.set()
        go_on.wait()

    writer = threading.Thread(target=corpus.write, args=(slow,))
    writer.start()
    inside.wait()
    child = os.fork()           # in the middle of another thread's commit
    if child == 0:
        told = 0
        outcomes = []
        for use in (lambda: corpus.write(lambda tx: None), lambda: corpus.last(), lambda: corpus.meta("before"),
                    lambda: corpus.sync(), lambda: corpus.feed(0)):
            try:
                use()
            except StoreClosed:
                told += 1
        done = threading.Event()
        corpus.submit(lambda tx: None, lambda found: (outcomes.extend(found), done.set()))
        done.wait(20)
        told += isinstance(outcomes[0][2], StoreClosed)
        corpus.close()
        sys.exit(told)          # an orderly end: everything is finalised
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    go_on.set()
    writer.join()
    corpus.write(lambda tx: tx.set_meta("after", 1))
    corpus.close()
    corpus = SqliteCorpus(Path(sys.argv[1]) / "log.db", hub=sys.argv[2] == "hub")
    assert [corpus.meta(key) for key in ("before", "during", "after")] == [1, 1, 1]
    assert corpus.engine.scrub() == []
    corpus.close()
    print("fine")
""")


@pytest.mark.parametrize("role", ["agent", "hub"])
def test_a_fork_closes_the_childs_store_and_leaves_the_parents_alone(tmp_path: Path, role: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path), role]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.returncode) == ("fine\n", 0), result.stderr
