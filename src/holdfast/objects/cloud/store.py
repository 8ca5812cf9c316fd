"""The object store over a cloud's bucket: one class for S3, Azure and Google, held to the port's laws.

Beside users' metadata each object carries one entry of ours, `hf`: eight random bytes that name the write and, where
the body was at hand beforehand, 24 bytes of its SHA-256. By the first, a writer who is told that the condition of his
write is not met finds out whether it was his own earlier try that came through: the driver tries again by itself. By
the second, what is read whole is proven; of a body that came in pieces and did not fit into one part, nothing is known.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.errors import (
    HoldfastError,
    ObjectCorrupt,
    ObjectNotFound,
    StorageError,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects.cloud.door import Beyond, Bucket, Found, NotMet
from holdfast.objects.cloud.probe import RESERVED, Claims, probed
from holdfast.objects.keys import check_key, check_limit, check_prefix
from holdfast.objects.port import (
    ABSENT,
    NESTED,
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

PART: Final = 8 << 20
"""Bodies up to this many bytes go in one request; larger ones in parts of it."""
PARTS_MAX: Final = 9_000
"""S3 takes 10,000."""
HOLD_MAX: Final = 64 << 20
"""A write with a condition is one request, and its body is held whole."""
NAME_BYTES_MAX: Final = 1024
OURS: Final = "hf"
_TRIES: Final = 5
_MARK: Final = " "
_KNOWN: Final = 24


class Naming(msgspec.Struct, frozen=True, kw_only=True):
    """How keys become the names that a server sees, one to one, and in the same order.

    `marked` puts a space behind each name. It sorts before every sign that a key may have, so the order stays; and no
    object is called as a directory is, which servers that keep objects as files cannot bear.
    """

    prefix: str = ""
    marked: bool = False

    def name(self, key: str) -> str:
        """The server's name of a key."""
        name = f"{self.prefix}{key}{_MARK if self.marked else ''}"
        if key.startswith(RESERVED):
            raise StorageRefused(f"keys that begin with {RESERVED} are the store's own: {key!r:.80}", key=key)
        if self.marked and _MARK + "/" in key:
            raise StorageRefused(f"no segment before a / may end with a space on this store: {key!r:.120}", key=key)
        if len(name.encode()) > NAME_BYTES_MAX:
            raise StorageRefused(f"with the store's prefix the name has over {NAME_BYTES_MAX} bytes: {key!r:.80}")
        return name

    def key(self, name: str) -> str | None:
        """The key of a name; None: it is none of ours."""
        if not name.startswith(self.prefix) or (self.marked and not name.endswith(_MARK)):
            return None
        key = name[len(self.prefix) : len(name) - len(_MARK) if self.marked else None]
        return None if not key or key.startswith(RESERVED) else key


