"""Vectors as bytes, and how near they are to each other: with numpy where it is installed, the only module that knows.

A vector lies as 32-bit floats, little-endian, of length 1: the product of two is the cosine of their angle.
"""

from __future__ import annotations

import functools
import math
import operator
import struct
import sys
from array import array
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Final

from holdfast.errors import UsageError

PLAIN_MAX: Final = 20_000
"""So many vectors are compared without numpy: some 0.3 s at 384 numbers each, where numpy takes a millisecond."""
BLOCK_BYTES: Final = 4 << 20


@functools.cache
def engine() -> Any:
    """numpy, or None where it is not installed; it is loaded when vectors are first compared."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def has_numpy() -> bool:
    """Whether numpy is installed; loads nothing."""
    return find_spec("numpy") is not None


def pack(vector: Sequence[float]) -> bytes:
    """A vector of length 1 in bytes; one of nothing but zeros stays as it is, and is near to nothing.

    Raises:
        UsageError: it holds something else than finite numbers.
    """
    try:
        numbers = [float(each) for each in vector]
    except (TypeError, ValueError) as error:
        raise UsageError(f"a vector is a sequence of numbers: {error}") from error
    length = math.sqrt(math.fsum(each * each for each in numbers))
    if not math.isfinite(length):
        raise UsageError("a vector holds a number that is not finite", hint="the embedding function is to be looked at")
    length = length or 1.0
    return struct.pack(f"<{len(numbers)}f", *[each / length for each in numbers])


def scores(query: Sequence[float], vectors: Sequence[bytes]) -> list[float]:
    """The cosine of the angle to each vector, of any length; 0 where one of both is nothing, or of other dimensions."""
    if not vectors:
        return []
    size, numpy = len(query), engine()
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


class Rows:
    """Packed vectors of one size, in blocks: what is added copies nothing that was there.

    Args:
        dims: the numbers of each.
    """

    def __init__(self, dims: int) -> None:
        self.dims = dims
        self.count = 0
        self._each = max(16, BLOCK_BYTES // (4 * dims))
        self._blocks: list[Any] = []
        self._numpy = engine()

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self._blocks) * self._each * self.dims * 4

    def add(self, vectors: Sequence[bytes]) -> None:
        """Takes vectors in, behind those that are there."""
        numpy = self._numpy
        for each in vectors:
            if self.count == len(self._blocks) * self._each:
                self._blocks.append(numpy.empty((self._each, self.dims), dtype="<f4") if numpy else [])
            if numpy is None:
                self._blocks[-1].append(_floats(each))
            else:
                self._blocks[-1][self.count % self._each] = numpy.frombuffer(each, dtype="<f4")
            self.count += 1

    def near(self, query: bytes, most: int) -> list[tuple[int, float]]:
        """The numbers of the nearest rows and their cosines, the nearest first; of equals the later first."""
        if not self.count:
            return []
        numpy = self._numpy
        if numpy is None:
            wanted = _floats(query)
            rows = (row for block in self._blocks for row in block)
            found = [(sum(map(operator.mul, row, wanted)), number) for number, row in enumerate(rows)]
            found.sort(reverse=True)
            return [(number, score) for score, number in found[:most]]
        one = numpy.frombuffer(query, dtype="<f4")
        there = [block[: min(self._each, self.count - n * self._each)] for n, block in enumerate(self._blocks)]
        # Not by BLAS (@): its threads wait for each other in a loop, which on a busy machine took 50 times as long, and
        # on an idle one it was no faster: 17 ms for 100,000 vectors of 384 numbers, and 9 this way.
        parts = [numpy.einsum("ij,j->i", block, one) for block in there]
        every: Any = numpy.concatenate(parts)
        some = most < self.count
        chosen = numpy.argpartition(-every, most - 1)[:most] if some else numpy.arange(self.count)
        order = numpy.lexsort((-chosen, -every[chosen]))
        return [(int(chosen[each]), float(every[chosen[each]])) for each in order]


def _floats(data: bytes) -> array[float]:
    made = array("f", data)
    if sys.byteorder == "big":
        made.byteswap()
    return made
