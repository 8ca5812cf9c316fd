"""What stands before every request: is this host ours, who asks, is it too much, does the body come at all.

All of it costs a request a few microseconds: what was found out about a token, a host or a rate is remembered, and
whatever needs a file or a timer is done only where the remembered is not enough.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar

from holdfast.clock import Clock
from holdfast.errors import Denied, HoldfastError, HubUnavailable, UsageError
from holdfast.hub.exchange import VISIT, Receive, Rest, Scope
from holdfast.hub.options import Options
from holdfast.hub.principal import ANYBODY, NOBODY, OPERATOR, STRANGER, Principal, set_principal
from holdfast.hub.token_text import split
from holdfast.hub.tokens import Tokens

logger = logging.getLogger(__name__)

WATCH_S: Final = 0.5
"""How often tokens are looked through for what another process has made or revoked."""
KEEP_EVERY: Final = 120
"""How many looks lie between two notes of when tokens were last shown: a minute."""
HEADERS_MAX: Final = 100
HELD_BYTES_MAX: Final = 32 << 20
"""What may lie in memory of bodies that are not whole yet, beyond the first piece of each."""
BODY_GRACE_S: Final = 30.0
BODY_RATE: Final = 1024.0
"""Bytes a second below which a body is given up, once it has taken `BODY_GRACE_S`."""
BUCKETS_MAX: Final = 10_000
NODE_FACTOR: Final = 10
"""A node speaks for all its agents, and has one request under way at a time anyway."""
HOSTS_MAX: Final = 1_000
LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
LASTING: Final = frozenset({"/v1/feed", "/v1/heads", "/ui/events"})
"""They may wait for hours, or for a minute, and have limits of their own."""
UNCOUNTED: Final = LASTING | {"/livez", "/readyz"}
"""A probe must be answered by whoever is overrun."""
_READING: Final = ("GET", "HEAD")

T = TypeVar("T")
Read = Callable[[Callable[[], Any]], Awaitable[Any]]


class Gate:
    """Lets requests in; the loop's own.

    Args:
        options: of the hub.
        tokens: that were made for it.
        wall: the clock.
        read: runs a function in a thread.
    """

    def __init__(self, options: Options, tokens: Tokens, wall: Clock, read: Read) -> None:
        self._token = f"Bearer {options.token}".encode() if options.token else None
        self.tokens = self._tokens = tokens
        self._wall = wall
        self._read = read
        self._hosts = frozenset(name.lower() for name in options.hosts)
        self._any_host = not self._hosts or "*" in self._hosts
        self._good_hosts: set[bytes] = set()
        self._rate = options.rate
        self._buckets: dict[str, tuple[float, float]] = {}
        self._most = options.concurrent
        self._pause_s = options.pause_s
        self.lingering: set[Visit] = set()
        """Requests that may last: they end with their tokens."""
        self._watcher: asyncio.Task[None] | None = None
        self._guarded = self._wants_tokens()
        self.busy = 0
        self.held = 0

    def retune(self, options: Options) -> None:
        """Takes up other limits; requests under way end as they began."""
        self._rate, self._most, self._pause_s = options.rate, options.concurrent, options.pause_s

    # -- living -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to watch the tokens, on the running loop."""
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Ends the watch, and notes which tokens were shown."""
        if self._watcher is not None:
            self._watcher.cancel()
        await self._read(self._tokens.close)

    async def _watch(self) -> None:
        looks, failing = 0, False
        while True:
            await asyncio.sleep(WATCH_S)
            looks += 1
            try:
                if looks % KEEP_EVERY == 0:
                    await self._read(self._tokens.keep)
                await self.look_again()
                failing = False
            except HoldfastError as error:
                # Whoever cannot be known is not let in; what was known holds, as a hub must outlive a hiccup.
                if not failing:
                    logger.error("cannot look through the tokens: revocations wait: %s", error)
                failing = True

    async def look_again(self) -> None:
        """Takes in what tokens were made and revoked, and ends the feeds of those whose tokens do not hold any more."""
        changed = await self._read(self._tokens.refresh)
        guarded, self._guarded = self._guarded, self._wants_tokens()
        opened = guarded != self._guarded
        now = self._wall.now_ms()
        asked: dict[str, bool] = {}
        for visit in list(self.lingering):
            who = visit.principal
            good = who.ends_ms > now and not (opened and who is ANYBODY)
            if good and changed and who.id:
                if who.id not in asked:
                    asked[who.id] = await self._read(lambda who=who: self._tokens.holds(who))  # type: ignore[misc]
                good = asked[who.id]
            if not good:
                visit.end()

    @property
    def guarded(self) -> bool:
        """Whether it wants a token of everybody."""
        return self._guarded

    @property
    def operator(self) -> str:
        """The digest of the token that the hub was started with, in hex; empty: with none."""
        return hashlib.sha256(self._token[7:]).hexdigest() if self._token else ""

    async def who_shows(self, text: str) -> Principal:
        """Who a token's text makes known, as if it came in a header."""
        shown = f"Bearer {text}".encode("utf-8", "replace")
        return self._known(shown) or await self._look(shown)

    def _wants_tokens(self) -> bool:
        return self._token is not None or self._tokens.in_force

    # -- one request --------------------------------------------------------------------------------------------

    async def enter(self, scope: Scope, receive: Receive) -> Visit:
        """A request that may go on, which has a principal from here on; `leave` must follow.

        Raises:
            UsageError: it is addressed to another host (421), or has too many headers (431).
            Denied: a page of another site sends it.
            HubUnavailable: too many are under way (503), or this principal asks too often (429).
        """
        host = shown = origin = b""
        headers = scope["headers"]
        for key, value in headers:
            if key == b"host":
                host = value
            elif key == b"authorization":
                shown = value
            elif key == b"origin":
                origin = value
        if len(headers) > HEADERS_MAX:
            raise _status(UsageError(f"{len(headers)} headers, the most is {HEADERS_MAX}", hint="send fewer"), 431)
        if not self._any_host and host not in self._good_hosts:
            self._check_host(host)
        if origin and scope["method"] not in _READING:
            self._check_origin(origin, host)
        principal = self._known(shown) or await self._look(shown)
        set_principal(scope, principal)
        path = scope["path"]
        counted = path not in UNCOUNTED
        if self._rate and counted:
            self._check_rate(principal)
        if counted and self.busy >= self._most:
            raise HubUnavailable(f"{self.busy} requests are under way", hint="ask again in a moment")
        visit = Visit(self, receive, principal, self._pause_s, counted)
        self.busy += counted
        if path in LASTING:
            self.lingering.add(visit)
        scope[VISIT] = visit
        return visit

    def leave(self, visit: Visit) -> None:
        """The request has ended, one way or another."""
        self.busy -= visit.counted
        self.held -= visit.held
        self.lingering.discard(visit)

    def _known(self, shown: bytes) -> Principal | None:
        if not self._guarded:
            return ANYBODY
        if not shown:
            return NOBODY
        if self._token is not None and hmac.compare_digest(shown, self._token):
            return OPERATOR
        return self._tokens.known(shown[7:]) if shown[:7].lower() == b"bearer " else STRANGER

    async def _look(self, shown: bytes) -> Principal:
        if split(shown[7:].decode("ascii", "replace")) is None:
            return STRANGER  # no token at all: not worth a thread
        found: Principal | None = await self._read(lambda: self._tokens.look(shown[7:]))
        return found or STRANGER

    def _check_host(self, host: bytes) -> None:
        # A page that has its own name point to our address (DNS rebinding) comes with that name. Without a name
        # there is nothing to rebind: addresses, and clients that say none (no browser), are let in.
        name = host_name(host.decode("latin-1"))
        if name and name not in self._hosts and not is_address(name):
            error = UsageError(f"this hub is not {name!r:.80}", hint=f"holdfast serve --host-name {name:.80}")
            raise _status(error, 421)
        if len(self._good_hosts) < HOSTS_MAX:
            self._good_hosts.add(host)

    def _check_origin(self, origin: bytes, host: bytes) -> None:
        # Browsers alone send it: a page of another site may not write here, even where nobody needs a token.
        _, _, place = origin.decode("latin-1").lower().partition("://")
        name = host_name(place)
        if place and (place == host.decode("latin-1").lower() or (name in self._hosts and name not in LOOPBACK)):
            return
        raise Denied("a page of another site may not write to this hub", hint="no CORS here: send it from a program")

    def _check_rate(self, principal: Principal) -> None:
        rate = self._rate * (NODE_FACTOR if principal.kind == "node" else 1)
        now = asyncio.get_running_loop().time()
        which = principal.id or principal.name
        most = max(1.0, 2 * rate)  # what may come at once after a silence
        left, at = self._buckets.get(which, (most, now))
        left = min(most, left + (now - at) * rate)
        if left < 1:
            error = HubUnavailable(f"{principal} asks more than {rate:g} times a second", hint="ask less often")
            raise _status(error, 429)
        if len(self._buckets) >= BUCKETS_MAX:
            self._buckets = {}
        self._buckets[which] = left - 1, now


