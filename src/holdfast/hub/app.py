"""The hub as an ASGI application: the routes, and the door that every request passes."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any, Final

from holdfast.errors import HoldfastError, MissingExtra, NotFound, UsageError
from holdfast.hub.api import Guarded, Operation
from holdfast.hub.core import Core
from holdfast.hub.exchange import Gone, Receive, Scope, Send, answer_error, as_hubs
from holdfast.hub.gate import Visit
from holdfast.hub.home import Home, open_home
from holdfast.hub.options import Options, options_of
from holdfast.hub.principal import NOBODY, READ, STRANGER, principal_of
from holdfast.hub.ui import routes as ui
from holdfast.wire import HUB_HEADER

try:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.routing import Route
except ImportError as error:  # pragma: no cover - tests/house installs without extras
    raise MissingExtra(
        f"a hub needs a package that is not installed: {error.name}", hint="pip install 'holdfast[hub]'"
    ) from error

logger = logging.getLogger(__name__)

_SAFE: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""What tells a browser to make nothing of an answer that it was not meant for."""


class Door:
    """What each request passes: the gate, the hub's name on each answer, and errors in one form.

    Args:
        app: what lies behind.
        core: the hub.
        front: tells browsers of errors.
    """

    def __init__(self, app: Any, core: Core, front: ui.Front) -> None:
        self._app = app
        self._core = core
        self._front = front
        self._gate = core.gate
        self._marks = [(HUB_HEADER.lower().encode(), core.home.gen.encode()), *_SAFE]
        if core.options.tls_cert:
            self._marks.append((b"strict-transport-security", b"max-age=31536000"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes one request on, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        visit: Visit | None = None

        async def marked(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                if visit is not None and visit.ended:
                    visit.ended = False
                    STRANGER.need(READ)  # raises: its token was revoked while it waited
                started = True
                message["headers"] = [*message["headers"], *self._marks]
            await send(message)

        try:
            visit = await self._gate.enter(scope, receive)
            await self._app(scope, visit, marked)
        except Gone:
            logger.debug("a client left before its request was whole", extra={"path": scope["path"]})
        except HoldfastError as error:
            if started:
                logger.error("an answer broke off: %s", error, extra={"path": scope["path"]})
                raise
            await self._refuse(scope, as_hubs(error, broken=self._core.corpus.unusable), marked)
        except Exception as error:
            where = {"path": scope["path"], "method": scope["method"], "request_id": secrets.token_hex(8)}
            logger.exception("a request failed", extra=where)
            if started:
                raise
            unknown = HoldfastError(
                "the hub failed on this request",
                hint="its log says why, under this request_id; nothing was acknowledged",
                request_id=where["request_id"],
            )
            unknown.__cause__ = error
            await self._refuse(scope, unknown, marked)
        finally:
            if visit is not None:
                self._gate.leave(visit)

    async def _refuse(self, scope: Scope, error: HoldfastError, send: Send) -> None:
        """Answers with an error: to a browser with a page, as long as pages can be made."""
        if ui.wants_page(scope) and not self._core.corpus.unusable:
            try:
                await self._front.refuse(scope, error, send)
                return
            except Exception:
                logger.exception("the page of an error could not be made", extra={"path": scope["path"]})
        await answer_error(send, error)


class Hub(Starlette):
    """The application; the hottest routes go past Starlette's layers, through the same door."""

    hot: Mapping[tuple[str, str], Door] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes one request on."""
        found = self.hot.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (found or super().__call__)(scope, receive, send)


def create_app(
    directory: str | os.PathLike[str] | Home | None = None, options: Options | None = None, **given: Any
) -> Hub:
    """The hub of a directory or a database, as an ASGI application; ``app.state.core`` is the hub itself.

    Args:
        directory: the hub's directory, made if missing; or a home that is open already. Not with a database.
        options: how it is to run.
        given: fields of `Options`, in place of those in `options`.

    Raises:
        HubUnavailable: the database cannot be reached.
        Locked: another process serves this directory.
        UsageError: it is a node's directory, or there is no such option.
    """
    how = options_of(options, given)
    home = directory if isinstance(directory, Home) else open_home(directory, how)
    try:
        core = Core(home, how)
    except BaseException:
        if home is not directory:
            home.close()
        raise

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        await core.start()
        try:
            yield
        finally:
            await core.stop()

    front = ui.Front(core)
    guarded = [
        Guarded(each, core.meters.of(each.method, each.path, lasting=each.lasting), core.audit)
        for each in operations(core)
    ]
    answering = ui.with_pages(guarded, front)
    app = Hub(
        routes=[Route(each.pattern, each, methods=list(each.allowed)) for each in by_path(answering).values()],
        middleware=[Middleware(Door, core=core, front=front)],
        exception_handlers={HTTPException: _refuser(front)},
        lifespan=life,
    )
    app.state.operations = [g.operation for g in guarded]
    app.state.core = core
    app.hot = {(g.operation.method, g.operation.path): Door(g, core, front) for g in guarded if g.operation.hot}
    return app


class Methods:
    """What one path answers to, each method with its own guard; HEAD is GET unless it is an operation of its own.
    `pattern` is the path as Starlette matches it.

    Args:
        guarded: the operations of this path.
    """

    def __init__(self, guarded: list[Any]) -> None:
        self.allowed = {each.operation.method: each for each in guarded}
        first = guarded[0].operation
        self.pattern = first.path.replace(f"{{{first.deep}}}", f"{{{first.deep}:path}}") if first.deep else first.path
        if "GET" in self.allowed:
            self.allowed.setdefault("HEAD", self.allowed["GET"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request with a method that is allowed."""
        await self.allowed[scope["method"]](scope, receive, send)


def by_path(guarded: list[Any]) -> dict[str, Methods]:
    """The operations of each path together, so that whoever uses another method is told all that there are."""
    found: dict[str, list[Any]] = {}
    for each in guarded:
        found.setdefault(each.operation.path, []).append(each)
    return {path: Methods(each) for path, each in found.items()}


def operations(core: Core) -> list[Operation]:
    """Everything that a hub answers."""
    from holdfast.hub import (
        metrics,
        routes_audit,
        routes_collections,
        routes_decide,
        routes_docs,
        routes_erase,
        routes_feed,
        routes_files,
        routes_heads,
        routes_health,
        routes_mail,
        routes_me,
        routes_node,
        routes_nodes,
        routes_notify,
        routes_read,
        routes_relay,
        routes_search,
        routes_storage,
        routes_sync,
    )

    rooms = (
        *(routes_sync, routes_files, routes_relay, routes_read, routes_mail, routes_decide, routes_erase, routes_feed),
        *(
            routes_node,
            routes_nodes,
            routes_heads,
            routes_me,
            routes_collections,
            routes_search,
            routes_storage,
            routes_health,
            metrics,
            routes_notify,
            routes_audit,
        ),
    )
    found = [operation for room in rooms for operation in room.operations(core)]
    found += routes_docs.operations(found)
    return found


def _refuser(front: ui.Front) -> Any:
    async def refuse(request: Request, error: Exception) -> Any:
        if ui.wants_page(request.scope):
            await front.known(request.scope)
        _refuse(request, error)

    return refuse


def _refuse(request: Request, error: Exception) -> None:
    """What Starlette refuses (no such path, not with this method), in our form."""
    assert isinstance(error, HTTPException)
    principal = principal_of(request.scope)
    if principal in (NOBODY, STRANGER):
        principal.need(READ)  # raises: what there is, only those learn who may ask
    if error.status_code == 404:
        raise NotFound(f"there is nothing at {request.url.path}", hint="see docs/http.md for every endpoint")
    allow = (error.headers or {}).get("Allow", "")
    context = {"allow": allow} if allow else {}
    refused = UsageError(
        f"{request.method} {request.url.path}: {error.detail}", hint="see docs/http.md for every endpoint", **context
    )
    refused.status = error.status_code
    raise refused
