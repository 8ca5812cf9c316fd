"""Where a hub keeps what it knows: the corpus, its key, its generations, the blobs. A directory, or a database."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from holdfast import seal, wire
from holdfast.clock import Clock
from holdfast.corpus import SqlCorpus
from holdfast.corpus.chains import Chains, Memo
from holdfast.corpus.moving import UNFINISHED
from holdfast.corpus.sandbox import Question
from holdfast.corpus.space import Reserve, Space
from holdfast.errors import UsageError
from holdfast.hub.options import Options, Settle
from holdfast.hub.tokens import TokenStore
from holdfast.hub.tokens_none import NoTokens
from holdfast.protocol.ingest import Identity

if TYPE_CHECKING:
    from holdfast.hub.feed import Feed
    from holdfast.hub.order import CommonOrder

LINEAGE_SHOWN: Final = 64
_HUB_KEYS: Final = "hubs"
_MARKS: Final = "marks"

FollowMark = tuple[str, int, int]
"""(a generation of the followed hub, a position there, one here): all up to the second was there up to the first."""


class Room(Protocol):
    """The guard of the disk that the hub writes to."""

    def ensure(self) -> bool:
        """Keeps room for the way out of a full disk; whether it is there."""
        ...

    def check(self, size: int = 0) -> None:
        """Returns only while there is room to write so many bytes."""
        ...

    def state(self) -> Space:
        """How much room there is."""
        ...

    def set_floor(self, floor_bytes: int) -> None:
        """Has writes refused below another number of free bytes, where they are counted."""
        ...


class SqlRoom(Protocol):
    """Where strangers' SQL is carried out, apart from everything else."""

    seconds_max: float

    async def ask(self, question: Question) -> bytes:
        """The JSON of what a statement finds (`sqlroom.Found`).

        Raises:
            HubUnavailable: too many are asking, or whoever carries it out failed.
            UsageError: it is refused, or was stopped; the context says at which limit.
        """
        ...

    def close(self) -> None:
        """Ends whatever it started."""
        ...


class Home:
    """What every hub has, wherever it lies; its kinds fill it in as they open.

    Attributes:
        corpus: all records.
        blobs: payloads above 64 KiB: what `objects.BlobFiles` can, but for paths.
        reserve: guards the disk.
        wall: the clock.
        settle: ``acked``: what this hub has acknowledged counts as settled, and nodes may evict it; ``backups``: only
            what its backups hold too.
        signer: the hub's key.
        lineage: its generations, each with the position that it began behind; `gen` is the last of them.
        began_ms: when that began.
        hub_id: who it is.
        damage: what was wrong when it opened.
        hub_keys: the keys of all hubs whose own streams this one takes, with their certificates: its own, and those of
            hubs that it has followed.
        marks: where a reader of a followed hub goes on here; see `wire.resume`.
    """

    corpus: SqlCorpus
    blobs: Any
    reserve: Room
    wall: Clock
    settle: Settle
    signer: seal.Signer
    lineage: list[tuple[str, int]]
    gen: str
    began_ms: int
    hub_id: str
    damage: str
    hub_keys: Mapping[bytes, bytes]
    marks: list[FollowMark]

    def _keep(self, corpus: SqlCorpus) -> None:
        """Takes the corpus, and ends what is remembered of its streams where that may no longer hold.

        Raises:
            UsageError: it is not all there.
        """
        if corpus.meta(UNFINISHED):
            raise UsageError(
                "this is an unfinished migration: it does not hold the whole hub yet",
                hint="run the same holdfast migrate corpus again: it goes on where it stood",
            )
        self.corpus = corpus
        self._memo: Memo = {}
        engine = corpus.engine
        undone, changed = engine.on_rollback, engine.on_change

        def on_rollback() -> None:
            undone()
            self._memo.clear()

        def on_change() -> None:
            changed()
            self._memo.clear()

        engine.on_rollback = on_rollback
        if not corpus.inline:  # a directory has one server
            engine.on_change = on_change

    def forget_streams(self) -> None:
        """Ends what is remembered of the streams; inside a write transaction that changed what is known of them."""
        self._memo.clear()

    @property
    def identity(self) -> Identity:
        """Who this hub is now, as hello tells it."""
        return Identity(self.hub_id, self.gen, self.lineage[-LINEAGE_SHOWN:], wire.Limits())

    def chains(self, execute: Any = None) -> Chains:
        """The tree of branches inside the open write transaction, or with the `execute` of a snapshot."""
        return Chains(
            execute or self.corpus.tx.sql,
            blobs=self.blobs,
            settle_acked=self.settle == "acked",
            memo=None if execute else self._memo,
            own_key=self.signer.public_key,
        )

    def _remember(self) -> None:
        """Takes up what is known of other hubs, once corpus and key are there."""
        stored = self.corpus.meta(_HUB_KEYS)
        others = msgspec.msgpack.decode(stored, type=dict[bytes, bytes]) if stored else {}
        key = self.signer.public_key
        self.hub_keys = {**others, key: self.signer.sign(wire.certificate(key))}
        stored = self.corpus.meta(_MARKS)
        self.marks = msgspec.msgpack.decode(stored, type=list[FollowMark]) if stored else []

    def trust(self, keys: Mapping[bytes, bytes]) -> None:
        """Takes the own streams of the hubs with these keys from now on, for ever."""
        known = {**keys, **self.hub_keys}
        if known != self.hub_keys:
            data = msgspec.msgpack.encode({key: sign for key, sign in known.items() if key != self.signer.public_key})
            self.corpus.write(lambda tx: tx.set_meta(_HUB_KEYS, data))
            self.hub_keys = known

    def save_marks(self) -> None:
        """Writes the marks down, behind all that they speak of."""
        data = msgspec.msgpack.encode(self.marks)
        self.corpus.write(lambda tx: tx.set_meta(_MARKS, data))

    def resume(self, cursor: wire.Cursor, head: int) -> int:
        """The position from which a reader with this cursor reads on, also if it is that of a hub followed here."""
        return wire.resume(cursor, self.lineage, head, self.marks)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Chains]:
        """The tree of branches as of one moment, for reading."""
        with self.corpus.moment() as execute:
            yield self.chains(execute)

    def refresh(self) -> None:
        """Takes up what other processes of this hub have noted since."""

    def open_tokens(self) -> TokenStore:
        """The tokens that were made for this hub, for its caller to close; without a place for them there are none."""
        return NoTokens()

    def warnings(self) -> list[str]:
        """What is not as it should be where everything lies."""
        return [self.damage] if self.damage else []

    def sql_room(self, seconds_max: float) -> SqlRoom:
        """Where SQL over this corpus is carried out, in at most so many seconds each."""
        raise NotImplementedError

    def common_order(self, feed: Feed) -> CommonOrder | None:
        """What shows the commits of everybody who writes here, where that is not this process alone."""
        return None

    def make_room(self) -> None:
        """After a write met a full disk: does what can be done from here."""

    def close(self, *, clean: bool = True) -> None:
        """Closes everything; `clean` says that nothing was left undone."""
        raise NotImplementedError


