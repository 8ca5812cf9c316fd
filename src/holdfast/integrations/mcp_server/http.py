"""Several clients over streamable HTTP: who asks is known by Holdfast's own tokens, and no web page gets in.

The same gate stands before every request as before a hub's: the name that it is addressed to (a page whose name was
bound anew to this machine comes with that name), where it comes from, the token, how often.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.clock import SYSTEM
from holdfast.errors import Denied, HoldfastError, NotFound, UsageError
from holdfast.hub.exchange import Query, Receive, Scope, Send, answer_error
from holdfast.hub.gate import LOOPBACK, Gate, host_name
from holdfast.hub.options import Options
from holdfast.hub.principal import ANYBODY, NOBODY, READ, STRANGER, Principal, principal_of
from holdfast.hub.serve import application, is_loopback, listen, remove_ready, url_of, write_ready
from holdfast.hub.tokens import SqliteTokens, Tokens
from holdfast.integrations.mcp_server.desk import Desks
from holdfast.integrations.mcp_server.door import AccessToken, AuthenticatedUser, StreamableHTTPSessionManager
from holdfast.integrations.mcp_server.server import AGENT, Protocol, agent_of
from holdfast.node.directory import check_agent

logger = logging.getLogger(__name__)

PATH: Final = "/mcp"
PORT: Final = 8085
IDLE_S: Final = 3600.0
"""A client that is silent so long has to begin anew; what it wrote is kept."""
BODY_BYTES_MAX: Final = 24 << 20
"""A file of 16 MiB in base64, and what is around it."""
CLOSE_S: Final = 1.0


class Door:
    """What each request passes on its way to the SDK, as an ASGI application.

    Args:
        protocol: what is answered.
        gate: lets requests in.
        agent: in whose name a request is made that names nobody.
        hosts: names whose pages may ask, besides those of this machine.
    """

    def __init__(self, protocol: Protocol, gate: Gate, agent: str, hosts: tuple[str, ...]) -> None:
        self._gate = gate
        self._agent = agent
        self._hosts = frozenset(hosts)
        self._protocol = protocol
        self._sessions = StreamableHTTPSessionManager(
            protocol.server, session_idle_timeout=IDLE_S, max_request_body_size=BODY_BYTES_MAX
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._ask(scope, receive, send)

    def end_streams(self) -> None:
        """Ends the answers that go on and on."""
        self._protocol.notices.stop()
        for visit in list(self._gate.lingering):
            visit.end()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._sessions.run():
            self._gate.start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self._protocol.notices.stop()
            await self._gate.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = None
        started = False

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            self._check_origin(scope)
            visit = await self._gate.enter(scope, receive)
            # Each of its answers may go on and on: they end with the token.
            self._gate.lingering.add(visit)
            who = principal_of(scope)
            if who is NOBODY or who is STRANGER:
                who.need(READ)  # raises: without a token nothing is told, not even what tools there are
            if scope["path"].rstrip("/") != PATH:
                raise NotFound(f"there is nothing at {scope['path']:.80}", hint=f"MCP is spoken at {PATH}")
            scope[AGENT] = self._named(scope, who)
            if who is not ANYBODY:
                scope["user"] = _user(who, scope[AGENT])
            await self._sessions.handle_request(scope, visit, noted)
        except HoldfastError as error:
            if started:
                raise
            await answer_error(send, error)
        finally:
            if visit is not None:
                self._gate.leave(visit)

    def _check_origin(self, scope: Scope) -> None:
        """Returns only if no page of another site asks. The gate looks at those who write; here reading is as bad."""
        shown = {key: value.decode("latin-1").lower() for key, value in scope["headers"] if key in (b"origin", b"host")}
        if (origin := shown.get(b"origin")) is None:
            return
        place = origin.partition("://")[2]
        name = host_name(place)
        if place and (place == shown.get(b"host") or (name in self._hosts and name not in LOOPBACK)):
            return
        hint = "no CORS here: send it from a program; --host-name NAME for a site that may ask"
        raise Denied(f"a page of {origin:.80} may not ask this server", hint=hint)

    def _named(self, scope: Scope, who: Principal) -> str:
        """The agent in whose name a request is made, if it says so; whoever asks may be that agent."""
        named = Query(scope).text("agent", "") or ""
        if named:
            check_agent(named)
        return agent_of(who, named, self._agent) if named or who is not ANYBODY else ""


def _user(who: Principal, agent: str) -> AuthenticatedUser:
    """Whoever asks as the SDK knows him: a session is his who began it."""
    return AuthenticatedUser(
        AccessToken(token="", client_id=who.id or who.name, scopes=sorted(who.scopes), subject=f"{who} as {agent}")
    )


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server listens, and who may come.

    Attributes:
        host: anything but this machine itself needs tokens, and TLS or word that none is wanted.
        port: 0 takes a free one.
        tokens: the directory of the tokens that it knows; once one was made there, everybody needs one.
        options: names, TLS and limits.
        ready_file: written once it listens, as a hub's.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    tokens: Path | None = None
    options: Options = Options()
    ready_file: Path | None = None


def options_of(where: Listening) -> tuple[Options, Any]:
    """How a server listens there: the names that it answers to, and its TLS, if it has any.

    Raises:
        UsageError: other machines could reach it without tokens, or see them on the way.
    """
    from holdfast.hub.doorstep import prepare

    try:
        return prepare(where.host, where.tokens or Path("."), where.options, loopback=is_loopback(where.host))
    except UsageError as error:
        if "no token is set" in error.message:
            place = where.tokens or "DIR"
            hint = f"holdfast token create --data {place} --kind agent --name NAME; --tokens names another directory"
            raise UsageError(error.message, hint=hint) from error
        raise


def serve(protocol: Protocol, desks: Desks, where: Listening, told: Callable[[str], None] = lambda _: None) -> None:
    """Serves clients until SIGTERM or SIGINT.

    Args:
        protocol: what is answered.
        desks: whose they are.
        where: it listens.
        told: called with its address.

    Raises:
        UsageError: it may not, or cannot, listen there.
    """
    tokens, ready_file = where.tokens, where.ready_file
    how, tls = options_of(where)
    listener = listen(where.host, where.port)
    url = url_of(listener, tls is not None)

    def on_ready() -> None:
        if ready_file is not None:
            write_ready(ready_file, url)
        told(f"{url}{PATH}")

    with contextlib.closing(listener):
        known = None
        if tokens is not None:
            tokens.mkdir(mode=0o700, parents=True, exist_ok=True)
            known = Tokens(SqliteTokens(tokens))
        asyncio.run(_run(protocol, desks, how, known, listener, tls, on_ready))
    if ready_file is not None:
        remove_ready(ready_file)


async def _run(
    protocol: Protocol,
    desks: Desks,
    how: Options,
    known: Tokens | None,
    listener: socket.socket,
    tls: Any,
    on_ready: Callable[[], None],
) -> None:
    from holdfast.hub.tokens_none import NoTokens

    gate = Gate(how, known or Tokens(NoTokens()), SYSTEM, asyncio.to_thread)
    door = Door(protocol, gate, desks.agent, how.hosts)
    server = application(door, tls, on_ready)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        listener.close()
        door.end_streams()
        server.should_exit = True

    main = threading.current_thread() is threading.main_thread()
    for number in (signal.SIGTERM, signal.SIGINT) if main else ():
        loop.add_signal_handler(number, stop)
    own = listener.dup()
    own.setblocking(False)
    await server.serve(sockets=[own])
