"""Making, changing, removing and trying rules: what the API's routes do, and the pages by the same functions."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from holdfast.clock import iso
from holdfast.corpus import Stored
from holdfast.errors import Conflict, HoldfastError, NotFound, UsageError
from holdfast.hub.judge import HUB_AGENT
from holdfast.hub.notify import outbox
from holdfast.hub.notify.rules import NOTIFY, Rule, address_of, check_name, checked, rule_of, shown
from holdfast.hub.notify.shapes import LetterShown, NotifyShown, RuleMade, RuleShown, Tried
from holdfast.hub.notify.vault import Target, Vault, new_secret
from holdfast.hub.own import Desk as Writing
from holdfast.log import drafts, load

if TYPE_CHECKING:
    from holdfast.hub.core import Core

RULES_MAX: Final = 100
IDS_MAX: Final = 1_000
TOKEN_MAX: Final = 2_000


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that somebody wants; `address` and `token` empty: as they are, `new_secret`: another key of signatures."""

    rule: Rule
    address: str = ""
    token: str | None = None
    new_secret: bool = False


def stored_rules(core: Core) -> dict[str, tuple[Rule, Stored]]:
    """The rules by name, with their records; what is none is left out. For threads."""
    found = {}
    for stored in core.corpus.keys(HUB_AGENT, NOTIFY, limit=RULES_MAX):
        try:
            rule = rule_of(load(stored, core.home.blobs))
        except HoldfastError:
            continue
        if rule is not None:
            found[stored.record.key] = (rule, stored)
    return found


