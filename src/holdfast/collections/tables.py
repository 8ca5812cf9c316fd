"""Rows of tables as a hub tells of them."""

from __future__ import annotations

from typing import Literal

import msgspec


class RowDone(msgspec.Struct):
    """What became of a row; `version` counts its changes."""

    status: Literal["stored", "deleted"]
    table: str
    id: str
    version: int
