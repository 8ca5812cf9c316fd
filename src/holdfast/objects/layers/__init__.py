"""Layers: each is an object store over another one, and adds one thing to it.

    store = stack(open_store("s3://bucket"), partial(Sealed, keys=ring), Compressed, Cached)

The last one is the outermost: the caller's bytes come to it plain, and each layer hands to the next what it made of
them. `holdfast.objects.layers.layer` has the orders that are refused, with the reasons. Names are looked up when first
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.objects.layers.audited import Audited
    from holdfast.objects.layers.cached import Cached
    from holdfast.objects.layers.compressed import Compressed
    from holdfast.objects.layers.fallback import Fallback
    from holdfast.objects.layers.layer import Layer, stack
    from holdfast.objects.layers.limited import Limited, Quotas
    from holdfast.objects.layers.logged import Logged
    from holdfast.objects.layers.metered import Metered
    from holdfast.objects.layers.mirrored import Mirrored
    from holdfast.objects.layers.retrying import Retrying
    from holdfast.objects.layers.sealed import Sealed

__all__ = [
    "Audited",
    "Cached",
    "Compressed",
    "Fallback",
    "Layer",
    "Limited",
    "Logged",
    "Metered",
    "Mirrored",
    "Quotas",
    "Retrying",
    "Sealed",
    "stack",
]

# One line a module, so that two people who add to it do not meet.
_WHERE = {
    "holdfast.objects.layers.audited": ("Audited",),
    "holdfast.objects.layers.cached": ("Cached",),
    "holdfast.objects.layers.compressed": ("Compressed",),
    "holdfast.objects.layers.fallback": ("Fallback",),
    "holdfast.objects.layers.layer": ("Layer", "stack"),
    "holdfast.objects.layers.limited": ("Limited", "Quotas"),
    "holdfast.objects.layers.logged": ("Logged",),
    "holdfast.objects.layers.metered": ("Metered",),
    "holdfast.objects.layers.mirrored": ("Mirrored",),
    "holdfast.objects.layers.retrying": ("Retrying",),
    "holdfast.objects.layers.sealed": ("Sealed",),
}


def __getattr__(name: str) -> Any:
    where = next((module for module, names in _WHERE.items() if name in names), None)
    if where is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(where), name)
    globals()[name] = found
    return found
