"""Several hubs, asked in their order: who does not answer is passed over for a while, and told of.

An answer comes from one hub, whole: a list that was begun at one is not gone on with at another, since positions are
each hub's own. Decisions are not for this: of several deciders none would be one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from holdfast.clock import SYSTEM, Clock
from holdfast.errors import HubUnavailable, NotFound

if TYPE_CHECKING:
    from holdfast.node.hub import Hub

AWAY_S: Final = 5.0
AWAY_S_MAX: Final = 60.0
"""How long a hub that did not answer is passed over: first, and at most (to ask a dead machine takes three seconds)."""

T = TypeVar("T")


class Hubs:
    """Hubs in the order in which they are asked. Safe to share among threads.

    Args:
        each: the hubs, each of one address; at least one.
        clock: monotonic.
    """

    def __init__(self, each: Sequence[Hub], clock: Clock = SYSTEM) -> None:
        self.each = tuple(each)
        self._clock = clock
        self._lock = threading.Lock()  # guards _until and _failures
        self._until = [0.0] * len(self.each)
        self._failures = [0] * len(self.each)
        self._mine = threading.local()  # .at: which hub answered this thread last

    def ask(self, question: Callable[[Hub], T]) -> T:
        """The first answer.

        Raises:
            HubUnavailable: none of them answers.
        """
        errors: list[HubUnavailable] = []
        for number in self._order():
            try:
                found = question(self.each[number])
            except HubUnavailable as error:
                self._away(number)
                errors.append(error)
                continue
            except NotFound as error:
                self._answered(number)
                if errors or number:
                    error.hint = (
                        f"{self.each[number].url} was asked, as {self.each[0].url} does not answer:"
                        f" it may not have all of it. {error.hint}".strip()
                    )
                raise
            self._answered(number)
            return found
        if len(errors) == 1:
            raise errors[0]
        first = errors[0]
        raise HubUnavailable(
            f"none of {len(errors)} hubs answers; the first: {first.message}", hint=first.hint, **first.context
        ) from first

    def stay(self, question: Callable[[Hub], T]) -> T:
        """The answer of the hub that answered this thread last: for whoever goes on with a list of its.

        Raises:
            HubUnavailable: it does not answer any more.
        """
        number = getattr(self._mine, "at", None)
        if number is None:
            return self.ask(question)
        try:
            return question(self.each[number])
        except HubUnavailable as error:
            self._away(number)
            del self._mine.at
            raise HubUnavailable(
                error.message, hint="begin the list again: another hub's positions are others", **error.context
            ) from error

    def _order(self) -> list[int]:
        now = self._clock.monotonic()
        with self._lock:
            return sorted(range(len(self.each)), key=lambda number: self._until[number] > now)

    def _away(self, number: int) -> None:
        with self._lock:
            pause = min(AWAY_S_MAX, AWAY_S * 2.0 ** min(self._failures[number], 10))
            self._failures[number] += 1
            self._until[number] = self._clock.monotonic() + pause

    def _answered(self, number: int) -> None:
        self._mine.at = number
        if self._failures[number]:
            with self._lock:
                self._failures[number], self._until[number] = 0, 0.0
