"""An object store that fails when it is told to: before a call has an effect, after it, or in the middle of a body.

    store = FaultyStore(MemoryStore())
    store.down = True                                # nothing answers
    store.plan = Faults("ok", "after", "before")     # the second call takes effect, and its answer is lost

To try out what lies over a store: your own code, or a layer.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias, TypeVar

from holdfast.errors import StorageError, StorageUnavailable
from holdfast.objects.layers.layer import Layer
from holdfast.objects.port import TYPE, Content, Expect, Health, ObjectInfo, ObjectStore, Source

OK: Final = "ok"
BEFORE: Final = "before"
"""No answer, and no effect."""
AFTER: Final = "after"
"""The effect, and no answer."""
MIDWAY: Final = "midway"
"""A body or a listing that breaks off after its first half; a write has no effect then."""
Plan: TypeAlias = Callable[[str, str], str | Exception]
"""Takes an operation (put, get, head, list, delete) and a key or prefix; gives what becomes of it, or an error."""

T = TypeVar("T")


class Faults:
    """A plan: what becomes of the calls one after the other, and then nothing more.

    Args:
        outcomes: `OK`, `BEFORE`, `AFTER`, `MIDWAY`, or an exception that is raised before there is an effect.
        only: of these operations alone; none: of all.
    """

    def __init__(self, *outcomes: str | Exception, only: tuple[str, ...] = ()) -> None:
        self._outcomes = iter(outcomes)
        self._only = only

    def __call__(self, operation: str, key: str) -> str | Exception:
        """What becomes of the next call."""
        if self._only and operation not in self._only:
            return OK
        return next(self._outcomes, OK)


class FaultyStore(Layer):
    """Another store, which fails as planned.

    Attributes:
        down: while it is True, no call is answered, nor has an effect.
        plan: asked for each call.
        calls: each call so far as (operation, key), failed ones too.
    """

    def __init__(self, inner: ObjectStore, plan: Plan | None = None) -> None:
        super().__init__(inner)
        self.down = False
        self.plan: Plan = plan or Faults()
        self.calls: list[tuple[str, str]] = []

    @property
    def name(self) -> str:
        return f"faulty:{self.inner.name}"

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        fault = self._asked("put", key)
        if fault == MIDWAY:
            raise self._gone("put", key)

        def put() -> ObjectInfo:
            return self.inner.put(key, data, content_type=content_type, metadata=metadata, expect=expect)

        return self._told(fault, "put", key, put)

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        fault = self._asked("get", key)
        content = self._told(fault, "get", key, lambda: self.inner.get(key, start=start, stop=stop))
        if fault != MIDWAY:
            return content

        def half() -> Iterator[bytes]:
            with content:
                body = content.read()
            yield body[: len(body) // 2]
            raise self._gone("get", key)

        return Content(content.info, half())

    def head(self, key: str) -> ObjectInfo:
        fault = self._asked("head", key)
        return self._told(fault, "head", key, lambda: self.inner.head(key))

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        fault = self._asked("list", prefix)
        found = self._told(fault, "list", prefix, lambda: self.inner.list(prefix, after=after, limit=limit))
        if fault != MIDWAY:
            return found

        def half() -> Iterator[ObjectInfo]:
            page = list(found)
            yield from itertools.islice(page, len(page) // 2)
            raise self._gone("list", prefix)

        return half()

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        fault = self._asked("delete", key)
        if fault == MIDWAY:
            raise self._gone("delete", key)
        return self._told(fault, "delete", key, lambda: self.inner.delete(key, expect=expect))

    def health(self) -> Health:
        return ObjectStore.health(self)

    def _asked(self, operation: str, key: str) -> str:
        self._open()
        self.calls.append((operation, key))
        if self.down:
            raise self._gone(operation, key)
        fault = self.plan(operation, key)
        if isinstance(fault, Exception):
            raise fault
        if fault == BEFORE:
            raise self._gone(operation, key)
        return fault

    def _told(self, fault: str, operation: str, key: str, call: Callable[[], T]) -> T:
        """What the store says, if it is heard; nobody hears of an error either."""
        if fault != AFTER:
            return call()
        with contextlib.suppress(StorageError):
            call()
        raise self._gone(operation, key)

    def _gone(self, operation: str, key: str) -> StorageUnavailable:
        return StorageUnavailable(f"{self.name} did not answer: {operation} {key!r:.80}", key=key)
