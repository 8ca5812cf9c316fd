"""What assistants were asked to remember: short texts by key, found by their words, the same on all machines."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from holdfast.corpus.search import WORDS
from holdfast.errors import NotFound, UsageError
from holdfast.integrations.mcp_server.graph import ENTITIES, Graph, known
from holdfast.integrations.mcp_server.reach import Line
from holdfast.integrations.mcp_server.shared import KEEP, Raw, Shared
from holdfast.log.drafts import new_id
from holdfast.log.versions import Version
from holdfast.node.shelf import Row

logger = logging.getLogger(__name__)

COLLECTION: Final = "mcp-memory"
KEY_BYTES_MAX: Final = 512
TEXT_CHARS_MAX: Final = 256 << 10
TAGS_MAX: Final = 50
WIDER: Final = 4
"""So many times more is looked for where some of what is found may have to be left out."""
LOOKED_AT: Final = 200
"""And never more than so many."""


class Memory(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something that is remembered.

    Attributes:
        key: what it is called; ``graph/<name>`` of an entity of the knowledge graph.
        text: what was said.
        agent: who said it last.
        time: when, in seconds since 1970.
        tags: what it is filed under.
        score: of a search: how well it fits, where that is known.
        rivals: what other machines said under this key at the same time.
    """

    key: str
    text: str
    agent: str
    time: float
    tags: list[str] = []
    score: float | None = None
    rivals: list[str] = []


class Memories:
    """The memories of all machines, with what the knowledge graph holds. Safe to share among threads.

    Args:
        shared: where they lie.
        graph: which is searched, too.
    """

    def __init__(self, shared: Shared, graph: Graph) -> None:
        self.shared = shared
        self._graph = graph

    def remember(self, text: str, *, key: str = "", tags: Sequence[str] = ()) -> tuple[Memory, bool]:
        """Keeps a text, and says whether it took another's place; under a key that is taken it replaces what is there.

        Args:
            text: what to remember.
            key: a name for it; empty: it gets one.
            tags: what it is to be filed under.

        Raises:
            UsageError: no text, or one that is too long; an impossible key.
        """
        if not text.strip() or len(text) > TEXT_CHARS_MAX:
            raise UsageError(f"a memory of {len(text)} characters", hint=f"1 to {TEXT_CHARS_MAX:,}; or artifact_put")
        if key != key.strip() or len(key.encode("utf-8", "replace")) > KEY_BYTES_MAX or key.startswith("graph/"):
            hint = f"up to {KEY_BYTES_MAX} bytes without spaces around them, such as favourite-tea; graph/ is taken"
            raise UsageError(f"no key for a memory: {key!r:.80}", hint=hint)
        if len(tags) > TAGS_MAX:
            raise UsageError(f"{len(tags)} tags", hint=f"at most {TAGS_MAX}")
        filed = sorted({tag.strip() for tag in tags} - {""})
        key = key or new_id("memory")
        replaced = False

        def make(row: Row | None) -> Raw:
            nonlocal replaced
            replaced = row is not None
            if row is not None and not row.rivals and _same(row, text, filed):
                return KEEP  # said again: nothing new
            return {"text": text, "tags": filed, WORDS: " ".join((key, text, *filed))}

        self.shared.change({key: make})
        return _memory(self.shared.rows([key])[key]), replaced

    def forget(self, key: str) -> None:
        """Takes a memory away; its history stays.

        Raises:
            NotFound: there is none under this key.
        """
        if key not in self.shared.rows([key]):
            raise NotFound(f"nothing is remembered under {key!r:.80}", hint="recall finds keys by words")
        self.shared.change({key: _nothing})

    def get(self, key: str) -> Memory | None:
        """The memory under a key."""
        row = self.shared.rows([key]).get(key)
        return None if row is None else _memory(row)

    def recall(self, query: str, *, tags: Sequence[str] = (), limit: int = 20) -> list[Memory]:
        """What fits a query best; without one, what was remembered last.

        Args:
            query: words, or a question.
            tags: only what is filed under all of these.
            limit: the most.
        """
        wanted = set(tags)
        if not query.strip():
            rows = self.shared.newest(limit * (WIDER if wanted else 1))
            found = [each for each in map(_sound, rows) if each is not None and wanted <= set(each.tags)]
            return found[:limit]
        more = min(limit * WIDER, LOOKED_AT)
        found = self._of(searched(self.shared.line, query, self.shared.collection, more))
        found = [each for each in found if wanted <= set(each.tags)]
        if not wanted:
            found += self._entities(searched(self.shared.line, query, self._graph.shared.collection, more))
        found.sort(key=lambda each: (-(each.score or 0.0), -each.time))
        return found[:limit]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _of(self, hits: Sequence[Version]) -> list[Memory]:
        """What still holds of what was found."""
        rows = self.shared.rows(hit.key for hit in hits)
        found = []
        for hit in standing(hits, rows):
            if (memory := _sound(rows[hit.key])) is not None:
                memory.score = getattr(hit, "score", None)
                found.append(memory)
        return found

    def _entities(self, hits: Sequence[Version]) -> list[Memory]:
        hits = [hit for hit in hits if hit.key.startswith(ENTITIES)]
        rows = self._graph.shared.rows(hit.key for hit in hits)
        found = []
        for hit in standing(hits, rows):
            row = rows[hit.key]
            entity = known(row).entity
            text = f"{entity.name} ({entity.entityType}): {'; '.join(entity.observations)}"
            score = getattr(hit, "score", None)
            made = Memory(key=f"graph/{entity.name}", text=text, agent=row.agent, time=row.time / 1000, score=score)
            found.append(made)
        return found


