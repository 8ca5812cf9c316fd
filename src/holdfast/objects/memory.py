"""Objects in this process's memory: gone with it. A store like any other, held to the same laws."""

from __future__ import annotations

import bisect
import itertools
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from holdfast.errors import StorageRefused
from holdfast.objects.keys import check_key, check_limit, check_prefix
from holdfast.objects.port import (
    SWAP_DELETE,
    TYPE,
    Content,
    Expect,
    ObjectInfo,
    ObjectStore,
    Source,
    check_expect,
    check_put,
    check_range,
    conflict,
    not_found,
)
from holdfast.objects.raw import pieces_of

_numbers = itertools.count(1)


class MemoryStore(ObjectStore):
    """Objects in memory; every store of this class has its own."""

    lists_all = True
    quick = True

    def __init__(self) -> None:
        super().__init__()
        self._number = next(_numbers)
        self._etags = itertools.count(1)
        self._held: dict[str, tuple[ObjectInfo, bytes]] = {}
        self._keys: list[str] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"memory:{self._number}"

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        self._open()
        check_key(key)
        kept = check_put(self, content_type, metadata, expect)
        body = b"".join(pieces_of(data))
        with self._lock:
            self._expected(key, expect)
            info = ObjectInfo(
                key=key,
                size=len(body),
                etag=f"{next(self._etags):x}",
                modified=datetime.now(UTC),
                content_type=content_type,
                metadata=kept,
            )
            if key not in self._held:
                bisect.insort(self._keys, key)
            self._held[key] = info, body
        return info

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        check_range(start, stop)
        info, body = self._found(key)
        return Content(info, (body if start == 0 and stop is None else body[start:stop],))

    def head(self, key: str) -> ObjectInfo:
        return self._found(key)[0]

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        with self._lock:
            at = max(bisect.bisect_left(self._keys, prefix), bisect.bisect_right(self._keys, after))
            found: list[ObjectInfo] = []
            while at < len(self._keys) and self._keys[at].startswith(prefix) and len(found) != limit:
                found.append(self._held[self._keys[at]][0])
                at += 1
        return iter(found)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_key(key)
        check_expect(self, expect, SWAP_DELETE)
        with self._lock:
            if key not in self._held:
                if expect is not None:
                    raise conflict(self, key, expect, None)
                return False
            self._expected(key, expect)
            del self._held[key]
            del self._keys[bisect.bisect_left(self._keys, key)]
        return True

    def forked(self) -> None:
        self._lock = threading.Lock()  # nobody is left here who would open the parent's

    def _found(self, key: str) -> tuple[ObjectInfo, bytes]:
        self._open()
        try:
            return self._held[check_key(key)]
        except KeyError:
            raise not_found(self, key) from None

    def _expected(self, key: str, expect: Expect) -> None:
        if expect is None:
            return
        held = self._held.get(key)
        if (held[0].etag if held else 0) != expect:
            raise conflict(self, key, expect, held[0].etag if held else None)


def open_memory(address: str) -> MemoryStore:
    """The opener of ``memory:``; every call makes a store of its own."""
    if address != "memory:":
        raise StorageRefused(f"memory has no parts: {address!r:.80}", hint="memory:")
    return MemoryStore()
