"""Full-text search in one collection: what the index of words found, where the words are in the right fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from holdfast.corpus import Stored, search
from holdfast.corpus.search import terms_of, words_of
from holdfast.corpus.sql import SqlCorpus
from holdfast.errors import Erased, NotCached, Sealed
from holdfast.query import members

LOOKED_AT_MAX: Final = 5000
"""So many values with these words are looked at, at most, for those that have them in the right fields."""


class Where(msgspec.Struct, frozen=True):
    """Which values are searched, and what loads them: one collection's, of these agents (none: of all)."""

    collection: str
    agents: tuple[str, ...]
    load: Callable[[Stored], Any]


def worded(corpus: SqlCorpus, words: str, fields: Sequence[str], limit: int, where: Where) -> list[tuple[Stored, Any]]:
    """The newest values that hold every term, in some of these fields; in any field, or the key, if none is named.

    Raises:
        UsageError: nothing to look for, or too much.
    """
    terms = terms_of(words)
    step = limit if not fields else min(4 * limit, LOOKED_AT_MAX)
    while True:
        hits = search.search(corpus, words, agents=where.agents, collection=where.collection, limit=step).found
        found = []
        for stored in hits:
            try:
                value = where.load(stored)
            except (Erased, Sealed, NotCached):
                continue
            texts = [each for field in fields for each in members(value, field) if isinstance(each, str)]
            held = [words_of(text) for text in texts]
            if not fields or all(any(term.within(each) for each in held) for term in terms):
                found.append((stored, value))
        if len(found) >= limit or len(hits) < step or step >= LOOKED_AT_MAX:
            return found[:limit]
        step = min(4 * step, LOOKED_AT_MAX)
