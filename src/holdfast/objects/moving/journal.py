"""What a migration of objects remembers, in an SQLite file: what was copied, and what was written meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import msgspec

from holdfast.errors import ObjectCorrupt, StorageRefused
from holdfast.objects.database import Database

Phase: TypeAlias = Literal["plain", "copying", "switched"]
PAGE: Final = 500
_STEPS: Final = (
    """
CREATE TABLE said (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE copied (
  key TEXT NOT NULL PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL, digest BLOB NOT NULL,
  size INTEGER NOT NULL, made INTEGER NOT NULL
) STRICT;
CREATE TABLE dirty (key TEXT NOT NULL PRIMARY KEY, turn INTEGER NOT NULL, busy INTEGER NOT NULL) STRICT;
""",
)
_NOTE: Final = """
INSERT INTO dirty (key, turn, busy) VALUES (?1, 1, 1) ON CONFLICT (key) DO UPDATE SET turn = turn + 1, busy = busy + 1
"""


class Copied(msgspec.Struct, frozen=True):
    """One object that was copied and proven."""

    key: str
    source: str
    """The etag that it was copied of."""
    target: str
    """The etag that it got; empty: it was begun, and whether it arrived is not known."""
    digest: bytes
    size: int
    made: bool
    """Whether there was none before: only then it can be taken back."""


class Journal:
    """The file; any number of threads and processes use it at once.

    Args:
        path: made if it is not there; only its owner may read it.

    Raises:
        ObjectCorrupt: it was damaged, now or earlier, and may have forgotten writes that were still to be copied.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path, "migration", _STEPS)
        self.path = self._database.path
        if trouble := self._database.trouble():
            self._database.close()
            raise ObjectCorrupt(
                f"the journal {self.path.name} may have forgotten what is still to be copied: {trouble}",
                hint="compare both stores before you go on, or remove the journal and begin the migration again",
            )

    # -- what was said -------------------------------------------------------------------------------------------

    def said(self, name: str) -> str:
        """What was said under a name, or nothing."""
        row = self._database.one("SELECT value FROM said WHERE name = ?", (name,))
        return row[0] if row else ""

    def say(self, **values: str) -> None:
        """Says several things in one transaction."""
        with self._database.write() as execute:
            for name, value in values.items():
                execute("INSERT OR REPLACE INTO said VALUES (?, ?)", (name, value))

    def state(self) -> tuple[Phase, str, str]:
        """The phase, where objects are, and where they go or came from."""
        rows = dict(self._database.all("SELECT name, value FROM said WHERE name IN ('phase', 'here', 'there')"))
        return rows.get("phase", "plain"), rows.get("here", ""), rows.get("there", "")

    def bind(self, source: str, target: str) -> None:
        """Begins the migration, or goes on with it.

        Raises:
            StorageRefused: the file is that of another one.
        """
        have = (self.said("from"), self.said("to"))
        if have == ("", ""):
            self.say(**{"from": source, "to": target})
        elif have != (source, target):
            raise StorageRefused(
                f"{self.path.name} is the journal of the migration from {have[0]} to {have[1]}",
                hint="name another file with --journal, or remove it when that migration is over",
            )

    # -- what was copied -----------------------------------------------------------------------------------------

    def copied(self, key: str) -> Copied | None:
        """What is known of the copy of an object."""
        row = self._database.one("SELECT * FROM copied WHERE key = ?", (key,))
        return _copied(row) if row else None

    def all_copied(self) -> Iterator[Copied]:
        """Everything that was copied, by key."""
        after = ""
        while rows := self._database.all("SELECT * FROM copied WHERE key > ? ORDER BY key LIMIT ?", (after, PAGE)):
            for row in rows:
                yield _copied(row)
            after = rows[-1][0]

    def note_copied(self, one: Copied) -> None:
        """Remembers a copy, in place of an older one of its key."""
        sql = "INSERT OR REPLACE INTO copied VALUES (?, ?, ?, ?, ?, ?)"
        self._database.change(sql, (one.key, one.source, one.target, one.digest, one.size, int(one.made)))

    def forget_copied(self, key: str) -> None:
        """Forgets a copy that is no more."""
        self._database.change("DELETE FROM copied WHERE key = ?", (key,))

    # -- what was written meanwhile ------------------------------------------------------------------------------

    def begin_write(self, key: str) -> None:
        """Notes, before it happens, that a key is being written. It survives a power cut."""
        self._database.change(_NOTE, (key,))

    def end_write(self, key: str) -> None:
        """Notes that the write is over. A note that a crash swallowed costs a copy more and nothing else."""
        self._database.change("UPDATE dirty SET busy = max(busy - 1, 0) WHERE key = ?", (key,))

    def dirty(self, *, busy: bool = False) -> list[tuple[str, int]]:
        """Some keys that were written and not copied since, with their turns; `busy`: those being written too."""
        which = "" if busy else "WHERE busy = 0"
        return list(self._database.all(f"SELECT key, turn FROM dirty {which} ORDER BY key LIMIT {PAGE}"))

    def count_dirty(self) -> int:
        """How many keys were written and not copied since."""
        return int(self._database.one("SELECT count(*) FROM dirty")[0])

    def clean(self, key: str, turn: int, *, busy: bool = False) -> None:
        """Notes that a key was copied as it was at a turn; if it was written since, that changes nothing."""
        which = "" if busy else "AND busy = 0"
        self._database.change(f"DELETE FROM dirty WHERE key = ? AND turn = ? {which}", (key, turn))

    def turn_over(self, phase: Phase, here: str, there: str, *, keep: bool = False) -> None:
        """Changes the phase; what was noted for the one before is forgotten with it, unless it is to be kept."""
        with self._database.write() as execute:
            for name, value in (("phase", phase), ("here", here), ("there", there)):
                execute("INSERT OR REPLACE INTO said VALUES (?, ?)", (name, value))
            if not keep:
                execute("DELETE FROM dirty")
                execute("DELETE FROM copied")

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()


def _copied(row: Any) -> Copied:
    key, source, target, digest, size, made = row
    return Copied(key, source, target, digest, size, bool(made))
