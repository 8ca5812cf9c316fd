"""`search` and the indexes of vectors of a `Hub`; the work is in `holdfast.node.hub_filling`, loaded when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.corpus.search.embedding import Embed
    from holdfast.corpus.search.question import Mode
    from holdfast.log.hits import Hits, IndexStatus
    from holdfast.node.hub_filling import Asking
    from holdfast.node.looking import When
    from holdfast.query import Condition


class HubSearching:
    """What a `Hub` is besides: search."""

    def search(
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
        """What agents know, the best first: by words, by meaning, or both; see `Store.search`.

        By meaning it needs a `collection` with an index of vectors, and its function here (`add_index`) or at the hub.

        Raises:
            UsageError: nothing to look for, or a mode that this question cannot have.
            HubUnavailable: no hub answers.
        """
        question = {
            "q": q,
            "agent": agent,
            "collection": collection,
            "kind": kind,
            "filter": filter,
            "mode": mode,
            "limit": limit,
            "at": at,
            "min_score": min_score,
            "explain": explain,
        }
        return self.asking.search(question)

    def add_index(
        self,
        collection: str,
        *,
        fields: Sequence[str] = (),
        embed: Embed | None = None,
        model: str,
        dims: int | None = None,
        chunk: int | None = None,
    ) -> IndexStatus:
        """Has the hub find a collection's values by meaning, and fills the index from this process until `close`.

        Any number of processes may; the hub gives each text to one of them at a time. A token that may only read lets
        this process ask with its function, where somebody else has declared the same index.

        Args:
            collection: whose values; its name is the index's.
            fields: what of a value is embedded, such as ``("text", "messages.content")``; none: all its texts.
            embed: gives one vector for each text of a list, plain or async; None: others fill it, such as the hub.
            model: the name of its model. Another one is another index, which is built beside the one that is there.
            dims, chunk: numbers of a vector (as they come), and letters of a piece of text (some 300 tokens) at most.

        Raises:
            UsageError: a declaration that cannot be one.
            Denied: the token may neither write the collection nor read such an index.
            HubUnavailable: no hub answers.
        """
        return self.asking.add(collection, embed, model, fields, dims, chunk)

    def indexes(self) -> list[IndexStatus]:
        """The hub's indexes of vectors: how much each holds, what waits, what failed and why."""
        return self.asking.every()

    def drop_index(self, collection: str) -> bool:
        """Ends a collection's index at the hub, and the filling of it here; False if there was none."""
        return self.asking.drop(collection)

    @property
    def asking(self) -> Asking:
        """What questions are asked through, with the functions that embed them; for our own rooms."""
        from holdfast.node.hub_filling import asking_of

        hub: Any = self
        return asking_of(hub)
