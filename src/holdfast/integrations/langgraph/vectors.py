"""How near texts are to each other, by their vectors: exactly, over all of them, with numpy where it is installed."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence

from holdfast.corpus.search.numbers import scores as scores
from holdfast.errors import IntegrityError, UsageError


def to_text(vector: Sequence[float], dims: int | None) -> str:
    """A vector for a row: 32-bit numbers, as base64.

    Raises:
        UsageError: it has not as many numbers as were said, or holds one that is none.
    """
    numbers = [float(each) for each in vector]
    if (dims and len(numbers) != dims) or not all(map(math.isfinite, numbers)):
        raise UsageError(
            f"the embedding function gave {len(numbers)} numbers where {dims or 'finite ones'} were expected",
            hint="index={'dims': …} must be what its model makes",
        )
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def from_text(text: str) -> bytes:
    """The numbers in a row.

    Raises:
        IntegrityError: there are none.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise IntegrityError(f"a vector that is none of this adapter's: {text!r:.80}") from error
    if len(data) % 4:
        raise IntegrityError(f"a vector of {len(data)} bytes")
    return data
