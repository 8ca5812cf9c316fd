"""Sessions in the hub's corpus: whose they are, the writes of each part, and the work that takes many transactions.

A session is written into the hub's own stream of its agent (`holdfast.collections.sessions`). Every write looks, in
its own transaction, whether the session is still there; long work (restore, fork) goes in lots, and what makes it
visible, the session's own record, comes last.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.collections import sessions as parts
from holdfast.collections.sessions import ARTIFACT, CONTENT, MESSAGE, SESSION, STATE, Session, key_of
from holdfast.corpus import Filter, Stored, storage
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import Conflict, Erased, HoldfastError, IntegrityError, NotFound, UsageError
from holdfast.hub.core import Core
from holdfast.hub.own import QUICK_BYTES, Desk
from holdfast.hub.principal import Principal
from holdfast.log import Draft
from holdfast.log.marks import SESSIONS
from holdfast.records import DELETE_PREFIX
from holdfast.wire import REDACTED

KNOWN_MAX: Final = 10_000
LOT: Final = 200
LOT_BYTES: Final = 4 << 20
PAGE: Final = 200
STEPS_MAX: Final = 20_000
"""Messages that one page looks at when it wants only some of them."""
FORKS: Final = "forks"
"""In `meta`: copies of sessions that are not whole, so that what broke off is erased with the session that it is of."""


def unknown(session: str) -> NotFound:
    """The error of a session that is not there."""
    return NotFound(f"there is no session {session!r:.140}", hint="was it deleted? see ?deleted=true, and restore")


class Sessions:
    """What is done with sessions; the loop's own.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._agents: OrderedDict[str, str] = OrderedDict()

    def now(self) -> str:
        """The time, as it is kept."""
        return clock.iso(self.core.home.wall.now_ms())

    # -- whose ----------------------------------------------------------------------------------------------------

    async def agent_of(self, session: str) -> str:
        """Whose session it is, or was.

        Raises:
            NotFound: there never was such a session.
        """
        agent = self._agents.get(session)
        if agent is None:
            first = None
            if parts.is_session_id(session):
                first = await self.core.read(lambda: storage.by_ref(self.core.corpus, session))
            if first is None or first.record.key != key_of(session, SESSION):
                raise unknown(session)
            agent = self._agents[session] = first.agent
            if len(self._agents) > KNOWN_MAX:
                self._agents.popitem(last=False)
        else:
            self._agents.move_to_end(session)
        return agent

    async def readable(self, principal: Principal, session: str) -> str:
        """The same for somebody who wants to read it."""
        principal.check_read(SESSIONS)
        return await self.agent_of(session)

    async def writable(self, principal: Principal, session: str) -> str:
        """The same for somebody who wants to write in it: the one place that says whether he may.

        Raises:
            Denied: he may write no sessions, or not as this one's agent.
            NotFound: there never was such a session, as far as he may know.
        """
        principal.check_write(None, SESSIONS)  # first, so that it is told of what is there and of what is not
        agent = await self.agent_of(session)
        principal.check_change(agent, SESSIONS, unknown(session))
        return agent

    def root(self, agent: str, session: str) -> Stored:
        """A session's own record, read from the corpus.

        Raises:
            NotFound: it was deleted.
        """
        found = self.core.corpus.newest(agent, SESSIONS, key_of(session, SESSION))
        if found is None:
            raise unknown(session)
        return found

    def shown(self, stored: Stored, tombstone: Stored | None = None) -> Session:
        """A session as everybody sees it.

        Raises:
            NotFound: the record is no session.
        """
        try:
            found = parts.session_in(stored, tombstone, self.core.home.blobs)
        except IntegrityError as error:
            raise NotFound(
                f"the session's record has lost its body: {error.message}", hint="see its history"
            ) from error
        if found is None:
            raise unknown(parts.session_of(stored.record.key))
        return found

    async def artifact(self, principal: Principal, artifact: str, *, write: bool = False) -> tuple[str, str]:
        """The (agent, session) of an artifact, for somebody who wants to read it or to write it.

        Raises:
            Denied: he may not.
            NotFound: there never was such an artifact, as far as he may know.
        """
        if write:
            principal.check_write(None, SESSIONS)
        else:
            principal.check_read(SESSIONS)
        first = await self.core.read(lambda: storage.by_ref(self.core.corpus, artifact))
        if first is None or first.record.kind != ARTIFACT:
            raise no_artifact(artifact)
        session = parts.session_of(first.record.key)
        if first.agent != await self.agent_of(session):
            raise no_artifact(artifact)
        if write:
            principal.check_change(first.agent, SESSIONS, no_artifact(artifact))
        return first.agent, session

    # -- writing --------------------------------------------------------------------------------------------------

    async def write(self, principal: Principal, session: str, work: Callable[[Desk], Any], size: int = 0) -> Any:
        """The result of a job in the session's log, which finds the session there.

        Raises:
            Denied: whoever asks may not write as the session's agent.
            NotFound: there is no such session now.
        """
        agent = await self.writable(principal, session)

        def job(desk: Desk) -> Any:
            live(desk, session)
            return work(desk)

        return await self.core.own.write(agent, job, size=size, quick=size <= QUICK_BYTES)

    async def ready(self, agent: str, draft: Draft) -> Callable[[Any], list[Stored]]:
        """A draft made ready for `Desk.append`; a large one in a thread."""
        log = await self.core.own.log_of(agent)
        if len(draft.payload) <= QUICK_BYTES:
            return self.core.own.ready(log, draft)
        return await self.core.read(lambda: self.core.own.ready(log, draft))

    def change(self, desk: Desk, draft: Draft) -> Stored:
        """Writes a small draft that was made inside the job."""
        return desk.append(self.core.own.ready(desk.log, draft))

    # -- reading many ---------------------------------------------------------------------------------------------

    def messages(
        self,
        agent: str,
        session: str,
        *,
        after: int | None = None,
        newest_first: bool = False,
        until: int | None = None,
    ) -> Iterator[Stored]:
        """The records of a session's messages in the order of their commits, a page at a time.

        Args:
            agent: whose session it is.
            session: its id.
            after: a position; those behind it, in the order that is asked for.
            newest_first: which order.
            until: no message behind this position.
        """
        while True:
            which = Filter(
                agents=(agent,),
                collection=SESSIONS,
                kinds=(MESSAGE,),
                thread=session,
                current=True,
                after=after,
                newest_first=newest_first,
                limit=PAGE,
            )
            found = self.core.corpus.page(which)
            for each in found:
                if until is not None and each.pos > until:
                    return
                yield each
            if len(found) < PAGE:
                return
            after = found[-1].pos

    def artifacts(self, agent: str, session: str, after: str = "") -> Iterator[tuple[Stored, Stored | None]]:
        """The records of a session's artifacts by their ids, each with that of its bytes, behind an id."""
        prefix = f"{session}/artifact/"
        behind = key_of(session, CONTENT, after) if after else ""
        about: Stored | None = None
        while True:
            found = self.core.corpus.keys(agent, SESSIONS, prefix, behind, PAGE)
            for each in found:
                if each.record.kind == ARTIFACT:
                    if about is not None:
                        yield about, None
                    about = each
                elif about is not None and parts.id_of(each.record.key) == parts.id_of(about.record.key):
                    yield about, each
                    about = None
            if len(found) < PAGE:
                break
            behind = found[-1].record.key
        if about is not None:
            yield about, None

    # -- many transactions ----------------------------------------------------------------------------------------

    async def restore(self, principal: Principal, session: str, part: str) -> tuple[Stored, int, int]:
        """Brings back what one deletion hid: the session, how many records came back, and how many could not.

        Raises:
            Conflict: the session was not deleted by one record of its own.
            NotFound: there never was such a session, or (for its messages) it is deleted.
        """
        core, agent = self.core, await self.writable(principal, session)
        root = key_of(session, SESSION)

        def look() -> tuple[Stored | None, list[int]]:
            found = storage.any_newest(core.corpus, agent, SESSIONS, root)
            tombstone = found[1] if found else None
            prefix = f"{session}/"
            if part == "history":
                self.root(agent, session)
                prefix = f"{session}/msg/"
                tombstone = storage.cleared(core.corpus, agent, SESSIONS, prefix)
            if tombstone is None:
                return None, []
            if tombstone.record.kind != DELETE_PREFIX or tombstone.record.key != prefix:
                raise Conflict(f"{session} was not deleted as a whole", hint="see /v1/history of its keys")
            return tombstone, storage.hidden(core.corpus, tombstone)

        tombstone, hidden = await core.read(look)
        done = lost = 0
        last: list[Stored] = []
        async for lot in self._lots(hidden):
            last += [each for each in lot if each.record.key == root]
            came = await self._bring_back(agent, tombstone, [each for each in lot if each.record.key != root])
            done, lost = done + came[0], lost + came[1]
        if last:  # only now can anybody see it
            came = await self._bring_back(agent, tombstone, last)
            done, lost = done + came[0], lost + came[1]
        return await core.read(lambda: self.root(agent, session)), done, lost

    async def _lots(self, positions: Sequence[int]) -> Any:
        """The records at these positions, so many at a time that a transaction with them stays short."""
        corpus, at = self.core.corpus, 0
        while at < len(positions):

            def fetch(first: int = at) -> list[Stored]:
                out: list[Stored] = []
                size = 0
                with contextlib.closing(storage.those(corpus, positions[first : first + LOT])) as found:
                    for each in found:
                        size += len(each.body or b"") + 512
                        out.append(each)
                        if size > LOT_BYTES:
                            break
                assert [each.pos for each in out] == [*positions[first : first + len(out)]]  # a hub drops no record
                return out

            lot = await self.core.read(fetch)
            at += len(lot)
            yield lot

    async def _bring_back(self, agent: str, tombstone: Stored | None, lot: Sequence[Stored]) -> tuple[int, int]:
        if tombstone is None or not lot:
            return 0, 0
        log = await self.core.own.log_of(agent)

        def make() -> list[tuple[Stored, Any]]:
            made = []
            for each in lot:
                try:
                    made.append((each, self.core.own.ready(log, parts.again(each, each.record.key, author=agent))))
                except HoldfastError:  # erased or gone bad since: the rest must not stay away for it
                    continue
            return made

        made = await self.core.read(make)
        if not made:
            return 0, len(lot)

        def work(desk: Desk) -> int:
            # Erased since they were read: to write them again would bring back what nobody may have any more.
            marks = ",".join("?" * len(made))
            sql = f"SELECT pos FROM rec WHERE why=? AND pos IN ({marks})"
            erased = {row[0] for row in desk.tx.sql(sql, (REDACTED, *(each.pos for each, _ in made))).fetchall()}
            count = 0
            for each, ready in made:
                prior = desk.tx.prior(agent, SESSIONS, each.record.key)
                there = prior is not None and prior.gone == tombstone.pos and prior.pos == each.pos
                if there and each.pos not in erased:
                    desk.append(ready)
                    count += 1
            return count

        size = sum(len(each.body or b"") for each in lot)
        return await self.core.own.write(agent, work, size=size), len(lot) - len(made)

    async def fork(
        self, principal: Principal, session: str, into: str, at: str | None, metadata: dict[str, Any] | None
    ) -> tuple[Stored, bool]:
        """A copy of a session as it was behind a message, and whether it was made now; blobs are only referenced.

        Raises:
            Conflict: something else has its id.
            NotFound: there is no such session or message.
        """
        core, agent = self.core, await self.writable(principal, session)

        def look() -> tuple[Stored, int, Stored | None]:
            root = self.root(agent, session)
            until = core.corpus.last()
            if at is not None:
                message = core.corpus.newest(agent, SESSIONS, key_of(session, MESSAGE, at))
                if message is None:
                    raise NotFound(f"{session} has no message {at!r:.140}", hint="see /storage/history")
                until = message.pos
            return root, until, storage.by_ref(core.corpus, into)

        root, until, before = await core.read(look)
        if before is not None:
            return await self._forked_before(agent, session, into, at), False
        pieces = self._pieces(agent, session, into, until)
        while lot := await core.read(lambda: _take(pieces)):
            await self._write_lot(agent, session, into, lot)
        said, now = self.shown(root), self.now()
        body = parts.SessionBody(
            agent_name=agent,
            status="active",
            created_at=now,
            updated_at=now,
            user_id=said.user_id,
            metadata=said.metadata if metadata is None else metadata,
            forked_from=session,
            forked_at=at,
        )
        draft = root_draft(into, body, agent)

        def work(desk: Desk) -> Stored | None:
            live(desk, session)  # it may have been erased since: no copy of it begins to live then
            if desk.first("ref", into) is not None:
                return None
            note_fork(desk.tx, into)
            return self.change(desk, draft)

        made = await core.own.write(agent, work, size=len(draft.payload))
        return (made, True) if made is not None else (await self._forked_before(agent, session, into, at), False)

    async def _forked_before(self, agent: str, session: str, into: str, at: str | None) -> Stored:
        found: Stored | None = await self.core.read(
            lambda: self.core.corpus.newest(agent, SESSIONS, key_of(into, SESSION))
        )
        said = self.shown(found) if found is not None else None
        if found is None or said is None or said.forked_from != session or (said.forked_at or None) != at:
            raise Conflict(f"another session has the id {into}", hint="an id names one session, for ever")
        return found

    def _pieces(self, agent: str, session: str, into: str, until: int) -> Iterator[Draft]:
        """Everything of a session but its own record, as it was at a position, as drafts for another one."""
        for each in self.messages(agent, session, until=until):
            yield from _again(each, key_of(into, MESSAGE, parts.id_of(each.record.key)), agent)
        for each in self.core.corpus.versions(agent, SESSIONS, key_of(session, STATE)):
            if each.pos <= until:
                if not each.gone:
                    yield from _again(each, key_of(into, STATE), agent)
                break
        for about, content in self.artifacts(agent, session):
            if about.pos > until:
                continue
            old = parts.id_of(about.record.key)
            # Always the same one for the same copy, so that a fork which broke off goes on where it was.
            new = "artifact_" + hashlib.sha256(f"{into}/{old}".encode()).hexdigest()[:32]
            try:
                body = parts.body_of(about, self.core.home.blobs)
            except Erased:
                continue
            if body is None:
                continue
            body.copy_of = old
            yield parts.draft(ARTIFACT, key_of(into, ARTIFACT, new), body, author=agent)
            if content is not None and content.pos <= until:
                yield from _again(content, key_of(into, CONTENT, new), agent)

    async def _write_lot(self, agent: str, session: str, into: str, lot: Sequence[Draft]) -> None:
        log = await self.core.own.log_of(agent)
        made = await self.core.read(lambda: [(draft, self.core.own.ready(log, draft)) for draft in lot])

        def work(desk: Desk) -> None:
            live(desk, session)
            note_fork(desk.tx, into, (session, agent))
            for draft, ready in made:
                if desk.newest(SESSIONS, draft.key) is None:
                    desk.append(ready)

        await self.core.own.write(agent, work, size=sum(len(draft.payload) for draft in lot))


