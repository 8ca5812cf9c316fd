"""Mail, awaited: what `AsyncStore` can do with messages; see `holdfast.node.mailing`.

Whatever may wait for days does so in a thread of its own, not in one of the few that all of a loop's work shares.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from holdfast.collections import Message, message_in
from holdfast.collections.messages import PEOPLE
from holdfast.errors import Conflict
from holdfast.node.mailing import Posting

if TYPE_CHECKING:
    from holdfast.collections.delivery import Delivery
    from holdfast.node.aio import AsyncStore
    from holdfast.node.inbox import Inbox, Mail

T = TypeVar("T")


class AsyncMailCalls:
    """The part of `AsyncStore` that deals in messages."""

    async def post(
        self,
        body: Any,
        *,
        to: str | None = None,
        kind: str = "message",
        priority: str = "normal",
        task: str | None = None,
        thread: str | None = None,
        role: str | None = None,
        msg_id: str = "",
        dedupe: str | None = None,
        expires_at: float | str | datetime | None = None,
        in_reply_to: str | None = None,
    ) -> Message:
        """Posts a message; see `Store.post`."""
        mine = _store(self)
        fields: dict[str, Any] = {"to": to, "task": task, "thread": thread, "role": role, "dedupe": dedupe}
        fields |= {"expires_at": expires_at, "in_reply_to": in_reply_to}
        made = Posting(mine._store, body, kind, msg_id, priority, fields)
        try:
            return message_in((await mine._append((made.draft,), False))[0], made.words)
        except Conflict:
            return made.message(mine._store)

    def inbox(
        self,
        *,
        unread: bool = True,
        since: str | None = None,
        limit: int | None = None,
        live: bool = False,
        to: str | None = None,
        peek: bool = False,
    ) -> AsyncInbox:
        """This agent's mail; see `Store.inbox`. Nothing is asked before the first step."""
        store = _store(self)._store

        def begin() -> Inbox:
            return store.inbox(unread=unread, since=since, limit=limit, live=live, to=to, peek=peek)

        return AsyncInbox(begin, since)

    async def mail(self, msg_id: str, *, sender: str | None = None) -> AsyncMail:
        """One message by its id; see `Store.mail`."""
        return AsyncMail(await asyncio.to_thread(_store(self)._store.mail, msg_id, sender=sender))

    async def delivery(self, msg_id: str, *, sender: str | None = None) -> Delivery:
        """What became of a message; see `Store.delivery`."""
        return await asyncio.to_thread(_store(self)._store.delivery, msg_id, sender=sender)

    async def ask(
        self,
        body: Any,
        to: str = PEOPLE,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the same signature as Store's
        options: list[Any] | None = None,
        dedupe: str | None = None,
        **fields: Any,
    ) -> Message:
        """Asks, and waits for the answer; see `Store.ask`. Cancelled, it withdraws the question."""
        from holdfast.node.asking import Asking

        store = _store(self)._store
        asking = await asyncio.to_thread(Asking, store, body, to, options, dedupe, fields)
        try:
            return await aside(lambda: asking.wait(timeout))
        except asyncio.CancelledError:
            await asyncio.shield(asyncio.to_thread(asking.withdraw))
            raise

    async def answer(self, question: AsyncMail | Message | str, body: Any) -> Message:
        """Answers a question; see `Store.answer`."""
        asked = question._mail if isinstance(question, AsyncMail) else question
        return await asyncio.to_thread(_store(self)._store.answer, asked, body)

    async def withdraw(self, msg_id: str) -> None:
        """Takes a message of this agent's back; see `Store.withdraw`."""
        await asyncio.to_thread(_store(self)._store.withdraw, msg_id)


class AsyncMail:
    """`Mail`, awaited."""

    def __init__(self, mail: Mail) -> None:
        self._mail = mail
        self.message = mail.message
        self.id, self.sender, self.to = mail.id, mail.sender, mail.to
        self.kind, self.body, self.priority = mail.kind, mail.body, mail.priority
        self.task, self.thread, self.role = mail.task, mail.thread, mail.role
        self.time, self.expires_at = mail.time, mail.expires_at
        self.in_reply_to, self.options = mail.in_reply_to, mail.options

    def __repr__(self) -> str:
        return f"<AsyncMail {self.id} from {self.sender}: {self.kind}>"

    async def read(self) -> None:
        """It was seen; see `Mail.read`."""
        await asyncio.to_thread(self._mail.read)

    async def ack(self) -> None:
        """It was taken on; see `Mail.ack`."""
        await asyncio.to_thread(self._mail.ack)

    async def done(self, result: Any = None) -> None:
        """It was finished; see `Mail.done`."""
        await asyncio.to_thread(self._mail.done, result)

    async def snooze(self, until: float | str | datetime | timedelta | None = None) -> None:
        """It comes back later; see `Mail.snooze`."""
        await asyncio.to_thread(self._mail.snooze, until)

    async def archive(self) -> None:
        """It is put away; see `Mail.archive`."""
        await asyncio.to_thread(self._mail.archive)

    async def restore(self) -> None:
        """It comes back; see `Mail.restore`."""
        await asyncio.to_thread(self._mail.restore)

    async def unread(self) -> None:
        """It is as if nothing had been said of it; see `Mail.unread`."""
        await asyncio.to_thread(self._mail.unread)

    async def undo(self) -> None:
        """Takes this reader's last word back; see `Mail.undo`."""
        await asyncio.to_thread(self._mail.undo)

    async def reply(self, body: Any, *, kind: str = "", priority: str = "normal", dedupe: str | None = None) -> Message:
        """Posts to its sender; see `Mail.reply`."""
        return await asyncio.to_thread(self._mail.reply, body, kind=kind, priority=priority, dedupe=dedupe)


class AsyncInbox:
    """`Inbox`, awaited: an async iterator with the same `cursor`; `close` ends it."""

    def __init__(self, begin: Callable[[], Inbox], since: str | None) -> None:
        self.cursor = since or ""
        self._begin = begin
        self._inbox: Inbox | None = None
        self._page: list[tuple[str, Mail]] = []

    @property
    def expired(self) -> int:
        """How many were not handed out, as nobody needs them any more."""
        return self._inbox.expired if self._inbox is not None else 0

    @property
    def offline(self) -> bool:
        """True while no hub can be asked."""
        return self._inbox is not None and self._inbox.offline

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncMail:
        inbox = self._inbox
        if inbox is None:
            inbox = self._inbox = await asyncio.to_thread(self._begin)
        while not self._page:
            try:
                page = await aside(inbox.next_cursors)
            except asyncio.CancelledError:
                self.close()
                raise
            if not page:
                self.cursor = inbox.cursor
                raise StopAsyncIteration
            self._page = page[::-1]
        self.cursor, mail = self._page.pop()
        return AsyncMail(mail)

    def close(self) -> None:
        """Ends the iteration, also one that waits; a second close is fine."""
        if self._inbox is not None:
            self._inbox.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


def _store(self: AsyncMailCalls) -> AsyncStore:
    return cast("AsyncStore", self)


async def aside(work: Callable[[], T]) -> T:
    """What a function returns that may wait for days, run in a thread that keeps no process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name="holdfast-mail", daemon=True).start()
    return await future
