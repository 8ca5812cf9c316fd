"""Queues in SQLite keep the laws of queues, and the clock's."""

from __future__ import annotations

import threading
from pathlib import Path

from holdfast.objects import SqliteQueues
from holdfast.objects.queues.port import QueueMessage
from holdfast.testing.clock import SettableClock
from holdfast.testing.queues import QueueContract, TimedQueueContract


class TestSqliteQueues(QueueContract):
    def make(self, directory: Path, max_dequeues: int | None = 5) -> SqliteQueues:
        return SqliteQueues(directory / "account.db", max_dequeues=max_dequeues)


class TestSqliteQueuesInTime(TimedQueueContract):
    def make(self, directory: Path, clock: SettableClock) -> SqliteQueues:
        return SqliteQueues(directory / "account.db", clock=clock)


def test_who_waited_for_the_file_has_a_message_for_all_the_time_that_he_asked_for(tmp_path: Path) -> None:
    """Another process may hold the file for half a minute, and that was taken off the time to work."""
    clock = SettableClock()
    with SqliteQueues(tmp_path / "account.db", clock=clock) as queues, SqliteQueues(tmp_path / "account.db") as other:
        queues.create_queue("jobs")
        queues.send("jobs", "work")
        found: list[QueueMessage] = []
        worker = threading.Thread(target=lambda: found.extend(queues.receive("jobs", visibility=30)))
        with other._database.write():
            worker.start()
            while queues._database._writing.acquire(blocking=False):  # until he stands before the other's lock
                queues._database._writing.release()
                worker.join(0.01)
                assert worker.is_alive()
            clock.advance(29)
        worker.join(30)
        (message,) = found
        assert message.visible is not None
        assert message.visible.timestamp() * 1000 == clock.now_ms() + 30_000
