"""`AgentStorage`: keys and values of one agent, with counters and times to live.

A value lies under its key in the collection ``state``, as `Store.put` leaves it. When it is to go lies in ``expiry``,
under the same key, with the version that it is meant for: a value that was set anew since has none, whoever set it.
What has expired is gone for every reader at once; its deletion is written behind, by later writes and by `close`.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any, Final, Unpack

from holdfast.agents.place import Options
from holdfast.agents.storage import BaseStorage
from holdfast.clock import LASTS_S_MAX
from holdfast.errors import Conflict, HoldfastError, NotFound, UsageError
from holdfast.log.versions import Version

EXPIRY: Final = "expiry"
PAGE: Final = 500
SWEEP_S: Final = 1.0
SWEEP_KEYS: Final = 100
"""A write looks at so many keys that may have expired, at most once in `SWEEP_S`."""
_GLOBS: Final = "*?["


class AgentStorage(BaseStorage):
    """What one agent remembers by key: set, get, count, and forget in time, at local speed and with no hub needed.

    Calls wait for this machine's disk and nothing else. Safe to share among threads and processes.

    Args:
        agent_id, data_dir, htpc_url, enable_htpc, options: see `BaseStorage`.
    """

    def __init__(
        self,
        agent_id: str,
        data_dir: str | os.PathLike[str] | None = None,
        htpc_url: str | Iterable[str] | None = None,
        enable_htpc: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(agent_id, data_dir, htpc_url, enable_htpc, **options)
        self._swept_at = self.clock.monotonic()
        self._sweep_after = ""
        self._due: dict[str, int] = {}

    def _write_local(self, table: str, data: dict[str, Any], operation: str) -> dict[str, Any]:
        return data

    # -- one key --------------------------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None, *, agent: str | None = None) -> Any:
        """The value of a key, or `default` where there is none or its time is over.

        Args:
            key: what it was set under.
            default: what to return instead.
            agent: whose; None: one's own; another's through the hub.

        Raises:
            IntegrityError: the bytes are not what was set.
            HubUnavailable: it is another agent's, and no hub answers.
        """
        if agent is not None and agent != self.agent_id:
            return self._of_another(key, default, agent)
        found = self._live(key)
        return default if found is None else found.value

    def set(self, key: str, value: Any, ttl: float | None = None) -> int:
        """Sets a key, and returns its version once that is durable here; what was there before lives on as history.

        Args:
            key: at most 1,024 bytes.
            value: JSON values, text or bytes.
            ttl: seconds to live; None: for ever, whatever the value before had.

        Raises:
            UsageError: a value that JSON cannot say, or no number of seconds.
            NodeFull: this machine's disk is full; nothing was written.
        """
        until = None if ttl is None else self._until(ttl)
        version = self.store.put(key, value).version if until is None else self._set_until(key, value, until)
        self._tidy()
        return version

    def delete(self, key: str) -> bool:
        """Takes a key's value away; False if there was none."""
        there = self._live(key) is not None
        with contextlib.suppress(NotFound):
            self.store.delete(key)
        self._forget_expiry(key)
        return there

    def exists(self, key: str) -> bool:
        """Whether the key has a value whose time is not over."""
        return self._live(key) is not None

    def increment(self, key: str, by: float = 1) -> Any:
        """Adds to a number, which is 0 where there is none, and returns the sum; no other's addition is ever lost.

        Args:
            key: its key; a time to live goes on as it was.
            by: a whole number or a fraction, also less than 0.

        Raises:
            UsageError: what is there is no number, or `by` is none.
        """
        if not _number(by):
            raise UsageError(f"cannot add {by!r:.80} to {key!r}", hint="a number")
        while True:
            newest = self._newest(key)
            found = newest if newest is not None and not self._over(newest) else None
            if found is not None and not _number(found.value):
                raise UsageError(f"{key!r} holds {found.value!r:.80}, which is no number", hint="set it to a number")
            total = by if found is None else found.value + by
            expect = 0 if newest is None or newest.gone else newest.version
            until = None if found is None else self._expiry(found)
            with contextlib.suppress(Conflict):
                if until is None:
                    self.store.put(key, total, expect=expect)
                    return total
                with self.store.batch() as batch:
                    batch.put(key, total, expect=expect)
                    batch.put(key, {"version": expect + 1, "at": until}, collection=EXPIRY)
                return total

    def expire(self, key: str, seconds: float | None) -> bool:
        """Gives a value so many seconds to live from now; False if there is none.

        Args:
            key: its key.
            seconds: 0 or less: it is gone; None: for ever.
        """
        found = self._live(key)
        if found is None:
            return False
        if seconds is None:
            self._forget_expiry(key)
        elif _number(seconds) and seconds <= 0:
            return self.delete(key)
        else:
            # If somebody sets the key meanwhile, what he set is another version, and this means nothing to it.
            self.store.put(key, {"version": found.version, "at": self._until(seconds)}, collection=EXPIRY)
        return True

    def ttl(self, key: str) -> float | None:
        """The seconds that a value has left; None: it lives for ever; 0.0: there is none."""
        found = self._live(key)
        if found is None:
            return 0.0
        at = self._expiry(found)
        return None if at is None else (at - self.clock.now_ms()) / 1000

    # -- many keys ------------------------------------------------------------------------------------------------

    def keys(self, prefix: str = "", *, pattern: str | None = None) -> list[str]:
        """The keys that have a value, in order.

        Args:
            prefix: only those that begin so.
            pattern: only those that look so: ``*`` is anything, ``?`` one letter, ``[ab]`` one of these.
        """
        return list(self._keys(prefix, pattern))

    def items(self, prefix: str = "", *, pattern: str | None = None) -> list[tuple[str, Any]]:
        """Keys with their values, in the keys' order; see `keys`."""
        found = ((key, self._live(key)) for key in self._keys(prefix, pattern))
        return [(key, version.value) for key, version in found if version is not None]

    def list_all(self) -> dict[str, Any]:
        """Everything that is here, by key."""
        return dict(self.items())

    def clear(self, prefix: str = "") -> int:
        """Takes away every value whose key begins with `prefix`, in one step; returns how many there were."""
        count = sum(1 for _ in self._keys(prefix, None))
        with self.store.batch() as batch:
            batch.delete(prefix, prefix=True)
            batch.delete(prefix, prefix=True, collection=EXPIRY)
        return count

    def sweep(self) -> int:
        """Writes the deletions of all that has expired; returns how many. It happens by itself, a few at a time."""
        after, count = "", 0
        while names := self.store.keys(collection=EXPIRY, after=after, limit=PAGE):
            count += sum(self._bury(name) for name in names)
            after = names[-1]
        return count

    # -- inside ---------------------------------------------------------------------------------------------------

    def _of_another(self, key: str, default: Any, agent: str) -> Any:
        """Another agent's value, proven to be what it wrote; what has expired there is gone here."""
        told = self.store.get(key, agent=agent, collection=EXPIRY, default=None)
        if told is not None and told["at"] <= self.clock.now_ms():
            newest = self.store.history(key, agent=agent, limit=1)
            if newest and newest[0].version == told["version"]:
                return default
        return self.store.get(key, agent=agent, default=default)

    def _newest(self, key: str) -> Version | None:
        found = self.store.history(key, limit=1)
        return found[0] if found else None

    def _live(self, key: str) -> Version | None:
        found = self._newest(key)
        if found is None or found.gone:
            return None
        if self._over(found):
            if len(self._due) < SWEEP_KEYS:
                self._due[key] = found.version
            return None
        return found

    def _over(self, found: Version) -> bool:
        at = self._expiry(found)
        return found.gone or (at is not None and at <= self.clock.now_ms())

    def _expiry(self, found: Version) -> int | None:
        """When this version of a value is to go, in ms since 1970."""
        told = self.store.get(found.key, collection=EXPIRY, default=None)
        return told["at"] if told is not None and told["version"] == found.version else None

    def _until(self, seconds: float) -> int:
        if not _number(seconds) or not 0 < seconds <= LASTS_S_MAX:
            hint = f"seconds, more than 0, at most {LASTS_S_MAX:,}; None: for ever"
            raise UsageError(f"no time to live: {seconds!r:.80}", hint=hint)
        return self.clock.now_ms() + round(seconds * 1000)

    def _set_until(self, key: str, value: Any, until: int) -> int:
        while True:
            newest = self._newest(key)
            expect = 0 if newest is None or newest.gone else newest.version
            version = 1 if newest is None else newest.version + 1
            with contextlib.suppress(Conflict):
                with self.store.batch() as batch:
                    batch.put(key, value, expect=expect)
                    batch.put(key, {"version": version, "at": until}, collection=EXPIRY)
                if batch.versions[0].version == version:
                    return version
                # Somebody set and deleted it meanwhile, so it is another version than was foretold: once more.

    def _forget_expiry(self, key: str) -> None:
        with contextlib.suppress(NotFound):
            self.store.delete(key, collection=EXPIRY)

    def _keys(self, prefix: str, pattern: str | None) -> Iterator[str]:
        begin = prefix
        if pattern is not None:
            literal = pattern[: next((at for at, sign in enumerate(pattern) if sign in _GLOBS), len(pattern))]
            if literal.startswith(prefix):
                begin = literal
            elif not prefix.startswith(literal):
                return
        after = ""
        while names := self.store.keys(begin, after=after, limit=PAGE):
            over = self._over_among(names)
            for after in names:
                if after not in over and (pattern is None or fnmatchcase(after, pattern)):
                    yield after

    def _over_among(self, names: list[str]) -> list[str]:
        """Which of these keys, which follow one another, have expired."""
        first, last = names[0], names[-1]
        over: list[str] = []
        if self.store.get(first, collection=EXPIRY, default=None) is not None and self._live(first) is None:
            over.append(first)
        after = first
        while marked := self.store.keys(collection=EXPIRY, after=after, limit=PAGE):
            for after in marked:
                if after > last:
                    return over
                if self._live(after) is None:
                    over.append(after)
        return over

    def _tidy(self) -> None:
        """Writes some of the deletions that are due; what fails is left for another time, and the write stands."""
        now = self.clock.monotonic()
        if now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        with contextlib.suppress(HoldfastError):
            due, self._due = self._due, {}
            names = self.store.keys(collection=EXPIRY, after=self._sweep_after, limit=SWEEP_KEYS)
            self._sweep_after = names[-1] if len(names) == SWEEP_KEYS else ""
            for key in dict.fromkeys([*due, *names]):
                self._bury(key)

    def _bury(self, key: str) -> bool:
        """Deletes a value whose time is over, unless it is another one by now; and an expiry that means nothing."""
        marks = self.store.history(key, collection=EXPIRY, limit=1)
        if not marks or marks[0].gone:
            return False
        newest = self._newest(key)
        meant = newest is not None and not newest.gone and newest.version == marks[0].value["version"]
        if meant and marks[0].value["at"] > self.clock.now_ms():
            return False
        with contextlib.suppress(Conflict):
            with self.store.batch() as batch:
                if meant and newest is not None:
                    batch.delete(key, reason="expired", expect=newest.version)
                batch.delete(key, collection=EXPIRY, expect=marks[0].version)
            return meant
        return False

    def _close(self) -> None:
        with contextlib.suppress(HoldfastError):
            for key in list(self._due):
                self._bury(key)
        super()._close()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
