"""What an agent gets: its mail, through the hub or from the logs beside it, and what it says of each message.

A message is handed out at least once, in the order in which it came, until its reader has said that he has read,
acknowledged or done it. What a process that was killed had in hand comes again; whoever handles mail does so by its
`id`. While the hub is away, what was fetched before is handed out again, and what agents of this directory write.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from holdfast import clock, codec
from holdfast.collections.delivery import DELIVERY, INBOX, NOTHING, READ, Act, Events, Reading, act
from holdfast.collections.mailbox import acts_in
from holdfast.collections.messages import ANSWER, QUESTION, Message, message_of
from holdfast.errors import CapacityError, HoldfastError, HubError, HubUnavailable, UsageError
from holdfast.log import drafts
from holdfast.log.drafts import MESSAGES
from holdfast.log.versions import Version
from holdfast.node.local_mail import LOCAL, Letter, LocalMail
from holdfast.node.seen import Seen

if TYPE_CHECKING:
    from holdfast.node.hub import Hub
    from holdfast.node.mail_feed import MailFeed
    from holdfast.node.store import Store

PAGE: Final = 100
LOOK_S: Final = 10.0
"""How often a live inbox looks at what is not new and waits again: it was snoozed, or somebody took his word back."""
POLL_S: Final = 0.05
_encode = msgspec.json.Encoder().encode
_kept = msgspec.json.Decoder(Letter).decode


class Mail:
    """One message, and what its reader does with it. Each call is one record here, on its way to the sender.

    Attributes:
        message: as it was posted; `id`, `sender`, `to`, `kind`, `body`, `priority`, `task`, `thread`, `role`, `time`,
            `expires_at`, `in_reply_to` and `options` are its fields.
    """

    def __init__(self, store: Store, message: Message) -> None:
        self.message = message
        self._store = store
        # One by one, and not by __getattr__: a slip in a name is an error where it is made.
        self.id, self.sender, self.to = message.id, message.agent, message.to
        self.kind, self.body, self.priority = message.kind, message.body, message.priority
        self.task, self.thread, self.role = message.task, message.thread, message.role
        self.time, self.expires_at = message.time, message.expires_at
        self.in_reply_to, self.options = message.in_reply_to, message.options

    def __repr__(self) -> str:
        return f"<Mail {self.id} from {self.sender}: {self.kind}>"

    def read(self) -> None:
        """It was seen; it is not handed out again."""
        self._say(act("read", self.sender))

    def ack(self) -> None:
        """It was taken on."""
        self._say(act("acknowledged", self.sender))

    def done(self, result: Any = None) -> None:
        """It was finished; the sender sees the result.

        Args:
            result: JSON values; what came of it.
        """
        redact = self._store._redact
        if redact is not None and result is not None:
            result = redact(DELIVERY, self.id, result)
        self._say(act("done", self.sender, result=result))

    def snooze(self, until: float | str | datetime | timedelta | None = None) -> None:
        """It comes back later.

        Args:
            until: when, or after how long; None: when somebody takes it back (`restore`).
        """
        at = None if until is None else moment(until, self._store._directory.wall.now_ms())
        self._say(act("snoozed", self.sender, until=at))

    def archive(self) -> None:
        """It is put away; it stays findable."""
        self._say(act("archived", self.sender))

    def restore(self) -> None:
        """It comes back from being snoozed or archived, as far read as it was."""
        self._say(act("inbox", self.sender))

    def unread(self) -> None:
        """It is as if nothing had been said of it."""
        self._say(act("unread", self.sender))

    def undo(self) -> None:
        """Takes this reader's last word back.

        Raises:
            UsageError: nothing was said of it here.
        """
        self._say(self._events().undo(self.sender))

    def reply(self, body: Any, *, kind: str = "", priority: str = "normal", dedupe: str | None = None) -> Message:
        """Posts to its sender, in its thread; and it is acknowledged, a question done. Both in one commit.

        Args:
            body: text or JSON values.
            kind: answer to a question, else message, unless you say otherwise.
            priority: low, normal, high or hot.
            dedupe: see `Store.post`: a reply that was written before a crash is not written twice.

        Raises:
            UsageError: the answer is none of the question's options.
        """
        from holdfast.node.mailing import Posting, posted

        asked = self.kind == QUESTION
        if asked and self.options is not None and body not in self.options:
            raise UsageError(f"{body!r:.80} is no answer to this question", hint=f"one of {self.options!r:.200}")
        thread = self.message.conversation
        fields = {"to": self.sender, "thread": thread, "task": self.task, "in_reply_to": self.id, "dedupe": dedupe}
        made = Posting(self._store, body, kind or (ANSWER if asked else "message"), "", priority, fields)
        said = act("done", self.sender, result=made.id) if asked else act("acknowledged", self.sender)
        return posted(self._store, made, drafts.value(DELIVERY, self.id, said.value()))

    def _say(self, said: Act) -> None:
        self._store._append((drafts.value(DELIVERY, self.id, said.value()),), False)

    def _events(self) -> Events:
        return said_here(self._store, self.id, self.sender)


def moment(when: float | str | datetime | timedelta, now_ms: int) -> float:
    """A time, or so long after now, in seconds since 1970."""
    if isinstance(when, timedelta):
        return now_ms / 1000 + when.total_seconds()
    return clock.parse_time(when) / 1000


def said_here(store: Store, msg: str, of: str) -> Events:
    """What this agent said of a message, as its own log has it."""
    log = store._log
    if log.newest(DELIVERY, msg) is None:
        return Events(())
    return Events(acts_in(log.versions(DELIVERY, msg), of, store._load))


class Inbox:
    """An iterator over mail. `cursor` is where to go on behind the last one given; `close` ends it.

    Not to be shared among threads, but for `close`.

    Attributes:
        cursor: kept anywhere, it resumes exactly: ``since=``.
        expired: how many were not handed out, as nobody needs them any more.
        offline: True while no hub can be asked: then this is what was fetched before, and what came on this machine.
    """

    def __init__(self, store: Store, box: str, since: str | None, *, unread: bool, live: bool, peek: bool) -> None:
        self.cursor = since or ""
        self.expired = 0
        self.offline = False
        self._store, self._box = store, box
        self._unread, self._live, self._peek = unread, live, peek
        self._since = self.cursor
        self._seen = Seen()
        self._turned: dict[tuple[str, str], int] = {}  # when what was handed out had last come back
        self._page: list[tuple[str, Mail]] = []
        self._stop = threading.Event()
        self._feed: MailFeed | None = None
        self._local = LocalMail(store._directory, box, self.cursor if not store.hubs else "")
        if store.hubs and self.cursor.startswith(LOCAL):
            raise UsageError(f"the cursor {since!r:.80} is of a node without a hub", hint="begin without one")
        self._left: int | None = None
        self._pages = self._run()

    def limited(self, limit: int | None) -> Self:
        """The same, ending after so many; None: it does not."""
        self._left = limit
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Mail:
        while not self._page:
            if not self._fill():
                raise StopIteration
        self.cursor, mail = self._page.pop(0)
        return mail

    def next_cursors(self) -> list[tuple[str, Mail]]:
        """Several at once with their cursors, for callers who hop threads; empty: the end."""
        while not self._page:
            if not self._fill():
                return []
        page, self._page = self._page, []
        self.cursor = page[-1][0]
        return page

    def close(self) -> None:
        """Ends the iteration, also one that waits in another thread; a second close is fine."""
        self._stop.set()
        feed = self._feed
        if feed is not None:
            feed.close()
        with contextlib.suppress(ValueError):  # another thread is at it, and ends by itself
            self._pages.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        if self._left == 0:
            self.close()
            return False
        try:
            letters, cursors, behind = next(self._pages)
        except StopIteration:
            return False
        fresh = [
            (cursor, Mail(self._store, letter.message))
            for letter, cursor in zip(letters, cursors, strict=True)
            if self._is_due(letter)
        ]
        if self._left is not None and len(fresh) >= self._left:
            fresh, behind = fresh[: self._left], ""
            self._left = 0
        elif self._left is not None:
            self._left -= len(fresh)
        if not self._peek:
            self._fetched([mail for _, mail in fresh])
        self._page = fresh
        if not fresh and behind:
            self.cursor = behind
        return True

    def _is_due(self, letter: Letter) -> bool:
        """Whether it is to be handed out: it waits, and has not been handed out since it came, or came back."""
        message, first = letter.message, self._seen.add(letter.stream, letter.seq, letter.etag)
        if not self._unread:
            return first
        reading = said_here(self._store, message.id, message.agent).reading
        now = self._store._directory.wall.now_ms()
        _, place, until = reading.place
        if reading.rank >= READ or not (place == INBOX or 0 < until <= now):
            return False
        if message.expired(now):
            self.expired += first
            return False
        turned = max(reading.undone[0], reading.place[0])
        key = (message.agent, message.id)
        if not first and turned <= self._turned.get(key, 0):
            return False
        if turned:
            self._turned[key] = turned
        return True

    def _fetched(self, mail: Sequence[Mail]) -> None:
        """Tells the senders; in one commit, and only once."""
        new = [each for each in mail if self._reading(each) == NOTHING]
        told = [drafts.value(DELIVERY, each.id, act("delivered", each.sender).value()) for each in new]
        if told:
            with contextlib.suppress(CapacityError):  # mail is read on a full disk, too
                self._store._append(told, False)

    def _reading(self, mail: Mail) -> Reading:
        return mail._events().reading

    def _run(self) -> Generator[tuple[list[Letter], list[str], str]]:
        try:
            if self._store.hubs:
                yield from self._through_the_hub()
            else:
                yield from self._beside()
        finally:
            self._local.close()

    def _beside(self) -> Generator[tuple[list[Letter], list[str], str]]:
        looked = time.monotonic()
        while not self._stop.is_set():
            before = self._local.cursor
            found = self._local.pull()
            if found:
                # Of several logs at once, what was not given must come again: only behind the last is all of it given.
                cursors = [before] * (len(found) - 1) + [self._local.cursor]
                yield found, cursors, self._local.cursor
            elif not self._live:
                return
            elif time.monotonic() - looked < LOOK_S:
                self._stop.wait(POLL_S)
            else:
                looked = time.monotonic()
                again = LocalMail(self._store._directory, self._box, self._since)
                with contextlib.closing(again):
                    while found := again.pull():
                        yield found, [before] * len(found), ""

    def _through_the_hub(self) -> Generator[tuple[list[Letter], list[str], str]]:
        from random import SystemRandom

        from holdfast.protocol.retry import Backoff

        backoff = Backoff(SystemRandom())
        told = False
        at = self.cursor
        while not self._stop.is_set():
            try:
                rows, at, more = self._ask(at)
            except HubError as error:
                if not error.retryable:
                    raise
                self.offline = True
                if not told:
                    told = True
                    kept = [_kept(each) for each in self._store._reader().cache.mail(self._box)]
                    yield kept, [self.cursor] * len(kept), ""
                    found = self._local.pull()
                    yield found, [self.cursor] * len(found), ""
                if not self._live:
                    return
                yield from self._meanwhile(backoff.delay())
                continue
            self.offline = False
            yield [letter for letter, _ in rows], [cursor for _, cursor in rows], at
            if not more:
                break
        if self._live and not self._stop.is_set():
            yield from self._follow(at)

    def _meanwhile(self, seconds: float) -> Generator[tuple[list[Letter], list[str], str]]:
        waited = 0.0
        while waited < seconds and not self._stop.wait(POLL_S):
            waited += POLL_S
            if found := self._local.pull():
                yield found, [self.cursor] * len(found), ""

    def _ask(self, after: str) -> tuple[list[tuple[Letter, str]], str, bool]:
        """A page of the hub's, where to go on, and whether there is more."""
        state = "unread" if self._unread else "all"
        query = {"for": self._box, "state": state, "order": "oldest", "after": after or None, "limit": PAGE}

        def ask(hub: Hub) -> Any:
            page = hub.client.want("GET", "/v1/inbox", query=query).json()
            return page, [(letter_of(hub, each), each["cursor"]) for each in page["mail"] if readable(each)]

        page, rows = self._store._reader().hub.ask(ask)
        self._keep([letter for letter, _ in rows])
        return rows, page["next"] or page["cursor"], page["next"] is not None

    def _follow(self, at: str) -> Generator[tuple[list[Letter], list[str], str]]:
        hub = self._store._reader().hub
        from holdfast.node.mail_feed import MailFeed

        feed = self._feed = MailFeed(hub, self._box, at, self._local.pull)
        if self._stop.is_set():
            return
        looked = time.monotonic()
        while (page := feed.pull()) is not None:
            self.offline = feed.away
            rows = [(_letter(each), cursor) for cursor, each in page if not each.gone and not each.missing]
            mine = [(letter, cursor) for letter, cursor in rows if letter.message.to == self._box]
            if not feed.away:
                self._keep([letter for letter, _ in mine])
            yield [letter for letter, _ in mine], [cursor for _, cursor in mine], feed.cursor
            if time.monotonic() - looked >= LOOK_S:  # there is a page at least as often: an empty one
                looked = time.monotonic()
                yield from self._look_again(feed.cursor)

    def _look_again(self, cursor: str) -> Generator[tuple[list[Letter], list[str], str]]:
        after, more = self._since, True
        with contextlib.suppress(HubUnavailable):  # the feed has noticed, too
            while more:
                rows, after, more = self._ask(after)
                yield [letter for letter, _ in rows], [cursor] * len(rows), ""

    def _keep(self, letters: Sequence[Letter]) -> None:
        if letters and not self._peek:
            rows = [(o.message.agent, o.message.id, o.seq, bytes.fromhex(o.etag), _encode(o)) for o in letters]
            with contextlib.suppress(HoldfastError):  # it can be fetched again
                self._store._reader().cache.keep_mail(self._box, rows)


