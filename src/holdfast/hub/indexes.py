"""How the indexes of vectors stand, for programs, for the probes and for the pages."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from holdfast import clock
from holdfast.hub.search_shapes import IndexShown

if TYPE_CHECKING:
    from holdfast.hub.core import Core


def every(core: Core, name: str | None = None) -> list[IndexShown]:
    """How each index stands, or that of one collection; reads the corpus.

    Args:
        core: the hub.
        name: the collection; None: all.
    """
    if core.corpus.one("SELECT 1 FROM vindex LIMIT 1") is None:
        return []  # most hubs have none, and need nothing that knows of them
    from holdfast.corpus.search import vectors

    found = []
    for collection, group in groupby(vectors.indexes(core.corpus, name), lambda index: index.collection):
        index, *beside = group
        missed, error = vectors.failed(core.corpus, index)
        building = beside[-1] if beside else None
        found.append(
            IndexShown(
                name=collection,
                identity=index.identity,
                model=index.declared.model,
                fields=list(index.declared.fields),
                dims=index.dims or index.declared.dims,
                chunk=index.declared.chunk,
                complete=index.complete,
                vectors=index.held,
                pending=vectors.pending(core.corpus, building or index),
                failed=missed,
                last_error=index.error or error,
                next_try=clock.iso(index.next_ms) if index.tries else None,
                building=building.identity if building is not None else None,
                filler=index.holder if index.held_ms > core.home.wall.now_ms() else "",
                warning=_warning(index.held, vectors.MANY),
            )
        )
    return found


def problems(core: Core) -> list[str]:
    """What of the indexes should be known, without the names of collections: probes are open to all."""
    found = every(core)
    out = []
    missed = sum(each.failed for each in found)
    if missed:
        out.append(f"{missed:,} records could not be embedded: GET /v1/indexes says why, and when it is tried again")
    down = sum(each.next_try is not None for each in found)
    if down:
        out.append(f"the embedding function of {down} of {len(found)} indexes fails: GET /v1/indexes says how")
    out += [each.warning for each in found if each.warning]
    return out


def _warning(held: int, many: int) -> str:
    if held <= many:
        return ""
    return f"an index holds {held:,} vectors, and each search compares all of them: from {many:,} on it is slow"
