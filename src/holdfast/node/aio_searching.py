"""`search` and the indexes of vectors of an `AsyncStore`, and of an `AsyncHub`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.node.looking import When

if TYPE_CHECKING:
    from holdfast.corpus.search.embedding import Embed
    from holdfast.corpus.search.question import Mode
    from holdfast.log.hits import Hits, IndexStatus
    from holdfast.node.hub import Hub
    from holdfast.node.store import Store
    from holdfast.query import Condition


class AsyncSearching:
    """What an `AsyncStore` and an `AsyncHub` are besides."""

    _searched: Store | Hub

    async def search(
        self,
        q: str,
        *,
        agent: str | None = None,
        collection: str | None = None,
        kind: str | None = None,
        filter: Condition | Mapping[str, Any] | None = None,
        mode: Mode = "auto",
        limit: int = 50,
        at: When | None = None,
        min_score: float | None = None,
        explain: bool = False,
    ) -> Hits:
        """Current values and messages, the best first; see `Store.search`, `Hub.search`."""
        narrow: dict[str, Any] = {"agent": agent, "collection": collection, "kind": kind, "filter": filter, "at": at}
        rest: dict[str, Any] = {"mode": mode, "limit": limit, "min_score": min_score, "explain": explain}
        return await asyncio.to_thread(self._searched.search, q, **narrow, **rest)

    async def add_index(
        self,
        collection: str,
        *,
        fields: Sequence[str] = (),
        embed: Embed | None = None,
        model: str,
        dims: int | None = None,
        chunk: int | None = None,
    ) -> IndexStatus:
        """Has a collection found by meaning; see `Store.add_index`. An async `embed` has an event loop of its own."""
        how: dict[str, Any] = {"fields": fields, "embed": embed, "model": model, "dims": dims, "chunk": chunk}
        return await asyncio.to_thread(self._searched.add_index, collection, **how)

    async def indexes(self) -> list[IndexStatus]:
        """How the indexes of vectors stand; see `Store.indexes`."""
        return await asyncio.to_thread(self._searched.indexes)

    async def drop_index(self, collection: str) -> bool:
        """Ends the index of a collection; see `Store.drop_index`."""
        return await asyncio.to_thread(self._searched.drop_index, collection)
