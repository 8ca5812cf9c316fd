"""Who did what to which object, when, and what came of it, into a sink that is handed in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

from holdfast.errors import HoldfastError, StorageUnavailable
from holdfast.objects.audit import FAILURE, STARTED, SUCCESS, AuditSink, event
from holdfast.objects.layers.layer import AUDITED, Layer
from holdfast.objects.port import TYPE, Content, Expect, ObjectInfo, ObjectStore, Source

WRITE, READ, DELETE, LIST = "storage_write", "storage_read", "storage_delete", "storage_list"
Actor: TypeAlias = str | Callable[[], str]
T = TypeVar("T")
_log: Final = logging.getLogger("holdfast.objects.audit")


class Audited(Layer):
    """Keeps an event of every write and deletion before it is made (started), and what came of it (success, failure).

    A started event without a second one is a write of which nobody knows whether it took effect: the process ended in
    it, or the sink failed then, which is in the program's log. A read is one event, kept before a byte is handed out.

    Args:
        inner: the store.
        sink: keeps the events, such as `AuditFile`, or `holdfast.node.audit.AuditRecords`.
        actor: who; or what is asked who it is at each operation.
        reads: whether reads and listings are audited too.
        strict: what cannot be audited is not done. False: it is done, and the program's log has the event as an error.
    """

    kind: ClassVar[str] = AUDITED

    def __init__(
        self,
        inner: ObjectStore,
        sink: AuditSink,
        *,
        actor: Actor = "system",
        reads: bool = False,
        strict: bool = True,
    ) -> None:
        super().__init__(inner)
        self._sink = sink
        self._actor = actor
        self._reads = reads
        self._strict = strict

    @property
    def quick(self) -> bool:  # type: ignore[override]
        return False  # who knows how long the sink takes

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        def put() -> ObjectInfo:
            return self.inner.put(key, data, content_type=content_type, metadata=metadata, expect=expect)

        return self._changes(WRITE, key, put, lambda info: {"size": info.size, "etag": info.etag})

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        return self._changes(DELETE, key, lambda: self.inner.delete(key, expect=expect), lambda was: {"existed": was})

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        found = self._looks(READ, key, lambda: self.inner.get(key, start=start, stop=stop))
        try:
            self._looked(READ, key, {"size": found.info.size, "etag": found.info.etag})
        except HoldfastError:
            found.close()
            raise
        return found

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        found = self._looks(READ, key, lambda: self.inner.read(key, start=start, stop=stop))
        self._looked(READ, key, {"size": len(found)})
        return found

    def head(self, key: str) -> ObjectInfo:
        found = self._looks(READ, key, lambda: self.inner.head(key))
        self._looked(READ, key, {"size": found.size, "etag": found.etag, "head": True})
        return found

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        found = self._looks(LIST, prefix, lambda: self.inner.list(prefix, after=after, limit=limit))
        self._looked(LIST, prefix, {})
        return found

    def _changes(self, action: str, key: str, call: Callable[[], T], context: Callable[[T], dict[str, Any]]) -> T:
        """A write: announced, made, and its end kept."""
        self._open()
        actor = self._who()
        self._keep(actor, action, key, STARTED, {})
        try:
            found = call()
        except Exception as error:
            self._ended(actor, action, key, FAILURE, _why(error))
            raise
        self._ended(actor, action, key, SUCCESS, context(found))
        return found

    def _looks(self, action: str, key: str, call: Callable[[], T]) -> T:
        self._open()
        try:
            return call()
        except Exception as error:
            if self._reads:
                self._ended(self._who(), action, key, FAILURE, _why(error))
            raise

    def _looked(self, action: str, key: str, context: dict[str, Any]) -> None:
        if self._reads:
            self._keep(self._who(), action, key, SUCCESS, context)

    def _who(self) -> str:
        return self._actor if isinstance(self._actor, str) else self._actor()

    def _keep(self, actor: str, action: str, key: str, outcome: str, context: dict[str, Any]) -> None:
        """Keeps an event, or raises: what it speaks of is not done then."""
        made = self._made(actor, action, key, outcome, context)
        try:
            self._sink(made)
        except Exception as error:
            if not self._strict:
                _log.error("an audit event was not kept: %s", made, exc_info=error)
                return
            raise StorageUnavailable(
                f"{action} of {key!r:.200} was refused: its audit event cannot be kept: {error}",
                hint="mend the sink, or hand in strict=False",
                key=key,
            ) from error

    def _ended(self, actor: str, action: str, key: str, outcome: str, context: dict[str, Any]) -> None:
        """Keeps what came of it. It cannot be refused any more: an error here would be a lie about the write."""
        made = self._made(actor, action, key, outcome, context)
        try:
            self._sink(made)
        except Exception as error:
            _log.error("an audit event was not kept: %s", made, exc_info=error)

    def _made(self, actor: str, action: str, key: str, outcome: str, context: dict[str, Any]) -> Any:
        shown = f"storage/{key}" if isinstance(key, str) else f"storage/{key!r:.80}"
        return event(
            actor=actor, action=action, resource=shown, outcome=outcome, context={"store": self.name, **context}
        )


def _why(error: Exception) -> dict[str, Any]:
    code = error.code if isinstance(error, HoldfastError) else type(error).__name__
    return {"error": code, "message": str(error)[:500]}
