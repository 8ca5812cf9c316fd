"""What of a value is embedded, and how a text that is too long for one vector is cut. Pure.

The way of cutting has a name that is part of an index's identity: who changes it here gives it another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from holdfast.corpus.search.words import TEXT_CHARS_MAX, WORDS
from holdfast.query import members

CHUNKER: Final = "words-1"
CHUNK_CHARS: Final = 1_200
"""Letters of one piece: some 300 tokens, which every model reads whole (the smallest read 256 to 512)."""
CHUNK_LEAST: Final = 100
_OVERLAP: Final = 8
"""An eighth of a piece stands in the next one too, so that what is said across a cut is found."""
_LOOK: Final = 3
"""A sentence's end is looked for in the last third of a piece, and a word's."""
_SENTENCE: Final = re.compile(r"[.!?\u2026\u3002\uff01\uff1f]+[\"')\]]*\s|\n")
_SPACE: Final = re.compile(r"\s")


def path_of(field: str) -> str:
    """A field as conditions name it: ``messages[*].content`` is ``messages.content``."""
    return field.replace("[*]", "")


def text_in(value: Any, fields: Sequence[str]) -> str:
    """What of a value is embedded: its texts at these fields, or all of them; empty where there are none."""
    if fields:
        found = [text for field in fields for each in members(value, path_of(field)) for text in _texts(each)]
    elif isinstance(value, dict) and isinstance(said := value.get(WORDS), str):
        found = [said]
    else:
        found = list(_texts(value))
    return "\n".join(found)[:TEXT_CHARS_MAX].strip()


def cut(text: str, size: int = CHUNK_CHARS) -> list[str]:
    """A text in pieces of at most so many letters, at ends of sentences where it can be, else between words.

    Args:
        text: any.
        size: letters; 0: never cut.
    """
    if not size or len(text) <= size:
        return [text] if text.strip() else []
    out, at = [], 0
    while at < len(text):
        end = at + size
        if end < len(text):
            end = _end(text, at, end, size)
        piece = text[at:end].strip()
        if piece:
            out.append(piece)
        if end >= len(text):
            break
        at = _begin(text, at, end, size)
    return out


def _end(text: str, at: int, end: int, size: int) -> int:
    low = end - size // _LOOK
    for sign in (_SENTENCE, _SPACE):
        ends = [found.end() for found in sign.finditer(text, low, end)]
        if ends:
            return ends[-1]
    return end


def _begin(text: str, at: int, end: int, size: int) -> int:
    low = max(at + 1, end - size // _OVERLAP)
    found = _SPACE.search(text, low, end)
    return found.end() if found else end


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.strip():
            yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            if not (isinstance(name, str) and name.startswith("$")):
                yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
