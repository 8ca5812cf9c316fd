"""S3 and what speaks like it: ``s3://<bucket>[/<prefix>]``."""

from __future__ import annotations

from typing import Any

from holdfast.objects.cloud.door import Bucket, Reach, driver
from holdfast.objects.cloud.options import CloudOptions, opened, options_of, place_of
from holdfast.objects.cloud.store import CloudStore


class S3Options(CloudOptions, frozen=True, kw_only=True):
    """The options of ``s3://``; what is not said is read from the environment (``AWS_…``) as Amazon's tools do."""

    endpoint: str = ""
    """The server's URL, where it is not Amazon's; the bucket's name goes into the path."""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    virtual_hosted: bool = False
    """The bucket's name is in the endpoint's host."""


def open_s3(address: str, **options: Any) -> CloudStore:
    """The opener of ``s3://``; its options are those of `S3Options`.

    Raises:
        StorageRefused: not such an address, an unknown option, http to another machine, or no such bucket.
        StorageDenied: the credentials are not accepted.
        StorageUnavailable: no answer.
    """
    place = place_of(address, "s3")
    said = options_of(S3Options, options, "s3")
    obstore = driver("s3")
    given = {
        "endpoint": said.endpoint,
        "region": said.region,
        "access_key_id": said.access_key_id,
        "secret_access_key": said.secret_access_key,
        "session_token": said.session_token,
    }

    def make(reach: Reach) -> Any:
        return obstore.store.S3Store(
            place.bucket,
            **{name: value for name, value in given.items() if value},
            virtual_hosted_style_request=said.virtual_hosted,
            # One request a deletion: several servers know no other.
            disable_bulk_delete=True,
            client_options=reach.clients(),
            retry_config=reach.retry(),
        )

    return opened(place, Bucket(place.address, make, said.reach(said.endpoint)), said, f"s3 {said.endpoint}")
