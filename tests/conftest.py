"""What every test gets: no settings from the machine it runs on, and no flaky deadlines."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests import promises
from tests.promises import count as count
from tests.services import database as database
from tests.services import postgres as postgres
from tests.services_cloud import azurite as azurite
from tests.services_cloud import azurite_tokens as azurite_tokens
from tests.services_cloud import moto as moto
from tests.services_cloud import rclone as rclone
from tests.services_cloud import rclone_directory as rclone_directory

# Tells tests/house/test_public_api.py to write instead of compare; where tests/flow find conversations; where counts
# of what was broken go.
KEPT = {"HOLDFAST_SNAPSHOT", "HOLDFAST_DATA", "HOLDFAST_COUNTS"}

for _name in [name for name in os.environ if name.startswith("HOLDFAST_") and name not in KEPT]:
    del os.environ[_name]

# Hundreds of interpreters are started: where nothing may be kept of what they compile, each compiles it all again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = Path("/dev/shm")
ROOM_BYTES = 6 << 30
"""What three workers use at once, several times over."""


def _in_memory() -> bool:
    """Whether there is so much memory to spare that what tests write may lie in it."""
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return False
    place = os.statvfs(MEMORY)
    if place.f_bavail * place.f_frsize < ROOM_BYTES:
        return False
    try:
        with tempfile.TemporaryFile(dir=MEMORY) as file:
            os.setxattr(file.fileno(), "user.holdfast", b"as files of objects have them")
    except (AttributeError, OSError):
        return False
    return True


# Hardly a test looks at whether the disk itself keeps what is synced (those that do bring a disk of their own), and
# thousands of files are: in memory that takes no time. Whoever names a place (TMPDIR) gets it.
if "TMPDIR" not in os.environ and _in_memory():
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None

# A shared two-core machine pauses at will, so time per example proves nothing.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    """Counts what the tests did, if somebody asked for it."""
    if promises.PATH:
        config.pluginmanager.register(promises.Sums(Path(promises.PATH)), "promises")


def pytest_collection_finish() -> None:
    """What is there by now stays until the end: it is not gone through again each time garbage is looked for."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int | None:
    """`-n auto`: half as many again as there are processors, for a third of the time a test waits for something."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return there + (there + 1) // 2
