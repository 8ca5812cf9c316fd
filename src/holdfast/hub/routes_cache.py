"""The TTL cache over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from holdfast import clock
from holdfast.corpus.storage import Entry
from holdfast.errors import NotFound, UsageError
from holdfast.hub import storage_shapes as shapes
from holdfast.hub.api import Call, Operation
from holdfast.hub.core import Core
from holdfast.hub.exchange import too_large
from holdfast.hub.routes_sessions import declare

COLLECTION: Final = "cache"
"""What a token must name to read and write the cache, as if it were a collection. Its keys are no agent's: whoever may
write the cache may write, and take away, each of them."""
VALUE_BYTES_MAX: Final = 1 << 20


def operations(core: Core) -> Iterator[Operation]:
    """Everything about the cache."""
    work = CacheWork(core)
    # The fixed path first: the other one would fit it, too.
    yield declare("POST", "cache/cleanup", "Take away what has expired", work.cleanup, answer=shapes.Removed)
    yield declare("GET", "cache/{key}", "A value of the cache", work.get, answer=shapes.EntryShown, errors=(404,))
    yield declare(
        *("PUT", "cache/{key}", "Set a value of the cache", work.put), body=shapes.NewEntry, answer=shapes.EntryShown
    )
    yield declare(
        *("DELETE", "cache/{key}", "Take a value out of the cache", work.delete), answer=shapes.Deleted, errors=(404,)
    )


class CacheWork:
    """What each operation does.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def get(self, call: Call) -> shapes.EntryShown:
        """A value, and notes that it was read; what has expired is not there."""
        call.principal.check_read(COLLECTION)
        key = _key(call)
        found = await self._core.cache.get(key)
        if found is None:
            raise _absent(key)
        return _shown(found)

    async def put(self, call: Call) -> shapes.EntryShown:
        """Sets a value, for `ttl` seconds or for ever."""
        call.principal.check_write(None, COLLECTION)
        key, value = _key(call), msgspec.json.encode(call.body.value)
        if len(value) > VALUE_BYTES_MAX:
            raise too_large(len(value), VALUE_BYTES_MAX)
        return _shown(await self._core.cache.put(key, value, call.body.ttl))

    async def delete(self, call: Call) -> shapes.Deleted:
        """Takes a value away."""
        call.principal.check_write(None, COLLECTION)
        key = _key(call)
        if not await self._core.cache.delete(key):
            raise _absent(key)
        return shapes.Deleted(status="deleted", id=key)

    async def cleanup(self, call: Call) -> shapes.Removed:
        """Takes away what has expired, and says how many that were."""
        call.principal.check_write(None, COLLECTION)
        return shapes.Removed(removed=await self._core.cache.cleanup())


def _key(call: Call) -> str:
    try:
        found: str = msgspec.convert(call.path["key"], shapes.CacheKey)
    except msgspec.ValidationError as error:
        raise UsageError(f"not a key of the cache: {error}", hint="1 to 512 printable letters, no slash") from error
    return found


def _shown(found: Entry) -> shapes.EntryShown:
    return shapes.EntryShown(
        key=found.key,
        value=msgspec.Raw(found.value),
        ttl=found.ttl,
        created_at=clock.iso(found.created_ms),
        accessed_at=clock.iso(found.accessed_ms),
        expires_at=None if found.expires_ms is None else clock.iso(found.expires_ms),
    )


def _absent(key: str) -> NotFound:
    return NotFound(f"the cache has nothing at {key!r:.100}", hint="it may have expired")
