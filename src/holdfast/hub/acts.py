"""The audit trail of a hub: who did what to it, when, by which way; rows beside its tokens, added to and never changed.

What is in the log already (deletions, erasures, keys handed over) is told here too, from the log (`audit.follow`); what
is in no log is told by whoever does it: tokens made and revoked, sign-ins, repairs, and each change that a person makes
through the pages or the API.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.corpus.engine import Engine
    from holdfast.hub.principal import Principal

T = TypeVar("T")
_Execute = Callable[..., Any]

PAGE: Final = "page"
API: Final = "api"
COMMAND: Final = "command"
LOG: Final = "log"
HUB: Final = "hub"
WAYS: Final = (PAGE, API, COMMAND, LOG, HUB)
"""By which way: a page, the API, a command on the hub's machine, a record of a log, or the hub by itself."""

CHANGE: Final = "change"
DELETE: Final = "delete"
ROLLBACK: Final = "roll back"
ERASE: Final = "erase"
RECOVER: Final = "recovery"
ROTATE: Final = "key handed over"
SIGN_IN: Final = "sign-in"
REFUSED: Final = "sign-in refused"
SIGN_OUT: Final = "sign-out"
LINK: Final = "link made"
TOKEN: Final = "token made"
REVOKED: Final = "token revoked"
IMPORTED: Final = "tokens taken over"
REPAIR: Final = "repair"
RELEASE: Final = "quarantine released"
RUN: Final = "run"
RESTORE: Final = "restore"
SHORTENED: Final = "trail shortened"
WHATS: Final = (
    *(CHANGE, DELETE, ROLLBACK, ERASE, RECOVER, ROTATE, SIGN_IN, REFUSED, SIGN_OUT, LINK, TOKEN, REVOKED, IMPORTED),
    *(REPAIR, RELEASE, RUN, RESTORE, SHORTENED),
)
"""What can have been done."""
TEXT_MAX: Final = 500
TAKEN_BYTES: Final = 16
"""Of the mark of an act that came from another hub and names no record: so two processes do not both keep it."""
CUT_LOT: Final = 1_000
CARRIED_MAX: Final = 10_000
"""Acts that a backup holds."""
_COLUMNS: Final = "id, at_ms, kind, who, token, via, what, about, detail, ref"
_VALUES: Final = "INSERT INTO audit(at_ms, kind, who, token, via, what, about, detail, ref) VALUES(?,?,?,?,?,?,?,?,?)"
_FROM_LOG: Final = f"{_VALUES} ON CONFLICT(ref) DO NOTHING"
_SAME: Final = (
    "SELECT 1 FROM audit WHERE at_ms=? AND kind=? AND who=? AND token=? AND via=? AND what=? AND about=? AND detail=?"
)
_CUT: Final = (
    "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at_ms<? ORDER BY at_ms, id LIMIT ?) RETURNING id"
)
# Who did it knows more of it than the log, whichever of the two comes first.
_FROM_WHOM: Final = (
    f"{_VALUES} ON CONFLICT(ref) DO UPDATE SET kind=excluded.kind, who=excluded.who, token=excluded.token,"
    " via=excluded.via, what=excluded.what, about=excluded.about, detail=excluded.detail"
)


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who did something: what he is, his name, the id of his token (empty: none), and by which way."""

    kind: str
    who: str
    token: str = ""
    via: str = COMMAND


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done.

    Attributes:
        by: who did it.
        what: one of `WHATS`.
        about: to what.
        detail: more of it, by name; no values of records, no secrets.
        at_ms: when, in ms since 1970; 0: when it is written down.
        ref: the link of the record that says the same; None: there is none.
        id: its number, once it is kept.
    """

    by: Actor
    what: str
    about: str = ""
    detail: dict[str, str] = {}
    at_ms: int = 0
    ref: bytes | None = None
    id: int = 0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which acts: empty and 0 ask for nothing; the newest first, `before` is the keyset (at_ms and id of the last)."""

    who: str = ""
    what: str = ""
    since_ms: int = 0
    until_ms: int = 0
    before: tuple[int, int] | None = None
    limit: int = 50


class ActStore(Protocol):
    """Where acts are kept. Safe to share among threads; several processes may have it open."""

    def add(self, acts: Sequence[Act]) -> None:
        """Keeps acts, durably when it returns; one that the log had told before is told better now."""
        ...

    def page(self, which: Wanted) -> list[Act]:
        """Acts, the newest first."""
        ...

    def take(self, acts: Sequence[Act]) -> None:
        """Keeps acts of another hub; one that is here already, by whichever way, is not kept twice."""
        ...

    def cut(self, before_ms: int) -> int:
        """Lets go of a lot of the oldest of what was done before then; how many, 0 once there are none left."""
        ...


class NoActs(ActStore):
    """Of a hub that keeps none."""

    def add(self, acts: Sequence[Act]) -> None:
        pass

    def page(self, which: Wanted) -> list[Act]:
        return []

    def take(self, acts: Sequence[Act]) -> None:
        pass

    def cut(self, before_ms: int) -> int:
        return 0


class _Acts(ActStore):
    """What the kinds of stores have in common: their SQL is the same.

    Args:
        engine: what the rows are read from.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def _writing(self, work: Callable[[_Execute], T]) -> T:
        """What a function returns that runs statements in one transaction."""
        raise NotImplementedError

    def add(self, acts: Sequence[Act]) -> None:
        rows = [_row(each) for each in acts]

        def work(execute: _Execute) -> None:
            for row in rows:
                execute(_adding(row), row)

        if rows:
            self._writing(work)

    def page(self, which: Wanted) -> list[Act]:
        return [_act(row) for row in self._engine.query(*_asked(which))]

    def take(self, acts: Sequence[Act]) -> None:
        rows = [_row(each) for each in acts]

        def work(execute: _Execute) -> None:
            for row in rows:
                if row[-1] is not None:
                    execute(_adding(row), row)
                elif execute(_SAME, row[:-1]).fetchone() is None:
                    execute(_FROM_LOG, (*row[:-1], _mark_of(row)))

        if rows:
            self._writing(work)

    def cut(self, before_ms: int) -> int:
        return self._writing(lambda execute: len(execute(_CUT, (before_ms, CUT_LOT)).fetchall()))


