"""The TTL cache in Redis or Valkey: the one door to that package. It is a cache here, never the corpus (ADR 0018).

An entry is a hash; Redis itself lets it expire. Reading notes the time in the same step, so a key that expires between
the two does not come back without its value.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast.clock import Clock
from holdfast.corpus.storage import Entry
from holdfast.errors import HubUnavailable, MissingExtra, UsageError

PREFIX: Final = "holdfast:cache:"
TIMEOUT_S: Final = 2.0
_GET: Final = """
local found = redis.call('HMGET', KEYS[1], 'value', 'ttl', 'created', 'expires')
if found[1] then redis.call('HSET', KEYS[1], 'accessed', ARGV[1]) end
return found
"""


class RedisCache:
    """Values in a Redis; nothing of them is on the hub's disk.

    Args:
        address: such as ``redis://localhost:6379/0``.
        wall: the clock.

    Raises:
        MissingExtra: the package is not installed.
        UsageError: an address that it does not understand.
    """

    def __init__(self, address: str, wall: Clock) -> None:
        try:
            import redis.asyncio as redis
            from redis.exceptions import RedisError
        except ImportError as error:
            raise MissingExtra(
                f"a cache in Redis needs a package that is not installed: {error.name}",
                hint="pip install 'holdfast[redis]'",
            ) from error
        self._failed: type[Exception] = RedisError
        self._wall = wall
        try:
            self._redis: Any = redis.from_url(address, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        except (ValueError, TypeError) as error:
            raise UsageError(f"not a Redis's address: {error}", hint="such as redis://localhost:6379/0") from error

    async def get(self, key: str) -> Entry | None:
        """The entry, as of now; None if there is none or it has expired."""
        now = self._wall.now_ms()
        value, ttl, created, expires = await self._ask(self._redis.eval, _GET, 1, PREFIX + key, now)
        if value is None:
            return None
        until = int(expires) if expires else None
        if until is not None and until <= now:
            return None
        return Entry(key, bytes(value), int(ttl) if ttl else None, int(created), until, now)

    async def put(self, key: str, value: bytes, ttl: int | None) -> Entry:
        """Sets a key; `ttl` in seconds, None: for ever."""
        now = self._wall.now_ms()
        entry = Entry(key, value, ttl, now, None if ttl is None else now + ttl * 1000, now)
        fields: dict[str, Any] = {"value": value, "created": now, "accessed": now}
        if ttl is not None:
            fields |= {"ttl": ttl, "expires": entry.expires_ms}
        pipe = self._redis.pipeline(transaction=True)
        pipe.delete(PREFIX + key)
        pipe.hset(PREFIX + key, mapping=fields)
        if ttl is not None:
            pipe.expire(PREFIX + key, ttl)
        await self._ask(pipe.execute)
        return entry

    async def delete(self, key: str) -> bool:
        """Takes a key away; False if there was none."""
        return bool(await self._ask(self._redis.delete, PREFIX + key))

    async def cleanup(self) -> int:
        """Nothing is left to do: Redis takes away what has expired. Always 0, once it answers."""
        await self._ask(self._redis.ping)
        return 0

    async def flush(self) -> None:
        """Nothing waits in memory."""

    async def close(self) -> None:
        """Hangs up."""
        await self._redis.aclose()

    async def _ask(self, call: Any, *args: Any) -> Any:
        try:
            return await call(*args)
        except (self._failed, OSError) as error:
            raise HubUnavailable(
                f"the cache does not answer: {error}", hint="is Redis running? records go on"
            ) from error
