"""What every place where something is kept has, of objects, tables or queues: a name, a health, and an end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import msgspec

from holdfast.errors import HoldfastError, StoreClosed


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at a store found."""

    ok: bool
    store: str
    """Its name, without secrets."""
    milliseconds: float
    lacks: tuple[str, ...] = ()
    error: str = ""
    note: str = ""
    """What was found out about the store and should be known."""
    degraded: str = ""
    """What does not work as it should, though calls are answered: a primary that is away, writes that wait."""


class Place(ABC):
    """A place that is open until it is closed. Its `_look` says whether it answers."""

    lacks: frozenset[str] = frozenset()
    """What it cannot do."""
    _closed = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Which store this is, as an address without secrets."""

    def health(self) -> Health:
        """Whether the store answers now; never raises because of the store."""
        begun = time.perf_counter()
        error = note = degraded = ""
        try:
            note = self._look() or ""
            degraded = self._trouble()
        except (HoldfastError, OSError) as failed:
            error = str(failed)
        took = 1000 * (time.perf_counter() - begun)
        lacks = tuple(sorted(self.lacks))
        return Health(
            ok=not error,
            store=self.name,
            milliseconds=took,
            lacks=lacks,
            error=error,
            note=note,
            degraded=degraded,
        )

    @abstractmethod
    def _look(self) -> str | None:
        """Asks the store for something small; raises if it does not answer. What it returns becomes the note."""

    def _trouble(self) -> str:
        """What does not work as it should, though calls are answered; it becomes `Health.degraded`."""
        return ""

    def close(self) -> None:
        """Lets go of connections and files; more than once is no error, any other call after it is."""
        self._closed = True

    def _open(self) -> None:
        """Every call begins with it.

        Raises:
            StoreClosed: the store was closed.
        """
        if self._closed:
            raise StoreClosed(f"{self.name} was closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"
