"""Who is heard first: the command line, the environment, the project, what init wrote down, the user, the system.

    flags > environment > project (or the named file) > the store's config.json > user > system > default

What the variables of the earlier system say of a hub counts last: they are set where agents run, and a hub that has a
directory of its own by any other word must not begin an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from holdfast.errors import UsageError
from holdfast.settings.keys import KEYS, OTHERS, PREFIX, STORAGE_PREFIX, Key
from holdfast.settings.said import Ignored, Place, Problem, Said, Source
from holdfast.settings.units import size_said, span_said
from holdfast.settings.values import Wrong, hidden, nearest, value_in

Level = Literal["flags", "environment", "project", "store", "user", "system", "last"]
LEVELS: Final[tuple[Level, ...]] = ("flags", "environment", "project", "store", "user", "system", "last")
DEFAULT: Final = "default"
_STORAGE_DIR: Final = "COMMANDER_STORAGE_DIR"
_DB_URL: Final = "COMMANDER_DB_URL"
_HUB_BELOW: Final = "hub"
"""A hub's directory below what COMMANDER_STORAGE_DIR names, which is a node's where agents run."""


class Layer(msgspec.Struct, frozen=True):
    """One source and its rank; of several files of a level the first is heard first."""

    level: Level
    source: Source


def environment(environ: Mapping[str, str]) -> list[Layer]:
    """What the environment says; an empty variable says nothing."""
    source, last = Source("the environment"), Source("the environment")
    for key in KEYS.values():
        for name in (key.variable, *key.variables):
            if text := environ.get(name):
                _take(source, key, name, text)
                break
    if text := environ.get(_DB_URL):
        place = Place(f"${_DB_URL}")
        if text.startswith(("postgres:", "postgresql:")):
            last.say("serve.database", text, place)
        else:
            why = "messages lie in the store itself; a hub may have a PostgreSQL database"
            last.ignored.append(Ignored(place, "serve.database", why))
    if (text := environ.get(_STORAGE_DIR)) and not last.said:
        last.say("serve.data", f"{text.rstrip('/')}/{_HUB_BELOW}", Place(f"${_STORAGE_DIR}"))
    return [Layer("environment", source), Layer("last", last)]


def _take(source: Source, key: Key, name: str, text: str) -> None:
    place = Place(f"${name}")
    try:
        source.say(key.path, value_in(key, text), place)
    except Wrong as error:
        source.problems.append(Problem(place, key.path, str(error)))
        return
    if key.ignored and not (key.path == "cache.compression" and source.said[key.path].value):
        source.ignored.append(Ignored(place, key.path, key.ignored))


def strangers(environ: Iterable[str]) -> Iterator[Problem]:
    """Variables with our prefix that nobody reads, each with what was probably meant."""
    known = {name for key in KEYS.values() for name in (key.variable, *key.variables)} | OTHERS
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and not name.startswith(STORAGE_PREFIX):
            yield Problem(Place(f"${name}"), "", "nothing reads this variable", nearest(name, known))


def written(config: Mapping[str, Any], path: str) -> Source:
    """What `holdfast init` wrote into a store's config.json; what somebody has broken there since is a problem."""
    source = Source(path)
    place = Place(path)
    for name, key in (("agent", "agent.id"), ("token_file", "hub.token_file"), ("level", "store.level")):
        if isinstance(text := config.get(name), str) and text:
            source.say(key, text, place)
        elif text not in (None, ""):
            source.problems.append(Problem(place, name, f"a text is wanted, got {text!r:.60}"))
    hubs = config.get("hubs") or []
    if not isinstance(hubs, list) or not all(isinstance(each, str) for each in hubs):
        source.problems.append(Problem(place, "hubs", f"a list of addresses is wanted, got {hubs!r:.60}"))
    elif hubs:
        source.say("hub.urls", tuple(hubs), place)
    return source


def told(flags: Mapping[str, Any]) -> Source:
    """What the command line says, by key; None says nothing."""
    source = Source("the command line")
    for path, value in flags.items():
        if value not in (None, ()):
            source.say(path, value, Place(KEYS[path].flag or "the caller"))
    return source


