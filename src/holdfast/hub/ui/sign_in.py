"""Signing in: by a link that works once, or by showing a token; sessions that end, and can be ended.

A session may what its token may, and ends with it. Its cookie holds 32 random bytes, the hub their digest.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import HubUnavailable, Unauthenticated, UsageError
from holdfast.hub import acts
from holdfast.hub.acts import Act, Actor
from holdfast.hub.principal import ANYBODY, NOBODY, OPERATOR, STRANGER, Principal
from holdfast.hub.sign_ins import OPERATOR as BY_OPERATOR
from holdfast.hub.sign_ins import SESSION_MS, SignIn, SignInStore, digest_of
from holdfast.hub.ui.routes import Ask, View

if TYPE_CHECKING:
    from holdfast.hub.core import Core

KNOWN_MAX: Final = 10_000
WRONG_MAX: Final = 10
WRONG_MS: Final = 60_000
ADDRESSES_MAX: Final = 10_000
SECRET_MAX: Final = 200


class Session(msgspec.Struct, frozen=True):
    """Somebody who is signed in."""

    digest: bytes
    principal: Principal


class Wrong(msgspec.Struct):
    """The sign-in page, and what was wrong with the last try."""

    problem: str
    needed: bool
    link: bool


class SignIns:
    """Who is signed in to one hub; the loop's own.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store: SignInStore = core.gate.tokens.sign_ins()
        self._known: dict[bytes, tuple[int, Session]] = {}
        self._wrong: dict[str, list[int]] = {}
        # Cookies know no ports: two hubs of one machine would sign each other's visitors out.
        self.cookie = f"holdfast_{core.home.hub_id[:8]}"
        secure = "; Secure" if core.options.tls_cert or core.options.tls_terminated else ""
        self._flags = f"; Path=/; HttpOnly; SameSite=Strict{secure}"

    async def of(self, cookies: str) -> Session | None:
        """The session that a request's cookies name, as long as it holds."""
        secret = cookie_in(cookies, self.cookie)
        if not secret or len(secret) > SECRET_MAX:
            return None
        digest = digest_of(secret)
        change, now = self._core.gate.tokens.change, self._core.home.wall.now_ms()
        known = self._known.get(digest)
        if known is not None and known[0] == change and known[1].principal.ends_ms > now:
            return known[1]
        self._known.pop(digest, None)
        found = await self._core.read(lambda: self._store.find(digest, "session"))
        principal = await self._principal(found) if found is not None and found.ends_ms > now else None
        if found is None or principal is None:
            return None
        made = Session(digest, ending(principal, found.ends_ms))
        if len(self._known) >= KNOWN_MAX:
            self._known = {}
        self._known[digest] = change, made
        return made

    async def begin(self, principal: Principal, token: str) -> str:
        """A new session; returns the header that gives its cookie."""
        secret, now = secrets.token_urlsafe(32), self._core.home.wall.now_ms()
        ends = min(now + SESSION_MS, principal.ends_ms)
        made = SignIn(digest_of(secret), "session", token, now, ends)
        await self._core.read(lambda: self._store.add(made))
        return f"{self.cookie}={secret}; Max-Age={max(1, (ends - now) // 1000)}{self._flags}"

    async def end(self, session: Session) -> str:
        """Ends a session; returns the header that takes its cookie away."""
        self._known.pop(session.digest, None)
        await self._core.read(lambda: self._store.take(session.digest, "session"))
        for visit in list(self._core.gate.lingering):
            if visit.principal == session.principal:
                visit.end()
        return f"{self.cookie}=; Max-Age=0{self._flags}"

    async def by_link(self, secret: str) -> tuple[Principal, str]:
        """Whose link it is, and the id of his token; the link works no more.

        Raises:
            Unauthenticated: it was used, has ended, or never was one.
        """
        digest, now = digest_of(secret[:SECRET_MAX]), self._core.home.wall.now_ms()
        found = await self._core.read(lambda: self._store.take(digest, "link"))
        principal = await self._principal(found) if found is not None and found.ends_ms > now else None
        if found is None or principal is None:
            raise Unauthenticated("this link was used already, or has ended", hint="holdfast ui link makes another one")
        return principal, found.token

    async def by_token(self, text: str) -> tuple[Principal, str]:
        """Whose token it is, and its id.

        Raises:
            Unauthenticated: nobody's.
        """
        found = await self._core.gate.who_shows(text.strip()[:SECRET_MAX])
        if found in (NOBODY, STRANGER):
            raise Unauthenticated("this hub does not know that token", hint="is it another hub's, or revoked?")
        return found, found.id or BY_OPERATOR + self._core.gate.operator

    def check_rate(self, address: str) -> None:
        """Returns only if few from this address were wrong in the last minute.

        Raises:
            HubUnavailable: too many (429).
        """
        since = self._core.home.wall.now_ms() - WRONG_MS
        recent = [at for at in self._wrong.get(address, ()) if at > since]
        if len(recent) >= WRONG_MAX:
            error = HubUnavailable("too many wrong tries from this address", hint="wait a minute")
            error.status = 429
            raise error

    def was_wrong(self, address: str) -> None:
        """Notes a try that failed."""
        if len(self._wrong) >= ADDRESSES_MAX:
            self._wrong = {}
        now = self._core.home.wall.now_ms()
        self._wrong[address] = [*(at for at in self._wrong.get(address, ()) if at > now - WRONG_MS), now]

    async def _principal(self, found: SignIn) -> Principal | None:
        """Whose it is, if the token that it stands for still holds."""
        gate = self._core.gate
        if found.token.startswith(BY_OPERATOR):
            same = hmac.compare_digest(found.token.removeprefix(BY_OPERATOR), gate.operator)
            return OPERATOR if same and gate.operator else None
        return await self._core.read(lambda: gate.tokens.by_id(found.token))


