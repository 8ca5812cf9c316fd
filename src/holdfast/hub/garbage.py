"""What a hub's records refer to, for the collection of blobs on an object store."""

from __future__ import annotations

from typing import Final

from holdfast.corpus.snapshot import references
from holdfast.hub.home import Home
from holdfast.objects.blobs.collect import GRACE_S, Collected, Collector

COLLECT_EVERY_S: Final = 6 * 3600.0


def collect(home: Home, *, grace_s: float = GRACE_S, dry_run: bool = False) -> Collected:
    """Removes, in two phases, the blobs of this hub's object store that nothing refers to.

    Raises:
        StorageError: the store does not answer.
    """
    collector = Collector(home.blobs, lambda: references(home.corpus), grace_s=grace_s, wall=home.wall)
    return collector.run(dry_run=dry_run)
