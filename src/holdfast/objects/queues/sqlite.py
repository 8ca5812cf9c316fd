"""Queues in an SQLite file, by the laws of `port`: the same code on a laptop as on Azure."""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from typing import Any, Final

from holdfast.clock import SYSTEM, Clock
from holdfast.objects.database import Database, Execute
from holdfast.objects.queues.port import (
    DEQUEUES_MAX,
    POISON,
    TTL_S,
    VISIBILITY_S,
    QueueMessage,
    QueueStore,
    check_most,
    check_queue,
    check_seconds,
    check_times,
    no_queue,
    read_content,
    stale,
    write_content,
)

_STEPS: Final = (
    """
    CREATE TABLE holdfast_queue (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE holdfast_message (
      id INTEGER PRIMARY KEY AUTOINCREMENT, -- a message that is gone leaves its number to nobody
      in_queue INTEGER NOT NULL REFERENCES holdfast_queue,
      content TEXT NOT NULL, -- as it would go to Azure
      receipt TEXT NOT NULL,
      dequeues INTEGER NOT NULL,
      inserted INTEGER NOT NULL, expires INTEGER, visible INTEGER NOT NULL -- milliseconds since 1970
    ) STRICT;
    CREATE INDEX holdfast_message_due ON holdfast_message (in_queue, visible, id);
    CREATE INDEX holdfast_message_end ON holdfast_message (in_queue, expires) WHERE expires IS NOT NULL;
    """,
)
_COLUMNS: Final = "id, content, receipt, dequeues, inserted, expires, visible"
_DUE: Final = (
    f"SELECT {_COLUMNS} FROM holdfast_message WHERE in_queue = ? AND visible <= ? ORDER BY visible, id LIMIT ?"
)
_LIVE: Final = "(expires IS NULL OR expires > ?)"