class Configuration:
    """What holds, key by key, and who said so.

    Args:
        layers: every source; of two that say a key, the one of the higher level is heard.

    Attributes:
        problems: all that is wrong, in the order of the layers.
        ignored: all that is in order and has no effect.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = sorted(layers, key=lambda each: LEVELS.index(each.level))
        self.problems: list[Problem] = [each for layer in self.layers for each in layer.source.problems]
        self.ignored: list[Ignored] = [each for layer in self.layers for each in layer.source.ignored]
        self._said: dict[str, tuple[int, Said]] = {}
        groups: dict[str, tuple[int, str]] = {}
        for rank, layer in enumerate(self.layers):
            for path, said in layer.source.said.items():
                if path in self._said or not self._is_heard(path, rank, said, groups):
                    continue
                self._said[path] = (rank, said)

    def _is_heard(self, path: str, rank: int, said: Said, groups: dict[str, tuple[int, str]]) -> bool:
        """Whether none of its alternatives was heard before it."""
        group = KEYS[path].group
        if not group:
            return True
        first, other = groups.setdefault(group, (rank, path))
        if first == rank and other != path:
            self.problems.append(Problem(said.place, path, f"give this or {other}, not both"))
        elif other != path and self.layers[rank].level != "last":
            why = f"{self._said[other][1].place} says {other} in its place, and is heard first"
            self.ignored.append(Ignored(said.place, path, why))
        return other == path

    # -- asking -------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The value that holds; the default where nobody said any."""
        found = self._said.get(path)
        return KEYS[path].default if found is None else found[1].value

    def has(self, path: str) -> bool:
        """Whether somebody said it."""
        return path in self._said

    def place(self, path: str) -> Place | None:
        """Who said it; None: nobody."""
        found = self._said.get(path)
        return None if found is None else found[1].place

    def level(self, path: str) -> str:
        """The level of whoever said it; ``default`` where nobody did."""
        found = self._said.get(path)
        return DEFAULT if found is None else self.layers[found[0]].level

    @property
    def hubs(self) -> tuple[str, ...]:
        """The hubs that are shipped to: none where whoever named them, or who outranks him, switched that off."""
        urls, switch = self._said.get("hub.urls"), self._said.get("hub.enabled")
        if urls is None or (switch is not None and not switch[1].value and switch[0] <= urls[0]):
            return ()
        found: tuple[str, ...] = urls[1].value
        return found

    @property
    def files(self) -> list[str]:
        """The files that were read, the first to be heard first."""
        return [each.source.name for each in self.layers if each.level not in ("flags", "environment", "last")]

    def check(self) -> None:
        """Returns only if nothing is wrong.

        Raises:
            UsageError: its message has a line for each problem, ``file:line:column: key: what``.
        """
        if self.problems:
            raise refused(self.problems)

    def shown(self, path: str) -> Any:
        """The value as JSON, without secrets: those are told to be set."""
        value, key = self.get(path), KEYS[path]
        if key.kind in ("secret", "command"):
            return None if value is None else "set"
        if key.kind == "address" and isinstance(value, str):
            return hidden(value)
        if key.kind in ("urls", "words"):
            return [hidden(each) for each in value]
        return hidden(value) if key.kind == "url" else value

    def text(self, path: str) -> str:
        """The value as a person would write it in a file."""
        value, key = self.shown(path), KEYS[path]
        if value is None or value in ("", [], ()):
            return "-"
        if key.kind == "size":
            return size_said(value)
        if key.kind == "span":
            return span_said(value)
        if key.kind == "days":
            return f"{value / 86_400:g} days"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, dict):
            return " ".join(f"{name}={span_said(each)}" for name, each in value.items())
        return " ".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)


def refused(problems: Iterable[Problem]) -> UsageError:
    """The error that tells of all problems at once."""
    every = list(problems)
    what = "a problem" if len(every) == 1 else f"{len(every)} problems"
    lines = "\n".join(map(str, every))
    facts = [{"at": str(each.place), **msgspec.structs.asdict(each)} for each in every]
    for each in facts:
        del each["place"]
    return UsageError(f"the configuration has {what}\n{lines}", hint="holdfast config check", problems=facts)
