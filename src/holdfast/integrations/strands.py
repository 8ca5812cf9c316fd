"""Strands' `Storage`: one place for an agent's snapshots, offloaded context, stash and memories.

    agent = Agent(storage=HoldfastStorage("./node", agent="laptop"))

The one door to the SDK.
"""

from __future__ import annotations

import builtins
import copy
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from holdfast.errors import HoldfastError, MissingExtra
from holdfast.integrations.bodies import Bodies
from holdfast.integrations.place import Place, Where, settled

try:
    from strands.storage import storage as _strands
    from strands.storage.storage import Storage, StorageSearchResult
    from strands.types.exceptions import StorageError
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("Strands is not installed", hint="pip install 'holdfast[strands]'") from error

T = TypeVar("T")
COLLECTION: Final = "strands"


class HoldfastStorage(Storage[str, str]):
    """Bytes by key, in a node's log or at a hub. Every earlier version stays: `versions`, and ``read(key, at=…)``.

    Keys are as in Strands' own storages: slashes lead below, several count as one. What goes wrong is Strands'
    `StorageError`, with ours as its cause.

    Args:
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
        search_strategy: what finds in place of Strands' search for words; it hears of each write.
    """

    def __init__(
        self,
        where: Where,
        *,
        agent: str | None = None,
        shared: bool | None = None,
        collection: str = COLLECTION,
        search_strategy: Any = None,
    ) -> None:
        self.bodies = Bodies(Place(where, agent=agent, shared=shared), collection)
        self._prefix = ""
        self._strategy = search_strategy

    async def write(self, key: str, data: bytes) -> None:
        """Stores bytes in place of those under the key."""
        normal = _key(key)
        await self._settled(self.bodies.put, self._prefix + normal, data)
        if self._strategy is not None:
            try:
                await self._strategy.index(self, normal, data)
            except Exception as error:
                raise StorageError(f"{key!r:.200} is stored, but its search strategy did not take it") from error

    async def read(self, key: str, *, at: Any = None) -> bytes | None:
        """The bytes under a key; None if there are none.

        Args:
            key: which.
            at: a revision (see `versions`), or a time: as they were then.
        """
        return await self._settled(lambda: self.bodies.get(self._prefix + _key(key), at=at))

    async def delete(self, key: str) -> None:
        """Takes bytes away; none is fine."""
        await self._settled(self.bodies.delete, self._prefix + _key(key))

    async def list(self, query: str = "") -> builtins.list[str]:
        """The keys that begin with a prefix, sorted."""
        found: Any = await self._settled(self.bodies.list, self._prefix + _normal(query).lstrip("/"))
        return [key[len(self._prefix) :] for key in found]

    async def versions(self, key: str) -> builtins.list[int]:
        """The revisions of a key, newest first."""
        name = (self._prefix + _key(key)).split("/")
        found: Any = await self._settled(self.bodies.conversations.history, name)
        return [each.revision for each in found]

    async def search(self, query: str) -> builtins.list[StorageSearchResult]:
        """What the search strategy, or Strands' own search, finds below this prefix, best first."""
        if self._strategy is not None:
            found: builtins.list[StorageSearchResult] = await self._strategy.search(self, query)
            return found
        return await super().search(query)

    def namespace(self, prefix: str) -> HoldfastStorage:
        """The same place, below a prefix."""
        below = _normal(prefix).strip("/")
        made = copy.copy(self)  # with whatever a subclass has besides
        made._prefix = f"{self._prefix}{below}/" if below else self._prefix
        # By this Strands knows that nobody need set it apart again.
        made._namespaced = getattr(_strands, "_NAMESPACED", None)  # type: ignore[attr-defined]
        return made

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.bodies.place.close()

    async def _settled(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await settled(work, *args)
        except HoldfastError as error:
            raise StorageError(str(error)) from error


def _normal(key: str) -> str:
    if "\\" in key:
        raise StorageError(f"Invalid storage key {key!r:.200}: backslashes are not allowed")
    if ".." in key.split("/"):
        raise StorageError(f"Invalid storage key {key!r:.200}: '..' path segments are not allowed")
    return re.sub(r"/+", "/", key)


def _key(key: str) -> str:
    normal = _normal(key).strip("/")
    if not normal:
        raise StorageError("a storage key must not be empty")
    return normal