def searched(line: Line, query: str, collection: str | None, limit: int, agent: str | None = None) -> list[Version]:
    """What holds the words of a query, best first: through the hub everybody's, else that of this machine's agents."""
    store = line.store

    def here() -> list[Version]:
        out: list[Version] = []
        for each in [store, *line.neighbours()]:
            if agent in (None, each.agent):
                out += each.search(query, agent=each.agent, collection=collection, limit=limit)
        return sorted(out, key=lambda hit: (-getattr(hit, "score", 0.0), -hit.time))[:limit]

    def everywhere() -> list[Version]:
        found: list[Version] = [*store.search(query, agent=agent, collection=collection, limit=limit)]
        waiting = store.outbox_depth
        if waiting and agent is None:  # what the hub does not have yet is found here
            shipped = store._log.corpus.head(store._log.branch.id).seq - waiting
            own = store.search(query, agent=store.agent, collection=collection, limit=limit)
            new: list[Version] = [hit for hit in own if hit.seq > shipped]
            keys = {(hit.collection, hit.key) for hit in new}
            found = new + [hit for hit in found if hit.agent != store.agent or (hit.collection, hit.key) not in keys]
        return found[:limit]

    return here() if agent == store.agent else line.ask(everywhere, here)


def standing(hits: Iterable[Version], rows: dict[str, Row]) -> list[Version]:
    """The hits of which the row that was found is still what holds under its key, each key once."""
    seen: set[str] = set()
    out = []
    for hit in hits:
        row = rows.get(hit.key)
        if row is None or hit.key in seen:
            continue
        if any(each.agent == hit.agent and each.version == hit.version for each in (row, *row.rivals)):
            seen.add(hit.key)
            out.append(hit)
    return out


def _memory(row: Row) -> Memory:
    return Memory(
        key=row.key,
        text=row.raw["text"],
        tags=list(row.raw.get("tags", ())),
        agent=row.agent,
        time=row.time / 1000,
        rivals=[each.raw["text"] for each in row.rivals if each.raw.get("text") != row.raw["text"]],
    )


def _sound(row: Row) -> Memory | None:
    try:
        return _memory(row)
    except (KeyError, TypeError):
        logger.warning("%s of %s is no memory", row.key, row.agent)
        return None


def _same(row: Row, text: str, tags: list[str]) -> bool:
    return row.raw.get("text") == text and row.raw.get("tags") == tags


def _nothing(_: Row | None) -> None:
    return None
