"""Search over what a corpus holds: by words, by vectors of an embedding function, and by both.

    words        the index of words, filled in the background; records that hold every word, the newest first
    question     what is asked, and what is answered, in Python and over HTTP
    ranking      how good a partial match is, and how two lists become one (pure)
    partly       records that hold some of the words, found in bounded time
    chunks       what of a value is embedded, and how a long text is cut (pure)
    vectors      indexes of vectors: their tables, what waits for them, what failed
    numbers      vectors as bytes, and how near they are (numpy's door)
    nearest      the vectors nearest to another: as a database finds them, or in memory
    filling      the background work of an index: texts to a function, vectors into the tables
    answering    a question, answered

Only `words` is imported here: it is all that opening a store needs.
"""

from __future__ import annotations

from holdfast.corpus.search.words import (
    INDEXED,
    LOT,
    TAIL_MAX,
    TERMS_MAX,
    TEXT_CHARS_MAX,
    UNINDEXED,
    WORD_CHARS_MAX,
    WORDS,
    Hits,
    Look,
    Term,
    fill,
    looked,
    pending,
    search,
    search_under,
    terms_of,
    text_of,
    words_of,
)

__all__ = [
    "INDEXED",
    "LOT",
    "TAIL_MAX",
    "TERMS_MAX",
    "TEXT_CHARS_MAX",
    "UNINDEXED",
    "WORDS",
    "WORD_CHARS_MAX",
    "Hits",
    "Look",
    "Term",
    "fill",
    "looked",
    "pending",
    "search",
    "search_under",
    "terms_of",
    "text_of",
    "words_of",
]
