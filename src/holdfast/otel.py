"""OpenTelemetry for a store: a span and a duration for each thing that an agent does with its memory.

    from holdfast.otel import instrument

    store = instrument(holdfast.Store("./node", agent="ada"))

Only the API is needed (`pip install 'holdfast[otel]'`); where spans go is the program's own set-up. A store that nobody
instruments costs nothing. Names follow the conventions for databases and for generative AI's memory. Values, queries
and the text of errors are left out, unless OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true asks for content.
"""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from holdfast.errors import HoldfastError, MissingExtra

try:
    from opentelemetry.metrics import MeterProvider, get_meter_provider
    from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer_provider
except ImportError as error:  # pragma: no cover - tests/house installs without extras
    raise MissingExtra(
        f"OpenTelemetry needs a package that is not installed: {error.name}", hint="pip install 'holdfast[otel]'"
    ) from error

if TYPE_CHECKING:
    from holdfast.node.aio import AsyncStore
    from holdfast.node.store import Store

    AnyStore = TypeVar("AnyStore", Store, AsyncStore)

CONTENT: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
CONTENT_CHARS_MAX: Final = 8 << 10
BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_SPANS: Final = {
    "put": "upsert_memory",
    "delete": "delete_memory",
    "rollback": "update_memory",
    "post": "create_memory",
    "get": "search_memory",
    "history": "search_memory",
    "keys": "search_memory",
    "messages": "search_memory",
    "search": "search_memory",
}
"""Method -> the name of its span; the database's `db.operation.name` says which method it was."""
_BATCH: Final = "batch"
_inside: ContextVar[bool] = ContextVar("holdfast_otel_inside", default=False)


def instrument(
    store: AnyStore, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> AnyStore:
    """The same store, whose methods tell OpenTelemetry what they do; again changes nothing.

    Args:
        store: a `Store` or an `AsyncStore`.
        tracer_provider, meter_provider: the program's global ones unless given.
    """
    if _BATCH in vars(store):
        return store
    eye = _Eye(store.agent, tracer_provider or get_tracer_provider(), meter_provider or get_meter_provider())
    for name in _SPANS:
        setattr(store, name, _watched(eye, name, getattr(store, name)))
    setattr(store, _BATCH, _watched_batch(eye, store.batch))
    return store


def uninstrument(store: AnyStore) -> AnyStore:
    """The same store, as it was before `instrument`."""
    for name in (*_SPANS, _BATCH):
        vars(store).pop(name, None)
    return store


class _Eye:
    """Makes the spans and measures of one store."""

    def __init__(self, agent: str, tracers: TracerProvider, meters: MeterProvider) -> None:
        from holdfast import __version__

        self._agent = agent
        self._tracer = tracers.get_tracer("holdfast", __version__)
        self._duration = meters.get_meter("holdfast", __version__).create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of operations on a store.",
            explicit_bucket_boundaries_advisory=BOUNDS,
        )

    @contextmanager
    def look(self, name: str, span_name: str, asked: dict[str, Any]) -> Iterator[Callable[[Any], None]]:
        """A span around one operation; gives what is to be called with the result."""
        collection = asked.get("collection") or ("messages" if name in ("post", "messages") else "state")
        facts: dict[str, Any] = {"db.system.name": "holdfast", "db.operation.name": name}
        if name != _BATCH:
            facts["db.collection.name"] = collection
        more = {"gen_ai.operation.name": span_name, "gen_ai.agent.id": self._agent}
        more["gen_ai.memory.store.id"] = f"{asked.get('agent') or self._agent}/{collection}"
        if isinstance(asked.get("key"), str):
            more["gen_ai.memory.record.id"] = asked["key"]
        if asked.get("thread"):
            more["gen_ai.conversation.id"] = str(asked["thread"])
        content = os.environ.get(CONTENT, "").lower() == "true"
        if content and "q" in asked:
            more["gen_ai.memory.query.text"] = str(asked["q"])[:CONTENT_CHARS_MAX]
        if content and ("value" in asked or "body" in asked):
            more["gen_ai.memory.records"] = _text([asked.get("value", asked.get("body"))])
        began, token = time.perf_counter(), _inside.set(name != _BATCH)
        with self._tracer.start_as_current_span(
            span_name,
            kind=SpanKind.CLIENT,
            attributes={**facts, **more},
            record_exception=False,  # its text may quote a value
            set_status_on_exception=False,
        ) as span:

            def done(result: Any) -> None:
                if isinstance(result, list):
                    span.set_attribute("gen_ai.memory.record.count", len(result))
                elif name == "post":
                    span.set_attribute("gen_ai.memory.record.id", result.id)
                if content and span_name == "search_memory":
                    shown = result if isinstance(result, list) else [result]
                    span.set_attribute("gen_ai.memory.records", _text([_value(each) for each in shown]))

            try:
                yield done
            except BaseException as error:
                facts["error.type"] = error.code if isinstance(error, HoldfastError) else type(error).__qualname__
                span.set_attribute("error.type", facts["error.type"])
                span.set_status(Status(StatusCode.ERROR))
                raise
            finally:
                _inside.reset(token)
                self._duration.record(time.perf_counter() - began, facts)


def _watched(eye: _Eye, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    names = list(inspect.signature(method).parameters)

    def look(args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        asked = dict(zip(names, args, strict=False)) | given
        # Compare-and-set says what it expects; 0 is "there is none".
        span = "create_memory" if name == "put" and asked.get("expect") == 0 else _SPANS[name]
        return eye.look(name, span, asked)

    @functools.wraps(method)
    def plain(*args: Any, **given: Any) -> Any:
        if _inside.get():  # one operation built on another is one span
            return method(*args, **given)
        with look(args, given) as done:
            result = method(*args, **given)
            done(result)
        return result

    @functools.wraps(method)
    async def awaited(*args: Any, **given: Any) -> Any:
        if _inside.get():
            return await method(*args, **given)
        with look(args, given) as done:
            result = await method(*args, **given)
            done(result)
        return result

    return awaited if inspect.iscoroutinefunction(method) else plain


def _watched_batch(eye: _Eye, method: Callable[..., Any]) -> Callable[..., Any]:
    """A batch is one span, over its whole block: what happens in there besides has spans of its own."""

    @functools.wraps(method)
    @contextmanager
    def plain(**given: Any) -> Iterator[Any]:
        with eye.look(_BATCH, "upsert_memory", given) as done:
            with method(**given) as made:
                yield made
            done(made.versions)

    @functools.wraps(method)
    @asynccontextmanager
    async def awaited(**given: Any) -> AsyncIterator[Any]:
        with eye.look(_BATCH, "upsert_memory", given) as done:
            async with method(**given) as made:
                yield made
            done(made.versions)

    return awaited if inspect.isasyncgenfunction(inspect.unwrap(method)) else plain


def _value(found: Any) -> Any:
    """What of a result is content: a message's body, a version's value, or the value itself."""
    return getattr(found, "body", getattr(found, "value", found))


def _text(values: list[Any]) -> str:
    return msgspec.json.encode(values, enc_hook=repr).decode()[:CONTENT_CHARS_MAX]
