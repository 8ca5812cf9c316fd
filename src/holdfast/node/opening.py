"""How a store is opened by its configuration: the constructor that `Store` and `AsyncStore` share."""

from __future__ import annotations

import os
from typing import Self


class FromConfig:
    """Gives a store, plain or awaited, the constructor that reads files."""

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None, *, agent: str | None = None) -> Self:
        """A store as it is configured (docs/configuration.md).

        Args:
            path: a file, an agent's file of the earlier system, or a folder that holds one; None: what
                ``HOLDFAST_CONFIG`` names, else the nearest holdfast.yaml.
            agent: who writes; None: whom the configuration names.

        Raises:
            UsageError: the configuration is wrong (all that is, is told), names no agent, or switches it off.
        """
        from holdfast.node.configured import opened

        return opened(cls, path, agent)
