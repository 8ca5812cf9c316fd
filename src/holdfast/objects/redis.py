"""Objects in a Redis or Valkey: the room's one door to that package.

An object is a hash; a script changes it and the index of keys in one step. A body of more than 256 KiB lies in a hash
of its own, which is written before the object names it and expires by itself when nobody does: what a writer left half
done in ten minutes, what was replaced in five, and a reader who is still at it puts that off.

How safe a put is, is the server's affair (`appendfsync`), and some servers throw away what they have no room for: what
can be found out about it is said in `lacks` and `health`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from holdfast.errors import (
    HoldfastError,
    MissingExtra,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from holdfast.objects.keys import check_after, check_key, check_limit, check_prefix
from holdfast.objects.port import (
    ABSENT,
    DURABLE,
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
    corrupt,
    not_found,
)
from holdfast.objects.raw import chunks_of, pieces_of

PREFIX: Final = "holdfast:objects:"
CONNECTIONS: Final = 16
INLINE_BYTES: Final = 256 << 10
CHUNK_BYTES: Final = 1 << 20
"""Part of the format."""
PAGE: Final = 200
CONNECT_S: Final = 5
CALL_S: Final = 30
STANDSTILL_S: Final = 600
"""How long a writer may rest between two chunks."""
GRACE_S: Final = 300
"""How long a reader may rest between two chunks of an object that has been replaced."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
T = TypeVar("T")

# The first command that writes is one that a server without room refuses: nothing is done then. All fields are written
# every time, so that none of the object before stays.
_PUT: Final = """
local have = redis.call('HMGET', KEYS[1], 'etag', 'large')
if ARGV[1] ~= '' and (have[1] or '0') ~= ARGV[1] then return {0, have[1] or ''} end
local key, etag, size, kind, metadata, body, chunks = unpack(ARGV, 2, 8)
local large = ''
if chunks ~= '0' then
  large = KEYS[3] .. etag
  if redis.call('HLEN', large) ~= tonumber(chunks) then return {-1, ''} end
end
local now = redis.call('TIME')
local modified = now[1] .. string.format('%06d', now[2])
redis.call('HSET', KEYS[1], 'etag', etag, 'size', size, 'modified', modified, 'type', kind, 'metadata', metadata,
  'body', body, 'large', large)
redis.call('ZADD', KEYS[2], 0, key)
if large ~= '' then redis.call('PERSIST', large) end
if have[2] and have[2] ~= '' then redis.call('EXPIRE', have[2], ARGV[9]) end
return {1, modified}
"""
_DELETE: Final = """
local have = redis.call('HMGET', KEYS[1], 'etag', 'large')
if ARGV[1] ~= '' and have[1] ~= ARGV[1] then return {0, have[1] or ''} end
if not have[1] then return {-1, ''} end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[2])
if have[2] ~= '' then redis.call('EXPIRE', have[2], ARGV[3]) end
return {1, ''}
"""
_CHUNK: Final = """
local data = redis.call('HGET', KEYS[1], ARGV[1])
if data and redis.call('TTL', KEYS[1]) >= 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return data
"""
_KNOWN: Final = ("etag", "size", "modified", "type", "metadata")
_ALL: Final = (*_KNOWN, "large", "body")


