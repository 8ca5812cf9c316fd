"""What an outbox asks its shipper to do, and how it says that it fares. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from holdfast.wire import Append, Hello

State: TypeAlias = Literal["in_sync", "catching_up", "offline", "hub_full", "denied", "mismatch", "paused"]


class SendHello(msgspec.Struct, frozen=True):
    """POST /v1/hello; then `on_hello`."""

    message: Hello


class SendAppend(msgspec.Struct, frozen=True):
    """POST /v1/append; then `on_append`."""

    message: Append


class Pull(msgspec.Struct, frozen=True):
    """Ask the hub for a branch's records first, first+1, …; then `on_pulled`."""

    stream: bytes
    inc: bytes
    first: int


class SendBlob(msgspec.Struct, frozen=True):
    """PUT this blob; then `on_blob`."""

    stream: bytes
    digest: bytes


class Refresh(msgspec.Struct, frozen=True):
    """Read the credential again, then call `next` again."""


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do until this monotonic time (None: until an answer comes); an agent's write is worth a look."""

    until: float | None


Action: TypeAlias = SendHello | SendAppend | Pull | SendBlob | Refresh | Wait


class Status(msgspec.Struct, frozen=True):
    """How one hub stands with this node; `depth` counts the records that it has not acknowledged, by stream."""

    hub: str
    state: State
    gen: str
    last_contact: float | None
    failures: int
    depth: dict[bytes, int]
    forks: int
    quarantined: int
    alert: str
