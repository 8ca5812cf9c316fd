"""Who did what, when, to what, and what came of it: events, and where they go.

A sink takes events and returns when they are kept; it raises when it cannot. Objects know no log of records, so the
sink that writes one is handed in from above: `holdfast.node.audit.AuditRecords`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from holdfast.disk import sync_directory
from holdfast.errors import StorageFull, StorageRefused, StorageUnavailable

STARTED, SUCCESS, FAILURE = "started", "success", "failure"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was done, or tried."""

    at: str
    """When, by this machine's clock: RFC 3339 in UTC."""
    actor: str
    action: str
    """Such as storage_write."""
    resource: str
    """Such as storage/<key>."""
    outcome: str
    """started, success, failure, or a word of your own."""
    context: dict[str, Any] = {}
    """JSON values: size, store, error and others."""


class AuditSink(Protocol):
    """Keeps events: an event is safe when the call returned. Any thread may call it."""

    def __call__(self, event: AuditEvent) -> None:
        """Keeps one event; raises if it is not kept."""
        ...


def event(
    *, actor: str, action: str, resource: str, outcome: str, context: Mapping[str, Any] | None = None
) -> AuditEvent:
    """An event of now.

    Raises:
        StorageRefused: a name that is empty or no text, or a context that JSON cannot say.
    """
    for name, value in (("actor", actor), ("action", action), ("resource", resource), ("outcome", outcome)):
        if not isinstance(value, str) or not value:
            raise StorageRefused(f"an audit event's {name} is text, not {value!r:.80}")
    try:
        kept = msgspec.to_builtins(dict(context or {}), str_keys=True)
        msgspec.json.encode(kept)
    except (TypeError, ValueError) as error:
        raise StorageRefused(f"an audit event's context is JSON: {error}", hint="numbers, text, lists, dicts") from None
    at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return AuditEvent(at=at, actor=actor, action=action, resource=resource, outcome=outcome, context=kept)


class AuditFile:
    """Events as lines of JSON in a file, each on the disk when the call returns; several processes may share it.

    Args:
        path: the file, made with its directory when the first event comes, for its owner alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __call__(self, event: AuditEvent) -> None:
        """Keeps one event.

        Raises:
            StorageFull: there is no room.
            StorageUnavailable: the file cannot be written.
        """
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)  # per open file: threads keep each other out too, and a fork holds none
                if not os.fstat(fd).st_size:
                    sync_directory(self.path.parent)
                _append(fd, msgspec.json.encode(event) + b"\n")
            finally:
                fcntl.flock(fd, fcntl.LOCK_UN)  # said, not only closed: a child forked meanwhile has it too
                os.close(fd)
        except OSError as error:
            kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageUnavailable
            raise kind(f"no audit event can be written to {self.path}: {error.strerror}") from error

    def events(self) -> Iterator[AuditEvent]:
        """Every event, oldest first; a line that a power cut tore is left out."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file:
                with contextlib.suppress(msgspec.DecodeError):
                    yield msgspec.json.decode(line, type=AuditEvent)


def _append(fd: int, line: bytes) -> None:
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        line = b"\n" + line  # what a power cut left of a line must not swallow this one
    try:
        view = memoryview(line)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)  # whoever was told no finds nothing later
        raise


_sink: AuditSink | None = None
_here: ContextVar[AuditSink | None] = ContextVar("holdfast_audit_sink", default=None)


def set_audit_sink(sink: AuditSink | None) -> None:
    """Where `audit_log` writes from now on, in the whole process; None: the file of `default_audit_path`."""
    global _sink
    _sink = sink


@contextlib.contextmanager
def audit_to(sink: AuditSink) -> Iterator[None]:
    """A block, and the tasks begun in it, whose `audit_log` writes to this sink."""
    token = _here.set(sink)
    try:
        yield
    finally:
        _here.reset(token)


def default_audit_path() -> Path:
    """Where events go without a sink: ``$HOLDFAST_AUDIT_FILE``, else ``audit.jsonl`` in the node directory.

    The node directory is the one that commands use: ``$HOLDFAST_STORE``, else ``~/.local/share/holdfast``.
    """
    if given := os.environ.get("HOLDFAST_AUDIT_FILE"):
        return Path(given).expanduser()
    if store := os.environ.get("HOLDFAST_STORE"):
        return Path(store).expanduser() / "audit.jsonl"
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "holdfast" / "audit.jsonl"


def current_sink() -> AuditSink:
    """The sink that `audit_log` uses here and now."""
    return _here.get() or _sink or AuditFile(default_audit_path())


async def audit_log(
    *, actor: str, action: str, resource: str, outcome: str, context: Mapping[str, Any] | None = None
) -> AuditEvent:
    """Keeps an event, and returns it once it is kept; where, say `audit_to`, `set_audit_sink`, `default_audit_path`.

    Args:
        actor: who.
        action: what was done, such as storage_write.
        resource: to what, such as storage/<key>.
        outcome: such as success.
        context: JSON values.

    Raises:
        StorageRefused: a name that is empty or no text, or a context that JSON cannot say.
        HoldfastError: the sink cannot keep it; nothing is dropped in silence.
    """
    made = event(actor=actor, action=action, resource=resource, outcome=outcome, context=context)
    await asyncio.to_thread(current_sink(), made)
    return made