class SqliteActs(_Acts):
    """Those of a hub's directory, beside its tokens.

    Args:
        engine: of the tokens; its owner closes it.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)

    def _writing(self, work: Callable[[_Execute], T]) -> T:
        found: T = self._engine.commits.run(lambda _: work(self._engine.writer_execute))
        return found


class DatabaseActs(_Acts):
    """Those of a hub in a database, beside its tokens.

    Args:
        engine: of the database; its owner closes it.
        writing: what runs statements in one transaction.
    """

    def __init__(self, engine: Any, writing: Callable[[], AbstractContextManager[_Execute]]) -> None:
        super().__init__(engine)
        self._open = writing

    def _writing(self, work: Callable[[_Execute], T]) -> T:
        with self._open() as execute:
            return work(execute)


def by_principal(principal: Principal, via: str) -> Actor:
    """The actor that a principal is."""
    return Actor(kind=principal.kind, who=principal.name, token=principal.id, via=via)


def by_machine() -> Actor:
    """Whoever runs a command on the hub's machine: nobody has shown a token, so it is the system's account."""
    import getpass  # only for commands: a hub that serves does without
    import socket

    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        name = "somebody"
    return Actor(kind="account", who=f"{name}@{socket.gethostname()}")


def tell(store: ActStore, act: Act, wall: Clock = SYSTEM) -> None:
    """Keeps one act, as of now unless it says when."""
    store.add([act if act.at_ms else msgspec.structs.replace(act, at_ms=wall.now_ms())])


def try_to_tell(store: Callable[[], ActStore], act: Act, wall: Clock = SYSTEM) -> str:
    """The same where what was done is done, whether it can be written down or not; says what stood against that."""
    try:
        tell(store(), act, wall)
    except (HoldfastError, OSError) as error:
        return str(error)
    return ""


def _mark_of(row: Sequence[Any]) -> bytes:
    return hashlib.sha256(b"hf/act\0" + msgspec.json.encode(row[:-1])).digest()[:TAKEN_BYTES]


def _adding(row: Sequence[Any]) -> str:
    return _FROM_LOG if row[4] == LOG else _FROM_WHOM


def _row(act: Act) -> tuple[Any, ...]:
    by = act.by
    detail = msgspec.json.encode({name: text[:TEXT_MAX] for name, text in act.detail.items()}).decode()
    texts = (by.kind, by.who, by.token, by.via, act.what, act.about[: 2 * TEXT_MAX], detail)
    # No database takes every letter that JSON can hold.
    clean = (text.replace("\0", "\\0").encode("utf-8", "replace").decode() for text in texts)
    return (act.at_ms, *clean, act.ref)


def _asked(which: Wanted) -> tuple[str, list[Any]]:
    tests: list[str] = []
    args: list[Any] = []
    for test, value in (
        ("who=?", which.who),
        ("what=?", which.what),
        ("at_ms>=?", which.since_ms),
        ("at_ms<?", which.until_ms),
    ):
        if value:
            tests.append(test)
            args.append(value)
    if which.before is not None:
        tests.append("(at_ms, id) < (?, ?)")
        args += which.before
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    return f"SELECT {_COLUMNS} FROM audit{where} ORDER BY at_ms DESC, id DESC LIMIT ?", [*args, which.limit]


def _act(row: Sequence[Any]) -> Act:
    number, at_ms, kind, who, token, via, what, about, detail, ref = row
    return Act(
        by=Actor(kind=kind, who=who, token=token, via=via),
        what=what,
        about=about,
        detail=msgspec.json.decode(detail, type=dict[str, str]),
        at_ms=at_ms,
        ref=None if ref is None else bytes(ref),
        id=number,
    )


def to_carry(store: ActStore) -> list[Act]:
    """What a backup takes along: the newest acts, oldest first; what the log says is told again from the log."""
    return [each for each in all_of(store, CARRIED_MAX) if each.by.via != LOG]


def all_of(store: ActStore, most: int = 1 << 31) -> list[Act]:
    """The newest acts, oldest first."""
    return store.page(Wanted(limit=most))[::-1]


def take_over(store: ActStore, carried: Sequence[Act]) -> None:
    """Takes over the acts of where the hub was before, unless it has some already: then they were taken over."""
    if carried and not store.page(Wanted(limit=1)):
        store.add(carried)