class Visit:
    """One request under way: called, it receives, and sees to it that what is to come does come.

    Args:
        gate: which let it in.
        receive: the server's.
        principal: who asks.
        pause_s: seconds that the client may pause within its body.
        counted: whether it is one of the few that may be under way at once.
    """

    __slots__ = (
        "_begun",
        "_gate",
        "_pause_s",
        "_receive",
        "_size",
        "_waiting",
        "_whole",
        "counted",
        "ended",
        "held",
        "principal",
    )

    def __init__(self, gate: Gate, receive: Receive, principal: Principal, pause_s: float, counted: bool) -> None:
        self._gate = gate
        self._receive = receive
        self._pause_s = pause_s
        self._whole = self.ended = False
        self._begun = 0.0
        self._size = 0
        self._waiting: asyncio.Task[Any] | None = None
        self.principal = principal
        self.counted = counted
        self.held = 0

    async def __call__(self) -> MutableMapping[str, Any]:
        """The next message of the request.

        Raises:
            HubUnavailable: the client takes too long over its body (status 408).
        """
        if self._whole:
            return await self._until_it_leaves()
        coming = self._receive()
        try:
            # A small body is there already: begun without a timer, which would cost more than all the rest.
            first = coming.send(None)  # type: ignore[attr-defined]
        except StopIteration as here:
            message: MutableMapping[str, Any] = here.value
        else:
            message = await self._late(Rest(coming, first))  # type: ignore[arg-type]
        if not message.get("more_body", False):
            self._whole = True
        return message

    def hold(self, size: int) -> None:
        """So many bytes of the body will lie in memory until the request ends.

        Raises:
            HubUnavailable: others' bodies take all the room there is for that.
        """
        others = self._gate.held - self.held
        self.held += size
        self._gate.held += size
        if others + self.held > HELD_BYTES_MAX and others:
            raise HubUnavailable(f"{others >> 20} MiB of bodies are under way", hint="ask again in a moment")

    def end(self) -> None:
        """Tells the request that its client has gone."""
        self.ended = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _late(self, coming: Awaitable[T]) -> T:
        now = asyncio.get_running_loop().time
        self._begun = self._begun or now()
        taken = now() - self._begun
        try:
            if taken > BODY_GRACE_S and self._size < taken * BODY_RATE:
                raise TimeoutError
            async with asyncio.timeout(self._pause_s):
                message = await coming
        except TimeoutError:
            error = HubUnavailable("the body does not come", hint="send it without pauses, and again")
            raise _status(error, 408) from None
        self._size += len(message.get("body", b""))  # type: ignore[attr-defined]
        return message

    async def _until_it_leaves(self) -> MutableMapping[str, Any]:
        self._waiting = asyncio.current_task()
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if not self.ended or self._waiting is None:
                raise
            self._waiting.uncancel()
            return {"type": "http.disconnect"}
        finally:
            self._waiting = None


def host_name(text: str) -> str:
    """The host in ``host:port``, in lower case."""
    text = text.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def is_address(name: str) -> bool:
    """Whether it is a number and not a name."""
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


def _status(error: HoldfastError, status: int) -> HoldfastError:
    error.status = status
    return error
