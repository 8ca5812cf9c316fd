"""Rows that a record brings with it: like its tags they follow from the record alone, and are written where those are.

A tag whose number is `ROW_FIRST` or more stands for a row of a table of its own; its value holds the columns, as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

ROW_FIRST: Final = 64
SESSION: Final = 64
SAMPLE: Final = 65
TAG_BYTES_MAX: Final = 2_000
"""What an engine's index can hold of a tag for certain: PostgreSQL leaves longer ones out."""
TAG: Final = "INSERT INTO tag VALUES(?,?,?) ON CONFLICT DO NOTHING"
TABLES: Final = {
    SESSION: ("session", "id, agent, user_id, status, created_ms"),
    SAMPLE: ("sample", "entity_type, entity, metric, session, at_ms, value"),
}
"""The table of each, and its columns behind `pos`."""
_INSERT: Final = {
    number: f"INSERT INTO {table}(pos, {columns}) VALUES(?{',?' * (columns.count(',') + 1)}) ON CONFLICT DO NOTHING"
    for number, (table, columns) in TABLES.items()
}


def row(number: int, *columns: str | int | float | None) -> tuple[int, str]:
    """The tag that stands for a row: `SESSION` (id, agent, user_id, status, created_ms) or `SAMPLE` (entity_type,
    entity, metric, session, at_ms, value).
    """
    return number, msgspec.json.encode(columns).decode()


def mark(pos: int, number: int, value: str) -> tuple[str, Sequence[Any]]:
    """The statement that writes a tag of the record at `pos`, or its row, and the values for it."""
    if number < ROW_FIRST:
        return TAG, (number, value, pos)
    return _INSERT[number], (pos, *msgspec.json.decode(value))