class RedisStore(ObjectStore):
    """Objects in a Redis, 5 or newer, or a Valkey; not in a cluster of them.

    Args:
        address: ``redis://[user:password@]host:port/number``, ``rediss://…`` with TLS (1.2 or newer), or
            ``unix://<socket file>``.
        prefix: the beginning of all names in the server; two stores in one have two.
        connections: at most so many.

    Raises:
        MissingExtra: the package is not installed.
        StorageRefused: not an address.
        StorageDenied: it does not let this user in.
        StorageUnavailable: nobody answers there.
    """

    lists_all = True

    def __init__(self, address: str, *, prefix: str = PREFIX, connections: int = CONNECTIONS) -> None:
        self._library = _redis()
        if connections < 1:
            raise StorageRefused(f"{connections} connections are none", hint="at least 1")
        self._redis: Any = _client(self._library, address, connections)
        given = self._redis.connection_pool.connection_kwargs
        where = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"
        self._name = f"redis://{where}/{given.get('db', 0)}" + ("" if prefix == PREFIX else f"#{prefix}")
        self._index, self._objects, self._bodies = (prefix.encode() + part for part in (b"keys", b"o:", b"c:"))
        self._put, self._delete, self._chunk = map(self._redis.register_script, (_PUT, _DELETE, _CHUNK))
        self.forked()
        try:
            durable = self._settings()[1]
        except BaseException:
            self._redis.close()
            raise
        super().__init__()
        if not durable:
            self.lacks = frozenset((DURABLE,))

    @property
    def name(self) -> str:
        return self._name

    def forked(self) -> None:
        # Connections are the package's business: it has new ones in a child.
        self._etags = secrets.token_hex(6), itertools.count(1)

    # -- writing ------------------------------------------------------------------------------------------------

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
        mark, numbers = self._etags
        etag = f"{mark}{next(numbers):x}"
        info = ObjectInfo(key=key, size=0, etag=etag, modified=_EPOCH, content_type=content_type, metadata=kept)
        chunks = chunks_of(pieces_of(data), CHUNK_BYTES)
        first, second = next(chunks, b""), next(chunks, b"")
        if not second and len(first) <= INLINE_BYTES:
            return self._named(info, len(first), expect, first, 0)
        if expect is not None:  # before a large body is sent in vain
            current = self._ask(self._redis.hget, self._object(key), "etag")
            if (current.decode() if current else ABSENT) != expect:
                raise conflict(self, key, expect, current.decode() if current else None)
        size = count = 0
        try:
            for chunk in itertools.chain((first, second) if second else (first,), chunks):
                self._ask(self._staged, etag, count, chunk)
                size += len(chunk)
                count += 1
            return self._named(info, size, expect, b"", count)
        except StorageUnavailable:
            raise  # whether the object has this body now is not known: if not, it expires
        except BaseException:
            with contextlib.suppress(HoldfastError):
                self._ask(self._redis.unlink, self._bodies + etag.encode())
            raise

    def _staged(self, etag: str, number: int, chunk: bytes) -> None:
        name = self._bodies + etag.encode()
        pipe = self._redis.pipeline(transaction=True)
        pipe.hset(name, str(number), chunk)
        pipe.expire(name, STANDSTILL_S)
        pipe.execute()

    def _named(self, info: ObjectInfo, size: int, expect: Expect, body: bytes, chunks: int) -> ObjectInfo:
        metadata = msgspec.json.encode(info.metadata) if info.metadata else b""
        expected = "" if expect is None else str(expect)
        args = (expected, info.key, info.etag, size, info.content_type, metadata, body, chunks, GRACE_S)
        names = (self._object(info.key), self._index, self._bodies)
        done, said = self._ask(self._put, keys=names, args=args)
        if done == 0:
            raise conflict(self, info.key, expect, said.decode() or None)
        if done < 0:
            raise StorageFull(
                f"{self._name} has thrown away a part of {info.key!r:.200} before it was whole",
                hint="it evicts what expires: give it more memory",
            )
        return msgspec.structs.replace(info, size=size, modified=_time(said))

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        self._open()
        check_key(key)
        check_expect(self, expect, SWAP_DELETE)
        names = (self._object(key), self._index)
        done, said = self._ask(self._delete, keys=names, args=(expect or "", key, GRACE_S))
        if done == 0:
            raise conflict(self, key, expect, said.decode() or None)
        return bool(done > 0)

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, *, start: int = 0, stop: int | None = None) -> Content:
        self._open()
        check_key(key)
        check_range(start, stop)
        *known, large, body = self._ask_again(self._redis.hmget, self._object(key), _ALL)
        if known[0] is None:
            raise not_found(self, key)
        info = _info(key, known)
        if large:
            end = info.size if stop is None else min(stop, info.size)
            return Content(info, self._pieces(info, large, start, end))
        if body is None or len(body) != info.size:
            raise corrupt(self, key)
        return Content(info, (body if start == 0 and stop is None else body[start:stop],))

    def _pieces(self, info: ObjectInfo, large: bytes, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            self._open()
            number, skip = divmod(start, CHUNK_BYTES)
            chunk = self._ask_again(self._chunk, keys=(large,), args=(number, GRACE_S))
            if chunk is None and self._ask_again(self._redis.hget, self._object(info.key), "large") != large:
                raise StorageUnavailable(
                    f"the object {info.key!r:.200} in {self._name} was replaced while it was read",
                    hint=f"read it again; a reader may rest {GRACE_S} s between two pieces",
                )
            if chunk is None or len(chunk) != min(CHUNK_BYTES, info.size - number * CHUNK_BYTES):
                raise corrupt(self, info.key)
            piece = chunk[skip : skip + stop - start]
            start += len(piece)
            yield piece

    def head(self, key: str) -> ObjectInfo:
        self._open()
        check_key(key)
        known = self._ask_again(self._redis.hmget, self._object(key), _KNOWN)
        if known[0] is None:
            raise not_found(self, key)
        return _info(key, known)

    def list(self, prefix: str = "", *, after: str = "", limit: int | None = None) -> Iterator[ObjectInfo]:
        self._open()
        check_prefix(prefix)
        check_limit(limit)
        check_after(after)
        return self._listed(prefix.encode(), after.encode(), limit)

    def _listed(self, prefix: bytes, after: bytes, limit: int | None) -> Iterator[ObjectInfo]:
        end = b"(" + prefix + b"\xff" if prefix else b"+"  # a byte that no text has
        begin = b"(" + after if after >= prefix and after else (b"[" + prefix if prefix else b"-")
        while limit is None or limit > 0:
            self._open()
            most = PAGE if limit is None else min(PAGE, limit)
            names: Sequence[bytes] = self._ask_again(
                self._redis.zrangebylex, self._index, begin, end, start=0, num=most
            )
            for name, known in zip(names, self._ask_again(self._known, names), strict=True):
                if known[0] is not None:  # else it was deleted between the two questions
                    yield _info(name.decode(), known)
                    limit = None if limit is None else limit - 1
            if len(names) < most:
                return
            begin = b"(" + names[-1]

    def _known(self, names: Sequence[bytes]) -> Any:
        pipe = self._redis.pipeline(transaction=False)
        for name in names:
            pipe.hmget(self._objects + name, _KNOWN)
        return pipe.execute()

    def _object(self, key: str) -> bytes:
        return self._objects + key.encode()

    # -- the server ---------------------------------------------------------------------------------------------

    def _settings(self) -> tuple[str, bool]:
        """What is known of how the server keeps things, and whether that survives a power cut."""
        self._ask_again(self._redis.ping)
        try:
            found: dict[str, str] = {}
            for name in ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy"):
                found |= self._ask(self._redis.config_get, name)
        except StorageUnavailable:
            raise
        except StorageError:  # a managed server does not know the question, another denies it
            return "how it keeps things is not known: CONFIG GET is denied", False
        given = {_text(name): _text(value) for name, value in found.items()}
        fsync = given.get("appendfsync") if given.get("appendonly") == "yes" else "none"
        said = {
            "always": "appendfsync always: what was put survives a power cut",
            "everysec": "appendfsync everysec: a power cut loses the last second or two",
            "no": "appendfsync no: a power cut loses what the system had not written",
            "none": "appendonly no: a crash loses everything since the last snapshot",
        }.get(str(fsync), f"appendfsync {fsync}")
        evicts = given.get("maxmemory-policy", "").startswith("allkeys") and given.get("maxmemory") != "0"
        if evicts:
            said += f"; maxmemory-policy {given['maxmemory-policy']}: it throws objects away when its memory is full"
        return said, fsync == "always" and not evicts

    def _look(self) -> str | None:
        self._open()
        return self._settings()[0]

    def _ask(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        try:
            return call(*args, **kwargs)
        except (self._library.exceptions.RedisError, OSError) as error:
            raise self._ours(error) from error

    def _ask_again(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """A question, which may be put twice: the line may have been dead for long."""
        try:
            return self._ask(call, *args, **kwargs)
        except StorageUnavailable:
            return self._ask(call, *args, **kwargs)

    def _ours(self, error: Exception) -> StorageError:
        """The error of our tree that the package's means."""
        kinds = self._library.exceptions
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        denied = (kinds.AuthenticationError, kinds.AuthorizationError, kinds.NoPermissionError)
        if isinstance(error, denied) or what.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
            return StorageDenied(f"{self._name} does not let us: {what}", hint="check the user and the password")
        if isinstance(error, kinds.OutOfMemoryError) or "OOM command not allowed" in what:
            return StorageFull(f"{self._name} has no room: {what}", hint="give it more memory; reads go on")
        if isinstance(error, OSError | kinds.ConnectionError | kinds.TimeoutError | kinds.ReadOnlyError):
            return StorageUnavailable(f"{self._name} does not answer: {what}", hint="is it running?")
        if "MISCONF" in what or "READONLY" in what:
            return StorageUnavailable(f"{self._name} takes no writes: {what}", hint="see its log")
        return StorageError(f"{self._name}: {type(error).__name__}: {what}")

    def close(self) -> None:
        super().close()
        self._redis.close()


def _client(library: Any, address: str, connections: int) -> Any:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_S,
        "socket_timeout": CALL_S,
        # The package would send a write again that may have been carried out.
        "retry": Retry(NoBackoff(), 0),
        "max_connections": connections,
        "timeout": CALL_S,
    }
    if address.startswith("rediss:"):
        import ssl

        options["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
    elif not address.startswith(("redis:", "unix:")):
        raise StorageRefused("not a Redis's address", hint="such as redis://localhost:6379/0")
    try:
        pool = library.BlockingConnectionPool.from_url(address, **options)
    except (ValueError, TypeError, library.exceptions.RedisError):
        # Without the package's words: they quote the address, and that may hold a password.
        raise StorageRefused("cannot read the Redis's address", hint="such as redis://localhost:6379/0") from None
    if pool.connection_kwargs.get("decode_responses"):
        raise StorageRefused("objects are bytes: decode_responses must not be set in the address")
    return library.Redis.from_pool(pool)


def _info(key: str, known: list[bytes]) -> ObjectInfo:
    etag, size, modified, kind, metadata = known
    return ObjectInfo(
        key=key,
        etag=etag.decode(),
        size=int(size),
        modified=_time(modified),
        content_type=kind.decode(),
        metadata=msgspec.json.decode(metadata, type=dict[str, str]) if metadata else {},
    )


def _time(microseconds: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@functools.cache
def _redis() -> Any:
    try:
        import redis
    except ImportError as error:
        raise MissingExtra(
            f"objects in Redis need a package that is not installed: {error.name}",
            hint="pip install 'holdfast[redis]'",
        ) from error
    return redis


def open_redis(address: str, *, prefix: str = PREFIX, connections: int = CONNECTIONS) -> RedisStore:
    """The opener of ``redis://…`` and ``rediss://…``."""
    return RedisStore(address, prefix=prefix, connections=connections)
