"""A node as an object store: ``holdfast:./node?agent=ada``. Every write is a record, so versions, time travel and a
copy at the hub come with it.

An object is the value of its key in the collection ``objects``: ``store.get(key, collection="objects")`` reads it, of
another agent too. Its type and metadata, where it has any, are a record of ``objects.info`` written in the same batch
right before it; it says the digest of the bytes that it belongs to, for a merge of branches writes keys one by one.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl

from holdfast import clock
from holdfast.corpus import Stored
from holdfast.errors import (
    Conflict,
    HoldfastError,
    HubUnavailable,
    IntegrityError,
    NodeFull,
    NotCached,
    NotFound,
    ObjectCorrupt,
    ObjectNotFound,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    StoreClosed,
    UsageError,
)
from holdfast.log import drafts
from holdfast.node.looking import When, as_of
from holdfast.node.store import Store
from holdfast.objects import Content, ObjectInfo, ObjectStore
from holdfast.objects.keys import check_key, check_limit, check_prefix
from holdfast.objects.moving.switch import open_switch
from holdfast.objects.opening import Opener
from holdfast.objects.opening import open_store as open_lower
from holdfast.objects.port import (
    STREAMS,
    SWAP_DELETE,
    TYPE,
    Expect,
    Source,
    check_expect,
    check_put,
    check_range,
    conflict,
    not_found,
)
from holdfast.objects.raw import pieces_of
from holdfast.records import BLOB, read_blob_reference

OBJECTS: Final = "objects"
INFO: Final = "objects.info"
PAGE: Final = 500
Infos: TypeAlias = list[ObjectInfo]
_OPTIONS: Final = frozenset({"agent", "hub", "token", "level"})


class HoldfastStore(ObjectStore):
    """The objects of one agent, in its log on this machine and, through the hub, on every other.

    A put returns when the log has it, at the store's level, whatever the network does. A body is held whole in memory.
    A forked child opens a store of its own.

    Args:
        store: where they are kept.
        owned: whether to close it with this one.
    """

    lacks = frozenset({STREAMS})
    lists_all = True

    def __init__(self, store: Store, *, owned: bool = False) -> None:
        super().__init__()
        self._store = store
        self._owned = owned
        self._log = store._log

    @property
    def name(self) -> str:
        return f"holdfast:{self._store._directory.path}?agent={self._store.agent}"

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
        made = []
        with self._errors(key, expect):
            if kept or content_type != TYPE or self._log.newest(INFO, key) is not None:
                about = {"type": content_type, "metadata": kept, "sha256": hashlib.sha256(body).hexdigest()}
                made.append(drafts.value(INFO, key, about))
            made.append(drafts.value(OBJECTS, key, body, expect=expect))
            stored = self._store._append(made, False)[-1]
        return _described(stored, len(body), content_type, kept)

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        check_range(start, stop)
        stored, info = self._found(key)
        with self._errors(key):
            body = self._store._load(stored)
        return Content(info, (body[start:stop],))

    def head(self, key: str) -> ObjectInfo:
        return self._found(key)[1]

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        return self._listing(prefix, after, limit)

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_key(key)
        check_expect(self, expect, SWAP_DELETE)
        with self._errors(key, expect):
            if self._log.newest(OBJECTS, key) is None:
                if expect is not None:
                    raise conflict(self, key, expect, None)
                return False
            self._store._append([drafts.remove(OBJECTS, key, reason="", prefix=False, expect=expect)], False)
        return True

    # -- what other stores have not ----------------------------------------------------------------------------

    def versions(self, key: str) -> Infos:
        """Every version of an object that still has its bytes, newest first; deletions are left out.

        Raises:
            ObjectNotFound: there never was one.
        """
        self._open()
        check_key(key)
        with self._errors(key):
            found = [self._about(stored) for stored in self._log.versions(OBJECTS, key) if not stored.gone]
        if not found:
            raise not_found(self, key)
        return found

    def read_at(self, key: str, at: When) -> bytes:
        """The bytes of an object as they were.

        Args:
            key: the object's.
            at: a version number, or a time: seconds since 1970 as a float, ISO 8601 text, a datetime.

        Raises:
            ObjectNotFound: there was none.
        """
        self._open()
        check_key(key)
        with self._errors(key):
            return bytes(self._store._load(as_of(self._log, OBJECTS, key, at)))

    def rollback(self, key: str, version: int) -> ObjectInfo:
        """Makes an earlier version the newest again, as a new one: history only grows.

        Raises:
            ObjectNotFound: there is no such version, or it was a deletion.
        """
        self._open()
        check_key(key)
        with self._errors(key):
            old = as_of(self._log, OBJECTS, key, version)
            info, body = self._about(old), self._store._load(old)
        return self.put(key, body, content_type=info.content_type, metadata=info.metadata)

    def close(self) -> None:
        if not self._closed and self._owned:
            self._store.close()
        super().close()

    # -- inside ------------------------------------------------------------------------------------------------

    def _listing(self, prefix: str, after: str, limit: int | None) -> Iterator[ObjectInfo]:
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            with self._errors(prefix):
                self._open()
                page = self._log.corpus.keys(self._store.agent, OBJECTS, prefix, after, size)
                found = [self._about(stored) for stored in page]
            yield from found
            if len(page) < size:
                return
            after = page[-1].record.key
            left = None if left is None else left - len(page)

    def _found(self, key: str) -> tuple[Stored, ObjectInfo]:
        self._open()
        check_key(key)
        with self._errors(key):
            stored = self._log.newest(OBJECTS, key)
            if stored is None:
                raise not_found(self, key)
            return stored, self._about(stored)

    def _about(self, stored: Stored) -> ObjectInfo:
        """What is known of a version, by the record before it."""
        record = stored.record
        size = read_blob_reference(stored.payload())[1] if record.flags & BLOB else record.payload_len
        with contextlib.suppress(NotFound):
            about = self._log.as_of(INFO, record.key, stamp=record.hlc)
            said = self._store._load(about)
            if about.record.seq == record.seq - 1 or said["sha256"] == _digest(self._store._load(stored)):
                return _described(stored, size, said["type"], said["metadata"])
        return _described(stored, size, TYPE, {})

    @contextlib.contextmanager
    def _errors(self, key: str, expect: Expect = None) -> Iterator[None]:
        """The log's errors as those of object stores."""
        try:
            yield
        except (StorageError, StoreClosed):
            raise
        except Conflict as error:
            now = self._log.newest(OBJECTS, key)
            raise conflict(self, key, expect, now.record.link.hex() if now else None) from error
        except HoldfastError as error:
            kind = next((ours for theirs, ours in _ERRORS if isinstance(error, theirs)), StorageError)
            raise kind(error.message, hint=error.hint, **error.context) from error


