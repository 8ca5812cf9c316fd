"""Tells the audit trail what people do through this hub, and what its log says was taken away or handed over.

A change that a person makes is written down before he is told that it was made: whoever got a good answer is in the
trail. What agents, nodes and services write is not told here, it stands in the log with their names; but what is
deleted, erased or handed over there is, from the log, a moment later.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.clock import Clock, iso, millis
from holdfast.corpus import SqlCorpus, Stored
from holdfast.corpus.rows import COLUMNS
from holdfast.errors import HoldfastError
from holdfast.hub import acts
from holdfast.hub.acts import Act, Actor, ActStore
from holdfast.hub.principal import ADMIN, ANYBODY, INBOX, WRITE, Principal, principal_of
from holdfast.records import DELETE, DELETE_PREFIX, REDACT, ROTATE

if TYPE_CHECKING:
    from holdfast.hub.exchange import Scope, Send

logger = logging.getLogger(__name__)

MARK: Final = "audit"
"""In `meta`: up to this position the trail has been told what the log says."""
LOT: Final = 2_000
SAVE_EVERY: Final = 20_000
"""Records without a word for the trail before the mark is written all the same: a commit that nobody waits for."""
SHORTEN_EVERY_MS: Final = 86_400_000
RECOVERY: Final = "recovery"
_RESTORED: Final = "restore"
KINDS: Final = {
    DELETE: acts.DELETE,
    DELETE_PREFIX: acts.DELETE,
    REDACT: acts.ERASE,
    ROTATE: acts.ROTATE,
    RECOVERY: acts.RECOVER,
    _RESTORED: acts.ROLLBACK,
}
"""Which records are told, and as what."""
_WORDS: Final = ",".join("?" * len(KINDS))
_SQL: Final = (
    f"SELECT {COLUMNS} FROM rec r WHERE r.pos>? AND r.pos<=?"
    f" AND r.kind IN (SELECT id FROM name WHERE s IN ({_WORDS})) ORDER BY r.pos"
)
_TOLD: Final = "holdfast.audit"
SHOWN: Final = (
    *("what", "agent", "collection", "key", "version", "id", "ids", "name", "node", "message", "thread", "session"),
    *("backup", "incident", "strategy", "action", "reader", "kind"),
)
"""Fields of a form that say what was acted on; what somebody wrote or chose as a secret is not among them."""


class Audit:
    """Takes down what is done through one hub; the loop's own.

    Args:
        store: where the trail is.
        wall: the clock.
        read: runs a function in a thread.
    """

    def __init__(self, store: ActStore, wall: Clock, read: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self.store = store
        self._wall, self._read = wall, read
        self._waiting: list[tuple[Act, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._kept_s, self._shorten_ms = 0.0, 0
        self.trouble = ""
        """Why the newest act could not be written down."""
        self.unread = ""
        """Why what the log says could not be told; it is tried again."""

    async def note(self, act: Act) -> None:
        """Writes an act down; those of the same moment go together. What was done is done: this never raises."""
        future = asyncio.get_running_loop().create_future()
        told = act if act.at_ms else msgspec.structs.replace(act, at_ms=self._wall.now_ms())
        self._waiting.append((told, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        await future

    async def _write(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            try:
                found = [act for act, _ in taken]
                await self._read(functools.partial(self.store.add, found))
                self.trouble = ""
            except (HoldfastError, OSError, RuntimeError) as error:  # RuntimeError: the hub is closing
                self.trouble = str(error)
                logger.error("%d acts are not in the audit trail: %s", len(taken), error)
            for _, future in taken:
                if not future.done():
                    future.set_result(None)

    def behind(self, scope: Scope, method: str, send: Send, *, page: bool) -> Send:
        """What sends an answer, and before a good one writes down what was done.

        Args:
            scope: of the request.
            method: of the operation.
            send: sends the answer.
            page: whether a form of a page asked for it.
        """
        principal = principal_of(scope)

        async def told(message: MutableMapping[str, Any]) -> None:
            begins = message["type"] == "http.response.start" and message["status"] < 400
            if begins and scope.get(_TOLD, ()) is not None:
                await self.note(_act_of(scope, method, principal, acts.PAGE if page else acts.API))
            await send(message)

        return told

    async def shorten(self, keep_s: float) -> None:
        """Lets go of what was done longer ago than is to be kept, once a day, and says so in the trail; never raises.

        Args:
            keep_s: for so many seconds; 0: for ever.
        """
        now = self._wall.now_ms()
        if not keep_s or (keep_s == self._kept_s and now < self._shorten_ms):
            return
        self._kept_s, self._shorten_ms = keep_s, now + SHORTEN_EVERY_MS
        before, gone = now - round(keep_s * 1000), 0
        try:
            while count := await self._read(lambda: self.store.cut(before)):
                gone += count
        except (HoldfastError, OSError, RuntimeError) as error:
            logger.warning("the audit trail could not be shortened; it is tried again", exc_info=error)
            self._shorten_ms = now
        if gone:
            by = Actor(kind="hub", who="the hub", via=acts.HUB)
            about = f"{gone:,} acts from before {iso(before)}"
            await self.note(Act(by=by, what=acts.SHORTENED, about=about, detail={"setting": "audit.keep_days"}))

    def problems(self) -> list[str]:
        """What is not as it should be."""
        trouble = self.trouble or self.unread
        return [f"the audit trail is not complete: {trouble}"] if trouble else []


def is_told(method: str, needs: str, *, page: bool) -> bool:
    """Whether an operation changes something that a person may be asked about: pages that act, and the API's writes."""
    return method not in ("GET", "HEAD") and (needs in (WRITE, INBOX, ADMIN) or (page and bool(needs)))


