"""Embedding functions of the tests: no model, and the same vector for the same text on every machine."""

from __future__ import annotations

import re
import zlib
from typing import Any

DIMS = 48
MEANINGS = (
    {"tea", "brew", "beverage", "cup", "drinks", "oolong"},
    {"car", "vehicle", "engine", "garage", "drives"},
    {"money", "invoice", "price", "budget", "costs"},
    {"garden", "roses", "hedge", "plants"},
)
"""Words of each of these mean nearly the same; every other word means itself."""


def embed(texts: list[str]) -> list[list[float]]:
    """A vector for each text: what its words mean, and a little of the words themselves."""
    return [_vector(text) for text in texts]


async def embed_async(texts: list[str]) -> list[list[float]]:
    """The same, awaited."""
    return embed(texts)


def embed_letters(texts: list[str]) -> list[list[float]]:
    """Another model: how often letters stand in a text."""
    return [[float(text.lower().count(letter)) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


def failing(texts: list[str]) -> Any:
    """A function that fails on every call."""
    raise ConnectionError("the model is away")


def poisoned(texts: list[str]) -> list[list[float]]:
    """One that fails on every call with one text among its texts."""
    if any("poison" in text for text in texts):
        raise ValueError("no such token")
    return embed(texts)


def _vector(text: str) -> list[float]:
    out = [0.0] * DIMS
    out[DIMS - 1] = 0.01
    for word in re.findall(r"\w+", text.lower()):
        for number, meaning in enumerate(MEANINGS):
            if word in meaning:
                out[number] += 1.0
        out[len(MEANINGS) + zlib.crc32(word.encode()) % (DIMS - len(MEANINGS) - 1)] += 0.2
    return out
