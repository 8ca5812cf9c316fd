"""How one hub is faring, and when it is worth talking to again. Pure."""

from __future__ import annotations

from typing import Final

from holdfast.protocol.actions import State
from holdfast.protocol.ports import Rng
from holdfast.protocol.retry import BASE, CAP, FULL_CAP, SLOW, Backoff
from holdfast.wire import Wish

SURPRISES: Final = 3
"""So many hellos without a record acknowledged between them are taken in one's stride."""


class Patience:
    """The state of the conversation with a hub, and the time before which to be silent.

    Args:
        rng: where the jitter comes from.
    """

    def __init__(self, rng: Rng) -> None:
        self.state: State = "offline"
        self.alert = ""
        self.until = 0.0
        self.last_contact: float | None = None
        self.surprises = 0
        self.paused = False
        self._asked: int | None = None
        self._backoff = Backoff(rng)
        self._rng = rng
        self._wants_refresh = self._refreshed = False

    @property
    def failures(self) -> int:
        """Failures in a row."""
        return self._backoff.failures

    def standing(self, waiting: bool) -> State:
        """The state with what it does not know: whether anything waits to be sent or fetched."""
        if self.state != "in_sync":
            return self.state
        return "paused" if self.paused else "catching_up" if waiting else "in_sync"

    def worked(self, now: float) -> None:
        """An answer of ours came."""
        self.forget()
        self.heard(now)
        self.alert, self._refreshed = "", False

    def heard(self, now: float) -> None:
        """The hub is there, whatever it says."""
        self.state, self.last_contact = "in_sync", now

    def forget(self) -> None:
        """No reason to wait any more."""
        self.until = 0.0
        self._backoff.reset()

    def obey(self, wish: Wish | None) -> bool:
        """Takes what people at the hub wish; whether they want what is put off to be tried again now."""
        wish = wish or Wish()
        self.paused = wish.paused
        again, self._asked = self._asked not in (None, wish.asked), wish.asked
        return again

    def retry(self, now: float) -> None:
        """The hub refused one request: again, soon."""
        self.until = now + self._backoff.delay()

    def away(self, now: float, after: float | None, *, full: bool) -> None:
        """No answer of ours, or a full disk there."""
        self.state = "hub_full" if full else "offline"
        if full:
            self.alert = "the hub's disk is full; everything is kept here"
        self.until = now + self._backoff.delay(after, FULL_CAP if full else CAP)

    def deny(self, now: float, alert: str) -> None:
        """Our credential is not accepted: read it again at once, and then every minute."""
        self.state, self.alert = "denied", alert
        self.until = now + SLOW if self._refreshed else now
        self._wants_refresh = self._refreshed = True
        self._backoff.failures += 1

    def reread(self) -> None:
        """Our credential is accepted, but not for everything: read it again."""
        self._wants_refresh = True

    def take_refresh(self) -> bool:
        """Whether the credential is to be read again now; once per denial."""
        wanted, self._wants_refresh = self._wants_refresh, False
        return wanted

    def slow(self, now: float, state: State, alert: str) -> None:
        """It will not get better by itself, but it may be mended."""
        self.state, self.alert = state, alert
        self.until = now + SLOW
        self._backoff.failures += 1

    def surprised(self, now: float) -> None:
        """Hello and hello again without a record acknowledged between: ever more slowly, whatever the cause is."""
        self.last_contact = now
        self.surprises += 1
        if self.surprises > SURPRISES:
            pause = min(CAP, BASE * 2.0 ** min(self.surprises - SURPRISES, 20))
            self.until = now + pause * (0.5 + self._rng.random() / 2)
            self.alert = "the hub and this node keep disagreeing about where a stream stands"
