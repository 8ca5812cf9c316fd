"""The laws of `holdfast.objects.queues.port` as tests, for every store of queues.

    class TestMine(QueueContract):
        def make(self, directory, max_dequeues=5):
            return MyQueues(directory, max_dequeues=max_dequeues)

`make` gives a store over the same queues each time it is called with the same directory. No test waits for time to
pass: a message is made due by `update`. `TimedQueueContract` moves the clock of stores that take one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageError, StorageRefused, StoreClosed
from holdfast.objects.queues.port import BODY_BYTES_MAX, POISON, QueueMessage, QueueStore
from holdfast.testing.clock import SettableClock
from holdfast.testing.objects import refuses
from holdfast.testing.objects_many import at_once

CONTENTS: tuple[str | bytes, ...] = (
    "",
    "x",
    b"",
    b"x",
    '{"task_id": "task_001"}',
    "grüße <&> ]]> 日本語 🌊",
    "lines\nand\ttabs",
    "carriage\r\nreturns",
    " spaces around ",
    "\n",
    "\x00\x01\ufffe\uffff",
    bytes(range(256)),
    "hf64b:nothing of ours",
    "hf64s:",
    "x" * BODY_BYTES_MAX,
    "ü" * 3000,  # Azurite breaks letters that fall between two pieces of a request
    b"\xff" * 49_146,
)


class QueueMaker:
    """How a store and a queue in it are made."""

    def make(self, directory: Path, max_dequeues: int | None = 5) -> QueueStore:
        """The store for this directory."""
        raise NotImplementedError

    def queue(self, store: QueueStore) -> str:
        """The name of a new queue, one that Azure would not take as it is."""
        name = f"Q_{secrets.token_hex(6)}"
        assert store.create_queue(name) is True
        return name


class QueueContract(QueueMaker):
    """All laws but those of time; a store's class gives `make`."""

    def test_queues_are_made_listed_and_removed(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            name = self.queue(store)
            assert store.create_queue(name) is False
            assert store.create_queue(name.lower()) is True
            assert {name, name.lower()} <= set(store.list_queues())
            store.send(name, "x")
            assert store.delete_queue(name) is True
            assert store.delete_queue(name) is False
            assert name not in store.list_queues()
            message = QueueMessage(id="1", content="", receipt="AAAA")
            calls: tuple[Any, ...] = (
                lambda: store.send(name, "x"),
                lambda: store.receive(name),
                lambda: store.peek(name),
                lambda: store.count(name),
                lambda: store.clear(name),
                lambda: store.delete(name, message),
                lambda: store.update(name, message),
            )
            for call in calls:
                with refuses(ObjectNotFound):
                    call()
            for wrong in ("", "a/b", "ü", "x" * 60, "_" * 30, 5):
                with refuses(StorageRefused):
                    store.create_queue(wrong)  # type: ignore[arg-type]

    def test_contents_come_back_as_they_were(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            queue = self.queue(store)
            for content in CONTENTS:
                assert store.send(queue, content).content == content
                assert store.peek(queue)[0].content == content
                (message,) = store.receive(queue)
                assert message.content == content
                assert type(message.content) is type(content)
                assert store.delete(queue, message) is True
            sent = store.send(queue, '{"a": [1]}')
            assert sent.json() == {"a": [1]}
            with refuses(StorageError):
                store.update(queue, sent, content="{").json()

    def test_what_cannot_be_sent_is_refused_and_nothing_is(self, tmp_path: Path) -> None:
        wrong: tuple[tuple[Any, dict[str, Any]], ...] = (
            ("x" * (BODY_BYTES_MAX + 1), {}),
            ("ü" * (BODY_BYTES_MAX // 2) + "x", {}),
            ("\r" * 49_147, {}),
            (b"x" * 49_147, {}),
            ("\ud800", {}),
            (5, {}),
            ({"a": 1}, {}),
            (None, {}),
            ("x", {"ttl": 0}),
            ("x", {"ttl": 1.5}),
            ("x", {"delay": -1}),
            ("x", {"delay": 604_801, "ttl": None}),
            ("x", {"delay": 10, "ttl": 10}),
        )
        with self.make(tmp_path) as store:
            queue = self.queue(store)
            for content, options in wrong:
                with refuses(StorageRefused):
                    store.send(queue, content, **options)
            for asked in ({"most": 0}, {"most": 33}, {"visibility": 0}, {"visibility": 604_801}, {"visibility": 1.5}):
                with refuses(StorageRefused):
                    store.receive(queue, **asked)
            assert store.count(queue) == 0

    def test_a_received_message_is_one_workers(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            queue = self.queue(store)
            sent = store.send(queue, "work")
            (peeked,) = store.peek(queue)
            assert (peeked.id, peeked.receipt, peeked.dequeue_count) == (sent.id, "", 0)
            (message,) = store.receive(queue)
            assert (message.id, message.dequeue_count) == (sent.id, 1)
            assert message.receipt
            assert message.pop_receipt == message.receipt
            assert store.receive(queue) == store.peek(queue) == []
            assert store.count(queue) == 1
            assert store.delete(queue, message) is True
            assert store.delete(queue, message) is False
            assert store.count(queue) == 0
            with refuses(ObjectConflict):
                store.update(queue, message)

    def test_only_the_newest_receipt_counts(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            queue = self.queue(store)
            store.send(queue, "work", ttl=None)
            (first,) = store.receive(queue)
            assert first.expires is None
            back = store.update(queue, first, visibility=0)
            (second,) = store.receive(queue)
            assert (second.id, second.dequeue_count) == (first.id, 2)
            for stale in (first, back):
                with refuses(ObjectConflict):
                    store.delete(queue, stale)
                with refuses(ObjectConflict):
                    store.update(queue, stale, content="theirs")
            with refuses(ObjectConflict):
                store.delete(queue, QueueMessage(id=first.id, content=""))  # as it is after a peek
            longer = store.update(queue, second, visibility=600, content=b"half done")
            assert (longer.content, longer.dequeue_count) == (b"half done", 2)
            assert store.receive(queue) == []
            again = store.update(queue, longer, visibility=0)
            assert again.content == b"half done"
            assert store.peek(queue)[0].content == b"half done"
            assert store.delete(queue, again) is True

    def test_a_sent_message_can_be_deleted_before_it_is_received(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            queue = self.queue(store)
            sent = store.send(queue, "never mind", delay=60)
            assert store.receive(queue) == store.peek(queue) == []
            assert store.count(queue) == 1
            assert store.delete(queue, sent) is True
            assert store.count(queue) == 0

    def test_many_are_received_at_once_and_cleared_at_once(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            queue = self.queue(store)
            for number in range(40):
                store.send(queue, str(number))
            assert len(store.peek(queue, most=32)) == 32
            first = store.receive(queue, most=32)
            rest = store.receive(queue, most=32)
            assert sorted(int(message.content) for message in [*first, *rest]) == list(range(40))
            assert (len(first), store.count(queue)) == (32, 40)
            store.clear(queue)
            assert store.count(queue) == 0

    def test_what_is_tried_too_often_is_a_dead_letter(self, tmp_path: Path) -> None:
        with self.make(tmp_path, max_dequeues=3) as store:
            queue = self.queue(store)
            store.send(queue, b"\x00poison", ttl=600)
            store.send(queue, "good", delay=0)
            seen: list[tuple[str | bytes, int]] = []
            for _ in range(5):
                for message in store.receive(queue, most=32):
                    seen.append((message.content, message.dequeue_count))
                    if message.content == "good":
                        store.delete(queue, message)
                    else:
                        store.update(queue, message, visibility=0)
            assert sorted(map(repr, seen)) == sorted(
                map(repr, [(b"\x00poison", 1), ("good", 1), (b"\x00poison", 2), (b"\x00poison", 3)])
            )
            assert store.count(queue) == 0
            for turn in range(1, 6):  # there it stays, however often it is looked at
                (dead,) = store.receive(queue + POISON)
                assert (dead.content, dead.dequeue_count, dead.expires) == (b"\x00poison", turn, None)
                dead = store.update(queue + POISON, dead, visibility=0)
            assert queue + POISON in store.list_queues()
        with self.make(tmp_path, max_dequeues=None) as patient:
            queue = self.queue(patient)
            patient.send(queue, "again")
            for turn in range(1, 8):
                (message,) = patient.receive(queue)
                assert message.dequeue_count == turn
                patient.update(queue, message, visibility=0)
        with refuses(StorageRefused):
            self.make(tmp_path, max_dequeues=0)

    def test_each_message_is_received_by_one_of_many(self, tmp_path: Path) -> None:
        threads, messages = 16, 48
        seen: list[str | bytes] = []
        with self.make(tmp_path) as store:
            queue = self.queue(store)

            def work(number: int) -> None:
                for turn in range(messages // threads):
                    store.send(queue, f"{number}/{turn}")
                while found := store.receive(queue, most=2, visibility=3600):
                    for message in found:
                        seen.append(message.content)
                        assert store.delete(queue, message) is True

            at_once(threads, work)
            while found := store.receive(queue, most=32, visibility=3600):
                seen.extend(message.content for message in found)
                for message in found:
                    store.delete(queue, message)
            wanted = [f"{number}/{turn}" for number in range(threads) for turn in range(messages // threads)]
            assert sorted(map(str, seen)) == sorted(wanted)
            assert store.count(queue) == 0

    def test_of_many_who_hold_a_receipt_one_ends_the_message(self, tmp_path: Path) -> None:
        ended: list[bool] = []
        with self.make(tmp_path) as store:
            queue = self.queue(store)
            for _ in range(3):
                store.send(queue, "once")
                (message,) = store.receive(queue)

                def work(number: int, message: QueueMessage = message) -> None:
                    with contextlib.suppress(ObjectConflict):
                        ended.append(store.delete(queue, message))

                at_once(16, work)
            assert ended.count(True) == 3

    def test_a_forked_child_and_its_parent_go_on(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store:
            queue = self.queue(store)
            store.send(queue, "for the child")
            assert store.count(queue) == 1
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    (message,) = store.receive(queue)
                    code = 0 if store.delete(queue, message) and store.send(queue, "for the parent") else 2
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            (message,) = store.receive(queue)
            assert message.content == "for the parent"

    def test_another_client_finds_it_and_a_closed_one_says_so(self, tmp_path: Path) -> None:
        with self.make(tmp_path) as store, self.make(tmp_path) as other:
            queue = self.queue(store)
            store.send(queue, "x")
            assert other.receive(queue)[0].content == "x"
            assert other.health().ok
            store.close()
            store.close()
            with refuses(StoreClosed):
                store.send(queue, "x")


class TimedQueueMaker:
    """How a store is made that goes by a clock of the test's."""

    def make(self, directory: Path, clock: SettableClock) -> QueueStore:
        """The store for this directory, which goes by this clock."""
        raise NotImplementedError


class TimedQueueContract(TimedQueueMaker):
    """What time does to messages; a store's class gives `make`, with a clock that the test moves."""

    def test_a_message_that_nobody_ends_is_due_again(self, tmp_path: Path) -> None:
        clock = SettableClock()
        with self.make(tmp_path, clock) as store:
            store.create_queue("q")
            store.send("q", "work")
            (first,) = store.receive("q", visibility=30)
            assert first.visible == datetime.fromtimestamp(clock.now_ms() / 1000, UTC) + timedelta(seconds=30)
            clock.advance(29.9)
            assert store.receive("q") == []
            held = store.update("q", first, visibility=30)
            clock.advance(29.9)
            assert store.receive("q") == []
            clock.advance(0.1)
            (second,) = store.receive("q")
            assert (second.id, second.dequeue_count) == (first.id, 2)
            with refuses(ObjectConflict):
                store.delete("q", held)
            assert store.delete("q", second) is True

    def test_whoever_comes_late_may_end_it_if_nobody_took_it(self, tmp_path: Path) -> None:
        clock = SettableClock()
        with self.make(tmp_path, clock) as store:
            store.create_queue("q")
            store.send("q", "work")
            (message,) = store.receive("q", visibility=1)
            clock.advance(100)
            assert store.delete("q", message) is True

    def test_a_delay_and_a_time_to_live_are_kept_to(self, tmp_path: Path) -> None:
        clock = SettableClock()
        with self.make(tmp_path, clock) as store:
            store.create_queue("q")
            short = store.send("q", "short", ttl=60)
            store.send("q", "late", delay=90)
            store.send("q", "for ever", ttl=None, delay=604_800)
            assert short.expires == datetime.fromtimestamp(clock.now_ms() / 1000, UTC) + timedelta(seconds=60)
            assert [message.content for message in store.peek("q", most=5)] == ["short"]
            clock.advance(60)
            assert store.receive("q") == store.peek("q") == []
            assert store.count("q") == 2
            assert store.delete("q", short) is False
            clock.advance(30)
            assert [message.content for message in store.receive("q")] == ["late"]
            clock.advance(604_800)
            assert [message.content for message in store.receive("q", most=5)] == ["for ever"]
            assert store.count("q") == 1

    def test_messages_come_in_the_order_in_which_they_are_due(self, tmp_path: Path) -> None:
        clock = SettableClock()
        with self.make(tmp_path, clock) as store:
            store.create_queue("q")
            for number in range(5):
                store.send("q", str(number), delay=10 * (number == 1))
            clock.advance(10)
            assert [message.content for message in store.receive("q", most=5)] == ["0", "2", "3", "4", "1"]
