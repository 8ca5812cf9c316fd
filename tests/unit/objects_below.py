"""A store under a layer that counts what it is asked, and lets something happen in the middle of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from holdfast.errors import (
    StorageUnavailable,
)
from holdfast.objects import ObjectStore
from holdfast.objects.layers import Layer
from holdfast.objects.port import TYPE, Content, Expect, ObjectInfo, Source
from holdfast.seal import KeyRing

RING = KeyRing({"k1": bytes(range(32))})
TEXT = b"the quick brown fox jumps over the lazy dog. " * 100


class Below(Layer):
    """A store that counts what it is asked, and lets something happen in the middle of it."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.asked: list[str] = []
        self.after: dict[str, Callable[[], object]] = {}
        """What happens once, when the store has answered and the caller does not know it yet."""
        self.before: dict[str, Callable[[], object]] = {}
        """What happens once, before the store is asked."""

    def _happen(self, call: str) -> None:
        self.asked.append(call)
        if then := self.after.pop(call, None):
            then()

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        if then := self.before.pop("put", None):
            then()
        info = self.inner.put(key, data, content_type=content_type, metadata=metadata, expect=expect)
        self._happen("put")
        return info

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        content = self.inner.get(key, start=start, stop=stop)
        self._happen("get")
        return content

    def head(self, key: str) -> ObjectInfo:
        info = self.inner.head(key)
        self._happen("head")
        return info

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        found = [*self.inner.list(prefix, after=after, limit=limit)]
        self._happen("list")
        return iter(found)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        found = self.inner.delete(key, expect=expect)
        self._happen("delete")
        return found


def lost() -> None:
    """The answer is lost on its way."""
    raise StorageUnavailable("no answer")
