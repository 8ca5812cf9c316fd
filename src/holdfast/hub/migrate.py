"""`migrate corpus`: takes a whole hub from a directory to a database, or back, and proves that all of it arrived.

What is copied is what the hub is: streams, branches, records at their positions, the newest of each key, signed heads,
generations, its key, blobs, tokens. So readers' cursors, nodes and plain clients go on at the target as if nothing had
happened. Rules that tests hold it to:

1. The source is only read, and nobody may serve it meanwhile.
2. The target is empty, or this very migration broken off; until everything is proven it refuses to be served.
3. Nothing is guessed: a source that does not prove is not copied.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from holdfast.clock import SYSTEM
from holdfast.corpus import SqlCorpus, SqliteCorpus, moving
from holdfast.corpus.moving import KeyRow, Origin
from holdfast.errors import Conflict, IntegrityError, Locked, NoStore, UsageError
from holdfast.hub import acts
from holdfast.hub.directory import open_keys, take
from holdfast.hub.home import begin_generation, generations
from holdfast.hub.tokens import SqliteTokens, Token, TokenStore, adopt, has_tokens
from holdfast.integrity import verify_corpus
from holdfast.objects import BlobFiles
from holdfast.sqlite import doctor

PIECE_BYTES: Final = 1 << 20
STOP: Final = "stop all its processes first: a hub must not be served while it is migrated"
_SCHEMES: Final = ("postgresql:", "postgres:")

Told: TypeAlias = Callable[[str, int, int], None]
"""Hears how far it is: what is being done, how much of it is done, and how much there is (0: not known)."""


class Moved(msgspec.Struct, kw_only=True):
    """What was migrated, or with a dry run would be.

    Attributes:
        source, target: where from and where to, without passwords.
        hub: the id of the hub.
        records, streams, branches, keys, blobs: how many there are.
        payload_bytes, blob_bytes: what they speak for, before compression.
        signatures: signed heads that were checked in the target.
        tokens: how many were taken over.
        tags_left: texts too long to be found by in the target.
        resumed: whether it went on with one that was broken off.
        verified: whether all of it was proven in the target.
        generation: the one that the target began.
        copied: records that were copied this time.
        copy_s, seconds: how long copying them took, and all of it.
    """

    source: str
    target: str
    hub: str = ""
    records: int = 0
    streams: int = 0
    branches: int = 0
    keys: int = 0
    blobs: int = 0
    payload_bytes: int = 0
    blob_bytes: int = 0
    signatures: int = 0
    tokens: int = 0
    tags_left: int = 0
    resumed: bool = False
    verified: bool = False
    generation: str = ""
    copied: int = 0
    copy_s: float = 0.0
    seconds: float = 0.0


class Place(Protocol):
    """Where a hub lies or is to lie, open and this process's alone."""

    name: str
    corpus: Any
    blobs: Any

    def keys(self) -> list[KeyRow]:
        """The hub's keys, oldest first."""
        ...

    def add_keys(self, keys: Sequence[KeyRow]) -> None:
        """Keeps keys that are not there yet."""
        ...

    def tokens(self) -> list[Token]:
        """All tokens ever made."""
        ...

    def token_store(self) -> TokenStore:
        """Where tokens are kept, for its caller to close."""
        ...

    def writes(self) -> int:
        """A number that grows with each commit, where they are counted for good; else 0."""
        ...

    def settle(self, tx: Any) -> None:
        """What a corpus needs behind its last row, in the transaction that makes it whole."""
        ...

    def close(self) -> None:
        """Lets go of it."""
        ...


def is_database(text: str) -> bool:
    """Whether a place is meant to be a PostgreSQL database."""
    return text.startswith(_SCHEMES)


def conninfo_of(text: str) -> str:
    """What libpq reads: an address as it is, or what stands behind the scheme (``postgresql:dbname=… host=…``)."""
    rest = text.partition(":")[2].strip()
    if not rest:
        raise UsageError("no database is named", hint="such as postgresql://user@host:5432/name")
    return text if rest.startswith("//") else rest


