"""What a pickle says, without running it: its instructions are read, and those that build plain values carried out.

A pickle is a program for a small machine, and its instruction REDUCE calls whatever it names. Here a name is a text.
A short table says which names stand for plain values and how those are made; no module is ever looked up. Objects of
the classes that the caller allows become dicts of their attributes: their code is not run either.
"""

from __future__ import annotations

import array
import contextlib
import pickletools
import re
from collections.abc import Callable, Collection, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from holdfast.errors import HoldfastError, ObjectCorrupt, StorageRefused
from holdfast.objects.values.forms import Said, Sayer, base64_of
from holdfast.objects.values.types import Types

_MARK: Final = object()
_OLD_NAMES: Final = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core": "numpy._core"}
_DTYPE: Final = re.compile(r"[biufcSU]\d{1,9}|[mM]8")


class Named(NamedTuple):
    """What a pickle wants by its name; only a text to us."""

    path: str


class Pending:
    """An object whose state comes in a later instruction."""

    def __init__(self, kind: str, first: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self.first = first
        self.state: Any = None

    def value(self) -> Any:
        """The plain value."""
        if self.kind == "uuid.UUID":
            return UUID(int=self.state["int"])
        if self.kind == "numpy.ndarray":
            _, shape, dtype, fortran, data = self.state
            return _ndarray(data, dtype, shape, "F" if fortran else "C")
        if self.kind == "numpy.dtype":
            raise StorageRefused("a type of numpy's by itself has no form")
        return _attributes(self.kind, self.state)


class PickleSayer(Sayer):
    """Says what a pickle holds, with its pending objects made."""

    def _other(self, value: Any, kind: type) -> Any:
        if kind is Pending:
            return self.say(value.value())
        if kind is Named:
            raise _not_listed(value.path)
        return super()._other(value, kind)


def read_instructions(data: bytes, allow: Collection[str] = ()) -> Any:
    """What a pickle holds, to be said by a `PickleSayer`.

    Args:
        data: the pickle, of protocol 0 to 5.
        allow: paths of classes, such as ``app.config.Agent``, whose objects shall be read as dicts.

    Raises:
        StorageRefused: it asks for something that is not plain.
        ObjectCorrupt: it is not a whole pickle.
    """
    machine = _Machine(frozenset(allow))
    with _damage():
        for instruction, argument, at in pickletools.genops(data):
            name = instruction.name
            if name == "STOP":
                if at is None or at + 1 != len(data):
                    raise ValueError("bytes behind its end")
                return machine.stack.pop()
            machine.step(name, argument)
    raise ObjectCorrupt("not a whole pickle: it does not stop")


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """Bytes that are no pickle show by whatever goes wrong in reading them."""
    try:
        yield
    except HoldfastError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError) as error:
        raise ObjectCorrupt(f"not a whole pickle: {error!r:.200}") from error


