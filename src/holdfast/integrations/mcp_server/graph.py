"""A knowledge graph as the MCP project's reference memory server has it: entities with observations, and relations.

The nine operations mean what they mean there. What differs is where things lie: each entity and each relation is a key
of its own, so that machines which write at once do not undo each other. Of one entity that two have changed at once
the observations of both stay, but for those that one of them deleted; of an entity that one deleted while another
added to it, what was added counts.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from holdfast.errors import NotFound
from holdfast.integrations.mcp_server.shared import KEEP, Maker, Raw, Shared
from holdfast.integrations.place import segment
from holdfast.node.shelf import Row

logger = logging.getLogger(__name__)

T = TypeVar("T")
COLLECTION: Final = "mcp-graph"
ENTITIES: Final = "e/"
RELATIONS: Final = "r/"
LOT: Final = 200
"""So many entities or relations become one commit."""
REMOVED_MAX: Final = 500
_TICKS: Final = 1000
"""Of a millisecond, so that what comes in one call has an order."""


class Entity(msgspec.Struct):
    """Something that is known."""

    name: Annotated[str, Meta(description="The name of the entity")]
    entityType: Annotated[str, Meta(description="The type of the entity")]
    observations: Annotated[list[str], Meta(description="An array of observation contents associated with the entity")]


class Relation(msgspec.Struct, frozen=True):
    """What one entity is to another."""

    from_: Annotated[str, Meta(description="The name of the entity where the relation starts")] = msgspec.field(
        name="from"
    )
    to: Annotated[str, Meta(description="The name of the entity where the relation ends")]
    relationType: Annotated[str, Meta(description="The type of the relation")]

    @property
    def ends(self) -> tuple[str, str]:
        """The names of both entities."""
        return self.from_, self.to

    @property
    def key(self) -> str:
        """Under which it lies."""
        return f"{RELATIONS}{segment(self.from_)}/{segment(self.to)}/{segment(self.relationType)}"


class Addition(msgspec.Struct):
    """Observations for an entity."""

    entityName: Annotated[str, Meta(description="The name of the entity to add the observations to")]
    contents: Annotated[list[str], Meta(description="An array of observation contents to add")]


class Added(msgspec.Struct):
    """Which of them were new."""

    entityName: str
    addedObservations: list[str]


class Deletion(msgspec.Struct):
    """Observations of an entity that are to go."""

    entityName: Annotated[str, Meta(description="The name of the entity containing the observations")]
    observations: Annotated[list[str], Meta(description="An array of observations to delete")]


class Knowledge(msgspec.Struct):
    """Entities and relations, in the order in which they were made."""

    entities: list[Entity]
    relations: list[Relation]


class Known(msgspec.Struct):
    """What the rows of one entity come to: see `known`."""

    entity: Entity
    made: int
    removed: list[str]

    def raw(self) -> Raw:
        """As it is stored."""
        entity = self.entity
        out: Raw = {"name": entity.name, "entityType": entity.entityType, "observations": entity.observations}
        out["made"] = self.made
        if self.removed:
            out["removed"] = self.removed[-REMOVED_MAX:]
        return out


class Graph:
    """The graph of all machines. Safe to share among threads.

    Args:
        shared: where its rows lie.
    """

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self._lock = threading.Lock()  # guards _last
        self._last = 0

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_graph(self) -> Knowledge:
        """All of it."""
        rows = self.shared.every()
        found = _sound(known, (row for row in rows if row.key.startswith(ENTITIES)))
        relations = _sound(_relation, (row for row in rows if row.key.startswith(RELATIONS)))
        found.sort(key=lambda each: (each.made, each.entity.name))
        relations.sort(key=lambda each: (each[0], each[1].key))
        return Knowledge([each.entity for each in found], [relation for _, relation in relations])

    def search_nodes(self, query: str) -> Knowledge:
        """Entities that hold this text in their name, type or observations, in any case; and what touches them."""
        text = query.lower()

        def holds(entity: Entity) -> bool:
            return any(text in each.lower() for each in (entity.name, entity.entityType, *entity.observations))

        graph = self.read_graph()
        return _around(graph, [each for each in graph.entities if holds(each)])

    def open_nodes(self, names: Sequence[str]) -> Knowledge:
        """The entities of these names, and what touches them."""
        wanted = set(names)
        graph = self.read_graph()
        return _around(graph, [each for each in graph.entities if each.name in wanted])

    def entities(self, names: Iterable[str]) -> dict[str, Known]:
        """Those of these entities that there are, by name."""
        rows = self.shared.rows(key_of(name) for name in names)
        return {each.entity.name: each for each in _sound(known, rows.values())}

    # -- writing ------------------------------------------------------------------------------------------------------

    def create_entities(self, entities: Sequence[Entity]) -> list[Entity]:
        """Adds entities whose names are new, and returns those."""
        first = {each.name: each for each in reversed(entities)}
        fresh: set[str] = set()

        def make(entity: Entity, made: int, row: Row | None) -> Raw:
            fresh.discard(entity.name)
            if row is not None:
                return KEEP
            fresh.add(entity.name)
            return Known(entity, made, []).raw()

        names = list(dict.fromkeys(each.name for each in entities))
        ticks = self._ticks(len(names))
        self._change({key_of(name): partial(make, first[name], ticks[at]) for at, name in enumerate(names)})
        return [first[name] for name in names if name in fresh]

    def create_relations(self, relations: Sequence[Relation], *, ends: bool = True) -> list[Relation]:
        """Adds relations that are new, and returns those.

        Args:
            relations: they.
            ends: both entities must be there.

        Raises:
            NotFound: one is not; nothing was written.
        """
        if ends:
            there = self.entities(name for each in relations for name in (each.from_, each.to))
            for each in relations:
                for name in (each.from_, each.to):
                    if name not in there:
                        raise _nobody(name)
        fresh: set[Relation] = set()

        def make(relation: Relation, made: int, row: Row | None) -> Raw:
            fresh.discard(relation)
            if row is not None:
                return KEEP
            fresh.add(relation)
            return {**msgspec.to_builtins(relation), "made": made}

        ticks = self._ticks(len(relations))
        wanted = dict(zip(dict.fromkeys(relations), ticks, strict=False))
        self._change({each.key: partial(make, each, made) for each, made in wanted.items()})
        return [each for each in wanted if each in fresh]

    def add_observations(self, additions: Sequence[Addition]) -> list[Added]:
        """Adds observations to entities, and returns for each addition which were new.

        Raises:
            NotFound: an entity is not there; nothing was written.
        """
        self._need(each.entityName for each in additions)
        results = [Added(each.entityName, []) for each in additions]

        def make(name: str, row: Row | None) -> Raw:
            if row is None:
                raise _nobody(name)
            now = known(row)
            texts = now.entity.observations
            before = len(texts)
            for given, result in zip(additions, results, strict=True):
                if given.entityName == name:
                    # One that comes twice in one call is stored twice, as by the reference server.
                    result.addedObservations = [text for text in given.contents if text not in texts]
                    texts.extend(result.addedObservations)
            if len(texts) == before:
                return KEEP
            again = {_mark(text) for text in texts[before:]}
            now.removed = [mark for mark in now.removed if mark not in again]
            return now.raw()

        names = dict.fromkeys(each.entityName for each in additions)
        self._change({key_of(name): partial(make, name) for name in names})
        return results

    def delete_entities(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Deletes entities with all relations that touch them; returns which there were, and which not."""
        wanted = set(names)
        there = set(self.entities(wanted))
        # Also of those that are not there: the file of another server may have held relations without their ends.
        relations = _sound(_relation, self.shared.every(RELATIONS))
        touching = [each.key for _, each in relations if not wanted.isdisjoint(each.ends)]
        self._change(dict.fromkeys([*touching, *map(key_of, sorted(there))], _gone))
        return [name for name in names if name in there], [name for name in names if name not in there]

    def delete_observations(self, deletions: Sequence[Deletion]) -> tuple[int, list[str]]:
        """Deletes observations; returns how many there were, and which entities were not there."""
        counts: Counter[str] = Counter()

        def make(name: str, row: Row | None) -> Raw:
            counts[name] = 0
            if row is None:
                return KEEP
            now = known(row)
            out = {text for each in deletions if each.entityName == name for text in each.observations}
            kept = [text for text in now.entity.observations if text not in out]
            counts[name] = len(now.entity.observations) - len(kept)
            if not counts[name]:
                return KEEP
            now.removed += [_mark(text) for text in set(now.entity.observations) - set(kept)]
            now.entity.observations = kept
            return now.raw()

        names = dict.fromkeys(each.entityName for each in deletions)
        there = self.entities(names)
        self._change({key_of(name): partial(make, name) for name in names if name in there})
        return counts.total(), [each.entityName for each in deletions if each.entityName not in there]

    def delete_relations(self, relations: Sequence[Relation]) -> int:
        """Deletes relations; returns how many there were."""
        there = self.shared.rows(each.key for each in relations)
        self._change(dict.fromkeys(there, _gone))
        return len(there)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _change(self, makers: Mapping[str, Maker]) -> None:
        keys = list(makers)
        for start in range(0, len(keys), LOT):
            self.shared.change({key: makers[key] for key in keys[start : start + LOT]})

    def _need(self, names: Iterable[str]) -> None:
        wanted = list(names)
        there = self.entities(wanted)
        for name in wanted:
            if name not in there:
                raise _nobody(name)

    def _ticks(self, count: int) -> list[int]:
        """Numbers that grow with time, and from call to call."""
        with self._lock:
            first = max(self._last + 1, self.shared.store._directory.wall.now_ms() * _TICKS)
            self._last = first + count
        return list(range(first, first + count))


