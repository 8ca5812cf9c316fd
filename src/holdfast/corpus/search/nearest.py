"""Those vectors of an index that are nearest to another: from a database that finds them itself, or from memory.

In memory they are all compared, exactly. What was loaded once is added to and not loaded again: rows have rising ids,
so what came is behind the last. Only when vectors were taken out with their bodies (`Index.drops`) it begins anew. What
was merely replaced stays in until it is a quarter: whoever asks looks at each hit, whether it still stands.
"""

from __future__ import annotations

import threading
import weakref
from array import array
from collections import OrderedDict
from typing import Final

from holdfast.corpus.search import numbers
from holdfast.corpus.search.indexes import Index
from holdfast.corpus.sql import SqlCorpus
from holdfast.errors import MissingExtra

LOT: Final = 2_000
"""Rows read at once: some 3 MB."""
CACHE_BYTES: Final = 512 << 20
"""Of vectors in memory in this process: 350,000 of 384 numbers. The setting search.memory says otherwise."""
STALE: Final = 4


class Loaded:
    """One index in memory."""

    def __init__(self, index: Index, dims: int) -> None:
        self.drops = index.drops
        self.after = index.first_row  # the id of the newest row that is in
        self.places = array("q")
        self.rows = numbers.Rows(dims)
        self.lock = threading.Lock()

    def catch_up(self, corpus: SqlCorpus, index: Index) -> None:
        """Takes in what was added since."""
        sql = "SELECT id, pos, v FROM vec WHERE id>? AND id<=? ORDER BY id LIMIT ?"
        end = index.first_row + index.next
        while self.after < end:
            rows = corpus.query(sql, (self.after, end, LOT))
            if not rows:
                self.after = end
                return
            self.rows.add([row[2] for row in rows])
            self.places.extend(row[1] for row in rows)
            self.after = rows[-1][0]


class Cache:
    """The indexes that this process keeps in memory: the last that were asked, up to so many bytes.

    Args:
        limit: bytes; the one that is asked is kept in any case, and is let go with the next.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._lock = threading.Lock()  # guards _kept
        self._kept: OrderedDict[tuple[int, int], tuple[weakref.ref[SqlCorpus], Loaded]] = OrderedDict()

    def near(self, corpus: SqlCorpus, index: Index, query: bytes, most: int) -> list[tuple[int, float]]:
        """The positions of the nearest vectors of an index and their cosines, the nearest first; pieces of one record
        all count.

        Raises:
            MissingExtra: there are too many to be compared without numpy.
        """
        if numbers.engine() is None and index.held > numbers.PLAIN_MAX:
            raise MissingExtra(
                f"{index.held:,} vectors are more than can be compared without numpy ({numbers.PLAIN_MAX:,})",
                hint="pip install 'holdfast[vector]'",
            )
        if not index.dims or len(query) != 4 * index.dims:
            return []
        loaded = self._loaded(corpus, index)
        with loaded.lock:
            loaded.catch_up(corpus, index)
            found = loaded.rows.near(query, most)
            places = loaded.places
            out = [(places[number], score) for number, score in found]
        self._trim()
        return out

    def forget(self) -> None:
        """Lets go of everything."""
        with self._lock:
            self._kept.clear()

    def _loaded(self, corpus: SqlCorpus, index: Index) -> Loaded:
        at = id(corpus), index.id
        with self._lock:
            kept = self._kept.pop(at, None)
            loaded = kept[1] if kept is not None and kept[0]() is corpus else None
            if loaded is not None and (
                loaded.drops != index.drops
                or loaded.after > index.first_row + index.next
                or len(loaded.places) > STALE * 1000 + index.held * (STALE + 1) // STALE
            ):
                loaded = None
            if loaded is None:
                loaded = Loaded(index, index.dims)
            self._kept[at] = (weakref.ref(corpus), loaded)
            return loaded

    def _trim(self) -> None:
        with self._lock:
            for at in [at for at, (ref, _) in self._kept.items() if ref() is None]:
                del self._kept[at]
            size = sum(loaded.rows.size for _, loaded in self._kept.values())
            while size > self.limit and len(self._kept) > 1:
                size -= self._kept.popitem(last=False)[1][1].rows.size


CACHE: Final = Cache(CACHE_BYTES)
"""What this process keeps."""


def near(corpus: SqlCorpus, index: Index, query: bytes, most: int) -> list[tuple[int, float]]:
    """The positions of the nearest vectors of an index and their cosines, the nearest first; pieces of one record all
    count. The database finds them where it can, else they are compared in memory.

    Raises:
        MissingExtra: there are too many to be compared without numpy.
    """
    found: list[tuple[int, float]] | None = corpus.near and corpus.near.near(index, query, most)
    return CACHE.near(corpus, index, query, most) if found is None else found


def engine_of(corpus: SqlCorpus, index: Index) -> str:
    """What compares the vectors of an index: pgvector, numpy, or python where both are missing."""
    if corpus.near is not None and corpus.near.answers(index):
        return "pgvector"
    return "numpy" if numbers.has_numpy() else "python"
