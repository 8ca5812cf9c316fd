"""All messages that match: counted by the hub, shown to whoever asks, and acted on only if it still are as many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.collections import mail_lists, mailbox
from holdfast.collections.mail_lists import Sought
from holdfast.collections.mailbox import Mail
from holdfast.collections.messages import PEOPLE
from holdfast.errors import Denied, UsageError
from holdfast.hub.routes_mail import check_reader, ready
from holdfast.hub.ui.messages_act import SAID, SNOOZES, back_of, check_mine, said_of, until_said
from holdfast.hub.ui.messages_filters import EVERYBODY, asked_in, filters_of, mine, query_of, reader_of, sought_of
from holdfast.hub.ui.messages_rows import Row, rows_of
from holdfast.hub.ui.routes import Ask, View

MOST: Final = 10_000
HITS_MAX: Final = 50_000
SAMPLES: Final = 5
SHARES: Final = 6


class Share(msgspec.Struct):
    """How many of the messages are of one kind, or from one sender; `name` is empty for all others."""

    name: str
    count: int


class Sure(msgspec.Struct):
    """What is about to be done to how many messages: some of them, and how they divide."""

    what: str
    does: str
    count: int
    before: int | None
    samples: list[Row]
    kinds: list[Share]
    senders: list[Share]
    query: str
    to: str
    as_of: int
    until: str
    back: str


async def all_that_match(ask: Ask, what: str) -> View:
    """Says one thing of all messages that a list shows, if these are as many as its reader was told.

    Without `sure` in the form it asks him; with a number that is not right any more it asks him again (409).

    Raises:
        Denied: not his to act on.
        UsageError: more than can be done at once.
    """
    form, core, principal = ask.form, ask.core, ask.principal
    if what not in SAID:
        raise UsageError(f"cannot {what} many messages at once", hint="open one of them")
    asked = asked_in(form.get("query", ""))
    filters = filters_of(asked)
    to = filters.to
    if to == EVERYBODY:
        raise Denied("everybody's mail is not one's to act on", hint="look into one inbox, and act there")
    form["for"] = to
    reader = reader_of(principal, to)
    check_reader(principal, reader)
    boxes = (to,) if to else mine(principal)
    await ready(core, boxes, core.home.wall.now_ms())
    as_of = _number(form.get("as_of", "")) or 0
    as_of = as_of or await core.read(core.corpus.last)

    def look() -> list[Mail]:
        sought = sought_of(core, principal, filters, folded=False)
        sought = msgspec.structs.replace(sought, until=min(sought.until, as_of))
        return matching(ask, sought, filters.words)

    mails = await core.read(look)
    if len(mails) > MOST:
        raise UsageError(f"more than {MOST:,} messages match", hint="narrow the list first, by time or by agent")
    check_mine(reader, principal.name or PEOPLE, mails)
    expected = _number(form.get("expect", "")) if form.get("sure") else None
    if expected == len(mails) and mails:
        return await said_of(ask, what, mails)

    def show() -> list[Row]:
        return rows_of(core, principal, mailbox.with_records(core.corpus, mails[:SAMPLES]), {})

    shown = Sure(
        what=what,
        does=SAID[what][1],
        count=len(mails),
        before=expected,
        samples=await core.read(show),
        kinds=_shares([mail.kind for mail in mails]),
        senders=_shares([mail.sender for mail in mails]),
        query=query_of(asked),
        to=to,
        as_of=as_of,
        until=_snooze(form),
        back=back_of(form),
    )
    return View(
        template="messages_sure.html",
        title="Are you sure?",
        data=shown,
        status=200 if expected is None else 409,
        extra={"twin": "", "back": shown.back},
    )


def matching(ask: Ask, sought: Sought, words: str, most: int = MOST) -> list[Mail]:
    """Every message that is sought, the newest first; one more than `most` where there are more. For threads.

    Raises:
        UsageError: too many records hold these words.
    """
    corpus = ask.core.corpus
    if not words:
        return mail_lists.all_of(corpus, sought, most)
    found = mail_lists.searched(corpus, sought, words, 1 << 62, most + 1, HITS_MAX)
    if found.cut:
        raise UsageError(f"more than {HITS_MAX:,} records hold these words", hint="narrow the list first")
    return [mail for mail, _ in found.rows]


def _shares(names: Sequence[str]) -> list[Share]:
    ranked = Counter(names).most_common()
    shown = [Share(name, count) for name, count in ranked[:SHARES]]
    rest = sum(count for _, count in ranked[SHARES:])
    return shown + ([Share("", rest)] if rest else [])


def _snooze(form: dict[str, str]) -> str:
    text = until_said(form)
    return text if text in SNOOZES or len(text) <= 40 else ""


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() and len(text) < 19 else None
