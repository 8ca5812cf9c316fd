"""How near texts are to each other, by their vectors: exactly, over all of them, with numpy where it is installed."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import Any

from holdfast.errors import IntegrityError, UsageError

try:
    import numpy
except ImportError:
    numpy = None


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


def scores(query: Sequence[float], vectors: Sequence[bytes]) -> list[float]:
    """The cosine of the angle to each vector; 0 where one of both is nothing, or of another length."""
    if not vectors:
        return []
    size = len(query)
    if numpy is None:
        return [_cosine(query, struct.unpack(f"<{len(each) // 4}f", each)) for each in vectors]
    fits = [number for number, each in enumerate(vectors) if len(each) == 4 * size]
    out = [0.0] * len(vectors)
    if fits:
        matrix = numpy.frombuffer(b"".join([vectors[number] for number in fits]), dtype="<f4").reshape(len(fits), size)
        wanted = numpy.asarray(query, dtype="<f4")
        length: Any = numpy.linalg.norm(matrix, axis=1) * numpy.linalg.norm(wanted)
        found = (matrix @ wanted) / numpy.where(length == 0, 1, length)
        for number, score in zip(fits, found.tolist(), strict=True):
            out[number] = score
    return out


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        return 0.0
    length = math.sqrt(sum(each * each for each in one)) * math.sqrt(sum(each * each for each in other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / length if length else 0.0
