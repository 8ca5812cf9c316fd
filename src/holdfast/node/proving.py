"""Proving an agent's log without changing a byte of it: every file is opened for reading only, beside whoever writes.

`Store.verify` proves the log that this process has open; here it is one that nobody has to have open, and that may be
damaged: opening it as a store does would already mend the write-ahead log, and write.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.clock import SYSTEM
from holdfast.corpus import SqliteCorpus
from holdfast.corpus.beholder import Beholder, Elder
from holdfast.corpus.snapshot import references
from holdfast.errors import HoldfastError
from holdfast.integrity.checks import CHECKS, PAGE, SIGNATURE, Finding
from holdfast.integrity.scan import ORPHAN_GRACE_S, Acked, Outside, Scan, verify_corpus
from holdfast.log.anchor import read_mark
from holdfast.node.directory import agents_in, folder_of
from holdfast.objects import BlobFiles

if TYPE_CHECKING:
    from holdfast.corpus.engines import Engine as Rows

_OPEN = "keep the directory as it is: holdfast repair --plan says what can be put back, and from where"


def prove(
    home: Path,
    agent: str,
    *,
    full: bool = True,
    checks: Collection[str] = CHECKS,
    grace_s: float = ORPHAN_GRACE_S,
) -> Scan:
    """Proves one agent's log in a node directory, and never writes there.

    Args:
        home: the node directory.
        agent: whose log.
        full: also hash payloads and blobs, and read every page.
        checks: which of `holdfast.integrity.checks.CHECKS` are made.
        grace_s: how old (seconds) a blob without a reference must be to be named.

    Returns:
        The scan. What cannot even be opened is a finding too.

    Raises:
        UsageError: the log is of another version of Holdfast.
    """
    begun = time.perf_counter()
    path = home / "agents" / folder_of(agent) / "log.db"
    mark = read_mark(path.with_name("log.anchor"))  # before the log: it only grows
    acked = list(_acked(home))
    try:
        corpus = SqliteCorpus(path, read_only=True)
    except HoldfastError as error:
        if error.code != "integrity":
            raise
        check = str(error.context.get("check", PAGE))
        return Scan(findings=[Finding(check, agent, 0, error.message, _OPEN)], seconds=time.perf_counter() - begun)
    try:
        streams = {branch.stream for branch in corpus.branches()}
        outside = Outside(
            acked=[each for each in acked if each.stream in streams],
            now_ms=SYSTEM.now_ms(),
            referred=referred(home, agent),
            grace_s=grace_s,
            wal=corpus.engine.diagnosis,
        )
        scan = verify_corpus(corpus, BlobFiles(home / "blobs"), anchor=mark, full=full, outside=outside, checks=checks)
        if SIGNATURE in checks:
            scan.findings += _foreign(home, corpus)
        return scan
    except HoldfastError as error:
        if error.code != "integrity":
            raise
        check = str(error.context.get("check", PAGE))
        return Scan(findings=[Finding(check, agent, 0, error.message, _OPEN)], seconds=time.perf_counter() - begun)
    finally:
        corpus.close()


def referred(home: Path, but: str) -> set[bytes] | None:
    """The digests that all other agents' records refer to; None where one of their logs cannot be read."""
    found: set[bytes] = set()
    for agent in agents_in(home):
        if agent == but:
            continue
        try:
            corpus = SqliteCorpus(home / "agents" / folder_of(agent) / "log.db", read_only=True)
        except HoldfastError:
            return None
        try:
            found.update(references(corpus))
        except HoldfastError:
            return None
        finally:
            corpus.close()
    return found


def acknowledged(node: Rows) -> Iterator[Acked]:
    """What each hub has acknowledged of each log, as written down in node.db."""
    for row in node.query("SELECT hub, stream, acked_seq, acked_link FROM position WHERE acked_seq>0"):
        yield Acked(*row)


def _acked(home: Path) -> Iterator[Acked]:
    if not (home / "node.db").exists():
        return
    try:
        node = Beholder(home / "node.db", roles=("node",))
    except HoldfastError:
        return  # it only repeats what the hubs say
    try:
        yield from acknowledged(node)
    finally:
        node.close()


def _foreign(home: Path, corpus: SqliteCorpus) -> Iterator[Finding]:
    """Logs whose key is none of this node's."""
    if not (home / "keys.db").exists():
        return
    keys = Elder(home / "keys.db", roles=("keys",))
    try:
        ours = {bytes(row[0]) for row in keys.query("SELECT public FROM key")}
    finally:
        keys.close()
    for branch in corpus.branches():
        if branch.current_key not in ours:
            what = "the log is signed by another key than this node's"
            hint = "put the node's own keys.db back; a copied log is read with holdfast import"
            yield Finding(SIGNATURE, branch.agent, 0, what, hint, "a key of this node", branch.current_key.hex())
