"""Every error that Holdfast raises: one tree, to catch as widely or as narrowly as you like.

    HoldfastError                        code             status exit
    ├── UsageError       (ValueError)    usage            400    2    the call asks for something impossible
    │   ├── StoreClosed                  closed           400    2    used after close, or in a forked child
    │   └── MissingExtra (ImportError)   missing_extra    501    2    an optional package is not installed
    ├── Denied           (PermissionError) denied         403    4    known, but not allowed
    │   ├── Unauthenticated              unauthenticated  401    4    no token, or an unknown one
    │   └── Sealed                       sealed           403    4    the key that opens it is not here
    ├── NotFound         (LookupError)   not_found        404    5    nothing there
    │   ├── NotCached                    not_cached       503    7    it exists; its bytes are not here, the hub is away
    │   └── Erased                       erased           410    5    it was there, and was erased for good
    ├── Conflict                         conflict         409    6    somebody was faster
    ├── Unanswered       (TimeoutError)  unanswered       504    1    nobody has answered a question yet; it stays open
    ├── CapacityError    (OSError)       full             507    8    no room
    │   ├── NodeFull                     node_full        507    8    this machine's disk; reads go on
    │   └── HubFull                      hub_full         507    8    the hub's disk; the outbox keeps it all
    ├── IntegrityError                   integrity        422    9    bytes are not what was recorded
    │   ├── ChainBroken                  chain_broken     422    9    a link does not follow from its neighbour
    │   └── BlobCorrupt                  blob_corrupt     422    9    a blob's bytes do not have its digest
    ├── NoStore          (FileNotFoundError) no_store     404    10   no node directory at this path
    ├── Locked                           locked           423    11   held by another process
    ├── HubError                         hub              502    7    the hub and this node disagree
    │   ├── HubUnavailable (ConnectionError) hub_unavailable 503 7    no answer; the outbox retries for ever
    │   └── HubRejected                  rejected         400    1    the hub will not take it, now or later
    └── StorageError                     storage          502    12   an object store, a table or a queue failed
        ├── ObjectNotFound (NotFound, KeyError) object_not_found 404 5    no object under this key
        ├── ObjectConflict (Conflict)    object_conflict  409    6    the object is not the one you expected
        ├── ObjectCorrupt (IntegrityError) object_corrupt 422    9    an object's bytes are not what was stored
        ├── StorageRefused (UsageError)  storage_usage    400    2    a bad key or value, or what this store lacks
        ├── StorageDenied (Denied)       storage_denied   403    4    the store does not accept these credentials
        ├── StorageFull (CapacityError)  storage_full     507    8    no room there, or a quota is used up
        └── StorageUnavailable (ConnectionError) storage_unavailable 503 12    no answer, or not in time

Each kind of StorageError is also what other rooms call the same thing: ``except NotFound`` catches it too.
A message says what failed, with the value, in lower case; `hint` says what to do. `exit_code` is what the
command line returns (its meaning is listed in docs/errors.md), `status` what the hub answers.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BlobCorrupt",
    "CapacityError",
    "ChainBroken",
    "Conflict",
    "Denied",
    "Erased",
    "HoldfastError",
    "HubError",
    "HubFull",
    "HubRejected",
    "HubUnavailable",
    "IntegrityError",
    "Locked",
    "MissingExtra",
    "NoStore",
    "NodeFull",
    "NotCached",
    "NotFound",
    "ObjectConflict",
    "ObjectCorrupt",
    "ObjectNotFound",
    "Sealed",
    "StorageDenied",
    "StorageError",
    "StorageFull",
    "StorageRefused",
    "StorageUnavailable",
    "StoreClosed",
    "Unanswered",
    "Unauthenticated",
    "UsageError",
    "from_wire",
]


class HoldfastError(Exception):
    """Anything that went wrong and that Holdfast knows the name of.

    Args:
        message: what failed, with the value, in lower case.
        hint: what the reader can do about it.
        context: JSON values a program may want, such as ``current_version``.
    """

    code = "internal"
    status = 500
    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        return self.message

    def to_wire(self) -> dict[str, Any]:
        """The form in which a hub and the command line send it: ``{"error": {...}}``."""
        body: dict[str, Any] = {
            "code": self.code,
            "exit": self.exit_code,
            "message": self.message,
            "hint": self.hint,
        }
        if self.context:
            body["context"] = self.context
        return {"error": body}


class UsageError(HoldfastError, ValueError):
    """The caller asked for something impossible; nothing was done."""

    code, status, exit_code = "usage", 400, 2


class StoreClosed(UsageError):
    """The store was closed, or this process is a fork of the one that opened it."""

    code = "closed"


class MissingExtra(UsageError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    code, status = "missing_extra", 501


class Denied(HoldfastError, PermissionError):
    """Known, but not allowed to do this."""

    code, status, exit_code = "denied", 403, 4


class Unauthenticated(Denied):
    """No token was sent, or the hub does not know it."""

    code, status = "unauthenticated", 401


class Sealed(Denied):
    """It is encrypted, and the key that opens it is not here, or not the right one."""

    code = "sealed"


class NotFound(HoldfastError, LookupError):
    """Nothing is stored there."""

    code, status, exit_code = "not_found", 404, 5


class NotCached(NotFound):
    """It exists, but its bytes are not on this machine and the hub cannot be asked now."""

    code, status, exit_code, retryable = "not_cached", 503, 7, True


class Erased(NotFound):
    """It was there, and was erased for good: a signed record says so, and nobody can bring it back."""

    code, status = "erased", 410


class Conflict(HoldfastError):
    """The version you expected is not the current one."""

    code, status, exit_code = "conflict", 409, 6


class Unanswered(HoldfastError, TimeoutError):
    """Nobody has answered a question in time; it stays open, and its id is in the context."""

    code, status, retryable = "unanswered", 504, True


class CapacityError(HoldfastError, OSError):
    """There is no room; nothing that was written before is harmed."""

    code, status, exit_code, retryable = "full", 507, 8, True


class NodeFull(CapacityError):
    """This machine's disk, or an agent's budget of it, is full: writes stop, reads go on."""

    code = "node_full"


class HubFull(CapacityError):
    """The hub's disk is full: the outbox keeps everything until it has room."""

    code = "hub_full"


