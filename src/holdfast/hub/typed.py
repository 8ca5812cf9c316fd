"""Collections on the hub: what agents have declared of them, and everybody's values that meet a condition.

Each agent says in its own log what its collections are (a record of the collection `schemas`). The hub goes by all of
them: it indexes every field that anybody named, checks what plain clients write against the version that they name,
and takes the newest version where nobody names one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from holdfast.collections.typed.asking import Rows, field_of, row_of
from holdfast.collections.typed.backing import Asked
from holdfast.collections.typed.fields import Fields
from holdfast.collections.typed.mixed import Mixed
from holdfast.collections.typed.schema import OURS, SCHEMAS, Declared, Schema, Shape, check_declared, indexed, is_ours
from holdfast.collections.typed.sums import Sums, functions, sums_of
from holdfast.collections.typed.wording import Where, worded
from holdfast.corpus import Filter, Stored, index
from holdfast.corpus.sql import SqlCorpus
from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.home import Home
from holdfast.log import load
from holdfast.query import Condition, tests_in
from holdfast.records import DELETE_PREFIX

logger = logging.getLogger(__name__)

LOT: Final = 200
DECLARED_MAX: Final = 1000
PAST_MAX: Final = 20
FIELDS_MAX: Final = 64
"""So many fields of one collection the hub indexes, whoever names them."""


class Known(msgspec.Struct, frozen=True):
    """What is known of a collection.

    Attributes:
        name: its name.
        newest: what its newest version is.
        versions: the JSON Schema of each version that anybody goes by, or went by; None: any object.
        agents: the newest version that each agent has declared.
        index, text: the fields that anybody named.
        expires: whether values of it may.
    """

    name: str
    newest: Declared
    versions: Mapping[int, dict[str, Any] | None]
    agents: Mapping[str, int]
    index: tuple[str, ...]
    text: tuple[str, ...]
    expires: bool

    def check(self, paths: Iterable[str], what: str) -> None:
        """Returns only if some version has each of these fields.

        Raises:
            UsageError: none has one; the hint says which may have been meant.
        """
        kinds = [Fields(each) for each in self.versions.values()]
        for path in paths:
            if path not in OURS and not any(each.has(path) for each in kinds):
                Fields(self.newest.schema).check([path], what)

    def version(self, named: int | None) -> int:
        """The version that somebody names; the newest if he names none.

        Raises:
            UsageError: nobody has declared it.
        """
        version = self.newest.version if named is None else named
        if version not in self.versions:
            known = ", ".join(map(str, sorted(self.versions)))
            raise UsageError(f"{self.name} has no version {version}", hint=f"known are: {known}; PUT its schema first")
        return version

    def check_value(self, value: Any, version: int) -> None:
        """Returns only if a value fits a version of the schema.

        Raises:
            UsageError: it does not; ``context["field"]`` says where.
        """
        if not isinstance(value, dict):
            raise UsageError(f"{self.name}: $: expected an object, got {type(value).__name__}", field="$")
        for name in OURS:
            if name in value:
                raise UsageError(f"{self.name}: $.{name}: the name is taken", field=f"$.{name}")
        found = Fields(self.versions[version]).fault(value)
        if found is not None:
            raise UsageError(
                f"{self.name}: {found[0]}: {found[1]}", hint=f"see /v1/collections/{self.name}/schema", field=found[0]
            )


NOTHING: Final = Declared(version=1)


def unknown(name: str) -> Known:
    """A collection of which nobody has said anything: any objects."""
    return Known(name, NOTHING, {1: None}, {}, (), (), False)


class Schemas:
    """What agents have declared, kept up with the corpus. Safe to share among threads.

    Args:
        corpus: the hub's.
    """

    def __init__(self, corpus: SqlCorpus) -> None:
        self._corpus = corpus
        self._lock = threading.Lock()
        self._mark = 0
        self._known: dict[str, Known] = {}

    def tend(self) -> None:
        """Takes in what has been declared since, and has the index hold its fields; one small question if nothing."""
        last = self._corpus.last()
        if last == self._mark:
            return
        with self._lock:
            names: set[str] = set()
            mark = self._mark
            while True:
                which = Filter(collection=SCHEMAS, after=mark, newest_first=False, limit=LOT)
                found = self._corpus.page(which)
                for stored in found:
                    key = stored.record.key
                    wide = stored.record.kind == DELETE_PREFIX
                    names |= {name for name in self._known if name.startswith(key)} if wide else {key}
                if len(found) < LOT:
                    break
                mark = found[-1].pos
            try:
                for name in sorted(names):
                    self._learn(name)
            except HoldfastError as error:  # a full disk, say: it is tried again, and reads go on without the index
                logger.warning("what was declared of collections could not be indexed: %s", error)
                return
            self._mark = last

    def of(self, name: str) -> Known | None:
        """What is known of a collection; None: nothing."""
        self.tend()
        return self._known.get(name)

    def all(self) -> list[Known]:
        """What is known of all of them, by name."""
        self.tend()
        with self._lock:
            return sorted(self._known.values(), key=lambda known: known.name)

    def _learn(self, name: str) -> None:
        current = self._corpus.page(Filter(collection=SCHEMAS, key=name, current=True, limit=DECLARED_MAX))
        told = [(each.agent, found) for each in current for found in self._past(each.agent, name)]
        if not told or is_ours(name) or (name not in self._known and len(self._known) >= DECLARED_MAX):
            self._known.pop(name, None)
            return
        newest = max(told, key=lambda each: each[1].version)[1]  # of equals the first: the newest record
        versions: dict[int, dict[str, Any] | None] = {}
        agents: dict[str, int] = {}
        for agent, each in told:
            versions.setdefault(each.version, each.schema)
            agents[agent] = max(each.version, agents.get(agent, 0))
        fields = dict.fromkeys(field for _, each in told for field in indexed(each))
        words = dict.fromkeys(field for _, each in told for field in each.text)
        known = self._known[name] = Known(
            name,
            newest,
            versions,
            agents,
            tuple(fields)[:FIELDS_MAX],
            tuple(words)[:FIELDS_MAX],
            any(each.expires for _, each in told),
        )
        if not newest.sealed:
            index.declare(self._corpus, name, known.index, words=known.text)

    def _past(self, agent: str, name: str) -> Iterator[Declared]:
        """What an agent declares of a collection, and what it declared before: its older programs may still run."""
        for stored in islice(self._corpus.versions(agent, SCHEMAS, name), PAST_MAX):
            if stored.gone:
                return
            if (found := _read(stored)) is not None:
                yield found


def _read(stored: Stored) -> Declared | None:
    """What a record declares; None if that is nothing we understand."""
    try:
        found = msgspec.convert(load(stored, None), Declared)
        check_declared(found)
    except (HoldfastError, msgspec.ValidationError):
        return None
    return found


class Everybody:
    """The values of one collection, of all agents, as a hub finds them; a `Backing` for what reads.

    Args:
        home: the hub's directory or database.
        known: what is known of the collection.
    """

    def __init__(self, home: Home, known: Known) -> None:
        self._home = home
        self.known = known
        # Of versions the hub knows nothing but that there are some: who reads an older value brings it up to date.
        self.mixed: Mixed = Mixed(Shape(known.name, Schema(expires=known.expires)), self)

    def now_ms(self) -> int:
        """The time, by the hub's clock."""
        return self._home.wall.now_ms()

    def find(self, asked: Asked) -> Rows:
        """A page."""
        page = index.find(self._home.corpus, self._query(asked), self.load)
        rows = [
            row_of(
                stored, stored.record.key, page.values[stored.pos] if stored.pos in page.values else self.load(stored)
            )
            for stored in page.found
        ]
        return Rows(rows, page.cursor or "")

    def count(self, asked: Asked) -> int:
        """How many."""
        return index.count(self._home.corpus, self._query(asked), self.load)

    def sums(self, asked: Asked, by: str | None, of: str | None) -> list[Sums]:
        """What they add up to."""
        found = index.aggregate(self._home.corpus, self._query(asked), self.load, group=by, of=functions(of))
        return [sums_of(each) for each in found]

    def search(self, words: str, fields: Iterable[str], limit: int, agent: str | None) -> Rows:
        """The newest with these words."""
        where = Where(self.known.name, () if agent is None else (agent,), self.load)
        found = worded(self._home.corpus, words, tuple(fields), limit, where)
        return Rows([row_of(stored, stored.record.key, raw) for stored, raw in found])

    def load(self, stored: Stored) -> Any:
        """The value of a record."""
        return load(stored, self._home.blobs)

    def check(self, condition: Condition, order: Iterable[str] = ()) -> None:
        """Returns only if the fields of a condition and an order are some version's.

        Raises:
            UsageError: one is not.
        """
        self.known.check((test.field for test in tests_in(condition)), "the condition")
        self.known.check(map(field_of, order), "the order")

    def _query(self, asked: Asked) -> index.Query:
        return index.Query(
            collection=self.known.name,
            agents=() if asked.agent is None else (asked.agent,),
            condition=asked.condition,
            order=asked.order,
            after=asked.after or None,
            limit=asked.limit,
        )
