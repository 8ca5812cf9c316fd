"""What of records is embedded: their values, as texts of at most a piece each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from holdfast import codec
from holdfast.corpus.rows import Stored
from holdfast.corpus.search.chunks import cut, text_in
from holdfast.corpus.search.indexes import AGAIN, LOT, Declared, Lot
from holdfast.errors import NotFound
from holdfast.wire import HERE

Load: TypeAlias = Callable[[Stored], Any]
"""Gives a value that does not lie in its record; raises a `HoldfastError` where it is not to be had."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to be embedded: the pieces of each record by its position, and what of the lot cannot even be read."""

    after: int
    upto: int
    texts: Mapping[int, tuple[str, ...]] = {}
    failed: Mapping[int, str] = {}


def task_of(lot: Lot, declared: Declared, load: Load | None) -> Task:
    """The texts of a lot; where they become too many for one call, of its first records.

    Args:
        lot: records.
        declared: what of them is embedded.
        load: gives values that do not lie in their record.
    """
    texts: dict[int, tuple[str, ...]] = {}
    failed: dict[int, str] = {}
    upto, many = lot.upto, 0
    for number, stored in enumerate(lot.records):
        try:
            pieces = tuple(cut(text_in(value_of(stored, load), declared.fields), declared.chunk))
        except Exception as error:  # whatever a value is, it holds no other up
            failed[stored.pos] = said(error)
            continue
        texts[stored.pos] = pieces
        many += len(pieces)
        if many >= LOT and number + 1 < len(lot.records):
            upto = AGAIN if lot.upto == AGAIN else stored.pos
            break
    return Task(after=lot.after, upto=upto, texts=texts, failed=failed)


def value_of(stored: Stored, load: Load | None) -> Any:
    """A record's value, from here or from where it is.

    Raises:
        HoldfastError: it is not to be had.
    """
    if load is not None and (stored.is_blob or stored.why != HERE):
        return load(stored)
    if stored.is_blob:
        raise NotFound("the value lies outside the log")
    return codec.deserialise(stored.record.fmt, stored.payload())


def said(error: BaseException) -> str:
    """What an error says, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.200}" if text else type(error).__name__
