"""The one door to obstore: a bucket's raw calls, deadlines, and errors of ours in place of the driver's.

obstore's runtime does not survive a fork: in a child of a process that used it every call hangs for ever, on a new
client too (measured; its runtime is the process's). So a child is refused before it calls.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

import msgspec

from holdfast.errors import (
    HoldfastError,
    MissingExtra,
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    StoreClosed,
)

PIECE: Final = 1 << 20
PARTS_AT_ONCE: Final = 4
LIST_PAGE: Final = 1000
_DENIED: Final = re.compile(
    r"ExpiredToken|InvalidToken|TokenRefreshRequired|AuthorizationHeaderMalformed|InvalidAccessKeyId|SignatureDoesNotMatch"
    r"|AuthenticationFailed|RequestTimeTooSkewed|AccessDenied|InvalidAuthenticationInfo|/latest/api/token|security-creden"
)
_QUOTA: Final = re.compile(r"QuotaExceeded|InsufficientStorage|OutOfCapacity|XMinioStorageFull|AccountLimitExceeded")
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|ContainerBeingDeleted|bucket does not exist")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_BEYOND: Final = re.compile(r"Wanted range starting at \d+, but object was only")
_WHOLE: Final = re.compile("Received non-partial response when range requested")
_TOO_LARGE: Final = re.compile("<Code>(MetadataTooLarge|EntityTooLarge|KeyTooLongError|RequestBodyTooLarge)")
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")


class NotMet(Exception):
    """The condition of a write was not what the server found; or our own earlier try was."""


class Beyond(Exception):
    """A range that begins where the object has ended."""


class Found(msgspec.Struct, frozen=True):
    """What a server says of an object."""

    name: str
    size: int
    etag: str
    modified: datetime
    version: str | None = None
    attributes: dict[str, str] = {}


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How long to try: a request gets `timeout_s` to answer or to go on, all tries together `retry_s`."""

    timeout_s: float = 30.0
    retry_s: float = 30.0
    retries: int = 10
    allow_http: bool = False
    ca: str = ""
    """PEM text of certificates to trust beside the system's."""

    def clients(self) -> dict[str, Any]:
        """The driver's options. Its TLS speaks 1.2 and 1.3, and nothing older."""
        options: dict[str, Any] = {
            "allow_http": self.allow_http,
            "connect_timeout": timedelta(seconds=min(5.0, self.timeout_s)),
            "read_timeout": timedelta(seconds=self.timeout_s),
            # Counts until the last byte of a body was read, by a reader who may take his time over a large one.
            "timeout": timedelta(days=1),
            "user_agent": "holdfast",
        }
        if self.ca:
            options["root_certificate"] = self.ca
        return options

    def retry(self) -> dict[str, Any]:
        """The driver's own retries: with jitter, of what may be sent twice."""
        return {
            "max_retries": self.retries,
            "retry_timeout": timedelta(seconds=self.retry_s),
            "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2},
        }


_used = False
_broken = False
_lock = threading.Lock()


def _forked() -> None:
    global _broken, _lock
    _broken, _lock = _broken or _used, threading.Lock()


os.register_at_fork(after_in_child=_forked)


class Bucket:
    """One bucket's or container's raw calls, by the names that the server sees.

    Args:
        name: an address without secrets, for messages.
        make: makes the driver's client; called when it is first needed.
        reach: handed to it.
    """

    def __init__(self, name: str, make: Callable[[Reach], Any], reach: Reach) -> None:
        self.name = name
        self._make = make
        self._reach = reach
        self._made: Any = None

    def put(
        self, name: str, body: Any, attributes: Mapping[str, str], condition: Any, part: int
    ) -> tuple[str, str | None]:
        """Stores bytes, or pieces of them in parts of `part` bytes; returns its etag and version.

        Raises:
            NotMet: `condition` ("create", or an etag and a version) is not what is there.
        """
        whole = isinstance(body, bytes) and (condition is not None or len(body) <= part)
        try:
            done = driver("s3").put(
                self._client(),
                name,
                body,
                attributes=dict(attributes),
                mode=_mode(condition),
                use_multipart=not whole,
                chunk_size=part,
                max_concurrency=PARTS_AT_ONCE,
            )
        except Exception as error:
            self._raise(error, name)
        return _bare(done["e_tag"]), done.get("version")

    def get(self, name: str, start: int, stop: int | None) -> tuple[Found, tuple[int, int], Iterator[bytes]]:
        """An object, the range that is coming, and its pieces.

        Raises:
            Beyond: nothing begins there.
        """
        options: dict[str, Any] = {}
        if stop is not None:
            options["range"] = (start, stop)
        elif start:
            options["range"] = {"offset": start}
        try:
            answer = driver("s3").get(self._client(), name, options=options)
            found, span = _found(answer.meta, answer.attributes), answer.range
            stream = answer.stream(min_chunk_size=PIECE)
        except Exception as error:
            if options and _WHOLE.search(str(error)):
                return self._cut(name, start, stop)
            self._raise(error, name)
        return found, (span[0], span[1]), self._pieces(stream, name)

    def _cut(self, name: str, start: int, stop: int | None) -> tuple[Found, tuple[int, int], Iterator[bytes]]:
        """A range from a server that answers with the whole object, as HTTP lets it."""
        found, _, pieces = self.get(name, 0, None)
        end = found.size if stop is None else min(stop, found.size)
        if start >= found.size:
            raise Beyond(name)

        def cut() -> Iterator[bytes]:
            at = 0
            for piece in pieces:
                if kept := piece[max(0, start - at) : max(0, end - at)]:
                    yield kept
                at += len(piece)
                if at >= end:
                    return

        return found, (start, end), cut()

    def _pieces(self, stream: Any, name: str) -> Iterator[bytes]:
        pieces = iter(stream)
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:
                self._raise(error, name)
            if piece is None:
                return
            yield bytes(piece)

    def head(self, name: str) -> Found:
        """What the server knows of an object."""
        try:
            answer = driver("s3").get(self._client(), name, options={"head": True})
            return _found(answer.meta, answer.attributes)
        except Exception as error:
            self._raise(error, name)

    def list(self, parent: str, after: str) -> Iterator[Found]:
        """What lies under whole segments, greater than a name, in the server's order."""
        try:
            stream = iter(driver("s3").list(self._client(), parent or None, offset=after or None, chunk_size=LIST_PAGE))
        except Exception as error:
            self._raise(error, parent)
        while True:
            try:
                page = next(stream, None)
            except Exception as error:
                self._raise(error, parent)
            if page is None:
                return
            for meta in page:
                yield _found(meta, {})

    def delete(self, name: str) -> None:
        """Removes what lies there.

        Raises:
            ObjectNotFound: nothing does, and this server says so.
        """
        try:
            driver("s3").delete(self._client(), name)
        except Exception as error:
            self._raise(error, name)

    def hasty(self) -> Bucket:
        """The same for calls that may well fail: they are not tried again for long."""
        return Bucket(self.name, self._make, msgspec.structs.replace(self._reach, retries=min(3, self._reach.retries)))

    def close(self) -> None:
        """Hangs up."""
        self._made = None

    def _client(self) -> Any:
        global _used
        if _broken:
            raise StoreClosed(
                f"{self.name} cannot be used in a forked child: the cloud driver does not survive a fork",
                hint="start processes with multiprocessing's spawn or forkserver, or fork before the first cloud store",
            )
        if self._made is None:
            with _lock:
                if self._made is None:
                    self._made = self._make(self._reach)
        _used = True
        return self._made

    def _raise(self, error: Exception, name: str) -> NoReturn:
        raise ours(error, self.name, name) from (None if isinstance(error, HoldfastError) else error)


