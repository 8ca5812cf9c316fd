"""A primary that is killed for good: nodes and readers go on with the standby, and nothing is lost or told twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.corpus import Filter, SqliteCorpus
from holdfast.errors import HubUnavailable, IntegrityError, NotFound
from holdfast.integrity.scan import verify_corpus
from holdfast.log.versions import Version
from holdfast.node.aio import AsyncStore
from holdfast.node.changes import Changes
from holdfast.node.directory import Limits
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.objects import BlobFiles
from tests.flow.hubs import HubProcess, until

On = Callable[..., Store]
ROOMY = Limits(floor_bytes=0, ballast_bytes=0)


@pytest.fixture
def standby(tmp_path: Path, hub: HubProcess) -> Iterator[HubProcess]:
    """A second hub, which follows the first."""
    process = HubProcess(tmp_path / "standby", follow=hub.url)
    yield process
    process.kill()


@pytest.fixture
def both(hub: HubProcess, standby: HubProcess) -> list[str]:
    """What nodes and readers are given."""
    return [hub.url, standby.url]


@pytest.fixture
def at() -> Iterator[Callable[[str | list[str]], Hub]]:
    """Opens a reader of these hubs; all are closed at the end."""
    with contextlib.ExitStack() as opened:
        yield lambda urls: opened.enter_context(Hub(urls))


def health(hub: HubProcess) -> dict[str, Any]:
    """How a hub stands."""
    with urllib.request.urlopen(f"{hub.url}/health") as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def followed(hub: HubProcess, standby: HubProcess) -> None:
    """Returns when the standby has all that the primary has, and can take over its readers."""
    until(lambda: health(standby)["follows"]["handover"] == health(hub)["pos"], "the standby is level")


class Reader(threading.Thread):
    """Follows a feed in a thread of its own."""

    def __init__(self, changes: Changes) -> None:
        super().__init__(daemon=True)
        self.changes = changes
        self.got: list[Version] = []
        self.start()

    def run(self) -> None:
        """Takes what comes."""
        for each in self.changes:
            self.got.append(each)

    def close(self) -> list[Version]:
        """Ends it; all that came."""
        self.changes.close()
        self.join(20)
        assert not self.is_alive()
        return self.got


def check_once_and_in_order(got: list[Version]) -> None:
    """Fails if a record came twice, or one of an agent's before an earlier one."""
    assert [each for each, times in Counter((v.stream, v.seq) for v in got).items() if times > 1] == []
    for stream in {v.stream for v in got}:
        seqs = [v.seq for v in got if v.stream == stream]
        assert seqs == sorted(seqs)


def test_nothing_is_lost_when_the_primary_dies_for_good_under_load(
    on_node: On, hub: HubProcess, standby: HubProcess, both: list[str], at: Callable[[str | list[str]], Hub]
) -> None:
    ada, bob, plain = on_node("n1", "ada", hub=both), on_node("n2", "bob", hub=both), at(both)
    readers = [Reader(bob.changes()), Reader(plain.changes(collection="state"))]
    for number in range(30):
        plain.post({"number": number}, agent="boss", to="ada", task="t", msg_id=f"m{number}")
    until(lambda: len(at(standby.url).messages(to="ada", task="t")) == 30, "what plain clients said is followed")
    dead, wrote = threading.Event(), Counter[str]()

    def work(store: Store) -> None:
        while wrote[store.agent] < 600 or not dead.is_set() or wrote[store.agent] < wrote["at death"] + 300:
            number = wrote[store.agent]
            if number % 100 == 50:
                store.put("large", os.urandom(70_000))
            else:
                store.put(f"k/{number % 20}", number)
            wrote[store.agent] += 1

    writers = [threading.Thread(target=work, args=(store,)) for store in (ada, bob)]
    for each in writers:
        each.start()
    until(lambda: min(wrote["ada"], wrote["bob"]) > 200 and len(readers[0].got) > 200, "there is load")
    hub.kill()
    wrote["at death"] = max(wrote["ada"], wrote["bob"])
    dead.set()
    for each in writers:
        each.join()
    assert ada.flush(30), "what the standby has is safe"
    assert bob.flush(30)
    total = wrote["ada"] + wrote["bob"]
    until(lambda: len(readers[1].got) == total, "the reader of the values has all")
    until(lambda: len(readers[0].got) == total + 30, "the reader of everything has all")
    for reader in readers:
        got = reader.close()
        check_once_and_in_order(got)
    for store in (ada, bob):
        mine = [v.seq for v in readers[0].got if v.agent == store.agent]
        assert mine == list(range(1, wrote[store.agent] + 1))
    # Reads go on, and what was said is there once, also when it is said again.
    assert bob.get("k/7", agent="ada") == ada.get("k/7")
    assert bob.get("large", agent="ada") == ada.get("large")
    for number in range(30):
        plain.post({"number": number}, agent="boss", to="ada", task="t", msg_id=f"m{number}")
    assert [each.body["number"] for each in ada.messages(to="ada")] == list(range(30))
    assert {each["url"]: each["state"] for each in ada.health()["hubs"]}.keys() == set(both)
    until(lambda: ada.health()["hubs"][0]["state"] == "offline", "its health says which hub is away")
    assert ada.health()["hubs"][1]["depth"] == 0
    assert ada.outbox_depth > 0, "what the dead hub lacks is still counted"
    standby.stop()
    corpus = SqliteCorpus(standby.directory / "hub.db", hub=True)
    scan = verify_corpus(corpus, BlobFiles(standby.directory / "blobs"))
    corpus.close()
    assert scan.sound, scan.findings
    assert scan.records == total + 30