class _Machine:
    def __init__(self, allow: frozenset[str]) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._allow = allow

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _OLD_TEXT:
            self.stack.append(_old_text(argument))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self._memo[argument])
        elif name == "GLOBAL":
            module, _, path = argument.partition(" ")
            self.stack.append(_named(module, path))
        elif name == "INST":
            module, _, path = argument.partition(" ")
            self.stack.append(self._call(_named(module, path), self._marked()))
        elif name not in ("PROTO", "FRAME", "READONLY_BUFFER"):
            method = getattr(self, "_" + name.lower(), None)
            if method is None:
                raise StorageRefused(f"a pickle with the instruction {name}: what it means lies outside of it")
            method()

    def _marked(self) -> tuple[Any, ...]:
        """What lies above the last mark."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        found = tuple(self.stack[at + 1 :])
        del self.stack[at:]
        return found

    def _mark(self) -> None:
        self.stack.append(_MARK)

    def _pop(self) -> None:
        self.stack.pop()

    def _pop_mark(self) -> None:
        self._marked()

    def _dup(self) -> None:
        self.stack.append(self.stack[-1])

    def _append(self) -> None:
        value = self.stack.pop()
        self._list_on_top().append(value)

    def _appends(self) -> None:
        values = self._marked()
        self._list_on_top().extend(values)

    def _list_on_top(self) -> list[Any]:
        top = self.stack[-1]
        if type(top) is not list:
            raise StorageRefused(f"a pickle that fills a {_shown(top)} like a list")
        return top

    def _list(self) -> None:
        self.stack.append(list(self._marked()))

    def _tuple(self) -> None:
        self.stack.append(self._marked())

    def _tuple1(self) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set((key, value))

    def _setitems(self) -> None:
        self._set(self._marked())

    def _set(self, pairs: tuple[Any, ...]) -> None:
        top = self.stack[-1]
        if type(top) is not dict:
            raise StorageRefused(f"a pickle that fills a {_shown(top)} like a dict")
        top.update(zip(pairs[::2], pairs[1::2], strict=True))

    def _dict(self) -> None:
        pairs = self._marked()
        self.stack.append(dict(zip(pairs[::2], pairs[1::2], strict=True)))

    def _additems(self) -> None:
        values = self._marked()
        top = self.stack[-1]
        if type(top) is not set:
            raise StorageRefused(f"a pickle that fills a {_shown(top)} like a set")
        top.update(values)

    def _frozenset(self) -> None:
        self.stack.append(frozenset(self._marked()))

    def _stack_global(self) -> None:
        path, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_named(module, path))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack.append(self._call(self.stack.pop(), arguments))

    def _newobj(self) -> None:
        self._reduce()

    def _newobj_ex(self) -> None:
        if self.stack.pop():
            raise StorageRefused("a pickle that builds an object with named arguments")
        self._reduce()

    def _obj(self) -> None:
        wanted, *arguments = self._marked()
        self.stack.append(self._call(wanted, tuple(arguments)))

    def _build(self) -> None:
        state = self.stack.pop()
        top = self.stack[-1]
        if type(top) is not Pending:
            raise StorageRefused(f"a pickle that gives a {_shown(top)} more than its value")
        top.state = state

    def _call(self, wanted: Any, arguments: Any) -> Any:
        if type(wanted) is not Named or type(arguments) is not tuple:
            raise StorageRefused(f"a pickle that calls a {_shown(wanted)}")
        path = wanted.path
        if (
            path == "copyreg._reconstructor"
            and len(arguments) == 3
            and arguments[1:] == (Named("builtins.object"), None)
        ):
            return self._call(arguments[0], ())
        make = _MADE.get(path)
        if make is not None:
            return make(*arguments)
        if path not in self._allow:
            raise _not_listed(path)
        if arguments:
            raise StorageRefused(
                f"a {path} is built from arguments and not from its attributes: there is no dict of it"
            )
        return Pending(path)


def _named(module: Any, path: Any) -> Named:
    if not isinstance(module, str) or not isinstance(path, str):
        raise TypeError("a name that is no text")
    for old, new in _OLD_NAMES.items():
        if module == old or module.startswith(old + "."):
            module = new + module[len(old) :]
    return Named(f"{module}.{path}")


def _not_listed(path: str) -> StorageRefused:
    how = f"allow={{{path!r:.120}}} reads objects of this class as dicts of their attributes; its code is not run"
    return StorageRefused(f"a pickle that asks for {path:.120}, which is no plain value", hint=how, path=path[:200])


def _shown(value: Any) -> str:
    return value.kind if type(value) is Pending else type(value).__name__


def _old_text(argument: str) -> str | bytes:
    # Python 2's str is text or bytes, and does not say which; ASCII is read as text.
    return argument if argument.isascii() else argument.encode("latin-1")


def _raw(value: Any) -> bytes:
    """Bytes, which Python 2 called text."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if not isinstance(value, bytes | bytearray):
        raise TypeError(f"bytes expected, not {type(value).__name__}")
    return bytes(value)


def _bytes(*arguments: Any) -> bytes:
    if not arguments:
        return b""
    text, encoding = arguments
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in {encoding!r:.20}")
    return text.encode("latin-1")  # type: ignore[no-any-return]


def _bytearray(*arguments: Any) -> bytearray:
    return bytearray(_bytes(*arguments)) if len(arguments) == 2 else bytearray(b"".join(map(_raw, arguments)))


def _moment(kind: Callable[..., Any]) -> Callable[..., Any]:
    return lambda state, *zone: kind(_raw(state), *zone)


def _array(wanted: Any, code: str, machine_code: int, data: bytes) -> Any:
    if wanted != Named("array.array"):
        raise _not_listed(str(getattr(wanted, "path", wanted)))
    rebuild = array._array_reconstructor  # type: ignore[attr-defined]
    return rebuild(array.array, code, machine_code, data)


