"""Versions of an object as objects: ``<key>/v1``, ``<key>/v2``… and ``<key>/current``, which says ``{"version": 2}``.

The layout is the seed's, and so may be read by anything. What the seed counted we take: a number is whoever's could
create its object, so that two who save at once get two numbers, and a number that was once given is not given again.
"""

from __future__ import annotations

import re
import threading
from typing import Any, Final, Protocol, TypeAlias

from holdfast.errors import ObjectConflict, ObjectNotFound, StorageRefused
from holdfast.objects.keys import check_key
from holdfast.objects.port import ABSENT, CREATE, SWAP, Expect

Version: TypeAlias = int | str
"""A number that was counted, or a name such as ``1.2``."""
Pointer: TypeAlias = tuple[Version | None, str]
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}")


class Holder(Protocol):
    """What versions need of the manager."""

    async def lacks(self) -> frozenset[str]:
        """What its storage cannot do."""

    async def list_keys(self, prefix: str = "") -> list[str]:
        """The keys that begin so."""

    async def save(self, key: str, data: Any, content_type: str | None = None, *, expect: Expect = None) -> str:
        """Stores a value; its etag."""

    async def load_with_etag(self, key: str) -> tuple[Any, str]:
        """A value and its etag."""

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""


class Versions:
    """The versions of one manager's objects."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._given: dict[str, int] = {}
        self._lock = threading.Lock()

    async def save(self, key: str, data: Any, version: Version | None, content_type: str | None) -> Version:
        """Stores a version and lets the pointer show it; the version."""
        check_key(f"{key}/current")
        lacks = await self._holder.lacks()
        seen = await self._pointer(key)
        if version is not None:
            version = _checked(version)
            await self._create(f"{key}/v{check_key(str(version))}", data, content_type, lacks)
            await self._point(key, version, lacks, seen, always=True)
            return version
        number = max([0, *(each for each in await self.list(key) if isinstance(each, int))])
        if isinstance(seen[0], int):
            number = max(number, seen[0])  # an object that was deleted leaves its number taken
        while True:
            number = self._next(key, number) if CREATE in lacks else number + 1
            try:
                await self._create(f"{key}/v{number}", data, content_type, lacks)
            except ObjectConflict:
                continue
            await self._point(key, number, lacks, seen, always=False)
            return number

    def _next(self, key: str, number: int) -> int:
        # Where the storage cannot create once, at least those in this process do not meet.
        with self._lock:
            number = max(number, self._given.get(key, 0)) + 1
            self._given[key] = number
        return number

    async def _create(self, key: str, data: Any, content_type: str | None, lacks: frozenset[str]) -> None:
        if CREATE not in lacks:
            await self._holder.save(key, data, content_type, expect=ABSENT)
        elif await self._holder.exists(key):
            raise ObjectConflict(f"there is an object {key!r:.200}", hint="versions do not change", key=key)
        else:
            await self._holder.save(key, data, content_type)

    async def list(self, key: str) -> list[Version]:
        """The versions that there are, counted ones first, in order."""
        start = f"{check_key(key)}/v"
        names = [each[len(start) :] for each in await self._holder.list_keys(start)]
        numbers = sorted(int(each) for each in names if _NUMBER.fullmatch(each))
        return [*numbers, *sorted(each for each in names if each and "/" not in each and not _NUMBER.fullmatch(each))]

    async def current(self, key: str) -> Version:
        """The version that the pointer shows."""
        version, _ = await self._pointer(key)
        if version is None:
            raise ObjectNotFound(f"no versions of {key!r:.200}", key=key)
        return version

    async def load(self, key: str, version: Version | None) -> Any:
        """A version's value; of the current one if none is named."""
        chosen = await self.current(key) if version is None else _checked(version)
        value, _ = await self._holder.load_with_etag(f"{key}/v{chosen}")
        return value

    async def roll_back(self, key: str, version: Version | None) -> Version:
        """Lets the pointer show an older version, or the one before it; the version."""
        lacks = await self._holder.lacks()
        for _ in range(_TRIES):
            current, etag = await self._pointer(key)
            if current is None:
                raise ObjectNotFound(f"no versions of {key!r:.200}", key=key)
            chosen = await self._before(key, current) if version is None else _checked(version)
            if not await self._holder.exists(f"{key}/v{chosen}"):
                raise ObjectNotFound(f"no version {chosen!r} of {key!r:.200}", key=key)
            try:
                await self._write(key, chosen, etag, lacks)
            except ObjectConflict:
                continue
            return chosen
        raise _busy(key)

    async def _before(self, key: str, current: Version) -> Version:
        if not isinstance(current, int):
            raise StorageRefused(f"names such as {current!r:.60} have no order", hint="name the version", key=key)
        older = [each for each in await self.list(key) if isinstance(each, int) and each < current]
        if not older:
            raise ObjectNotFound(f"no version of {key!r:.200} before {current!r}", key=key)
        return older[-1]

    async def _pointer(self, key: str) -> Pointer:
        """The version that is shown, and the pointer's etag; None: there is no pointer."""
        where = f"{check_key(key)}/current"
        try:
            said, etag = await self._holder.load_with_etag(where)
        except ObjectNotFound:
            return None, ""
        version = said.get("version") if isinstance(said, dict) else None
        if type(version) not in (int, str):
            raise StorageRefused(
                f"{where!r:.200} is an object of its own and does not say which version is current",
                hint="versions of this key need it: move it to another key",
                key=where,
            )
        return version, etag

    async def _point(self, key: str, version: Version, lacks: frozenset[str], seen: Pointer, *, always: bool) -> None:
        """Moves the pointer; a counted version does not take it back from a later one."""
        if SWAP in lacks:
            seen = await self._pointer(key)  # nobody will say that it has changed meanwhile
        for _ in range(_TRIES):
            current, etag = seen
            if not always and isinstance(current, int) and isinstance(version, int) and current >= version:
                return
            try:
                await self._write(key, version, etag, lacks)
            except ObjectConflict:
                seen = await self._pointer(key)
                continue
            return
        raise _busy(key)

    async def _write(self, key: str, version: Version, etag: str, lacks: frozenset[str]) -> None:
        expect: Expect = etag or ABSENT
        if (SWAP if etag else CREATE) in lacks:
            expect = None  # then the last to move it wins
        await self._holder.save(f"{key}/current", {"version": version}, expect=expect)


_TRIES: Final = 1000
"""Others who move the same pointer at the same time; each lost try is somebody's success."""


def _busy(key: str) -> ObjectConflict:
    return ObjectConflict(f"the current version of {key!r:.200} is moved by others all the time", key=key)


def _checked(version: Version) -> Version:
    """The version as it is stored: a number as a number, however it was written."""
    if isinstance(version, bool) or not isinstance(version, int | str):
        raise StorageRefused(f"a version is a number or a name, not {version!r:.60}", hint="such as 3 or '1.2'")
    text = str(version)
    if _NUMBER.fullmatch(text):
        return int(text)
    if isinstance(version, int) or "/" in text or not text:
        raise StorageRefused(f"not a version: {version!r:.60}", hint="1, 2, 3… or a name such as '1.2'")
    return version
