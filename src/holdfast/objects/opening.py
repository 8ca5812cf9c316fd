"""A store by its address: ``file:./data``, ``sqlite:objects.db``, ``s3://bucket/prefix``, ``memory:`` and others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, TypeAlias

from holdfast.errors import StorageRefused
from holdfast.objects.port import ObjectStore

Opener: TypeAlias = Callable[..., ObjectStore]
"""Takes an address and options by name."""

# The scheme's module and what opens it there; loaded when it is asked for.
_OPENERS: Final = {
    "switch": ("holdfast.objects.moving.switch", "open_switch"),
    "file": ("holdfast.objects.files.store", "open_file"),
    "memory": ("holdfast.objects.memory", "open_memory"),
    "postgres": ("holdfast.objects.postgres_store", "open_postgres"),
    "postgresql": ("holdfast.objects.postgres_store", "open_postgres"),
    "redis": ("holdfast.objects.redis", "open_redis"),
    "rediss": ("holdfast.objects.redis", "open_redis"),
    "sqlite": ("holdfast.objects.sqlite", "open_sqlite"),
    "azure": ("holdfast.objects.cloud.azure", "open_azure"),
    "gcs": ("holdfast.objects.cloud.gcs", "open_gcs"),
    "s3": ("holdfast.objects.cloud.s3", "open_s3"),
}
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):")


def open_store(address: str, *, openers: Mapping[str, Opener] | None = None, **options: Any) -> ObjectStore:
    """The store at an address; made, where a store can be made, if it is not there.

    Args:
        address: ``memory:``, ``file:<directory>``, ``sqlite:<file>``, ``postgresql://…``, ``redis://…``,
            ``s3://<bucket>[/<prefix>]``, ``azure://<container>[/<prefix>]``, ``gcs://<bucket>[/<prefix>]``.
        openers: for more schemes than these, by name.
        options: of the scheme: see `docs/objects.md`.

    Returns:
        The store; close it when done.

    Raises:
        StorageRefused: an address that means no store, or an option that it does not have.
        MissingExtra: a package is needed; the message names the extra.
        StorageUnavailable: it does not answer.
    """
    found = _SCHEME.match(address) if isinstance(address, str) else None
    if found is None:
        raise StorageRefused(f"not a store's address: {_shown(address)}", hint="such as file:./data or s3://bucket")
    scheme = found[1]
    opener = (openers or {}).get(scheme)
    if opener is None:
        where = _OPENERS.get(scheme)
        if where is None:
            known = ", ".join(sorted({*_OPENERS, *(openers or {})}))
            hint = "use holdfast.open_store" if scheme == "holdfast" else f"known are: {known}"
            raise StorageRefused(f"no store is addressed by {scheme}:", hint=hint)
        opener = getattr(import_module(where[0]), where[1])
    try:
        return opener(address, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise StorageRefused(f"{scheme}: {str(error).rpartition(') ')[2]}", hint="see docs/objects.md") from None


def _shown(address: object) -> str:
    """What of an address may be shown: no password."""
    return re.sub(r"//[^@/]*@", "//…@", repr(address))[:120]
