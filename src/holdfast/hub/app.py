"""The hub as an ASGI application: the routes, and the door that every request passes."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.hub.api import Guarded, Operation
from holdfast.hub.core import Core
from holdfast.hub.exchange import Gone, Receive, Scope, Send, answer, answer_error, as_hubs
from holdfast.hub.gate import Visit
from holdfast.hub.home import Home, open_home
from holdfast.hub.options import Options, options_of
from holdfast.hub.principal import NOBODY, READ, STRANGER, principal_of
from holdfast.hub.routing import Routes, by_path, live
from holdfast.hub.ui import routes as ui
from holdfast.wire import HUB_HEADER

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


class Hub:
    """The application: every request passes the door; the hottest operations have one of their own.

    Attributes:
        state: `core` is the hub, `operations` what it answers besides its pages.
        routes: every path that it answers.

    Args:
        core: the hub.
        front: tells browsers of errors.
        answering: everything that it answers.
    """

    def __init__(self, core: Core, front: ui.Front, answering: list[Any]) -> None:
        self.state = SimpleNamespace(core=core, operations=[])
        self.routes = by_path(answering)
        self._core, self._front = core, front
        self._found = Routes(self.routes)
        self._door = Door(self._answer, core, front)
        self.hot: Mapping[tuple[str, str], Door] = {
            (each.operation.method, each.operation.path): Door(each, core, front)
            for each in answering
            if isinstance(each, Guarded) and each.operation.hot
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes one request on, or lives as long as the server does."""
        if scope["type"] == "lifespan":
            await live(self._life, receive, send)
        elif scope["type"] == "http":
            await (self.hot.get((scope["method"], scope["path"])) or self._door)(scope, receive, send)
        else:
            raise RuntimeError(f"a hub speaks HTTP alone, and was asked by {scope['type']}")

    @contextlib.asynccontextmanager
    async def _life(self) -> AsyncIterator[None]:
        await self._core.start()
        try:
            yield
        finally:
            await self._core.stop()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        found, scope["path_params"] = self._found.find(method, path)
        if found is not None and method in found.allowed:
            await found(scope, receive, send)
            return
        if found is None and (other := self._found.beside(method, path)):
            query = scope["query_string"].decode("latin-1")
            place = quote(other) + (f"?{query}" if query else "")
            await answer(send, b"", status=307, extra=[(b"location", place.encode())])
            return
        if ui.wants_page(scope):
            await self._front.known(scope)
        _refuse(scope, () if found is None else sorted(found.allowed))


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

    front = ui.Front(core)
    guarded = [
        Guarded(each, core.meters.of(each.method, each.path, lasting=each.lasting), core.audit)
        for each in operations(core)
    ]
    app = Hub(core, front, ui.with_pages(guarded, front))
    app.state.operations = [g.operation for g in guarded]
    return app


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


def _refuse(scope: Scope, allowed: Sequence[str]) -> None:
    """Refuses what there is not: no such path, or none with this method.

    Args:
        scope: of the request.
        allowed: the methods that the path has; none: there is no such path.

    Raises:
        HoldfastError: always.
    """
    principal = principal_of(scope)
    if principal in (NOBODY, STRANGER):
        principal.need(READ)  # raises: what there is, only those learn who may ask
    method, path, hint = scope["method"], scope["path"], "see docs/http.md for every endpoint"
    if not allowed:
        raise NotFound(f"there is nothing at {path}", hint=hint)
    refused = UsageError(f"{method} {path}: Method Not Allowed", hint=hint, allow=", ".join(allowed))
    refused.status = 405
    raise refused