class DirectoryPlace(Place):
    """A hub's directory, locked as its server would.

    Args:
        path: the directory.
        make: it is a target: make it if missing.

    Raises:
        IntegrityError: its WAL is damaged; nothing was touched.
        Locked: a hub is serving it.
        NoStore: there is no hub.
        UsageError: it is something else.
    """

    def __init__(self, path: Path, *, make: bool = False) -> None:
        self.name, self.path = str(path), path
        if (path / "config.json").exists():
            raise UsageError(f"{path} is a node's directory", hint="give the hub's directory")
        if make:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not (path / "hub.db").exists():
            raise NoStore(f"there is no hub in {path}", hint="give the directory that serve --data was given")
        try:
            self._lock = take(path)
        except Locked as error:
            raise Locked(error.message, hint=STOP) from None
        try:
            diagnosis = doctor.examine(path / "hub.db")
            if diagnosis.damaged:
                raise IntegrityError(f"the WAL of {path}/hub.db is damaged: {diagnosis}", hint="nothing was touched")
            self.corpus = SqliteCorpus(path / "hub.db", hub=True)
        except BaseException:
            os.close(self._lock)
            raise
        self.blobs = BlobFiles(path / "blobs")

    def keys(self) -> list[KeyRow]:
        if not (self.path / "keys.db").exists():
            return []
        engine = open_keys(self.path)
        try:
            return moving.read_keys(engine.query, "key")
        finally:
            engine.close()

    def add_keys(self, keys: Sequence[KeyRow]) -> None:
        engine = open_keys(self.path)
        try:
            engine.commits.run(lambda _: moving.add_keys(engine.writer_execute, "key", keys))
        finally:
            engine.close()

    def tokens(self) -> list[Token]:
        if not has_tokens(self.path):
            return []
        store = self.token_store()
        try:
            return store.every()
        finally:
            store.close()

    def token_store(self) -> TokenStore:
        return SqliteTokens(self.path)

    def writes(self) -> int:
        return 0

    def settle(self, tx: Any) -> None:
        pass

    def close(self) -> None:
        self.corpus.close()
        os.close(self._lock)


class DatabasePlace(Place):
    """A hub's database, in which no other process may write.

    Args:
        address: a libpq URL.
        make: it is a target: make the tables if missing.

    Raises:
        HubUnavailable: it cannot be reached.
        Locked: a hub is serving it.
        NoStore: there is no hub.
    """

    def __init__(self, address: str, *, make: bool = False) -> None:
        from holdfast.corpus.postgres import Database, PostgresCorpus
        from holdfast.corpus.postgres.blobs import BlobTable

        # While blobs are read, the snapshot that is proven stands still; and nobody waits for this process's turn.
        database = Database(conninfo_of(address), idle_ms=0)
        self.name = f"postgresql://{database.name}"
        if not make and not has_tables(database):
            raise NoStore(f"there is no hub in the database {database.name}", hint="is it the right one?")
        try:
            self.corpus = PostgresCorpus(database, alone=True)
        except Locked as error:
            raise Locked(error.message, hint=STOP) from None
        self.blobs = BlobTable(self.corpus.engine)

    def keys(self) -> list[KeyRow]:
        return moving.read_keys(self.corpus.query, "hub_key")

    def add_keys(self, keys: Sequence[KeyRow]) -> None:
        self.corpus.write(lambda tx: moving.add_keys(tx.sql, "hub_key", keys))

    def tokens(self) -> list[Token]:
        return self.token_store().every()

    def token_store(self) -> TokenStore:
        from holdfast.hub.tokens_database import DatabaseTokens

        return DatabaseTokens(self.corpus.engine)

    def writes(self) -> int:
        found: int = self.corpus.writes()
        return found

    def settle(self, tx: Any) -> None:
        for table in ("name", "stream", "branch"):
            tx.count_on(table)
        tx.set_meta(moving.HISTORY, self.corpus.engine.facts.mark)

    def close(self) -> None:
        self.corpus.close()


def has_tables(database: Any) -> bool:
    """Whether a hub's tables are in a database; makes nothing."""
    connection, facts = database.connect()
    connection.close()
    return bool(facts.has_tables)


