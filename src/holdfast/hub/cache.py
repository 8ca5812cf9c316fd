"""The TTL cache: values that may be lost, in a table beside the records, or in Redis where that is configured.

It is not logged: nobody proves what was in it, and it is not shipped. When a key was read last is noted in memory and
written now and then, so that a read costs no write; what is answered is right all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from holdfast.corpus import storage
from holdfast.corpus.storage import Entry
from holdfast.errors import HoldfastError, UsageError

if TYPE_CHECKING:
    from holdfast.hub.core import Core

ACCESSED_MAX: Final = 2_000
"""Keys whose last read waits in memory; some 200 KiB."""
CLEAN_LOT: Final = 500


class Cache(Protocol):
    """Where values with a time to live are kept."""

    async def get(self, key: str) -> Entry | None:
        """The entry, as of now; None if there is none or it has expired."""
        ...

    async def put(self, key: str, value: bytes, ttl: int | None) -> Entry:
        """Sets a key; `ttl` in seconds, None: for ever."""
        ...

    async def delete(self, key: str) -> bool:
        """Takes a key away; False if there was none."""
        ...

    async def cleanup(self) -> int:
        """Takes away what has expired; how many that were."""
        ...

    async def flush(self) -> None:
        """Writes down what waits in memory."""
        ...

    async def close(self) -> None:
        """Lets go of what it holds."""
        ...


class CorpusCache:
    """In a table of the corpus, written by the hub's one writer.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._accessed: dict[str, int] = {}

    async def get(self, key: str) -> Entry | None:
        """The entry, as of now; None if there is none or it has expired."""
        found = await self._core.read(lambda: storage.cache_get(self._core.corpus, key))
        if found is None:
            return None
        now = self._core.home.wall.now_ms()
        if found.expires_ms is not None and found.expires_ms <= now:
            with contextlib.suppress(HoldfastError):  # what cannot be taken away now is not shown either
                await self._write(lambda tx: storage.cache_expire(tx, now, limit=1, key=key))
            return None
        self._accessed[key] = found.accessed_ms = max(found.accessed_ms, now)
        if len(self._accessed) >= ACCESSED_MAX:
            await self.flush()
        return found

    async def put(self, key: str, value: bytes, ttl: int | None) -> Entry:
        """Sets a key; `ttl` in seconds, None: for ever."""
        now = self._core.home.wall.now_ms()
        entry = Entry(key, value, ttl, now, None if ttl is None else now + ttl * 1000, now)
        await self._write(lambda tx: storage.cache_put(tx, entry), len(value))
        self._accessed.pop(key, None)
        return entry

    async def delete(self, key: str) -> bool:
        """Takes a key away; False if there was none."""
        self._accessed.pop(key, None)
        now = self._core.home.wall.now_ms()

        def work(tx: Any) -> bool:
            return not storage.cache_expire(tx, now, limit=1, key=key) and storage.cache_delete(tx, key)

        return bool(await self._write(work))

    async def cleanup(self) -> int:
        """Takes away what has expired, in short transactions; how many that were."""
        now, count = self._core.home.wall.now_ms(), 0
        while gone := await self._write(lambda tx: storage.cache_expire(tx, now, limit=CLEAN_LOT)):
            count += gone
        await self.flush()
        return count

    async def flush(self) -> None:
        """Writes down when keys were read last."""
        if not self._accessed:
            return
        waiting, self._accessed = self._accessed, {}
        times = [(ms, key) for key, ms in waiting.items()]
        try:
            await self._write(lambda tx: storage.cache_accessed(tx, times))
        except HoldfastError:
            self._accessed = waiting | self._accessed if len(self._accessed) < ACCESSED_MAX else self._accessed

    async def close(self) -> None:
        """Writes down when keys were read last."""
        await self.flush()

    async def _write(self, work: Callable[[Any], Any], size: int = 0) -> Any:
        return await self._core.writer.run(lambda tx: (work(tx), []), size=size)


def cache_of(core: Core) -> Cache:
    """The cache that the hub's options name.

    Raises:
        MissingExtra: it is Redis, and its package is not installed.
        UsageError: an address that is none of Redis.
    """
    address = core.options.cache
    if not address:
        return CorpusCache(core)
    if not address.startswith(("redis://", "rediss://", "unix://")):
        raise UsageError(f"not a cache's address: {address!r:.200}", hint="such as redis://localhost:6379/0")
    from holdfast.hub.cache_redis import RedisCache

    return RedisCache(address, core.home.wall)
