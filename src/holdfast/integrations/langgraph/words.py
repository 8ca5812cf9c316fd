"""By which words a row is found: what is said in it, once, and nothing of how it is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from holdfast.integrations.langgraph.packing import STANDARD

CHARS_MAX: Final = 16 << 10
"""So much of a value is looked through."""
WORD_MAX: Final = 64
"""Longer words (digests, encoded bytes) are left out."""
_DEPTH_MAX: Final = 6


def of_checkpoint(given: Mapping[str, Any], entries: Mapping[str, Any], serde: Any) -> str:
    """The words of what is new in a checkpoint; none where a serialiser of the user's own may hide them.

    Args:
        given: the channels' values.
        entries: how they are kept: what refers to older ones is found there.
        serde: what they are kept by.
    """
    if type(serde) not in STANDARD:
        return ""
    texts: list[str] = []
    for channel, value in given.items():
        entry = entries[channel]
        if channel.startswith(("__", "branch:")) or "at" in entry:
            continue
        at = 0
        for step in entry.get("l", ({"n": 1},)):
            if isinstance(step, list):
                at += step[1]
                continue
            texts += _texts(value[at : at + step["n"]] if "l" in entry else value)
            at += step["n"]
    return joined(texts)


def joined(texts: list[str]) -> str:
    """Texts as one, each once, without what nobody looks for."""
    words = (word for text in dict.fromkeys(texts) for word in text.split() if len(word) <= WORD_MAX)
    return " ".join(words)[:CHARS_MAX]


def of_item(value: Any) -> str:
    """The words of an item."""
    return joined(list(_texts(value)))


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:CHARS_MAX]
    elif depth < _DEPTH_MAX:
        if isinstance(value, Mapping):
            value = list(value.values())
        elif hasattr(value, "content"):
            value = [value.content]
        if isinstance(value, list | tuple):
            for each in value:
                yield from _texts(each, depth + 1)
