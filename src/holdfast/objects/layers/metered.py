"""Counts and times what is done with a store, and how well it answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, TypeVar

import msgspec

from holdfast.errors import HoldfastError
from holdfast.objects.layers.layer import CACHED, METERED, Layer, layers_of
from holdfast.objects.layers.logged import is_answer
from holdfast.objects.layers.watching import Watched
from holdfast.objects.metrics import MetricsCollector, Timing
from holdfast.objects.port import TYPE, Content, Expect, Health, ObjectInfo, ObjectStore, Source

T = TypeVar("T")
OPERATIONS = ("write", "read", "delete", "list", "head")


class StoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Metered` knows of its store, since it was made."""

    operations: dict[str, int]
    """By operation: write, read, delete, list, head."""
    latency: dict[str, Timing]
    """By operation, in milliseconds; of a read until its bytes began to come, or all had with `read`."""
    errors: dict[str, dict[str, int]]
    """By operation and by the error's code; a missing object and a lost race are counted here too."""
    bytes_in: int
    bytes_out: int
    size_bytes: int | None = None
    """Of all objects, when `measure` last looked; None: it never did."""
    objects: int | None = None
    growth_bytes_s: float | None = None
    """Bytes a second, between the last two looks of `measure`; below 0 when it shrinks."""
    cache_hit_rate: float | None = None
    """Of a cache below; None: there is none, or nobody asked it."""
    availability: float
    """The part of all calls that were answered, from 0 to 1; 1 before the first."""


class Metered(Layer):
    """Counts operations, bytes and errors, and times them, in a `MetricsCollector`.

    The metrics are storage.operations.total, storage.errors.total, storage.latency, storage.bytes.in,
    storage.bytes.out, storage.size.bytes, storage.size.objects, storage.growth.bytes_per_second, storage.cache.hit_rate
    and storage.available; each has the tag store, the store's name.

    Args:
        inner: the store.
        metrics: shared with others if need be; None: one of its own.
    """

    kind: ClassVar[str] = METERED

    def __init__(self, inner: ObjectStore, metrics: MetricsCollector | None = None) -> None:
        super().__init__(inner)
        self.metrics = metrics or MetricsCollector()
        self._lock = threading.Lock()
        self._calls = self._silent = 0
        self._in = self._out = 0
        self._size: tuple[float, int, int] | None = None
        self._growth: float | None = None
        self._counts = dict.fromkeys(OPERATIONS, 0)
        self._errors: dict[str, dict[str, int]] = {}
        self._here = {"store": inner.name}
        self._tags = {each: {"operation": each, **self._here} for each in OPERATIONS}

    def forked(self) -> None:
        self._lock = threading.Lock()  # nobody is left here who would open the parent's

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

        info = self._metered("write", put)
        with self._lock:
            self._in += info.size
        self.metrics.increment("storage.bytes.in", info.size, self._here)
        return info

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        content = self._metered("read", lambda: self.inner.get(key, start=start, stop=stop))
        return Watched(content, self._read)

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        body = self._metered("read", lambda: self.inner.read(key, start=start, stop=stop))
        self._sent(len(body))
        return body

    def head(self, key: str) -> ObjectInfo:
        return self._metered("head", lambda: self.inner.head(key))

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        return self._listed(self._metered("list", lambda: self.inner.list(prefix, after=after, limit=limit)))

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        return self._metered("delete", lambda: self.inner.delete(key, expect=expect))

    def health(self) -> Health:
        found = super().health()
        self.metrics.gauge("storage.available", int(found.ok), self._here)
        return found

    def measure(self) -> int:
        """Adds up the sizes of all objects by listing them, and says how fast they grow; the bytes.

        Raises:
            StorageUnavailable: no answer.
        """
        total = count = 0
        for info in self.inner.list():
            total += info.size
            count += 1
        now = time.monotonic()
        with self._lock:
            if self._size is not None and now > self._size[0]:
                self._growth = (total - self._size[1]) / (now - self._size[0])
            self._size = now, total, count
            growth = self._growth
        self.metrics.gauge("storage.size.bytes", total, self._here)
        self.metrics.gauge("storage.size.objects", count, self._here)
        if growth is not None:
            self.metrics.gauge("storage.growth.bytes_per_second", growth, self._here)
        return total

    def stats(self) -> StoreStats:
        """The figures as of now."""
        times = {
            each.tags["operation"]: each.timing
            for each in self.metrics.snapshot()
            if each.name == "storage.latency" and each.timing and each.tags.get("store") == self._here["store"]
        }
        rate = self._hit_rate()
        with self._lock:
            _, size, count = self._size or (0.0, None, None)
            available = max(0.0, 1 - self._silent / self._calls) if self._calls else 1.0
            found = StoreStats(
                operations=dict(self._counts),
                latency=times,
                errors={operation: dict(codes) for operation, codes in self._errors.items()},
                bytes_in=self._in,
                bytes_out=self._out,
                size_bytes=size,
                objects=count,
                growth_bytes_s=self._growth,
                cache_hit_rate=rate,
                availability=available,
            )
        if rate is not None:
            self.metrics.gauge("storage.cache.hit_rate", rate, self._here)
        self.metrics.gauge("storage.availability", available, self._here)
        return found

    def _hit_rate(self) -> float | None:
        hits = misses = 0
        for layer in layers_of(self.inner):
            if layer.kind == CACHED:
                counted = getattr(layer, "stats", None)
                counted = counted() if callable(counted) else counted
                hits += getattr(counted, "hits", 0)
                misses += getattr(counted, "misses", 0)
        return hits / (hits + misses) if hits + misses else None

    def _metered(self, operation: str, call: Callable[[], T]) -> T:
        self._open()
        begun = time.perf_counter()
        error: Exception | None = None
        try:
            return call()
        except Exception as failed:
            error = failed
            raise
        finally:
            took = 1000 * (time.perf_counter() - begun)
            self.metrics.increment("storage.operations.total", 1, self._tags[operation])
            self.metrics.timing("storage.latency", took, self._tags[operation])
            with self._lock:
                self._calls += 1
                self._counts[operation] += 1
            if error is not None:
                self._failed(operation, error)

    def _failed(self, operation: str, error: Exception) -> None:
        code = error.code if isinstance(error, HoldfastError) else type(error).__name__
        with self._lock:
            codes = self._errors.setdefault(operation, {})
            codes[code] = codes.get(code, 0) + 1
            self._silent += not is_answer(error)
        self.metrics.increment("storage.errors.total", 1, {**self._tags[operation], "error": code})

    def _read(self, size: int, error: Exception | None) -> None:
        if error is not None:
            self._failed("read", error)
        self._sent(size)

    def _listed(self, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        try:
            yield from found
        except Exception as error:
            self._failed("list", error)
            raise

    def _sent(self, size: int) -> None:
        with self._lock:
            self._out += size
        self.metrics.increment("storage.bytes.out", size, self._here)