def readable(shown: dict[str, Any]) -> bool:
    """Whether what a hub shows of a message has its body, or says where that is."""
    return shown.get("missing", "blob") == "blob" and ("missing" not in shown or "digest" in shown)


def letter_of(hub: Hub, shown: dict[str, Any]) -> Letter:
    """The message that a hub shows, whole."""
    if shown.get("missing"):
        from holdfast.transport.blobs import fetch

        content = fetch(hub.client, bytes.fromhex(shown["digest"]), shown["size"])
        value = codec.deserialise(shown["fmt"], content)
    else:
        names = ("task", "thread", "role", "in_reply_to", "dedupe", "expires_at", "options", "priority")
        value = {**shown["extra"], **{name: shown[name] for name in names}}
        value |= {"body": shown["content"], "to": shown["recipient"]}
    version = Version(
        agent=shown["sender"],
        collection=MESSAGES,
        key=shown["msg_id"],
        version=1,
        seq=shown["seq"],
        time=shown["timestamp"],
        kind=shown["kind"],
        etag=shown["etag"],
        value=value,
        pos=shown["pos"],
        stream=shown["stream"],
    )
    return _letter(version)


def version_of(letter: Letter) -> Version:
    """A letter as a version of the feed."""
    message = letter.message
    value = {"body": message.body, **message.extra}
    names = ("to", "priority", "task", "thread", "role", "in_reply_to", "dedupe", "expires_at", "options")
    value |= {name: getattr(message, name) for name in names}
    return Version(
        agent=message.agent,
        collection=MESSAGES,
        key=message.id,
        version=1,
        seq=letter.seq,
        time=message.time,
        kind=message.kind,
        etag=letter.etag,
        value=value,
        stream=letter.stream,
    )


def _letter(version: Version) -> Letter:
    return Letter(message_of(version), version.stream, version.seq, version.etag)


def only(found: Iterable[Letter]) -> list[Letter]:
    """Each message once, however often its record was found."""
    return list({(each.message.agent, each.message.id): each for each in found}.values())
