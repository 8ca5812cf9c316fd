"""`serve`: one process, one event loop, one listening socket of our own, and a stop within three seconds.

The socket is ours because of one option: uvicorn's own ways to share or inherit one leave Nagle's algorithm on (44 ms
instead of 1 ms a request). uvicorn and Starlette are imported when a server really starts.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from holdfast.disk import is_stream, replacing
from holdfast.errors import HoldfastError, HubUnavailable, MissingExtra, UsageError
from holdfast.hub.options import LIVE, Options, options_of
from holdfast.hub.systemd import notify, watch

if TYPE_CHECKING:
    import asyncio
    import ssl

    from holdfast.hub.care import Run
    from holdfast.hub.core import Core
    from holdfast.hub.errands import Said

logger = logging.getLogger(__name__)

PORT: Final = 8084
STOP_S: Final = 1.5
"""What requests under way get to end in; with closing the files it stays below three seconds."""
SWITCH_S: Final = 0.001
"""The writer, the syncer and the readers share the interpreter with the loop: none may hold it for Python's 5 ms."""
BACKLOG: Final = 2048
_MALLOC: Final = ((-8, 2), (-3, 128 << 10), (-1, 256 << 10))
"""M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD: a burst must not stay in a hub's memory for ever."""


def serve(
    directory: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    *,
    options: Options | Callable[[], Options] | None = None,
    ready_file: str | os.PathLike[str] | None = None,
    **given: Any,
) -> None:
    """Serves a hub's directory or database until SIGTERM or SIGINT; returns when everything is synced and closed.

    Args:
        directory: the hub's directory; made if missing. Not with a database.
        host: where to listen; anything but this machine itself needs tokens, and TLS or word that none is wanted.
        port: 0 takes a free one, and says which.
        options: how it is to run; a function is asked now, and again at each SIGHUP, in a thread: what can be taken up
            while it runs is (`options.LIVE`), the rest is told and waits for the next start.
        ready_file: written, as a whole, once the hub listens: ``{"url": …, "port": …, "pid": …}``.
        given: fields of `Options`, in place of theirs.

    Raises:
        Locked: another process serves this directory.
        HubUnavailable: the database cannot be reached, or was promoted or restored.
        MissingExtra: the packages of ``holdfast[hub]`` are not installed.
        UsageError: a host that is not this machine, without tokens or without TLS; an address that cannot be listened
            at; or a certificate that is none.
    """

    def ask() -> Options:
        return options_of(options() if callable(options) else options, given)

    how = asked = ask()
    uvicorn = _uvicorn()
    import asyncio

    from holdfast.hub.app import create_app
    from holdfast.hub.doorstep import prepare

    how, tls = prepare(host, None if directory is None else Path(directory), how, loopback=is_loopback(host))

    listener = listen(host, port)
    sys.setswitchinterval(SWITCH_S)
    _give_memory_back()
    url = url_of(listener, tls is not None)

    def on_ready() -> None:
        _give_memory_back()  # what the start has left behind
        if ready_file is not None:
            write_ready(Path(ready_file), url)
        notify("READY=1")
        print(f"holdfast hub at {url}", flush=True)

    came_back: tuple[Run, Said] | None = None
    with contextlib.closing(listener):
        while True:
            app = create_app(directory, how)
            core: Core = app.state.core
            core.care.came_back = came_back
            server = _server_class(uvicorn)(_config(uvicorn, app, tls), on_ready)
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(_run(server, core, listener, _renewal(tls, how), _reloading(core, asked, ask)))
            came_back = _between(core)
            if came_back is None:
                break
            how = core.options
    _ended(core, ready_file)


def application(app: Any, tls: ssl.SSLContext | None, on_ready: Callable[[], None]) -> Any:
    """A server of another ASGI application, which serves as a hub does.

    Its `serve(sockets=[…])` ends when its `should_exit` is set; signals are left to the caller.

    Args:
        app: it.
        tls: what its connections are secured with; None: nothing.
        on_ready: called when it listens.
    """
    uvicorn = _uvicorn()
    return _server_class(uvicorn)(_config(uvicorn, app, tls), on_ready)


def _between(core: Core) -> tuple[Run, Said] | None:
    """Does what the hub paused for, and returns what came of it; None: it did not pause, or is to end."""
    errand = core.care.paused_for
    if errand is None or core.lost:
        return None
    from holdfast.hub.errands import Said
    from holdfast.hub.pausing import carry_out

    said: Said | None
    try:
        said = carry_out(errand)
    except OSError as error:
        said = Said(error=str(error))  # nothing was begun: the hub goes on as it was
    return None if said is None else (core.care.run_of(errand), said)


def _config(uvicorn: Any, app: Any, tls: ssl.SSLContext | None) -> Any:
    return uvicorn.Config(
        app,
        http=_connections(),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody here asks who the client is, so nobody can say that he is another
        ssl_context_factory=(lambda *_: tls) if tls is not None else None,
        backlog=BACKLOG,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_S,
    )


def _ended(core: Core, ready_file: str | os.PathLike[str] | None) -> None:
    if ready_file is not None:
        remove_ready(Path(ready_file))
    if core.lost:
        raise HubUnavailable(f"this hub ended: {core.lost}", hint="start it again; nodes keep everything")


