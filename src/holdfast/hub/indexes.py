"""How a hub's indexes of vectors stand, for its probes, its pages and its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.log.hits import IndexStatus, statuses

if TYPE_CHECKING:
    from holdfast.hub.core import Core


def every(core: Core, name: str | None = None) -> list[IndexStatus]:
    """How each index stands, or that of one collection; reads the corpus.

    Args:
        core: the hub.
        name: the collection; None: all.
    """
    return statuses(core.corpus, core.home.wall.now_ms(), name)


def problems(core: Core) -> list[str]:
    """What of the indexes a person should know, without the names of collections: probes are open to all."""
    found = every(core)
    out = []
    if missed := sum(each.failed for each in found):
        out.append(f"{missed:,} records could not be embedded: GET /v1/indexes says why; they are tried again")
    if down := sum(each.next_try is not None for each in found):
        out.append(f"the embedding function of {down} of {len(found)} indexes fails: GET /v1/indexes says how")
    out += [f"an index of vectors holds {each.warning}" for each in found if each.warning]
    if core.embedding is not None and core.embedding.trouble:
        out.append(f"the indexes of vectors cannot be filled: {core.embedding.trouble}")
    if core.nearing is not None and core.nearing.trouble:
        out.append(f"the database cannot be kept able to find near vectors: {core.nearing.trouble}")
    return out
