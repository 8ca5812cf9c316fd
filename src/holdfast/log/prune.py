"""Letting go of history that is safe elsewhere: the log then begins at a signed prune record.

The prune record is appended like any other, and says, signed, where the chain stood before it. What is older and no
key's current value may then be removed: the rest of the chain still proves itself from that record on, and the whole
of it on the hub. Nothing that is not settled may go: the hub could be restored to a time before it had it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast import codec, records
from holdfast.corpus import SqlCorpus
from holdfast.corpus.sqlite import SqliteTransaction
from holdfast.errors import UsageError
from holdfast.log.drafts import Draft
from holdfast.log.log import Log
from holdfast.wire import Mark

BEGIN_SEQ = "begin_seq"
BEGIN_LINK = "begin_link"
CHUNK = 1000
"""Rows removed in one transaction: about a millisecond that a writer may have to wait."""


class Begin(msgspec.Struct, frozen=True):
    """What a prune record says: the mark before it, signed with the key in force."""

    seq: int
    link: str
    signature: str


def begin(corpus: SqlCorpus, stream: bytes) -> Mark:
    """The mark before the first record of an agent's chain: its genesis, or what its last prune record names."""
    seq = corpus.meta(BEGIN_SEQ)
    return Mark(0, records.genesis(stream)) if seq is None else Mark(seq, bytes(corpus.meta(BEGIN_LINK)))


def prune(log: Log, sign: Callable[[bytes], bytes], *, settled: int) -> int:
    """Appends a signed prune record and removes what it makes superfluous; returns how many records went.

    Args:
        log: an agent's log (not a hub's corpus: that keeps everything).
        sign: signs with the stream's key in force.
        settled: the newest seq that every hub and its backups hold.

    Raises:
        UsageError: something is not settled yet.
    """
    corpus, branch = log.corpus, log.branch
    if corpus.hub:
        raise UsageError("a hub keeps every record", hint="retention belongs to the nodes")

    def mark(tx: SqliteTransaction) -> int:
        head = tx.head(branch.id)
        if head.seq > settled:
            raise UsageError(
                f"seq {head.seq} of {branch.agent} is not settled (that is {settled})",
                hint="wait until the hub and its backups have it",
            )
        signature = sign(records.head_message(branch.stream, head.seq, head.link))
        said = Begin(head.seq, head.link.hex(), signature.hex())
        payload = codec.serialise(msgspec.to_builtins(said))
        log.job([Draft(records.PRUNE, "", "", *payload, flags=0)])(tx)
        tx.set_meta(BEGIN_SEQ, head.seq)
        tx.set_meta(BEGIN_LINK, head.link)
        return head.seq

    upto = corpus.write(mark)
    corpus.sync()  # the record that explains the gap is durable before the gap is made
    return _remove(corpus, upto)


def _remove(corpus: SqlCorpus, upto: int) -> int:
    after, gone = 0, 0
    while after < upto:
        high = min(after + CHUNK, upto)

        def chunk(tx: SqliteTransaction, low: int = after, high: int = high) -> int:
            kept = "SELECT pos FROM state UNION SELECT gone FROM state UNION SELECT pos FROM scope"
            doomed = f"pos>? AND pos<=? AND pos NOT IN ({kept})"
            # Contentless, so the index must be told; a hole in it would only be a hit that leads nowhere.
            tx.execute(f"DELETE FROM fts WHERE rowid IN (SELECT pos FROM rec WHERE {doomed})", (low, high))
            tx.unvector(f"pos IN (SELECT pos FROM rec WHERE {doomed})", (low, high))
            tx.execute("DELETE FROM tag WHERE pos>? AND pos<=? AND pos NOT IN (SELECT pos FROM state)", (low, high))
            tx.execute(f"DELETE FROM rec WHERE {doomed}", (low, high))
            return int(tx.execute("SELECT changes()")[0][0])

        gone += corpus.write(chunk)
        after = high
    return gone
