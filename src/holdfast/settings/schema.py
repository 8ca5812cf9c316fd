"""The JSON Schema of configuration files, for editors: completion, descriptions, and the bounds to keep to."""

from __future__ import annotations

from typing import Any, Final

from holdfast.settings import seeds
from holdfast.settings.keys import KEYS, SECTIONS, Key

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SIZE: Final = r"^\s*[0-9][0-9_]*(\.[0-9]+)?\s*([kKmMgGtT]([iI]?[bB])?|[bB])?\s*$"
_SPAN: Final = r"^\s*([0-9][0-9_]*(\.[0-9]+)?\s*[A-Za-z]*\s*)+$"
_TEXT: Final[dict[str, Any]] = {"type": "string", "minLength": 1}
_SPANNED: Final[list[dict[str, Any]]] = [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _SPAN}]
_PLAIN: Final = {"type": ["string", "number", "boolean"]}
"""A text that YAML would read as something else (`id: 7`) is a text all the same."""


def schema() -> dict[str, Any]:
    """The schema of every file that Holdfast reads, the earlier system's among them."""
    sections = {name: _mapping({each: _of(key) for each, key in keys.items()}) for name, keys in SECTIONS.items()}
    sections[seeds.RETRY_SECTION] = _mapping(_named(seeds.RETRY))
    inner = {name: _mapping(_named(names)) for name, names in seeds.INNER.items()}
    sections[seeds.STORAGE] = {**_mapping({**_named(seeds.IN_STORAGE), **inner}), "additionalProperties": True}
    top = {**sections, **_named(seeds.TOP), seeds.NODES: {"type": ["array", "null"], "items": _machine()}}
    return {
        "$schema": DIALECT,
        "title": "Holdfast",
        "description": "A configuration file of Holdfast: docs/configuration.md",
        "type": ["object", "null"],
        "properties": top,
        "if": {"not": {"anyOf": [{"required": [name]} for name in seeds.MARKS]}},
        "then": {"propertyNames": {"enum": list(top)}},
    }


def _named(names: Any) -> dict[str, Any]:
    return {name: _of(KEYS[path]) for name, path in names.items()}


def _mapping(properties: dict[str, Any]) -> dict[str, Any]:
    # A secret may stand in the environment only.
    kept = {name: each for name, each in properties.items() if each}
    return {"type": ["object", "null"], "properties": kept, "additionalProperties": False}


def _machine() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "id": _PLAIN,
            "host": _PLAIN,
            "port": {"type": ["integer", "string"]},
            "role": _PLAIN,
            "sync_enabled": {"type": ["boolean", "string"]},
            "sync_endpoint": {"type": "string", "pattern": "^https?://"},
        },
    }


def _of(key: Key) -> dict[str, Any]:
    """The schema of one key; empty for what no file may say."""
    if key.kind == "secret":
        return {}
    says = key.says + (f" (ignored: {key.ignored})" if key.ignored else "")
    found: dict[str, Any] = {"description": says[0].upper() + says[1:]}
    if key.default not in (None, "", ()):
        found["default"] = key.default
    return {"anyOf": [*_takes(key), {"type": "null"}], **found}


def _takes(key: Key) -> list[dict[str, Any]]:
    bounds = {}
    if key.least is not None and key.most is not None:
        bounds = {"minimum": key.least, "maximum": key.most}
    match key.kind:
        case "choice":
            return [{"enum": list(key.choices)}]
        case "flag":
            return [{"type": "boolean"}, {"enum": ["true", "false", "yes", "no", "on", "off"]}]
        case "whole":
            return [{"type": "integer", **bounds}, {"type": "string", "pattern": "^[0-9][0-9_]*[kM]?$"}]
        case "number":
            return [{"type": "number", **bounds}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}]
        case "size":
            return [{"type": "integer", **bounds}, {"type": "string", "pattern": _SIZE}]
        case "span" | "days":
            return [{"type": "number", **bounds}, {"type": "string", "pattern": _SPAN}]
        case "days_by_name":
            return [{"type": "object", "additionalProperties": {"anyOf": _SPANNED}}]
        case "url":
            return [{"type": "string", "pattern": "^(https?://.+)?$"}]
        case "urls":
            address = {"type": "string", "pattern": "https?://"}
            return [address, {"type": "array", "items": address}]
        case "words":
            return [{"type": "array", "items": _PLAIN}, _TEXT]
        case "command":
            return [{"type": "array", "items": _PLAIN, "minItems": 1}, _TEXT]
        case _:
            return [_PLAIN]
