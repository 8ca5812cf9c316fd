"""Which classes of yours may be stored as they are: each with its name in the data, and how it is taken apart.

The name is what is stored, never a module's path: data outlives modules, and a path that is looked up when reading is
how a stored object gets to choose which code runs. What is not registered is not stored.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from holdfast.errors import StorageRefused

T = TypeVar("T")
_NAME_MAX: Final = 200


@dataclass(frozen=True)
class Structure:
    """A registered class."""

    name: str
    cls: type
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    check: Callable[[Any], object] | None


class Types:
    """The classes that a manager stores as they are."""

    def __init__(self) -> None:
        self._by_class: dict[type, Structure] = {}
        self._by_name: dict[str, Structure] = {}

    def register(
        self,
        cls: type[T],
        name: str = "",
        *,
        encode: Callable[[T], Any] | None = None,
        decode: Callable[[Any], T] | None = None,
        check: Callable[[T], object] | None = None,
    ) -> type[T]:
        """Lets objects of this very class be stored, alone or within others; they come back equal and of this class.

        A dataclass, a `msgspec.Struct`, a pydantic model, an enum and a named tuple need nothing more.

        Args:
            cls: the class, not its subclasses.
            name: what stands for it in the data, for ever; by default the class's own name.
            encode: what says an object in values that can be stored; needs `decode`.
            decode: what makes the object of them again.
            check: called with an object before it is stored and after it was read; raises if it is not in order.

        Returns:
            The class, so that this can be a decorator.

        Raises:
            StorageRefused: the name stands for another class, or it is not known how to take this one apart.
        """
        if not isinstance(cls, type):
            raise StorageRefused(f"not a class: {cls!r:.80}")
        name = name or cls.__name__
        if len(name) > _NAME_MAX or not name.isprintable():
            raise StorageRefused(f"not a name for a class in data: {name!r:.80}")
        held = self._by_name.get(name)
        if held is not None and _origin(held.cls) != _origin(cls):
            raise StorageRefused(
                f"{name!r} stands for {_origin(held.cls)} already, not for {_origin(cls)}",
                hint="give one of them another name: register(cls, name)",
            )
        if (encode is None) != (decode is None):
            raise StorageRefused(f"{name!r} needs both encode and decode, or neither")
        if encode is None or decode is None:
            encode, decode = _taken_apart(cls)
        structure = Structure(name, cls, encode, decode, check)
        self._by_class[cls] = self._by_name[name] = structure
        return cls

    def of_class(self, cls: type) -> Structure | None:
        """How objects of this very class are stored; None: not at all."""
        return self._by_class.get(cls)

    def of_name(self, name: str) -> Structure | None:
        """The class that a name in the data stands for."""
        return self._by_name.get(name)


TYPES: Final = Types()
"""Those of `register`: every manager's that has none of its own."""
register = TYPES.register


def _origin(cls: type) -> str:
    # A module that is loaded again makes its classes anew: the same class for whoever reads the source.
    return f"{cls.__module__}.{cls.__qualname__}"


def _taken_apart(cls: type) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    if issubclass(cls, enum.Enum):
        return lambda value: value.value, cls
    if dataclasses.is_dataclass(cls):
        return _by_fields(cls, dataclasses.fields(cls))
    if issubclass(cls, msgspec.Struct):
        names = msgspec.structs.fields(cls)
        return lambda value: {each.name: getattr(value, each.name) for each in names}, lambda said: cls(**said)
    if issubclass(cls, tuple) and hasattr(cls, "_make"):
        return list, cls._make
    if hasattr(cls, "model_dump") and hasattr(cls, "model_validate"):  # pydantic, which need not be installed
        return lambda value: value.model_dump(), cls.model_validate
    raise StorageRefused(
        f"it is not known how to take a {cls.__name__} apart",
        hint="give register an encode and a decode; dataclasses, msgspec and pydantic models, enums need none",
    )


def _by_fields(cls: type, fields: tuple[Any, ...]) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    inner = {field.name for field in fields if not field.init}

    def decode(said: dict[str, Any]) -> Any:
        made = cls(**{name: value for name, value in said.items() if name not in inner})
        for name in inner & said.keys():
            object.__setattr__(made, name, said[name])  # a frozen one too
        return made

    return lambda value: {field.name: getattr(value, field.name) for field in fields}, decode
