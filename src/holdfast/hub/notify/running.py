"""The hub's task that notifies: takes up what came, sends what is due, and says what fails.

A hub without rules looks for one now and then, and loads nothing of all this. Several processes of one hub share the
outbox: each message is taken up once, each notification held by one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.corpus import Stored
    from holdfast.hub.core import Core
    from holdfast.hub.notify.desk import Rules
    from holdfast.hub.notify.outbox import Notice
    from holdfast.hub.notify.rules import Rule

logger = logging.getLogger(__name__)

IDLE_S: Final = 30.0
"""How often a hub without rules looks whether there is one after all; where it has several processes, `LOOK_S`."""
LOOK_S: Final = 5.0
PAUSE_S: Final = 0.2
"""Between two turns while much is written."""
SENDERS: Final = 4
TROUBLES: Final = 2
"""From so many tries on, a notification that is not taken is worth a person's look."""

T = TypeVar("T")


class Notifying:
    """Tells people of messages, by the rules of one hub; the loop's own.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._task: asyncio.Task[None] | None = None
        self._bell = asyncio.Event()
        self._rules: Rules | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._troubles: list[str] = []
        self._freed = not core.corpus.inline  # other processes may be sending what is held
        self.sent = self.failed = 0
        """What this process has sent, and what was not taken."""
        self.given_up = self.waiting = 0

    def start(self) -> None:
        """Begins, on the running loop."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Ends; what is being sent is sent again after the next start, unless it ends in time."""
        self._core.feed.bells.discard(self._bell)
        tasks = [task for task in (self._task, *self._under_way.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def kick(self) -> None:
        """Has it look at once: a rule was made or changed."""
        self._bell.set()

    @property
    def rules(self) -> Rules:
        """The rules of this hub."""
        if self._rules is None:
            from holdfast.hub.notify.desk import Rules

            self._rules = Rules(self._core)
        return self._rules

    def problems(self) -> list[str]:
        """What is not told to anybody, and why."""
        return list(self._troubles)

    async def sending(self, work: Callable[[], T]) -> T:
        """What a function returns that waits for somebody else's machine."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def tell(result: T | None, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as failure:
                error = failure
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, result, error)

        # Of its own, and no pool's: a hub that stops waits for nobody else's machine.
        threading.Thread(target=run, name="holdfast-notify", daemon=True).start()
        return await done

    # -- one turn after another -------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            self._bell.clear()
            pause = LOOK_S
            try:
                pause = await self._turn()
            except HoldfastError as error:
                logger.warning("could not look for what is to be notified", exc_info=error)
            try:
                async with asyncio.timeout(pause):
                    await self._bell.wait()
                await asyncio.sleep(PAUSE_S)
            except TimeoutError:
                pass

    def _free(self) -> None:
        from holdfast.hub.notify.outbox import free

        free(self._core.corpus, self._core.home.wall.now_ms())

    async def _turn(self) -> float:
        """One look; seconds until the next, unless something comes."""
        core = self._core
        bells = core.feed.bells
        from holdfast.hub.judge import HUB_AGENT

        if core.follower is not None or not await core.read(lambda: core.corpus.keys(HUB_AGENT, "notify", limit=1)):
            bells.discard(self._bell)  # a hub that follows another leaves it to that
            self._troubles, self.waiting, self.given_up = [], 0, 0
            return IDLE_S if core.corpus.inline else LOOK_S
        bells.add(self._bell)
        from holdfast.hub.notify import outbox
        from holdfast.hub.notify.desk import stored_rules

        if not self._freed:
            await core.read(self._free)
            self._freed = True
        rules = {name: rule for name, (rule, _) in (await core.read(lambda: stored_rules(core))).items()}
        now = core.home.wall.now_ms()
        at_work = {name: rule for name, rule in rules.items() if rule.on}
        while await core.read(lambda: outbox.take_up(core.corpus, at_work, self._look_into, now)) == outbox.LOT:
            pass
        room = SENDERS - len(self._under_way)
        if room > 0:
            busy = set(self._under_way)
            for notice in await core.read(lambda: outbox.hold(core.corpus, rules, now, busy=busy, most=room)):
                task = asyncio.create_task(self._send(notice, rules[notice.rule]))
                self._under_way[notice.rule] = task
                task.add_done_callback(lambda _, rule=notice.rule: self._ended(rule))  # type: ignore[misc]
        await self._look()
        following = await core.read(lambda: outbox.next_ms(core.corpus))
        if following is None:
            return LOOK_S
        return min(LOOK_S, max(0.05, (following - core.home.wall.now_ms()) / 1000))

    def _ended(self, rule: str) -> None:
        self._under_way.pop(rule, None)
        self._bell.set()

    async def _look(self) -> None:
        from holdfast.hub.notify import outbox

        core = self._core
        tallies = await core.read(lambda: outbox.tallies(core.corpus))
        self.waiting = sum(each.waiting for each in tallies.values())
        self.given_up = sum(each.dead for each in tallies.values())
        found = [
            f"notifications by the rule {name} are not taken: {each.trouble}"
            for name, each in tallies.items()
            if each.trouble and each.tries >= TROUBLES
        ]
        if self.given_up:
            were = "notification was" if self.given_up == 1 else "notifications were"
            found.append(f"{self.given_up} {were} given up: see Settings, or holdfast notify ls")
        self._troubles = found

    async def _send(self, notice: Notice, rule: Rule) -> None:
        """Sends one, and notes what became of it."""
        from holdfast.hub.notify import outbox
        from holdfast.hub.notify.letter import Sheet, written
        from holdfast.hub.notify.post import Outcome, post

        core = self._core
        try:
            try:
                target = self.rules.vault.open(notice.rule, rule)
            except HoldfastError as error:
                found = Outcome(False, error.message, for_good=True)
            else:
                told = await core.read(lambda: self._told(notice, rule))
                sheet = Sheet(
                    id=notice.id,
                    name=notice.rule,
                    rule=rule,
                    hub=core.home.hub_id,
                    many=notice.many,
                    told=told,
                )
                letter = written(sheet, target, core.home.wall.now_ms())
                allowed = core.options.notify_hosts
                found = await self.sending(lambda: post(target.address, letter, allowed))
            now = core.home.wall.now_ms()
            if found.ok:
                self.sent += 1
                await core.read(lambda: outbox.sent(core.corpus, notice, now))
                return
            self.failed += 1
            more: dict[str, Any] = {"for_good": found.for_good, "wait_s": found.wait_s}
            dead = await core.read(lambda: outbox.failed(core.corpus, notice, found.said, now, **more))
            what = "given up" if dead else "not taken"
            logger.warning("a notification by the rule %s was %s: %s", notice.rule, what, found.said)
        except HoldfastError as error:
            # It is held until its time is up, and then sent again, under the same id.
            logger.warning("could not note what became of a notification", exc_info=error)
        except Exception:
            logger.exception("a notification could not be made")

    # -- looking into messages, in threads --------------------------------------------------------------------

    def _value(self, stored: Stored) -> Any:
        from holdfast.collections.mailbox import VALUE_BYTES_MAX
        from holdfast.log import load
        from holdfast.records import read_blob_reference

        try:
            if stored.body is None or (stored.is_blob and read_blob_reference(stored.payload())[1] > VALUE_BYTES_MAX):
                return None
            return load(stored, self._core.home.blobs)
        except HoldfastError:
            return None

    def _look_into(self, stored: Stored) -> tuple[Any, str]:
        value = self._value(stored)
        if not isinstance(value, dict):
            return None, ""
        to = value.get("to")
        return value.get("priority"), to if isinstance(to, str) else ""

    def _told(self, notice: Notice, rule: Rule) -> list[Any]:
        """The messages of a notification as they are now: what was erased since is not told any more."""
        from holdfast.clock import iso
        from holdfast.collections.messages import message_in
        from holdfast.hub.notify.letter import Told, body_told, link_to

        found = []
        for pos in notice.positions:
            stored = self._core.corpus.at(pos)
            value = self._value(stored) if stored is not None else None
            if stored is None or not isinstance(value, dict) or "body" not in value:
                continue
            message = message_in(stored, value)
            body, cut = body_told(message.body) if rule.body else (None, False)
            found.append(
                Told(
                    id=message.id,
                    sender=message.agent,
                    to=str(message.to or ""),
                    kind=message.kind,
                    priority=str(message.priority),
                    time=iso(round(message.time * 1000)),
                    thread=message.thread,
                    task=message.task,
                    link=link_to(rule, message.id),
                    body=body,
                    cut=cut,
                )
            )
        return found