def open_place(text: str, *, make: bool = False) -> Place:
    """The place with this name: ``sqlite:DIR``, a path, or a PostgreSQL address.

    Raises:
        HubUnavailable, IntegrityError, Locked, NoStore, UsageError: as its kind raises them.
    """
    if is_database(text):
        return DatabasePlace(text, make=make)
    return DirectoryPlace(_path(text), make=make)


def migrate(source: str, target: str, *, dry_run: bool = False, told: Told = lambda *_: None) -> Moved:
    """Copies a hub to another place, proves that all of it is there, and makes it ready to be served.

    Args:
        source: ``sqlite:DIR``, a path, or a PostgreSQL address.
        target: the same; empty, or what a call with the same source left there when it was broken off.
        dry_run: only looks.
        told: hears how far it is.

    Raises:
        Conflict: the target holds something else, or an older state of the source.
        IntegrityError: the source does not prove, and nothing was copied; or what arrived is not what was sent.
        Locked: a hub is serving one of them.
        NoStore: there is no hub at the source.
    """
    begun = time.perf_counter()
    if _same(source, target):
        raise UsageError("source and target are the same place", hint="nothing was done")
    with ExitStack() as stack:
        one = stack.enter_context(closing(open_place(source)))
        keys = one.keys()
        current = [key for key in keys if key[2] == "current"]
        if not current:
            raise NoStore(f"there is no hub at {one.name}: it has no key", hint="was it ever served?")
        if moving.unfinished(one.corpus):
            raise Conflict(f"{one.name} is an unfinished migration itself", hint="finish that one first")
        moved = _counted(one, current[0][0])
        origin = moving.origin_of(one.corpus, current[0][0], one.writes())
        if dry_run:
            moved.target = _look(target, origin)
        else:
            other = stack.enter_context(closing(open_place(target, make=True)))
            moved.target = other.name
            _Move(one, other, origin, moved, told).run(keys)
    moved.seconds = time.perf_counter() - begun
    return moved


class _Move:
    """One run of a migration."""

    def __init__(self, source: Place, target: Place, origin: Origin, moved: Moved, told: Told) -> None:
        self.source, self.target = source, target
        self.origin, self.moved, self.told = origin, moved, told

    def run(self, keys: Sequence[KeyRow]) -> None:
        source, target, moved = self.source, self.target, self.moved
        _check_target(target, self.origin)
        self.prove(source, "the source does not prove", "nothing was copied: holdfast verify, or its log, says more")
        moved.resumed = moving.claim(target.corpus, self.origin)
        target.corpus.sync()  # before a key lies beside it, which would look like another hub's
        target.add_keys(keys)
        if target.keys() != list(keys):
            raise Conflict("the target has the key of another hub", hint=moving.ANOTHER)
        self.copy_tables()
        moving.copy_metas(source.corpus, target.corpus)
        self.copy_blobs()
        self.copy_tokens()
        scan = self.prove(target, "what arrived does not prove", "the target refuses to be served; the source is whole")
        moved.signatures, moved.keys, moved.payload_bytes = scan.signatures, scan.keys, scan.payload_bytes
        self.compare()
        self.finish()

    def copy_tables(self) -> None:
        begun = time.perf_counter()
        for table in moving.TABLES:
            total = moving.count(self.source.corpus, table)
            done = moving.count(self.target.corpus, table)
            what = f"copy {table.name}"
            self.told(what, done, total)

            def heard(
                number: int, what: str = what, total: int = total, records: bool = table is moving.RECORDS
            ) -> None:
                nonlocal done
                done += number
                self.moved.copied += number if records else 0
                self.told(what, done, total)

            moving.copy(self.source.corpus, self.target.corpus, table, heard)
        self.moved.copy_s = time.perf_counter() - begun
        kept = moving.count(self.target.corpus, moving.TAGS)
        self.moved.tags_left = moving.count(self.source.corpus, moving.TAGS) - kept

    def copy_blobs(self) -> None:
        blobs = self.target.blobs
        for number, digest in enumerate(self.source.blobs.iter(), 1):
            if not blobs.has(digest):
                with self.source.blobs.open(digest) as reader:
                    blobs.put(_pieces(reader), expect=digest)
            self.told("copy blobs", number, self.moved.blobs)

    def copy_tokens(self) -> None:
        found = self.source.tokens()
        if not found:
            return
        with closing(self.source.token_store()) as old, closing(self.target.token_store()) as store:
            acts.take_over(store.acts(), acts.all_of(old.acts()))
            adopt(store, found)
            self.moved.tokens = len(found)

    def prove(self, place: Place, what: str, hint: str) -> Any:
        self.told(f"prove {place.name}", 0, 0)
        scan = verify_corpus(place.corpus, place.blobs)
        if not scan.sound:
            more = len(scan.findings) + scan.left_out - 1
            told = f"{scan.findings[0]}" + (f", and {more} more" if more else "")
            findings = [str(finding) for finding in scan.findings[:20]]
            raise IntegrityError(f"{what}: {told}", hint=hint, findings=findings)
        return scan

    def compare(self) -> None:
        one, other = self.source.corpus, self.target.corpus
        for table in moving.TABLES:
            total = moving.count(one, table)
            for number in moving.compare(one, other, table):
                self.told(f"compare {table.name}", number, total)
        gone = moving.metas(one).items() ^ moving.metas(other).items()
        if gone:
            raise IntegrityError(f"source and target differ in meta at {min(gone)[0]!r}", hint="begin again")
        kept = {_standing(token) for token in self.target.tokens()}
        if not kept.issuperset(map(_standing, self.source.tokens())):
            raise IntegrityError("a token did not arrive as it is", hint="run it again")
        missing = sum(not self.target.blobs.has(digest) for digest in self.source.blobs.iter())
        if missing:
            raise IntegrityError(f"{missing} blobs did not arrive", hint="run it again")
        if moving.origin_of(one, bytes.fromhex(self.origin.hub), self.source.writes()) != self.origin:
            raise Conflict("the source was written to meanwhile", hint="remove the target and begin again")

    def finish(self) -> None:
        """Begins a generation, and makes the target a hub, in one transaction."""
        corpus, now = self.target.corpus, SYSTEM.now_ms()

        def job(tx: Any) -> str:
            found = generations(tx)
            begin_generation(tx, found, now)
            self.target.settle(tx)
            moving.release(tx)
            return found[-1][0]

        self.moved.generation = corpus.write(job)
        corpus.sync()
        self.moved.verified = True


