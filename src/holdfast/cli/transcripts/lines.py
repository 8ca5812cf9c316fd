"""JSON Lines, read so that one broken line costs one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from holdfast.cli.transcripts.said import Bad


def objects(data: bytes) -> Iterator[tuple[int, dict[str, Any]] | Bad]:
    """Each line's number and object; blank lines are passed over, what is no object is `Bad`.

    A last line that was cut off (its writer is at work, or died) is bad like any other, and read the next time.
    """
    decode = msgspec.json.Decoder().decode
    for number, line in enumerate(data.split(b"\n"), start=1):
        line = line.strip()
        if not line:
            continue
        try:
            value = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield Bad(number, f"not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            yield Bad(number, f"not an object but {type(value).__name__}")
