"""Azure Blob Storage: ``azure://<container>[/<prefix>]``."""

from __future__ import annotations

import os
from typing import Any

from holdfast.errors import StorageRefused
from holdfast.objects.cloud.door import Bucket, Reach, driver, token_provider
from holdfast.objects.cloud.options import CloudOptions, opened, options_of, place_of
from holdfast.objects.cloud.store import CloudStore


class AzureOptions(CloudOptions, frozen=True, kw_only=True):
    """The options of ``azure://``: a connection string, or the account's URL with a credential or a key.

    With none of them ``AZURE_STORAGE_CONNECTION_STRING`` is read, and else the driver's own variables.
    """

    connection_string: str = ""
    account_url: str = ""
    """Such as ``https://<account>.blob.core.windows.net``."""
    credential: Any = None
    """A credential of azure-identity, or anything with its `get_token`."""
    account_key: str = ""
    sas_token: str = ""


def open_azure(address: str, **options: Any) -> CloudStore:
    """The opener of ``azure://``; its options are those of `AzureOptions`.

    Raises:
        StorageRefused: not such an address, an unknown option, http to another machine, or no such container.
        StorageDenied: the credentials are not accepted.
        StorageUnavailable: no answer.
    """
    place = place_of(address, "azure")
    said = options_of(AzureOptions, options, "azure")
    obstore = driver("azure")
    given = _account(said)

    def make(reach: Reach) -> Any:
        return obstore.store.AzureStore(
            container_name=place.bucket,
            **given,
            client_options=reach.clients(),
            retry_config=reach.retry(),
        )

    return opened(
        place,
        Bucket(place.address, make, said.reach(given.get("endpoint", ""))),
        said,
        f"azure {given.get('endpoint', '')}",
    )


def _account(said: AzureOptions) -> dict[str, Any]:
    text = said.connection_string
    if not text and not said.account_url:
        text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    given = _parts(text) if text else _by_url(said.account_url)
    if said.credential is not None:
        given.pop("account_key", None)
        given["credential_provider"] = token_provider(said.credential)
    for name, value in (("account_key", said.account_key), ("sas_key", said.sas_token)):
        if value:
            given[name] = value
    return given


def _parts(text: str) -> dict[str, Any]:
    """What a connection string says; its parts are not shown in errors, for one of them is a key."""
    parts = dict(part.partition("=")[::2] for part in text.strip().split(";") if part)
    parts = {name.strip().lower(): value for name, value in parts.items()}
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        return {"use_emulator": True}
    account, endpoint = parts.get("accountname", ""), parts.get("blobendpoint", "").rstrip("/")
    if not account and not endpoint:
        raise StorageRefused(
            "not a connection string of Azure Storage", hint="DefaultEndpointsProtocol=https;AccountName=…;AccountKey=…"
        )
    suffix = parts.get("endpointsuffix", "core.windows.net")
    scheme = parts.get("defaultendpointsprotocol", "https")
    given = _by_url(endpoint or f"{scheme}://{account}.blob.{suffix}")
    if account:
        given["account_name"] = account
    for ours, theirs in (("account_key", "accountkey"), ("sas_key", "sharedaccesssignature")):
        if parts.get(theirs):
            given[ours] = parts[theirs]
    return given


def _by_url(url: str) -> dict[str, Any]:
    if not url:
        return {}
    scheme, _, rest = url.rstrip("/").partition("://")
    if scheme not in ("http", "https") or not rest or "?" in rest:
        raise StorageRefused(
            f"not an account's URL: {url.partition('?')[0]!r:.120}", hint="https://….blob.core.windows.net"
        )
    host, _, path = rest.partition("/")
    # An emulator has the account in the path, Azure in the host.
    return {"account_name": path.partition("/")[0] or host.partition(".")[0], "endpoint": url.rstrip("/")}
