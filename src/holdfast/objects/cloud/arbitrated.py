"""Conditional writes on a store that has none, decided by a small store that has them.

Each body goes to the large store under a name of its own, which is never written again; the small one, the arbiter,
holds for each key a few bytes that name the body. To create, to swap and to delete is to create, swap and delete these
few bytes, so the arbiter's promise is the whole promise: there is no lock and no lease, nothing expires, and a writer
who sleeps for an hour between his two steps loses as one who sleeps for none. A crash between them leaves a body that
nobody names, never a name without its body; `sweep` removes such bodies once they are a day old.

What it asks for: everybody reads and writes through it, by the same two stores; and the arbiter is kept as safe as the
objects are, for without it they are bodies without names.
"""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from holdfast import codec
from holdfast.errors import ObjectConflict, ObjectCorrupt, ObjectNotFound, StorageRefused, StorageUnavailable
from holdfast.objects.keys import check_key, check_limit, check_prefix
from holdfast.objects.layers.layer import Through
from holdfast.objects.port import (
    ABSENT,
    CREATE,
    DURABLE,
    NESTED,
    STREAMS,
    SWAP,
    SWAP_DELETE,
    TYPE,
    Content,
    Expect,
    ObjectInfo,
    ObjectStore,
    Source,
    check_put,
    check_range,
    conflict,
    not_found,
)

BODIES: Final = "bodies/"
GRACE_S: Final = 86_400.0
_TRIES: Final = 50


class _Pointer(msgspec.Struct, frozen=True):
    """What the arbiter holds for a key."""

    body: str
    info: ObjectInfo


class Arbitrated(ObjectStore):
    """A store that lacks create and swap, with an arbiter that has them.

    Args:
        store: holds the bodies, under ``bodies/``; closed with this one.
        by: the arbiter, over no other keys than these; closed with this one.

    Raises:
        StorageRefused: the arbiter lacks what it should give.
    """

    def __init__(self, store: ObjectStore, *, by: ObjectStore) -> None:
        super().__init__()
        if missing := sorted({CREATE, SWAP, SWAP_DELETE} & by.lacks):
            raise StorageRefused(f"{by.name} cannot arbitrate: it lacks {', '.join(missing)}", hint="such as sqlite:")
        self._store = store
        self._by = by
        self.lacks = store.lacks & {STREAMS} | (store.lacks | by.lacks) & {DURABLE} | by.lacks & {NESTED}

    @property
    def name(self) -> str:
        return f"{self._store.name} arbitrated by {self._by.name}"

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
        now, current = self._pointer(key)
        self._expected(key, expect, current)
        number = uuid.uuid4().hex
        body = f"{BODIES}{number}"
        stored = self._store.put(body, data, content_type=content_type)
        written = time.monotonic()
        info = ObjectInfo(
            key=key,
            size=stored.size,
            etag=number,
            modified=datetime.now(UTC),
            content_type=content_type,
            metadata=kept,
        )
        pointer = msgspec.json.encode(_Pointer(body, info))
        try:
            for _ in range(_TRIES):
                if time.monotonic() - written > GRACE_S / 2:
                    raise StorageUnavailable(f"the body of {key!r:.200} waited too long for its name", hint="try again")
                try:
                    self._by.put(key, pointer, expect=ABSENT if now is None else now)
                except ObjectConflict:
                    now, current = self._pointer(key)
                    if current is not None and current.body == body:
                        return info  # the arbiter did as it was asked, and answered no to its own second try
                    self._expected(key, expect, current)
                else:
                    break
            else:
                raise StorageUnavailable(f"others were faster {_TRIES} times at {key!r:.200}", hint="try again")
        except ObjectConflict:
            # After any other error, or an interrupt, it may well be named: then the body stays for a sweep to judge.
            self._drop(body)
            raise
        if current is not None:
            self._drop(current.body)
        return info

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        check_range(start, stop)
        pointer = self._found(key)
        while True:
            try:
                content = self._store.get(pointer.body, start=start, stop=stop)
            except ObjectNotFound:
                newer = self._found(key)
                if newer.body == pointer.body:
                    raise ObjectCorrupt(f"the body of {key!r:.200} is gone from {self._store.name}", key=key) from None
                pointer = newer  # it was replaced, and its body dropped, between our two steps
            else:
                return Through(pointer.info, content, content)

    def head(self, key: str) -> ObjectInfo:
        return self._found(key).info

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        return itertools.islice(self._listed(prefix, after), limit)

    def _listed(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        for named in self._by.list(prefix, after=after):
            pointer = self._pointer(named.key)[1]
            if pointer is not None:
                yield pointer.info

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_key(key)
        check_put(self, TYPE, None, expect)
        for _ in range(_TRIES):
            now, current = self._pointer(key)
            if expect is not None:
                self._expected(key, expect, current)
            if now is None or current is None:
                return False
            try:
                self._by.delete(key, expect=now)
            except (ObjectConflict, ObjectNotFound):
                continue
            self._drop(current.body)
            return True
        raise StorageUnavailable(f"others were faster {_TRIES} times at {key!r:.200}", hint="try again")

    def sweep(self, *, older_s: float = GRACE_S) -> int:
        """Removes bodies that no key names: what crashed writers left. Returns how many.

        Args:
            older_s: younger ones stay, for their writers may be about to name them; less than a day only where
                nobody writes.

        Raises:
            StorageUnavailable: one of the two stores does not answer.
        """
        self._open()
        limit = datetime.now(UTC) - timedelta(seconds=older_s)
        old = [info.key for info in self._store.list(BODIES) if info.modified <= limit]
        named = {pointer.body for info in self._by.list() if (pointer := self._pointer(info.key)[1]) is not None}
        return sum(self._store.delete(body) for body in old if body not in named)

    def close(self) -> None:
        super().close()
        self._store.close()
        self._by.close()

    def _look(self) -> str | None:
        for store in (self._store, self._by):
            if not (health := store.health()).ok:
                raise StorageUnavailable(health.error)
        return f"conditions are decided by {self._by.name}"

    def _found(self, key: str) -> _Pointer:
        self._open()
        pointer = self._pointer(check_key(key))[1]
        if pointer is None:
            raise not_found(self, key)
        return pointer

    def _pointer(self, key: str) -> tuple[str | None, _Pointer | None]:
        """The arbiter's etag for a key, and what it names."""
        try:
            with self._by.get(key) as content:
                data, etag = content.read(), content.info.etag
        except ObjectNotFound:
            return None, None
        try:
            return etag, msgspec.json.decode(data, type=codec.ready(_Pointer))
        except msgspec.MsgspecError as error:
            raise ObjectCorrupt(f"{self._by.name} names no body for {key!r:.200}: {error}", key=key) from None

    def _expected(self, key: str, expect: Expect, current: _Pointer | None) -> None:
        if expect is None:
            return
        etag = current.info.etag if current is not None else None
        if (etag or ABSENT) != expect:
            raise conflict(self, key, expect, etag)

    def _drop(self, body: str) -> None:
        with contextlib.suppress(Exception):  # a body that nobody names harms nobody; a sweep removes it
            self._store.delete(body)
