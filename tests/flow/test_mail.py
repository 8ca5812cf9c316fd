"""Mail between agents on several machines: never lost, told to its sender, read on while the hub is away."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.collections.messages import id_of
from holdfast.errors import Conflict, Denied, HubUnavailable, NotFound, Unanswered, UsageError
from holdfast.hub.tokens import SqliteTokens, Wish, create
from holdfast.node.aio import AsyncStore
from holdfast.node.directory import Limits
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.testing.clock import SettableClock
from tests.flow.hubs import HubProcess, until

On = Callable[..., Store]
ROOMY = Limits(floor_bytes=0, ballast_bytes=0)

WORKER = """
import sys
from holdfast.node.directory import Limits
from holdfast.node.store import Store

how = sys.argv[3]
with Store(sys.argv[1], "worker", hub=sys.argv[2] or [], limits=Limits(floor_bytes=0, ballast_bytes=0)) as store:
    print("ready", flush=True)
    for mail in store.inbox(live=True):
        print(mail.id, flush=True)
        if how == "hang":
            sys.stdin.read()
        elif mail.kind == "question":
            mail.reply(f"{mail.body} indeed")
        else:
            mail.done({"by": how})
"""


@pytest.fixture
def work() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a worker in a process of its own that deals with its mail; all are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(directory: Path, hub: str, how: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, str(directory), hub, how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def reached(store: Store, msg: str, state: str) -> Any:
    until(lambda: store.delivery(msg).state == state, f"{msg} is {state}")
    return store.delivery(msg)


def bodies(store: Store, **how: Any) -> list[Any]:
    return [mail.body for mail in store.inbox(**how)]


def test_its_sender_sees_how_far_a_message_is_and_so_does_every_machine(on_node: On, hub: HubProcess) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    hub.kill()
    sent = ada.post("count the rows", to="bob", task="t-1", priority="high")
    told = ada.delivery(sent.id)
    assert (told.state, told.readers, told.offline) == ("stored", {}, True)
    hub.start()
    assert ada.flush(30)
    assert ada.delivery(sent.id).state == "delivered", "the hub has it"
    (mail,) = bob.inbox()
    assert (mail.id, mail.sender, mail.task, mail.priority, mail.kind) == (sent.id, "ada", "t-1", "high", "message")
    assert bob.flush(30)
    assert ada.delivery(sent.id).readers["bob"].state == "delivered", "and he has fetched it"
    for act, state in ((mail.read, "read"), (mail.ack, "acknowledged"), (lambda: mail.done({"rows": 3}), "done")):
        act()
        assert bob.flush(30)
        assert ada.delivery(sent.id).state == state
    for who in (ada, on_node("n3", "eve"), bob):
        found = who.delivery(sent.id, sender="ada")
        assert (found.state, found.readers["bob"].result) == ("done", {"rows": 3})
        assert list(found.readers["bob"].times) == ["delivered", "read", "acknowledged", "done"]
    with pytest.raises(NotFound):
        ada.delivery("nothing")


def test_what_a_killed_process_had_in_hand_comes_again(
    tmp_path: Path, on_node: On, hub: HubProcess, work: Callable[..., subprocess.Popen[str]]
) -> None:
    ada = on_node("n1", "ada")
    first = work(tmp_path / "n2", hub.url, "hang")
    sent = ada.post("one", to="worker")
    assert line(first) == sent.id
    first.kill()
    later = [ada.post(text, to="worker").id for text in ("two", "three")]
    assert ada.flush(30)
    second = work(tmp_path / "n2", hub.url, "second")
    assert [line(second) for _ in range(3)] == [sent.id, *later]
    for each in (sent.id, *later):
        assert reached(ada, each, "done").readers["worker"].result == {"by": "second"}
    again = ada.post("four", to="worker")
    assert line(second) == again.id


def test_while_the_hub_is_away_what_was_fetched_is_read_and_dealt_with(on_node: On, hub: HubProcess) -> None:
    ada, bob, beside = on_node("n1", "ada"), on_node("n2", "bob"), on_node("n2", "cy")
    sent = [ada.post(text, to="bob", thread="th") for text in ("one", "two")]
    assert ada.flush(30)
    assert bodies(bob) == ["one", "two"]
    hub.kill()
    beside.post("three", to="bob")
    away = bob.inbox()
    mail = list(away)
    assert [each.body for each in mail] == ["one", "two", "three"]
    assert away.offline
    mail[0].done(1)
    reply = bob.mail(sent[1].id).reply("taken")
    assert (reply.to, reply.thread, reply.in_reply_to) == ("ada", "th", sent[1].id)
    assert bodies(bob) == ["three"], "his own word counts at once"
    with pytest.raises(HubUnavailable):
        bob.mail("unknown")
    hub.start()
    for store in (ada, bob, beside):
        assert store.flush(30)
    assert [ada.delivery(each.id).state for each in sent] == ["done", "acknowledged"]
    assert [(each.body, each.in_reply_to) for each in ada.inbox()] == [("taken", sent[1].id)]
    assert bodies(bob) == ["three"]
    assert bodies(bob, unread=False) == ["one", "two", "three"]


def test_a_live_inbox_goes_on_through_hubs_that_die_and_from_its_cursor(on_node: On, hub: HubProcess) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    got: list[tuple[Any, str]] = []
    inbox = bob.inbox(live=True)

    def listen() -> None:
        for mail in inbox:
            got.append((mail.body, inbox.cursor))

    listener = threading.Thread(target=listen)
    listener.start()
    for number in range(60):
        if number in (20, 40):
            hub.kill()
            ada.post(number, to="bob")
            hub.start()
        else:
            ada.post(number, to="bob")
        ada.post(number, to="eve")
    assert ada.flush(30)
    until(lambda: len(got) >= 60, "all have come")
    inbox.close()
    listener.join(10)
    assert [body for body, _ in got] == list(range(60))
    at = got[30][1]
    assert bodies(bob, since=at) == list(range(31, 60))
    assert bodies(bob, since=at, limit=5) == list(range(31, 36))
    first = bob.inbox(limit=7)
    assert [mail.body for mail in first] == list(range(7))
    assert bodies(bob, since=first.cursor, limit=2) == [7, 8]
    with pytest.raises(UsageError):
        list(bob.inbox(since="local.ada=3"))


def test_agents_of_one_directory_need_no_hub(tmp_path: Path, on_node: On) -> None:
    ada, bob = on_node("n1", "ada", hub=[]), on_node("n1", "bob", hub=[])
    ada.post("one", to="bob")
    live = bob.inbox(live=True)
    assert next(live).body == "one"
    ada.post("x" * 100_000, to="bob")
    ada.post("not his", to="eve")
    assert len(next(live).body) == 100_000
    cursor = live.cursor
    live.close()
    ada.post("three", to="bob")
    assert bodies(bob, since=cursor) == ["three"]
    mail = bob.mail(ada.messages(to="bob")[0].id)
    mail.archive()
    assert "one" not in bodies(bob)
    mail.undo()
    assert "one" in bodies(bob)
    mail.snooze(SettableClock().now_ms() / 1000 + 1e9)
    assert (ada.delivery(mail.id).readers["bob"].place, "one" in bodies(bob)) == ("snoozed", False)
    mail.restore()
    assert bodies(bob)[0] == "one"


@pytest.mark.parametrize("through", ["the hub", "the logs"])
def test_what_comes_back_while_somebody_listens_is_handed_out_again(
    monkeypatch: pytest.MonkeyPatch, on_node: On, hub: HubProcess, through: str
) -> None:
    monkeypatch.setattr("holdfast.node.inbox.LOOK_S", 0.0)
    address = hub.url if through == "the hub" else []
    ada, bob = on_node("n1", "ada", hub=address), on_node("n1", "bob", hub=address)
    ada.post("one", to="bob")
    live = bob.inbox(live=True)
    first = next(live)
    first.ack()
    ada.post("two", to="bob")
    assert next(live).body == "two"
    first.unread()
    assert bob.flush(30)
    ada.post("three", to="bob")
    assert {next(live).body for _ in range(2)} == {"three", "one"}
    live.close()


def test_what_has_expired_is_counted_and_not_handed_out(on_node: On) -> None:
    ada, bob = on_node("n1", "ada", hub=[]), on_node("n1", "bob", hub=[])
    clock = bob._directory.wall = SettableClock(1_000_000)
    ada.post("short", to="bob", expires_at=1_010)
    ada.post("long", to="bob", expires_at="2100-01-01")
    assert bodies(bob) == ["short", "long"]
    clock.advance(10)
    inbox = bob.inbox()
    assert ([mail.body for mail in inbox], inbox.expired) == (["long"], 1)
    assert ada.delivery(ada.messages(to="bob")[0].id).state == "expired"
    for wrong in ({"expires_at": "soon"}, {"dedupe": ""}, {"dedupe": "a", "msg_id": "b"}, {"in_reply_to": 3}):
        with pytest.raises(UsageError):
            ada.post("x", to="bob", **wrong)


def test_what_is_posted_under_one_key_is_one_message_wherever(on_node: On, hub: HubProcess) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    first, again = ada.post("rates", to="bob", dedupe="day-1"), ada.post("rates, again", to="bob", dedupe="day-1")
    assert (again.id, again.body, again.dedupe) == (first.id, "rates", "day-1")
    # The same agent, on a machine that knows nothing of it, and through the hub.
    other = on_node("n3", "ada").post("rates", to="bob", dedupe="day-1")
    with Hub(hub.url) as door:
        door.post("rates", agent="ada", to="bob", dedupe="day-1")
    assert other.id == first.id
    for store in (ada, on_node("n3", "ada")):
        assert store.flush(30)
    (mail,) = bob.inbox()
    mail.done()
    assert bodies(bob, unread=False) == ["rates"]
    (asked,) = [ada.post("x", to="bob", dedupe="k") for _ in range(1)]
    assert asked.id != bob.post("x", to="ada", dedupe="k").id


@pytest.mark.parametrize("through", ["the hub", "the logs"])
def test_a_question_is_answered_by_another_process(
    tmp_path: Path, on_node: On, hub: HubProcess, work: Callable[..., subprocess.Popen[str]], through: str
) -> None:
    address = hub.url if through == "the hub" else ""
    ada = on_node("n1", "ada", hub=address or [])
    work(tmp_path / ("n2" if address else "n1"), address, "answers")
    answer = ada.ask("it is late", to="worker", timeout=30)
    assert (answer.body, answer.agent, answer.kind) == ("it is late indeed", "worker", "answer")
    assert bodies(ada) == [], "it was received"
    told = reached(ada, answer.in_reply_to, "done")
    assert told.readers["worker"].result == answer.id


def test_a_question_outlives_who_asked_and_is_answered_by_people(on_node: On, hub: HubProcess) -> None:
    ada, eve = on_node("n1", "ada"), on_node("n2", "eve")
    with pytest.raises(Unanswered, match=r"within 0\.05 s") as raised:
        ada.ask("deploy?", timeout=0.05, options=["yes", "no"], dedupe="deploy-17")
    question = raised.value.context["question"]
    assert question == id_of("ada", "deploy-17")
    assert "deploy-17" in raised.value.hint
    ada.flush(30)
    ada.close()
    (mail,) = eve.inbox(to="people")
    assert (mail.kind, mail.options) == ("question", ["yes", "no"])
    with pytest.raises(UsageError, match="no answer to this question"):
        eve.answer(mail, "perhaps")
    eve.answer(question, "yes")
    assert eve.flush(30)
    assert list(eve.inbox(to="people")) == []
    again = on_node("n1", "ada")
    assert again.ask("deploy?", timeout=30, options=["yes", "no"], dedupe="deploy-17").body == "yes"
    assert len([each for each in again.messages(to="people") if each.kind == "question"]) == 1
    assert again.delivery(question).state == "done"


def test_asked_by_a_task_that_is_cancelled_a_question_is_withdrawn(
    tmp_path: Path, on_node: On, hub: HubProcess
) -> None:
    eve = on_node("n2", "eve")

    async def ask() -> str:
        async with AsyncStore(tmp_path / "n1", "ada", hub=hub.url, limits=ROOMY) as ada:
            asking = asyncio.create_task(ada.ask("stop?", "eve", dedupe="stop"))
            question = id_of("ada", "stop")
            async for mail in AsyncInboxOf(eve):
                assert mail.id == question
                break
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert await ada.flush(30)
            assert (await ada.delivery(question)).state == "withdrawn"
            assert list(eve.inbox()) == []
            with pytest.raises(Conflict):
                eve.answer(question, "no")
            # Asked again, it is a new question; and many wait at once without taking each other's threads.
            waiting = [asyncio.create_task(ada.ask("stop?", "eve", dedupe="stop", timeout=30))]
            waiting += [asyncio.create_task(ada.ask(number, "eve", timeout=30)) for number in range(11)]
            found = 0
            async for mail in AsyncInboxOf(eve):
                await asyncio.to_thread(eve.answer, mail, f"re {mail.body}")
                found += 1
                if found == len(waiting):
                    break
            answers = {(await each).body for each in waiting}
            assert answers == {"re stop?", *(f"re {number}" for number in range(11))}
            await ada.post("to myself", to="ada")
            async with ada.inbox(live=True) as inbox:
                async for letter in inbox:
                    await letter.done()
                    break
            return inbox.cursor

    assert asyncio.run(ask())


class AsyncInboxOf:
    """A live inbox of a plain store, awaited."""

    def __init__(self, store: Store) -> None:
        self._inbox = store.inbox(live=True)

    async def __aiter__(self) -> Any:
        try:
            while True:
                yield await asyncio.to_thread(next, self._inbox)
        finally:
            self._inbox.close()


def test_an_agent_reads_no_other_agents_inbox(tmp_path: Path, on_node: On) -> None:
    (tmp_path / "guarded").mkdir()
    store = SqliteTokens(tmp_path / "guarded")
    wishes = {
        "ada": Wish(kind="agent", name="ada"),
        "bob": Wish(kind="agent", name="bob", collections=("state", "delivery")),
    }
    texts = {name: create(store, wish)[1] for name, wish in wishes.items()}
    store.close()
    hub = HubProcess(tmp_path / "guarded")
    try:
        ada = on_node("n1", "ada", hub=hub.url, token=texts["ada"])
        bob = on_node("n2", "bob", hub=hub.url, token=texts["bob"])
        ada.post("for bob", to="bob")
        ada.post("for eve", to="eve")
        assert ada.flush(30)
        assert bodies(bob) == ["for bob"], "what is addressed to him he reads, whatever collections his token names"
        with pytest.raises(Denied):
            list(bob.inbox(to="eve"))
        assert bob.flush(30)
        assert ada.delivery(ada.messages(to="bob")[0].id).readers["bob"].state == "delivered"
    finally:
        hub.kill()


def test_erased_mail_is_gone_from_every_place_where_it_was_kept(tmp_path: Path, on_node: On, hub: HubProcess) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    needle = os.urandom(12).hex()
    sent = ada.post(needle, to="bob")
    assert ada.flush(30)
    assert bodies(bob) == [needle]
    cache = bob._reader().cache
    assert [needle.encode() in each for each in cache.mail("bob")] == [True]
    stored = ada._log.newest("messages", sent.id)
    assert stored is not None
    cache.forget([], [stored.record.seq.to_bytes(8, "big") + stored.record.link])
    assert cache.mail("bob") == []
