"""What redact records erase on a hub: what is here when they come, and what comes after them.

A redact record names records of its own stream only, and its stream's signed head authorised it: nobody erases what is
another's. What is known of them is read from the corpus when the hub starts, and is nothing but a copy of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import msgspec

from holdfast import codec, wire
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import HoldfastError
from holdfast.hub.home import Home
from holdfast.hub.judge import HubIngest
from holdfast.log.erasure import (
    PENDING,
    REAPPLIED,
    REDACTS,
    Erasure,
    Gone,
    blank,
    erasure_in,
    erasure_of,
    erasures,
    is_redact,
    kept_erasures,
    note_pending,
    scour,
)
from holdfast.protocol.ports import Row
from holdfast.records import REDACT, Record
from holdfast.wire import Item

logger = logging.getLogger(__name__)

_BARE = Item(b"", b"", 0, None, wire.REDACTED)


class Erasing:
    """The erasures of one hub. `screen` is the committing thread's, `tend` that of whoever follows the commits.

    Args:
        home: the hub's directory or database.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._known: dict[bytes, list[Erasure]] = {}
        self._upto = 0
        self._stale = not home.corpus.inline  # what others erase while these are read is looked for once more
        self._tending = threading.Lock()  # whoever asked for an erasure tends to it as well
        self._noted = False  # by the transaction that is open; the committing thread's own
        self._wanted = threading.Event()
        self._wanted.set()  # a crash may have left something
        if not home.corpus.inline:  # other processes of this hub write too: all behind this is looked at again
            self._upto = home.corpus.last()
        for each in [*erasures(home.corpus), *kept_erasures(home.corpus.meta(REAPPLIED))]:
            self._learn(each)
        engine = home.corpus.engine
        if not home.corpus.inline:  # other processes of this hub write too
            changed = engine.on_change

            def on_change() -> None:
                changed()
                self._stale = True

            engine.on_change = on_change

    def screen(self, tx: SqlTransaction, ingest: HubIngest) -> list[Erasure]:
        """Takes the bodies of erased records out of a plan, before it is written; the erasures that come with it.

        They are the caller's to carry out (`carry_out`) behind the plan, in the same transaction.
        """
        if self._stale:
            self._look(tx)
        rows = ingest.plan.rows
        fresh = [found for row in rows if row.record.kind == REDACT and (found := _erasure(row)) is not None]
        for each in fresh:
            self._learn(each)
        if not self._known:
            return fresh
        late = Gone()
        for number, row in enumerate(rows):
            if row.item.body is not None and self._names(row.record):
                late.records += 1
                late.note_blob(row.record.flags, row.item.codec, row.item.body)
                bare = msgspec.structs.replace(_BARE, header=row.item.header)
                rows[number] = msgspec.structs.replace(row, item=bare)
                for kept in (ingest.tags, ingest.payloads, ingest.told):
                    kept.pop(row.record.link, None)
        if late.records:
            note_pending(tx, late)
            self._noted = True
        return fresh

    def carry_out(self, tx: SqlTransaction, fresh: Sequence[Erasure]) -> None:
        """Takes away what these erasures name, also on other branches; `tend` removes the rest."""
        if fresh and blank(tx, fresh).records:
            self._noted = True

    def own(self, tx: SqlTransaction, erasure: Erasure) -> Gone:
        """Takes away what an erasure of the hub's own names, in the transaction that says so; `tend` does the rest."""
        if self._stale:
            self._look(tx)
        gone = blank(tx, [erasure])
        if gone.records:
            self._learn(erasure)
            self._noted = True
        return gone

    def committed(self) -> None:
        """What was noted in a transaction is there from now on: to be called by the committing thread behind it."""
        if self._noted:
            self._noted = False
            self._wanted.set()

    def tend(self) -> None:
        """Removes blobs, words and old pages of what was erased; whoever still reads puts it off to the next call."""
        with self._tending:
            if not self._wanted.is_set():
                return
            self._wanted.clear()
            try:
                done = not self._home.corpus.meta(PENDING) or scour(self._home.corpus, self._home.blobs)
            except HoldfastError:
                self._wanted.set()
                raise
            if not done:
                self._wanted.set()

    def _names(self, record: Record) -> bool:
        return any(each.names(record) for each in self._known.get(record.stream, ()))

    def _learn(self, erasure: Erasure) -> None:
        known = self._known.setdefault(erasure.stream, [])
        if erasure not in known:
            known.append(erasure)

    def _look(self, tx: SqlTransaction) -> None:
        self._stale = False
        for row in tx.sql(REDACTS, (REDACT, self._upto)).fetchall():
            stored = self._home.corpus.stored(row)
            self._upto = stored.pos
            if (found := erasure_in(stored)) is not None:
                self._learn(found)


def _erasure(row: Row) -> Erasure | None:
    """What a row erases; None if it is no redact record, or one that says nothing we know."""
    record, item = row.record, row.item
    if not is_redact(record) or item.body is None:
        return None
    try:
        return erasure_of(record, codec.unpack(item.codec, item.body, record.payload_len))
    except HoldfastError as error:
        logger.warning("a redact record erases nothing: %s", error)
        return None