def _counted(place: Place, public_key: bytes) -> Moved:
    corpus: SqlCorpus = place.corpus
    sizes = [place.blobs.size(digest) for digest in place.blobs.iter()]
    return Moved(
        source=place.name,
        target="",
        hub=hashlib.sha256(public_key).hexdigest()[:16],
        records=moving.count(corpus, moving.RECORDS),
        streams=moving.count(corpus, moving.STREAMS),
        branches=moving.count(corpus, moving.BRANCHES),
        keys=moving.count(corpus, moving.STATE),
        payload_bytes=moving.payload_bytes(corpus),
        blobs=len(sizes),
        blob_bytes=sum(sizes),
    )


def _look(target: str, origin: Origin) -> str:
    """The name of a target that could be migrated to; makes nothing."""
    if is_database(target):
        from holdfast.corpus.postgres import Database

        database = Database(conninfo_of(target))
        if not has_tables(database):
            return f"postgresql://{database.name}"
    elif not (_path(target) / "hub.db").exists():
        return str(_path(target))
    place = open_place(target)
    try:
        _check_target(place, origin)
        return place.name
    finally:
        place.close()


def _check_target(place: Place, origin: Origin) -> None:
    """Returns if this may be migrated to.

    Raises:
        Conflict: it holds something else.
    """
    if not moving.may_claim(place.corpus, origin) and (place.keys() or place.tokens()):
        raise Conflict("the target holds tokens or a key of another hub", hint=moving.ANOTHER)


def _standing(token: Token) -> Token:
    """A token as it is known by, whenever it was last shown."""
    return msgspec.structs.replace(token, used_ms=None)


def _path(text: str) -> Path:
    return Path(text.removeprefix("sqlite:")).expanduser()


def _same(source: str, target: str) -> bool:
    if is_database(source) or is_database(target):
        return source == target
    return os.path.realpath(_path(source)) == os.path.realpath(_path(target))


def _pieces(reader: Any) -> Iterator[bytes]:
    while piece := reader.read(PIECE_BYTES):
        yield piece
