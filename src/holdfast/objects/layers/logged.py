"""A line in the program's log for each operation on a store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, TypeVar

from holdfast.objects.layers.layer import LOGGED, Layer
from holdfast.objects.layers.watching import Watched
from holdfast.objects.port import TYPE, Content, Expect, ObjectInfo, ObjectStore, Source

LOGGER: Final = "AOS.Storage"
COMPLETED: Final = "Storage operation completed"
FAILED: Final = "Storage operation failed"
T = TypeVar("T")


class Logged(Layer):
    """Says of each operation what it was, on which key, how many bytes, where and how long; never what the bytes are.

    The fields are in `extra`: operation (write, read, delete, list, head), key, size_bytes, backend, duration_ms; of
    one that failed, error too. A read is over when its bytes were read or given up.

    Args:
        inner: the store.
        logger: where to; None: the logger ``AOS.Storage``.
        level: of operations that went well; of those that failed it is `failure`.
        failure: see `level`. A missing object and a lost race are answers, and no failures: they have `level`.
    """

    kind: ClassVar[str] = LOGGED

    def __init__(
        self,
        inner: ObjectStore,
        logger: logging.Logger | None = None,
        *,
        level: int = logging.INFO,
        failure: int = logging.WARNING,
    ) -> None:
        super().__init__(inner)
        self._logger = logger or logging.getLogger(LOGGER)
        self._level = level
        self._failure = failure

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

        return self._logged("write", key, put, lambda info: info.size)

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._open()
        begun = time.perf_counter()
        try:
            content = self.inner.get(key, start=start, stop=stop)
        except Exception as error:
            self._say("read", key, 0, begun, error)
            raise
        return Watched(content, lambda size, error: self._say("read", key, size, begun, error))

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        return self._logged("read", key, lambda: self.inner.read(key, start=start, stop=stop), len)

    def head(self, key: str) -> ObjectInfo:
        return self._logged("head", key, lambda: self.inner.head(key), lambda info: info.size)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        begun = time.perf_counter()
        try:
            found = self.inner.list(prefix, after=after, limit=limit)
        except Exception as error:
            self._say("list", prefix, 0, begun, error)
            raise
        return self._listed(prefix, found, begun)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        return self._logged("delete", key, lambda: self.inner.delete(key, expect=expect), lambda _: 0)

    def _logged(self, operation: str, key: str, call: Callable[[], T], size: Callable[[T], int]) -> T:
        self._open()
        begun = time.perf_counter()
        try:
            found = call()
        except Exception as error:
            self._say(operation, key, 0, begun, error)
            raise
        self._say(operation, key, size(found), begun)
        return found

    def _listed(self, prefix: str, found: Iterator[ObjectInfo], begun: float) -> Iterator[ObjectInfo]:
        failed = None
        try:
            yield from found
        except Exception as error:
            failed = error
            raise
        finally:
            self._say("list", prefix, 0, begun, failed)

    def _say(self, operation: str, key: str, size: int, begun: float, error: Exception | None = None) -> None:
        failed = error is not None and not is_answer(error)
        level = self._failure if failed else self._level
        if not self._logger.isEnabledFor(level):
            return
        extra: dict[str, Any] = {
            "operation": operation,
            "key": key,
            "size_bytes": size,
            "backend": self.name.partition(":")[0],
            "duration_ms": round(1000 * (time.perf_counter() - begun), 3),
        }
        if error is not None:
            extra["error"] = f"{type(error).__name__}: {error}"
        self._logger.log(level, FAILED if failed else COMPLETED, extra=extra)


def is_answer(error: Exception) -> bool:
    """Whether a store that raises this did its work: there is no such object, somebody was faster, or a wrong call."""
    from holdfast.errors import ObjectConflict, ObjectNotFound, UsageError

    return isinstance(error, ObjectNotFound | ObjectConflict | UsageError)