def _again(stored: Stored, key: str, author: str) -> Iterator[Draft]:
    """What says a record once more under another key: nothing, if it was erased."""
    with contextlib.suppress(Erased):
        yield parts.again(stored, key, author=author)


def _take(pieces: Iterator[Draft]) -> list[Draft]:
    lot: list[Draft] = []
    size = 0
    for draft in pieces:
        lot.append(draft)
        size += len(draft.payload)
        if len(lot) >= LOT or size > LOT_BYTES:
            break
    return lot


def unfinished(kept: Any) -> dict[str, tuple[str, str]]:
    """The copies that a value of `FORKS` names: the id of each, and the session that it is of, with its agent."""
    return msgspec.msgpack.decode(kept, type=dict[str, tuple[str, str]]) if kept else {}


def note_fork(tx: SqlTransaction, into: str, of: tuple[str, str] | None = None) -> None:
    """Notes that a copy was begun, and of which session of which agent; or that it is whole, or gone."""
    known = unfinished(tx.meta(FORKS))
    if known.get(into) != of:
        known = {name: each for name, each in known.items() if name != into} | ({into: of} if of else {})
        tx.set_meta(FORKS, msgspec.msgpack.encode(known) if known else None)


def live(desk: Desk, session: str) -> Stored:
    """The session's own record, inside a job of its agent.

    Raises:
        NotFound: it is not there now.
    """
    found = desk.newest(SESSIONS, key_of(session, SESSION))
    if found is None:
        raise unknown(session)
    return found


def root_draft(session: str, body: parts.SessionBody, author: str) -> Draft:
    """A draft of a session's own record.

    Raises:
        UsageError: it is too large, with status 413.
    """
    draft = parts.draft(SESSION, key_of(session, SESSION), body, author=author)
    if len(draft.payload) > parts.ROOT_BYTES_MAX:
        error = UsageError(
            f"the session's metadata takes {len(draft.payload)} bytes, the most is {parts.ROOT_BYTES_MAX}",
            hint="keep it in the session's state, or as an artifact",
            limit=parts.ROOT_BYTES_MAX,
        )
        error.status = 413
        raise error
    return draft


def author_of(principal: Principal, agent: str) -> str:
    """Who a record names as its writer: whoever asks or, where nobody has a name, the agent."""
    return principal.name if principal.id else agent


def no_artifact(artifact: str) -> NotFound:
    """The error of an artifact that is not there."""
    return NotFound(f"there is no artifact {artifact!r:.140}", hint="see /storage/artifacts?session_id=…")
