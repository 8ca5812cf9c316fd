"""How good a hit is: the share of a question that a record holds, and how two lists become one. Pure.

A record that holds every word scores 1.0. One that holds some scores a quarter of their share in the question's weight,
where rare words weigh more: so whatever holds everything comes first, and common words alone bring nothing far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

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


def fuse(words: Mapping[T, float], near: Mapping[T, float]) -> dict[T, float]:
    """One score between 0 and 1 of two lists: half for the words that a record holds, half for how near it is.

    How near is measured from the farthest of those that were found, as one function's vectors all lie within a tenth of
    each other and another's do not. A convex combination (Bruch, Gai, Ingber: "An Analysis of Fusion Functions for
    Hybrid Retrieval", 2023); ADR 0052 has what it was held against.

    Args:
        words: what was found by words: the share of the question that it holds.
        near: what was found by vectors: the cosine of the angle.
    """
    least = min(near.values()) if len(near) > 1 else 0.0
    width = 1.0 - least
    out = {each: part / 2 for each, part in words.items()}
    for each, cosine in near.items():
        out[each] = out.get(each, 0.0) + ((cosine - least) / width / 2 if width > 0 else 0.5)
    return out