class CloudStore(ObjectStore):
    """Objects in a bucket or container, under a prefix. Made by the openers in `s3`, `azure` and `gcs`.

    Args:
        bucket: the raw calls.
        naming: how keys are called there.
        by_version: whether conditions go by the version and not by the etag (Google).
        hold_max: the most bytes of a body with a condition.
        known: the server, if it was tried out before (the probe's results are kept by it); None: do not try it out,
            and claim nothing that it might not keep.

    Raises:
        StorageUnavailable: the server does not answer.
        StorageDenied: it does not accept the credentials.
        StorageRefused: there is no such bucket.
    """

    def __init__(
        self,
        bucket: Bucket,
        *,
        naming: Naming,
        by_version: bool = False,
        hold_max: int = HOLD_MAX,
        known: str | None,
    ) -> None:
        super().__init__()
        self._bucket = bucket
        self._naming = naming
        self._by_version = by_version
        self._hold_max = hold_max
        claims = Claims.none() if known is None else probed(bucket, naming.prefix, known, by_version)
        # No cloud's delete takes a condition through this driver.
        self.lacks = claims.lacks - ({NESTED} if naming.marked else set()) | {SWAP_DELETE}
        self.notes = claims.notes
        """Why it lacks what its like have, a sentence each; `health` says them too."""
        self._dots = claims.dots

    @property
    def name(self) -> str:
        return self._bucket.name

    def put(
        self,
        key: str,
        data: Source,
        *,
        content_type: str = TYPE,
        metadata: Mapping[str, str] | None = None,
        expect: Expect = None,
    ) -> ObjectInfo:
        name = self._name(key)
        kept = check_put(self, content_type, metadata, expect)
        if OURS in kept:
            raise StorageRefused(f"the metadata {OURS!r} is the store's own", hint="another name")
        body = _Body(data, self._hold_max if expect is not None else None)
        write = base64.urlsafe_b64encode(os.urandom(8) + body.known).rstrip(b"=").decode()
        attributes = {"Content-Type": content_type, **kept, OURS: write}
        etag, version = self._write(key, name, body, attributes, expect)
        # Its time is the server's affair, and not in the answer; asking would double what a put costs.
        return ObjectInfo(
            key=key,
            size=body.size,
            etag=etag,
            modified=datetime.now(UTC),
            content_type=content_type,
            metadata=kept,
            version=version,
        )

    def _write(
        self, key: str, name: str, body: _Body, attributes: Mapping[str, str], expect: Expect
    ) -> tuple[str, str | None]:
        for turn in itertools.count(1):
            try:
                etag, version = body.sent(
                    lambda source: self._bucket.put(
                        name, source, attributes, self._condition(key, name, expect), body.part
                    )
                )
            except NotMet:
                current = self._look_at(name)
                if current is not None and current.attributes.get(OURS) == attributes[OURS]:
                    return current.etag, current.version
                if current is None and expect == ABSENT and turn < _TRIES:
                    continue  # S3 says 409 when two are at it at once; whoever was there is gone again
                raise conflict(self, key, expect, current.etag if current else None) from None
            except ObjectNotFound:
                if expect is None:
                    raise StorageError(f"{self.name} has no place for {key!r:.200}") from None
                raise conflict(self, key, expect, None) from None
            except StorageUnavailable:
                # Whether it took effect is unknown, and with a condition nobody else could find out by trying again.
                current = self._asked(name) if expect is not None else None
                if current is not None and current.attributes.get(OURS) == attributes[OURS]:
                    return current.etag, current.version
                self._blame_nesting(key, name)
                raise
            if etag:
                return etag, version
            current = self._bucket.head(name)
            return current.etag, current.version
        raise AssertionError

    def _condition(self, key: str, name: str, expect: Expect) -> Any:
        if expect is None:
            return None
        if expect == ABSENT:
            return "create"
        if not self._by_version:
            return {"e_tag": expect}
        current = self._look_at(name)
        if current is None or current.etag != expect:
            raise conflict(self, key, expect, current.etag if current else None)
        return {"e_tag": expect, "version": current.version}

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        check_range(start, stop)
        name = self._name(key)
        try:
            if start == stop:
                raise Beyond(name)
            found, span, pieces = self._bucket.get(name, start, stop)
        except Beyond:
            return Content(self._info(key, self._head(key, name)), ())
        except ObjectNotFound:
            raise not_found(self, key) from None
        info = self._info(key, found)
        whole = span == (0, info.size)
        known = _known(found.attributes.get(OURS, "")) if whole else b""
        expected = min(info.size, stop if stop is not None else info.size) - start
        return Content(info, _counted(pieces, expected, known, f"the object {key!r:.200} in {self.name}"))

    def head(self, key: str) -> ObjectInfo:
        return self._info(key, self._head(key, self._name(key)))

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        return itertools.islice(self._listed(prefix, after), limit)

    def _listed(self, prefix: str, after: str) -> Iterator[ObjectInfo]:
        begin = self._naming.prefix + prefix
        # Servers are asked for whole segments, so the rest is skipped here: from just before the prefix, to its end.
        offset = max(self._naming.prefix + after if after else "", _before(begin) if prefix else "")
        last = ""
        for found in self._names(begin.rpartition("/")[0], offset):
            self._open()
            key = self._naming.key(found.name)
            if key is None or key <= after or not key.startswith(prefix):
                if key is not None and prefix and key > prefix and not key.startswith(prefix):
                    return
                continue
            if key <= last:
                raise StorageError(f"{self.name} lists {key!r:.200} after {last!r:.200}: it does not list in order")
            last = key
            yield self._info(key, found)

    def _names(self, parent: str, offset: str) -> Iterator[Found]:
        """What lies there; the driver does not ask again for a page that broke off, so it is asked for once more."""
        again = True
        while True:
            try:
                for found in self._bucket.list(parent, offset):
                    yield found
                    offset, again = found.name, True
                return
            except StorageUnavailable:
                if not again:
                    raise
                again = False

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        name = self._name(key)
        check_expect(self, expect, SWAP_DELETE)
        try:
            self._bucket.head(name)  # S3 answers a deletion alike, whether there was one or not
            self._bucket.delete(name)
        except ObjectNotFound:
            return False
        return True

    def forked(self) -> None:
        self._bucket.close()

    def _look(self) -> str | None:
        super()._look()
        return "; ".join(self.notes) or None

    def close(self) -> None:
        super().close()
        self._bucket.close()

    def _name(self, key: str) -> str:
        self._open()
        check_key(key)
        if self._dots and (key.endswith(".") or "./" in key):
            raise StorageRefused(f"{self.name} loses a dot at a segment's end: {key!r:.120}", key=key)
        return self._naming.name(key)

    def _head(self, key: str, name: str) -> Found:
        try:
            return self._bucket.head(name)
        except ObjectNotFound:
            raise not_found(self, key) from None

    def _look_at(self, name: str) -> Found | None:
        try:
            return self._bucket.head(name)
        except ObjectNotFound:
            return None

    def _asked(self, name: str) -> Found | None:
        try:
            return self._look_at(name)
        except HoldfastError:
            return None

    def _blame_nesting(self, key: str, name: str) -> None:
        """Raises if that is why a server that keeps objects as files failed."""
        if NESTED not in self.lacks:
            return
        above = [key[:at] for at, sign in enumerate(key) if sign == "/"]
        blocked = next((it for it in above if self._asked(self._naming.name(it)) is not None), None)
        below = next(self._bucket.list(name, ""), None) if blocked is None else None
        if blocked is not None or below is not None:
            other = blocked or key
            raise StorageRefused(
                f"{self.name} keeps objects as files: {other!r:.120} cannot be an object and the beginning of a key",
                hint="open it with names='marked', from the first object on",
                key=key,
            ) from None

    def _info(self, key: str, found: Found) -> ObjectInfo:
        said = found.attributes
        return ObjectInfo(
            key=key,
            size=found.size,
            etag=found.etag,
            modified=found.modified,
            content_type=said.get("Content-Type", TYPE),
            metadata={name: value for name, value in said.items() if name != OURS and name[:1].islower()},
            version=found.version,
        )


