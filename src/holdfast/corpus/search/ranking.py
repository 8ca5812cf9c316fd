"""How good a hit is: the share of a question that a record holds, and how two lists become one. Pure.

A record that holds every word scores 1.0. One that holds some scores a quarter of their share in the question's weight,
where rare words weigh more: so whatever holds everything comes first, and common words alone bring nothing far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

K: Final = 60
"""Of reciprocal rank fusion: how slowly places lose their worth."""
PARTLY: Final = 0.25
"""What a record is worth at most that lacks a word: plain fusion lets one common word outvote a near vector."""
COMMON: Final = 0.2
"""A word that more records hold than this share of all is not looked for by itself."""

T = TypeVar("T")


def weight(holding: float, total: int) -> float:
    """How much a word tells: BM25's inverse frequency, 0 where everything holds it.

    Args:
        holding: how many records hold it, about.
        total: how many records there are.
    """
    holding = min(float(total), max(0.0, holding))
    return math.log1p((total - holding + 0.5) / (holding + 0.5))


def frequency(found: Sequence[int], wanted: int, newest: int) -> float:
    """About how many records hold a word, from the newest of them: as many as there are, or by how wide they spread.

    Args:
        found: positions of records that hold it, the newest first.
        wanted: how many were asked for; fewer means that these are all.
        newest: the newest position.
    """
    if len(found) < wanted:
        return len(found)
    spread = max(1, newest - found[-1] + 1)
    return len(found) * max(1, newest) / spread


def share(weights: Sequence[float], held: Sequence[bool]) -> float:
    """Which part of a question's weight a record holds: 1.0 if all of it, less than that if any word is missing."""
    if all(held):
        return 1.0
    total = sum(weights)
    if total <= 0:
        return sum(held) / len(held)
    return min(0.999, sum(each for each, there in zip(weights, held, strict=True) if there) / total)


def text_score(part: float) -> float:
    """The score of a record that holds this share of a question."""
    return 1.0 if part >= 1.0 else PARTLY * part


def covered(score: float) -> float:
    """The share of a question that a text score stands for."""
    return 1.0 if score >= 1.0 else score / PARTLY


def fuse(words: Mapping[T, tuple[int, float]], near: Mapping[T, int]) -> dict[T, float]:
    """One score between 0 and 1 of two lists: reciprocal ranks, those of the words weighed by what they cover.

    Args:
        words: what was found by words: its place (from 0), and the share of the question that it holds (ADR 0052 says
            why that share is not made a quarter here, too).
        near: what was found by vectors: its place.
    """
    best = 2.0 / (K + 1)
    out: dict[T, float] = {}
    for each, (place, part) in words.items():
        out[each] = part / (K + 1 + place) / best
    for each, place in near.items():
        out[each] = out.get(each, 0.0) + 1.0 / (K + 1 + place) / best
    return out
