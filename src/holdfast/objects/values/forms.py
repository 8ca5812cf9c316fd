"""Values that JSON cannot say, said in JSON: ``{"$hf:bytes": "aGk="}``. Pure: values to JSON trees and back.

What JSON can say is said plainly, so a stored document reads as anybody would have written it. Everything else becomes
an object with one member whose name begins with ``$hf:``; a dict that looks so already is wrapped in ``$hf:dict``.
Only exact types are said: an `OrderedDict` that came back as a dict would be a silent change.
"""

from __future__ import annotations

import array
import base64
import math
import re
import sys
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from holdfast.errors import HoldfastError, MissingExtra, StorageRefused
from holdfast.objects.values.types import Types

MARK: Final = "$hf:"
_INT_LEAST: Final = -(1 << 63)
_INT_MOST: Final = (1 << 64) - 1
_PLAIN: Final = frozenset({str, bool, type(None)})
_NUMBER_CODES: Final = "bBhHiIlLqQfd"
_DTYPE: Final = re.compile(r"[<>|][biufcSU]\d{1,9}|[<>][mM]8(\[[0-9A-Za-z]{1,20}\])?")
DEPTH_MAX: Final = 200
"""Whoever reads has perhaps less of Python's stack left than whoever wrote had."""
TOO_DEEP: Final = f"it is nested more than {DEPTH_MAX} deep, or contains itself"
_PATH_MAX: Final = 300
_FOLD: Final = "[fold]"
_ZONED: Final = re.compile(r"(.+)\[([A-Za-z0-9_+/-]+)\]")


