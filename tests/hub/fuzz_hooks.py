"""What schemathesis cannot know by itself: how our media types are written. It is loaded by its own process."""

from __future__ import annotations

from typing import Any

import msgspec
import schemathesis

from holdfast import wire


@schemathesis.serializer(wire.MEDIA)
def as_msgpack(_: Any, value: Any) -> Any:
    """A value as msgpack."""
    return value if isinstance(value, bytes) else msgspec.msgpack.encode(_plain(value))


def _plain(value: Any) -> Any:
    """The value with numbers and texts that msgpack can hold."""
    if isinstance(value, dict):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 64:
        return float(value)
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
