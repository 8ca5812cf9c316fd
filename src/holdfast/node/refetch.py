"""Where a node finds what it has lost: a hub, or a copy of its directory. Neither is believed; recovery proves."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from holdfast import wire
from holdfast.errors import HubError, NotFound
from holdfast.integrity.rebuild import copy_of
from holdfast.integrity.remains import Remains
from holdfast.integrity.source import BACKUP, HUB, STORE, Held, Kind
from holdfast.node.directory import folder_of
from holdfast.objects import BlobFiles
from holdfast.records import genesis, stream_id
from holdfast.transport.blobs import PIECE_BYTES
from holdfast.transport.client import HubClient, Token
from holdfast.wire import MEDIA, Item, Mark


class HubSource:
    """One hub, or its standby. Used by one thread at a time.

    Args:
        url: its address.
        token: what it knows this node by.
        keys: the node's public keys.
        node: the node's name for hubs.
    """

    def __init__(self, url: str, token: Token, keys: Sequence[bytes], node: str = "repair") -> None:
        self._client = HubClient(url, token)
        self._keys = list(keys)
        self._node = node

    @property
    def name(self) -> str:
        """Its address, without what may stand before an @."""
        return f"hub {self._client.url.rpartition('@')[2] if '@' in self._client.url else self._client.url}"

    @property
    def kind(self) -> Kind:
        """A hub."""
        return HUB

    def held(self, stream: bytes, agent: str) -> list[Held]:
        """Every incarnation of the stream that the hub knows, each with its signed head.

        Raises:
            HubUnavailable: it does not answer.
        """
        key = next((key for key in self._keys if stream_id(key, agent) == stream), None)
        if key is None:
            return []
        start = Mark(0, genesis(stream))
        asked = wire.HelloStream(stream, bytes(16), agent, key, start, [])
        hello = wire.Hello(self._node, os.urandom(16), [asked])
        headers = {"Content-Type": MEDIA, "Accept": MEDIA}
        answer = self._client.want("POST", "/v1/hello", body=wire.encode(hello), headers=headers)
        said = answer.decode(wire.HelloAnswer)
        if said.nonce != hello.nonce or len(said.streams) != 1:
            raise HubError(f"{self._client.url} answers another question", hint="is it a hub?")
        state = said.streams[0]
        lives = {other.inc: other.head for other in state.others}
        if state.state == "ahead":
            lives[state.along] = state.at
        found = []
        for inc, head in lives.items():
            try:
                told = self._pull(stream, inc, max(head.seq - 1, 0), 1)
            except NotFound:
                continue
            found.append(Held(agent, stream, key, inc, told.head, told.signature))
        return found

    def fetch(self, stream: bytes, branch: bytes, first: int, last: int) -> Iterator[Item]:
        """The hub's records of a chain, as it stores them.

        Raises:
            HubUnavailable: it does not answer any more.
        """
        at = first
        while at <= last:
            page = self._pull(stream, branch, at - 1, min(wire.RECORDS_MAX, last - at + 1))
            yield from page.items[: last - at + 1]
            at += len(page.items)
            if not page.items or not page.more:
                return

    def blob(self, digest: bytes, size: int) -> Iterator[bytes] | None:
        """A blob in pieces, or None.

        Raises:
            HubUnavailable: it does not answer.
        """
        if (self._client.blob_size(digest) or 0) < size:
            return None
        return self._pieces(digest, size)

    def close(self) -> None:
        """Closes its line; a second close is fine."""
        self._client.close()

    def _pieces(self, digest: bytes, size: int) -> Iterator[bytes]:
        at = 0
        while at < size:
            piece = self._client.get_blob(digest, at, min(PIECE_BYTES, size - at))
            if not piece:
                return
            at += len(piece)
            yield piece

    def _pull(self, stream: bytes, inc: bytes, after: int, limit: int) -> wire.Pulled:
        query = {"stream": stream.hex(), "inc": inc.hex(), "after": after, "limit": limit}
        answer = self._client.want("GET", "/v1/pull", query=query, headers={"Accept": MEDIA})
        pulled: wire.Pulled = answer.decode(wire.Pulled)
        return pulled


class StoreSource:
    """A copy of a node's directory: a snapshot, an rsync, what a backup tool restored. It is never written to.

    Args:
        home: the copy.
        kind: what it passes for: a directory that a backup was restored to is a backup.
    """

    def __init__(self, home: Path, kind: Kind = STORE) -> None:
        self._home, self._kind = home, kind
        self._opened: dict[bytes, tuple[Remains, Path]] = {}
        self._blobs = BlobFiles(home / "blobs")

    @property
    def name(self) -> str:
        """The directory."""
        return f"{'backup' if self._kind == BACKUP else 'copy'} {self._home}"

    @property
    def kind(self) -> Kind:
        """Another place on this machine, or a backup."""
        return self._kind

    def held(self, stream: bytes, agent: str) -> list[Held]:
        """The chain in the copy, as far as it can be read.

        Raises:
            OSError: it cannot be copied.
        """
        path = self._home / "agents" / folder_of(agent) / "log.db"
        if not path.exists():
            return []
        if stream not in self._opened:
            room = Path(tempfile.mkdtemp(prefix="holdfast-"))
            # Opened on a copy of the copy: SQLite would write to it.
            self._opened[stream] = (Remains(copy_of(path, room / "log"), agent, ()), room)
        remains = self._opened[stream][0]
        if remains.corpus is None:
            return []
        found = []
        for branch in remains.branches[-1:]:
            if branch.stream == stream:
                head = remains.corpus.head(branch.id)
                found.append(Held(agent, stream, branch.public_key, branch.inc, Mark(head.seq, head.link)))
        return found

    def fetch(self, stream: bytes, branch: bytes, first: int, last: int) -> Iterator[Item]:
        """Its records; it ends at the first that cannot be read."""
        remains = self._opened[stream][0]
        for number, piece in enumerate(remains.rows(stream, last, first), first):
            if piece.seq != number:
                return
            yield Item(piece.header, piece.salt, piece.codec, piece.body, piece.why)

    def blob(self, digest: bytes, size: int) -> Iterator[bytes] | None:
        """A blob in pieces, or None."""
        return iter((self._blobs.read(digest),)) if self._blobs.verify(digest) else None

    def close(self) -> None:
        """Removes its working copies; a second close is fine."""
        for remains, room in self._opened.values():
            remains.close()
            shutil.rmtree(room, ignore_errors=True)
        self._opened.clear()
