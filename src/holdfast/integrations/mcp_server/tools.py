"""What a tool is, and how it is called: arguments checked by their schema, rights, answers that say how far they reach.

No SDK is needed for any of this; `server` turns it into what goes over the wire.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.hub.principal import READ, WRITE
from holdfast.integrations.mcp_server.desk import Desk
from holdfast.integrations.mcp_server.reach import EVERYBODY, HERE, noting

SCOPE: Final = "scope"
NOTE: Final = "note"
_REACH: Final[Mapping[str, Any]] = {
    SCOPE: {
        "type": "string",
        "enum": [EVERYBODY, HERE],
        "description": "everybody: all machines, through the hub; this machine: there is no hub, or it does not answer",
    },
    NOTE: {"type": "string", "description": "why the answer does not reach as far as it might"},
}


class Binary(msgspec.Struct, frozen=True):
    """Bytes that are part of an answer."""

    uri: str
    media_type: str
    data: bytes


class Answer(msgspec.Struct):
    """What a tool says.

    Attributes:
        structured: as its output schema has it.
        text: the same for people and models; empty: the structure as JSON.
        binary: bytes that go with it.
        note: why it does not reach beyond this machine; empty: it does, or nothing lies beyond.
    """

    structured: dict[str, Any]
    text: str = ""
    binary: Binary | None = None
    note: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool.

    Attributes:
        name, title, description: as clients show it.
        theme: what it belongs to; `--tools` names themes.
        arguments: a Struct that its arguments are.
        result: a Struct that its structured answer is.
        run: does it.
        writes: whether it changes anything.
        destroys: whether it takes something away.
        again: whether doing it twice is as doing it once.
        collections: what it reads or writes; a token must cover them.
        reference: whether it is one of the reference memory server's, whose answers have no other fields than there.
    """

    name: str
    title: str
    description: str
    theme: str
    arguments: type[msgspec.Struct]
    result: type[msgspec.Struct]
    run: Callable[[Desk, Any], Answer]
    writes: bool = False
    destroys: bool = False
    again: bool = True
    collections: tuple[str, ...] = ()
    reference: bool = False

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        return schema_of(self.arguments)

    @property
    def output_schema(self) -> dict[str, Any]:
        """The JSON Schema of its structured answer."""
        made = schema_of(self.result)
        if not self.reference:
            made["properties"] = {**made["properties"], **_REACH}
            made["required"] = [*made.get("required", ()), SCOPE]
        return made

    def call(self, desk: Desk, given: Mapping[str, Any] | None) -> Answer:
        """Does it.

        Args:
            desk: the agent's, and who sits at it.
            given: the arguments, as they came.

        Raises:
            UsageError: arguments that its schema does not allow.
            Denied: the token of whoever asks does not cover it.
        """
        who = desk.who
        who.need(WRITE if self.writes else READ)
        for name in self.collections:
            if self.writes:
                who.check_write(desk.agent, name)
            who.check_read(name)
        try:
            arguments = msgspec.convert(dict(given or {}), self.arguments)
        except msgspec.ValidationError as error:
            raise UsageError(f"{self.name}: {error}", hint=f"its arguments are {_names(self.arguments)}") from error
        with noting() as missed:
            answer = self.run(desk, arguments)
        reach = HERE if missed else desk.line.reach
        if missed:
            answer.note = f"the hub does not answer, so this is only what this machine knows: {missed[0]}"
        if not self.reference:
            answer.structured[SCOPE] = reach
            if answer.note:
                answer.structured[NOTE] = answer.note
        answer.text = answer.text or as_text(answer.structured)
        return answer


def chosen(tools: Sequence[Tool], themes: Iterable[str] = (), *, read_only: bool = False) -> list[Tool]:
    """The tools of these themes; of none: all.

    Raises:
        UsageError: there is no such theme.
    """
    wanted = set(themes)
    known = list(dict.fromkeys(tool.theme for tool in tools))
    if unknown := sorted(wanted - set(known)):
        raise UsageError(f"there are no tools for {unknown[0]!r:.80}", hint=f"there are: {', '.join(known)}")
    return [tool for tool in tools if (not wanted or tool.theme in wanted) and not (read_only and tool.writes)]


def find(tools: Sequence[Tool], name: str) -> Tool:
    """The tool of a name.

    Raises:
        NotFound: there is none.
    """
    for tool in tools:
        if tool.name == name:
            return tool
    raise NotFound(f"there is no tool {name!r:.80}", hint=f"there are: {', '.join(tool.name for tool in tools)}")


def said(error: HoldfastError) -> str:
    """An error as a model reads it: what failed, with the value, and what to do."""
    return f"{error.message}\nhint: {error.hint}" if error.hint else error.message


def as_text(value: Any) -> str:
    """JSON to be read, as the reference server writes it."""
    return json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False)


def schema_of(what: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a Struct, in one piece: some clients do not follow references."""
    whole = msgspec.json.schema(what)
    parts = whole.pop("$defs", {})
    made = _inlined(whole, parts)
    assert isinstance(made, dict)
    made.setdefault("properties", {})
    return made


def _inlined(part: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inlined(each, parts) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        named = dict(parts[part["$ref"].rpartition("/")[2]])
        named.pop("title", None)  # the name and the docstring of a class are about the program
        named.pop("description", None)
        return _inlined({**named, **{name: value for name, value in part.items() if name != "$ref"}}, parts)
    return {name: _inlined(value, parts) for name, value in part.items()}


def _names(what: type[msgspec.Struct]) -> str:
    return ", ".join(field.encode_name for field in msgspec.structs.fields(what)) or "none"