_ERRORS: Final[tuple[tuple[type[HoldfastError], Any], ...]] = (
    (NodeFull, StorageFull),
    (HubUnavailable, StorageUnavailable),
    (IntegrityError, ObjectCorrupt),
    (UsageError, StorageRefused),
    (NotCached, StorageUnavailable),
    (NotFound, ObjectNotFound),
)


def open_store(address: str, **options: Any) -> ObjectStore:
    """The object store at an address: also ``holdfast:<directory>?agent=<name>``, a node.

    Args:
        address: see `holdfast.objects.open_store`.
        options: of the scheme; of ``holdfast:`` agent, hub, token and level, in the address or here.

    Raises:
        StorageRefused: an address that means no store, or an option that it does not have.
        MissingExtra: a package is needed; the message names the extra.
        StorageUnavailable: it does not answer.
    """
    openers: dict[str, Opener] = {"holdfast": open_node, "switch": functools.partial(open_switch, opener=open_store)}
    return open_lower(address, openers=openers, **options)


def open_node(address: str, **options: Any) -> HoldfastStore:
    """The opener of ``holdfast:``."""
    path, _, query = address.partition(":")[2].partition("?")
    given = dict(parse_qsl(query)) | options
    if unknown := sorted(given.keys() - _OPTIONS):
        raise StorageRefused(
            f"holdfast: has no option {unknown[0]!r}", hint=f"known are: {', '.join(sorted(_OPTIONS))}"
        )
    if not path or not given.get("agent"):
        raise StorageRefused(
            f"a node's address names its directory and an agent: {address!r:.120}", hint="holdfast:./node?agent=ada"
        )
    agent = given.pop("agent")
    return HoldfastStore(Store(path, agent, **given), owned=True)


def _described(stored: Stored, size: int, content_type: str, metadata: dict[str, str]) -> ObjectInfo:
    record = stored.record
    return ObjectInfo(
        key=record.key,
        size=size,
        etag=record.link.hex(),
        modified=datetime.fromtimestamp(clock.millis(record.hlc) / 1000, UTC),
        content_type=content_type,
        metadata=metadata,
        version=str(record.key_version),
    )


def _digest(body: Any) -> str:
    return hashlib.sha256(body).hexdigest()
