"""Answers by looking at every value: of collections that have no index, and where an index may not be written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from holdfast import wire
from holdfast.corpus.index.question import Load, Query
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.sql import SqlCorpus
from holdfast.errors import Erased, Sealed
from holdfast.query import matches

NOTHING: Final = object()
_STEP: Final = 500


def candidates(corpus: SqlCorpus, asked: Query, load: Load) -> Iterator[tuple[int, Stored, Any]]:
    """Every object of the collection that meets the condition: what stands for its id, its record, its value."""
    for stored in _values(corpus, asked):
        value = read(stored, load)
        if isinstance(value, dict) and matches(asked.condition, value):
            yield stored.pos, stored, value


def read(stored: Stored, load: Load) -> Any:
    """The value of a record; `NOTHING` where there is none that anybody here could read.

    Raises:
        HoldfastError: what `load` raises, but for `Erased` and `Sealed`.
    """
    if stored.body is None and stored.why in (wire.REDACTED, wire.QUARANTINED):
        return NOTHING
    try:
        return load(stored)
    except (Erased, Sealed):
        return NOTHING


def _values(corpus: SqlCorpus, asked: Query) -> Iterator[Stored]:
    for agent in dict.fromkeys(asked.agents) if asked.agents else corpus.agents():
        ids = corpus.query("SELECT a.id, c.id FROM name a, name c WHERE a.s=? AND c.s=?", (agent, asked.collection))
        after = None
        while ids:
            sql = (
                f"SELECT {COLUMNS} FROM state st JOIN rec r ON r.pos=st.pos WHERE st.agent=? AND st.coll=?"
                f"{'' if after is None else ' AND st.key>?'} AND st.gone=0 ORDER BY st.key LIMIT {_STEP}"
            )
            found = corpus.rows(sql, (*ids[0], *(() if after is None else (after,))))
            yield from found
            if len(found) < _STEP:
                break
            after = found[-1].record.key