class Unsayable(Exception):
    """A value that cannot be stored; the way to it is collected while it rises."""

    def __init__(self, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint
        self.path: list[str] = []

    def inside(self, step: object) -> Unsayable:
        """The same, one level further out."""
        self.path.append(f"[{step!r:.60}]")
        return self

    @property
    def where(self) -> str:
        """The way from the value that was to be stored, such as ``['a'][3]``."""
        path = "".join(reversed(self.path))
        return path if len(path) <= _PATH_MAX else path[:_PATH_MAX] + "…"


class Said(msgspec.Struct, frozen=True):
    """A form that is made already, to be said as it is: what another reader found that has no value here."""

    name: str
    body: Any


class Sayer:
    """Says values in JSON.

    Args:
        types: the user's classes.
    """

    def __init__(self, types: Types) -> None:
        self._types = types
        self._depth = 0
        self.structured = False
        """Whether a class of the user's was met."""

    def say(self, value: Any) -> Any:
        """The JSON tree; the value itself where it is one.

        Raises:
            Unsayable: it, or something within, cannot be stored.
        """
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is dict:
            return self._dict(value)
        if kind is list:
            return self._list(value)
        if kind is float:
            return value if math.isfinite(value) else {MARK + "float": str(value)}
        if kind is int:
            return value if _INT_LEAST <= value <= _INT_MOST else {MARK + "int": hex(value)}
        form = _FORMS.get(kind)
        if form is not None:
            return {MARK + form[0]: form[1](value)}
        if kind is tuple:
            return {MARK + "tuple": self._list(value)}
        if kind in (set, frozenset):
            try:
                # The order of a set differs from one process to the next; the same value should give the same bytes.
                return {MARK + kind.__name__: sorted(self._list(tuple(value)), key=msgspec.json.encode)}
            except UnicodeEncodeError as error:
                raise Unsayable("text with half of a surrogate pair", "store bytes instead") from error
        return self._other(value, kind)

    def _list(self, value: list[Any] | tuple[Any, ...]) -> list[Any]:
        self._deeper()
        out = value if type(value) is list else list(value)
        for at, each in enumerate(value):
            if type(each) in _PLAIN:
                continue
            try:
                said = self.say(each)
            except Unsayable as error:
                raise error.inside(at) from None
            if said is not each:
                if out is value:
                    out = list(value)
                out[at] = said
        self._depth -= 1
        return out

    def _dict(self, value: dict[Any, Any]) -> Any:
        self._deeper()
        out = value
        for key, each in value.items():
            if type(key) is not str:
                out = {MARK + "map": [self._pair(*pair) for pair in value.items()]}
                self._depth -= 1
                return out
            if type(each) in _PLAIN:
                continue
            try:
                said = self.say(each)
            except Unsayable as error:
                raise error.inside(key) from None
            if said is not each:
                if out is value:
                    out = dict(value)
                out[key] = said
        self._depth -= 1
        if len(value) == 1 and next(iter(value)).startswith(MARK):
            return {MARK + "dict": out}
        return out

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise Unsayable(TOO_DEEP, "store its parts under keys of their own")

    def _pair(self, key: Any, value: Any) -> list[Any]:
        try:
            return [self.say(key), self.say(value)]
        except Unsayable as error:
            raise error.inside(key) from None

    def _other(self, value: Any, kind: type) -> Any:
        structure = self._types.of_class(kind)
        if structure is not None:
            self.structured = True
            try:
                if structure.check is not None:
                    structure.check(value)
                body = structure.encode(value)
            except Exception as error:
                raise Unsayable(f"a {structure.name} that is not in order: {error}") from error
            try:
                return {MARK + "object": {"type": structure.name, "value": self.say(body)}}
            except Unsayable as error:
                raise error.inside(structure.name) from None
        if kind is Said:
            return {MARK + value.name: value.body}
        numpy = sys.modules.get("numpy")  # who has an array has loaded it
        if numpy is not None and (kind is numpy.ndarray or isinstance(value, numpy.generic)):
            return _say_numpy(value, kind is numpy.ndarray)
        raise Unsayable(
            f"a {kind.__module__}.{kind.__qualname__} has no form: {value!r:.80}",
            "objects are not pickled: register its class (holdfast.objects.register), turn it into a dict, or save "
            "bytes in a format of its own",
        )


class Reader:
    """Makes values of what a `Sayer` said.

    Args:
        types: the user's classes.
    """

    def __init__(self, types: Types) -> None:
        self._types = types
        self._own: dict[str, Callable[[Any], Any]] = {
            "tuple": lambda body: tuple(self._items(body)),
            "set": lambda body: set(self._items(body)),
            "frozenset": lambda body: frozenset(self._items(body)),
            "map": lambda body: {self.read(key): self.read(value) for key, value in body},
            "dict": lambda body: self._members(_a(dict, body)),
            "object": self._object,
        }

    def read(self, value: Any) -> Any:
        """The value of a JSON tree, which it may change.

        Raises:
            ValueError: it is damaged.
            StorageRefused: a form or a class that is not known here.
            MissingExtra: an array of numpy's, and there is none.
        """
        kind = type(value)
        if kind is list:
            return self._items(value)
        if kind is not dict:
            return value
        if len(value) == 1:
            ((name, body),) = value.items()
            if name.startswith(MARK):
                return self._form(name[len(MARK) :], body)
        return self._members(value)

    def _items(self, value: Any) -> list[Any]:
        for at, each in enumerate(_a(list, value)):
            if type(each) in (dict, list):
                value[at] = self.read(each)
        return value  # type: ignore[no-any-return]

    def _members(self, value: dict[str, Any]) -> dict[str, Any]:
        for key, each in value.items():
            if type(each) in (dict, list):
                value[key] = self.read(each)
        return value

    def _form(self, name: str, body: Any) -> Any:
        make = self._own.get(name) or _READERS.get(name)
        if make is None:
            raise StorageRefused(f"an unknown form: {MARK}{name!s:.60}", hint="written by a newer Holdfast? update")
        try:
            return make(body)
        except HoldfastError:
            raise
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise ValueError(f"{MARK}{name}: {error}") from error

    def _object(self, body: Any) -> Any:
        name, value = body["type"], self.read(body["value"])
        structure = self._types.of_name(name)
        if structure is None:
            raise StorageRefused(
                f"no class is registered as {name!r:.80} here", hint="holdfast.objects.register(cls, name) before"
            )
        try:
            made = structure.decode(value)
            if structure.check is not None:
                structure.check(made)
        except Exception as error:
            raise ValueError(f"it makes no {name}: {error}") from error
        return made


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value


def base64_of(data: Any) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def _unbase64(body: Any) -> bytes:
    return base64.b64decode(_a(str, body), validate=True)


def _say_moment(value: datetime | time) -> str:
    zone = value.tzinfo
    text = value.isoformat()
    if type(zone) is ZoneInfo and zone.key and isinstance(value, datetime):
        text += f"[{zone.key}]"  # as RFC 9557 has it
    elif zone is not None and type(zone) is not timezone:
        raise Unsayable(
            f"a time in {zone!r:.60} would come back in another kind of zone",
            "use datetime.UTC, datetime.timezone or zoneinfo.ZoneInfo",
        )
    return text + _FOLD if value.fold else text


def _read_datetime(body: Any) -> datetime:
    text, fold = _unfolded(_a(str, body))
    found = _ZONED.fullmatch(text)
    if found is None:
        return datetime.fromisoformat(text).replace(fold=fold)
    moment = datetime.fromisoformat(found[1])
    try:
        zone = ZoneInfo(found[2])
    except ZoneInfoNotFoundError:
        return moment  # the same moment, where the zone is not known
    local = moment.replace(tzinfo=zone, fold=fold)
    # Where the zone's rules have changed since, the moment counts and not what the clock on the wall showed.
    return local if local.utcoffset() == moment.utcoffset() else moment.astimezone(zone)


def _unfolded(text: str) -> tuple[str, int]:
    bare = text.removesuffix(_FOLD)
    return bare, int(bare != text)


def _read_time(body: Any) -> time:
    text, fold = _unfolded(_a(str, body))
    return time.fromisoformat(text).replace(fold=fold)


def _say_array(value: array.array[Any]) -> dict[str, Any]:
    if value.typecode not in _NUMBER_CODES:
        raise Unsayable(f"an array of {value.typecode!r} holds no numbers", "store text as str")
    return {"type": value.typecode, "size": value.itemsize, "data": base64_of(_little(value))}


def _little(value: array.array[Any]) -> bytes:
    if sys.byteorder == "big":
        value = value[:]
        value.byteswap()
    return value.tobytes()


def _read_array(body: Any) -> array.array[Any]:
    code, size = body["type"], body["size"]
    if not isinstance(code, str) or len(code) != 1 or code not in _NUMBER_CODES:
        raise ValueError(f"no array has the type {code!r:.20}")
    made: array.array[Any] = array.array(code)
    if made.itemsize != size:
        raise StorageRefused(
            f"an array of {code!r} with {size!r:.20} bytes a number; on this machine it has {made.itemsize}",
            hint="use array types of fixed size: b B h H i I q Q f d",
        )
    made.frombytes(_unbase64(body["data"]))
    if sys.byteorder == "big":
        made.byteswap()
    return made


def _say_view(value: memoryview) -> dict[str, Any]:
    shape = list(value.shape or ())
    if value.format not in _NUMBER_CODES or len(value.format) != 1 or (len(shape) > 1 and 0 in shape):
        raise Unsayable(
            f"a memoryview of format {value.format!r:.40} and shape {shape}",
            "bytes and numbers of the array module only",
        )
    numbers: array.array[Any] = array.array(value.format)
    numbers.frombytes(value.tobytes())
    return {**_say_array(numbers), "shape": shape}


def _read_view(body: Any) -> memoryview:
    numbers = _read_array(body)
    shape = _shape(body["shape"])
    if math.prod(shape) != len(numbers):
        raise ValueError(f"{len(numbers)} numbers in the shape {shape}")
    flat = memoryview(numbers.tobytes())
    if len(shape) == 1:
        return flat.cast(body["type"])
    return flat.cast(body["type"], list(shape))


def _shape(body: Any) -> tuple[int, ...]:
    if any(type(each) is not int or each < 0 for each in _a(list, body)):
        raise ValueError(f"not a shape: {body!r:.60}")
    return tuple(body)


def _say_numpy(value: Any, whole: bool) -> Any:
    dtype = value.dtype.str
    if not _DTYPE.fullmatch(dtype):
        raise Unsayable(
            f"an array of {value.dtype!s:.60} has no form",
            "numbers, text and dates of numpy's have one; turn others into them, or into lists",
        )
    # Columns first where they lie so: turning them around would take time both ways.
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    form = {"dtype": dtype, "shape": list(value.shape), "data": base64_of(value.tobytes(order))}
    if order == "F":
        form["order"] = order
    return {MARK + ("ndarray" if whole else "numpy"): form}


def _read_numpy(body: Any) -> Any:
    dtype, shape, data = body["dtype"], _shape(body["shape"]), _unbase64(body["data"])
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise ValueError(f"not a type of numbers: {dtype!r:.60}")
    try:
        import numpy  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtra("a numpy array was stored, and numpy is not installed", hint="pip install numpy") from error
    kind = numpy.dtype(dtype)
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes in the shape {shape} of {dtype}")
    order: Literal["F", "C"] = "F" if body.get("order") == "F" else "C"
    # Of its own, to be written to as the stored one was.
    return numpy.ndarray(shape, kind, data, order=order).copy(order)


def _read_int(body: Any) -> int:
    return int(_a(str, body), 16)


def _read_float(body: Any) -> float:
    if body not in ("nan", "inf", "-inf"):
        raise ValueError(f"JSON says this number itself: {body!r:.40}")
    return float(body)


def _say_complex(value: complex) -> list[str]:
    return [value.real.hex(), value.imag.hex()]


_FORMS: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    bytes: ("bytes", base64_of),
    bytearray: ("bytearray", base64_of),
    memoryview: ("memoryview", _say_view),
    datetime: ("datetime", _say_moment),
    date: ("date", date.isoformat),
    time: ("time", _say_moment),
    timedelta: ("timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", str),
    complex: ("complex", _say_complex),
    array.array: ("array", _say_array),
}
_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "bytes": _unbase64,
    "bytearray": lambda body: bytearray(_unbase64(body)),
    "memoryview": _read_view,
    "datetime": _read_datetime,
    "date": lambda body: date.fromisoformat(_a(str, body)),
    "time": _read_time,
    "timedelta": lambda body: timedelta(*_a(list, body)),
    "decimal": lambda body: Decimal(_a(str, body)),
    "uuid": lambda body: UUID(_a(str, body)),
    "complex": lambda body: complex(float.fromhex(body[0]), float.fromhex(body[1])),
    "array": _read_array,
    "ndarray": _read_numpy,
    "numpy": lambda body: _read_numpy(body)[()],
    "int": _read_int,
    "float": _read_float,
}
