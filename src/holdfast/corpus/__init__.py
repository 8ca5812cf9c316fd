"""Where records lie: an agent's on its node, everybody's on a hub. One layout, one set of laws, several engines.

The port is `Corpus` in `holdfast.corpus.port`; `SqliteCorpus` is the engine here. Internal: the seam may be reshaped
with any release, so do not implement it outside this package.
"""

from holdfast.corpus.port import Branch, Corpus, Filter, Head, Prior, Transaction
from holdfast.corpus.rows import Stored
from holdfast.corpus.sqlite import SqliteCorpus

__all__ = ["Branch", "Corpus", "Filter", "Head", "Prior", "SqliteCorpus", "Stored", "Transaction"]
