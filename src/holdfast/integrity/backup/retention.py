"""Which backups stay, and what goes with the others.

What a backup refers to is deleted in two steps. A backup that is let go of takes its manifest with it; an object that
no manifest refers to any more is marked with the time; after a time of grace, what still is not referred to is deleted.
A backup that is being made meanwhile may build on one that goes: it is there before the grace is over, and `create`
makes none that took longer. No name is used twice, so what is deleted late is never what somebody has just written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import Conflict, UsageError
from holdfast.integrity.backup.manifest import Manifest
from holdfast.integrity.backup.repository import BACKUPS, BLOBS, DRILLS, SEGMENTS, Repository, blob_place, place_of

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
GRACE_MS: Final = 2 * DAY_MS
MARKS: Final = "marks/"
GROWN: Final = 3
"""So many times as many backups as usual in one interval are somebody's who wants the old ones gone."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Which backups stay; whatever one rule keeps, stays.

    Attributes:
        last: the newest, so many.
        hourly, daily, weekly, monthly: the newest of each of so many hours, days, weeks (ISO) and months (in UTC) that
            have any.
        within_ms: all that are not older than this.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    within_ms: int = 0

    def keeps(self, times_ms: Sequence[int], now_ms: int) -> set[int]:
        """Which of these times stay."""
        newest = sorted(times_ms, reverse=True)
        kept = set(newest[: self.last])
        kept |= {ms for ms in newest if self.within_ms and now_ms - ms <= self.within_ms}
        for number, slot in _SLOTS:
            wanted: int = getattr(self, number)
            seen: set[str] = set()
            for ms in newest:
                at = slot(datetime.fromtimestamp(ms / 1000, UTC))
                if at not in seen and len(seen) < wanted:
                    seen.add(at)
                    kept.add(ms)
        return kept

    @property
    def empty(self) -> bool:
        """Whether it would keep nothing."""
        return not any(msgspec.structs.astuple(self))


_SLOTS: Final[tuple[tuple[str, Callable[[datetime], str]], ...]] = (
    ("hourly", lambda at: at.strftime("%Y-%m-%d %H")),
    ("daily", lambda at: at.strftime("%Y-%m-%d")),
    ("weekly", lambda at: at.strftime("%G-%V")),
    ("monthly", lambda at: at.strftime("%Y-%m")),
)
PRESETS: Final = {
    "usual": Policy(within_ms=2 * DAY_MS, hourly=48, daily=14, weekly=8, monthly=12),
    "day": Policy(within_ms=DAY_MS, last=1),
}
"""``day`` is what the swarm's storage had: 24 hours."""


class Pruned(msgspec.Struct, kw_only=True):
    """What went, or with a dry run would go.

    Attributes:
        kept, removed: names of backups.
        marked: objects to which nothing refers any more, now.
        waiting: those that were marked before, and whose time of grace is not over.
        deleted, deleted_bytes: objects whose time was over.
        spared: objects whose mark was taken away: something refers to them again.
    """

    kept: list[str] = []
    removed: list[str] = []
    marked: int = 0
    waiting: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    spared: int = 0


class _Mark(msgspec.Struct):
    ms: int


def prune(
    repository: Repository,
    policy: Policy,
    *,
    dry_run: bool = False,
    interval_ms: int = DAY_MS,
    many: bool = False,
    wall: Clock = SYSTEM,
) -> Pruned:
    """Lets go of the backups that a policy does not keep, and of what only they referred to.

    The newest verified backup stays, and all that came after it.

    Args:
        repository: where they are.
        policy: which stay.
        dry_run: only look.
        interval_ms: how often backups are drilled.
        many: somebody has looked: many new backups are as they should be.
        wall: the clock.

    Raises:
        Conflict: it would be unsafe: nothing is verified, the last drill failed, the newest verified backup is older
            than two intervals, or there are far more backups than usual.
        IntegrityError: a backup cannot be read; nothing was deleted, for nobody knows what it refers to.
        UsageError: the policy keeps nothing.
    """
    if policy.empty:
        raise UsageError("a policy that keeps nothing", hint="--keep-last 7, --keep-within 2d, --preset usual, …")
    now = wall.now_ms()
    backups = repository.backups()
    names = [name for name, _ in backups]
    verified = _refuse(repository, names, now, interval_ms, many)
    times = {name: int(name[:13]) for name in names}
    stays = policy.keeps(list(times.values()), now)
    kept = [name for name in names if times[name] in stays or name >= verified]
    kept_names = set(kept)
    done = Pruned(kept=kept, removed=[name for name in names if name not in kept])
    if not dry_run:
        # Before any manifest goes: what one of them refers to has its whole time of grace from now on, though it may
        # carry the mark of an earlier time when nothing did.
        live = {key for _, manifest in backups for key in _refers(manifest)}
        for info in list(repository.store.list(MARKS)):
            if info.key[len(MARKS) :] in live:
                done.spared += 1
                repository.store.delete(info.key)
        for name in done.removed:
            repository.store.delete(BACKUPS + name)
        # What a drill said of backups that are gone; the newest one says when that was, whatever it was of.
        for info in list(repository.store.list(DRILLS))[:-1]:
            drilled = repository.drilled(info.key[len(DRILLS) :])
            if drilled is not None and not kept_names.intersection(each.backup for each in drilled.backups):
                repository.store.delete(info.key)
    _sweep(repository, done, now, dry_run)
    return done


