"""The OpenAPI 3.1 document of a hub, made of the operations that it answers and the structs that decode them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Final, get_args, get_origin

import msgspec

from holdfast.hub.api import ANY, JSON, Operation, errors_of
from holdfast.hub.exchange import RETRY_AFTER
from holdfast.hub.shapes import ErrorAnswer
from holdfast.wire import MEDIA

FORM: Final = "multipart/form-data"
TITLE: Final = "Holdfast hub"
ABOUT: Final = (
    "The storage layer for AI agents, over HTTP. Every answer carries `Holdfast-Hub`. Bodies may come with "
    "`Content-Encoding: gzip` or `zstd`. Every error has one form, and says what to do."
)
LICENSE: Final = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
TOKEN: Final = (
    "A token of this hub: `Authorization: Bearer <token>`. Each operation names the scope that it needs. A hub without "
    "tokens listens on its own machine only, and asks for none."
)
MEANINGS: Final[Mapping[int, str]] = {
    400: "The request asks for something impossible: change it.",
    401: "No token, or one that this hub does not know.",
    403: "The token may not do this.",
    404: "There is nothing there.",
    408: "The body did not come in time: send it again.",
    409: "Somebody was faster, or an id was used for something else: read the `context`, decide anew.",
    410: "It was here, and is not any more.",
    412: "It is not as the request expects.",
    413: "Too much at once: send less.",
    415: "A media type or a content coding that is not taken here.",
    416: "The range is not within what is there.",
    421: "This hub does not answer under that host name.",
    422: "The bytes are not what their name says: send them again.",
    429: "Too many requests: wait as long as `Retry-After` says.",
    431: "More headers than are read: send fewer.",
    500: "The hub failed on this request; nothing was acknowledged.",
    501: "This hub runs without what this needs.",
    503: "The hub stops, is overrun, or its disk failed: try again after `Retry-After`.",
    507: "The hub's disk is nearly full; reads go on: keep what you have, try again after `Retry-After`.",
}
_REF: Final = "#/components/schemas/{name}"


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The document, as JSON values.

    Args:
        operations: everything that the hub answers.
        version: of the hub.
    """
    listed = list(operations)
    schemas = Schemas(listed)
    paths: dict[str, dict[str, Any]] = {}
    for each in listed:
        paths.setdefault(each.path, {})[each.method.lower()] = described(each, schemas)
    used = sorted({status for each in listed for status in errors_of(each)})
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": version, "description": ABOUT, "license": LICENSE},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(each.tag for each in listed)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {f"Error{status}": _error(status, schemas) for status in used},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": TOKEN}},
        },
    }


class Schemas:
    """The JSON schema of every type that the operations name.

    Args:
        operations: those that name them.
    """

    def __init__(self, operations: list[Operation]) -> None:
        found: list[Any] = [ErrorAnswer]
        for each in operations:
            said = [kind for kind in (_body(each), each.answer, *each.also.values()) if kind not in (None, bytes)]
            found += [part for kind in said for part in _either(kind)]
        # Not a dict: what describes a type, such as an Annotated with examples, may not be hashable.
        self._kinds: list[Any] = [kind for n, kind in enumerate(found) if kind not in found[:n]]
        self._refs, self.components = msgspec.json.schema_components(self._kinds, schema_hook=_hook, ref_template=_REF)

    def of(self, kind: Any) -> Any:
        """The schema, or where it is."""
        parts = [self._refs[self._kinds.index(part)] for part in _either(kind)]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}