def ending(principal: Principal, ends_ms: int) -> Principal:
    """The same, who ends no later than this."""
    return msgspec.structs.replace(principal, ends_ms=min(principal.ends_ms, ends_ms))


def cookie_in(cookies: str, name: str) -> str:
    """The value of a cookie; empty if it was not sent."""
    for part in cookies.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value
    return ""


async def sign_in_page(ask: Ask) -> View:
    """GET /sign-in: the form, or what a link is about to do."""
    link = bool(ask.query.link)
    if not link and (ask.session is not None or ask.principal is ANYBODY):
        return View(status=303, headers=(("location", _local(ask.query.next)),))
    return _form(ask, "", ask.query.next, ask.query.link)


async def sign_in(ask: Ask) -> View:
    """POST /sign-in: a session for whoever shows a token, or comes by a link that was not used yet."""
    sign_ins: SignIns = ask.front.sign_ins()
    address = str((ask.scope.get("client") or ("", 0))[0])
    sign_ins.check_rate(address)
    link, token, where = ask.form.get("link", ""), ask.form.get("token", ""), _local(ask.form.get("next", "/"))
    try:
        if not link and not token.strip():
            raise Unauthenticated("no token was given", hint="paste one")
        principal, token_id = await (sign_ins.by_link(link) if link else sign_ins.by_token(token))
    except (Unauthenticated, UsageError) as error:
        sign_ins.was_wrong(address)
        by = Actor(kind="stranger", who="", via=acts.PAGE)
        refused = {"address": address, "by": "link" if link else "token"}
        await ask.core.audit.note(Act(by=by, what=acts.REFUSED, about="the pages", detail=refused))
        view = _form(ask, f"{error.message}: {error.hint}".rstrip("?"), where, "")
        view.status = 401
        return view
    if principal is ANYBODY:
        return View(status=303, headers=(("location", where),))
    detail = {"address": address, "by": "link" if link else "token"}
    by = acts.by_principal(principal, acts.PAGE)
    await ask.core.audit.note(Act(by=by, what=acts.SIGN_IN, about="the pages", detail=detail))
    cookie = await sign_ins.begin(principal, token_id)
    return View(status=303, headers=(("location", where), ("set-cookie", cookie)))


async def sign_out(ask: Ask) -> View:
    """POST /sign-out: ends the session, here and in every process of the hub."""
    headers: tuple[tuple[str, str], ...] = (("location", "/sign-in"), ("clear-site-data", '"cache"'))
    if ask.session is not None:
        by = acts.by_principal(ask.principal, acts.PAGE)
        await ask.core.audit.note(Act(by=by, what=acts.SIGN_OUT, about="the pages"))
        cookie = await ask.front.sign_ins().end(ask.session)
        headers = (*headers, ("set-cookie", cookie))
    return View(status=303, headers=headers)


def _form(ask: Ask, problem: str, where: str, link: str) -> View:
    shown = Wrong(problem, needed=ask.core.gate.guarded, link=bool(link))
    return View(
        template="sign_in.html",
        title="Sign in",
        data=shown,
        extra={"next": _local(where), "link": link[:SECRET_MAX], "twin": ""},
    )


def _local(where: str) -> str:
    """A place on this hub; the front page for any other."""
    good = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable() and where.isascii()
    return where if good and not where.startswith("/sign-") else "/"
