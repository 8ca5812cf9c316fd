"""How connections come in: TLS with a certificate of one's own, heads that are short and come at once.

uvicorn hands a request on when its head is whole. Until then nobody would count the bytes or look at the clock; the
connection class here does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import UsageError
from holdfast.hub.gate import LOOPBACK, is_address
from holdfast.hub.options import Options
from holdfast.hub.token_text import split
from holdfast.hub.tokens import has_tokens

HEAD_BYTES_MAX: Final = 32 << 10
SWEEP_S: Final = 2.0
_TOO_LONG: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def prepare(
    host: str, directory: Path | None, options: Options, *, loopback: bool
) -> tuple[Options, ssl.SSLContext | None]:
    """What a hub that listens there is to know of its names, and its TLS, if it has any of its own.

    Args:
        host: where it listens.
        directory: the hub's; None where a database holds everything.
        options: how it is to run.
        loopback: whether only this machine can reach it.

    Raises:
        HubUnavailable: the database that would know cannot be reached.
        UsageError: it may not listen there so, or has no certificate where it should.
    """
    check_bind(host, options, loopback=loopback, tokens=not loopback and _any_tokens(directory, options))
    return msgspec.structs.replace(options, hosts=hosts_of(host, options)), tls_context(options)


def _any_tokens(directory: Path | None, options: Options) -> bool:
    if directory is not None:
        return has_tokens(directory)
    if options.token or not options.database:
        return False  # it matters no more, or nothing is there
    from holdfast.hub.tokens_database import tokens_of

    with tokens_of(options.database) as store:
        return store.changes()[1]


def check_bind(host: str, options: Options, *, loopback: bool, tokens: bool) -> None:
    """Returns only if a hub may listen there.

    Args:
        host: where.
        options: how it is to run.
        loopback: whether only this machine can reach it.
        tokens: whether tokens were made for this hub.

    Raises:
        UsageError: other machines could reach it, and nobody would be asked for a token, or tokens would be readable
            on the way.
    """
    if options.token and split(options.token):
        raise UsageError(
            "the token to start with was made by holdfast token create, and would open everything",
            hint="leave --token-file and HOLDFAST_TOKEN_FILE away: the hub knows it already",
        )
    if options.tls_key and not options.tls_cert:
        raise UsageError("a TLS key without its certificate", hint="--tls-cert FILE --tls-key FILE")
    if options.tls_cert and (options.tls_terminated or options.plain_http):
        raise UsageError("TLS of its own, and none", hint="give --tls-cert, --tls-terminated or --plain-http")
    if loopback:
        return
    if not options.token and not tokens:
        raise UsageError(
            f"{host} can be reached from other machines, and no token is set",
            hint="make one: holdfast token create --data DIR, or --database URL; or give --token-file FILE, or listen"
            " at 127.0.0.1",
        )
    if not (options.tls_cert or options.tls_terminated or options.plain_http):
        raise UsageError(
            f"{host} can be reached from other machines, and tokens would travel readable",
            hint="--tls-cert FILE --tls-key FILE; --tls-terminated behind a proxy that ends TLS; --plain-http in a"
            " network where you trust every machine",
        )


def tls_context(options: Options) -> ssl.SSLContext | None:
    """What connections are secured with; None without a certificate.

    Raises:
        UsageError: the files are not there, or not a certificate and its key.
    """
    if not options.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, options)
    return context


def load_certificate(context: ssl.SSLContext, options: Options) -> None:
    """Reads the certificate and key; connections from now on use them.

    Raises:
        UsageError: the files are not there, or not a certificate and its key; what was in use stays.
    """
    assert options.tls_cert is not None
    for file in filter(None, (options.tls_cert, options.tls_key)):
        try:
            Path(file).open("rb").close()
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror}", hint="is it there, and readable?") from error
    try:
        # Tried on another one first: a pair that does not match would leave the live one with half of it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key)
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"not a certificate and its key: {options.tls_cert}: {error}",
            hint="PEM files: the chain with the hub's own first, and its private key without a passphrase",
        ) from error


def hosts_of(host: str, options: Options) -> tuple[str, ...]:
    """The names that requests may be addressed to: loopback's, this machine's, where it listens, and those given."""
    names = {*LOOPBACK, *options.hosts}
    if host and not is_address(host):
        names.add(host)
    with contextlib.suppress(OSError):
        name = socket.gethostname()
        names |= {name, f"{name}.local"}
    return tuple(sorted(name.lower() for name in names if name))


def connection_class(plain: type[Any]) -> type[Any]:
    """uvicorn's connection, which also counts what comes before a head is whole, and since when.

    Args:
        plain: uvicorn's class on httptools.
    """

    class Connection(plain):  # type: ignore[misc]
        """One connection."""

        head_since = 0.0
        """When its unfinished head began; 0 within and between requests."""
        head_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.head_since = self.loop.time()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.head_since:
                self.head_bytes += len(data)
                if self.head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                    self.transport.write(_TOO_LONG)
                    self.transport.close()

        def on_message_begin(self) -> None:
            self.head_since = self.head_since or self.loop.time()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self.head_since, self.head_bytes = 0.0, 0
            super().on_headers_complete()

    return Connection


async def sweep(connections: set[Any], pause: Callable[[], float]) -> None:
    """Closes, for ever, the connections whose heads do not come.

    Args:
        connections: the server's.
        pause: seconds that a client may take over the head of a request, or be silent after it connected.
    """
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(min(SWEEP_S, pause()))
        before = loop.time() - pause()
        for each in list(connections):
            if 0 < getattr(each, "head_since", 0.0) < before:
                each.transport.close()
