"""A file opened to be looked at: not a byte of it or of its WAL changes, whatever is found there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from holdfast.corpus.engine import Engine
from holdfast.corpus.scripts import migrations
from holdfast.errors import IntegrityError, UsageError
from holdfast.sqlite import doctor


class Beholder(Engine):
    """An engine that only reads, for whoever proves a file; beside it others may write. Writing through it raises.

    The locks beside the file are made all the same. While it looks at a file with a damaged WAL nobody else can open
    that: he would not be the first, so he would not look, and SQLite would reset what should be kept.

    Raises:
        IntegrityError: without its WAL, which is damaged, the file is empty; the context says ``check="wal"``.
        UsageError: it was written by another version.
    """

    read_only: ClassVar[bool] = True

    def _look_first(self) -> None:
        self.diagnosis = doctor.examine(self.path)

    def _let_in(self) -> None:
        if self.diagnosis is None or not self.diagnosis.damaged:
            super()._let_in()

    def _migrate(self, roles: Sequence[str]) -> None:
        have, want = self._writer.pragma("user_version"), len(migrations(roles))
        if have >= want:
            return super()._migrate(roles)
        if self.diagnosis is not None and self.diagnosis.damaged:
            what = f"the write-ahead log of {self.path.name} is damaged: without it the file is empty"
            raise IntegrityError(what, hint="keep the directory as it is", check="wal")
        raise UsageError(
            f"{self.path} was written by an older Holdfast (format {have}, this knows {want})",
            hint="open the store once: that brings it up to date",
        )


class Elder(Beholder):
    """The same of a file that an older Holdfast may have written: for tables that were always as they are."""

    def _migrate(self, roles: Sequence[str]) -> None:
        if self._writer.pragma("user_version") >= len(migrations(roles)):
            super()._migrate(roles)