def described(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    """One operation, as the document shows it."""
    out: dict[str, Any] = {
        "operationId": name_of(operation),
        "summary": operation.summary,
        "description": _prose(operation),
        "tags": [operation.tag],
    }
    if found := list(_parameters(operation)):
        out["parameters"] = found
    if operation.body is not None:
        content = {kind: _content(kind, _body(operation), schemas, JSON, MEDIA, FORM) for kind in operation.takes}
        out["requestBody"] = {"required": ANY not in content, "content": content}  # bytes may be none at all
    kinds = (operation.gives, *operation.or_gives)
    answers = {operation.status: operation.answer, **operation.also}
    out["responses"] = {
        str(status): _answer(kind, kinds if status == operation.status else kinds[:1], schemas)
        for status, kind in sorted(answers.items())
    } | {
        str(status): {"$ref": f"#/components/responses/Error{status}"}
        for status in errors_of(operation)
        if status not in answers
    }
    out["security"] = [{"token": [operation.needs]}] if operation.needs else []
    return out


def name_of(operation: Operation) -> str:
    """The operation's name for programs, made of its method and path: it stays for as long as these do."""
    words = re.findall(r"[A-Za-z0-9]+", operation.path.removeprefix("/v1"))
    return "_".join([operation.method.lower(), *words])


def _parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for place, kinds in (("path", operation.where), ("header", operation.headers)):
        for name, kind in kinds.items():
            yield _parameter(name, place, _inline(kind), required=place == "path")
    if operation.query is not None:
        schema = _inline(operation.query)
        for name, found in schema.get("properties", {}).items():
            yield _parameter(name, "query", found, required=name in schema.get("required", ()))


def _parameter(name: str, place: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1:  # in a query nothing is null: it is there or not
        schema = choices[0] | {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    if schema.get("default", 0) in ("", [], None):
        del schema["default"]
    out = {"name": name, "in": place, "required": required, "schema": schema}
    if place == "query" and schema.get("type") not in ("string", "array"):
        out["allowEmptyValue"] = True  # as if it were not there
    if "description" in schema:
        out["description"] = schema.pop("description")
    return out


def _inline(kind: Any) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([kind], schema_hook=_hook, ref_template="{name}")
    found: dict[str, Any] = components[schema["$ref"]] if "$ref" in schema else schema
    return found


def _answer(kind: Any, kinds: tuple[str, ...], schemas: Schemas) -> dict[str, Any]:
    if kind is None:
        return {"description": "Done; the headers say the rest."}
    says = inspect.cleandoc(kind.__doc__ or "") if isinstance(kind, type) and kind is not bytes else ""
    out: dict[str, Any] = {"description": says.partition("\n\n")[0] if says and _ours(kind) else "Done."}
    out["content"] = {each: _content(each, kind, schemas, JSON) for each in kinds}
    return out


def _content(media: str, kind: Any, schemas: Schemas, *shaped: str) -> dict[str, Any]:
    return {"schema": schemas.of(kind)} if media in shaped and kind is not bytes else {}


def _error(status: int, schemas: Schemas) -> dict[str, Any]:
    out: dict[str, Any] = {"description": MEANINGS[status], "content": {JSON: {"schema": schemas.of(ErrorAnswer)}}}
    if status in RETRY_AFTER:
        out["headers"] = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "string"}}}
    return out


def _body(operation: Operation) -> Any:
    return operation.shown if operation.shown is not None else operation.body


def _either(kind: Any) -> tuple[Any, ...]:
    """The structs of which it is one; itself where it is nothing but one. msgspec describes them one by one only."""
    parts = get_args(kind) if get_origin(kind) is UnionType else ()
    structs = [part for part in parts if isinstance(part, type) and _ours(part)]
    return parts if len(structs) > 1 else (kind,)


def _ours(kind: type) -> bool:
    return issubclass(kind, msgspec.Struct)


def _prose(operation: Operation) -> str:
    """What its docstring says, without the path and what is for programmers."""
    said = inspect.cleandoc(operation.says)
    said = re.split(r"\n\n(?:Args|Returns|Raises|Attributes):", said)[0]
    said = re.sub(rf"^{operation.method} {re.escape(operation.path)}:\s*", "", said)
    return (said[:1].upper() + said[1:]).replace("``", "`")


def _hook(kind: type) -> dict[str, Any]:
    if kind is msgspec.Raw:
        return {}
    raise NotImplementedError(f"no schema for {kind}")
