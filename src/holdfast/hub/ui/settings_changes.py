"""What the settings can change: tokens and notification rules, by the functions that command line and API use."""

from __future__ import annotations

from typing import Any, Final

from holdfast.errors import Conflict, HoldfastError, UsageError
from holdfast.hub import acts
from holdfast.hub.notify.desk import Wish as RuleWish
from holdfast.hub.notify.rules import Rule
from holdfast.hub.principal import SCOPES
from holdfast.hub.routes_notify import author_of
from holdfast.hub.tokens import Wish
from holdfast.hub.ui import settings
from holdfast.hub.ui.routes import Ask, View

DAY_MS: Final = 86_400_000
ONCE_MAX: Final = 1_000
_RULE: Final = dict.fromkeys(
    ("name", "address", "kinds", "priority", "senders", "to", "quiet", "zone", "rate", "link", "body"), ""
)
_TOKEN: Final = dict.fromkeys(("kind", "name", "agents", "collections", "expires", "note"), "")


def _back(done: str, place: str) -> View:
    return View(status=303, headers=(("location", f"/settings?done={done}#{place}"),))


# -- tokens -------------------------------------------------------------------------------------------------------


async def tokens(ask: Ask) -> View:
    """POST /settings/tokens: makes a token, and shows it this once; or revokes one."""
    form, core = ask.form, ask.core
    by = acts.by_principal(ask.principal, acts.PAGE)
    if form.get("what") == "revoke":
        await core.read(lambda: core.gate.tokens.end(form.get("id", ""), by))
        await core.gate.look_again()
        return _back("revoked", "tokens")
    typed = {**_TOKEN, **form, "form": "token"}
    try:
        wish = _wish(ask)
        _once(ask)
        try:
            made, text = await core.read(lambda: core.gate.tokens.make(wish, by))
        except HoldfastError:
            ask.front.once.pop(form["once"], None)  # there is none yet
            raise
    except HoldfastError as error:
        status = error.status
        return await settings.shown(ask, status=status, problem=error.message, hint=error.hint, typed=typed)
    await core.gate.look_again()
    secret = {"what": f"The token of {made.kind} {made.name}", "text": text, "kind": "token"}
    return await settings.shown(ask, said="made", secret=secret)


def _wish(ask: Ask) -> Wish:
    form, core = ask.form, ask.core
    days = form.get("expires", "")
    if days not in settings.EXPIRIES:
        raise UsageError(f"a token cannot end {days!r:.20}", hint="take one of the list")
    scopes = tuple(scope for scope in SCOPES if form.get(f"scope-{scope}"))
    if not core.gate.guarded:
        if not form.get("close"):
            raise UsageError(
                "the first token closes this hub to everybody who has none",
                hint="say that you mean it, by the box below; and make one with the scope admin first",
            )
        if "admin" not in scopes:
            raise UsageError(
                "the first token needs the scope admin, or nobody could make the second here", hint="tick admin"
            )
    return Wish(
        kind=form.get("kind", ""),
        name=form.get("name", "").strip(),
        scopes=scopes,
        agents=_words(form.get("agents", "")),
        collections=_words(form.get("collections", "")) or ("*",),
        ends_ms=core.home.wall.now_ms() + int(days) * DAY_MS if days else None,
        note=form.get("note", "").strip(),
    )


def _once(ask: Ask) -> None:
    """Returns only the first time that this very form is sent: loading the answer again makes no second token."""
    name, known = ask.form.get("once", ""), ask.front.once
    if not name or name in known:
        raise Conflict(
            "this form was sent before: the token was made, and shown, then", hint="revoke it if nobody has it"
        )
    known[name] = None
    while len(known) > ONCE_MAX:
        del known[next(iter(known))]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


# -- notifications ------------------------------------------------------------------------------------------------


async def notify(ask: Ask) -> View:
    """POST /settings/notify: makes, changes, tries or removes a rule; tries again or forgets what was given up."""
    form, rules, author = ask.form, ask.core.notifying.rules, author_of(ask.principal)
    what, name = form.get("what", ""), form.get("name", "").strip()
    typed: dict[str, Any] = {}
    try:
        if what == "put":
            typed = {**_RULE, **form, "form": f"rule-{form.get('was', '')}"}
            return await _put(ask, name)
        if what == "test":
            found = await rules.test(name)
            if found.ok:
                return await settings.shown(ask, said="tested")
            why = f"The test of {name} was not taken: {found.said}"
            return await settings.shown(ask, problem=why, hint="is the address right, and allowed?")
        if what == "remove":
            await rules.remove(name, author)
            return _back("removed", "notifications")
        if what in ("on", "off"):
            await rules.switch(name, author, on=what == "on")
            return _back(what, "notifications")
        if what in ("retry", "drop"):
            ids = (form["id"],) if form.get("id") else ()
            await rules.letters("retry" if what == "retry" else "drop", ids)
            return _back(what, "given-up")
        raise UsageError(f"cannot do {what!r:.40} here", hint="use the forms of this page")
    except HoldfastError as error:
        more = {"problem": error.message, "hint": error.hint, **({"typed": typed} if typed else {})}
        return await settings.shown(ask, status=error.status, **more)


async def _put(ask: Ask, name: str) -> View:
    form = ask.form
    kinds: tuple[str, ...] = ()
    which, priority = form.get("which", "needs"), ""
    if which == "all":
        kinds = ("*",)
    elif which == "some":
        kinds, priority = _words(form.get("kinds", "")), form.get("priority", "")
        if not kinds and not priority:
            raise UsageError("some messages, but which?", hint="name kinds, or the least priority")
    rate = form.get("rate", "").strip()
    if not rate.isascii() or not rate.isdigit() or len(rate) > 6:
        raise UsageError(f"a rate of {rate!r:.20} an hour", hint="a whole number, such as 20")
    rule = Rule(
        form="ntfy" if form.get("style") == "ntfy" else "webhook",
        kinds=kinds,
        priority=priority,
        senders=_words(form.get("senders", "")) or ("*",),
        to=_words(form.get("to", "")) or ("people",),
        body=bool(form.get("body")),
        quiet=form.get("quiet", "").strip().replace(" ", ""),
        zone=form.get("zone", "").strip() or "UTC",
        rate=int(rate),
        link=form.get("link", "").strip(),
        on=form.get("on", "on") == "on",
    )
    wish = RuleWish(rule=rule, address=form.get("address", "").strip(), token=form.get("token", "").strip() or None)
    rules = ask.core.notifying.rules
    known = {each.name for each in (await rules.every()).rules}
    if not form.get("was") and name in known:
        raise Conflict(f"there is a rule {name} already", hint="change that one, or take another name")
    made = await rules.put(name, wish, author_of(ask.principal))
    if made.secret is None:
        return _back("changed", "notifications")
    secret = {"what": f"The key of the signatures of {name}", "text": made.secret, "kind": "signature"}
    return await settings.shown(ask, said="made", secret=secret)
