"""The nine tools of the MCP project's reference memory server: same names, arguments and answers, for a drop-in.

Descriptions, schemas and the texts of answers are that server's, as clients and prompts are written for them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.graph import (
    COLLECTION,
    Added,
    Addition,
    Deletion,
    Entity,
    Knowledge,
    Relation,
)
from holdfast.integrations.mcp_server.tools import Answer, Tool, as_text

THEME: Final = "graph"
QUERY_CHARS_MAX: Final = 2048


class CreateEntities(msgspec.Struct):
    """Arguments."""

    entities: list[Entity]


class CreateRelations(msgspec.Struct):
    """Arguments."""

    relations: list[Relation]


class AddObservations(msgspec.Struct):
    """Arguments."""

    observations: list[Addition]


class DeleteEntities(msgspec.Struct):
    """Arguments."""

    entityNames: Annotated[list[str], Meta(description="An array of entity names to delete")]


class DeleteObservations(msgspec.Struct):
    """Arguments."""

    deletions: list[Deletion]


class DeleteRelations(msgspec.Struct):
    """Arguments."""

    relations: Annotated[list[Relation], Meta(description="An array of relations to delete")]


class ReadGraph(msgspec.Struct):
    """Arguments: none."""


class SearchNodes(msgspec.Struct):
    """Arguments."""

    query: Annotated[
        str,
        Meta(
            max_length=QUERY_CHARS_MAX,
            description="The search query to match against entity names, types, and observation content",
        ),
    ]


class OpenNodes(msgspec.Struct):
    """Arguments."""

    names: Annotated[list[str], Meta(description="An array of entity names to retrieve")]


class Results(msgspec.Struct):
    """Answer."""

    results: list[Added]


class Done(msgspec.Struct):
    """Answer."""

    success: bool
    message: str


def create_entities(desk: Desk, given: CreateEntities) -> Answer:
    """See its description."""
    return _list("entities", desk.graph.create_entities(given.entities))


def create_relations(desk: Desk, given: CreateRelations) -> Answer:
    """See its description."""
    return _list("relations", desk.graph.create_relations(given.relations))


def add_observations(desk: Desk, given: AddObservations) -> Answer:
    """See its description."""
    return _list("results", desk.graph.add_observations(given.observations))


def delete_entities(desk: Desk, given: DeleteEntities) -> Answer:
    """See its description."""
    deleted, missing = desk.graph.delete_entities(given.entityNames)
    if not missing:
        return _done("Entities deleted successfully")
    whole = len(given.entityNames)
    return _done(f"Deleted {len(deleted)} of {whole} entities. Not found: {', '.join(missing)}")


def delete_observations(desk: Desk, given: DeleteObservations) -> Answer:
    """See its description."""
    count, missing = desk.graph.delete_observations(given.deletions)
    asked = sum(len(each.observations) for each in given.deletions)
    if count == asked:
        return _done("Observations deleted successfully")
    absent = f" Entities not found: {', '.join(missing)}" if missing else ""
    return _done(f"Deleted {count} of {asked} observations.{absent}")


def delete_relations(desk: Desk, given: DeleteRelations) -> Answer:
    """See its description."""
    count, asked = desk.graph.delete_relations(given.relations), len(given.relations)
    if count == asked:
        return _done("Relations deleted successfully")
    return _done(f"Deleted {count} of {asked} relations. The rest matched nothing.")


def read_graph(desk: Desk, _: ReadGraph) -> Answer:
    """See its description."""
    return _graph(desk.graph.read_graph())


def search_nodes(desk: Desk, given: SearchNodes) -> Answer:
    """See its description."""
    return _graph(desk.graph.search_nodes(given.query))


def open_nodes(desk: Desk, given: OpenNodes) -> Answer:
    """See its description."""
    return _graph(desk.graph.open_nodes(given.names))


def _list(name: str, found: list[Any]) -> Answer:
    plain = msgspec.to_builtins(found)
    return Answer({name: plain}, as_text(plain))


def _graph(found: Knowledge) -> Answer:
    return Answer(msgspec.to_builtins(found))


def _done(message: str) -> Answer:
    return Answer({"success": True, "message": message}, message)


def _tool(name: str, description: str, arguments: Any, result: Any, run: Any, **hints: bool) -> Tool:
    title = name.replace("_", " ").title()
    given: dict[str, Any] = {"arguments": arguments, "result": result, "run": run, **hints}
    return Tool(
        name=name, title=title, description=description, theme=THEME, collections=(COLLECTION,), reference=True, **given
    )


_ADDS: Final = {"writes": True, "again": False}
_TAKES: Final = {"writes": True, "destroys": True}

TOOLS: Final = (
    _tool(
        "create_entities",
        "Create multiple new entities in the knowledge graph",
        *(CreateEntities, CreateEntities, create_entities),
        **_ADDS,
    ),
    _tool(
        "create_relations",
        "Create multiple new relations between entities in the knowledge graph. Relations should be in active voice",
        *(CreateRelations, CreateRelations, create_relations),
        **_ADDS,
    ),
    _tool(
        "add_observations",
        "Add new observations to existing entities in the knowledge graph",
        *(AddObservations, Results, add_observations),
        **_ADDS,
    ),
    _tool(
        "delete_entities",
        "Delete multiple entities and their associated relations from the knowledge graph",
        *(DeleteEntities, Done, delete_entities),
        **_TAKES,
    ),
    _tool(
        "delete_observations",
        "Delete specific observations from entities in the knowledge graph",
        *(DeleteObservations, Done, delete_observations),
        **_TAKES,
    ),
    _tool(
        "delete_relations",
        "Delete multiple relations from the knowledge graph",
        *(DeleteRelations, Done, delete_relations),
        **_TAKES,
    ),
    _tool("read_graph", "Read the entire knowledge graph", ReadGraph, Knowledge, read_graph),
    _tool(
        "search_nodes",
        "Search for nodes in the knowledge graph based on a query",
        *(SearchNodes, Knowledge, search_nodes),
    ),
    _tool(
        "open_nodes",
        "Open specific nodes in the knowledge graph by their names",
        *(OpenNodes, Knowledge, open_nodes),
    ),
)
