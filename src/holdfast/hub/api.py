"""One declaration an operation: where it is, who may, what it takes, what it answers. Routes, rights and the served
OpenAPI document are all made of it, so they cannot differ. To add an operation, write its structs, its work, and
yield it from `operations(core)` of a routes module:

    class Sought(msgspec.Struct, frozen=True):            # the parameters: their names, types, bounds, meaning
        status: Annotated[Literal["active", "ended"] | None, Meta(description="only these")] = None
        limit: shapes.Limit = 100

    class NewSession(msgspec.Struct, forbid_unknown_fields=True): ...         # a body; a wrong field is refused

    async def create(call: Call) -> Session | Reply: ...  # call.body is a NewSession, call.principal who asks

    Operation(
        method="POST", path="/storage/sessions", endpoint=typed(create), needs=WRITE, tag="sessions",
        summary="Begin a session", body=NewSession, answer=Session, status=201, errors=(409,),
    )

`typed` decodes what the operation declares (`query`, `body`) and answers with its `status`; there is nothing to say
twice. A parameter in the path needs its annotated type in `where`, a header that is read one in `headers`. Errors that
any operation may have are known here (`errors_of`); `errors` are its own. An endpoint that streams is bare ASGI: it
reads its parameters with `Parameters` and declares all the same, `answer=bytes` with `gives` for what is not JSON. What
decodes a batch item by item (`list[msgspec.Raw]`) has a struct in `shown` that says what an item is.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

import msgspec

from holdfast import codec
from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.audit import Audit, about, is_persons, is_told
from holdfast.hub.exchange import (
    MEDIA,
    Gone,
    Query,
    Receive,
    Scope,
    Send,
    answer,
    body_of,
    check_json,
    check_media,
    encode_json,
    header,
    parse_json,
)
from holdfast.hub.meters import FAILED, GONE, OK, REFUSED, Meter
from holdfast.hub.principal import READ, Principal, principal_of
from holdfast.wire import BODY_BYTES_MAX

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]
JSON: Final = "application/json"
ANY: Final = "*/*"
LISTS: Final = (list, tuple, set, frozenset)
SEE_DOCS: Final = "see /docs for what it takes"
_PATH = re.compile(r" - at `\$\.?(.*?)`$")


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of one path.

    Attributes:
        method, path: as in a request; ``{name}`` in a path is a parameter.
        endpoint: answers it.
        needs: the scope that whoever asks must have; empty: none, nor a token.
        or_needs: another scope that is enough, where the operation itself looks further; empty: none.
        summary: one line; the endpoint's or the work's docstring says the rest.
        tag: under which heading it is shown.
        where: the annotated type of each parameter in its path.
        deep: the parameter in its path that may hold slashes, as its last part; empty: none.
        query, body: the structs that its parameters and its body are decoded into; bytes for a body that is not JSON.
        shown: describes the body in place of `body`, which is decoded item by item.
        headers: the annotated type of each header that it reads.
        takes: the media types of its body.
        answer: what it answers with: a struct, or a type that msgspec can describe; bytes for what is not JSON; None
            for an answer without a body.
        status: of that answer.
        gives: the media type of that answer.
        or_gives: other media types of it, for whoever asks for them (Accept).
        also: other answers than errors: status -> type, bytes, or None for one without a body.
        errors: the statuses of its errors, besides those that every operation may have (`errors_of`).
        hot: whether it goes past Starlette's layers.
        lasting: whether an answer lasts as long as somebody listens.
    """

    method: str
    path: str
    endpoint: Endpoint
    needs: str
    or_needs: str = ""
    summary: str = ""
    tag: str = ""
    where: Mapping[str, Any] = {}
    deep: str = ""
    query: type | None = None
    body: Any = None
    shown: Any = None
    headers: Mapping[str, Any] = {}
    takes: tuple[str, ...] = (JSON,)
    answer: Any = None
    status: int = 200
    gives: str = JSON
    or_gives: tuple[str, ...] = ()
    also: Mapping[int, Any] = {}
    errors: tuple[int, ...] = ()
    hot: bool = False
    lasting: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.endpoint, Typed):
            self.endpoint.bind(self)

    @property
    def says(self) -> str:
        """What the docstring of whatever answers it says."""
        work = self.endpoint.work if isinstance(self.endpoint, Typed) else self.endpoint
        return work.__doc__ or ""


def errors_of(operation: Operation) -> list[int]:
    """The statuses of every error that an operation may have: its own, and those of all that are like it.

    This is the one place for them: whoever adds a check to the door or to `Guarded` adds its status here.
    """
    found = {421, 429, 431, 500, 503, *operation.errors}
    if operation.needs:
        found |= {401, 403}
    if operation.query is not None or operation.where or operation.headers:
        found.add(400)
    if operation.body is not None:
        found |= {400, 408, 413, 415}
    if operation.needs not in ("", READ) and operation.method != "GET":
        found.add(507)
    return sorted(found)


