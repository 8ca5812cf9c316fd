"""Rules of notifications: which messages they tell of, and when they may speak. Pure.

A rule is a record in the hub's own stream (collection `notify`, under its name), so it has a history and is in every
backup. Without a kind and a priority a rule tells of what needs a person.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from holdfast.collections.messages import PEOPLE, needs_you
from holdfast.corpus.port import fits
from holdfast.errors import UsageError
from holdfast.log.drafts import PRIORITIES

NOTIFY: Final = "notify"
"""The collection of rules."""
FORMS: Final = ("webhook", "ntfy")
HOUR_MS: Final = 3_600_000
RATE_MAX: Final = 3_600
RATE: Final = 20
GLOBS_MAX: Final = 64
GLOB_MAX: Final = 255
ADDRESS_MAX: Final = 2_000
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_QUIET: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_ANYTHING: Final = ("*",)


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule as it is stored.

    Attributes:
        form: webhook or ntfy.
        where: the address without what may be secret in it: scheme and host.
        kinds: globs of the kinds that it tells of; empty: any, if there is a priority.
        priority: the least that it tells of; empty: any, if there are kinds.
        senders, to: globs of who wrote, and of whom to; `people` are those who watch the hub.
        body: whether what was written goes out, too.
        quiet: hours in which it says nothing, such as ``22:00-07:00``; empty: none.
        zone: in whose time they are.
        rate: notifications within any 60 minutes, at most.
        link: the address of this hub's pages, for links to messages; empty: there are none.
        on: whether it is at work.
        sealed: the address, the token and the key of its signatures (`vault`).
    """

    form: Literal["webhook", "ntfy"] = "webhook"
    where: str = ""
    kinds: tuple[str, ...] = ()
    priority: str = ""
    senders: tuple[str, ...] = _ANYTHING
    to: tuple[str, ...] = (PEOPLE,)
    body: bool = False
    quiet: str = ""
    zone: str = "UTC"
    rate: int = RATE
    link: str = ""
    on: bool = True
    sealed: str = ""

    def tells_of(self, kind: str, priority: Any, sender: str, to: str) -> bool:
        """Whether it tells of a message.

        Args:
            kind, priority, sender: of the message.
            to: its recipient; empty for whoever looks.
        """
        if not (fits(sender, self.senders) and fits(to, self.to)):
            return False
        if not self.kinds and not self.priority:
            return needs_you(kind, priority)
        if self.kinds and not fits(kind, self.kinds):
            return False
        return not self.priority or _rank(priority) >= PRIORITIES.index(self.priority)

    def speaks_from(self, at_ms: int) -> int:
        """The first moment from `at_ms` on that is not in its quiet hours; ms since 1970."""
        found = _QUIET.fullmatch(self.quiet)
        if found is None:
            return at_ms
        hours = [int(each) for each in found.groups()]
        from zoneinfo import ZoneInfo

        zone = ZoneInfo(self.zone)
        here = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone)
        # Yesterday's, too: the quiet hours of a night began on the day before.
        for back in (1, 0):
            day = here.date() - timedelta(days=back)
            begins = datetime(day.year, day.month, day.day, hours[0], hours[1], tzinfo=zone)
            after = day + timedelta(days=1) if hours[:2] >= hours[2:] else day
            ends = datetime(after.year, after.month, after.day, hours[2], hours[3], tzinfo=zone)
            # As moments: by the clock on the wall a night may be an hour longer than its hours say.
            if begins.timestamp() <= at_ms / 1000 < ends.timestamp():
                return round(ends.timestamp() * 1000)
        return at_ms

    def due(self, now_ms: int, spoken: Sequence[int]) -> int:
        """When it may next say something; ms since 1970.

        Args:
            now_ms: now.
            spoken: when it said, or is to say, its newest `rate` notifications; the newest first.
        """
        at = now_ms
        if len(spoken) >= self.rate:
            at = max(at, spoken[self.rate - 1] + HOUR_MS)
        return self.speaks_from(at)


def _rank(priority: Any) -> int:
    return PRIORITIES.index(priority) if priority in PRIORITIES else PRIORITIES.index("normal")


def rule_of(value: Any) -> Rule | None:
    """The rule in a record's value; None for what is none: others may write into this collection, too."""
    try:
        found = msgspec.convert(value, Rule)
        checked(found)
    except (msgspec.ValidationError, UsageError):
        return None
    return found


def check_name(name: str) -> str:
    """The name, if a rule can have it.

    Raises:
        UsageError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a rule cannot be called {name!r:.80}",
            hint="1 to 64 letters, digits, dots, hyphens and underscores; such as 'phone'",
        )
    return name


def checked(rule: Rule) -> Rule:
    """The rule, if it can be kept to.

    Raises:
        UsageError: what is wrong with it.
    """
    for what, globs in (("kinds", rule.kinds), ("senders", rule.senders), ("to", rule.to)):
        if len(globs) > GLOBS_MAX or any(len(glob) > GLOB_MAX or not glob.isprintable() for glob in globs):
            raise UsageError(
                f"{what}: at most {GLOBS_MAX} names or globs, of {GLOB_MAX} letters", hint="such as 'hr-*'"
            )
    if not rule.senders or not rule.to:
        raise UsageError("a rule tells of somebody's messages to somebody", hint="'*' is anybody")
    if rule.priority and rule.priority not in PRIORITIES:
        raise UsageError(f"unknown priority {rule.priority!r:.40}", hint=f"one of {', '.join(PRIORITIES)}")
    if rule.quiet:
        if not _QUIET.fullmatch(rule.quiet) or rule.quiet[:5] == rule.quiet[6:]:
            raise UsageError(f"quiet hours cannot be {rule.quiet!r:.40}", hint="such as 22:00-07:00")
        _check_zone(rule.zone)
    if not 1 <= rule.rate <= RATE_MAX:
        raise UsageError(f"a rate of {rule.rate} an hour", hint=f"1 to {RATE_MAX}")
    if rule.link:
        address_of(rule.link)
    return rule


def _check_zone(zone: str) -> None:
    from zoneinfo import ZoneInfo  # most hubs have no rule, and need none

    try:
        ZoneInfo(zone)
    except (OSError, ValueError) as error:  # ZoneInfoNotFoundError is a KeyError, and one of a name that is a path
        raise UsageError(f"unknown time zone {zone!r:.60}", hint="such as Europe/Berlin, or UTC") from error
    except KeyError as error:
        raise UsageError(f"unknown time zone {zone!r:.60}", hint="such as Europe/Berlin, or UTC") from error


def address_of(text: str) -> SplitResult:
    """The parts of an address that can be written to.

    Raises:
        UsageError: it is none; its message does not repeat it, as it may hold a secret.
    """
    hint = "such as https://ntfy.example/topic; a token has an option of its own"
    if len(text) > ADDRESS_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise UsageError("the address is no URL", hint=hint)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError("the address is no URL", hint=hint) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError("the address is not one of http:// or https://", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise UsageError("the address has a user or a password in it", hint=hint)
    return parts


def shown(parts: SplitResult) -> str:
    """An address without what may be secret in it: services give them that only their owner is to know."""
    return f"{parts.scheme}://{parts.netloc}"
