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
TAG: Final = "INSERT INTO tag VALUES(?,?,?) ON CONFLICT DO NOTHING"
_INSERT: Final = {
    SESSION: "INSERT INTO session(pos, id, agent, user_id, status, created_ms) VALUES(?,?,?,?,?,?)"
    " ON CONFLICT DO NOTHING",
    SAMPLE: "INSERT INTO sample(pos, entity_type, entity, metric, session, at_ms, value) VALUES(?,?,?,?,?,?,?)"
    " ON CONFLICT DO NOTHING",
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
