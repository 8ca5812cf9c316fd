"""What of a hub is backed up, and how a backup becomes a hub again.

All streams and blobs, the generations, its tokens as their hashes, the newest of its audit trail. Not the hub's key,
unless the repository is sealed and it is asked for; and not the TTL cache. A hub in a database becomes one in a
directory: `migrate` takes it back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast import seal
from holdfast.corpus import SqliteCorpus, moving
from holdfast.corpus.moving import KeyRow
from holdfast.errors import NoStore, UsageError
from holdfast.hub import acts
from holdfast.hub.acts import Act
from holdfast.hub.directory import open_keys
from holdfast.hub.home import Home
from holdfast.hub.migrate import conninfo_of, has_tables, is_database
from holdfast.hub.tokens import SqliteTokens, Token, adopt
from holdfast.integrity.backup import HUB, Part, Source, settled_heads
from holdfast.integrity.backup.repository import Repository
from holdfast.integrity.shelf import shelve
from holdfast.objects import BlobFiles

KIND: Final = b"hub"


@contextlib.contextmanager
def hub_source(place: str, *, blobs: str = "", with_keys: bool = False) -> Iterator[Source]:
    """A hub's directory or database as a backup reads it; it may be served meanwhile.

    Args:
        place: ``sqlite:DIR``, a path, or a PostgreSQL address.
        blobs: where its payloads above 64 KiB are, if it was told: as of ``serve --blobs``.
        with_keys: the backup is to hold its key; only for one that is sealed.

    Raises:
        HubUnavailable: the database cannot be reached.
        NoStore: there is no hub.
    """
    with contextlib.ExitStack() as stack:
        corpus: Any
        here: Any
        if is_database(place):
            from holdfast.corpus.postgres import Database, PostgresCorpus
            from holdfast.corpus.postgres.blobs import BlobTable
            from holdfast.hub.tokens_database import DatabaseTokens

            database = Database(conninfo_of(place))
            if not has_tables(database):
                raise NoStore(f"there is no hub in the database {database.name}", hint="is it the right one?")
            corpus = PostgresCorpus(database)
            stack.callback(corpus.close)
            name, here = f"postgresql://{database.name}", BlobTable(corpus.engine)
            keys = moving.read_keys(corpus.query, "hub_key")
            shared = DatabaseTokens(corpus.engine)
            tokens, told = [_unused(token) for token in shared.every()], acts.to_carry(shared.acts())
        else:
            home = Path(place.removeprefix("sqlite:")).expanduser()
            if not (home / "hub.db").exists():
                raise NoStore(f"there is no hub in {home}", hint="give the directory that serve --data was given")
            corpus = SqliteCorpus(home / "hub.db", hub=True)
            stack.callback(corpus.close)
            name, here = str(home), BlobFiles(home / "blobs")
            keys, (tokens, told) = _keys(home), _tokens(home)
        stack.callback(shelve(corpus).close)  # a backup holds what an archive holds: it needs no other place
        if corpus.meta(moving.UNFINISHED) is not None:
            raise UsageError(f"{name} is an unfinished migration", hint="back up its source")
        corpus.sync()
        documents = {"kind": KIND, "tokens": msgspec.msgpack.encode(tokens), "audit": msgspec.msgpack.encode(told)}
        if with_keys:
            documents["keys"] = msgspec.msgpack.encode(keys)
        private = {row[0]: row[1] for row in keys}
        current = next((row[0] for row in keys if row[2] == "current"), None)
        if current is None:
            raise NoStore(f"there is no hub at {name}: it has no key", hint="was it ever served?")

        def signer(public_key: bytes) -> seal.Signer | None:
            return seal.Signer(private[public_key]) if public_key in private else None

        part = Part(HUB, "hub.db", corpus, _stored(here, blobs, stack))
        yield Source(name=name, parts=[part], public_key=current, signer=signer, documents=documents)


def _stored(here: Any, address: str, stack: contextlib.ExitStack) -> Any:
    if not address:
        return here
    from holdfast.objects.blobs.stored import StoredBlobs
    from holdfast.objects.opening import open_store

    return StoredBlobs(stack.enter_context(open_store(address)), here)


def finish_hub(work: Path, documents: dict[str, bytes], keys: Path | None = None) -> bool:
    """Makes a restored directory a hub's; whether it has its key.

    Args:
        work: the directory.
        documents: of the backup.
        keys: a directory that has the hub's key.
    """
    rows = _keys(keys) if keys is not None else None
    if rows is None and "keys" in documents:
        rows = msgspec.msgpack.decode(documents["keys"], type=list[KeyRow])
    if rows:
        engine = open_keys(work)
        try:
            engine.commits.run(lambda _: moving.add_keys(engine.writer_execute, "key", rows))
        finally:
            engine.close()
    tokens = msgspec.msgpack.decode(documents["tokens"], type=list[Token])
    told = msgspec.msgpack.decode(documents.get("audit", b"\x90"), type=list[Act])
    if tokens or told:
        store = SqliteTokens(work)
        try:
            acts.take_over(store.acts(), told)
            adopt(store, tokens)
        finally:
            store.close()
    return bool(rows)


def settle(home: Home, repository: Repository) -> int:
    """Says in a hub's corpus what both of its newest verified backups hold; how many branches went on.

    Args:
        home: the hub, where it is served: what it remembers of its streams ends with it.
        repository: its backups.
    """
    heads = settled_heads(repository)
    if not heads:
        return 0

    def job(tx: Any) -> int:
        moved = 0
        for stream, inc, base, base_link, seq, link in heads:
            found = tx.execute(
                "SELECT b.id, b.settled FROM branch b JOIN stream s ON s.id=b.stream"
                " WHERE s.stream=? AND b.inc=? AND b.base_seq=? AND b.base_link=?",
                (stream, inc, base, base_link),
            )
            # A hub that was put back may have taken another way since: what a backup holds of it settles nothing.
            for number, settled in found:
                here = tx.execute("SELECT link FROM rec WHERE branch=? AND seq=?", (number, seq))
                if here and bytes(here[0][0]) == link and settled < seq:
                    tx.execute("UPDATE branch SET settled=? WHERE id=?", (seq, number))
                    moved += 1
        if moved:
            home.forget_streams()
        return moved

    moved: int = home.corpus.write(job)
    return moved


def _keys(home: Path) -> list[KeyRow]:
    if not (home / "keys.db").exists():
        raise NoStore(f"there is no key in {home}", hint="the directory that holds keys.db")
    engine = open_keys(home)
    try:
        return moving.read_keys(engine.query, "key")
    finally:
        engine.close()


def _tokens(home: Path) -> tuple[list[Token], list[Act]]:
    if not (home / "auth.db").exists():
        return [], []
    store = SqliteTokens(home)
    try:
        return [_unused(token) for token in store.every()], acts.to_carry(store.acts())
    finally:
        store.close()


def _unused(token: Token) -> Token:
    """A token but for when it was last shown, which would make every backup another one."""
    return msgspec.structs.replace(token, used_ms=None)
