"""The outbox of notifications: what is still to be told, what was, and what was given up. It survives a restart.

Messages are taken up behind a watermark, in the transaction that moves it: each is taken once, by whichever process of
the hub comes first. What is to be sent is held by whoever sends it for a while; one that dies while it sends is
followed by another, so what a receiver gets it may get twice, under one id. Everything here is SQL that SQLite and
PostgreSQL both understand.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.corpus import SqlCorpus, Stored
from holdfast.corpus.rows import COLUMNS
from holdfast.corpus.sql import MESSAGES
from holdfast.corpus.transaction import SqlTransaction
from holdfast.hub.notify.rules import HOUR_MS, Rule

TOLD: Final = "told_pos"
"""In `meta`: the newest message that the rules were asked about."""
LOT: Final = 200
POSES_MAX: Final = 50
"""So many messages stand in one notification; of more it says how many."""
HELD_MS: Final = 60_000
"""Longer than any request may take."""
PATIENCE_MS: Final = 24 * HOUR_MS
"""For so long a notification is tried."""
FIRST_PAUSE_MS: Final = 5_000
PAUSE_MAX_MS: Final = HOUR_MS
KEEP_MS: Final = 30 * 24 * HOUR_MS
SENT_MAX: Final = 1_000
DEAD_MAX: Final = 1_000
SAID_MAX: Final = 200
WAITING, SENT, DEAD = range(3)
STATES: Final = ("waiting", "sent", "given up")

_COLUMNS: Final = "id, rule, state, made_ms, due_ms, next_ms, since_ms, tries, held, many, poses, said, done_ms"
_DUE: Final = "SELECT rule FROM notice WHERE state=0 AND next_ms<=? GROUP BY rule ORDER BY min(next_ms), rule"
_FIRST: Final = f"SELECT {_COLUMNS} FROM notice WHERE state=0 AND rule=? AND next_ms<=? ORDER BY next_ms, id LIMIT 1"
_LATER: Final = "UPDATE notice SET next_ms=?, held=0 WHERE state=0 AND rule=? AND next_ms<=?"


class Notice(msgspec.Struct, frozen=True):
    """One notification.

    Attributes:
        id: what its receiver knows it by, however often it is sent.
        rule: whose.
        state: waiting, sent or given up.
        made_ms, due_ms, next_ms: when it was made, may be sent first, is to be sent next; ms since 1970.
        since_ms: when it was first tried; 0: not yet.
        tries: how often.
        held: whether somebody sends it now.
        many: how many messages it tells of.
        poses: where the first of them are.
        said: why it was not taken.
        done_ms: when it was sent or given up.
    """

    id: str
    rule: str
    state: int
    made_ms: int
    due_ms: int
    next_ms: int
    since_ms: int
    tries: int
    held: int
    many: int
    poses: str
    said: str
    done_ms: int

    @property
    def positions(self) -> list[int]:
        """Where its messages are."""
        found: list[int] = json.loads(self.poses)
        return found


class Tally(msgspec.Struct):
    """How one rule stands."""

    waiting: int = 0
    sent: int = 0
    dead: int = 0
    tries: int = 0
    last_sent_ms: int = 0
    trouble: str = ""


# -- taking up ----------------------------------------------------------------------------------------------------

Reader = Callable[[Stored], tuple[Any, str]]
"""The priority and the recipient that a message's record says; raises nothing."""


def take_up(corpus: SqlCorpus, rules: Mapping[str, Rule], read: Reader, now_ms: int) -> int:
    """Asks the rules about the next messages; how many these were, 0 when none are left.

    Args:
        corpus: of the hub.
        rules: those that are at work, by name.
        read: looks into a message.
        now_ms: now.
    """
    mark = corpus.meta(TOLD)
    if mark is None:  # what was there before the first rule is no news
        corpus.write(lambda tx: begin(tx, corpus.last()))
        return 0
    sql = f"SELECT {COLUMNS} FROM rec r WHERE r.coll=(SELECT id FROM name WHERE s=?) AND r.pos>? ORDER BY r.pos LIMIT ?"
    batch = corpus.rows(sql, (MESSAGES, mark, LOT))
    if not batch:
        return 0
    of: dict[str, list[int]] = {}
    for stored in batch:
        record = stored.record
        if not record.is_value or record.key_version > 1:  # an id that comes twice is one message
            continue
        priority, to = read(stored)
        for name, rule in rules.items():
            if rule.tells_of(record.kind, priority, record.author or stored.agent, to):
                of.setdefault(name, []).append(stored.pos)

    def job(tx: SqlTransaction) -> None:
        if tx.meta(TOLD) != mark:
            return  # another process has taken them up
        for name, found in of.items():
            _add(tx, name, rules[name], found, now_ms)
        tx.set_meta(TOLD, batch[-1].pos)

    corpus.write(job)
    return len(batch)