def is_persons(principal: Principal, *, page: bool) -> bool:
    """Whether somebody acts for himself: a person, or on a hub without tokens anybody who uses its pages."""
    return principal.kind == "person" or (page and principal is ANYBODY)


def about(scope: Scope, fields: Mapping[str, str]) -> None:
    """Says of a request what it acts on: those of a form's fields that may be told."""
    scope[_TOLD] = {"detail": {name: fields[name] for name in SHOWN if fields.get(name)}}


def untold(scope: Scope) -> None:
    """Says of a request that the trail need not tell of it: what it does is no more than a word in the log."""
    scope[_TOLD] = None


def done(scope: Scope, *, what: str, about: str, ref: bytes | None = None) -> None:
    """Says of a request what it did, where its form says less.

    Args:
        scope: of the request.
        what: one of `acts.WHATS`.
        about: to what.
        ref: the link of the record that says the same.
    """
    detail = {name: text for name, text in scope.get(_TOLD, {}).get("detail", {}).items() if name != "what"}
    scope[_TOLD] = {"detail": detail, "what": what, "about": about, "ref": ref}


def _act_of(scope: Scope, method: str, principal: Principal, via: str) -> Act:
    told = scope.get(_TOLD, {})
    what = told.get("what") or (acts.DELETE if method == "DELETE" else acts.CHANGE)
    where = told.get("about") or f"{method} {scope['path']}"
    return Act(
        by=acts.by_principal(principal, via),
        what=what,
        about=where,
        detail=told.get("detail", {}),
        ref=told.get("ref"),
    )


class Follower:
    """Tells the trail what the log says; of whoever follows the commits.

    Args:
        corpus: the hub's records.
        store: the trail.
    """

    def __init__(self, corpus: SqlCorpus, store: ActStore) -> None:
        self._corpus, self._store = corpus, store
        self._saved = self._upto = int(corpus.meta(MARK) or 0)

    def follow(self) -> bool:
        """Takes up the next records; whether there are more. Again is harmless: a record is told once."""
        last = self._corpus.last()
        if self._upto >= last:
            return False
        until = min(last, self._upto + LOT)
        rows = self._corpus.query(_SQL, (self._upto, until, *KINDS))
        found = [self._corpus.bare(row) for row in rows]  # a body that is elsewhere is not asked for
        self._store.add([_told(each) for each in found])
        self._upto = until
        if found or until - self._saved >= SAVE_EVERY:
            self._corpus.write(lambda tx: tx.set_meta(MARK, until))
            self._saved = until
        return until < last


def _told(stored: Stored) -> Act:
    """What a record says was done; its payload, which may be erased later, is not looked at."""
    record = stored.record
    if record.kind in (DELETE, DELETE_PREFIX):
        where = f"{record.collection}/{record.key}{'…' if record.kind == DELETE_PREFIX else ''} of {stored.agent}"
    elif record.collection:
        where = f"{record.collection}/{record.key} of {stored.agent}"
    else:
        where = f"records of {stored.agent}" if record.kind == REDACT else stored.agent
    by = Actor(kind="author" if record.author else "agent", who=record.author or stored.agent, via=acts.LOG)
    detail = {"agent": stored.agent, "seq": str(record.seq), "collection": record.collection, "key": record.key}
    return Act(
        by=by,
        what=KINDS[record.kind],
        about=where,
        detail={name: text for name, text in detail.items() if text},
        at_ms=millis(record.hlc),
        ref=record.link,
    )
