"""Where records lie: an agent's on its node, everybody's on a hub. One layout, one set of laws, several engines.

The port is `Corpus` in `holdfast.corpus.port`; `SqlCorpus` is what its engines share, `SqliteCorpus` and
`holdfast.corpus.postgres.PostgresCorpus` are these. Internal: the seam may be reshaped
with any release, so do not implement it outside this package. Names are looked up when first used: who asks for the
library's version alone needs no engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.corpus.port import Branch, Corpus, Filter, Head, Prior, Transaction
    from holdfast.corpus.rows import Stored
    from holdfast.corpus.sql import SqlCorpus
    from holdfast.corpus.sqlite import SqliteCorpus

__all__ = ["Branch", "Corpus", "Filter", "Head", "Prior", "SqlCorpus", "SqliteCorpus", "Stored", "Transaction"]

_WHERE = {
    "SqlCorpus": "holdfast.corpus.sql",
    "SqliteCorpus": "holdfast.corpus.sqlite",
    "Stored": "holdfast.corpus.rows",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'holdfast.corpus' has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(_WHERE.get(name, "holdfast.corpus.port")), name)
    globals()[name] = found
    return found
