"""What is new in a list against the one before it: members are known by their bytes, wherever they stand.

A list is kept as steps: ``[start, count]`` takes members of the list before it, ``{"n": count, "s": …}`` holds new
ones. So a conversation costs what is added to it, one whose beginning is cut off too, and a member that is changed
costs that member.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from holdfast.errors import IntegrityError
from holdfast.integrations.langgraph.packing import all_bytes, members, text_of


class Lost(IntegrityError):
    """What a checkpoint builds on is not there (any more, or yet)."""


RUN_BYTES_MIN: Final = 16
"""Members that are shorter, taken together, are said again: naming them would cost as much."""


class Body(msgspec.Struct, frozen=True, gc=False):
    """A list: how many members, their bytes in msgpack one after another, and a checksum of these."""

    count: int
    data: bytes
    crc: int


def body_of(count: int, data: bytes, base: Body | None = None) -> Body:
    """A list; `base` is one that it may begin with, whose checksum then is a part of the work."""
    if base is not None and data.startswith(base.data):
        return Body(count, data, zlib.crc32(memoryview(data)[len(base.data) :], base.crc))
    return Body(count, data, zlib.crc32(data))


def steps_of(base: Body | None, new: Body) -> tuple[list[Any], int]:
    """The steps from a list to another, and how many bytes of it are new."""
    if base is None or not base.count:
        return ([_fresh(new.count, new.data)] if new.count else []), len(new.data)
    if new.count >= base.count and new.data.startswith(base.data):  # by far the most frequent: something was added
        steps: list[Any] = [[0, base.count]]
        if new.count > base.count:
            steps.append(_fresh(new.count - base.count, new.data[len(base.data) :]))
        return steps, len(new.data) - len(base.data)
    return _compared(members(base.count, base.data), members(new.count, new.data))


def _compared(old: list[bytes], new: list[bytes]) -> tuple[list[Any], int]:
    where: dict[bytes, int] = {}
    for number, member in enumerate(old):
        where.setdefault(member, number)
    runs: list[tuple[int, list[bytes]]] = []  # where it begins in the old list (or -1: nowhere), and its members
    for member in new:
        last = runs[-1] if runs else None
        if (last and last[0] >= 0 and (at := last[0] + len(last[1])) < len(old) and old[at] == member) or (
            (start := where.get(member, -1)) < 0 and last and last[0] < 0
        ):
            last[1].append(member)
        else:
            runs.append((start, [member]))
    steps: list[Any] = []
    waiting: list[bytes] = []
    fresh = 0
    for start, run in [*runs, (0, [])]:
        if run and (start < 0 or sum(map(len, run)) < RUN_BYTES_MIN):
            waiting += run
            continue
        if waiting:
            data = b"".join(waiting)
            steps.append(_fresh(len(waiting), data))
            fresh += len(data)
            waiting = []
        if run:
            steps.append([start, len(run)])
    return steps, fresh


def walked(base: Body | None, lots: list[tuple[list[Any], int | None]]) -> Body:
    """The list at the end of several lots of steps, each from the list before it, whose checksum stands beside it.

    Raises:
        Lost: they begin with another one.
        IntegrityError: they are none of this adapter's.
    """
    count, pieces, crc = (base.count, [base.data], base.crc) if base else (0, [], 0)
    known = iter(all_bytes([step for steps, _ in lots for step in steps if type(step) is dict]))
    for steps, expected in lots:
        if expected is not None and expected != crc:
            raise Lost("a list builds on another one than is there", hint="was a checkpoint's id used twice?")
        added = steps[1:]
        if not (steps and steps[0] == [0, count] and all(isinstance(step, dict) for step in added)):
            count, pieces = _taken(count, b"".join(pieces), steps, known)
            crc = zlib.crc32(b"".join(pieces))
            continue
        for step in added:  # all of it stays: nothing is to be taken apart
            data = next(known)
            count, crc = count + step["n"], zlib.crc32(data, crc)
            pieces.append(data)
    return Body(count, b"".join(pieces), crc)


def _taken(count: int, data: bytes, steps: list[Any], known: Iterator[bytes]) -> tuple[int, list[bytes]]:
    old = members(count, data) if any(isinstance(step, list) for step in steps) else []
    total, pieces = 0, list[bytes]()
    for step in steps:
        if isinstance(step, list):
            start, length = step
            if not 0 <= start <= start + length <= len(old):
                raise IntegrityError(f"members {start} to {start + length} of a list of {len(old)}")
            pieces += old[start : start + length]
            total += length
        else:
            pieces.append(next(known))
            total += step["n"]
    return total, pieces


def _fresh(count: int, data: bytes) -> dict[str, Any]:
    return {"n": count, **text_of(data)}