def begin(tx: SqlTransaction, pos: int) -> None:
    """What is there up to a position is no news."""
    tx.set_meta(TOLD, max(tx.meta(TOLD) or 0, pos))


def _add(tx: SqlTransaction, name: str, rule: Rule, found: Sequence[int], now_ms: int) -> None:
    """Puts messages into a rule's outbox: into the notification that still waits, else into a new one."""
    sql = f"SELECT {_COLUMNS} FROM notice WHERE rule=? AND state=0 AND tries=0 AND held=0 ORDER BY made_ms LIMIT 1"
    row = tx.sql(sql, (name,)).fetchone()
    if row is not None:
        open_ = Notice(*row)
        poses = [*open_.positions, *found][:POSES_MAX]
        values = (json.dumps(poses), open_.many + len(found), open_.id)
        tx.sql("UPDATE notice SET poses=?, many=? WHERE id=?", values)
        return
    sql = "SELECT due_ms FROM notice WHERE rule=? AND due_ms>? ORDER BY due_ms DESC LIMIT ?"
    spoken = [each for (each,) in tx.sql(sql, (name, now_ms - HOUR_MS, rule.rate)).fetchall()]
    due = rule.due(now_ms, spoken)
    made = Notice(
        id=f"ntf_{secrets.token_hex(16)}",
        rule=name,
        state=WAITING,
        made_ms=now_ms,
        due_ms=due,
        next_ms=due,
        since_ms=0,
        tries=0,
        held=0,
        many=len(found),
        poses=json.dumps(list(found[:POSES_MAX])),
        said="",
        done_ms=0,
    )
    marks = ",".join("?" * len(made.__struct_fields__))
    tx.sql(f"INSERT INTO notice({_COLUMNS}) VALUES({marks})", msgspec.structs.astuple(made))


# -- sending ------------------------------------------------------------------------------------------------------


def free(corpus: SqlCorpus, now_ms: int) -> None:
    """Lets go of what a process held that was killed; only where no other can be at it."""
    if corpus.one("SELECT 1 FROM notice WHERE held=1 LIMIT 1") is not None:
        _run(corpus, "UPDATE notice SET held=0, next_ms=? WHERE held=1", (now_ms,))


def hold(
    corpus: SqlCorpus, rules: Mapping[str, Rule], now_ms: int, *, busy: Collection[str] = (), most: int = 4
) -> list[Notice]:
    """What is to be sent now, held for whoever asked; of each rule one, so that they come in order.

    Args:
        corpus: of the hub.
        rules: every rule by name; of one that is not at work nothing is sent.
        now_ms: now.
        busy: rules of which something is being sent.
        most: how many.
    """
    if not corpus.query(_DUE, (now_ms,)):
        return []

    def job(tx: SqlTransaction) -> list[Notice]:
        taken: list[Notice] = []
        # Rule by rule: what one of them has in plenty holds up no other.
        for (name,) in tx.sql(_DUE, (now_ms,)).fetchall():
            rule = rules.get(name)
            if rule is None or not rule.on:
                tx.sql(_LATER, (now_ms + HELD_MS, name, now_ms))  # somebody may have changed it by then
                continue
            speaks = rule.speaks_from(now_ms)
            if speaks > now_ms:  # it was to be sent before, and could not
                tx.sql(_LATER, (speaks, name, now_ms))
                continue
            if name in busy or len(taken) >= most:
                continue
            notice = Notice(*tx.sql(_FIRST, (name, now_ms)).fetchone())
            since, tries = notice.since_ms or now_ms, notice.tries + 1
            sql = "UPDATE notice SET held=1, tries=?, since_ms=?, next_ms=? WHERE id=?"
            tx.sql(sql, (tries, since, now_ms + HELD_MS, notice.id))
            taken.append(msgspec.structs.replace(notice, tries=tries, since_ms=since, held=1))
        return taken

    found: list[Notice] = corpus.write(job)
    return found


def sent(corpus: SqlCorpus, notice: Notice, now_ms: int) -> None:
    """Its receiver has taken it."""
    # By the number of the try: whoever took too long no longer speaks for it.
    sql = "UPDATE notice SET state=1, held=0, said='', done_ms=? WHERE id=? AND tries=? AND state=0"

    def job(tx: SqlTransaction) -> None:
        tx.sql(sql, (now_ms, notice.id, notice.tries))
        _tidy(tx, now_ms)

    corpus.write(job)