def _renewal(tls: ssl.SSLContext | None, options: Options) -> Callable[[], None]:
    """What SIGHUP does: reads the certificate again."""

    def renew() -> None:
        from holdfast.hub.doorstep import load_certificate

        if tls is None:
            return
        try:
            load_certificate(tls, options)
            logger.warning("read the certificate again: %s", options.tls_cert)
        except UsageError as error:
            logger.error("the certificate stays as it was: %s", error)

    return renew


def _reloading(core: Core, asked: Options, reload: Callable[[], Options]) -> Callable[[], Awaitable[None]]:
    """What SIGHUP does besides: takes up what may change while a hub runs, and tells what has to wait."""
    before = asked

    async def again() -> None:
        nonlocal before
        import asyncio

        try:
            wanted = await asyncio.to_thread(reload)
        except HoldfastError as error:
            logger.error("the configuration stays as it was: %s", " | ".join(error.message.splitlines()))
            return
        fields = [name for name in Options.__struct_fields__ if name != "told"]  # which is about the others
        names = [name for name in fields if getattr(wanted, name) != getattr(before, name)]
        core.take_up(wanted)
        before = wanted
        logger.warning("read the configuration again: %s", ", ".join(n for n in names if n in LIVE) or "nothing new")
        if waiting := [name for name in names if name not in LIVE]:
            logger.warning("waits for the next start: %s", ", ".join(waiting))

    return again


async def _run(
    server: Any,
    core: Core,
    listener: socket.socket,
    renew: Callable[[], None],
    again: Callable[[], Awaitable[None]],
) -> None:
    import asyncio

    from holdfast.hub.doorstep import sweep

    loop = asyncio.get_running_loop()
    # uvicorn closes what it is given; this one stays for the time that the hub may pause.
    listening = listener.dup()
    listening.setblocking(False)
    watchdog = loop.create_task(watch())

    def stop() -> None:
        notify("STOPPING=1")
        core.care.paused_for = None
        listener.close()
        leave()

    def leave() -> None:
        # The streams first: uvicorn waits for answers to end, and these never would.
        core.end_streams()
        server.should_exit = True

    reloads: set[asyncio.Task[None]] = set()

    def hang_up() -> None:
        renew()
        task = asyncio.ensure_future(again())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    core.on_lost = stop
    core.care.on_pause = leave
    # Only a main thread gets signals; elsewhere whoever started us ends the process.
    main = threading.current_thread() is threading.main_thread()
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: hang_up} if main else {}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    sweeping = asyncio.create_task(sweep(server.server_state.connections, lambda: core.options.pause_s))
    try:
        await server.serve(sockets=[listening])
    finally:
        watchdog.cancel()
        sweeping.cancel()
        for number in handlers:
            loop.remove_signal_handler(number)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket with TCP_NODELAY, which the connections accepted from it inherit.

    Raises:
        UsageError: nothing can listen there.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            _plain(host), port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # The protocol is named because asyncio asks for it before it believes that this is TCP.
        listener = socket.socket(family, kind, proto)
    except OSError as error:
        raise UsageError(f"cannot listen at {host}: {error}", hint="is it an address of this machine?") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen at {host} port {port}: {error}", hint="--port 0 takes a free one") from error
    listener.setblocking(False)
    return listener


def _plain(host: str) -> str | bytes:
    # As bytes a name is taken as it is; as text Python loads the tables of Unicode first.
    return host.encode() if host.isascii() else host


def is_loopback(host: str) -> bool:
    """Whether every address of this host name is this machine's own loopback."""
    import ipaddress

    try:
        found = socket.getaddrinfo(_plain(host or "0.0.0.0"), None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = [str(each[4][0]).split("%")[0] for each in found]
    return bool(addresses) and all(ipaddress.ip_address(each).is_loopback for each in addresses)


def url_of(listener: socket.socket, tls: bool = False) -> str:
    """The address that a client on this machine can use."""
    scheme = "https" if tls else "http"
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def write_ready(path: Path, url: str) -> None:
    """Says where the hub listens: the file appears whole, or not at all."""
    with replacing(path) as file:
        file.write(json.dumps({"url": url, "port": int(url.rpartition(":")[2]), "pid": os.getpid()}).encode() + b"\n")


def remove_ready(path: Path) -> None:
    """Takes back what `write_ready` said, once the hub listens no more."""
    if not is_stream(path):
        path.unlink(missing_ok=True)


def _give_memory_back() -> None:
    """Asks glibc to return large blocks at once, to keep few arenas, and to return now what is free.

    Other libraries are left as they are.
    """
    import ctypes
    import gc

    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt") and hasattr(library, "malloc_trim"):
        for option, value in _MALLOC:
            library.mallopt(option, value)
        gc.collect()
        library.malloc_trim(0)


def _server_class(uvicorn: Any) -> Any:
    class Server(uvicorn.Server):  # type: ignore[misc]
        """uvicorn's, which says when it listens and leaves the signals to us."""

        def __init__(self, config: Any, on_ready: Callable[[], None]) -> None:
            super().__init__(config)
            self._on_ready = on_ready

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if self.started:
                self._on_ready()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server


def _uvicorn() -> Any:
    try:
        import uvicorn
    except ImportError as error:
        raise MissingExtra(
            f"a hub needs a package that is not installed: {error.name}", hint="pip install 'holdfast[hub]'"
        ) from error
    return uvicorn


def _connections() -> Any:
    """What makes uvicorn's connections; h11 counts and times nothing but the size of heads."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "h11"
    from holdfast.hub.doorstep import connection_class

    return connection_class(HttpToolsProtocol)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
