"""What became of a message: what each of its readers said of it, taken together the same way everywhere.

A reader never changes a message. It writes a record of its own, an act, into its collection `delivery` under the
message's id. What all acts of one reader come to (`Reading`) depends on nothing but which there are: the highest state
since the newest undoing, and the newest word on where the message lies. So acts may be written on several machines,
arrive in any order and twice, and everybody who has them sees the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.errors import UsageError

DELIVERY: Final = "delivery"
"""The collection of acts."""
STATES: Final = ("stored", "delivered", "read", "acknowledged", "done")
"""From what the sender alone knows to what the reader has finished; a place in it is a rank."""
STORED, DELIVERED, READ, ACKNOWLEDGED, DONE = range(5)
PLACES: Final = ("inbox", "snoozed", "archived")
INBOX, SNOOZED, ARCHIVED = range(3)
TABS: Final = ("unread", "read", "acknowledged", "done", "snoozed", "archived", "expired", "withdrawn")
"""Where a message lies in an inbox: in one of these at a time."""
OPEN: Final = (0, 1)
"""The tabs of what still waits for its reader."""


class Act(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a reader says of a message, as it is stored.

    Attributes:
        of: who sent the message (an id is unique among one sender's messages only).
        state: as far as the reader is with it; None: that is as it was.
        place: where the reader puts it; None: that is as it was.
        until: of what is snoozed: seconds since 1970, 0: until somebody takes it back.
        undo: whether `state` holds although the reader had been further.
        withdrawn: the sender's own word: whether it takes the message back.
        result: what came of it.
    """

    of: str
    state: str | None = None
    place: str | None = None
    until: float = 0.0
    undo: bool = False
    withdrawn: bool | None = None
    result: Any = None

    def value(self) -> dict[str, Any]:
        """As it is written."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def act_of(value: Any) -> Act | None:
    """The act in a record's value; None for what is none: others may write here, too."""
    try:
        found = msgspec.convert(value, Act)
    except msgspec.ValidationError:
        return None
    fits = found.state in (None, *STATES) and found.place in (None, *PLACES)
    return found if fits and 0 <= found.until < clock.MILLIS_MAX / 1000 else None


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """What acts come to; empty for none. Stamps are those of the records (`holdfast.clock`), 0: never.

    Attributes:
        newest: the newest stamp of each state, by rank.
        undone: the newest undoing: its stamp, and the rank that it went back to.
        place: the newest word on the place: its stamp, the place, until when (ms since 1970, 0: until taken back).
        withdrawn: the sender's newest word on that: its stamp, and 1 if it took the message back.
    """

    newest: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    undone: tuple[int, int] = (0, 0)
    place: tuple[int, int, int] = (0, 0, 0)
    withdrawn: tuple[int, int] = (0, 0)

    def merge(self, other: Reading) -> Reading:
        """Both together; in any order, and any number of times."""
        a, b = self.newest, other.newest
        return Reading(
            (max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]), max(a[4], b[4])),
            max(self.undone, other.undone),
            max(self.place, other.place),
            max(self.withdrawn, other.withdrawn),
        )

    @property
    def rank(self) -> int:
        """How far the reader is."""
        since, back = self.undone
        return max([back, *(rank for rank, stamp in enumerate(self.newest) if stamp > since)])

    @property
    def is_withdrawn(self) -> bool:
        """Whether its sender took the message back."""
        return bool(self.withdrawn[1])

    def times(self) -> dict[str, float]:
        """When the reader came to each state that holds, in seconds since 1970."""
        rank, since = self.rank, self.undone[0]
        held = [(at, stamp) for at, stamp in enumerate(self.newest) if at <= rank and stamp > since]
        return {STATES[at]: clock.millis(stamp) / 1000 for at, stamp in held}


NOTHING: Final = Reading()


def reading_of(stamp: int, act: Act) -> Reading:
    """What one act comes to.

    Args:
        stamp: of its record.
        act: what it says.
    """
    newest, undone = [0, 0, 0, 0, 0], (0, 0)
    if act.state is not None:
        rank = STATES.index(act.state)
        if act.undo:
            undone = (stamp, rank)
        else:
            newest[rank] = stamp
    place = (0, 0, 0) if act.place is None else (stamp, PLACES.index(act.place), round(act.until * 1000))
    withdrawn = (0, 0) if act.withdrawn is None else (stamp, int(act.withdrawn))
    return Reading((newest[0], newest[1], newest[2], newest[3], newest[4]), undone, place, withdrawn)


def together(readings: Iterable[Reading]) -> Reading:
    """What several readings come to, as if one reader had said it all."""
    found = NOTHING
    for each in readings:
        found = found.merge(each)
    return found


def lies(reading: Reading, withdrawn: bool) -> tuple[int, int]:
    """In which tab a message lies, and in which it would if it were not snoozed; what expires is not looked at."""
    rank, place = reading.rank, reading.place[1]
    was = 1 if rank == READ else 0
    if place == ARCHIVED:
        return TABS.index("archived"), was
    if rank >= ACKNOWLEDGED:
        return rank - 1, rank - 1
    if withdrawn:
        return TABS.index("withdrawn"), was
    return (TABS.index("snoozed") if place == SNOOZED else was), was


