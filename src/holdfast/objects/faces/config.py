"""Which storage a `StorageManager` stands on: the words of the seed, checked at once, and the address they mean."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from os import PathLike, fspath
from types import MappingProxyType
from typing import Any, Final

from holdfast.errors import ObjectConflict, StorageRefused
from holdfast.objects.opening import open_store
from holdfast.objects.port import ObjectStore

_S3: Final = ("endpoint", "region", "access_key_id", "secret_access_key")
_TAKES: Final[Mapping[str, tuple[str, ...]]] = {
    # type: what it may be told; a * stands at what it must be told
    "memory": (),
    "file": ("base_path*",),
    "sqlite": ("base_path*",),
    "postgres": ("connection_string*",),
    "redis": ("connection_string*",),
    "s3": ("bucket*", "prefix", *_S3),
    "gcs": ("bucket*", "prefix", "credential"),
    "azure": ("container", "prefix", "connection_string", "account_url", "credential"),
}
_OTHER_NAMES: Final = {"postgresql": "postgres", "azure_blob": "azure", "gs": "gcs"}
_SCHEMES: Final = {"postgres": ("postgresql://", "postgres://"), "redis": ("redis://", "rediss://", "unix://")}
_NAMES: Final = {("gcs", "credential"): "service_account_file"}
CONTAINER: Final = "holdfast"
"""On Azure, where none is named."""


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """Which storage, and how to reach it; a combination that cannot be is refused here, before anything is opened.

    Args:
        storage_type: ``file``, ``memory``, ``sqlite``, ``postgres``, ``redis``, ``s3``, ``azure`` or ``gcs``.
        base_path: of ``file`` the directory, of ``sqlite`` the file.
        connection_string: of ``azure`` the account's; of ``postgres`` and ``redis`` the URL.
        account_url: of ``azure``: ``https://<account>.blob.core.windows.net``, with a `credential`.
        credential: of ``azure`` an Azure Identity credential, of ``gcs`` the path of a service account's key.
        container: of ``azure``; it must be there. If none is named, ``holdfast``, which is made.
        bucket: of ``s3`` and ``gcs``.
        prefix: keys live below it, in a bucket or container.
        endpoint: of ``s3``: the server's URL, if it is not AWS.
        region: of ``s3``.
        access_key_id: of ``s3``; without it what the environment, the profile or the machine's role gives.
        secret_access_key: of ``s3``, with `access_key_id`.
        options: more options of the store's opener, by name: see `docs/objects.md`.

    Raises:
        StorageRefused: no such type, something missing, or something that this type does not take.
    """

    storage_type: str = "file"
    base_path: str | PathLike[str] | None = None
    connection_string: str | None = field(default=None, repr=False)
    account_url: str | None = None
    credential: Any = field(default=None, repr=False)
    container: str | None = None
    bucket: str | None = None
    prefix: str | None = None
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def __post_init__(self) -> None:
        kind = self.storage_type
        if not isinstance(kind, str) or (kind := _OTHER_NAMES.get(kind.lower(), kind.lower())) not in _TAKES:
            known = ", ".join(_TAKES)
            raise StorageRefused(f"no storage_type {self.storage_type!r:.60}", hint=f"known are: {known}")
        object.__setattr__(self, "storage_type", kind)
        given = {each for each in _FIELDS if getattr(self, each) is not None}
        takes = {each.rstrip("*") for each in _TAKES[kind]}
        needs = {each.rstrip("*") for each in _TAKES[kind] if each.endswith("*")}
        for each in sorted(given):
            value = getattr(self, each)
            if each != "credential" and not isinstance(value, str | PathLike):
                raise StorageRefused(f"{each} is text, not {type(value).__name__}")
            if not value:
                raise StorageRefused(f"{each} is empty", hint=_hint(kind, each))
        if missing := sorted(needs - given):
            raise StorageRefused(f"storage_type {kind!r} needs {missing[0]}", hint=_hint(kind, missing[0]))
        if wrong := sorted(given - takes):
            known = ", ".join(sorted(takes)) or "nothing"
            raise StorageRefused(f"storage_type {kind!r} does not take {wrong[0]}", hint=f"it takes {known}")
        self._check_parts(given)

    def _check_parts(self, given: set[str]) -> None:
        kind, text = self.storage_type, self.connection_string or ""
        if kind in _SCHEMES and not text.startswith(_SCHEMES[kind]):
            # Not shown: it may hold a password.
            raise StorageRefused(f"the connection_string of {kind} is a URL", hint=_hint(kind, "connection_string"))
        if kind == "azure":
            if len(given & {"connection_string", "account_url"}) != 1:
                hint = "connection_string, or account_url with a credential such as DefaultAzureCredential()"
                raise StorageRefused(
                    "storage_type 'azure' needs connection_string or account_url, and not both", hint=hint
                )
            if self.connection_string and self.credential is not None:
                raise StorageRefused("a connection_string has its own key: it takes no credential")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise StorageRefused("access_key_id and secret_access_key belong together")

    @property
    def address(self) -> str:
        """What `open_store` calls this storage; of PostgreSQL and Redis it may hold a password."""
        kind = self.storage_type
        if kind in ("file", "sqlite"):
            return f"{kind}:{fspath(self.base_path or '')}"
        if kind in _SCHEMES:
            return self.connection_string or ""
        if kind == "memory":
            return "memory:"
        name = self.bucket or self.container or CONTAINER
        return f"{kind}://{name}" + (f"/{self.prefix.strip('/')}" if self.prefix else "")

    def open(self) -> ObjectStore:
        """The store that this means; close it when done.

        Raises:
            MissingExtra: a package is needed; the message names the extra.
            StorageRefused: there is no such bucket or container.
            StorageUnavailable: it does not answer.
        """
        options = dict(self.options)
        for each in (*_S3, "connection_string", "account_url", "credential"):
            value = getattr(self, each)
            if value is not None and self.storage_type not in _SCHEMES:
                options[_NAMES.get((self.storage_type, each), each)] = value
        try:
            return open_store(self.address, **options)
        except StorageRefused:
            if self.storage_type != "azure" or self.container is not None:
                raise
            # Whoever names no container has none: ours is made once, as a directory would be.
            self._make_container()
            return open_store(self.address, **options)

    def _make_container(self) -> None:
        door: Any = import_module("holdfast.objects.azure_door")
        options = {each: self.options[each] for each in ("urls", "ca_file") if each in self.options}
        account = door.AzureAccount(
            self.connection_string, account_url=self.account_url, credential=self.credential, **options
        )
        try:
            client = account.containers()
            account.call(lambda: client.create_container(CONTAINER), f"create the container {CONTAINER!r}", again=True)
        except ObjectConflict:
            pass  # somebody else was faster
        finally:
            account.close()

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **given: Any) -> StorageConfig:
        """What the environment says.

        ``HOLDFAST_STORAGE`` is the type, and every other field has its own name: ``HOLDFAST_STORAGE_BASE_PATH``,
        ``HOLDFAST_STORAGE_BUCKET`` and so on. On Azure ``AZURE_STORAGE_CONNECTION_STRING`` is looked at too.

        Args:
            environ: in place of the process's own.
            given: fields that do not come from there.

        Raises:
            StorageRefused: a combination that cannot be.
        """
        environ = os.environ if environ is None else environ
        found: dict[str, Any] = {
            each: environ[name]
            for each in _FIELDS
            if each != "credential" and environ.get(name := f"HOLDFAST_STORAGE_{each.upper()}")
        }
        if environ.get("HOLDFAST_STORAGE"):
            found["storage_type"] = environ["HOLDFAST_STORAGE"]
        found |= given
        usual = environ.get("AZURE_STORAGE_CONNECTION_STRING")
        if found.get("storage_type") == "azure" and usual and not {"connection_string", "account_url"} & found.keys():
            found["connection_string"] = usual
        return cls(**found)


_FIELDS: Final = tuple(each.name for each in fields(StorageConfig) if each.name not in ("storage_type", "options"))
_HINTS: Final = {
    "base_path": "such as base_path='./data'",
    "bucket": "such as bucket='agents'",
    "container": "such as container='agents'",
    ("postgres", "connection_string"): "such as postgresql://user@host/database",
    ("redis", "connection_string"): "such as redis://localhost:6379/0",
    ("azure", "connection_string"): "os.getenv('AZURE_STORAGE_CONNECTION_STRING') is not set?",
}


def _hint(kind: str, name: str) -> str:
    return _HINTS.get((kind, name)) or _HINTS.get(name, "")