def key_of(name: str) -> str:
    """The key of an entity."""
    return f"{ENTITIES}{segment(name)}"


def known(row: Row) -> Known:
    """An entity of all rows under its key: usually one, and several where machines have changed it at once."""
    rows = [*row.rivals, row]
    raws = [each.raw for each in rows]
    eldest = min(raws, key=lambda raw: (raw.get("made", 0), raw["entityType"]))
    if len(raws) == 1:
        entity = Entity(eldest["name"], eldest["entityType"], list(eldest["observations"]))
        return Known(entity, eldest.get("made", 0), list(eldest.get("removed", ())))
    texts: list[str] = []
    removed = list(dict.fromkeys(mark for raw in raws for mark in raw.get("removed", ())))
    for at, raw in enumerate(raws):
        others = {mark for index, each in enumerate(raws) if index != at for mark in each.get("removed", ())}
        seen = set(texts)
        texts += [text for text in raw["observations"] if text not in seen and _mark(text) not in others]
    there = {_mark(text) for text in texts}
    entity = Entity(eldest["name"], eldest["entityType"], texts)
    return Known(entity, eldest.get("made", 0), [mark for mark in removed if mark not in there])


def _relation(row: Row) -> tuple[int, Relation]:
    raw = row.raw
    return raw.get("made", 0), Relation(raw["from"], raw["to"], raw["relationType"])


def _sound(read: Callable[[Row], T], rows: Iterable[Row]) -> list[T]:
    """What these rows hold; one that somebody else put there and that is no part of a graph is passed over."""
    out = []
    for row in rows:
        try:
            out.append(read(row))
        except (KeyError, TypeError, AttributeError):
            logger.warning("%s of %s is no part of a graph", row.key, row.agent)
    return out


def _around(graph: Knowledge, entities: list[Entity]) -> Knowledge:
    """These entities, and the relations that have one of them at an end."""
    names = {each.name for each in entities}
    return Knowledge(entities, [each for each in graph.relations if not names.isdisjoint(each.ends)])


def _mark(text: str) -> str:
    """Stands for an observation that was deleted: the text itself is to be gone."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def _gone(_: Row | None) -> None:
    return None


def _nobody(name: str) -> NotFound:
    return NotFound(
        f"Entity with name {name} not found", hint="create_entities makes it; read_graph shows what there is"
    )
