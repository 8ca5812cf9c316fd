"""What is asked of a search, and what is answered: the same for a node, a hub and the wire between them."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from holdfast import query
from holdfast.corpus.rows import Stored
from holdfast.corpus.search.indexes import DIMS_MAX
from holdfast.errors import UsageError
from holdfast.query import Condition

Mode: TypeAlias = Literal["auto", "text", "vector", "hybrid"]
MODES: Final = get_args(Mode)
LIMIT_MAX: Final = 1_000
QUERY_CHARS_MAX: Final = 10_000
Embedding: TypeAlias = tuple[str, bytes]
"""A question as a vector: the identity of the index that it may be compared with, and its packed numbers."""
Ask: TypeAlias = Callable[[str], "bytes | None"]
"""Gives a question's vector for the index of this identity; None where nobody here has its function."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, and how.

    Attributes:
        q: words; in double quotes a phrase, which is required, with a trailing ``*`` a beginning.
        agent, collection, kind: narrow it.
        filter: what must hold of the values.
        mode: by words, by vectors, by both; `auto` takes both where both are to be had.
        limit: the most hits.
        at: what was current then: a position, or a stamp (`holdfast.clock`) where `at_stamp` is given; by words alone.
        min_score: what scores less is left out; 1.0 in mode text: whatever lacks a word.
        explain: whether hits say what their scores are made of.
        vector: the question, embedded by whoever asks.
    """

    q: str
    agent: str | None = None
    collection: str | None = None
    kind: str | None = None
    filter: Condition | None = None
    mode: Mode = "auto"
    limit: int = 50
    at: int | None = None
    at_stamp: int | None = None
    min_score: float | None = None
    explain: bool = False
    vector: Embedding | None = None

    @property
    def past(self) -> bool:
        """Whether it is about what was once."""
        return self.at is not None or self.at_stamp is not None


class Scored(msgspec.Struct, frozen=True):
    """A record that was found: its score between 0 and 1 (the best), and what that is made of."""

    stored: Stored
    score: float
    parts: dict[str, Any] | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, the best first.

    Attributes:
        found: the records.
        mode: how it was looked for in the end: text, vector or hybrid.
        partial: whether something may be missing, as an index is behind, or not all could be looked at.
        pending: how many records wait to be embedded.
    """

    found: list[Scored]
    mode: str
    partial: bool = False
    pending: int = 0


def checked(question: Question) -> Question:
    """The question itself, if it can be answered.

    Raises:
        UsageError: a mode, a limit or a score that is none; vectors of what was once; vectors without a collection.
    """
    if not isinstance(question.q, str) or len(question.q) > QUERY_CHARS_MAX:
        raise UsageError(f"a search text is text of at most {QUERY_CHARS_MAX:,} letters", hint="search for less")
    if question.mode not in MODES:
        raise UsageError(f"unknown search mode {question.mode!r:.40}", hint=f"one of {', '.join(MODES)}")
    if not isinstance(question.limit, int) or not 1 <= question.limit <= LIMIT_MAX:
        raise UsageError(f"limit {question.limit!r:.40} is not between 1 and {LIMIT_MAX}", hint="such as limit=10")
    least = question.min_score
    if least is not None and not (isinstance(least, int | float) and 0 <= least <= 1):
        raise UsageError(f"min_score {least!r:.40} is not between 0 and 1", hint="such as min_score=0.5")
    if question.filter is not None:
        query.checked(question.filter)
    if question.mode in ("vector", "hybrid"):
        if question.past:
            raise UsageError(
                f"mode {question.mode!r} with at=: an index of vectors holds newest values only",
                hint="mode='text' searches the past by its words",
            )
        if question.collection is None:
            raise UsageError(f"mode {question.mode!r} needs a collection, whose index is asked", hint="collection=…")
    return question


def vector_in(said: str | Sequence[float] | None) -> bytes:
    """A vector that came as JSON, packed and of length 1.

    Raises:
        UsageError: it is none.
    """
    from holdfast.corpus.search.numbers import pack

    if isinstance(said, str):
        try:
            data = base64.b64decode(said, validate=True)
            said = struct.unpack(f"<{len(data) // 4}f", data)
        except (binascii.Error, struct.error, ValueError) as error:
            raise UsageError("a vector in text is base64 of float32s", hint="or give a list of numbers") from error
    if not said or len(said) > DIMS_MAX:
        raise UsageError(f"a vector has between 1 and {DIMS_MAX:,} numbers, not {len(said or ()):,}")
    return pack(said)
