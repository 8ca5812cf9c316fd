"""What goes wrong in the background is told to the program's own log."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger


def logger(name: str) -> Logger:
    """The logger of a module that seldom has something to say: `logging` is loaded when it has."""
    import logging  # 8 ms, which no command pays that only opens a store

    return logging.getLogger(name)
