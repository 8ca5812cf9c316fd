"""The hub as an ASGI application: the routes, and the door that every request passes."""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any, Final

from holdfast.errors import HoldfastError, MissingExtra, NotFound, Unauthenticated, UsageError
from holdfast.hub.core import Core
from holdfast.hub.directory import HubDirectory, Settle
from holdfast.hub.exchange import Gone, Receive, Scope, Send, answer_error, as_hubs, header
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

OPEN_PATHS: Final = ("/livez", "/readyz", "/health", "/version")
"""What probes ask without a token."""


class Door:
    """What each request passes: the token, the hub's name on each answer, and errors in one form.

    Args:
        app: what lies behind.
        core: the hub.
    """

    def __init__(self, app: Any, core: Core) -> None:
        self._app = app
        self._core = core
        self._mark = (HUB_HEADER.lower().encode(), core.home.gen.encode())
        self._token = f"Bearer {core.token}".encode() if core.token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes one request on, or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def marked(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], self._mark]
            await send(message)

        try:
            self._admit(scope)
            await self._app(scope, receive, marked)
        except Gone:
            logger.debug("a client left before its request was whole", extra={"path": scope["path"]})
        except HoldfastError as error:
            if started:
                logger.error("an answer broke off: %s", error, extra={"path": scope["path"]})
                raise
            await answer_error(marked, as_hubs(error, broken=self._core.corpus.engine.unusable))
        except Exception as error:
            logger.exception("a request failed", extra={"path": scope["path"], "method": scope["method"]})
            if started:
                raise
            unknown = HoldfastError("the hub failed on this request", hint="its log says why; nothing was acknowledged")
            unknown.__cause__ = error
            await answer_error(marked, unknown)

    def _admit(self, scope: Scope) -> None:
        if self._token is None or scope["path"] in OPEN_PATHS:
            return
        shown = header(scope, b"authorization")
        if not shown:
            raise Unauthenticated("this hub wants a token", hint="send it as: Authorization: Bearer <token>")
        if not hmac.compare_digest(shown, self._token):
            raise Unauthenticated("this hub does not know that token", hint="is it the one in the hub's --token-file?")


class Hub(Starlette):
    """The application; the hottest routes go past Starlette's layers, through the same door."""

    hot: Mapping[tuple[str, str], Door] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes one request on."""
        found = self.hot.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (found or super().__call__)(scope, receive, send)


def create_app(
    directory: str | os.PathLike[str] | HubDirectory,
    *,
    token: str | None = None,
    settle: Settle = "backups",
) -> Hub:
    """The hub of a directory, as an ASGI application; ``app.state.core`` is the hub itself.

    Args:
        directory: the hub's directory, made if missing; or one that is open already.
        token: what clients must show; None asks for nothing.
        settle: what nodes may evict: what the hub has acknowledged, or only what its backups hold too.

    Raises:
        Locked: another process serves this directory.
        UsageError: it is a node's directory.
    """
    from holdfast.hub import routes_feed, routes_health, routes_node, routes_read, routes_relay, routes_sync

    home = directory if isinstance(directory, HubDirectory) else HubDirectory(directory, settle=settle)
    core = Core(home, token=token)

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        await core.start()
        try:
            yield
        finally:
            await core.stop()

    def route(path: str, endpoint: Any, *methods: str) -> Route:
        return Route(path, endpoint, methods=list(methods) or ["GET"])

    hot = {
        ("POST", "/v1/append"): routes_node.Append(core),
        ("POST", "/sync/message"): routes_sync.OneMessage(core),
        ("POST", "/relay/immediate"): routes_relay.Immediate(core),
        ("GET", "/v1/feed"): routes_feed.FeedRoute(core),
    }
    app = Hub(
        routes=[
            *(route(path, endpoint, method) for (method, path), endpoint in hot.items()),
            route("/v1/hello", routes_node.Hello(core), "POST"),
            route("/v1/pull", routes_node.Pull(core)),
            route("/v1/blobs/{digest}", routes_node.Blobs(core), "GET", "PUT"),
            *(route(path, endpoint, *methods) for path, endpoint, *methods in routes_read.routes(core)),
            *(route(path, endpoint, *methods) for path, endpoint, *methods in routes_sync.routes(core)),
            *(route(path, endpoint, *methods) for path, endpoint, *methods in routes_relay.routes(core)),
            *(route(path, endpoint, *methods) for path, endpoint, *methods in routes_health.routes(core)),
        ],
        middleware=[Middleware(Door, core=core)],
        exception_handlers={HTTPException: _refuse},
        lifespan=life,
    )
    app.state.core = core
    app.hot = {which: Door(endpoint, core) for which, endpoint in hot.items()}
    return app


async def _refuse(request: Request, error: Exception) -> Any:
    """What Starlette refuses (no such path, not with this method), in our form."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        raise NotFound(f"there is nothing at {request.url.path}", hint="see docs/http.md for every endpoint")
    refused = UsageError(
        f"{request.method} {request.url.path}: {error.detail}", hint="see docs/http.md for every endpoint"
    )
    refused.status = error.status_code
    raise refused