def test_a_reader_goes_on_at_the_standby_where_it_stood(
    on_node: On, hub: HubProcess, standby: HubProcess, both: list[str]
) -> None:
    ada = on_node("n1", "ada", hub=both)
    for number in range(300):
        ada.put(f"old/{number}", number)
    assert ada.flush(30)
    followed(hub, standby)
    with Hub(both) as hubs:
        # In one process, and by a cursor that another process kept: what was before it does not come again.
        kept = hubs.cursor()
        live = Reader(hubs.changes("now"))
        ada.put("new/1", 1)
        until(lambda: [v.key for v in live.got] == ["new/1"], "it follows the primary")
        assert ada.flush(30)
        followed(hub, standby)
        hub.kill()
        ada.put("new/2", 2)
        until(lambda: len(live.got) == 2, "it goes on with the standby")
        assert [v.key for v in live.close()] == ["new/1", "new/2"]
        assert [v.key for v in hubs.changes(kept, live=False)] == ["new/1", "new/2"]
        again = live.changes.cursor
        ada.put("new/3", 3)
        assert ada.flush(30)
        assert [v.key for v in hubs.changes(again, live=False)] == ["new/3"]


def test_a_reader_that_moves_misses_nothing_that_only_the_standby_has(
    on_node: On, hub: HubProcess, standby: HubProcess, both: list[str], at: Callable[[str | list[str]], Hub]
) -> None:
    ada = on_node("n1", "ada", hub=both)
    ada.put("old", 1)
    assert ada.flush(30)
    followed(hub, standby)
    solo = on_node("n3", "solo", hub=standby.url)
    solo.put("only", 1)
    assert solo.flush(30)
    ada.put("mid", 1)
    assert ada.flush(30)
    until(lambda: at(standby.url).get("mid", agent="ada", default=0) == 1, "it is followed")
    until(lambda: health(standby)["follows"]["state"] == "level", "the standby is level")
    kept = at(both).cursor()
    hub.kill()
    keys = [v.key for v in at(both).changes(kept, live=False)]
    assert "only" in keys
    assert "old" not in keys, "what both had was not told again"


def test_writes_go_on_and_only_the_first_hub_decides(
    on_node: On, hub: HubProcess, standby: HubProcess, both: list[str]
) -> None:
    ada = on_node("n1", "ada", hub=both, cas=("claims",))
    first = ada.put("task", "ada", collection="claims", expect=0)
    followed(hub, standby)
    hub.kill()
    with pytest.raises(HubUnavailable) as caught:
        ada.put("task", "again", collection="claims", expect=first.version)
    assert "only the first hub decides" in caught.value.hint
    assert ada.get("task", collection="claims") == "ada", "reads are the next hub's business"
    with pytest.raises(NotFound) as missing:
        ada.get("nothing", collection="claims")
    assert hub.url in missing.value.hint
    assert ada.put("k", 1).version == 1
    assert ada.flush(30)
    # Who puts the standby first has said that it decides from now on; it knows what was decided before.
    bob = on_node("n1", "bob", hub=both[::-1], cas=("claims",))
    assert bob.put("task", "bob", collection="claims", expect=first.version).version == first.version + 1
    assert bob.get("task", collection="claims") == ada.get("task", collection="claims") == "bob"


