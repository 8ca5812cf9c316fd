"""Erasing what lies in the hub's own streams: what plain clients wrote is in no node's log, so no node can erase it.

A subject is whom a session names as its user: all of such sessions goes, messages, states, artifacts with their bytes,
and the figures that name them. A session goes first by a deletion that all see, so that nobody adds to it meanwhile;
then each lot of records is named by a redact record of its own stream, as the bodies are taken away. What is
left of them (blobs, words, pages of the WAL) the hub removes behind the commit, as of every erasure (`erasing`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from holdfast.collections.sessions import SESSION, key_of
from holdfast.corpus import Stored
from holdfast.corpus.rows import within
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import NotFound, UsageError
from holdfast.hub.core import Core
from holdfast.hub.own import Desk
from holdfast.hub.sessions import FORKS, note_fork, unfinished
from holdfast.log import drafts
from holdfast.log.erasure import NAMED_MAX, PENDING, Erasure, Gone, drafts_of
from holdfast.log.marks import SESSIONS
from holdfast.records import REDACT, stream_id

ROUNDS_MAX: Final = 5
"""So often it is looked whether more was written meanwhile; a client that goes on and on is not waited for."""
_MARKS: Final = (
    "SELECT r.seq, r.link, s.stream, r.key FROM rec r JOIN branch b ON b.id=r.branch JOIN stream s ON s.id=b.stream"
    " WHERE r.why<>3 AND r.agent=(SELECT id FROM name WHERE s=?)"
)
_COLLECTION: Final = " AND r.coll=(SELECT id FROM name WHERE s=?)"
_SESSIONS_OF: Final = "SELECT DISTINCT id, agent FROM session WHERE {}=? ORDER BY id, agent"
_SAMPLES_OF: Final = (
    "SELECT r.seq, r.link, s.stream, r.key, n.s FROM sample m JOIN rec r ON r.pos=m.pos JOIN branch b ON b.id=r.branch"
    " JOIN stream s ON s.id=b.stream JOIN name n ON n.id=r.agent WHERE m.session=? AND r.why<>3"
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be erased: a subject's sessions, one session, or what an agent wrote here.

    Attributes:
        subject: the user of sessions.
        session: the id of one.
        agent: whose records; of these only those in `collection`, and there only those of `key`, where these are said.
    """

    subject: str = ""
    session: str = ""
    agent: str = ""
    collection: str = ""
    key: str | None = None

    def check(self) -> None:
        """Returns only if exactly one thing is named.

        Raises:
            UsageError: nothing, or several.
        """
        if sum(map(bool, (self.subject, self.session, self.agent))) != 1:
            raise UsageError("erase wants subject, session or agent", hint="one of them, and not two")
        if (self.collection and not self.agent) or (self.key is not None and not self.collection):
            raise UsageError("a collection is an agent's, and a key a collection's", hint="name these, too")


class Report(msgspec.Struct, kw_only=True):
    """What an erasure did here.

    Attributes:
        records: bodies taken away.
        blobs: of them so many referred to bytes of their own, that nobody else refers to.
        agents: whose streams say so now.
        clean: whether nothing is left to remove behind it; else that goes on in the background.
        left: what may still hold some of it, and is for a person to look after, in words.
    """

    records: int = 0
    blobs: int = 0
    agents: list[str] = []
    clean: bool = True
    left: list[str] = []


class _Found(msgspec.Struct):
    """The marks of records in the hub's own streams, by agent; and how many lie in others'.

    `roots` are those by which the rest is found: they go last, else who asks again after a crash would find nothing.
    """

    own: dict[str, list[bytes]] = {}
    roots: dict[str, list[bytes]] = {}
    others: int = 0

    def parts(self) -> list[dict[str, list[bytes]]]:
        """The marks in the order in which they go; those of one agent together, as then few records say so."""
        agents = self.own.keys() | self.roots.keys()
        if len(agents) > 1:
            return [self.own, self.roots]
        return [{agent: [*self.own.get(agent, ()), *self.roots.get(agent, ())] for agent in agents}]


