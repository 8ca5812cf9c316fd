"""Asking somebody and waiting for the answer: a question is a message, and so is the answer."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

from holdfast.collections.delivery import DELIVERY, act
from holdfast.collections.messages import PEOPLE, QUESTION, Message, id_of, message_of
from holdfast.corpus import Filter
from holdfast.errors import CapacityError, HubError, Unanswered, UsageError
from holdfast.log import drafts
from holdfast.log.drafts import MESSAGES
from holdfast.node.inbox import POLL_S, said_here
from holdfast.node.local_mail import LocalMail
from holdfast.node.mail_feed import MailFeed
from holdfast.node.mailing import Posting, posted

if TYPE_CHECKING:
    from holdfast.node.store import Store

ANSWERS_MAX: Final = 1000
"""Of a thread's messages to whoever asks, the oldest are looked through for the answer."""
_FIELDS: Final = ("msg_id", "priority", "task", "thread", "expires_at", "role")


class Asking:
    """A question that was posted, and whoever waits for its answer.

    Args:
        store: who asks.
        body: the question.
        to: whom.
        options: the answers that it takes.
        dedupe: a key that names it.
        fields: see `Store.ask`.

    Raises:
        UsageError: a field that a question has not.
    """

    def __init__(
        self, store: Store, body: Any, to: str, options: list[Any] | None, dedupe: str | None, fields: dict[str, Any]
    ) -> None:
        if unknown := sorted(set(fields) - set(_FIELDS)):
            raise UsageError(f"a question has no field {unknown[0]!r}", hint=f"known are: {', '.join(_FIELDS)}")
        given = dict(fields)
        msg_id, priority = given.pop("msg_id", ""), given.pop("priority", "normal")
        if dedupe is not None:
            dedupe = _standing(store, dedupe)
        words = {**given, "to": to, "options": options, "dedupe": dedupe}
        self._store = store
        self._stop = threading.Event()
        self._feed: MailFeed | None = None
        self.question = posted(store, Posting(store, body, QUESTION, msg_id, priority, words))
        if said_here(store, self.question.id, store.agent).reading.is_withdrawn:
            self._say("asked")

    def wait(self, timeout: float | None) -> Message:
        """The answer; waits for it.

        Args:
            timeout: how many seconds; None: for ever.

        Raises:
            Unanswered: none came in time, or `stop` was called.
        """
        timer = None
        if timeout is not None:
            timer = threading.Timer(max(0.0, timeout), self.stop)
            timer.daemon = True
            timer.start()
        try:
            answer = self._through_the_hub() if self._store.hubs else self._beside()
        finally:
            if timer is not None:
                timer.cancel()
        if answer is None:
            within = "" if timeout is None else f" within {timeout:g} s"
            raise Unanswered(
                f"nobody has answered the question {self.question.id}{within}",
                hint=f"it stays open: ask again with {self._name()}, and the answer that came meanwhile is there",
                question=self.question.id,
            )
        # It was received here, so no inbox of this agent hands it out again.
        with contextlib.suppress(CapacityError):
            said = act("done", answer.agent)
            self._store._append((drafts.value(DELIVERY, answer.id, said.value()),), False)
        return answer

    def stop(self) -> None:
        """Ends a `wait`, in whatever thread."""
        self._stop.set()
        feed = self._feed
        if feed is not None:
            feed.close()

    def withdraw(self) -> None:
        """Takes the question back."""
        self.stop()
        self._say("withdrawn")

    # -- inside -------------------------------------------------------------------------------------------------

    def _name(self) -> str:
        dedupe = self.question.dedupe
        return f"dedupe={dedupe!r}" if dedupe is not None else f"msg_id={self.question.id!r}"

    def _say(self, word: str) -> None:
        store = self._store
        said = act(word, store.agent)
        store._append((drafts.value(DELIVERY, self.question.id, said.value()),), False)

    def _answers(self, message: Message) -> bool:
        asked = self.question
        if message.in_reply_to != asked.id or message.to != asked.agent:
            return False
        return message.agent == asked.to or asked.to in (None, PEOPLE)

    def _beside(self) -> Message | None:
        local = LocalMail(self._store._directory, self._store.agent)
        try:
            while True:
                for letter in local.pull():
                    if self._answers(letter.message):
                        return letter.message
                if self._stop.wait(POLL_S):
                    return None
        finally:
            local.close()

    def _through_the_hub(self) -> Message | None:
        store = self._store
        local = LocalMail(store._directory, store.agent)
        try:
            for letter in local.pull():
                if self._answers(letter.message):
                    return letter.message
            hub = store._reader().hub
            since = "0"  # a hub that is away: once it is back, all of this agent's mail is looked through
            with contextlib.suppress(HubError):
                since = hub.cursor()
                if (before := self._before()) is not None:
                    return before
            feed = self._feed = MailFeed(hub, store.agent, since, local.pull)
            if self._stop.is_set():
                feed.close()
            while (page := feed.pull()) is not None:
                for _, version in page:
                    if not version.gone and not version.missing and self._answers(message := message_of(version)):
                        return message
            return None
        finally:
            if self._feed is not None:
                self._feed.close()
            local.close()

    def _before(self) -> Message | None:
        """The answer that came before anybody waited."""
        which = Filter(
            collection=MESSAGES,
            to=self.question.agent,
            thread=self.question.conversation,
            newest_first=False,
            limit=ANSWERS_MAX,
        )
        said = [message_of(each) for each in self._store._reader().hub.records(which) if not each.gone]
        return next((each for each in said if self._answers(each)), None)


def _standing(store: Store, dedupe: str) -> str:
    """The key, or the next one like it whose question was not withdrawn: nobody looks at that one any more."""
    key, number = dedupe, 1
    while said_here(store, id_of(store.agent, key), store.agent).reading.is_withdrawn:
        number += 1
        key = f"{dedupe} ({number})"
    return key
