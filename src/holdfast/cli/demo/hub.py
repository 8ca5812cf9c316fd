"""The demo's hub: exactly `holdfast serve`, in a process that ends with its driver."""

from __future__ import annotations

import os
import sys

from holdfast.cli import main
from holdfast.cli.demo.child import Orders


def start() -> None:
    """Serves until a signal, or until the driver is gone."""
    Orders()
    # Whatever is configured where somebody looks at a demo is not the demo's.
    main(["serve", "--config", os.devnull, *sys.argv[1:]])


if __name__ == "__main__":
    start()
