"""Where the pages are, who may see them, and what stands before each: light, so that a hub without visitors stays so.

A page is declared once (`Page`); its twin in JSON is at the same address with ``.json`` behind the path and shows the
very data that the page is made of. The rights are those of the API, and are checked by the same `Guarded`; what makes
somebody known is the cookie of his session, which counts for pages alone: the API does not look at it.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

import msgspec

from holdfast.errors import NotFound, Unauthenticated
from holdfast.hub import audit
from holdfast.hub.api import ANY, JSON, Endpoint, Guarded, Nothing, Operation, parameters_of
from holdfast.hub.exchange import Query, Receive, Scope, Send, answer, body_of, encode_json, header
from holdfast.hub.principal import NOBODY, READ, Principal, principal_of, set_principal

if TYPE_CHECKING:
    from holdfast.hub.core import Core
    from holdfast.hub.ui.sign_in import Session

HTML: Final = "text/html; charset=utf-8"
FORM: Final = "application/x-www-form-urlencoded"
FORM_BYTES_MAX: Final = 64 << 10
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE: Final = (
    ("content-security-policy", CSP),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ("cache-control", "no-store"),
    ("vary", "Accept, Cookie"),
)
FILE_SCALE: Final = 10
"""Of a file so many pages are made at once."""
_STATE: Final = "holdfast.ui.session"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page, or what one of its forms does.

    Attributes:
        path: of it; what is behind ``{rest}`` are its parts, each percent-encoded, so that a part may hold a slash.
        work: module and function below `holdfast.hub.ui` that makes its `View`.
        method: of the request.
        needs: the scope that whoever asks must have; empty: none.
        or_needs: another scope that is enough, where the page itself looks further; empty: none.
        query: the struct of its parameters.
        twin: whether there is one in JSON.
    """

    path: str
    work: str
    method: str = "GET"
    needs: str = READ
    or_needs: str = ""
    query: type = Nothing
    twin: bool = True


class View(msgspec.Struct, kw_only=True):
    """What a page shows.

    Attributes:
        template: makes the page of `data`; empty: there is none, and `headers` say where to go.
        title: of the page.
        data: a struct, whose JSON is the twin; bytes, of the media type `kind`, are answered as they are.
        live: the page's name in the stream of its changes; empty: it does not change by itself.
        stream: answers in place of all that, for what is too large to be held at once.
        status, headers: of the answer.
        rows: the field of `data` that is a list, which `?format=` makes a file of; it goes on behind `data.next`.
        pieces: an async iterator of bytes, of the media type `kind`: the whole answer, sent as it comes.
        extra: what the template is given beside `data`, and the twin does not show.
    """

    template: str = ""
    title: str = ""
    data: Any = None
    kind: str = JSON
    live: str = ""
    stream: Endpoint | None = None
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    rows: str = ""
    pieces: Any = None
    extra: dict[str, Any] = {}


class Ask:
    """One request for a page.

    Attributes:
        front: what the pages share; `core` is the hub.
        scope: of the request.
        principal: who asks.
        session: the one by which he is known; None if he showed a token, or needs none.
        parts: what is behind the page's own path.
        query: the page's struct.
        form: the fields that were sent.
        scale: how many times longer the pages of a list are: a file takes more at once than a page.
    """

    __slots__ = ("core", "form", "front", "parts", "principal", "query", "scale", "scope", "session")

    def __init__(self, front: Front, scope: Scope, query: Any, form: Any) -> None:
        self.front, self.core = front, front.core
        self.scope, self.query, self.form = scope, query, form
        self.principal: Principal = principal_of(scope)
        self.session: Session | None = scope.get(_STATE)
        self.parts = parts_of(scope)
        self.scale = 1

    def header(self, name: bytes) -> str:
        """The value of a header, in lower-case name."""
        return header(self.scope, name).decode("latin-1")


Maker = Callable[[Ask], Awaitable[View]]


