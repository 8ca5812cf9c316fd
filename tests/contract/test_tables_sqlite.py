"""Tables in SQLite keep the laws of tables."""

from __future__ import annotations

from pathlib import Path

from holdfast.objects import SqliteTables
from holdfast.testing.tables import TableContract


class TestSqliteTables(TableContract):
    def make(self, directory: Path) -> SqliteTables:
        return SqliteTables(directory / "account.db")
