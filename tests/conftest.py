"""What every test gets: no settings from the machine it runs on, and no flaky deadlines."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.services import database as database
from tests.services import postgres as postgres
from tests.services_cloud import azurite as azurite
from tests.services_cloud import azurite_tokens as azurite_tokens
from tests.services_cloud import moto as moto
from tests.services_cloud import rclone as rclone
from tests.services_cloud import rclone_directory as rclone_directory

# Tells tests/house/test_public_api.py to write instead of compare; where tests/flow find conversations.
KEPT = {"HOLDFAST_SNAPSHOT", "HOLDFAST_DATA"}

for _name in [name for name in os.environ if name.startswith("HOLDFAST_") and name not in KEPT]:
    del os.environ[_name]

# A shared two-core machine pauses at will, so time per example proves nothing.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")
