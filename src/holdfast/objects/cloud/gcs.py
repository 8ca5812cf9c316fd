"""Google Cloud Storage: ``gcs://<bucket>[/<prefix>]``. Experimental: no emulator speaks what the driver speaks, so no
test of ours has seen a server. The probe at open stands between this and your data.
"""

from __future__ import annotations

from typing import Any

from holdfast.objects.cloud.door import Bucket, Reach, driver
from holdfast.objects.cloud.options import CloudOptions, opened, options_of, place_of
from holdfast.objects.cloud.store import CloudStore


class GcsOptions(CloudOptions, frozen=True, kw_only=True):
    """The options of ``gcs://``; what is not said is read from the environment (``GOOGLE_…``) as Google's tools do."""

    service_account_file: str = ""
    """A JSON file with a service account's key."""
    endpoint: str = ""


def open_gcs(address: str, **options: Any) -> CloudStore:
    """The opener of ``gcs://``; its options are those of `GcsOptions`.

    Raises:
        StorageRefused: not such an address, an unknown option, or no such bucket.
        StorageDenied: the credentials are not accepted.
        StorageUnavailable: no answer.
    """
    place = place_of(address, "gcs")
    said = options_of(GcsOptions, options, "gcs")
    obstore = driver("gcs")
    given = {"service_account": said.service_account_file, "base_url": said.endpoint}

    def make(reach: Reach) -> Any:
        return obstore.store.GCSStore(
            place.bucket,
            **{name: value for name, value in given.items() if value},
            client_options=reach.clients(),
            retry_config=reach.retry(),
        )

    return opened(
        place, Bucket(place.address, make, said.reach(said.endpoint)), said, f"gcs {said.endpoint}", by_version=True
    )
