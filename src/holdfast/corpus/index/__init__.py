"""Secondary indexes: the values of declared collections by their fields, on every engine.

    index.declare(corpus, "candidates", ["skills", "years", "name"], words=["bio"])
    condition = where("skills").has("Python") & (where("years") >= 3)
    page = index.find(corpus, index.Query(collection="candidates", condition=condition, order=("-years",)), load)

What is kept is derived, never a second truth: `holdfast.query.matches` says what is found, the index only finds it
sooner. It is filled behind a watermark, so no write waits for it; whoever asks brings it up to date first.
"""

from __future__ import annotations

from holdfast.corpus.index.fields import declare, declared, drop, filled, reset
from holdfast.corpus.index.filling import fill
from holdfast.corpus.index.finding import aggregate, count, find
from holdfast.corpus.index.question import LIMIT_MAX, Func, Group, Load, Page, Query, keys_of

__all__ = [
    "LIMIT_MAX",
    "Func",
    "Group",
    "Load",
    "Page",
    "Query",
    "aggregate",
    "count",
    "declare",
    "declared",
    "drop",
    "fill",
    "filled",
    "find",
    "keys_of",
    "reset",
]
