"""Queues in SQLite keep the laws of queues, and the clock's."""

from __future__ import annotations

from pathlib import Path

from holdfast.objects import SqliteQueues
from holdfast.testing.clock import SettableClock
from holdfast.testing.queues import QueueContract, TimedQueueContract


class TestSqliteQueues(QueueContract):
    def make(self, directory: Path, max_dequeues: int | None = 5) -> SqliteQueues:
        return SqliteQueues(directory / "account.db", max_dequeues=max_dequeues)


class TestSqliteQueuesInTime(TimedQueueContract):
    def make(self, directory: Path, clock: SettableClock) -> SqliteQueues:
        return SqliteQueues(directory / "account.db", clock=clock)
