"""What is shown of notifications: to programs and on pages."""

from __future__ import annotations

import msgspec


class RuleShown(msgspec.Struct, kw_only=True):
    """A rule, and how it stands; `trouble` is why it cannot speak, or why its last notification was not taken."""

    name: str
    form: str
    where: str
    kinds: list[str]
    priority: str
    senders: list[str]
    to: list[str]
    body: bool
    quiet: str
    zone: str
    rate: int
    link: str
    on: bool
    version: int
    waiting: int
    sent: int
    given_up: int
    last_sent: str | None
    trouble: str


class LetterShown(msgspec.Struct, kw_only=True):
    """A notification that was given up."""

    id: str
    rule: str
    messages: int
    tries: int
    made: str
    given_up: str
    why: str


class NotifyShown(msgspec.Struct, kw_only=True):
    """The rules by name, and the newest notifications that were given up; `next` goes into `after`."""

    rules: list[RuleShown]
    given_up: list[LetterShown]
    next: str | None


class RuleMade(msgspec.Struct, kw_only=True):
    """A rule that was made or changed; `secret` is the key of its signatures, told this once."""

    rule: RuleShown
    made: bool
    secret: str | None


class Tried(msgspec.Struct, kw_only=True):
    """What became of a test."""

    ok: bool
    status: int
    said: str
