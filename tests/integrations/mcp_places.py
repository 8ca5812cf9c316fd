"""Desks as assistants sit at them, tools called as the protocol calls them, and the reference server's meaning."""

from __future__ import annotations

import json
from typing import Any

from holdfast import Store
from holdfast.errors import HoldfastError
from holdfast.integrations.mcp_server import tools_artifacts, tools_graph, tools_mail, tools_memory
from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.tools import Answer, find

TOOLS = (*tools_memory.TOOLS, *tools_graph.TOOLS, *tools_mail.TOOLS, *tools_artifacts.TOOLS)


def answer(desk: Desk | Store, tool: str, /, **arguments: Any) -> Answer:
    """What a tool says."""
    return find(TOOLS, tool).call(Desk(desk) if isinstance(desk, Store) else desk, arguments)


def call(desk: Desk | Store, tool: str, /, **arguments: Any) -> Any:
    """The structured answer of a tool."""
    return answer(desk, tool, **arguments).structured


class Refused(Exception):
    """The oracle would have thrown."""


class Reference:
    """What the reference memory server keeps in its file, and what its tools answer: written from its description."""

    def __init__(self) -> None:
        self.entities: list[dict[str, Any]] = []
        self.relations: list[dict[str, str]] = []

    def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """The structured answer.

        Raises:
            Refused: it throws.
        """
        return getattr(self, name)(**json.loads(json.dumps(arguments)))

    def _named(self, name: str) -> dict[str, Any] | None:
        return next((each for each in self.entities if each["name"] == name), None)

    def create_entities(self, entities: list[Any]) -> Any:
        new: list[Any] = []
        for each in entities:
            if self._named(each["name"]) is None:
                self.entities.append(json.loads(json.dumps(each)))
                new.append(each)
        return {"entities": new}

    def create_relations(self, relations: list[Any]) -> Any:
        for each in relations:
            for end in (each["from"], each["to"]):
                if self._named(end) is None:
                    raise Refused(f"Entity with name {end} not found")
        new: list[Any] = []
        for each in relations:
            if each not in self.relations:
                self.relations.append(each)
                new.append(each)
        return {"relations": new}

    def add_observations(self, observations: list[Any]) -> Any:
        results = []
        before = json.dumps(self.entities)
        for each in observations:
            entity = self._named(each["entityName"])
            if entity is None:
                self.entities = json.loads(before)
                raise Refused(f"Entity with name {each['entityName']} not found")
            new = [text for text in each["contents"] if text not in entity["observations"]]
            entity["observations"] += new
            results.append({"entityName": each["entityName"], "addedObservations": new})
        return {"results": results}

    def delete_entities(self, entityNames: list[str]) -> Any:
        there = {each["name"] for each in self.entities}
        missing = [name for name in entityNames if name not in there]
        self.entities = [each for each in self.entities if each["name"] not in entityNames]
        self.relations = [r for r in self.relations if r["from"] not in entityNames and r["to"] not in entityNames]
        count = len(entityNames) - len(missing)
        said = f"Deleted {count} of {len(entityNames)} entities. Not found: {', '.join(missing)}"
        return {"success": True, "message": said if missing else "Entities deleted successfully"}

    def delete_observations(self, deletions: list[Any]) -> Any:
        count, missing, asked = 0, [], 0
        for each in deletions:
            asked += len(each["observations"])
            entity = self._named(each["entityName"])
            if entity is None:
                missing.append(each["entityName"])
                continue
            kept = [text for text in entity["observations"] if text not in each["observations"]]
            count += len(entity["observations"]) - len(kept)
            entity["observations"] = kept
        absent = f" Entities not found: {', '.join(missing)}" if missing else ""
        said = f"Deleted {count} of {asked} observations.{absent}"
        return {"success": True, "message": "Observations deleted successfully" if count == asked else said}

    def delete_relations(self, relations: list[Any]) -> Any:
        before = len(self.relations)
        self.relations = [each for each in self.relations if each not in relations]
        count = before - len(self.relations)
        said = f"Deleted {count} of {len(relations)} relations. The rest matched nothing."
        return {"success": True, "message": "Relations deleted successfully" if count == len(relations) else said}

    def read_graph(self) -> Any:
        return {"entities": self.entities, "relations": self.relations}

    def search_nodes(self, query: str) -> Any:
        text = query.lower()
        return self._around(
            [
                each
                for each in self.entities
                if any(text in word.lower() for word in (each["name"], each["entityType"], *each["observations"]))
            ]
        )

    def open_nodes(self, names: list[str]) -> Any:
        return self._around([each for each in self.entities if each["name"] in names])

    def _around(self, entities: list[Any]) -> Any:
        names = {each["name"] for each in entities}
        touching = [each for each in self.relations if each["from"] in names or each["to"] in names]
        return {"entities": entities, "relations": touching}

    def lines(self) -> bytes:
        """Its file."""
        fields = {"entity": ("name", "entityType", "observations"), "relation": ("from", "to", "relationType")}
        rows = [("entity", each) for each in self.entities] + [("relation", each) for each in self.relations]
        out = [{"type": kind, **{name: each[name] for name in fields[kind]}} for kind, each in rows]
        text = "\n".join(json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in out)
        return f"{text}\n".encode() if out else b""


def said_by(desk: Desk, name: str, arguments: dict[str, Any]) -> Any:
    """What our tool answers; the message of an error in its place."""
    try:
        return call(desk, name, **arguments)
    except HoldfastError as error:
        return error.message