def _bare(etag: str | None) -> str:
    """An etag without its quotes, which Azure has everywhere but in listings."""
    return (etag or "").strip('"')


def _mode(condition: Any) -> Any:
    if not isinstance(condition, dict):
        return condition or "overwrite"
    return {**condition, "e_tag": '"' + condition["e_tag"] + '"'}


def _found(meta: Mapping[str, Any], attributes: Mapping[str, str]) -> Found:
    return Found(
        meta["path"], meta["size"], _bare(meta["e_tag"]), meta["last_modified"], meta.get("version"), dict(attributes)
    )


def ours(error: Exception, store: str, name: str) -> Exception:
    """The error of our tree that the driver's means. It shows no address's query: that may hold a signature."""
    if isinstance(error, HoldfastError):
        return error
    kinds = driver("s3").exceptions
    text = str(error)
    if isinstance(error, kinds.AlreadyExistsError | kinds.PreconditionError):
        return NotMet(name)
    if _NO_BUCKET.search(text):
        return StorageRefused(f"{store}: there is no such bucket or container", hint="make it first; check the name")
    if isinstance(error, FileNotFoundError):
        return ObjectNotFound(f"no object {name!r:.200} in {store}", key=name)
    status = int(found[1]) if (found := _STATUS.search(text)) else 0
    if status == 416 or _BEYOND.search(text):
        return Beyond(name)
    what = _said(text)
    if isinstance(error, kinds.PermissionDeniedError | kinds.UnauthenticatedError) or (
        status not in (500, 503) and _DENIED.search(text)
    ):
        return StorageDenied(f"{store} does not accept these credentials: {what}", hint="are they right, and in date?")
    if status == 507 or _QUOTA.search(text):
        return StorageFull(f"{store} has no room: {what}", hint="free space or raise the quota")
    refused = isinstance(error, kinds.InvalidPathError | kinds.UnknownConfigurationKeyError | ValueError)
    if refused or _TOO_LARGE.search(text):
        return StorageRefused(f"{store}: {what}")
    if isinstance(error, kinds.NotSupportedError) or (status in range(400, 500) and status not in (408, 409, 425, 429)):
        return StorageError(f"{store} refused {name!r:.200}: {what}", status_code=status)
    if isinstance(error, kinds.GenericError | OSError):
        hint = "name its authority in ca_file" if "InvalidCertificate" in text else "ask again in a moment"
        return StorageUnavailable(f"{store} did not answer: {what}", hint=hint)
    return error


def _said(text: str) -> str:
    head = text.partition("\n\nDebug source")[0]
    line = re.sub(r"\?[^\s]*", "?…", head.partition("<?xml")[0].strip().partition("\n")[0])
    line = line[line.find("Error performing") :] if "Error performing" in line else line
    code = _CODE.search(text)
    return f"{line[:300]}{' ' + code[1] if code else ''}".strip()


@functools.cache
def driver(extra: str) -> Any:
    """The driver.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise MissingExtra(
            f"object stores in a cloud need a package that is not installed: {error.name}",
            hint=f"pip install 'holdfast[{extra}]'",
        ) from error
    return obstore


def token_provider(credential: Any) -> Any:
    """What asks an azure-identity credential for tokens, when the driver needs one.

    Raises:
        MissingExtra: azure-identity is not installed.
    """
    try:
        from obstore.auth.azure import AzureCredentialProvider
    except ImportError as error:
        raise MissingExtra(
            f"a credential of Azure Identity needs a package that is not installed: {error.name}",
            hint="pip install 'holdfast[azure]'",
        ) from error
    return AzureCredentialProvider(credential)