Generation = tuple[str, int, int]
"""Its name, the last position before it, and when it began (ms since 1970)."""


def generations(tx: Any) -> list[Generation]:
    """Those of a hub's corpus, oldest first, inside the open transaction."""
    return [tuple(row) for row in tx.execute("SELECT gen, first, at_ms FROM lineage ORDER BY ord")]


def begin_generation(tx: Any, found: list[Generation], now_ms: int) -> None:
    """Begins another one behind those found, inside the open transaction, and adds it to them."""
    # Later than the one before, whatever the clock says: incarnations of own streams sort by it.
    found.append((secrets.token_hex(6), tx.last(), max(now_ms, found[-1][2] + 1) if found else now_ms))
    tx.execute("INSERT INTO lineage(gen, first, at_ms, ord) VALUES(?,?,?,?)", (*found[-1], len(found)))


def open_home(directory: str | os.PathLike[str] | None, options: Options) -> Home:
    """Where a hub is to run: its directory, or the database that its options name.

    Raises:
        HubUnavailable: the database cannot be reached.
        Locked: another process serves this directory.
        UsageError: both were given, or neither.
    """
    if (directory is None) == (options.database is None):
        what = "a directory and a database" if directory is not None else "neither a directory nor a database"
        raise UsageError(f"{what} for this hub", hint="give one of them")
    if directory is not None:
        from holdfast.hub.directory import HubDirectory

        guard = Reserve(
            Path(directory).absolute(), floor_bytes=options.floor_bytes, ballast_bytes=options.ballast_bytes
        )
        return _with_blobs(HubDirectory(directory, settle=options.settle, reserve=guard), options.blobs)
    from holdfast.hub.database import HubDatabase

    assert options.database is not None
    return _with_blobs(HubDatabase(options.database, settle=options.settle), options.blobs)


def _with_blobs(home: Home, address: str) -> Home:
    """The home, with its blobs moving to an object store if one is named."""
    if address:
        from holdfast.objects.blobs.stored import StoredBlobs
        from holdfast.objects.opening import open_store

        try:
            home.blobs = StoredBlobs(open_store(address), home.blobs)
        except BaseException:
            home.close()
            raise
    return home