def tab_at(reading: Reading, withdrawn: bool, expires_ms: int | None, now_ms: int) -> str:
    """In which tab a message lies at a time."""
    tab, was = lies(reading, withdrawn)
    if TABS[tab] == "snoozed" and 0 < reading.place[2] <= now_ms:
        tab = was
    if tab in OPEN and expires_ms is not None and expires_ms <= now_ms:
        return "expired"
    return TABS[tab]


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """How one reader stands to a message.

    Attributes:
        state: delivered, read, acknowledged or done.
        place: inbox, snoozed or archived.
        until: when a snoozed message comes back, in seconds since 1970; None: when it is taken back.
        times: when each state was reached, in seconds since 1970.
        result: what came of it, if it is done.
    """

    state: str
    place: str = "inbox"
    until: float | None = None
    times: dict[str, float] = {}
    result: Any = None


def reader_of(reading: Reading, result: Any = None) -> Reader:
    """A reading, for people."""
    _, place, until = reading.place
    return Reader(
        state=STATES[max(reading.rank, DELIVERED)],  # who puts it somewhere has it
        place=PLACES[place],
        until=until / 1000 if until and place == SNOOZED else None,
        times=reading.times(),
        result=result if reading.rank == DONE else None,
    )


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message, as far as is known where it was asked.

    Attributes:
        msg_id, sender: which one.
        to: its recipient.
        state: the furthest that any reader is; at least stored, where it is on its sender's disk, and delivered, where
            a hub has it; expired or withdrawn where nobody will come further.
        readers: by name; who has not touched it is not among them.
        offline: True when no hub could be asked: then only what this machine knows is here.
    """

    msg_id: str
    sender: str
    to: str | None
    state: str
    readers: dict[str, Reader] = {}
    offline: bool = False


def state_of(readings: dict[str, Reading], sender: str, least: int, ended: bool) -> str:
    """The one word on a message.

    Args:
        readings: of its readers.
        sender: whose word on withdrawing it counts.
        least: the rank that it has in any case.
        ended: whether it has expired.
    """
    rank = max([least, *(each.rank for each in readings.values())])
    if rank < ACKNOWLEDGED and sender in readings and readings[sender].is_withdrawn:
        return "withdrawn"
    return "expired" if ended and rank < ACKNOWLEDGED else STATES[rank]


class Events:
    """Acts of one reader on one message, oldest first, to say what they come to and what it was before the last.

    Args:
        acts: each with its stamp.
    """

    def __init__(self, acts: Iterable[tuple[int, Act]]) -> None:
        self._acts = sorted(acts, key=lambda each: (each[0], msgspec.json.encode(each[1])))

    @property
    def reading(self) -> Reading:
        """What they come to."""
        return together(reading_of(*each) for each in self._acts)

    @property
    def result(self) -> Any:
        """What came of it, by the newest act that says that it is done."""
        return next((act.result for _, act in reversed(self._acts) if act.state == STATES[DONE]), None)

    def undo(self, of: str) -> Act:
        """The act that takes the newest one back.

        Args:
            of: who sent the message.

        Raises:
            UsageError: there is none.
        """
        said = [each for each in self._acts if each[1].state != STATES[DELIVERED] or each[1].undo]
        if not said:
            raise UsageError("there is nothing to undo", hint="nothing was said of this message yet")
        last = said[-1]
        before = together(reading_of(*each) for each in self._acts if each is not last)
        _, place, until = before.place
        return Act(
            of=of,
            state=None if last[1].state is None else STATES[before.rank],
            undo=last[1].state is not None,
            place=None if last[1].place is None else PLACES[place],
            until=0.0 if last[1].place is None else until / 1000,
            withdrawn=None if last[1].withdrawn is None else before.is_withdrawn,
        )


def act(state: str, of: str, *, until: float | None = None, result: Any = None) -> Act:
    """The act that a word of the API stands for.

    Args:
        state: delivered, read, acknowledged, done, snoozed, archived, inbox (back from either), unread (whatever was
            said), withdrawn or asked (no longer withdrawn).
        of: who sent the message.
        until: of snoozed: when it comes back, in seconds since 1970; None: when it is taken back.
        result: of done: what came of it.

    Raises:
        UsageError: another word, or a value that does not go with it.
    """
    if until is not None and state != "snoozed":
        raise UsageError(f"until= goes with snoozed, not with {state!r:.40}")
    if until is not None and not 0 < until < clock.MILLIS_MAX / 1000:
        raise UsageError(f"until={until!r:.40} is no time", hint="seconds since 1970; None: until it is taken back")
    if result is not None and state != "done":
        raise UsageError(f"a result goes with done, not with {state!r:.40}")
    if state in STATES[1:]:
        return Act(of=of, state=state, result=result)
    if state in PLACES:
        return Act(of=of, place=state, until=until or 0.0)
    if state == "unread":
        return Act(of=of, state=STATES[DELIVERED], undo=True, place="inbox")
    if state in ("withdrawn", "asked"):
        return Act(of=of, withdrawn=state == "withdrawn")
    raise UsageError(f"unknown state {state!r:.40}", hint=f"one of {', '.join(WORDS)}")


WORDS: Final = (*STATES[1:], "snoozed", "archived", "inbox", "unread", "withdrawn", "asked")
"""What `act` understands."""