class _Body:
    """What is to be stored, and what is known of it beforehand.

    Args:
        data: as `put` was given it.
        hold_max: so many bytes may be held in memory; None: what does not fit into a part goes in parts.
    """

    def __init__(self, data: Source, hold_max: int | None) -> None:
        self.known = b""
        self.size = 0
        self.part = PART
        self._source: bytes | Iterable[bytes]
        self._failed: BaseException | None = None
        if isinstance(data, Path) and (size := data.stat().st_size) > PART and hold_max is None:
            digest = _digest(pieces_of(data))
            self.known, self.part = digest[:_KNOWN], max(PART, -(-size // PARTS_MAX))
            self._source = self._unchanged(data, digest)
            return
        if isinstance(data, bytes | bytearray | memoryview):
            held, rest = bytes(data), None
        else:
            pieces = iter(pieces_of(data))
            held, rest = _gathered(pieces, PART if hold_max is None else hold_max)
        if hold_max is not None and (rest is not None or len(held) > max(hold_max, PART)):
            raise StorageRefused(
                f"a body with an `expect` is sent in one request, of at most {hold_max} bytes",
                hint="put it under a name of its own without expect, then a small object that names it with expect",
            )
        if rest is None:
            self._source, self.size = held, len(held)
            self.known, self.part = hashlib.sha256(held).digest()[:_KNOWN], max(PART, -(-len(held) // PARTS_MAX))
        else:
            self._source = itertools.chain([held], rest)

    def sent(self, send: Callable[[bytes | Iterable[bytes]], tuple[str, str | None]]) -> tuple[str, str | None]:
        """What `send` returns; what the source raised is raised as it was, and not as the driver's."""
        if isinstance(self._source, bytes):
            return send(self._source)
        self.size = 0
        try:
            return send(self._watched(self._source))
        except BaseException:
            if self._failed is not None:
                raise self._failed from None
            raise

    def _watched(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        try:
            for piece in pieces:
                self.size += len(piece)
                if piece:
                    yield piece
        except GeneratorExit:
            raise
        except BaseException as error:
            self._failed = error
            raise

    @staticmethod
    def _unchanged(path: Path, digest: bytes) -> Iterator[bytes]:
        seen = hashlib.sha256()
        for piece in pieces_of(path):
            seen.update(piece)
            yield piece
        if seen.digest() != digest:
            raise StorageRefused(f"the file {path} was changed while it was being stored", hint="try again")


def _gathered(pieces: Iterator[bytes], most: int) -> tuple[bytes, Iterator[bytes] | None]:
    """The first pieces in one, and the others if there are more than so many bytes."""
    held, size = [], 0
    for piece in pieces:
        held.append(bytes(piece))
        size += len(piece)
        if size > most:
            return b"".join(held), pieces
    return b"".join(held), None


def _digest(pieces: Iterable[bytes]) -> bytes:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.digest()


def _known(write: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(write + "=" * (-len(write) % 4))[8:]
    except ValueError:
        return b""


def _counted(pieces: Iterator[bytes], size: int, known: bytes, what: str) -> Iterator[bytes]:
    """The pieces; the last comes only when all of them are what was stored."""
    seen, count, held = hashlib.sha256(), 0, None
    for piece in pieces:
        if held is not None:
            yield held
        held = piece
        count += len(piece)
        if known:
            seen.update(piece)
    if count != size:
        raise StorageUnavailable(f"{what} broke off after {count} of {size} bytes", hint="read it again")
    if known and seen.digest()[:_KNOWN] != known:
        raise ObjectCorrupt(f"{what} is not what was stored: its SHA-256 is another", hint="restore it from a copy")
    if held is not None:
        yield held


def _before(name: str) -> str:
    """A name less than this one, and greater than most that are; empty where there is none that a server can read."""
    low = ord(name[-1]) - 1
    return "" if low <= 0x20 or 0x7F <= low < 0xA0 or 0xD800 <= low < 0xE000 else f"{name[:-1]}{chr(low)}\U0010fffd"