class Guarded:
    """An operation's endpoint behind its scope and the media types that it takes.

    Args:
        operation: with both.
        meter: counts what becomes of its requests.
        audit: is told what people change by it; None: nothing is told.
    """

    def __init__(self, operation: Operation, meter: Meter, audit: Audit | None = None) -> None:
        self.operation = operation
        self._needs = operation.needs
        self._or_needs = operation.or_needs
        self._endpoint = operation.endpoint
        self._takes = _kinds(operation) if operation.body is not None else frozenset()
        self._meter = meter
        self._page = operation.tag == "pages"
        self._audit = audit if is_told(operation.method, operation.needs, page=self._page) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request of somebody who may."""
        began, outcome = time.perf_counter(), FAILED
        try:
            principal = principal_of(scope)
            if not (self._or_needs and principal.may(self._or_needs)):
                principal.need(self._needs)
            if self._takes:
                self._check_kind(header(scope, b"content-type"))
            if self._audit is not None and is_persons(principal, page=self._page):
                send = self._audit.behind(scope, self.operation.method, send, page=self._page)
            await self._endpoint(scope, receive, send)
            outcome = OK
        except HoldfastError as error:
            outcome = REFUSED if error.status < 500 else FAILED
            raise
        except (Gone, asyncio.CancelledError):
            outcome = GONE
            raise
        finally:
            self._meter.note(outcome, began)

    def _check_kind(self, kind: bytes) -> None:
        # What a form may send from another site is refused with everything else that is not ours; no type is fine.
        if not kind or kind in self._takes or kind.split(b";")[0].strip().lower() in self._takes:
            return
        taken = ", ".join(self.operation.takes)
        error = UsageError(f"the body is {kind.decode('latin-1')!r:.80}", hint=f"send it as Content-Type: {taken}")
        error.status = 415
        raise error


def _kinds(operation: Operation) -> frozenset[bytes]:
    return frozenset() if ANY in operation.takes else frozenset(kind.encode() for kind in operation.takes)


class Call:
    """One request, taken apart and checked.

    Attributes:
        principal: who asks.
        path: the parameters in its path.
        query, body: what was asked for, as the operation's structs; None where it has none.
        size: bytes of the body.
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

    def tells(self, **fields: str) -> None:
        """Says to the audit trail what is done, and to what, where the path and the method say less."""
        about(self._scope, fields)


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
        work: gets the call, returns a value or a `Reply`; bytes are JSON already.
        query, body: the structs, where the operation does not say them.
        status: of the answer, where the operation does not say it, unless a `Reply` does.
        cap: bytes of the body, at most.
    """

    def __init__(
        self, work: Work, *, query: type | None = None, body: Any = None, status: int = 200, cap: int = BODY_BYTES_MAX
    ) -> None:
        self.work = work
        self._query = query
        self._body = body
        self._status = status
        self._cap = cap
        self._apart = False
        self._parameters = parameters_of(query or Nothing)

    def bind(self, operation: Operation) -> None:
        """Makes the operation and this agree on what is decoded; a struct is said in one of them."""
        self._apart = operation.shown is not None
        for name in ("query", "body"):
            mine, said = getattr(self, f"_{name}"), getattr(operation, name)
            if mine is None:
                setattr(self, f"_{name}", said)
            elif said is None:
                msgspec.structs.force_setattr(operation, name, mine)
            elif mine != said:
                raise TypeError(f"{operation.method} {operation.path} declares another {name} than it decodes")
        if operation.status != 200:
            self._status = operation.status
        else:
            msgspec.structs.force_setattr(operation, "status", self._status)
        self._parameters = parameters_of(self._query or Nothing)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        query = self._parameters.read(Query(scope))
        body, size = None, 0
        if self._body is not None:
            data = await body_of(scope, receive, self._cap)
            body, size = body_as(scope, data, self._body, apart=self._apart), len(data)
        found = await self.work(Call(scope, query, body, size))
        reply = found if isinstance(found, Reply) else Reply(found)
        data = reply.value if isinstance(reply.value, bytes) else encode_json(reply.value)
        extra = [(name.encode(), value.encode("latin-1")) for name, value in reply.headers]
        await answer(send, data, kind=reply.kind.encode(), status=reply.status or self._status, extra=extra)


class Nothing(msgspec.Struct, frozen=True):
    """No parameters."""


class Parameters:
    """Reads a query into a struct; lists are parameters that may be given several times.

    An empty text is a value only where text is asked for: of a number or a word it is as if it were not there.

    Args:
        shape: the struct; its field names are the parameters'.
    """

    def __init__(self, shape: type) -> None:
        self._shape = shape
        fields = msgspec.structs.fields(shape)
        self._names = [field.encode_name for field in fields]
        self._lists = {field.encode_name for field in fields if _plain(field.type) & set(LISTS)}
        self._texts = {field.encode_name for field in fields if str in _plain(field.type)}

    def read(self, query: Query) -> Any:
        """The struct.

        Raises:
            UsageError: a parameter that is unknown, missing, or not what it must be.
        """
        if unknown := query.names().difference(self._names):
            known = ", ".join(self._names) or "none"
            raise UsageError(f"unknown parameter {min(unknown)!r:.80}", hint=f"known are: {known}")
        given: dict[str, Any] = {}
        for name in query.names():
            if name in self._lists:
                given[name] = query.many(name)
            elif (text := query.text(name)) or name in self._texts:
                # Read leniently, the word null would be as if the parameter were not there.
                given[name] = f"{text}?" if text and text.lower() == "null" and name not in self._texts else text
        try:
            return msgspec.convert(given, codec.ready(self._shape), strict=False)
        except msgspec.ValidationError as error:
            raise refused(error, given, "the parameter ") from error


@functools.cache
def parameters_of(shape: type) -> Parameters:
    """What reads a query into a struct: what it holds is found out once, however many operations take it."""
    return Parameters(shape)


def _plain(kind: Any) -> set[Any]:
    """The types that a value may have, without what describes them."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _plain(get_args(kind)[0])
    if origin in (Union, UnionType):
        return set().union(*(_plain(each) for each in get_args(kind)))
    return {origin or kind}


