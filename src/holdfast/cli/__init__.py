"""The command line: the only room that wires everything. `main` is its door."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

__all__ = ["lasting", "main"]

_YOUNG_MAX = 100_000
_usual = gc.get_threshold()


def main(args: Sequence[str] | None = None, *, standalone_mode: bool = True) -> int:
    """Runs a command line and ends the process with its exit code.

    Args:
        args: the words behind the program's name; None: this process's own.
        standalone_mode: False returns the exit code instead of ending the process (tests).
    """
    if not standalone_mode:
        return _run(args)
    # Loading modules makes tens of thousands of objects that stay; looking through them for garbage again and again,
    # and once more at the end, was a quarter of a short command's time. `lasting` goes back for a long one.
    gc.set_threshold(_YOUNG_MAX)
    code = _run(args)
    gc.freeze()
    sys.exit(code)


def lasting() -> None:
    """Goes back to how Python usually looks for garbage, for a command that runs on and on."""
    gc.set_threshold(*_usual)


def _run(args: Sequence[str] | None) -> int:
    from holdfast.cli.commands import COMMANDS

    return COMMANDS.main(args, standalone_mode=False)
