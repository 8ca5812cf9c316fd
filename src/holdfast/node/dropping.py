"""Removes the files of blobs that bodies which have left referred to, unless any body on this node still does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from holdfast.corpus.eviction import referred
from holdfast.corpus.transaction import SqlTransaction
from holdfast.objects.blobs import aside

if TYPE_CHECKING:
    from holdfast.log import OpenLog
    from holdfast.node.directory import Directory

LOT: Final = 100


def drop_blobs(directory: Directory, digests: Sequence[bytes]) -> int:
    """Removes those of these blobs to which no body here refers any more; how many.

    Equal bytes are one file for all agents of a directory. So each goes out of sight before every log is asked once
    more, inside a transaction: whoever writes the same bytes from then on writes the file anew, and who found it before
    has committed by then. (What went all the same is fetched back: every hub holds these bytes.)
    """
    logs = [directory.open_log(agent, None) for agent in directory.agents()]
    try:
        return sum(_drop(directory, logs, digests[at : at + LOT]) for at in range(0, len(digests), LOT))
    finally:
        for opened in logs:
            directory.release_log(opened)


def _drop(directory: Directory, logs: Sequence[OpenLog], digests: Sequence[bytes]) -> int:
    seen = [(opened.corpus, opened.corpus.last()) for opened in logs]
    used: set[bytes] = set()
    for corpus, _ in seen:
        used |= referred(corpus.query, digests, 0)
    rest = [digest for digest in dict.fromkeys(digests) if digest not in used]
    for digest in rest:
        aside.put_aside(directory.blobs, digest)
    late: set[bytes] = set()
    for corpus, last in seen:
        late |= corpus.write(_asking(rest, last))
    for digest in rest:
        (aside.bring_back if digest in late else aside.drop_aside)(directory.blobs, digest)
    return len(rest) - len(late)


def _asking(digests: Sequence[bytes], last: int) -> Callable[[SqlTransaction], set[bytes]]:
    def job(tx: SqlTransaction) -> set[bytes]:
        def query(sql: str, args: Sequence[Any]) -> list[Any]:
            rows: list[Any] = tx.sql(sql, args).fetchall()
            return rows

        return referred(query, digests, last)

    return job