class IntegrityError(HoldfastError):
    """Bytes are not what was recorded."""

    code, status, exit_code = "integrity", 422, 9


class ChainBroken(IntegrityError):
    """A record's link does not follow from its neighbour's."""

    code = "chain_broken"


class BlobCorrupt(IntegrityError):
    """A blob's bytes do not have the digest it is named by."""

    code = "blob_corrupt"


class NoStore(HoldfastError, FileNotFoundError):
    """There is no node directory at this path."""

    code, status, exit_code = "no_store", 404, 10


class Locked(HoldfastError):
    """Another process holds it."""

    code, status, exit_code, retryable = "locked", 423, 11, True


class HubError(HoldfastError):
    """The hub answered, but not as this node's protocol expects."""

    code, status, exit_code = "hub", 502, 7


class HubUnavailable(HubError, ConnectionError):
    """The hub did not answer; whatever was written locally is kept and will be shipped."""

    code, status, retryable = "hub_unavailable", 503, True


class HubRejected(HubError):
    """The hub will not take it, now or later."""

    code, status, exit_code = "rejected", 400, 1


class StorageError(HoldfastError):
    """An object store, a table or a queue could not do it; what it held before is as it was."""

    code, status, exit_code = "storage", 502, 12


class ObjectNotFound(StorageError, NotFound, KeyError):
    """There is no object under this key."""

    code, status, exit_code = "object_not_found", 404, 5


class ObjectConflict(StorageError, Conflict):
    """The object is not the one you expected, or there is one where you expected none."""

    code, status, exit_code = "object_conflict", 409, 6


class ObjectCorrupt(StorageError, IntegrityError):
    """An object's bytes are not what was stored; they are never returned as data."""

    code, status, exit_code = "object_corrupt", 422, 9


class StorageRefused(StorageError, UsageError):
    """A key, a value or an option that cannot be, or something that this store lacks; nothing was done."""

    code, status, exit_code = "storage_usage", 400, 2


class StorageDenied(StorageError, Denied):
    """The store does not accept these credentials, or they may not do this."""

    code, status, exit_code = "storage_denied", 403, 4


class StorageFull(StorageError, CapacityError):
    """There is no room in the store, or a quota is used up; nothing was written."""

    code, status, exit_code, retryable = "storage_full", 507, 8, True


class StorageUnavailable(StorageError, ConnectionError):
    """The store did not answer, or not in time; whether a write took effect may be unknown."""

    code, status, exit_code, retryable = "storage_unavailable", 503, 12, True


def _tree(root: type[HoldfastError]) -> dict[str, type[HoldfastError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found = _tree(child) | found  # a class of another room that has its parent's code is no name for it
    return found


def from_wire(body: Any, *, status: int = 500) -> HoldfastError:
    """Rebuild the error that a hub sent, as the class its code names.

    Args:
        body: the decoded answer; anything that has not our form becomes a `HubError`.
        status: the HTTP status, kept in the context when the form is not ours.
    """
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        return HubError(f"the hub answered {status} without saying why", status=status)
    context = error.get("context")
    cls = _tree(HoldfastError).get(error["code"], HubError)
    return cls(
        str(error.get("message", error["code"])),
        hint=str(error.get("hint", "")),
        **(context if isinstance(context, dict) else {}),
    )