class SqliteQueues(QueueStore):
    """Queues in one file; objects and tables may share it.

    Args:
        path: the file; made if it is not there.
        max_dequeues: how often a message is given out before it is a dead letter; None: for ever.
        clock: what tells when a message is due. Processes that share the file should agree on the time.

    Raises:
        StorageRefused: the file is another program's, or a newer Holdfast's.
        StorageDenied: it may not be read or written.
        ObjectCorrupt: it is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_dequeues: int | None = DEQUEUES_MAX,
        clock: Clock = SYSTEM,
    ) -> None:
        super().__init__(max_dequeues=max_dequeues)
        self._database = Database(path, "queues", _STEPS)
        self._clock = clock

    @property
    def name(self) -> str:
        return f"sqlite:{self._database.path}"

    def _trouble(self) -> str:
        return self._database.trouble()

    def create_queue(self, queue: str) -> bool:
        self._open()
        check_queue(queue)
        return (
            self._database.change("INSERT INTO holdfast_queue (name) VALUES (?) ON CONFLICT DO NOTHING", (queue,)) == 1
        )

    def delete_queue(self, queue: str) -> bool:
        self._open()
        check_queue(queue)
        with self._database.write() as execute:
            row = execute("SELECT id FROM holdfast_queue WHERE name = ?", (queue,)).fetchone()
            if row is None:
                return False
            execute("DELETE FROM holdfast_message WHERE in_queue = ?", row)
            execute("DELETE FROM holdfast_queue WHERE id = ?", row)
        return True

    def list_queues(self) -> list[str]:
        self._open()
        return [row[0] for row in self._database.all("SELECT name FROM holdfast_queue ORDER BY name")]

    def send(self, queue: str, content: str | bytes, *, ttl: int | None = TTL_S, delay: int = 0) -> QueueMessage:
        self._open()
        check_queue(queue)
        check_times(ttl, delay)
        written = write_content(content)
        with self._database.write() as execute:
            now = self._clock.now_ms()
            number = self._queue(execute, queue)
            expires = None if ttl is None else now + ttl * 1000
            return _add(execute, number, (written, expires), now, now + delay * 1000)

    def receive(self, queue: str, *, most: int = 1, visibility: int = VISIBILITY_S) -> list[QueueMessage]:
        self._open()
        check_queue(queue)
        check_most(most)
        check_seconds(visibility, "visibility", 1)
        row = self._database.one(
            "SELECT EXISTS (SELECT 1 FROM holdfast_message WHERE in_queue = q.id AND visible <= ?)"
            " FROM holdfast_queue q WHERE name = ?",
            (self._clock.now_ms(), queue),
        )
        if row is None:
            raise no_queue(self, queue)
        if not row[0]:
            return []  # those who ask again and again do not make the disk work
        tries = self._tries(queue)
        found: list[QueueMessage] = []
        with self._database.write() as execute:
            now = self._clock.now_ms()  # here: another process may have had the file until now
            number = self._queue(execute, queue)
            self._expire(execute, number, now)
            while len(found) < most:
                rows = execute(_DUE, (number, now, most - len(found))).fetchall()
                if not rows:
                    break
                for row in rows:
                    if tries is not None and row[3] >= tries:
                        self._bury(execute, queue, row, now)
                        continue
                    receipt = secrets.token_hex(8)
                    visible = now + visibility * 1000
                    execute(
                        "UPDATE holdfast_message SET receipt = ?, dequeues = dequeues + 1, visible = ? WHERE id = ?",
                        (receipt, visible, row[0]),
                    )
                    found.append(_message((*row[:2], receipt, row[3] + 1, *row[4:6], visible)))
        return found

    def peek(self, queue: str, *, most: int = 1) -> list[QueueMessage]:
        self._open()
        check_queue(queue)
        check_most(most)
        now = self._clock.now_ms()
        rows = self._database.all(
            f"SELECT {_COLUMNS} FROM holdfast_message WHERE in_queue = (SELECT id FROM holdfast_queue WHERE name = ?)"
            f" AND visible <= ? AND {_LIVE} ORDER BY visible, id LIMIT ?",
            (queue, now, now, most),
        )
        if not rows:
            self._there(queue)
        return [_message((*row[:2], "", *row[3:])) for row in rows]

    def update(
        self, queue: str, message: QueueMessage, *, visibility: int = VISIBILITY_S, content: str | bytes | None = None
    ) -> QueueMessage:
        self._open()
        check_queue(queue)
        check_seconds(visibility, "visibility", 0)
        written = None if content is None else write_content(content)
        with self._database.write() as execute:
            now = self._clock.now_ms()
            row = self._held(execute, queue, message, now)
            if row is None or row[2] != message.receipt:
                raise stale(queue, message)
            receipt, visible = secrets.token_hex(8), now + visibility * 1000
            execute(
                "UPDATE holdfast_message SET receipt = ?, visible = ?, content = coalesce(?, content) WHERE id = ?",
                (receipt, visible, written, row[0]),
            )
        return _message((row[0], row[1] if written is None else written, receipt, *row[3:6], visible))

    def delete(self, queue: str, message: QueueMessage) -> bool:
        self._open()
        check_queue(queue)
        with self._database.write() as execute:
            row = self._held(execute, queue, message, self._clock.now_ms())
            if row is None:
                return False
            if row[2] != message.receipt:
                raise stale(queue, message)
            execute("DELETE FROM holdfast_message WHERE id = ?", (row[0],))
        return True

    def count(self, queue: str) -> int:
        self._open()
        check_queue(queue)
        self._there(queue)
        row = self._database.one(
            "SELECT count(*) FROM holdfast_message"
            f" WHERE in_queue = (SELECT id FROM holdfast_queue WHERE name = ?) AND {_LIVE}",
            (queue, self._clock.now_ms()),
        )
        return int(row[0])

    def clear(self, queue: str) -> None:
        self._open()
        check_queue(queue)
        with self._database.write() as execute:
            execute("DELETE FROM holdfast_message WHERE in_queue = ?", (self._queue(execute, queue),))

    def _there(self, queue: str) -> None:
        if self._database.one("SELECT 1 FROM holdfast_queue WHERE name = ?", (queue,)) is None:
            raise no_queue(self, queue)

    def _queue(self, execute: Execute, queue: str) -> int:
        row = execute("SELECT id FROM holdfast_queue WHERE name = ?", (queue,)).fetchone()
        if row is None:
            raise no_queue(self, queue)
        return int(row[0])

    def _held(self, execute: Execute, queue: str, message: QueueMessage, now: int) -> Any:
        if not message.id.isdecimal():
            return None
        sql = f"SELECT {_COLUMNS} FROM holdfast_message WHERE id = ? AND in_queue = ? AND {_LIVE}"
        return execute(sql, (int(message.id), self._queue(execute, queue), now)).fetchone()

    def _expire(self, execute: Execute, number: int, now: int) -> None:
        execute("DELETE FROM holdfast_message WHERE in_queue = ? AND expires <= ?", (number, now))

    def _bury(self, execute: Execute, queue: str, row: Any, now: int) -> None:
        execute("INSERT INTO holdfast_queue (name) VALUES (?) ON CONFLICT DO NOTHING", (queue + POISON,))
        _add(execute, self._queue(execute, queue + POISON), (row[1], None), now, now)
        execute("DELETE FROM holdfast_message WHERE id = ?", (row[0],))

    def close(self) -> None:
        super().close()
        self._database.close()


def _add(execute: Execute, number: int, content: tuple[str, int | None], now: int, visible: int) -> QueueMessage:
    receipt = secrets.token_hex(8)
    row = execute(
        "INSERT INTO holdfast_message (in_queue, content, receipt, dequeues, inserted, expires, visible)"
        f" VALUES (?, ?, ?, 0, ?, ?, ?) RETURNING {_COLUMNS}",
        (number, content[0], receipt, now, content[1], visible),
    ).fetchone()
    return _message(row)


def _message(row: Any) -> QueueMessage:
    number, content, receipt, dequeues, inserted, expires, visible = row
    return QueueMessage(
        id=str(number),
        content=read_content(content),
        receipt=receipt,
        dequeue_count=dequeues,
        inserted=_moment(inserted),
        expires=_moment(expires),
        visible=_moment(visible),
    )


def _moment(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
