"""What became of a message, step by step: written, here, and whatever its readers said of it, each with its time."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.collections import mailbox
from holdfast.collections.delivery import DELIVERED, DELIVERY, STATES, Act
from holdfast.corpus import Stored
from holdfast.hub.ingest import ARRIVAL_EVERY_MS
from holdfast.hub.ui.words import span_text
from holdfast.log import load
from holdfast.records import stream_id

READERS_MAX: Final = 20
ACTS_MAX: Final = 50
STEPS_MAX: Final = 200
_SLACK_MS: Final = 60_000
_NEAR: Final = 100
"""Notes that are looked through before it is halved: those of some minutes."""
_PLAIN_MS: Final = 10_000


class Step(msgspec.Struct):
    """One step: what happened, by whom, when (ISO 8601 with milliseconds), and what else is to be known of it;
    until when it was snoozed, if that was said."""

    what: str
    who: str
    at: str
    note: str = ""
    until: str | None = None


def trail_of(core: Any, mail: mailbox.Mail, stored: Stored, node: str) -> list[Step]:
    """The steps of a message in the order of their times; read from the corpus, so for threads.

    Args:
        core: the hub.
        mail: which message.
        stored: its record.
        node: where it was written, as far as whoever asks may know.
    """
    written = clock.millis(stored.record.hlc)
    steps = [Step("written", mail.sender, clock.iso(written), node)]
    if is_own(core, stored):
        steps[0].note = "through this hub"
    elif (came := arrival(core.corpus, stored.pos, written, core.home.wall.now_ms())) is not None:
        steps.append(Step("at the hub", "", clock.iso(max(came[0], written)), _after(came[0] - written, came[1])))
    said = mailbox.said_of(core.corpus, mail.msg, mail.sender)
    latest = sorted(said.values(), key=lambda each: -_newest(each))[:READERS_MAX]
    acts = list[Step]()
    for each in latest:
        versions = islice(core.corpus.versions(each.reader, DELIVERY, mail.msg), ACTS_MAX)
        for stamp, act in mailbox.acts_in(versions, mail.sender, lambda one: load(one, core.home.blobs)):
            acts.append(_step(each.reader, stamp, act))
    acts.sort(key=lambda step: step.at)
    return [*steps, *acts[-STEPS_MAX:]]


def is_own(core: Any, stored: Stored) -> bool:
    """Whether the hub wrote a record itself, for a client without a log."""
    return stored.record.stream == stream_id(core.home.signer.public_key, stored.agent)


def _newest(said: mailbox.Said) -> int:
    reading = said.reading
    return max(*reading.newest, reading.undone[0], reading.place[0], reading.withdrawn[0])


def _step(reader: str, stamp: int, act: Act) -> Step:
    note, until = "", None
    if act.withdrawn is not None:
        what = "withdrawn" if act.withdrawn else "asked again"
    elif act.undo:
        back = act.state or STATES[DELIVERED]
        what = "marked unread" if back == STATES[DELIVERED] else f"put back to {back}"
    elif act.place == "snoozed":
        what, until = "snoozed", clock.iso(round(act.until * 1000)) if act.until else None
        note = "" if until else "until taken back"
    elif act.place is not None:
        what = "archived" if act.place == "archived" else "put back"
    else:
        what = act.state or STATES[DELIVERED]
    return Step(what, reader, clock.to_iso(stamp), note, until)


def _after(late_ms: int, exact: bool) -> str:
    """How long after it was written something was here."""
    if not exact:
        late_ms += ARRIVAL_EVERY_MS
    if late_ms < 0:
        return "by the hub's clock, which is behind the writer's"
    span = f"{late_ms:,} ms" if late_ms < _PLAIN_MS else span_text(late_ms / 1000)
    return f"+{span}" if exact else f"less than {span} later"


def arrival(corpus: Any, pos: int, written_ms: int, now_ms: int) -> tuple[int, bool] | None:
    """When the hub had a record, in ms since 1970, and whether that is exact; else it was within 5 s behind that.

    The hub notes every few seconds what has arrived by when. These notes lie by time, and their positions grow with
    it, so the last one before a position is found by halving.

    Args:
        corpus: the hub's.
        pos: of the record.
        written_ms: by its writer's clock.
        now_ms: the hub's time.
    """

    def by(ms: int) -> tuple[int, int] | None:
        sql = "SELECT at_ms, pos FROM arrival WHERE at_ms<=? ORDER BY at_ms DESC LIMIT 1"
        row = corpus.one(sql, (ms,))
        return None if row is None else (row[0], row[1])

    low, high = max(0, written_ms - _SLACK_MS), now_ms + _SLACK_MS
    found = by(low)
    if found is not None and found[1] >= pos:
        low, found = 0, None  # its writer's clock goes ahead
    else:
        # Most records come soon after they were written: one more question, where halving takes thirty.
        near = corpus.query(f"SELECT at_ms, pos FROM arrival WHERE at_ms>? ORDER BY at_ms LIMIT {_NEAR}", (low,))
        for at_ms, upto in near:
            if upto >= pos:
                return _exactly(found, pos)
            low, found = at_ms, (at_ms, upto)
        if len(near) < _NEAR:
            return _exactly(found, pos)
    while low < high:
        middle = (low + high + 1) // 2
        here = by(middle)
        if here is None or here[1] < pos:
            low, found = middle, here
        else:
            high = min(middle, here[0]) - 1
    return _exactly(found, pos)


def _exactly(found: tuple[int, int] | None, pos: int) -> tuple[int, bool] | None:
    return None if found is None else (found[0], found[1] == pos - 1)
