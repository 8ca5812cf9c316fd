"""What is asked of the values of a collection, where a page ends, and what is answered."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from holdfast import query
from holdfast.corpus.rows import Stored
from holdfast.errors import UsageError
from holdfast.query import ABSENT, EVERYTHING, Condition

LIMIT_MAX: Final = 1_000
ORDER_MAX: Final = 4
OPAQUE: Final = b"\x01"
"""Stands in the index for a field that has something, but nothing with an order: an object, or a list of such."""
Func: TypeAlias = Literal["count", "sum", "avg", "min", "max", "distinct"]
FUNCS: Final = get_args(Func)
Load: TypeAlias = Callable[[Stored], Any]
"""Gives a record's value; raises `Sealed` or `Erased` where nobody here can read it, `NotCached` where it is away."""
_EXACT: Final = 1 << 53


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which values of a collection are wanted, in which order, and how many of them.

    Attributes:
        collection: the collection.
        agents: whose; empty: anybody's in this corpus.
        condition: what holds of them, see `holdfast.query`.
        order: fields, the first the most important; with a minus before the name the largest first. Of several members
            of a field the smallest counts, or from the largest on the largest. Texts are ordered by their first 200
            bytes, values of different kinds by kind (nothing, objects, false, true, numbers, texts). Equals, and all
            where no field is named, stand in the order in which their keys were first written (the latest first
            behind a last field with a minus).
        after: the cursor of the page before; None: from the start.
        limit: the most values, at most `LIMIT_MAX`.
    """

    collection: str
    agents: tuple[str, ...] = ()
    condition: Condition = EVERYTHING
    order: tuple[str, ...] = ()
    after: str | None = None
    limit: int = 100


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        found: the records, in order.
        cursor: what to give as `after` for the next page; None at the end.
        values: what records hold, by their `pos`, of those that had to be looked at: nobody need load them again.
        way: how they were found, for whoever asks why it took so long: ``scan`` read every value of the collection,
            ``collect:<field>`` took all candidates of one test and sorted them, ``walk:<field>`` (or ``walk``) went
            along an order until there was enough; ``+look`` behind it read the candidates' values.
    """

    found: list[Stored]
    cursor: str | None = None
    values: dict[int, Any] = {}
    way: str = ""


class Group(msgspec.Struct, frozen=True):
    """What one group of values adds up to: its member of the field grouped by (None: it has none), and a result for
    each function asked for, in order; None where there is nothing to reckon with.
    """

    by: Any
    results: tuple[Any, ...]


class Order(msgspec.Struct, frozen=True):
    """One field of an order."""

    field: str
    down: bool


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """Where a page ended: which query it was of, the last value's keys in its order, and its id."""

    of: bytes
    keys: tuple[bytes, ...]
    id: int


def keys_of(value: Any, field: str) -> list[bytes]:
    """What the index keeps of a value at a field, each once and in order; never nothing."""
    found = query.sort_keys(value, field)
    return [OPAQUE] if found == [ABSENT] and query.members(value, field) else found


def words_of(value: Any, field: str) -> list[bytes]:
    """The words of the texts at a field, as the index keeps them, each once and in order; never nothing."""
    texts = [each for each in query.members(value, field) if isinstance(each, str)]
    words = {query.sort_key(word) or b"" for text in texts for word in query.words_of(text)}
    return sorted(words) or [ABSENT]


def told_apart(value: Any) -> bool:
    """Whether the index knows this value from every other."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return abs(value) < _EXACT  # the number next to the last that is exact has its bytes
    return query.told_apart(value)


def value_of(key: bytes) -> Any:
    """The value that the index keeps under these bytes; of a long text its beginning, None for none."""
    kind, rest = key[:1], key[1:]
    if kind == b"\x20":
        bits = int.from_bytes(rest, "big")
        bits ^= 1 << 63 if bits >> 63 else 0xFFFFFFFFFFFFFFFF
        number: float = _double(bits)
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number
    if kind == b"\x30":
        return rest.decode("utf-8", "ignore")
    return {b"\x10": False, b"\x11": True}.get(kind)


def _double(bits: int) -> float:
    import struct

    found: float = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    return found


def checked(asked: Query) -> tuple[Order, ...]:
    """The order that is asked for, if the whole can be answered.

    Raises:
        UsageError: a condition, an order or a limit that means nothing.
    """
    query.checked(asked.condition)
    if not 1 <= asked.limit <= LIMIT_MAX:
        raise UsageError(f"a page of {asked.limit}", hint=f"1 to {LIMIT_MAX}; the cursor leads on")
    if len(asked.order) > ORDER_MAX:
        raise UsageError(f"an order of {len(asked.order)} fields", hint=f"at most {ORDER_MAX}")
    found = tuple(_order(each) for each in asked.order)
    if len({each.field for each in found}) < len(found):
        raise UsageError(f"an order names a field twice: {', '.join(asked.order)}")
    return found


def _order(name: str) -> Order:
    down = isinstance(name, str) and name.startswith("-")
    return Order(query.check_field(name[1:] if down else name), down)


def cursor_of(asked: Query, keys: Sequence[bytes], number: int) -> str:
    """The text that a page ends with."""
    data = msgspec.msgpack.encode(Cursor(_print(asked), tuple(keys), number))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def read_cursor(asked: Query) -> Cursor | None:
    """Where the page before ended; None from the start.

    Raises:
        UsageError: it is no cursor, or that of another query.
    """
    if asked.after is None:
        return None
    hint = "give the cursor of the page before, with the same collection, agents, condition and order"
    try:
        data = base64.b64decode(asked.after + "=" * (-len(asked.after) % 4), b"-_", validate=True)
        found = msgspec.msgpack.decode(data, type=Cursor)
    except (msgspec.MsgspecError, binascii.Error, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"no cursor: {asked.after!r:.80}", hint=hint) from error
    if found.of != _print(asked) or len(found.keys) != len(asked.order) or not 0 <= found.id < 1 << 63:
        raise UsageError("this is the cursor of another query", hint=hint)
    return found


def _print(asked: Query) -> bytes:
    said = [asked.collection, sorted(set(asked.agents)), query.to_json(asked.condition), asked.order]
    return hashlib.blake2b(msgspec.json.encode(said, order="sorted"), digest_size=8).digest()


class Place:
    """Where a value stands among others: by its keys in the order asked for, then by its id.

    Args:
        order: the order.
        keys: its key for each field of the order.
        number: its id.
    """

    __slots__ = ("downs", "keys", "number")

    def __init__(self, order: Sequence[Order], keys: Sequence[bytes], number: int) -> None:
        self.downs = [each.down for each in order]
        self.keys, self.number = tuple(keys), number

    def __lt__(self, other: Place) -> bool:
        for mine, theirs, down in zip(self.keys, other.keys, self.downs, strict=True):
            if mine != theirs:
                return (mine > theirs) if down else (mine < theirs)
        return (self.number > other.number) if latest_first(self.downs) else (self.number < other.number)


def latest_first(downs: Sequence[bool]) -> bool:
    """Whether equals stand with the latest first."""
    return bool(downs) and downs[-1]


def keys_in(order: Iterable[Order], value: Any) -> tuple[bytes, ...]:
    """The keys by which a value is ordered."""
    return tuple(keys_of(value, each.field)[-1 if each.down else 0] for each in order)