def failed(
    corpus: SqlCorpus, notice: Notice, said: str, now_ms: int, *, for_good: bool = False, wait_s: float = 0
) -> bool:
    """It was not taken; whether that was the last try.

    Args:
        corpus: of the hub.
        notice: which.
        said: why.
        now_ms: now.
        for_good: whether it would never be, as it is.
        wait_s: seconds that its receiver wants to have rest.
    """
    dead = for_good or now_ms - notice.since_ms >= PATIENCE_MS
    again = now_ms + max(pause_ms(notice.tries, random.random()), round(min(wait_s * 1000, PATIENCE_MS)))
    values = (DEAD if dead else WAITING, again, said[:SAID_MAX], now_ms if dead else 0, notice.id, notice.tries)
    sql = "UPDATE notice SET state=?, held=0, next_ms=?, said=?, done_ms=? WHERE id=? AND tries=? AND state=0"
    _run(corpus, sql, values)
    return dead


def _run(corpus: SqlCorpus, sql: str, values: tuple[Any, ...]) -> None:
    def job(tx: SqlTransaction) -> None:
        tx.sql(sql, values)

    corpus.write(job)


def pause_ms(tries: int, chance: float) -> int:
    """The rest before the next try: from 2.5 to 5 s at first, doubled each time, at most an hour.

    Args:
        tries: so far.
        chance: from 0 to 1, so that not all come back at once.
    """
    most = min(PAUSE_MAX_MS, FIRST_PAUSE_MS << min(tries - 1, 20))
    return round(most * (0.5 + chance / 2))


def _tidy(tx: SqlTransaction, now_ms: int) -> None:
    """Forgets what was sent long ago; the last hour stays, as rates are counted by it."""
    for state, most in ((SENT, SENT_MAX), (DEAD, DEAD_MAX)):
        sql = "SELECT made_ms FROM notice WHERE state=? ORDER BY made_ms DESC LIMIT 1 OFFSET ?"
        row = tx.sql(sql, (state, most)).fetchone()
        before = max(now_ms - KEEP_MS, row[0] if row else 0)
        before = min(before, now_ms - HOUR_MS)
        tx.sql("DELETE FROM notice WHERE state=? AND made_ms<=?", (state, before))


def next_ms(corpus: SqlCorpus) -> int | None:
    """When something is to be sent next; None if nothing waits."""
    found: int | None = corpus.one("SELECT min(next_ms) FROM notice WHERE state=0")[0]
    return found


# -- looking ------------------------------------------------------------------------------------------------------


def tallies(corpus: SqlCorpus) -> dict[str, Tally]:
    """How each rule stands."""
    found: dict[str, Tally] = {}
    sql = "SELECT rule, state, count(*), max(tries), max(done_ms) FROM notice GROUP BY rule, state"
    for rule, state, many, tries, done_ms in corpus.query(sql):
        tally = found.setdefault(rule, Tally())
        if state == WAITING:
            tally.waiting, tally.tries = int(many), int(tries)
        elif state == SENT:
            tally.sent, tally.last_sent_ms = int(many), int(done_ms)
        else:
            tally.dead = int(many)
    for rule, said in corpus.query(
        "SELECT rule, said FROM notice WHERE state=0 AND said<>'' ORDER BY made_ms LIMIT 100"
    ):
        if rule in found:
            found[rule].trouble = said
    return found


def letters(corpus: SqlCorpus, state: int, limit: int, after: str = "") -> list[Notice]:
    """Notifications of a state, the newest first, behind the one with the id `after`."""
    behind, args = "", [state]
    if after:
        behind = " AND (made_ms, id) < ((SELECT made_ms FROM notice WHERE id=?), ?)"
        args += [after, after]  # type: ignore[list-item]
    sql = f"SELECT {_COLUMNS} FROM notice WHERE state=?{behind} ORDER BY made_ms DESC, id DESC LIMIT ?"
    return [Notice(*row) for row in corpus.query(sql, (*args, limit))]


def again(corpus: SqlCorpus, ids: Sequence[str], now_ms: int) -> int:
    """Has what was given up tried again, under the same ids; how many these were. No ids: all."""
    where, args = _dead(ids)
    sql = f"UPDATE notice SET state=0, held=0, tries=1, since_ms=?, next_ms=?, done_ms=0 WHERE {where} RETURNING 1"
    found: int = corpus.write(lambda tx: len(tx.sql(sql, (now_ms, now_ms, *args)).fetchall()))
    return found


def forget(corpus: SqlCorpus, ids: Sequence[str]) -> int:
    """Forgets what was given up; how many these were. No ids: all."""
    where, args = _dead(ids)
    found: int = corpus.write(lambda tx: len(tx.sql(f"DELETE FROM notice WHERE {where} RETURNING 1", args).fetchall()))
    return found


def _dead(ids: Sequence[str]) -> tuple[str, tuple[Any, ...]]:
    return (f"state=2 AND id IN ({','.join('?' * len(ids))})", tuple(ids)) if ids else ("state=2", ())


def drop_rule(tx: SqlTransaction, name: str) -> None:
    """Forgets what a rule still had to tell, and what it had given up: there is no rule to send it by."""
    tx.sql("DELETE FROM notice WHERE rule=? AND state<>1", (name,))
