"""What a corpus asks of whatever runs its statements, SQLite in a file or a PostgreSQL far away."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from holdfast.corpus.commit import GroupCommit


class Engine(Protocol):
    """What runs the statements. Reads may be made from any thread; a write is a job of `commits`.

    `on_rollback` is called when a transaction was undone, `on_change` inside one that finds that somebody else wrote
    since the last: what is remembered of the corpus ends there. `inline` says whether a small commit may be made where
    nobody may wait (an event loop): it cannot where each is an answer from another machine.
    """

    commits: GroupCommit
    on_rollback: Callable[[], None]
    on_change: Callable[[], None]
    wal_pages: int
    inline: bool

    @property
    def unusable(self) -> bool:
        """Whether it is closed, or has failed for good."""
        ...

    def query(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query."""
        ...

    def one(self, sql: str, args: Sequence[Any] = ()) -> Any:
        """The first row of a query, or None."""
        ...

    def read(self, sql: str, args: Sequence[Any] = ()) -> Generator[Any, None, None]:
        """The rows of a query, fetched as they are asked for."""
        ...

    def moment(self) -> AbstractContextManager[Callable[..., Any]]:
        """What runs statements that all see the same moment; each gives a cursor."""
        ...

    def sync(self) -> None:
        """Returns when every commit made before the call survives a power cut."""
        ...

    def checkpoint(self, *, most_pages: int = ...) -> None:
        """Moves what the engine keeps beside its file into it, where it has such a thing."""
        ...

    def scrub_part(self, part: Any) -> list[str]:
        """What is wrong below the rows: with the ``size``, the ``indexes``, or (the first, how many) of the pages."""

    @property
    def pages(self) -> int:
        """How many pages there are to scrub."""

    def close(self) -> None:
        """Commits what is queued and closes; a second close is fine."""
        ...
