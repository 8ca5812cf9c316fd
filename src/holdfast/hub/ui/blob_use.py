"""Which records refer to which blobs: a `Count`, as figures of use are.

No table says it, as nothing but this page asks. Whoever looks at one blob has its references read again, so that what
was erased or evicted since is not shown as if it were there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.corpus.rows import COLUMNS
from holdfast.errors import HoldfastError
from holdfast.hub.ui.counting import Count
from holdfast.records import BLOB, read_blob_reference

if TYPE_CHECKING:
    from holdfast.corpus import SqlCorpus, Stored
    from holdfast.hub.core import Core

BLOBS_MAX: Final = 50_000
PLACES_MAX: Final = 100


class Use(msgspec.Struct):
    """One blob: its size, how often records name it, the newest of them, and in which collections they are."""

    size: int = 0
    references: int = 0
    places: list[int] = []
    collections: set[str] = set()


class BlobUse(Count):
    """The blobs that records of one hub name; the loop's own.

    Args:
        core: the hub.
    """

    failed = "could not look for blobs; the next look goes on"

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.found: dict[bytes, Use] = {}
        """By digest; what was named last is last."""
        self.left_out = 0

    async def take(self, after: int, until: int) -> None:
        """Looks at the records behind one position, up to another."""
        core = self._core
        for stored in await core.read(lambda: _naming(core.corpus, after, until)):
            self._note(stored)

    def _note(self, stored: Stored) -> None:
        named = reference_of(stored)
        if named is None:
            return
        digest, size = named
        use = self.found.pop(digest, None) or Use()
        use.size = size
        use.references += 1
        use.places = [*use.places, stored.pos][-PLACES_MAX:]
        use.collections.add(stored.record.collection)
        self.found[digest] = use  # at the end, as it was named last
        if len(self.found) > BLOBS_MAX:
            del self.found[next(iter(self.found))]
            self.left_out += 1


def reference_of(stored: Stored | None) -> tuple[bytes, int] | None:
    """The (digest, size) of the blob that a record names; None if it names none, or does not any more."""
    if stored is None or not stored.is_blob or stored.body is None:
        return None
    try:
        return read_blob_reference(stored.payload())
    except HoldfastError:
        return None


def _naming(corpus: SqlCorpus, after: int, until: int) -> list[Stored]:
    test = "r.pos>? AND r.pos<=? AND (r.flags & ?)<>0 AND r.body IS NOT NULL"
    sql = f"SELECT {COLUMNS} FROM rec r WHERE {test} ORDER BY r.pos"
    return corpus.rows(sql, (after, until, BLOB))
