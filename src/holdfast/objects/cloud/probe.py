"""What a server does with conditions and names, tried out on the bucket itself when it is opened.

Two of four S3 servers that we ran take If-None-Match and If-Match without a word and overwrite (ADR 0025). So nothing
is believed: what a server ignored, the store lacks, and refuses. The objects lie under a prefix that no key may have
and no listing shows; what a probe that was killed left there, a later one removes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from datetime import timedelta
from typing import Any, Final

import msgspec

from holdfast.errors import HoldfastError, ObjectNotFound, StorageUnavailable
from holdfast.objects.cloud.door import Bucket, Found, NotMet
from holdfast.objects.port import CREATE, NESTED, SWAP, TYPE

RESERVED: Final = ".holdfast-probe/"
_LEFT_BEHIND: Final = timedelta(hours=1)
_PART: Final = 8 << 20
_PLAIN: Final = {"Content-Type": TYPE}


class Claims(msgspec.Struct, frozen=True):
    """What was found."""

    lacks: frozenset[str]
    notes: tuple[str, ...] = ()
    dots: bool = False
    """Whether a dot at the end of a segment is lost."""

    @classmethod
    def none(cls) -> Claims:
        """What may be said of a server that was not tried out."""
        note = "the server was not tried out, so no condition is trusted to it"
        return cls(frozenset({CREATE, SWAP}), (note,))


_kept: dict[str, Claims] = {}
_lock = threading.Lock()


def _forked() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)


def probed(bucket: Bucket, prefix: str, known: str, by_version: bool) -> Claims:
    """What the server keeps of what its like promise; tried out once a process and bucket.

    Args:
        bucket: its raw calls.
        prefix: the store's own.
        known: names the server and the bucket.
        by_version: whether a condition needs the version.

    Raises:
        StorageUnavailable: it does not answer, or does not show what was just written.
        StorageDenied: these credentials may not write there.
    """
    with _lock:
        found = _kept.get(known)
    if found is None:
        found = _tried(bucket, f"{prefix}{RESERVED}{uuid.uuid4().hex}", by_version)
        with _lock:
            _kept[known] = found
    return found


def _tried(bucket: Bucket, place: str, by_version: bool) -> Claims:
    names = [f"{place}/x", f"{place}/n", f"{place}/n/n", f"{place}/d.", f"{place}/z"]
    try:
        lacks, notes = _conditions(bucket, names[0], by_version)
        nests, dots = _names(bucket, names)
        if not nests:
            lacks.add(NESTED)
            notes.append("it keeps objects as files: a key cannot be the beginning of another; see names='marked'")
        if dots:
            notes.append("it loses a dot at the end of a segment, so such keys are refused")
        return Claims(frozenset(lacks), tuple(notes), dots)
    finally:
        _swept(bucket, place, names)


def _conditions(bucket: Bucket, name: str, by_version: bool) -> tuple[set[str], list[str]]:
    lacks: set[str] = set()
    notes: list[str] = []

    def put(body: bytes, condition: Any) -> bool:
        try:
            bucket.put(name, body, _PLAIN, condition, _PART)
        except (NotMet, ObjectNotFound):
            return False
        return True

    def swap(found: Found) -> dict[str, str]:
        return {"e_tag": found.etag, **({"version": found.version} if by_version and found.version else {})}

    if not put(b"1", "create"):
        lacks.add(CREATE)
        notes.append("it refuses to create what is not there")
        put(b"1", None)
    first = bucket.head(name)
    if put(b"2", "create") or _body(bucket, name) != b"1":
        lacks.add(CREATE)
        notes.append("it ignores If-None-Match: a second creation overwrote the first without a word")
        put(b"1", None)
        first = bucket.head(name)
    if not put(b"3", swap(first)):
        lacks.add(SWAP)
        notes.append("it refuses an If-Match that is true")
    elif put(b"4", swap(first)) or _body(bucket, name) != b"3":
        lacks.add(SWAP)
        notes.append("it ignores If-Match: a write with a stale ETag overwrote a newer one without a word")
    _missing(bucket, f"{name[:-1]}z", swap(first), lacks, notes)
    return lacks, notes


def _missing(bucket: Bucket, name: str, condition: Any, lacks: set[str], notes: list[str]) -> None:
    """A deletion of nothing is no error, and nothing is swapped for what is not there."""
    with contextlib.suppress(ObjectNotFound):
        bucket.delete(name)
    if SWAP in lacks:
        return
    try:
        bucket.put(name, b"5", _PLAIN, condition, _PART)
    except (NotMet, ObjectNotFound):
        return
    lacks.add(SWAP)
    notes.append("it ignores If-Match where there is no object")


def _names(bucket: Bucket, names: list[str]) -> tuple[bool, bool]:
    bucket.put(names[1], b"n", _PLAIN, None, _PART)
    nests = True
    try:
        bucket.hasty().put(names[2], b"nn", _PLAIN, None, _PART)
        nests = _body(bucket, names[1]) == b"n" and _body(bucket, names[2]) == b"nn"
    except HoldfastError:
        nests = False
    bucket.put(names[3], b"d", _PLAIN, None, _PART)
    seen = {found.name for found in bucket.list(names[0].rpartition("/")[0], "")}
    if names[0] not in seen or names[1] not in seen:
        raise StorageUnavailable(
            f"{bucket.name} does not list what was just written there", hint="a store must show it at once"
        )
    return nests and names[2] in seen, names[3] not in seen


def _body(bucket: Bucket, name: str) -> bytes:
    return b"".join(bucket.get(name, 0, None)[2])


def _swept(bucket: Bucket, place: str, names: list[str]) -> None:
    """Removes what lies there; gives up at once where nobody answers."""
    bucket = bucket.hasty()
    try:
        found = list(bucket.list(place.rpartition("/")[0], ""))
        newest = max((it.modified for it in found), default=None)
        old = [it.name for it in found if newest is not None and newest - it.modified > _LEFT_BEHIND]
        for name in [*reversed(names), *old]:
            with contextlib.suppress(ObjectNotFound):
                bucket.delete(name)
    except (HoldfastError, NotMet):
        pass  # a later probe will
