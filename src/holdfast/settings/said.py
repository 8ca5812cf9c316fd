"""What a file, a variable or the command line said, where it said so, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import msgspec


class Place(msgspec.Struct, frozen=True):
    """Where something was said: ``config.yaml:3:5``, ``$HOLDFAST_HUB``, ``--hub``."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


class Said(msgspec.Struct, frozen=True):
    """One key's value, and who said it."""

    path: str
    value: Any
    place: Place


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: where, of which key, what, and what was probably meant."""

    place: Place
    path: str
    what: str
    meant: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{self.place}: {where}{self.what}" + (f"; did you mean {self.meant!r}?" if self.meant else "")


class Ignored(msgspec.Struct, frozen=True):
    """Something that was said, is in order, and has no effect: the reason."""

    place: Place
    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.path}: ignored: {self.why}"


class Source(msgspec.Struct):
    """All that one file, or the environment, or the command line said.

    Attributes:
        name: the file's path, or what it is.
        said: by key; of two the first (the second is a problem).
        problems, ignored: what is wrong, and what has no effect.
    """

    name: str
    said: dict[str, Said] = {}
    problems: list[Problem] = []
    ignored: list[Ignored] = []

    def say(self, path: str, value: Any, place: Place, name: str = "") -> None:
        """Takes in what was said of a key; another value for a key that was said already is a problem."""
        before = self.said.get(path)
        if before is None:
            self.said[path] = Said(path, value, place)
        elif before.value != value:
            self.problems.append(Problem(place, name or path, f"said before, otherwise: {before.place}"))
