"""What a hub's records refer to, for the collection of blobs on an object store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from holdfast.corpus import SqlCorpus
from holdfast.hub.home import Home
from holdfast.objects.blobs.collect import GRACE_S, Collected, Collector
from holdfast.records import BLOB

COLLECT_EVERY_S: Final = 6 * 3600.0


def references(corpus: SqlCorpus) -> Iterator[bytes]:
    """The digests of all blobs whose payload some record still has, of every version and branch."""
    # A body that was evicted, redacted or quarantined is NULL, and refers to nothing any more.
    sql = "SELECT DISTINCT substr(body, 1, 32) FROM rec WHERE flags & ? <> 0 AND body IS NOT NULL"
    for (digest,) in corpus.engine.read(sql, (BLOB,)):
        yield bytes(digest)


def collect(home: Home, *, grace_s: float = GRACE_S, dry_run: bool = False) -> Collected:
    """Removes, in two phases, the blobs of this hub's object store that nothing refers to.

    Raises:
        StorageError: the store does not answer.
    """
    collector = Collector(home.blobs, lambda: references(home.corpus), grace_s=grace_s, wall=home.wall)
    return collector.run(dry_run=dry_run)