class Rules:
    """The rules of one hub.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._vault: Vault | None = None

    @property
    def vault(self) -> Vault:
        """What opens their addresses; made when the first is needed, as it brings a library with it."""
        if self._vault is None:
            self._vault = Vault(self._core.home.signer)
        return self._vault

    # -- looking ----------------------------------------------------------------------------------------------

    async def every(self, after: str = "", limit: int = 50) -> NotifyShown:
        """All rules, and what was given up, behind a notification's id."""
        core = self._core

        def look() -> NotifyShown:
            tallies = outbox.tallies(core.corpus)
            rules = [
                self._shown(name, rule, stored, tallies.get(name, outbox.Tally()))
                for name, (rule, stored) in stored_rules(core).items()
            ]
            dead = outbox.letters(core.corpus, outbox.DEAD, limit + 1, after)
            shown_ = [
                LetterShown(
                    id=each.id,
                    rule=each.rule,
                    messages=each.many,
                    tries=each.tries,
                    made=iso(each.made_ms),
                    given_up=iso(each.done_ms),
                    why=each.said,
                )
                for each in dead[:limit]
            ]
            return NotifyShown(rules=rules, given_up=shown_, next=dead[limit - 1].id if len(dead) > limit else None)

        return await core.read(look)

    def _shown(self, name: str, rule: Rule, stored: Stored, tally: outbox.Tally) -> RuleShown:
        trouble = tally.trouble
        try:
            self.vault.open(name, rule)
        except UsageError as error:
            trouble = error.message
        return RuleShown(
            name=name,
            form=rule.form,
            where=rule.where,
            kinds=list(rule.kinds),
            priority=rule.priority,
            senders=list(rule.senders),
            to=list(rule.to),
            body=rule.body,
            quiet=rule.quiet,
            zone=rule.zone,
            rate=rule.rate,
            link=rule.link,
            on=rule.on,
            version=stored.record.key_version,
            waiting=tally.waiting,
            sent=tally.sent,
            given_up=tally.dead,
            last_sent=iso(tally.last_sent_ms) if tally.last_sent_ms else None,
            trouble=trouble,
        )

    # -- changing ---------------------------------------------------------------------------------------------

    async def put(self, name: str, wish: Wish, author: str) -> RuleMade:
        """Makes a rule, or changes the one of that name.

        Args:
            name: of it.
            wish: what it is to be.
            author: who wants it.

        Raises:
            UsageError: what is wrong with it.
            Conflict: somebody else changed it meanwhile.
        """
        core = self._core
        check_name(name)
        checked(wish.rule)
        before = await core.read(lambda: stored_rules(core))
        known = before.get(name)
        if known is None and len(before) >= RULES_MAX:
            raise UsageError(f"there are {RULES_MAX} rules already", hint="remove one")
        target, secret = self._target(name, wish, known[0] if known else None)
        plain = msgspec.structs.replace(wish.rule, where=shown(address_of(target.address)))
        rule = await core.read(lambda: self.vault.seal(name, plain, target))
        expect = known[1].record.link.hex() if known else 0
        # A rule begins with what comes after it, unless others are at work already.
        first = not before
        await self._write(name, rule, expect, author, first=first)
        core.notifying.kick()
        found = next(each for each in (await self.every()).rules if each.name == name)
        return RuleMade(rule=found, made=known is None, secret=secret)

    def _target(self, name: str, wish: Wish, before: Rule | None) -> tuple[Target, str | None]:
        """Where it is to go, and the key of its signatures if that is a new one."""
        old: Target | None = None
        if before is not None:
            try:
                old = self.vault.open(name, before)
            except UsageError:
                if not wish.address:
                    raise
        if not wish.address and old is None:
            raise UsageError("a new rule needs an address", hint="such as https://ntfy.example/topic")
        address = wish.address or (old.address if old else "")
        address_of(address)
        # Another address may be another's: what the old one knew is not shown to it.
        same = old is not None and old.address == address
        token = wish.token if wish.token is not None else (old.token if old is not None and same else "")
        if len(token) > TOKEN_MAX or not token.isascii() or not token.isprintable():
            raise UsageError("the token is no text that a header can hold", hint="as its service shows it")
        fresh = wish.new_secret or old is None or not same
        secret = new_secret() if fresh or old is None else old.secret
        target = Target(address=address, token=token, secret=secret)
        return target, target.secret_text if fresh and wish.rule.form == "webhook" else None

    async def remove(self, name: str, author: str, reason: str = "") -> None:
        """Takes a rule away, with what it still had to tell; its history stays.

        Raises:
            NotFound: there is none.
        """
        core = self._core
        await self._one(name)
        log = await core.own.log_of(HUB_AGENT)
        ready = core.own.ready(log, drafts.remove(NOTIFY, name, reason=reason, author=author))

        def work(desk: Writing) -> None:
            if desk.newest(NOTIFY, name) is not None:
                desk.append(ready)
            outbox.drop_rule(desk.tx, name)

        await core.own.write(HUB_AGENT, work)
        core.notifying.kick()

    async def switch(self, name: str, author: str, *, on: bool) -> None:
        """Has a rule speak, or be silent; what comes meanwhile it does not tell later.

        Raises:
            NotFound: there is none.
            UsageError: its address does not open any more.
        """
        rule, stored = await self._one(name)
        target = self.vault.open(name, rule)
        changed = self.vault.seal(name, msgspec.structs.replace(rule, on=on), target)
        await self._write(name, changed, stored.record.link.hex(), author)
        self._core.notifying.kick()

    async def _one(self, name: str) -> tuple[Rule, Stored]:
        found = (await self._core.read(lambda: stored_rules(self._core))).get(name)
        if found is None:
            raise NotFound(f"there is no rule {name!r:.80}", hint="holdfast notify ls shows them")
        return found

    async def _write(self, name: str, rule: Rule, expect: int | str, author: str, *, first: bool = False) -> None:
        core = self._core
        draft = drafts.value(NOTIFY, name, msgspec.to_builtins(rule), expect=expect, author=author)
        log = await core.own.log_of(HUB_AGENT)
        ready = core.own.ready(log, draft)

        def work(desk: Writing) -> Conflict | None:
            try:
                stored = desk.append(ready)
            except Conflict as error:
                return error
            if first:
                outbox.begin(desk.tx, stored.pos)
            return None

        found = await core.own.write(HUB_AGENT, work)
        if isinstance(found, Conflict):
            raise Conflict("somebody changed this rule meanwhile", hint="look at it again, and decide anew")

    # -- trying -----------------------------------------------------------------------------------------------

    async def test(self, name: str) -> Tried:
        """Sends a test at once, whatever hours or rates the rule has; what became of it.

        Raises:
            NotFound: there is no such rule.
            UsageError: its address does not open any more.
        """
        from holdfast.hub.notify.letter import Sheet, written
        from holdfast.hub.notify.post import post

        core = self._core
        rule, _ = await self._one(name)
        target = self.vault.open(name, rule)
        sheet = Sheet(id=f"ntf_{secrets.token_hex(16)}", name=name, rule=rule, hub=core.home.hub_id, many=0, test=True)
        letter = written(sheet, target, core.home.wall.now_ms())
        allowed = core.options.notify_hosts
        found = await core.notifying.sending(lambda: post(target.address, letter, allowed))
        return Tried(ok=found.ok, status=found.status, said=found.said)

    async def letters(self, what: Literal["retry", "drop"], ids: tuple[str, ...]) -> int:
        """Has what was given up tried again, or forgets it; how many these were. No ids: all."""
        core = self._core
        if len(ids) > IDS_MAX:
            raise UsageError(f"at most {IDS_MAX} at once", hint="none at all means every one")
        now = core.home.wall.now_ms()
        if what == "retry":
            found = await core.read(lambda: outbox.again(core.corpus, ids, now))
        else:
            found = await core.read(lambda: outbox.forget(core.corpus, ids))
        core.notifying.kick()
        return found
