"""A new signing key for a node: every log says so itself, signed by the key that it leaves."""

from __future__ import annotations

from holdfast import codec
from holdfast.corpus.sqlite import SqliteTransaction
from holdfast.log import Draft, OpenLog
from holdfast.node.directory import Directory
from holdfast.records import ROTATE


def rotate(directory: Directory) -> bytes:
    """Puts a new key in force and returns its public half; again after a crash finishes what the first had begun.

    Raises:
        IntegrityError: a log cannot be opened; nothing has changed for the key in force.
    """
    key = directory.keyring.prepare_next()
    for agent in directory.agents():
        opened = directory.open_log(agent, None)
        try:
            _rotate(opened, key)
        finally:
            directory.release_log(opened)
    directory.keyring.promote(key)
    return key


def _rotate(opened: OpenLog, key: bytes) -> None:
    stream = opened.log.branch.stream
    write = opened.log.job([Draft(ROTATE, "", "", codec.FMT_BYTES, key, flags=0)])

    def job(tx: SqliteTransaction) -> None:
        if tx.branches(stream)[-1].current_key != key:  # else another process was here before us
            write(tx)
            tx.rekey(stream, key)

    opened.corpus.write(job)
    opened.sync()
