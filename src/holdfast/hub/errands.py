"""Errands of a hub: what takes long, in a process of its own, so that the hub's memory stays small and its loop free.

The errand comes in by standard input, as addresses may hold passwords and everybody can read a command line. Lines of
JSON go out: how far it is, and in the end what came of it. Each errand calls what the command of its name calls.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec

from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.acts import Actor

Kind = Literal["plan", "verify", "drill", "prune", "make ready", "repair", "restore"]
RUN: Final = "from holdfast.hub.errands import main; main()"
_Told = Callable[[str, int, int], None]


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done.

    Attributes:
        kind: which errand.
        place: the hub's directory, or the address of its database.
        backup: the address of its backups; empty: none.
        backup_key: the file of the keys that seal them.
        blobs: where its blobs are, if they are elsewhere.
        preset: of retention.
        interval_ms: how often backups are drilled.
        dry_run: only look.
        expected: the backups that may go, as somebody was shown.
        lost_tail, mass_damage: what a repair may do beyond what is proven.
        keep: up to this position a repair may give up nothing.
        name: the backup that is to come back.
        by: who wants it.
    """

    kind: Kind
    place: str
    backup: str = ""
    backup_key: str = ""
    blobs: str = ""
    preset: str = "usual"
    interval_ms: int = 86_400_000
    dry_run: bool = False
    expected: tuple[str, ...] = ()
    lost_tail: bool = False
    mass_damage: bool = False
    keep: int = 0
    name: str = ""
    by: Actor | None = None


class Said(msgspec.Struct, omit_defaults=True):
    """A line of an errand: how far it is, or its end: what came of it, or what went wrong."""

    step: str = ""
    done: int = 0
    total: int = 0
    result: dict[str, Any] | None = None
    error: str = ""
    hint: str = ""


def main() -> None:
    """Carries out the errand that comes in by standard input."""
    out = sys.stdout.buffer
    errand = msgspec.json.decode(sys.stdin.buffer.read(), type=Errand)

    def told(step: str, done: int, total: int) -> None:
        _say(out, Said(step=step, done=done, total=total))

    try:
        _say(out, Said(result=_WORK[errand.kind](errand, told)))
    except HoldfastError as error:
        _say(out, Said(error=error.message, hint=error.hint))
    except OSError as error:
        _say(out, Said(error=str(error)))


def _say(out: IO[bytes], said: Said) -> None:
    out.write(msgspec.json.encode(said) + b"\n")
    out.flush()


def _plan(errand: Errand, told: _Told) -> dict[str, Any]:
    from holdfast.hub import repair
    from holdfast.integrity.recovery import plan_json

    told("prove every record", 0, 0)
    return plan_json(repair.plan(Path(errand.place), _tools(errand), _policy(errand), served=True))


def _repair(errand: Errand, told: _Told) -> dict[str, Any]:
    from holdfast.hub import repair
    from holdfast.integrity.recovery import plan_json

    told("put it right", 0, 0)
    outcome = repair.repair(Path(errand.place), _tools(errand), _policy(errand), keep=errand.keep, by=errand.by)
    done = {"repaired": outcome.repaired, "blobs": outcome.blobs, "done": outcome.done}
    return {**plan_json(outcome.plan), **done}


def _verify(errand: Errand, told: _Told) -> dict[str, Any]:
    from holdfast.integrity.backup import verify

    with opened(errand) as repository:
        found = verify(repository, told=told)
    result: dict[str, Any] = msgspec.to_builtins(found)
    return {**result, "sound": found.sound}


def _drill(errand: Errand, told: _Told) -> dict[str, Any]:
    from holdfast.hub.backup import hub_source
    from holdfast.integrity.backup import drill

    with opened(errand) as repository, hub_source(errand.place, blobs=errand.blobs) as source:
        signer = source.signer(repository.keys[0])
        if signer is None:
            raise UsageError("this hub does not have the key of these backups", hint="are they another hub's?")
        found = drill(repository, signer, told=told)
    result: dict[str, Any] = msgspec.to_builtins(found)
    return {**result, "ok": found.ok}


def _prune(errand: Errand, told: _Told) -> dict[str, Any]:
    from holdfast.errors import Conflict
    from holdfast.integrity.backup import PRESETS, prune

    told("look at the backups", 0, 0)
    policy, every = PRESETS[errand.preset], errand.interval_ms
    with opened(errand) as repository:
        found = prune(repository, policy, dry_run=True, interval_ms=every)
        if not errand.dry_run:
            if more := sorted(set(found.removed) - set(errand.expected)):
                raise Conflict(f"{more[0]} would go too, and was not shown", hint="look again what would go")
            found = prune(repository, policy, interval_ms=every)
    result: dict[str, Any] = msgspec.to_builtins(found)
    return {**result, "dry_run": errand.dry_run}


def _make_ready(errand: Errand, told: _Told) -> dict[str, Any]:
    from holdfast.hub.restoring import make_ready

    with opened(errand) as repository:
        return make_ready(Path(errand.place), repository, errand.name, blobs=errand.blobs, told=told)


def _restore(errand: Errand, told: _Told) -> dict[str, Any]:
    from holdfast.hub.restoring import put_back

    told("put it in its place", 0, 0)
    with opened(errand) as repository:
        return put_back(Path(errand.place), repository, errand.name, blobs=errand.blobs, by=errand.by)


_WORK: Final[dict[Kind, Callable[[Errand, _Told], dict[str, Any]]]] = {
    "plan": _plan,
    "verify": _verify,
    "drill": _drill,
    "prune": _prune,
    "make ready": _make_ready,
    "repair": _repair,
    "restore": _restore,
}


def _tools(errand: Errand) -> Any:
    from holdfast.hub.repair import Tools

    return Tools(backups=(errand.backup,) if errand.backup else (), ring=_ring(errand))


def _policy(errand: Errand) -> Any:
    from holdfast.integrity.recovery import Policy

    return Policy(lost_tail=errand.lost_tail, mass_damage=errand.mass_damage)


def _ring(errand: Errand) -> Any:
    if not errand.backup_key:
        return None
    from holdfast.seal import KeyRing

    return KeyRing.load(errand.backup_key)


@contextlib.contextmanager
def opened(errand: Errand) -> Iterator[Any]:
    """The repository of a hub's backups, for as long as the block lasts."""
    from holdfast.integrity.backup import Repository
    from holdfast.objects.opening import open_store

    with open_store(errand.backup) as store:
        yield Repository(store, _ring(errand))
