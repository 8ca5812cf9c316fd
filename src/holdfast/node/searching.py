"""`search` and the indexes of vectors of a store; the work is in `holdfast.node.embedding` and in the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.node.looking import When

if TYPE_CHECKING:
    from holdfast.corpus.search.embedding import Embed
    from holdfast.corpus.search.question import Mode
    from holdfast.log.hits import Hits, IndexStatus
    from holdfast.query import Condition


class Searching:
    """What a `Store` is besides: the place where what agents know is searched."""

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
        """Current values and messages, the best first: everybody's at the hub, or without one, mine (docs/search.md).

        What holds every word comes first and scores 1.0, the newest of it first; behind it what holds some words, by
        their weight. Where the collection has an index of vectors, what is near in meaning counts too.

        Args:
            q: words; in double quotes a phrase, which is required, with a trailing ``*`` a beginning.
            agent, collection, kind: narrow it.
            filter: what must hold of the values: ``where("sure") >= 0.5``, or ``{"sure": {"gte": 0.5}}``.
            mode: text, vector, hybrid, or auto: hybrid where it can be, else text. `Hits.mode` says which it was.
            limit: the most hits.
            at: what was current then: a time, or what `changes` gave as a cursor. By words alone.
            min_score: between 0 and 1: what scores less is left out; 1.0 by words: whatever lacks one.
            explain: say in `Hit.parts` what each score is made of.

        Raises:
            UsageError: nothing to look for, a filter that is none, vectors where there are none.
            HubUnavailable: a hub is configured and does not answer (``agent=`` one's own name needs none).
        """
        from holdfast.node.embedding import search

        store: Any = self
        narrow = {"agent": agent, "collection": collection, "kind": kind, "filter": filter, "at": at}
        return search(store, q, {**narrow, "mode": mode, "limit": limit, "min_score": min_score, "explain": explain})

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
        """Has a collection of this agent's found by meaning, by vectors that `embed` makes in the background.

        No write waits for it, and none is lost by what it raises: what failed is tried again, and `indexes` tells.
        Called with something else than before, the new index is built beside the old one and then takes its place.

        Args:
            collection: whose values.
            fields: what of a value is embedded, such as ``("text", "messages.content")``; none: all its texts.
            embed: gets a list of texts and gives one vector for each, plain or async; None: another process has it.
            model: the name of what it asks. Another model is another name.
            dims: how many numbers a vector has; None: as many as the first that comes.
            chunk: letters of one piece of a long text; None: 1,200; 0: it is not cut.

        Raises:
            UsageError: an impossible declaration, or a collection that is sealed or decided by the hub.
        """
        from holdfast.node.embedding import searches

        store: Any = self
        return searches(store).add(collection, embed, model, fields, dims, chunk)

    def indexes(self) -> list[IndexStatus]:
        """How the indexes of vectors of this agent stand: how much each holds, what waits, what failed and why."""
        from holdfast.log.hits import statuses

        store: Any = self
        return statuses(store._log.corpus, store._directory.wall.now_ms())

    def drop_index(self, collection: str) -> bool:
        """Ends the index of a collection, and what is being built; False if there was none."""
        from holdfast.node.embedding import drop

        store: Any = self
        return drop(store, collection)
