"""Follows another hub: what that one holds, this one is to hold too, for as long as both live.

Theory of operation. This hub asks the other where its streams stand: those that changed behind a cursor as soon as they
do (a long poll), and all of them now and then, since what a cursor has passed may have been lost here or there. What is
lacking is copied (`copying`) through the same verdicts as a node's append, so it does not matter who else brings it,
or whether the other hub follows this one: what is held already is neither asked for nor written again.

The other hub shows its key with each answer and signs our chance number; the first key seen at an address is the only
one that counts there from then on.

`marks` lets readers of the other hub go on here where they stood there: at the end of a round, when all that is here is
known to be there, both positions are noted (theirs as of the next answer, which is later).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from typing import TYPE_CHECKING, Any, Final

from holdfast import clock, seal, wire
from holdfast.corpus import heads
from holdfast.errors import Denied, HoldfastError, HubFull, UsageError
from holdfast.hub.copying import Copy, Line
from holdfast.hub.follow_acts import ActsFollower
from holdfast.hub.options import Options
from holdfast.protocol import follow
from holdfast.protocol.follow import Lack
from holdfast.protocol.ports import Span
from holdfast.protocol.retry import Backoff
from holdfast.transport.client import HubClient
from holdfast.wire import Cursor, Heads, Mark

if TYPE_CHECKING:
    from holdfast.hub.core import Core

logger = logging.getLogger(__name__)

WAIT_S: Final = 20
COMPARE_S: Final = 60.0
"""Between two comparisons of everything."""
AGAIN_S: Final = 5.0
"""The longest pause between two tries to reach the other hub, and the shortest between two writings of the marks."""
LANES: Final = 4
MARKS_MAX: Final = 256
LATE_S: Final = 30.0
"""Without contact for so long, a follower says that it may be behind."""
PIN: Final = "pin:"


class Refused(Exception):
    """The hub at the address is not the one that is followed."""


class Follower:
    """One hub that another one follows. The loop's own.

    Args:
        core: the hub that follows.
        options: whom.

    Raises:
        UsageError: not an address, or not a key.
    """

    def __init__(self, core: Core, options: Options) -> None:
        self._core, self._home = core, core.home
        self.url = options.follow.rstrip("/")
        self._line = Line(HubClient(self.url, options.follow_token), LANES)
        self._acts = ActsFollower(core, self._line, self.url)
        self._key = _key(options.follow_key) or self._pinned()
        self._pinned_now = False
        self._backoff = Backoff(random.SystemRandom())
        self._task: asyncio.Task[None] | None = None
        self._gen = ""
        self._cursor: str | None = None
        self._compare_at = 0.0
        self._theirs: dict[bytes, dict[bytes, Mark]] = {}
        self._confirmed = 0  # all that is here up to this position is there
        self._confirm_at = 0.0
        self._pending: int | None = None  # the same, to be noted with their position in the next answer
        self._saved_at = 0.0
        self._unsaved = False
        self.state = "connecting"
        self.why = ""
        self.pos = self.records = 0
        self._contact_ms = 0
        self._level_ms = 0  # when nothing was lacking last
        self._failed: dict[tuple[bytes, bytes], str] = {}
        self._refused: dict[bytes, dict[int, str]] = {}

    def start(self) -> None:
        """Begins, on the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends whatever is under way."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._line.close)
        if self._unsaved and not self._core.corpus.engine.unusable:
            with contextlib.suppress(HoldfastError):
                await asyncio.to_thread(self._home.save_marks)

    # -- how it stands ------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How it stands, as JSON values; `handover` is the position there from which its readers can go on here."""
        now = self._home.wall.now_ms()
        behind = max(0, self.pos - Cursor.parse(self._cursor).pos) if self._cursor else None
        level = self.state == "level"
        lag = 0.0 if level else round((now - self._level_ms) / 1000, 1) if self._level_ms else None
        return {
            "url": self.url,
            "key": self._key.hex() or None,
            "state": self.state,
            "lag_records": behind,
            "lag_s": lag,
            "last_contact": clock.iso(self._contact_ms) if self._contact_ms else None,
            "records": self.records,
            "handover": marks[-1][1] if (marks := self._home.marks) and marks[-1][0] == self._gen else None,
            "problems": self.problems(),
        }

    def problems(self) -> list[str]:
        """What is not as it should be, in words."""
        out = []
        silent = self._home.wall.now_ms() - self._contact_ms > LATE_S * 1000
        if self.state in ("refused", "denied", "full") or (self.why and (silent or not self._contact_ms)):
            out.append(f"following {self.url}: {self.why}")
        for (stream, inc), why in list(self._failed.items())[:10]:
            out.append(f"following {self.url}: cannot take incarnation {inc.hex()} of stream {stream.hex()}: {why}")
        bare = sum(map(len, self._refused.values()))
        if bare:
            stream, seqs = next(iter(self._refused.items()))
            seq, why = next(iter(seqs.items()))
            out.append(f"{bare} payloads of {self.url} are not here (record {seq} of stream {stream.hex()}: {why})")
        if self._acts.trouble:
            out.append(f"following {self.url}: its audit trail does not come: {self._acts.trouble}")
        return out

    # -- the loop -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
                self._backoff.reset()
                self.why = ""
                continue
            except Refused as error:
                self._trouble("refused", error)
            except HubFull as error:
                self._trouble("full", error)
            except Denied as error:
                with contextlib.suppress(UsageError):
                    self._line.client.credential.refresh()
                self._trouble("denied", error)
            except HoldfastError as error:
                self._trouble("offline", error)
            except Exception as error:
                # A follower that ends would be a standby that silently stands still; it is told and tried again.
                logger.exception("following failed", extra={"hub": self.url})
                self._trouble("offline", error)
            await asyncio.sleep(self._backoff.delay(cap=AGAIN_S))

    def _trouble(self, state: str, error: BaseException) -> None:
        if state != self.state:
            logger.warning("following %s: %s", self.url, error)
        self.state, self.why = state, str(error)

    async def _round(self) -> None:
        loop = asyncio.get_running_loop()
        if self._cursor is None or loop.time() >= self._compare_at:
            await self._compare()
        else:
            wait = 0 if self._pending is not None else WAIT_S
            found = await self._ask({"since": self._cursor, "wait": wait}, wait)
            if self._cursor is None:
                return  # it has begun a new life: everything is compared
            await self._take(found)
            self._cursor = found.cursor
        assert self._cursor is not None
        if Cursor.parse(self._cursor).pos >= self.pos:
            self.state, self._level_ms = "level", self._home.wall.now_ms()
        else:
            self.state = "behind"
        await self._confirm()
        await self._acts.follow(self._gen)

    async def _compare(self) -> None:
        """Goes through everything that they hold."""
        cursor, after, failed = "", 0, self._failed
        if self.state != "level":
            self.state = "comparing"
        self._failed = {}
        try:
            while True:
                found = await self._ask({"after": after}, 0)
                cursor = cursor or found.cursor
                await self._take(found)
                if found.next is None:
                    break
                after = found.next
        except BaseException:
            self._failed = {**failed, **self._failed}
            raise
        self._cursor = cursor
        self._compare_at = asyncio.get_running_loop().time() + COMPARE_S

    async def _ask(self, query: dict[str, Any], wait: float) -> Heads:
        nonce = os.urandom(16)
        found = await self._line.get("/v1/heads", Heads, {**query, "nonce": nonce.hex()}, wait + 10)
        await self._prove(found, nonce)
        self._contact_ms = self._home.wall.now_ms()
        if found.gen != self._gen:
            # Positions mean something else now, and something that was there may be there no more.
            self._gen, self._cursor, self._pending, self._confirmed = found.gen, None, None, 0
            self._theirs.clear()
        self.pos = found.pos
        if self._pending is not None:
            self._mark(found.pos, self._pending)
            self._pending = None
        return found

    async def _prove(self, found: Heads, nonce: bytes) -> None:
        """Returns only if the answer is that of the hub which is followed."""
        if found.version != wire.PROTOCOL:
            raise Refused(f"the hub there speaks protocol {found.version}, this one {wire.PROTOCOL}")
        signed = seal.verify(found.public_key, wire.challenge(nonce, found.gen), found.signature)
        if found.nonce != nonce or not signed:
            raise Refused("the hub there does not prove who it is")
        if found.public_key == self._home.signer.public_key:
            raise Refused("the hub there has this hub's own key: a copy of this directory, or this hub itself")
        if self._key and found.public_key != self._key:
            raise Refused(
                f"another hub is there: its key is {found.public_key.hex()}, and {self._key.hex()} is followed"
                " (if that is meant to be: --follow-key and its key)"
            )
        trusted = dict(found.keys)
        if found.public_key not in trusted:
            raise Refused("the hub there does not say that its key is a hub's")
        if not self._pinned_now or not trusted.keys() <= self._home.hub_keys.keys():
            if not all(seal.verify(key, wire.certificate(key), sign) for key, sign in found.keys):
                raise Refused("the hub there names a hub's key that is none")
            await self._core.read(lambda: self._pin(found.public_key, trusted))
        self._key, self._pinned_now = found.public_key, True

    def _pinned(self) -> bytes:
        found: bytes | None = self._home.corpus.meta(PIN + self.url)
        return found or b""

    def _pin(self, key: bytes, trusted: dict[bytes, bytes]) -> None:
        self._home.trust(trusted)
        self._home.corpus.write(lambda tx: tx.set_meta(PIN + self.url, key))

    # -- what is lacking ----------------------------------------------------------------------------------------

    async def _take(self, found: Heads) -> None:
        """Copies what they told of and is not here."""
        if not found.streams:
            return
        lacking = await self._core.read(lambda: self._look(found))
        room = asyncio.Semaphore(LANES)
        jobs = []
        for theirs, lacks in zip(found.streams, lacking, strict=True):
            known = self._theirs.setdefault(theirs.stream, {})
            known |= {at.inc: at.head for at in theirs.heads}
            if lacks:
                jobs.append(self._copy(Copy(self._core, self._line, theirs, found.public_key), lacks, room))
            else:
                self._failed = {at: why for at, why in self._failed.items() if at[0] != theirs.stream}
        for outcome in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def _look(self, found: Heads) -> list[list[Lack]]:
        with self._home.snapshot() as chains:
            facts = chains.streams([theirs.stream for theirs in found.streams])
            spans = [span for theirs in found.streams if theirs.stream in facts for span in follow.spans(theirs)]
            held = chains.held(spans)
        key = found.public_key
        return [follow.lacks(theirs, facts.get(theirs.stream), held, key) for theirs in found.streams]

    async def _copy(self, copy: Copy, lacks: list[Lack], room: asyncio.Semaphore) -> None:
        stream = lacks[0].stream
        async with room:
            try:
                failed = await copy.run(lacks)
            finally:
                self.records += copy.records
                known = self._theirs.setdefault(stream, {})
                known |= {inc: head for inc, head in copy.heads.items() if head.seq >= known.get(inc, head).seq}
                if copy.refused:
                    self._refused[stream] = {**self._refused.get(stream, {}), **copy.refused}
        kept = {at: why for at, why in self._failed.items() if at[0] != stream}
        self._failed = kept | {(stream, inc): why for inc, why in failed.items()}

    # -- marks --------------------------------------------------------------------------------------------------

    async def _confirm(self) -> None:
        """If all that is here is there as well, has that noted when they say where they are."""
        now = asyncio.get_running_loop().time()
        if now >= self._confirm_at:
            here = await self._core.read(self._all_theirs)
            if here is None:
                self._confirm_at = now + AGAIN_S  # somebody writes here; perhaps they get it by another way
            elif here > self._confirmed:
                self._confirmed = self._pending = here
        if self._unsaved and now >= self._saved_at + AGAIN_S:
            self._saved_at, self._unsaved = now, False
            await self._core.read(self._home.save_marks)

    def _all_theirs(self) -> int | None:
        """The newest position here, if all that is behind the last confirmed one is on their chains; else None."""
        with self._home.snapshot() as chains:
            here = heads.last(chains)
            fresh = heads.branches(chains, self._confirmed, here) if here > self._confirmed else {}
            facts = chains.streams(sorted(fresh))
            for stream, branches in fresh.items():
                theirs = self._theirs.get(stream, {})
                held = chains.held([Span(stream, head.seq, head.seq) for head in theirs.values()])
                if not follow.is_theirs(facts[stream], branches, theirs, held):
                    return None
        return here

    def _mark(self, there: int, here: int) -> None:
        marks = [*self._home.marks, (self._gen, there, here)]
        if len(marks) > MARKS_MAX:
            # The older, the further apart: who comes back with an old cursor reads a little more again.
            half = len(marks) // 2
            marks = marks[:half:2] + marks[half:]
        self._home.marks, self._unsaved = marks, True


def _key(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b"-"
    if text and len(found) != 32:
        raise UsageError(f"a hub's key is 64 hex digits, got {text!r:.80}", hint='as its /health says: "key"')
    return found
