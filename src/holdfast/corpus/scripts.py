"""The scripts that make the tables of SQLite files, by the roles that a file has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def migrations(roles: Sequence[str]) -> list[str]:
    """The scripts that make a file of these roles, oldest first; the file's `user_version` counts them."""
    return [script.read_text("utf-8") for script in scripts(roles)]


def scripts(roles: Sequence[str]) -> list[Path]:
    """The files of `migrations`."""
    folder = Path(__file__).with_name("migrations")  # importlib.resources would cost every command 9 ms
    names = sorted(name for name in os.listdir(folder) if name.endswith(".sql"))
    wanted = [
        (name.removeprefix(f"{role}_")[:4], order, name)
        for order, role in enumerate(roles)
        for name in names
        if name.startswith(f"{role}_" if role else "0")
    ]
    # By number before role: the count in a file must mean the same scripts when a later one is added to any role.
    return [folder / name for _, _, name in sorted(wanted)]