def test_what_hubs_write_for_plain_clients_is_proven_whichever_wrote_it(
    on_node: On, hub: HubProcess, standby: HubProcess, both: list[str], at: Callable[[str | list[str]], Hub]
) -> None:
    ada, plain = on_node("n1", "ada", hub=both), at(both)
    ada.put("k", 1)
    assert ada.flush(30)
    plain.post("one", agent="boss", msg_id="m1")
    assert plain.get("m1", agent="boss", collection="messages")["body"] == "one"
    assert plain.get("k", agent="ada") == 1
    followed(hub, standby)
    hub.kill()
    plain.post("two", agent="boss", msg_id="m2")
    assert plain.get("m2", agent="boss", collection="messages")["body"] == "two"
    assert plain.get("m1", agent="boss", collection="messages")["body"] == "one"
    # A hub does not get to speak for an agent that was seen with a node's own key.
    plain.post("forged", agent="ada", msg_id="m3")
    with pytest.raises(IntegrityError, match="another key"):
        plain.get("m3", agent="ada", collection="messages")
    assert plain.get("k", agent="ada") == 1


def test_a_list_that_was_begun_at_one_hub_does_not_go_on_at_another(
    on_node: On, hub: HubProcess, standby: HubProcess, both: list[str]
) -> None:
    ada = on_node("n1", "ada", hub=both)
    for number in range(20):
        ada.put(f"k/{number}", number)
    assert ada.flush(30)
    with Hub(both) as hubs:
        page = hubs.records(Filter(limit=5))
        assert len(hubs.records(Filter(limit=5, after=page[-1].pos))) == 5
        hub.kill()
        with pytest.raises(HubUnavailable) as caught:
            hubs.records(Filter(limit=5, after=page[-1].pos))
        assert "begin the list again" in caught.value.hint
        assert len(hubs.records(Filter(limit=50))) == 20
        assert len(hubs.search("k")) >= 0
        assert [each["agent"] for each in hubs.agents()] == ["ada"]
        standby.kill()
        with pytest.raises(HubUnavailable, match="none of 2 hubs"):
            hubs.agents()
    assert ada.put("k/0", "still").version == 2, "writes never mind"
    assert not ada.flush(0.2), "and nobody has it"


def test_a_standby_that_dies_is_nobodys_trouble_and_is_caught_up(
    on_node: On, hub: HubProcess, standby: HubProcess, both: list[str], at: Callable[[str | list[str]], Hub]
) -> None:
    ada = on_node("n1", "ada", hub=both)
    standby.kill()
    ada.put("k", 1)
    assert ada.flush(30)
    assert at(both).get("k", agent="ada") == 1
    standby.start()
    second = at(standby.url)
    until(lambda: second.get("k", agent="ada", default=0) == 1, "it has it too")
    until(lambda: ada.outbox_depth == 0, "the node knows")
    hub.kill()
    hub.start()
    with contextlib.closing(Reader(at(both).changes())) as reader:
        ada.put("k", 2)
        until(lambda: [v.value for v in reader.got] == [1, 2], "readers have it from the first again")


def test_an_async_agent_goes_on_with_the_standby(hub: HubProcess, standby: HubProcess, tmp_path: Path) -> None:
    async def work() -> None:
        both = [hub.url, standby.url]
        async with (
            AsyncStore(tmp_path / "n1", "ada", hub=both, limits=ROOMY) as ada,
            AsyncStore(tmp_path / "n2", "bob", hub=both, limits=ROOMY) as bob,
        ):
            seen: list[int] = []
            async with bob.changes() as changes:
                for number in range(100):
                    await ada.put("k", number)
                    if number == 50:
                        assert await ada.flush(30)
                        await asyncio.to_thread(hub.kill)
                async for each in changes:
                    seen.append(each.value)
                    if len(seen) == 100:
                        break
            assert seen == list(range(100))
            assert await ada.flush(30)
            assert await bob.get("k", agent="ada") == 99
            assert (await bob.health())["hubs"][1]["url"] == standby.url

    asyncio.run(work())
