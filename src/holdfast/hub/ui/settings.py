"""Settings: who may ask this hub, whom it notifies, what nodes may evict, what it was told when it started."""

from __future__ import annotations

import secrets
from typing import Any, Final

import msgspec

from holdfast.clock import iso
from holdfast.hub.notify.rules import RATE
from holdfast.hub.notify.shapes import NotifyShown
from holdfast.hub.options import Options
from holdfast.hub.options import Told as ToldOption
from holdfast.hub.principal import ADMIN, SCOPES
from holdfast.hub.tokens import KINDS, USUAL, Token
from holdfast.hub.ui.pages import SettingsAt
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.scheme import keys_of, scheme_of
from holdfast.hub.ui.zones import zone_of
from holdfast.log.drafts import PRIORITIES
from holdfast.retention import ROLES
from holdfast.settings.values import hidden

ROWS: Final = 50
EXPIRIES: Final = {"": "never by itself", "1": "in a day", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}
_SECRET: Final = ("token", "follow_token", "told")
"""Options that are not shown: secrets, and what is shown instead of them all."""


class TokenShown(msgspec.Struct):
    """A token: everything but its secret, which is nowhere."""

    id: str
    kind: str
    name: str
    state: str
    scopes: list[str]
    agents: list[str]
    collections: list[str]
    note: str
    made: str
    ends: str | None
    revoked: str | None
    used: str | None


class Budget(msgspec.Struct):
    """What a role may keep on a node, in bytes, unless its configuration says otherwise."""

    role: str
    size: int
    context_tokens: int
    keep: list[str]


class Kept(msgspec.Struct):
    """When nodes may let go of what they shipped, and what their roles have room for."""

    settle: str
    backups: bool
    verified: int
    preset: str
    budgets: list[Budget]


class SettingsPage(msgspec.Struct):
    """The whole page; tokens, rules and configuration are null to whoever is no administrator."""

    scheme: str
    keys: str
    zone: str
    admin: bool
    guarded: bool
    tokens: list[TokenShown] | None
    next_token: str | None
    notify: NotifyShown | None
    retention: Kept
    configuration: list[ToldOption] | None


async def settings(ask: Ask) -> View:
    """GET /settings: how this hub is set up."""
    return await shown(ask)


async def shown(ask: Ask, *, status: int = 200, **more: Any) -> View:
    """The page; what somebody just did stands on it.

    Args:
        ask: the request.
        status: of the answer.
        more: `said` what became of it, `problem` and `hint` why it did not, `secret` what is shown once, `typed` what
            stands in which form.
    """
    asked = ask.query if isinstance(ask.query, SettingsAt) else SettingsAt()
    core, admin = ask.core, ask.principal.may(ADMIN)
    tokens, following, notify = None, None, None
    if admin:
        tokens, following = await _tokens(ask, asked)
        notify = await core.notifying.rules.every(asked.given_up_after, ROWS)
    data = SettingsPage(
        scheme=scheme_of(ask),
        keys=keys_of(ask),
        zone=zone_of(ask),
        admin=admin,
        guarded=core.gate.guarded,
        tokens=tokens,
        next_token=following,
        notify=notify,
        retention=_kept(core),
        configuration=list(core.options.told or _given(core.options)) if admin else None,
    )
    extra = {
        "said": asked.done if asked.done in _DONE else "",
        "problem": "",
        "hint": "",
        "secret": None,
        "typed": {"form": ""},
        "once": secrets.token_hex(16),
        "done_words": _DONE,
        "kind_choices": [(kind, f"{kind}: {', '.join(USUAL[kind])}") for kind in KINDS],
        "scopes": SCOPES,
        "expiry_choices": list(EXPIRIES.items()),
        "priority_choices": [("", "any"), *((each, each) for each in PRIORITIES)],
        "usual_rate": RATE,
        "all_tokens": asked.tokens == "all",
        # Of what a form sent, too: there is no page to go back to at its address.
        "back": "/settings",
        "twin": "/settings.json",
        **more,
    }
    if ask.scope["method"] == "GET":
        del extra["back"], extra["twin"]
    return View(template="settings.html", title="Settings", data=data, status=status, extra=extra)


_DONE: Final = {
    "revoked": "The token was revoked: it is refused from now on.",
    "removed": "The rule was removed.",
    "changed": "The rule was changed.",
    "on": "The rule is at work.",
    "off": "The rule is silent.",
    "retry": "What was given up is tried again.",
    "drop": "What was given up is forgotten.",
}


async def _tokens(ask: Ask, asked: SettingsAt) -> tuple[list[TokenShown], str | None]:
    core = ask.core
    now = core.home.wall.now_ms()
    every = await core.read(core.gate.tokens.every)
    every = [each for each in reversed(every) if asked.tokens == "all" or each.state(now) == "valid"]
    first = next((n for n, each in enumerate(every, 1) if each.id == asked.tokens_after), 0)
    page = every[first : first + ROWS]
    return [token_shown(each, now) for each in page], page[-1].id if len(every) > first + ROWS else None


def token_shown(token: Token, now_ms: int) -> TokenShown:
    """A token without its hash."""

    def time(ms: int | None) -> str | None:
        return None if ms is None else iso(ms)

    return TokenShown(
        id=token.id,
        kind=token.kind,
        name=token.name,
        state=token.state(now_ms),
        scopes=list(token.scopes),
        agents=list(token.agents),
        collections=list(token.collections),
        note=token.note,
        made=iso(token.made_ms),
        ends=time(token.ends_ms),
        revoked=time(token.revoked_ms),
        used=time(token.used_ms),
    )


def _kept(core: Any) -> Kept:
    budgets = [
        Budget(name, role.budget(), role.context_tokens, list(role.keep)) for name, role in sorted(ROLES.items())
    ]
    backups = core.backups
    return Kept(
        settle=core.home.settle,
        backups=backups is not None,
        verified=backups.verified if backups is not None else 0,
        preset=core.options.backup_preset if backups is not None else "",
        budgets=budgets,
    )


def _given(options: Options) -> list[ToldOption]:
    """What a hub was given by the program that runs it, which read no configuration."""
    usual, found = Options(), []
    for name in Options.__struct_fields__:
        value = getattr(options, name)
        if name in _SECRET:
            continue
        text = _text(value)
        origin = "" if value == getattr(usual, name) else "the program that runs it"
        found.append(ToldOption(name, text or "-", origin))
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return " ".join(map(hidden, value))
    return hidden(value) if isinstance(value, str) else "-" if value is None else f"{value}"
