"""One declaration an operation: where it is, who may, what it takes, what it answers. Routes, rights and the served
OpenAPI document are all made of it, so they cannot differ.

    class NewSession(msgspec.Struct, forbid_unknown_fields=True): ...

    async def create(call: Call) -> Reply: ...

    Operation("POST", "/storage/sessions", typed(create, body=NewSession), needs=WRITE, answer=Session, status=201, …)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, get_origin

import msgspec

from holdfast.errors import UsageError
from holdfast.hub.exchange import Query, Receive, Scope, Send, answer, body_of, encode_json, header, parse_json
from holdfast.hub.principal import Principal, principal_of
from holdfast.wire import BODY_BYTES_MAX

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]
JSON: Final = "application/json"
LISTS: Final = (list, tuple, set, frozenset)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    Attributes:
        method, path: as in a request; ``{name}`` in a path is a parameter.
        endpoint: answers it.
        needs: the scope that whoever asks must have; empty: none, nor a token.
        summary: one line; the endpoint's or the work's docstring says the rest.
        tag: under which heading it is shown.
        query, body: the structs that its parameters and its body are decoded into.
        takes: the media types of its body.
        answer: what it answers with: a struct, or a type that msgspec can describe; None for bytes.
        status: of that answer.
        gives: the media type of that answer.
        also: other answers than errors: status -> type, or None for bytes or nothing.
        errors: the statuses of its errors, besides those that every operation may have.
        hot: whether it goes past Starlette's layers.
    """

    method: str
    path: str
    endpoint: Endpoint
    needs: str
    summary: str = ""
    tag: str = ""
    query: type | None = None
    body: Any = None
    takes: tuple[str, ...] = (JSON,)
    answer: Any = None
    status: int = 200
    gives: str = JSON
    also: Mapping[int, Any] = {}
    errors: tuple[int, ...] = ()
    hot: bool = False


class Guarded:
    """An operation's endpoint behind its scope.

    Args:
        operation: with the scope that it needs.
    """

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self._needs = operation.needs
        self._endpoint = operation.endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request of somebody who may."""
        principal_of(scope).need(self._needs)
        await self._endpoint(scope, receive, send)


class Call:
    """One request, taken apart and checked.

    Attributes:
        principal: who asks.
        path: the parameters in its path.
        query, body: what was asked for, as the operation's structs; None where it has none.
    """

    __slots__ = ("_scope", "body", "path", "principal", "query", "size")

    def __init__(self, scope: Scope, query: Any, body: Any, size: int) -> None:
        self._scope = scope
        self.principal: Principal = principal_of(scope)
        self.path: Mapping[str, str] = scope.get("path_params", {})
        self.query = query
        self.body = body
        self.size = size

    def header(self, name: str) -> str:
        """The value of a header; empty if it was not sent."""
        return header(self._scope, name.lower().encode()).decode("latin-1")


class Reply(msgspec.Struct, frozen=True):
    """An answer that is not just a value with the operation's status.

    Attributes:
        value: encoded as JSON; bytes go as they are.
        status: 0 for the operation's.
        headers: names in lower case.
        kind: its media type.
    """

    value: Any
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = JSON


Work = Callable[[Call], Awaitable[Any]]


class Typed:
    """An endpoint that decodes its request into structs, works, and encodes what comes back.

    Args:
        work: gets the call, returns a value or a `Reply`.
        query, body: the structs; None where the operation takes none.
        status: of the answer, unless a `Reply` says otherwise.
        cap: bytes of the body, at most.
    """

    def __init__(
        self, work: Work, *, query: type | None = None, body: Any = None, status: int = 200, cap: int = BODY_BYTES_MAX
    ) -> None:
        self.work = work
        self._parameters = Parameters(query) if query is not None else None
        self._body = body
        self._status = status
        self._cap = cap

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        query = self._parameters.read(Query(scope)) if self._parameters is not None else None
        body, size = None, 0
        if self._body is not None:
            data = await body_of(scope, receive, self._cap)
            body, size = decode(data, self._body), len(data)
        found = await self.work(Call(scope, query, body, size))
        reply = found if isinstance(found, Reply) else Reply(found)
        data = reply.value if isinstance(reply.value, bytes) else encode_json(reply.value)
        extra = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
        await answer(send, data, kind=reply.kind.encode(), status=reply.status or self._status, extra=extra)


class Parameters:
    """Reads a query into a struct; lists are parameters that may be given several times.

    Args:
        shape: the struct; its field names are the parameters'.
    """

    def __init__(self, shape: type) -> None:
        self._shape = shape
        fields = msgspec.structs.fields(shape)
        self._names = [field.encode_name for field in fields]
        self._lists = {field.encode_name for field in fields if get_origin(field.type) in LISTS}

    def read(self, query: Query) -> Any:
        """The struct.

        Raises:
            UsageError: a parameter that is unknown, missing, or not what it must be.
        """
        if unknown := sorted(query.names() - set(self._names)):
            known = ", ".join(self._names) or "none"
            raise UsageError(f"unknown parameter {unknown[0]!r:.80}", hint=f"known are: {known}")
        given: dict[str, Any] = {}
        for name in self._names:
            if name in self._lists:
                given[name] = query.many(name)
            elif (text := query.text(name)) is not None and text != "":
                given[name] = text
        try:
            return msgspec.convert(given, self._shape, strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"the query is not as it must be: {error}", hint="see /docs for what it takes") from error


def decode(data: bytes, shape: Any) -> Any:
    """A JSON body as a struct.

    Raises:
        UsageError: it is not JSON, or not of that shape; the message says where.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except msgspec.ValidationError as error:
        raise UsageError(f"the body is not as it must be: {error}", hint="see /docs for what it takes") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return parse_json(data)  # raises, and says what is wrong


def typed(work: Work, **options: Any) -> Endpoint:
    """`Typed`, for declarations."""
    return Typed(work, **options)
