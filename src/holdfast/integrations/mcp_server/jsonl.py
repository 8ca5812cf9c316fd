"""The reference memory server's file: a JSON object a line, read into a graph and written out of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from holdfast.errors import UsageError
from holdfast.integrations.mcp_server.graph import Addition, Entity, Graph, Relation

BAD_MAX: Final = 1000
"""So many lines that cannot be read are named; of a file with more, only how many there are."""


class Taken(msgspec.Struct):
    """What an import came to.

    Attributes:
        entities, relations, observations: how many are new; observations those of entities that were there.
        already: entities and relations that were there as they are in the file.
        bad: the numbers of lines that are neither.
    """

    entities: int = 0
    relations: int = 0
    observations: int = 0
    already: int = 0
    bad: list[int] = []


def read_file(data: bytes) -> tuple[list[Entity], list[Relation], list[int]]:
    """The entities and relations of a file, and the numbers of the lines that are neither.

    Args:
        data: all of it.

    Raises:
        UsageError: nothing in it is of a memory.
    """
    entities: list[Entity] = []
    relations: list[Relation] = []
    bad: list[int] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            if found["type"] == "entity":
                entities.append(msgspec.convert(found, Entity))
            else:
                relations.append(_relation(found))
        except (ValueError, KeyError, TypeError, msgspec.ValidationError):
            bad.append(number)
    if bad and not entities and not relations:
        raise UsageError(
            f"no line of the file is an entity or a relation; the first that is not is {bad[0]}",
            hint="the file of the reference memory server: MEMORY_FILE_PATH, usually memory.jsonl or memory.json",
        )
    return entities, relations, bad


def take(graph: Graph, data: bytes) -> Taken:
    """Reads a file into a graph. What is there stays, what is missing is added; so the same file changes nothing twice.

    Args:
        graph: which.
        data: the file.

    Raises:
        UsageError: nothing in it is of a memory; nothing was written.
    """
    entities, relations, bad = read_file(data)
    taken = Taken(bad=bad[:BAD_MAX])
    merged: dict[str, Entity] = {}
    for each in entities:
        if (first := merged.setdefault(each.name, each)) is not each:  # a file that two servers wrote at once
            first.observations += [text for text in each.observations if text not in first.observations]
    made = {each.name for each in graph.create_entities(list(merged.values()))}
    rest = [each for each in merged.values() if each.name not in made]
    added = graph.add_observations([Addition(each.name, each.observations) for each in rest])
    new = graph.create_relations(relations, ends=False)
    taken.entities, taken.relations = len(made), len(new)
    taken.observations = sum(len(each.addedObservations) for each in added)
    taken.already = sum(not each.addedObservations for each in added) + len(set(relations)) - len(new)
    return taken


def lines(graph: Graph) -> Iterator[bytes]:
    """A graph as that file: entities, then relations."""
    found = graph.read_graph()
    yield from _lines("entity", found.entities)
    yield from _lines("relation", found.relations)


def _lines(kind: str, found: Iterable[Any]) -> Iterator[bytes]:
    for each in found:
        yield msgspec.json.encode({"type": kind, **msgspec.to_builtins(each)}) + b"\n"


def _relation(found: Any) -> Relation:
    if found["type"] != "relation":
        raise ValueError(found["type"])
    return msgspec.convert(found, Relation)