def body_as(scope: Scope, data: bytes, shape: Any, *, apart: bool = False) -> Any:
    """A body as a struct: from msgpack where its type says so, else from JSON.

    Args:
        scope: of the request.
        data: the body.
        shape: the struct.
        apart: whether its parts are decoded singly, later.

    Raises:
        UsageError: it is neither, or not of that shape; the message says where.
    """
    if not header(scope, b"content-type").startswith(MEDIA):
        return decode(data, shape, apart=apart)
    try:
        check_media(data)
        return msgspec.msgpack.decode(data, type=codec.ready(shape))
    except msgspec.ValidationError as error:
        raise refused(error, msgspec.msgpack.decode(data), shape=shape) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise UsageError(f"the body is not msgpack: {error}", hint="its Content-Type says that it is") from error


def decode(data: bytes, shape: Any, *, apart: bool = False) -> Any:
    """A JSON body as a struct; see `body_as`.

    Raises:
        UsageError: it is not JSON, or not of that shape; the message says where.
    """
    check_json(data, apart=apart)
    try:
        return msgspec.json.decode(data, type=codec.ready(shape))
    except msgspec.ValidationError as error:
        raise refused(error, parse_json(data), shape=shape) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return parse_json(data)  # raises, and says what is wrong


def refused(error: msgspec.ValidationError, given: Any, what: str = "", shape: Any = None) -> UsageError:
    """The error of a value that has not its shape: which one, what it must be, and what was found.

    Args:
        error: what msgspec says of it.
        given: the whole, without its shape.
        what: goes before the name of the value.
        shape: what it should be.
    """
    text = str(error)
    place = _PATH.search(text)
    path = place[1] if place else ""
    says = text[: place.start()] if place else text
    missing = re.fullmatch(r"Object missing required field `(.*)`", says)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", says)
    if missing or unknown:
        name = ".".join(part for part in (path, (missing or unknown)[1]) if part)  # type: ignore[index]
        message = f"{what}{name!r} is missing" if missing else f"unknown field {name!r:.80}"
        fields = [name for kind in _plain(shape) for name in getattr(kind, "__struct_fields__", ())]
        names = "" if path else ", ".join(fields)
        return UsageError(message, hint=f"known are: {names}" if names else SEE_DOCS)
    wants = says[:1].lower() + says[1:]
    found, known = _at(given, path)
    return UsageError(
        f"{what}{path or 'the body'} is not as it must be: {wants}" + (f", got {found!r:.80}" if known else ""),
        hint=SEE_DOCS,
    )


def _at(given: Any, path: str) -> tuple[Any, bool]:
    """The value at a path of msgspec's, such as ``a.b[0]``; whether it is known."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        if index and isinstance(given, list | tuple) and int(index) < len(given):
            given = given[int(index)]
        elif name and isinstance(given, dict) and name in given:
            given = given[name]
        else:
            return None, False
    return given, True


def typed(work: Work, **options: Any) -> Endpoint:
    """`Typed`, for declarations."""
    return Typed(work, **options)