def _old_array(code: str, values: Any) -> Any:
    return array.array(code, values)


def _member(owner: Any, name: Any) -> Named:
    if (owner, name) != (Named("zoneinfo.ZoneInfo"), "_unpickle"):
        raise _not_listed("builtins.getattr")
    return Named("zoneinfo.ZoneInfo._unpickle")


def _attributes(kind: str, state: Any) -> dict[str, Any]:
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    if not all(part is None or type(part) is dict for part in parts):
        raise StorageRefused(f"a {kind} whose state is no dict of attributes but a {_shown(state)}")
    return {name: value for part in parts if part for name, value in part.items()}


def _dtype_text(dtype: Any) -> str:
    """numpy's short name of a type, such as ``<f8``."""
    if type(dtype) is not Pending or dtype.kind != "numpy.dtype":
        raise TypeError("no type of numpy's")
    text = _raw(dtype.first[0]).decode("ascii")
    if not _DTYPE.fullmatch(text):
        raise StorageRefused(f"a numpy array of {text!r:.40}: only numbers, text and dates have a form")
    order = "|"
    state: tuple[Any, ...] = dtype.state or ()
    if len(state) > 1:
        order = _raw(state[1]).decode("ascii")
    if order == "=":
        raise ValueError("a type of numpy's without byte order")
    if text not in ("m8", "M8"):
        return order + text
    if len(state) < 9 or not state[8]:
        raise StorageRefused("a numpy array of dates without a unit")
    unit, number = state[8][1][:2]
    return f"{order}{text}[{'' if number == 1 else number}{_raw(unit).decode('ascii')}]"


def _ndarray(data: Any, dtype: Any, shape: Any, order: str) -> Said:
    if type(data) is list:
        raise StorageRefused("a numpy array of objects has no form")
    form = {"dtype": _dtype_text(dtype), "shape": list(shape), "data": base64_of(_raw(data))}
    return Said("ndarray", {**form, "order": "F"} if order == "F" else form)


def _scalar(dtype: Any, data: Any) -> Said:
    return Said("numpy", {"dtype": _dtype_text(dtype), "shape": [], "data": base64_of(_raw(data))})


def _pending_array(kind: Any, shape: Any, code: Any) -> Pending:
    if kind != Named("numpy.ndarray"):
        raise _not_listed(str(getattr(kind, "path", kind)))
    return Pending("numpy.ndarray")


_PUSHED: Final = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_OLD_TEXT: Final = frozenset({"STRING", "BINSTRING", "SHORT_BINSTRING"})
_CONSTANTS: Final[dict[str, Callable[[], Any]]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_MADE: Final[dict[str, Callable[..., Any]]] = {
    "_codecs.encode": _bytes,
    "array._array_reconstructor": _array,
    "array.array": _old_array,
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": complex,
    "builtins.frozenset": frozenset,
    "builtins.getattr": _member,
    "builtins.set": set,
    "collections.Counter": dict,
    "collections.OrderedDict": lambda *pairs: {key: value for key, value in (pairs[0] if pairs else ())},
    "collections.defaultdict": lambda *factory: {},
    "collections.deque": lambda *first: list(*first[:1]),
    "datetime.date": _moment(date),
    "datetime.datetime": _moment(datetime),
    "datetime.time": _moment(time),
    "datetime.timedelta": timedelta,
    "datetime.timezone": timezone,
    "decimal.Decimal": Decimal,
    "numpy._core.multiarray._reconstruct": _pending_array,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _ndarray,
    "numpy.dtype": lambda *first: Pending("numpy.dtype", first),
    "uuid.UUID": lambda: Pending("uuid.UUID"),
    "zoneinfo.ZoneInfo._unpickle": lambda key, cached: ZoneInfo(key),
}


def said_of(data: bytes, allow: Collection[str] = ()) -> Any:
    """The JSON tree of what a pickle holds.

    Raises:
        StorageRefused: it asks for something that is not plain.
        ObjectCorrupt: it is not a whole pickle.
        Unsayable: something in it has no form.
    """
    held = read_instructions(data, allow)
    with _damage():  # what is made last is made here
        return PickleSayer(Types()).say(held)
