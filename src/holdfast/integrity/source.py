"""Where recovery gets back what this machine lost: a hub, a standby, a backup, another store. Handed in from above.

Nothing that a source gives is believed: a record counts when its header hashes into the chain that is here or that the
anchor saw, a body when it hashes to its header, a blob when it has its digest. So a source that is behind, damaged or
lying can only fail to help.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, Protocol

import msgspec

from holdfast.wire import Item, Mark

HUB: Final = "hub"
BACKUP: Final = "backup"
STORE: Final = "store"

Kind = Literal["hub", "backup", "store"]
"""A hub or its standby; a backup; another directory of the same node (a copy, a quarantine of it)."""


class Held(msgspec.Struct, frozen=True):
    """One incarnation's chain as a source holds it, from the genesis of its stream on.

    Attributes:
        agent: whose log it is.
        stream: 16 bytes.
        public_key: the key that the stream is named by.
        branch: the incarnation, 16 bytes.
        head: the newest record it has of it.
        signature: of that head, by the stream's key (`records.head_message`): without it nothing is taken from a hub
            that goes beyond what the anchor saw. A backup may leave it empty: its manifest was signed.
    """

    agent: str
    stream: bytes
    public_key: bytes
    branch: bytes
    head: Mark
    signature: bytes = b""


class Source(Protocol):
    """One place that may hold what was lost. Used by one thread at a time.

    Every method may raise HoldfastError when the place cannot be reached or read; recovery then goes on without it,
    and says so in its evidence.
    """

    @property
    def name(self) -> str:
        """What it is called in plans and evidence, such as ``hub http://hub:8084``; holds no secret."""
        ...

    @property
    def kind(self) -> Kind:
        """What it is; hubs are asked first, backups last."""
        ...

    def held(self, stream: bytes, agent: str) -> list[Held]:
        """The chains of a stream that it holds, one for each incarnation's head; empty if it knows nothing of it.

        Args:
            stream: 16 bytes.
            agent: whose.
        """
        ...

    def fetch(self, stream: bytes, branch: bytes, first: int, last: int) -> Iterator[Item]:
        """Records `first` to `last` of a chain that `held` named, in order, bodies as they are stored.

        It ends early where the source's chain does, and may leave out bodies (`Item.why` says so).
        """
        ...

    def blob(self, digest: bytes, size: int) -> Iterator[bytes] | None:
        """The bytes of a blob in pieces, or None if it does not have it.

        Args:
            digest: SHA-256 of the bytes.
            size: how many there are.
        """
        ...
