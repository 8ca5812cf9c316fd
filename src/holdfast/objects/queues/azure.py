"""Queues in Azure Queue Storage, by the laws of `port`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageRefused
from holdfast.objects.azure_door import AzureAccount
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
from holdfast.objects.tables.keys import read_service, write_service

_NO_QUEUE: Final = "QueueNotFound"
_STALE: Final = "PopReceiptMismatch"
_NEVER_YEAR: Final = 9999
T = TypeVar("T")


class AzureQueues(QueueStore):
    """The queues of a storage account.

    Args:
        account: shared by whoever uses it; closed by its owner.
        max_dequeues: how often a message is given out before it is a dead letter; None: for ever.
    """

    def __init__(self, account: AzureAccount, *, max_dequeues: int | None = DEQUEUES_MAX) -> None:
        super().__init__(max_dequeues=max_dequeues)
        self._account = account

    @property
    def name(self) -> str:
        return self._account.name("queue")

    def create_queue(self, queue: str) -> bool:
        client = self._queue(queue)
        try:
            self._account.call(client.create_queue, f"create the queue {queue!r}", again=True)
        except ObjectConflict:
            return False
        return True

    def delete_queue(self, queue: str) -> bool:
        client = self._queue(queue)
        try:
            self._account.call(client.delete_queue, f"delete the queue {queue!r}")
        except ObjectNotFound:
            return False
        return True

    def list_queues(self) -> list[str]:
        self._open()
        client = self._account.queues()
        found = self._account.call(lambda: [item.name for item in client.list_queues()], "list the queues", again=True)
        return sorted(name for name in map(read_service, found) if name is not None)

    def send(self, queue: str, content: str | bytes, *, ttl: int | None = TTL_S, delay: int = 0) -> QueueMessage:
        client = self._queue(queue)
        check_times(ttl, delay)
        written = write_content(content)
        sent = self._call(
            queue,
            lambda: client.send_message(
                written, visibility_timeout=delay or None, time_to_live=-1 if ttl is None else ttl
            ),
            "send to",
        )
        return _message(sent, written)

    def receive(self, queue: str, *, most: int = 1, visibility: int = VISIBILITY_S) -> list[QueueMessage]:
        client = self._queue(queue)
        check_most(most)
        check_seconds(visibility, "visibility", 1)
        tries = self._tries(queue)
        kept: list[QueueMessage] = []

        def fetch() -> list[Any]:
            asked = {"messages_per_page": most, "max_messages": most, "visibility_timeout": visibility}
            return list(next(client.receive_messages(**asked).by_page(), ()))

        while not kept and (found := self._call(queue, fetch, "receive from")):
            for message in found:
                if tries is not None and message.dequeue_count > tries:
                    self._bury(queue, client, message)
                else:
                    kept.append(_message(message, message.content))
        return kept

    def _bury(self, queue: str, client: Any, message: Any) -> None:
        """Moves a message to the dead letters: there first, so that it is never in neither."""
        poison = queue + POISON
        dead = self._queue(poison)
        try:
            self._call(poison, lambda: dead.send_message(message.content, time_to_live=-1), "send to")
        except ObjectNotFound:
            self.create_queue(poison)
            self._call(poison, lambda: dead.send_message(message.content, time_to_live=-1), "send to")
        # Not found: it ended, or was hidden too briefly; whoever received it since moves it again.
        with contextlib.suppress(ObjectNotFound, ObjectConflict):
            self._call(queue, lambda: client.delete_message(message.id, message.pop_receipt), "delete from")

    def peek(self, queue: str, *, most: int = 1) -> list[QueueMessage]:
        client = self._queue(queue)
        check_most(most)
        found = self._call(queue, lambda: client.peek_messages(max_messages=most), "peek at", again=True)
        return [_message(message, message.content) for message in found]

    def update(
        self, queue: str, message: QueueMessage, *, visibility: int = VISIBILITY_S, content: str | bytes | None = None
    ) -> QueueMessage:
        client = self._queue(queue)
        check_seconds(visibility, "visibility", 0)
        # Without content it would keep its own in Azure, and lose it in what the client returns.
        written = write_content(message.content if content is None else content)
        updated = self._mine(
            queue,
            message,
            lambda: client.update_message(message.id, message.receipt, content=written, visibility_timeout=visibility),
        )
        if updated is None:
            raise stale(queue, message)
        return QueueMessage(
            id=message.id,
            content=read_content(written),
            receipt=updated.pop_receipt,
            dequeue_count=message.dequeue_count,
            inserted=message.inserted,
            expires=message.expires,
            visible=_moment(updated.next_visible_on),
        )

    def delete(self, queue: str, message: QueueMessage) -> bool:
        client = self._queue(queue)

        def delete() -> bool:
            client.delete_message(message.id, message.receipt)
            return True

        return self._mine(queue, message, delete) is not None

    def _mine(self, queue: str, message: QueueMessage, call: Callable[[], T]) -> T | None:
        """What the call returns, if the receipt counts; None if the message is gone."""
        if not message.receipt:
            raise stale(queue, message)
        try:
            return self._call(queue, call, "a message of")
        except ObjectNotFound as error:
            if error.context.get("queue"):
                raise
            # Azure says so too of a message that somebody else has received: then it still holds it.
            if error.context.get("code") == _STALE:
                raise stale(queue, message) from error
            return None
        except ObjectConflict as error:
            raise stale(queue, message) from error
        except StorageRefused as error:
            if error.context.get("code") == _STALE:
                raise stale(queue, message) from error
            raise

    def count(self, queue: str) -> int:
        client = self._queue(queue)
        found = self._call(queue, client.get_queue_properties, "count", again=True)
        return int(found.approximate_message_count)

    def clear(self, queue: str) -> None:
        client = self._queue(queue)
        self._call(queue, client.clear_messages, "clear", again=True)

    def _queue(self, queue: str) -> Any:
        self._open()
        return self._account.queue(write_service(check_queue(queue)))

    def _call(self, queue: str, call: Callable[[], T], what: str, *, again: bool = False) -> T:
        try:
            return self._account.call(call, f"{what} the queue {queue!r}", again=again)
        except ObjectNotFound as error:
            if error.context.get("code") == _NO_QUEUE:
                raise no_queue(self, queue) from error
            raise


def _message(found: Any, written: str | None) -> QueueMessage:
    expires = _moment(found.expires_on)
    return QueueMessage(
        id=found.id,
        content=read_content(written),
        receipt=found.pop_receipt or "",
        dequeue_count=found.dequeue_count or 0,
        inserted=_moment(found.inserted_on),
        expires=None if expires is not None and expires.year == _NEVER_YEAR else expires,
        visible=_moment(found.next_visible_on),
    )


def _moment(given: Any) -> datetime | None:
    if not isinstance(given, datetime):
        return None
    return given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
