"""One request out of the hub, to an address that is allowed; nothing that it answers leads anywhere else.

Who may make rules is no stranger, and must not reach by them what only the hub's machine can: other services on its
loopback, the router, a cloud's metadata. So a name is looked up once, what it stands for is checked, and that very
address is connected to. No redirect is followed, no proxy asked.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Final
from urllib.parse import SplitResult

import msgspec

from holdfast.errors import Denied, UsageError
from holdfast.hub.notify.letter import Letter
from holdfast.hub.notify.rules import address_of

TIMEOUT_S: Final = 10.0
WHOLE_S: Final = 20.0
"""For the whole request: one byte every nine seconds would be in time for ever."""
ANSWER_BYTES_MAX: Final = 4096
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class Outcome(msgspec.Struct, frozen=True):
    """What became of a request.

    Attributes:
        ok: whether it was taken.
        said: in words, if not; never what was answered, nor the address.
        status: of the answer; 0: there was none.
        wait_s: seconds that the receiver wants to have rest.
        for_good: whether it would never be taken as it is.
    """

    ok: bool
    said: str = ""
    status: int = 0
    wait_s: float = 0.0
    for_good: bool = False


def post(address: str, letter: Letter, allowed: Sequence[str]) -> Outcome:
    """Sends a letter, and says what became of it; raises nothing. For threads.

    Args:
        address: where to.
        letter: what.
        allowed: see `check_allowed`.
    """
    try:
        parts = address_of(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = addresses(parts.hostname or "", port, allowed)
        return _send(parts, found, port, letter)
    except (Denied, UsageError) as error:
        return Outcome(False, error.message, for_good=True)
    except TimeoutError:
        return Outcome(False, f"no answer within {TIMEOUT_S:.0f} s")
    except ssl.SSLError as error:
        return Outcome(False, f"TLS failed: {error.reason or 'the certificate is not trusted'}")
    except (OSError, http.client.HTTPException) as error:
        return Outcome(False, f"could not be reached: {getattr(error, 'strerror', None) or type(error).__name__}")


def _send(parts: SplitResult, found: Sequence[str], port: int, letter: Letter) -> Outcome:
    host = parts.hostname or ""
    lines = [_connected(found, port)]
    # A receiver that drips is hung up on by the clock.
    end = threading.Timer(WHOLE_S, _hang_up, (lines,))
    end.daemon = True
    end.start()
    try:
        if parts.scheme == "https":
            # Its hands are shaken only once the clock knows the socket that it became.
            secure = _trust().wrap_socket(lines[0], server_hostname=host, do_handshake_on_connect=False)
            lines[0] = secure
            secure.do_handshake()
        line = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        if port == 443 and parts.scheme == "https":
            line.default_port = 443  # what the header Host leaves out
        line.sock = lines[0]
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        line.request("POST", path, letter.body, {"User-Agent": "holdfast", "Connection": "close", **letter.headers})
        answer = line.getresponse()
        answer.read(ANSWER_BYTES_MAX)
        return outcome_of(answer.status, answer.headers.get("Retry-After", ""))
    finally:
        end.cancel()
        lines[0].close()


def _connected(found: Sequence[str], port: int) -> socket.socket:
    failure: OSError | None = None
    for address in found:
        try:
            return socket.create_connection((address, port), TIMEOUT_S)
        except OSError as error:
            failure = error
    raise failure or OSError("it has no address")


def _hang_up(lines: list[socket.socket]) -> None:
    with contextlib.suppress(OSError):
        lines[0].shutdown(socket.SHUT_RDWR)


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def outcome_of(status: int, retry_after: str) -> Outcome:
    """What an answer says.

    Args:
        status: of the answer.
        retry_after: its header.
    """
    if 200 <= status < 300:
        return Outcome(True, status=status)
    if 300 <= status < 400:
        said = f"it answered {status}: redirects are not followed, give the address that it leads to"
        return Outcome(False, said, status, for_good=True)
    wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    return Outcome(False, f"it answered {status}", status, wait)


# -- which addresses ----------------------------------------------------------------------------------------------


def check_allowed(allowed: Sequence[str]) -> tuple[str, ...]:
    """The list, if each of it is a name, a glob of names, an address or a network; ``*`` is anything.

    Raises:
        UsageError: one is none of these.
    """
    for each in allowed:
        if _network(each) is None and ("/" in each or ":" in each or not each or not each.isprintable()):
            raise UsageError(
                f"not a host that notifications may go to: {each!r:.80}", hint="such as ntfy.lan, *.example, 10.0.0.0/8"
            )
    return tuple(allowed)


def addresses(host: str, port: int, allowed: Sequence[str]) -> list[str]:
    """The addresses of a host that may be connected to.

    Args:
        host: a name or an address.
        port: at it.
        allowed: names, globs, addresses and networks that may be reached, and nothing else; empty: whatever is public.

    Raises:
        Denied: none may.
        OSError: the name stands for nothing.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    every = list(dict.fromkeys(str(each[4][0]).partition("%")[0] for each in found))
    good = [each for each in every if may(host, ipaddress.ip_address(each), allowed)]
    if not good:
        what = "is not one of serve.notify_hosts" if allowed else "is not a public address"
        raise Denied(
            f"{host:.80} {what}", hint="name it in serve.notify_hosts, in the hub's configuration, if it may be reached"
        )
    return good


def may(host: str, address: IP, allowed: Sequence[str]) -> bool:
    """Whether an address may be connected to that a host's name stands for."""
    for inner in _inside(address):
        if not allowed:
            if not inner.is_global or inner.is_multicast:
                return False
            continue
        nets = [net for each in allowed if (net := _network(each)) is not None]
        names = [each.lower() for each in allowed if _network(each) is None]
        if not any(fnmatchcase(host.lower(), name) for name in names) and not any(inner in net for net in nets):
            return False
    return True


def _inside(address: IP) -> list[IP]:
    """An address, and those of the older kind that it carries: they must be allowed, too."""
    if not isinstance(address, ipaddress.IPv6Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    more: list[IP] = [address.sixtofour] if address.sixtofour is not None else []
    return [address, *more, *(address.teredo or ())]


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