def parts_of(scope: Scope) -> list[str]:
    """The parts of a request's path behind the first, decoded one by one: ``/data/a%2Fb/k`` has ``a/b`` and ``k``."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    path = raw.partition(b"?")[0].decode("ascii", "replace")
    return [unquote(part, errors="replace") for part in path.split("/")[2:]]


def wants_page(scope: Scope) -> bool:
    """Whether whoever asks is a browser that goes to a page."""
    return scope["type"] == "http" and b"text/html" in header(scope, b"accept")


class Shown:
    """The endpoint of one page: decodes, has it made, and answers with it or with its twin."""

    def __init__(self, front: Front, page: Page) -> None:
        self._front = front
        self._page = page
        self._parameters = parameters_of(page.query)
        self._maker: Maker | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        page, front = self._page, self._front
        if page.method == "GET" and b"zone=" in scope["query_string"] and await _settled(scope, send):
            return
        form: Any = {}
        if page.method == "POST":
            data = await body_of(scope, receive, FORM_BYTES_MAX)
            form = front.forms().read(scope, data, scope.get(_STATE))
            audit.about(scope, form)
        ask = Ask(front, scope, self._parameters.read(Query(scope)), form)
        twin = page.twin and scope["path"].endswith(".json")
        if twin and ask.parts:
            ask.parts[-1] = ask.parts[-1].removesuffix(".json")
        if self._maker is None:
            module, _, name = page.work.partition(".")
            self._maker = getattr(importlib.import_module(f"holdfast.hub.ui.{module}"), name)
        wanted = page.method == "GET" and bool(getattr(ask.query, "format", ""))
        if wanted:
            ask.scale = FILE_SCALE
        view = await self._maker(ask)
        if view.stream is not None:
            await view.stream(scope, receive, send)
            return
        extra = _headers(ask.scope, *view.headers)
        if view.pieces is not None:
            await _stream(view, send, extra)
        elif wanted and not isinstance(view.data, bytes):
            from holdfast.hub.ui.exports import export

            await export(ask, self._maker, view, send)
        elif view.template and not twin:
            await front.show(ask, view, send)
        else:
            body = view.data if isinstance(view.data, bytes) else encode_json(view.data) if view.template else b""
            await answer(send, body, kind=view.kind.encode(), status=view.status, extra=extra)


async def _settled(scope: Scope, send: Send) -> bool:
    """Whether a form said times in a zone of its own, and was sent on to the address that has them in UTC."""
    from holdfast.hub.ui.zones import settled

    query = settled(scope["query_string"].decode("latin-1"))
    if query is not None:
        path = (scope.get("raw_path") or quote(scope["path"]).encode()).partition(b"?")[0].decode("ascii", "replace")
        place = path + (f"?{query}" if query else "")
        await answer(send, b"", kind=HTML.encode(), status=303, extra=_headers(scope, ("location", place)))
    return query is not None


async def _stream(view: View, send: Send, extra: Any) -> None:
    headers = [(b"content-type", view.kind.encode()), *extra]
    await send({"type": "http.response.start", "status": view.status, "headers": headers})
    async for piece in view.pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Front:
    """Everything that the pages of one hub share.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self._forms: Any = None
        self._sign_ins: Any = None
        self._usage: Any = None
        self._blob_use: Any = None
        self.once: dict[str, None] = {}
        """The names of forms that may be sent once, of those that were; the oldest first."""
        self.kept: dict[str, Any] = {}
        """What pages keep between requests, by a name of their own."""

    def usage(self) -> Any:
        """Who has written how much."""
        if self._usage is None:
            from holdfast.hub.ui.usage import Usage

            self._usage = Usage(self.core)
        return self._usage

    def blob_use(self) -> Any:
        """Which records name which blobs."""
        if self._blob_use is None:
            from holdfast.hub.ui.blob_use import BlobUse

            self._blob_use = BlobUse(self.core)
        return self._blob_use

    def forms(self) -> Any:
        """What reads forms, and lets only those of our own pages pass."""
        if self._forms is None:
            from holdfast.hub.ui.forms import Forms

            self._forms = Forms(self.core)
        return self._forms

    def sign_ins(self) -> Any:
        """Who is signed in."""
        if self._sign_ins is None:
            from holdfast.hub.ui.sign_in import SignIns

            self._sign_ins = SignIns(self.core)
        return self._sign_ins

    async def known(self, scope: Scope) -> Principal:
        """Who asks for a page: whoever showed a token, else whoever is signed in."""
        principal = principal_of(scope)
        if principal is NOBODY and (cookies := header(scope, b"cookie")):
            session = await self.sign_ins().of(cookies.decode("latin-1"))
            if session is not None:
                scope[_STATE] = session
                principal = session.principal
                set_principal(scope, principal)
        return principal

    async def show(self, ask: Ask, view: View, send: Send) -> None:
        """Answers with a page."""
        from holdfast.hub.ui.frame import page_of

        data = await page_of(self, ask, view)
        extra = _headers(ask.scope, *view.headers)
        await answer(send, data, kind=HTML.encode(), status=view.status, extra=extra)

    async def refuse(self, scope: Scope, error: Any, send: Send) -> None:
        """Answers a browser with an error as a page; who is not signed in is taken to where he can."""
        if isinstance(error, Unauthenticated) and scope["method"] in ("GET", "HEAD"):
            place = scope["path"] + ("?" + scope["query_string"].decode("latin-1") if scope["query_string"] else "")
            where = "/sign-in" if place == "/" else "/sign-in?next=" + quote(place, safe="/")
            await answer(send, b"", kind=HTML.encode(), status=303, extra=_headers(scope, ("location", where)))
            return
        from holdfast.hub.ui.frame import error_view

        ask = Ask(self, scope, None, {})
        await self.show(ask, error_view(error), send)


