"""What users see of a search: versions with scores, what is to be known of all of them, and how indexes stand."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast import clock
from holdfast.errors import UsageError
from holdfast.log.versions import Version

if TYPE_CHECKING:
    from holdfast.corpus import SqlCorpus


class Hit(Version, frozen=True, kw_only=True):
    """A version that a search found.

    Attributes:
        score: between 0 and 1, the best first. By words 1.0 is for every word, and less than 0.25 for a part of them;
            by vectors it is the cosine; by both, what the two lists say together.
        parts: with ``explain=True``, what the score is made of.
    """

    score: float = 1.0
    parts: dict[str, Any] | None = None


class Hits(list[Hit]):
    """What a search found, the best first.

    Attributes:
        mode: how it was looked for in the end: text, vector or hybrid.
        partial: whether something may be missing: an index is behind, or not everything could be looked at.
        pending: how many records of the collection wait to be embedded; they are found by their words.
    """

    def __init__(
        self, hits: Iterable[Hit] = (), *, mode: str = "text", partial: bool = False, pending: int = 0
    ) -> None:
        super().__init__(hits)
        self.mode, self.partial, self.pending = mode, partial, pending


class IndexStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the index of vectors of a collection stands.

    Attributes:
        name: the collection.
        identity: what its vectors are comparable by, as a hash; `model`, `fields`, `dims` and `chunk` say of what.
        complete: whether it once held everything; until then searches by it find a part.
        vectors: how many it holds.
        pending: records that were not looked at yet, of the index that is being built where there is one.
        failed: records that the function failed on; they are tried again, ever more rarely.
        last_error: what it said last.
        next_try: if the function fails whatever it is given, when it is tried again.
        building: the identity of an index that takes this one's place when it is complete.
        filler: who has it in hand, at a hub.
        warning: what should be known besides.
        engine: what compares its vectors with a question: numpy; python where that is missing; pgvector in a database.
    """

    name: str
    identity: str
    model: str
    fields: tuple[str, ...]
    dims: int
    chunk: int
    complete: bool
    vectors: int
    pending: int
    failed: int
    last_error: str
    next_try: str | None = None
    building: str | None = None
    filler: str = ""
    warning: str = ""
    engine: str = ""


def hit_of(version: Version, score: float, parts: dict[str, Any] | None) -> Hit:
    """A version, with its score."""
    fields = {name: getattr(version, name) for name in Version.__struct_fields__}
    return Hit(**fields, score=score, parts=parts)


def hit_in(data: dict[str, Any], version: Version) -> Hit:
    """The hit that a hub's answer shows: the version in it, with the score beside.

    Raises:
        UsageError: the answer shows no score.
    """
    score, parts = data.get("score"), data.get("parts")
    if not isinstance(score, int | float) or not (parts is None or isinstance(parts, dict)):
        raise UsageError(f"this shows no score: {score!r:.40}")
    return hit_of(version, float(score), parts)


def statuses(corpus: SqlCorpus, now_ms: int, collection: str | None = None) -> list[IndexStatus]:
    """How each index of a corpus stands, or that of one collection; by name.

    Args:
        corpus: where.
        now_ms: the time.
        collection: its name; None: all.
    """
    if corpus.one("SELECT 1 FROM vindex LIMIT 1") is None:
        return []  # most have none, and need nothing that knows of them
    from holdfast.corpus.search import nearest, vectors

    found = []
    for name, group in groupby(vectors.indexes(corpus, collection), lambda index: index.collection):
        index, *beside = group
        building = beside[-1] if beside else None
        ahead = building or index
        missed, error = vectors.failed(corpus, ahead)
        engine = nearest.engine_of(corpus, index)
        many = f"{index.held:,} vectors: each search compares all of them, and from {vectors.MANY:,} on that is slow"
        found.append(
            IndexStatus(
                name=name,
                identity=index.identity,
                model=index.declared.model,
                fields=index.declared.fields,
                dims=index.dims or index.declared.dims,
                chunk=index.declared.chunk,
                complete=index.complete,
                vectors=index.held,
                pending=vectors.pending(corpus, ahead),
                failed=missed,
                last_error=ahead.error or error,
                next_try=clock.iso(ahead.next_ms) if ahead.tries else None,
                building=building.identity if building is not None else None,
                filler=index.holder if index.held_ms > now_ms else "",
                warning=many if index.held > vectors.MANY and not (engine == "pgvector" and index.complete) else "",
                engine=engine,
            )
        )
    return found