class OwnErasing:
    """What the hub erases in its own streams; the loop's own.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def erase(self, wanted: Wanted, reason: str = "") -> Report:
        """Erases it, in as many transactions as it takes; asked again, it goes on where it was cut off.

        Args:
            wanted: what.
            reason: kept with the redact records, for everybody to read: it must not say whom it is about.

        Raises:
            NotFound: there is nothing of it here.
            UsageError: not one thing is named, or the reason names it.
        """
        wanted.check()
        if reason and any(name in reason for name in (wanted.subject, wanted.session) if name):
            raise UsageError("the reason names the subject, and stays readable for ever", hint="say why, and not who")
        sessions = await self._core.read(lambda: self._sessions(wanted))
        begun: list[tuple[str, str]] = []
        if not wanted.agent:
            for session, agent in sessions:
                await self._close(session, agent)
            begun = await self._core.read(lambda: self._begun(sessions))
            sessions += begun
        report, gone, found = Report(), Gone(), _Found()
        for _ in range(ROUNDS_MAX):
            found = await self._core.read(lambda: self._look(wanted, sessions))
            if not found.own and not found.roots:
                break
            for part in found.parts():
                for agent, marks in sorted(part.items()):
                    gone.add(await self._take(agent, marks, reason))
                    report.agents = sorted({*report.agents, agent})
        else:
            report.left.append("what is still being written about it: stop that, and erase again")
        if not gone.records and not found.others and not sessions:
            raise NotFound("there is nothing of it in this hub's own streams", hint="was it erased already?")
        if begun:
            await self._core.read(lambda: self._core.corpus.write(lambda tx: _forget(tx, begun)))
        if found.others:
            report.left.append(f"{found.others} records that nodes have shipped: erase them there")
        await self._core.files(self._core.writer.erasing.tend)
        home = self._core.home
        report.records, report.clean = gone.records, not await self._core.read(lambda: home.corpus.meta(PENDING))
        report.blobs = await self._core.files(lambda: sum(not home.blobs.has(digest) for digest in gone.blobs))
        return report

    # -- finding ------------------------------------------------------------------------------------------------

    def _sessions(self, wanted: Wanted) -> list[tuple[str, str]]:
        """The sessions, each with its agent: by any version of what they say of themselves."""
        if wanted.agent:
            return []
        column, value = ("user_id", wanted.subject) if wanted.subject else ("id", wanted.session)
        return [(row[0], row[1]) for row in self._core.corpus.query(_SESSIONS_OF.format(column), (value,))]

    def _begun(self, sessions: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Copies of these sessions that broke off: nobody sees them, and nothing says whose they are."""
        known = unfinished(self._core.corpus.meta(FORKS))
        return [(into, agent) for into, (of, agent) in known.items() if (of, agent) in sessions]

    def _look(self, wanted: Wanted, sessions: Sequence[tuple[str, str]]) -> _Found:
        """What of it is not erased yet: a body that an archive holds counts as here."""
        corpus, found = self._core.corpus, _Found()
        rows: list[tuple[Any, ...]] = []
        for session, agent in sessions:
            span, ends = within("r.key", f"{session}/")
            asked = f"{_MARKS}{_COLLECTION} AND {span}"
            rows += [(*row, agent) for row in corpus.query(asked, (agent, SESSIONS, *ends))]
            rows += corpus.query(_SAMPLES_OF, (session,))
        if wanted.agent:
            sql, args = f"{_MARKS} AND r.kind<>coalesce((SELECT id FROM name WHERE s=?), 0)", [wanted.agent, REDACT]
            if wanted.collection:
                sql, args = sql + _COLLECTION, [*args, wanted.collection]
            if wanted.key is not None:
                sql, args = f"{sql} AND r.key=?", [*args, wanted.key]
            rows += [(*row, wanted.agent) for row in corpus.query(sql, args)]
        key = self._core.home.signer.public_key
        roots = {key_of(session, SESSION) for session, _ in sessions}
        for seq, link, stream, of, agent in rows:
            if bytes(stream) == stream_id(key, agent):
                part = found.roots if of in roots else found.own
                part.setdefault(agent, []).append(seq.to_bytes(8, "big") + bytes(link))
            else:
                found.others += 1
        return found

    # -- doing --------------------------------------------------------------------------------------------------

    async def _close(self, session: str, agent: str) -> None:
        """Deletes a session, so that nothing is added to it any more."""
        own = self._core.own
        draft = drafts.remove(SESSIONS, f"{session}/", prefix=True)
        ready = own.ready(await own.log_of(agent), draft)

        def work(desk: Desk) -> None:
            if desk.newest(SESSIONS, f"{session}/session") is not None:
                desk.append(ready)

        await own.write(agent, work, size=1 << 10)

    async def _take(self, agent: str, marks: Sequence[bytes], reason: str) -> Gone:
        core, gone = self._core, Gone()
        log = await core.own.log_of(agent)
        stream = log.branch.stream
        for first in range(0, len(marks), NAMED_MAX):
            lot = list(dict.fromkeys(marks[first : first + NAMED_MAX]))
            (draft,) = drafts_of((), lot, reason)
            erasure = Erasure(stream, frozenset(), frozenset(lot), reason)
            ready = await core.read(functools.partial(core.own.ready, log, draft))
            gone.add(
                await core.own.write(agent, functools.partial(self._carry_out, erasure, ready), size=len(draft.payload))
            )
        return gone

    def _carry_out(self, erasure: Erasure, ready: Callable[[Any], list[Stored]], desk: Desk) -> Gone:
        gone = self._core.writer.erasing.own(desk.tx, erasure)
        if gone.records:
            desk.append(ready)
        return gone


def _forget(tx: SqlTransaction, begun: Sequence[tuple[str, str]]) -> None:
    """Nothing is left of copies that had broken off."""
    for into, _ in begun:
        note_fork(tx, into)
