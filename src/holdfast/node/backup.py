"""What of a node is backed up, and how a backup becomes a node again.

All agents' logs, their blobs and the configuration. Not the node's keys, unless the repository is sealed and they are
asked for: who has them writes as its agents. Not how far hubs are, which a hub tells, nor other agents' records.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast import seal
from holdfast.corpus import moving
from holdfast.corpus.engine import Engine
from holdfast.disk import sync_directory
from holdfast.errors import IntegrityError
from holdfast.integrity.backup import AGENT, Part, Source
from holdfast.node.directory import Directory, folder_of, write_config

KIND: Final = b"node"
_CACHE_KIB: Final = 256


@contextlib.contextmanager
def node_source(directory: Directory, *, with_keys: bool = False) -> Iterator[Source]:
    """A node's directory as a backup reads it; its agents go on writing.

    Args:
        directory: the node's.
        with_keys: the backup is to hold its keys; only for one that is sealed.

    Raises:
        IntegrityError: an agent's log is another key's, or damaged.
    """
    keyring = directory.keyring
    documents = {"kind": KIND, "config": msgspec.json.encode(directory.config)}
    if with_keys:
        documents["keys"] = msgspec.msgpack.encode(_keys(directory.path))

    def signer(public_key: bytes) -> seal.Signer | None:
        with contextlib.suppress(IntegrityError):
            return keyring.signer(public_key)
        return None

    with contextlib.ExitStack() as stack:
        parts = []
        for agent in directory.agents():
            opened = directory.open_log(agent, None)
            stack.callback(directory.release_log, opened)
            opened.sync()  # a backup that is ahead of what a power cut leaves would look like a fork
            place = f"agents/{folder_of(agent)}/log.db"
            parts.append(Part(AGENT, place, opened.corpus, directory.blobs))
        yield Source(
            name=str(directory.path),
            parts=parts,
            public_key=keyring.current(),
            signer=signer,
            documents=documents,
        )


def finish_node(work: Path, documents: dict[str, bytes], keys: Path | None = None) -> bool:
    """Makes a restored directory a node's; whether it has its keys.

    Args:
        work: the directory.
        documents: of the backup.
        keys: a directory that has the node's keys.
    """
    (work / "agents").mkdir(mode=0o700, exist_ok=True)
    if keys is not None:
        copy_keys(keys, work)
    elif "keys" in documents:
        rows = msgspec.msgpack.decode(documents["keys"], type=list[moving.KeyRow])
        engine = Engine(work / "keys.db", roles=("keys",), full=True, cache_kib=_CACHE_KIB)
        try:
            engine.commits.run(lambda _: moving.add_keys(engine.writer_execute, "key", rows))
        finally:
            engine.close()
    write_config(work, msgspec.json.decode(documents["config"]))
    sync_directory(work)
    return keys is not None or "keys" in documents


def copy_keys(home: Path, work: Path) -> None:
    """Copies keys.db as a whole: other keys than the node's own may be in it.

    Raises:
        IntegrityError: there is none.
    """
    path, target = home / "keys.db", work / "keys.db"
    if not path.exists():
        raise IntegrityError(f"there are no keys in {home}", hint="the directory that holds keys.db")
    target.unlink(missing_ok=True)  # of a restore that was broken off here
    engine = Engine(path, roles=("keys",), full=True, cache_kib=_CACHE_KIB)
    try:
        engine.query("VACUUM INTO ?", (str(target),))
    finally:
        engine.close()
    target.chmod(0o600)


def _keys(home: Path) -> list[moving.KeyRow]:
    path = home / "keys.db"
    if not path.exists():
        raise IntegrityError(f"there are no keys in {home}", hint="the directory that holds keys.db")
    engine = Engine(path, roles=("keys",), full=True, cache_kib=_CACHE_KIB)
    try:
        return moving.read_keys(engine.query, "key")
    finally:
        engine.close()
