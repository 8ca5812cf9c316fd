"""POST /messages/act: what people say of messages, from the list and from a message's own page.

Fields of the form:
    what: read, acknowledge, done, archive, snooze, reopen, unread, undo; execute and reply lead to the message's page.
    ids: ids of messages, once for each; `sender` where two senders used one id.
    at: the same by the name that lists give (`messages_rows.name_of`). Or `one`, as ``what:at``.
    until: of snooze: 1h, 4h, 1d, 3d, 7d, or a time; empty: until it is taken back. `when` is a time
        in `zone`; it counts before.
    for: whose inbox is acted in, where it is not one's own.
    back: the page to go back to, with what was done in its query: ``done``, ``n``, and ``undo`` to send back here.
    undo: of undo: what is to be taken back, as it was given.
    all: what `all_what` says, to all that match `query`, as `messages_bulk` says.
Whoever asks for JSON is answered with a `Done`, and not taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from holdfast.collections import mail_lists, mailbox
from holdfast.collections.delivery import DELIVERY, TABS, Act, act_of
from holdfast.collections.delivery import act as act_for
from holdfast.collections.mailbox import Mail
from holdfast.collections.messages import PEOPLE
from holdfast.corpus.rows import COLUMNS
from holdfast.errors import Conflict, Denied, HoldfastError, NotFound, UsageError
from holdfast.hub import audit
from holdfast.hub.exchange import encode_json
from holdfast.hub.routes_mail import check_reader, ready, say, sees, undoing
from holdfast.hub.ui import zones
from holdfast.hub.ui.messages_filters import mine, moment_ms, reader_of
from holdfast.hub.ui.messages_rows import ETAG_SHOWN, message_url
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.words import many
from holdfast.log import load

if TYPE_CHECKING:
    from holdfast.hub.core import Core

SAID: Final = {
    "read": ("read", "marked read"),
    "acknowledge": ("acknowledged", "acknowledged"),
    "done": ("done", "done"),
    "archive": ("archived", "archived"),
    "snooze": ("snoozed", "snoozed"),
    "reopen": ("inbox", "reopened"),
    "unread": ("unread", "marked unread"),
}
"""What can be said: the word of the API, and how the page tells that it was."""
SNOOZES: Final = {"1h": 3_600, "4h": 14_400, "1d": 86_400, "3d": 259_200, "7d": 604_800}
CHOSEN_MAX: Final = 150
SPANS_MAX: Final = 100
UNDONE_MAX: Final = 50_000


class Done(msgspec.Struct):
    """What was done to how many messages; `undo` takes it back, `unread` is the number of the badge from now on."""

    what: str
    count: int
    says: str
    undo: str
    unread: int


async def act(ask: Ask) -> View:
    """POST /messages/act: says something of messages, or takes it back."""
    form = ask.form
    what, named = form.get("what", ""), form.many("at")
    if form.get("all"):
        what = form.get("all_what") or what
    if form.get("one"):
        what, _, place = form["one"].partition(":")
        named = [place]
    if what == "undo":
        return await _undone(ask)
    if what not in SAID and what not in ("execute", "reply"):
        raise UsageError(f"cannot {what!r:.40} a message", hint=f"one of {', '.join(SAID)}, undo, execute, reply")
    if form.get("all"):
        from holdfast.hub.ui.messages_bulk import all_that_match

        return await all_that_match(ask, what)
    mails = await chosen(ask, named, form.many("ids"))
    if what in ("execute", "reply"):
        if len(mails) != 1:
            raise UsageError(f"{len(mails)} messages are chosen", hint=f"{what} one at a time")
        place = message_url(mails[0].msg, mails[0].sender, urlsplit(back_of(form)).query, named_twice=True)
        return View(status=303, headers=(("location", f"{place}#{what}"),))
    return await said_of(ask, what, mails)


async def chosen(ask: Ask, named: Sequence[str], ids: Sequence[str]) -> list[Mail]:
    """The messages that a form names.

    Raises:
        NotFound: one that is not there, or not for him.
        Conflict: an id that two senders used, or a position that is another message's now.
        UsageError: none, or too many.
    """
    if not named and not ids:
        raise UsageError("no message was chosen", hint="tick some, and try again")
    if len(named) + len(ids) > CHOSEN_MAX:
        raise UsageError(f"{len(named) + len(ids)} messages at once", hint=f"at most {CHOSEN_MAX}; or all that match")
    core, principal = ask.core, ask.principal
    await ready(core, mine(principal), core.home.wall.now_ms())
    sender = ask.form.get("sender") or None

    def look() -> list[Mail]:
        links = {}
        for text in named:
            pos, _, link = text.partition(".")
            if not pos.isdigit() or len(pos) > 18 or len(link) != ETAG_SHOWN:
                raise UsageError(f"{text!r:.60} names no message", hint="use the forms of the pages")
            links[int(pos)] = link
        found = []
        for mail, stored in mailbox.with_records(core.corpus, mail_lists.at(core.corpus, list(links))):
            if stored.record.link.hex()[:ETAG_SHOWN] == links.pop(mail.pos) and sees(principal, mail):
                found.append(mail)
            else:
                links[mail.pos] = ""
        if links:
            raise Conflict("a message is not where it was", hint="load the list again, and decide anew")
        for msg in ids:
            mine_ = [mail for mail in mailbox.named(core.corpus, msg, sender) if sees(principal, mail)]
            if not mine_:
                raise NotFound(f"there is no message {msg!r:.80}", hint="see /messages")
            if len(mine_) > 1:
                raise Conflict(f"{len(mine_)} senders have a message with the id {msg!r:.80}", hint="say which: sender")
            found += mine_
        return list({mail.pos: mail for mail in found}.values())

    return await core.read(look)


async def said_of(ask: Ask, what: str, mails: Sequence[Mail]) -> View:
    """Says one thing of messages, and answers with what was done.

    Raises:
        Denied: a message in somebody else's inbox.
        UsageError: a time that is none.
    """
    core, principal, to = ask.core, ask.principal, ask.form.get("for", "")
    if what == "read":
        audit.untold(ask.scope)  # a row for each message that is opened would hide all others; the log has his word
    reader = reader_of(principal, to)
    check_reader(principal, reader)
    check_mine(reader, principal.name or PEOPLE, mails)
    until = _until(core, ask.form) if what == "snooze" else None
    acts = [(mail.msg, _act(what, mail, until)) for mail in mails]
    spans = await say(core, reader, acts, size=200 * len(acts))
    done = SAID[what][1]
    return await answered(ask, done, len(acts), f"{many(len(acts), 'message')} {done}.", spans)


def check_mine(reader: str, himself: str, mails: Sequence[Mail]) -> None:
    """Returns only if all these messages lie in inboxes in which this reader's word counts.

    Raises:
        Denied: one lies in another agent's: it alone says how far it is.
    """
    counts = ("", PEOPLE, himself) if reader == himself else (reader,)
    for mail in mails:
        if mail.box not in counts:
            hint = f"it is {mail.box}'s word that counts; look into that inbox to speak for it"
            raise Denied(f"{mail.msg!r:.80} is {mail.box}'s mail", hint=hint)


def _act(what: str, mail: Mail, until: float | None) -> Act:
    word = SAID[what][0]
    if what == "reopen" and TABS[mail.tab] not in ("snoozed", "archived"):
        word = "unread"  # it was put nowhere: whatever was said of it is taken back
    return act_for(word, mail.sender, until=until)


def until_said(form: Any) -> str:
    """Until when a form snoozes: a name of `SNOOZES`, a time in UTC, or empty.

    Raises:
        UsageError: a time in a zone that is not known here.
    """
    when = form.get("when", "")
    return zones.in_utc(when, form.get(zones.FIELD, "")) if when else str(form.get("until", ""))


def _until(core: Core, form: Any) -> float | None:
    text, now = until_said(form), core.home.wall.now_ms()
    if not text:
        return None
    if text in SNOOZES:
        return now / 1000 + SNOOZES[text]
    at = moment_ms(text)
    if at <= now:
        raise UsageError(f"{text!r:.40} is over", hint="snooze until a time to come")
    return at / 1000


async def _undone(ask: Ask) -> View:
    core, reader = ask.core, reader_of(ask.principal, ask.form.get("for", ""))
    check_reader(ask.principal, reader)
    spans = spans_in(ask.form.get("undo", ""))
    await ready(core, mine(ask.principal), core.home.wall.now_ms())

    def look() -> tuple[list[tuple[str, Act]], int]:
        acts, late = list[tuple[str, Act]](), 0
        within = "r.pos>=? AND r.pos<=? AND r.coll=(SELECT id FROM name WHERE s=?)"
        sql = f"SELECT {COLUMNS} FROM rec r WHERE {within} ORDER BY r.pos"
        for first, last in spans:
            for stored in core.corpus.rows(sql, (first, last, DELIVERY)):
                msg = stored.record.key
                newest = core.corpus.newest(reader, DELIVERY, msg) if stored.agent == reader else None
                if newest is None:
                    continue  # another one wrote it in between
                try:
                    said = act_of(load(stored, core.home.blobs))
                except HoldfastError:
                    said = None
                if newest.pos != stored.pos or said is None:
                    late += 1
                else:
                    acts.append((msg, undoing(core, reader, msg, said.of)))
        return acts, late

    acts, late = await core.read(look)
    if not acts:
        raise Conflict("there is nothing left to undo", hint="something else was said of it since")
    await say(core, reader, acts, size=200 * len(acts))
    says = f"{many(len(acts), 'message')} as before." + (f" {late} had changed since, and stay." if late else "")
    return await answered(ask, "undone", len(acts), says, [])


def spans_in(text: str) -> list[tuple[int, int]]:
    """The spans of positions in an ``undo``: ``17-17.20-25``.

    Raises:
        UsageError: it is none.
    """
    out = []
    for each in text.split("."):
        first, _, last = each.partition("-")
        if not (first.isdigit() and last.isdigit() and len(first) < 19 and len(last) < 19):
            raise UsageError("there is nothing to undo", hint="undo what was just done; later, reopen it")
        out.append((int(first), int(last)))
    if len(out) > SPANS_MAX or sum(max(0, last - first + 1) for first, last in out) > UNDONE_MAX:
        raise UsageError("that is too much to undo at once", hint="reopen what you want back")
    return out


async def answered(ask: Ask, done: str, count: int, says: str, spans: Sequence[tuple[int, int]]) -> View:
    """The answer to a form: back to where it was sent from; JSON for whoever asks for that.

    Args:
        ask: the request.
        done: what was done, in a word.
        count: to how many messages.
        says: the same in a sentence.
        spans: where it is written, for whoever wants it undone.
    """
    core, boxes = ask.core, mine(ask.principal)
    await ready(core, boxes, core.home.wall.now_ms())
    undo = ".".join(f"{first}-{last}" for first, last in spans)
    if wants_json(ask):
        left = await core.read(lambda: mail_lists.unread(core.corpus, boxes))
        return View(data=encode_json(Done(done, count, says, undo, left)))
    place, _, query = back_of(ask.form).partition("?")
    kept = [(n, v) for n, v in parse_qsl(query, keep_blank_values=True) if n not in ("done", "n", "undo")]
    told = [("done", done), ("n", str(count)), *([("undo", undo)] if undo else [])]
    return View(status=303, headers=(("location", f"{place}?{urlencode(kept + told)}"),))


def wants_json(ask: Ask) -> bool:
    """Whether whoever sent a form is a script, and stays where it is."""
    accept = ask.header(b"accept")
    return "application/json" in accept and "text/html" not in accept


def back_of(form: Any) -> str:
    """Where a form was sent from, if that is a list or a message; else the list."""
    where = form.get("back", "")
    good = where.isascii() and where.isprintable() and "#" not in where and "\\" not in where
    first = urlsplit(where).path.split("/")[1:2] if good and where.startswith("/") else []
    return where if first in (["messages"], ["reports"], ["threads"]) else "/messages"
