"""A collection of values of one type: written and checked by name, found by what stands in them.

candidates = store.collection("candidates", Candidate, index=("skills", "experience_years"))
candidates.put("ada", Candidate("Ada", skills=["Python"], experience_years=5))
for key, found in candidates.find(where("skills").has("Python"), order="-experience_years"):
    ...
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from holdfast import clock
from holdfast.collections.typed.asking import Row, field_of, order_of
from holdfast.collections.typed.backing import Asked, Backing, When, check_limit
from holdfast.collections.typed.found import Item, Page, Unfit
from holdfast.collections.typed.mixed import Mixed
from holdfast.collections.typed.schema import ENDS, Schema, Shape, ends_of
from holdfast.collections.typed.sums import Sums
from holdfast.errors import Conflict, HoldfastError, NotFound, UsageError
from holdfast.log.drafts import new_id
from holdfast.log.versions import Version
from holdfast.query import EVERYTHING, AllOf, Condition, checked, where

logger = logging.getLogger(__name__)

T = TypeVar("T")
MISSING: Any = type("Missing", (), {"__repr__": lambda _: "<raise NotFound>"})()
"""Stands for: there is no default, raise."""
SWEEP_EVERY_MS: Final = 60_000
SWEEP_LOT: Final = 100
MIGRATED_LOT: Final = 100
LIST_MAX: Final = 1000
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,60}")


class Collection(Generic[T]):
    """The values of one name that one schema describes. Safe to share among threads.

    Made by `Store.collection` (this agent's own values) and `Hub.collection` (everybody's, or one agent's).

    Args:
        name: the collection's.
        schema: what its values are.
        backing: where they lie.
    """

    def __init__(self, name: str, schema: Schema[T], backing: Backing) -> None:
        self.name = name
        self.schema = schema
        self._shape = Shape(name, schema)
        self._backing = backing
        self._mixed = Mixed(self._shape, backing)
        self._swept_ms = backing.now_ms()

    # -- writing ------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        value: T | Mapping[str, Any],
        *,
        expect: int | str | None = None,
        durable: bool = False,
        ttl_s: float | None = None,
    ) -> Version:
        """Sets a key to a value that fits the schema; returns the new version, with the value.

        Args:
            key: at most 1,024 bytes.
            value: of the collection's type, or a dict with its fields.
            expect, durable: see `Store.put`.
            ttl_s: seconds after which it is gone, in place of the schema's; only where values may expire.

        Raises:
            UsageError: it does not fit (``context["field"]`` says where), or a newer schema wrote what is there.
            Conflict: somebody was faster than `expect`.
        """
        raw = self._shape.write(value, self._ends(ttl_s))
        made = self._write(key, raw, expect, durable)
        self._sweep_sometimes()
        return _with(made, value)

    def add(self, value: T | Mapping[str, Any], *, durable: bool = False, ttl_s: float | None = None) -> str:
        """Adds a value under a key that is made for it and sorts by time; returns the key."""
        key = new_id(self.name if _NAME.fullmatch(self.name) else "item")
        self._backing.put(key, self._shape.write(value, self._ends(ttl_s)), 0, durable)
        self._sweep_sometimes()
        return key

    def update(
        self,
        key: str,
        change: Callable[[T], T | None] | Mapping[str, Any],
        *,
        default: T = MISSING,
        durable: bool = False,
        ttl_s: float | None = None,
    ) -> Version:
        """Changes a value, whoever else does so at the same time: it is read and changed anew until nobody was faster.

        Args:
            key: whose.
            change: fields with their new values; or a function that gets the value and returns the new one (or
                changes it in place), and may be called several times.
            default: the value to begin with where there is none.
            durable: see `Store.put`.
            ttl_s: seconds from now after which it is gone; None: when it was to be gone already.

        Raises:
            NotFound: there is no value, and no default.
            UsageError: see `put`.
        """
        while True:
            row = self._live(key, None)
            if row is None and default is MISSING:
                raise self._nothing(key)
            if row is None:
                before, ends, expect = self._shape.write(default), self._ends(ttl_s), 0
            else:
                self._shape.check_not_newer(key, row.raw)
                before = self._shape.current(row.raw)
                kept = ends_of(row.raw)
                ends = self._ends(ttl_s) if ttl_s is not None or kept == math.inf else int(kept)
                expect = row.version
            if isinstance(change, Mapping):
                made: Any = {**before, **_fields(change)}
            else:
                value = self._shape.read(before) if row is None else self._value(row)
                made = change(value)
                made = value if made is None else made
            try:
                written = self._write(key, self._shape.write(made, ends), expect, durable)
            except Conflict:
                continue
            return _with(written, self._shape.read(self._shape.write(made)) if isinstance(change, Mapping) else made)

    def delete(self, key: str, *, reason: str = "", expect: int | str | None = None) -> Version:
        """Takes a value away; its history stays.

        Raises:
            NotFound: there is nothing to delete.
            Conflict: somebody was faster than `expect`.
        """
        return self._backing.delete(key, reason, expect)

    def migrate(self) -> int:
        """Writes every older value as this version of the schema says; returns how many. Safe to repeat.

        What somebody else writes or deletes meanwhile stays as he left it.

        Raises:
            UsageError: a value that does not fit; what came before it is written.
        """
        count = 0
        rows = self._mixed.older(None)
        while lot := list(itertools.islice(rows, MIGRATED_LOT)):
            made = []
            for row in lot:
                ends = ends_of(row.raw)
                raw = self._shape.write(self._value(row), None if ends == math.inf else int(ends))
                made.append((row.key, raw, row.version))
            count += self._backing.replace(made)
        return count

    def sweep(self, most: int = LIST_MAX) -> int:
        """Deletes values whose time is over, at most so many; returns how many. To readers they are gone already."""
        if not self.schema.expires:
            return 0
        over = where(ENDS) <= self._backing.now_ms()
        count = 0
        for row in self._backing.find(Asked(condition=over, limit=max(1, min(most, LIST_MAX)), ended=True)).rows:
            try:
                self._backing.delete(row.key, "expired", row.version)
            except (Conflict, NotFound):
                continue  # it was written anew meanwhile, or somebody else sweeps
            count += 1
        return count

    # -- reading one ----------------------------------------------------------------------------------------------

    def get(self, key: str, *, default: Any = MISSING, at: When | None = None, agent: str | None = None) -> T:
        """The value of a key, checked against the schema; an older one as its migrations make it.

        Args:
            key: which.
            default: returned where there is no value.
            at: a version number, or a time: the value that was current then.
            agent: whose; None: those that the collection is about.

        Raises:
            NotFound: there is no value, or its time is over; and no default.
            UsageError: what is there does not fit the schema; the hint says how to read it as it is.
        """
        row = self._live(key, at, agent)
        if row is None:
            if default is MISSING:
                raise self._nothing(key, at)
            found: T = default
            return found
        return self._value(row)

    def item(self, key: str, *, agent: str | None = None) -> Item[T]:
        """The same, with the version that it is.

        Raises:
            NotFound: there is no value, or its time is over.
        """
        row = self._live(key, None, agent)
        if row is None:
            raise self._nothing(key)
        return _item(row, self._value(row))

    def history(self, key: str, *, limit: int = LIST_MAX, agent: str | None = None) -> list[Version]:
        """Every version of a key, newest first, deletions included; a value that does not fit is as it was stored."""
        out = []
        for each in self._backing.history(key, limit, agent):
            if not each.gone and not each.missing:
                try:
                    each = _with(each, self._shape.read(each.value))
                except UsageError:
                    logger.debug("%s/%s version %d does not fit its schema", self.name, key, each.version)
            out.append(each)
        return out

    # -- reading many ---------------------------------------------------------------------------------------------

    def find(
        self,
        condition: Condition = EVERYTHING,
        *,
        order: str | Sequence[str] = (),
        limit: int = 100,
        after: str = "",
        agent: str | None = None,
        **equals: Any,
    ) -> Page[T]:
        """A page of the values that meet a condition.

        Args:
            condition: such as ``where("skills").has("Python") & (where("experience_years") >= 3)``.
            order: a field, or several; ``-field`` for the largest first; none: as they were first written.
            limit: values on a page, at most 1,000.
            after: `cursor` of the page before.
            agent: whose; None: those that the collection is about.
            equals: fields and the values that they have, as further conditions.

        Raises:
            UsageError: a field that no value has (the hint says which may have been meant), or no condition.
        """
        wanted = order_of(order)
        self._shape.fields.check(map(field_of, wanted), "the order")
        if not isinstance(after, str):
            raise UsageError(f"no cursor: {after!r:.80}", hint="`page.cursor` of the page before")
        asked = Asked(
            condition=self._meant(condition, equals), order=wanted, after=after, limit=check_limit(limit), agent=agent
        )
        found = self._mixed.find(asked)
        return self._page(found.rows, found.cursor)

    def items(
        self,
        condition: Condition = EVERYTHING,
        *,
        order: str | Sequence[str] = (),
        agent: str | None = None,
        **equals: Any,
    ) -> Iterator[tuple[str, T]]:
        """The (key, value) pairs of all values that meet a condition, page by page as they are asked for."""
        after = ""
        while True:
            page = self.find(condition, order=order, limit=LIST_MAX, after=after, agent=agent, **equals)
            yield from page
            after = page.cursor
            if not after:
                return

    def first(
        self,
        condition: Condition = EVERYTHING,
        *,
        order: str | Sequence[str] = (),
        agent: str | None = None,
        **equals: Any,
    ) -> tuple[str, T] | None:
        """The first (key, value) of what `find` finds; None if it finds nothing."""
        return next(iter(self.find(condition, order=order, limit=1, agent=agent, **equals)), None)

    def count(self, condition: Condition = EVERYTHING, *, agent: str | None = None, **equals: Any) -> int:
        """How many values meet a condition."""
        return self._mixed.count(Asked(condition=self._meant(condition, equals), agent=agent))

    def aggregate(
        self,
        of: str | None = None,
        *,
        by: str | None = None,
        condition: Condition = EVERYTHING,
        agent: str | None = None,
        **equals: Any,
    ) -> list[Sums]:
        """How many values there are, and what a field of theirs adds up to, by what other fields hold.

        Args:
            of: the field whose numbers are added up.
            by: the field that groups them; a list counts for each of its members. None: one group of all.
            condition, equals, agent: see `find`.

        Returns:
            The groups in the order of what they have in common.
        """
        self._shape.fields.check([each for each in (of, by) if each is not None], "the aggregate")
        return self._mixed.sums(Asked(condition=self._meant(condition, equals), agent=agent), by, of)

    def search(self, words: str, *, limit: int = 50, agent: str | None = None) -> list[tuple[str, T]]:
        """The newest (key, value) pairs that hold all these words: in the fields named by ``text=``, or anywhere.

        Args:
            words: words; in double quotes a phrase, with a trailing ``*`` a beginning.
            limit: the most.
            agent: whose; None: those that the collection is about.
        """
        now = self._backing.now_ms()
        found = self._backing.search(words, self.schema.text, check_limit(limit), agent)
        return self._page([row for row in found.rows if ends_of(row.raw) > now], "").items

    # -- inside -------------------------------------------------------------------------------------------------

    def _meant(self, condition: Condition, equals: Mapping[str, Any]) -> Condition:
        parts = [] if condition is EVERYTHING else [condition]
        parts += [where(name) == each for name, each in equals.items()]
        whole = checked(parts[0] if len(parts) == 1 else AllOf(all=tuple(parts)))
        self._shape.fields.check_condition(whole)
        return whole

    def _ends(self, ttl_s: float | None) -> int | None:
        if ttl_s is None:
            ttl_s = self.schema.ttl_s
        elif not self.schema.expires:
            raise UsageError(
                f"{self.name}: values of this collection do not expire", hint="Schema(…, expires=True), or ttl_s= there"
            )
        if ttl_s is None:
            return None
        if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s <= clock.LASTS_S_MAX:
            raise UsageError(f"ttl_s={ttl_s!r:.80}", hint=f"seconds, above 0, at most {clock.LASTS_S_MAX:,}")
        return self._backing.now_ms() + round(ttl_s * 1000)

    def _write(self, key: str, raw: Any, expect: int | str | None, durable: bool) -> Version:
        """Writes, unless what is there is of a newer schema, which a later look would not notice."""
        if self._at_once(expect):
            return self._backing.put(key, raw, expect, durable)
        while True:
            there: int | None = 0
            wanted = expect
            try:
                row = self._backing.row(key, None, None)
                self._shape.check_not_newer(key, row.raw)
                there = row.version
                if expect == 0 and ends_of(row.raw) <= self._backing.now_ms():
                    wanted = there
            except NotFound as error:
                if error.retryable:
                    raise  # it is there, and nobody here knows of which version it is
                if error.code != NotFound.code:
                    there = None  # it was erased: a version without a value
            try:
                return self._backing.put(key, raw, there if wanted is None else wanted, durable)
            except Conflict:
                if expect is not None:
                    raise

    def _at_once(self, expect: int | str | None) -> bool:
        """Whether a write need not look at what is there: nothing newer is, and nothing that has ended matters."""
        newer = self._backing.newest_version() > self.schema.version
        return not newer and not (expect == 0 and self.schema.expires)

    def _live(self, key: str, at: When | None, agent: str | None = None) -> Row | None:
        try:
            row: Row = self._backing.row(key, at, agent)
        except NotFound as error:
            if error.code != NotFound.code:
                raise  # it exists, or was erased
            return None
        return None if at is None and ends_of(row.raw) <= self._backing.now_ms() else row

    def _value(self, row: Row) -> T:
        try:
            found: T = self._shape.read(row.raw)
        except UsageError as error:
            raise self._unfit(row, error) from error
        return found

    def _unfit(self, row: Row, error: UsageError) -> UsageError:
        whose = "" if not row.agent else f", agent={row.agent!r}"
        context = {**error.context, "agent": row.agent, "key": row.key, "version": row.version}
        return UsageError(
            f"{self.name}/{row.key} version {row.version} does not fit version {self.schema.version} of the schema: "
            + error.message.removeprefix(f"{self.name}: "),
            hint=f"as it is stored: .get({row.key!r}, collection={self.name!r}, at={row.version}{whose})",
            **context,
        )

    def _page(self, rows: Sequence[Row], cursor: str) -> Page[T]:
        found: list[Item[T]] = []
        unfit: list[Unfit] = []
        for row in rows:
            try:
                found.append(_item(row, self._value(row)))
            except UsageError as error:
                unfit.append(Unfit(agent=row.agent, key=row.key, version=row.version, why=error.message))
        if unfit:
            logger.warning("%s: %d values do not fit the schema, such as: %s", self.name, len(unfit), unfit[0].why)
        return Page(found=found, cursor=cursor, unfit=unfit)

    def _is_due(self) -> bool:
        """Whether a write is to sweep, too; of what is sealed it would have to open every value."""
        if not self.schema.expires or self.schema.sealed:
            return False
        return not 0 <= self._backing.now_ms() - self._swept_ms < SWEEP_EVERY_MS

    def _sweep_sometimes(self) -> None:
        if self._is_due():
            self._swept_ms = self._backing.now_ms()
            try:
                self.sweep(SWEEP_LOT)
            except HoldfastError as error:  # the write itself is done
                logger.warning("%s: what has ended could not be deleted: %s", self.name, error)

    def _nothing(self, key: str, at: When | None = None) -> NotFound:
        when = "" if at is None else f" at {at if isinstance(at, int) else clock.iso(clock.parse_time(at))}"
        return NotFound(f"there is nothing at {self.name}/{key}{when}", hint="find() shows what there is")


def _item(row: Row, value: Any) -> Item[Any]:
    return Item(agent=row.agent, key=row.key, value=value, version=row.version, etag=row.etag, time=row.time)


def _with(version: Version, value: Any) -> Version:
    return msgspec.structs.replace(version, value=value)


def _fields(change: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.to_builtins(dict(change), str_keys=True)
    return made