def _refuse(repository: Repository, names: Sequence[str], now: int, interval_ms: int, many: bool) -> str:
    """The newest verified backup, if it is safe to let any go."""
    drills = repository.drills()
    hint = "holdfast backup drill restores the newest for a trial"
    if not drills:
        raise Conflict("no backup was ever verified: nothing is pruned", hint=hint)
    if not drills[-1].ok:
        failed = next((each for each in drills[-1].backups if not each.ok), None)
        why = f": {failed.backup}: {failed.error}" if failed is not None else ""
        raise Conflict(f"the last drill failed: nothing is pruned{why}", hint=hint)
    good = repository.verified().intersection(names)
    if not good:
        raise Conflict("no backup that is here is verified: nothing is pruned", hint=hint)
    newest = max(good)
    if now - int(newest[:13]) > 2 * interval_ms:
        raise Conflict(f"the newest verified backup, {newest}, is older than two intervals", hint=hint)
    recent = [name for name in names if now - int(name[:13]) < interval_ms]
    before = [name for name in names if interval_ms <= now - int(name[:13]) < 2 * interval_ms]
    if len(before) > 1 and not many:
        usual = len(before) * interval_ms / max(1, now - interval_ms - int(before[0][:13]))
        if len(recent) > GROWN * usual + 1:
            raise Conflict(
                f"{len(recent)} backups in the last interval, where {usual:.0f} are usual: nothing is pruned",
                hint="whoever wants the old ones gone makes many new ones; if they are yours: --many",
            )
    return newest


def _sweep(repository: Repository, done: Pruned, now: int, dry_run: bool) -> None:
    """Marks what nothing refers to, and deletes what was marked long ago and still is not referred to."""
    store = repository.store
    marks = {info.key[len(MARKS) :]: _time(repository, info.key) for info in store.list(MARKS)}
    # The references are asked for after the marks were read: see the head of the module.
    live: set[str] = set()
    for name in done.kept if dry_run else repository.names():
        live |= _refers(repository.backup(name))
    seen = set()
    for place in (SEGMENTS, BLOBS):
        for info in store.list(place):
            seen.add(info.key)
            marked = marks.get(info.key)
            if info.key in live:
                if marked is not None:
                    done.spared += 1
                    _forget(repository, info.key, dry_run)
            elif marked is None:
                done.marked += 1
                if not dry_run:
                    store.put(MARKS + info.key, msgspec.json.encode(_Mark(now)))
            elif now - marked < GRACE_MS:
                done.waiting += 1
            else:
                done.deleted += 1
                done.deleted_bytes += info.size
                if not dry_run:
                    store.delete(info.key)
                _forget(repository, info.key, dry_run)
    for key in marks.keys() - seen:
        _forget(repository, key, dry_run)


def _refers(manifest: Manifest) -> set[str]:
    """The keys of all objects that a backup refers to."""
    return {*map(place_of, manifest.objects()), *map(blob_place, manifest.blobs())}


def _time(repository: Repository, key: str) -> int:
    try:
        return msgspec.json.decode(repository.store.read(key), type=_Mark).ms
    except msgspec.MsgspecError:
        return 1 << 62  # it never ends: what cannot be read deletes nothing


def _forget(repository: Repository, key: str, dry_run: bool) -> None:
    if not dry_run:
        repository.store.delete(MARKS + key)