class Guest:
    """A page behind its guard: finds out who is signed in before anybody asks what he may."""

    def __init__(self, front: Front, guarded: Guarded) -> None:
        self.operation = guarded.operation
        self._front = front
        self._guarded = guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        await self._front.known(scope)
        await self._guarded(scope, receive, send)


class FrontDoor:
    """GET /: the Overview for browsers, and for everybody else what it always was."""

    def __init__(self, operation: Operation, service: Any, overview: Any) -> None:
        self.operation = operation
        self._service = service
        self._overview = overview

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        await (self._overview if wants_page(scope) else self._service)(scope, receive, send)


def _headers(scope: Scope, *more: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """What stands over every answer; later ones replace earlier ones."""
    found = dict(SAFE)
    if scope.get("scheme") == "https":  # over plain HTTP browsers ignore it, and complain
        found["cross-origin-opener-policy"] = "same-origin"
    return _encoded({**found, **dict(more)}.items())


def _encoded(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]


def no_page(where: str) -> NotFound:
    """The error of a page that is not there."""
    return NotFound(f"there is no page {where!r:.120}", hint="the links above lead to all there are")


def with_pages(guarded: list[Guarded], front: Front) -> list[Any]:
    """Everything that a hub answers, its pages included; ``GET /`` is the Overview to browsers."""
    pages = guests(front)
    overview = next(each for each in pages if each.operation.path == "/overview")
    root = ("GET", "/")
    return [
        *(
            FrontDoor(g.operation, g, overview) if (g.operation.method, g.operation.path) == root else g
            for g in guarded
        ),
        *pages,
    ]


def guests(front: Front) -> list[Any]:
    """Every page of a hub, behind its guard, with one meter for a page and its twin."""
    from holdfast.hub.ui.pages import PAGES

    found: list[Any] = []
    for page in PAGES:
        meter = front.core.meters.of(page.method, page.path, lasting=page.path == "/ui/events")
        for path in _paths(page):
            found.append(Guest(front, Guarded(_operation(front, page, path), meter, front.core.audit)))
    return found


def _paths(page: Page) -> list[str]:
    if not page.twin or "{" in page.path:  # what is behind a part is part of it, and looked at there
        return [page.path]
    return [page.path, f"{page.path}.json"]


def _operation(front: Front, page: Page, path: str) -> Operation:
    """The page as an operation, for its guard: it is in no document, as it is for people."""
    if page.path == "/ui/events":
        from holdfast.hub.ui.live import Events

        endpoint: Any = Events(front, parameters_of(page.query))
    else:
        endpoint = Shown(front, page)
    post = page.method == "POST"
    return Operation(
        method=page.method,
        path=path,
        endpoint=endpoint,
        needs=page.needs,
        or_needs=page.or_needs,
        summary="A page",
        tag="pages",
        body=bytes if post else None,
        takes=(FORM,) if post else (ANY,),
        answer=bytes,
        gives=HTML,
    )
