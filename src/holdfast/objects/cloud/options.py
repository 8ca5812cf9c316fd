"""What the clouds' openers share: addresses, the options that all of them have, and how a store is put together."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from holdfast.errors import StorageRefused
from holdfast.objects.cloud.door import Bucket, Reach
from holdfast.objects.cloud.store import HOLD_MAX, CloudStore, Naming
from holdfast.objects.keys import check_key

_ADDRESS: Final = re.compile(r"([a-z0-9]+)://([A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(.*))?")


class CloudOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of any cloud's store."""

    probe: bool = True
    """Try the server out when it is opened; without it no condition is trusted to it."""
    names: Literal["plain", "marked"] = "plain"
    """``marked``: for servers that keep objects as files; to be said from the first object on, by everybody."""
    timeout_s: float = 30.0
    """A request's, until it answers or goes on; a part of 8 MiB must be through by then."""
    retry_s: float = 30.0
    """After so long a failed request is not tried again. A call takes at most the two together, for each part."""
    retries: int = 10
    hold_max: int = HOLD_MAX
    """The most bytes of a body with an `expect`, which is held in memory."""
    allow_http: bool = False
    """Let http go to other machines too."""
    ca_file: str = ""
    """A PEM file of certificates to trust beside the system's."""

    def reach(self, endpoint: str) -> Reach:
        """How to get there.

        Raises:
            StorageRefused: http to another machine, or no such file of certificates.
        """
        http = endpoint.startswith("http://")
        if http and not self.allow_http and not _is_here(endpoint):
            raise StorageRefused(
                f"http shows every byte and signature to the network: {endpoint!r:.120}",
                hint="use https, or say allow_http=True",
            )
        if self.timeout_s <= 0 or self.retry_s < 0 or self.retries < 0 or self.hold_max < 0:
            raise StorageRefused("timeout_s must be above 0; retry_s, retries and hold_max 0 or above")
        try:
            ca = Path(self.ca_file).read_text("utf-8") if self.ca_file else ""
        except (OSError, UnicodeDecodeError) as error:
            raise StorageRefused(f"cannot read the certificates in {self.ca_file}: {error}") from error
        return Reach(
            timeout_s=self.timeout_s,
            retry_s=self.retry_s,
            retries=self.retries,
            allow_http=http or self.allow_http,
            ca=ca,
        )


O = TypeVar("O", bound=CloudOptions)  # noqa: E741


class Place(NamedTuple):
    """A bucket, and the prefix of all names in it."""

    address: str
    bucket: str
    prefix: str


def place_of(address: str, scheme: str) -> Place:
    """What an address says.

    Raises:
        StorageRefused: it is none.
    """
    found = _ADDRESS.fullmatch(address)
    hint = f"{scheme}://<{'container' if scheme == 'azure' else 'bucket'}>[/<prefix>]"
    if found is None or found[1] != scheme:
        raise StorageRefused(f"not an address of {scheme}: {re.sub('//[^@/]*@', '//…@', address)!r:.120}", hint=hint)
    prefix = (found[3] or "").rstrip("/")
    if prefix:
        check_key(prefix)
    return Place(f"{scheme}://{found[2]}{'/' + prefix if prefix else ''}", found[2], f"{prefix}/" if prefix else "")


def options_of(kind: type[O], options: dict[str, Any], scheme: str) -> O:
    """The options, checked for names and types.

    Raises:
        StorageRefused: one of them is not an option, or not of its type.
    """
    unknown = sorted(set(options) - set(kind.__struct_fields__))
    if unknown:
        known = ", ".join(kind.__struct_fields__)
        raise StorageRefused(f"{scheme}: no such option: {', '.join(unknown)}", hint=f"known are: {known}")
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise StorageRefused(f"{scheme}: {error}", hint="see docs/objects.md") from None


def opened(place: Place, bucket: Bucket, said: CloudOptions, server: str, *, by_version: bool = False) -> CloudStore:
    """The store, tried out if that is wanted."""
    return CloudStore(
        bucket,
        naming=Naming(prefix=place.prefix, marked=said.names == "marked"),
        by_version=by_version,
        hold_max=said.hold_max,
        known=f"{server} {place.bucket}" if said.probe else None,
    )


def _is_here(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
