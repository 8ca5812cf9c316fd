"""What a hub's standby gives back: it says how far it holds each stream, and brings what a file made anew lacks.

Nothing of it is believed. What it brings goes the way that all goes which one hub takes from another (`follow`): every
stretch ends at a head that its writer signed, the hub's own streams at heads that this hub signed itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast import seal, wire
from holdfast.corpus import SqliteCorpus
from holdfast.corpus.moving import add_keys, read_keys
from holdfast.corpus.space import Reserve
from holdfast.errors import HubError, HubUnavailable, NotFound, UsageError
from holdfast.hub.directory import HubDirectory, open_keys
from holdfast.hub.options import Options
from holdfast.integrity.source import HUB, Kind
from holdfast.transport.blobs import PIECE_BYTES
from holdfast.transport.client import HubClient
from holdfast.wire import Mark

LOOK_S: Final = 0.05
ENDED: Final = ("refused", "denied", "full", "offline")
"""States of a follower in which nothing more comes."""


class Standby:
    """A hub that holds what another one held. Used by one thread at a time.

    Args:
        url: its address.
        token: what it knows this hub by, or the file that holds it; it must let everything be read.
        key: its public key in hex; empty: the one that it shows.
    """

    def __init__(self, url: str, token: Any = None, key: str = "") -> None:
        self.url, self.token, self.key = url.rstrip("/"), token, key
        self._client = HubClient(self.url, token)
        self._heads: dict[tuple[bytes, bytes], Mark] = {}

    @property
    def name(self) -> str:
        """Its address, without what may stand before an @."""
        return f"standby {self.url.rpartition('@')[2]}"

    @property
    def kind(self) -> Kind:
        """A hub."""
        return HUB

    def reach(self, keys: Sequence[bytes]) -> None:
        """Asks where its streams stand.

        Args:
            keys: the public keys of the hub that is repaired.

        Raises:
            HubUnavailable: it does not answer.
            UsageError: it is this very hub, or another than was named.
        """
        after: int | None = 0
        while after is not None:
            nonce = os.urandom(16)
            query = {"nonce": nonce.hex(), "after": after}
            answer = self._client.want("GET", "/v1/heads", query=query, headers={"Accept": wire.MEDIA})
            found: wire.Heads = answer.decode(wire.Heads)
            if found.nonce != nonce or not seal.verify(
                found.public_key, wire.challenge(nonce, found.gen), found.signature
            ):
                raise HubError(f"{self.url} does not prove who it is", hint="is it a hub?")
            if found.public_key in keys:
                raise UsageError(f"{self.url} is this hub itself, or a copy of it", hint="name its standby")
            if self.key and found.public_key.hex() != self.key:
                what = f"another hub is at {self.url}: its key is {found.public_key.hex()}"
                raise UsageError(what, hint="is it the right address?")
            self.key = found.public_key.hex()
            for stream in found.streams:
                self._heads |= {(stream.stream, at.inc): at.head for at in stream.heads}
            after = found.next

    def holds(self, stream: bytes, inc: bytes, mark: Mark) -> bool:
        """Whether it has a chain up to there, and says the same there.

        Raises:
            HubUnavailable: it does not answer any more.
        """
        head = self._heads.get((stream, inc))
        if head is None or head.seq <= mark.seq:
            return head == mark
        query = {"stream": stream.hex(), "inc": inc.hex(), "after": mark.seq, "limit": 1}
        try:
            answer = self._client.want("GET", "/v1/pull", query=query, headers={"Accept": wire.MEDIA})
        except NotFound:
            return False
        pulled: wire.Pulled = answer.decode(wire.Pulled)
        return pulled.prev == mark.link

    def blob(self, digest: bytes, size: int) -> Iterator[bytes] | None:
        """A blob in pieces, or None.

        Raises:
            HubUnavailable: it does not answer.
        """
        if (self._client.blob_size(digest) or 0) < size:
            return None
        return self._pieces(digest, size)

    def _pieces(self, digest: bytes, size: int) -> Iterator[bytes]:
        at = 0
        while at < size:
            piece = self._client.get_blob(digest, at, min(PIECE_BYTES, size - at))
            if not piece:
                return
            at += len(piece)
            yield piece

    def close(self) -> None:
        """Closes its line; a second close is fine."""
        self._client.close()


def refill(made: Path, keys: Sequence[Any], standby: Standby) -> int:
    """Has a directory that is being made take from a standby what it lacks; how many records that were.

    Args:
        made: the directory, with ``hub.db`` in it; nobody else has it.
        keys: the hub's keys, as rows: without them nobody knows its own streams.
        standby: reached.

    Raises:
        HubUnavailable: it did not bring all that it has.
    """
    engine = open_keys(made)
    try:
        engine.commits.run(lambda _: add_keys(engine.writer_execute, "key", keys))
    finally:
        engine.close()
    records = asyncio.run(_follow(made, standby))
    corpus = SqliteCorpus(made / "hub.db", hub=True)
    try:  # a stream of its own that came back from there alone is as much its own as before
        own = [row[0] for row in keys]
        marks = ",".join("?" * len(own))
        corpus.write(lambda tx: tx.execute(f"UPDATE stream SET own=1 WHERE public_key IN ({marks})", own))
    finally:
        corpus.close()
    return records


def read_own_keys(home: Path) -> list[Any]:
    """The rows of a hub's keys, in its directory."""
    engine = open_keys(home)
    try:
        return read_keys(engine.query, "key")
    finally:
        engine.close()


async def _follow(made: Path, standby: Standby) -> int:
    from holdfast.hub.core import Core

    home = HubDirectory(made, settle="acked", reserve=Reserve(made, floor_bytes=0, ballast_bytes=0))
    options = Options(follow=standby.url, follow_token=standby.token, follow_key=standby.key, scan_s=0)
    core = Core(home, options)
    follower = core.follower
    assert follower is not None
    await core.start()
    try:
        while follower.state not in ("level", *ENDED):  # noqa: ASYNC110 - it has no event, and ends within seconds
            await asyncio.sleep(LOOK_S)
        state, why, problems = follower.state, follower.why, follower.problems()
    finally:
        await core.stop()
    if state != "level" or problems:
        said = why or "; ".join(problems) or state
        raise HubUnavailable(f"{standby.name} did not bring what it has: {said}", hint="nothing was changed; try again")
    return follower.records
