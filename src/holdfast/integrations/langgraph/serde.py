"""LangGraph's standard serialiser, strict: it makes what is on its list, and looks each class up once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from holdfast.integrations.langgraph.door import JsonPlusSerializer, unpack

_MODEL: Final = 5
"""The kind of extension that holds a pydantic model: what messages are."""


class StrictSerializer(JsonPlusSerializer):
    """Reads what the standard one reads, to the same values; of the types that it may make it remembers the classes.

    Args:
        allow: types of the user's own: classes, or ("module", "Class").
    """

    _unpack_ext_hook: Any

    def __init__(self, allow: Iterable[Any] = ()) -> None:
        super().__init__(allowed_msgpack_modules=tuple(allow) or None)
        self._unpack_ext_hook = _quick(self._unpack_ext_hook)

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[Any]) -> Self:
        """The same with more types allowed; LangGraph calls it where it knows those of a graph."""
        made: Self = super().with_msgpack_allowlist(extra_allowlist)
        if made is not self:
            made._unpack_ext_hook = _quick(made._unpack_ext_hook)
        return made


def _quick(hook: Callable[[int, bytes], Any]) -> Callable[[int, bytes], Any]:
    """A hook that asks the standard one once for each class: it decides what may be made, and how."""
    known: dict[tuple[str, str], type] = {}

    def quick(code: int, data: bytes) -> Any:
        if code != _MODEL:
            return hook(code, data)
        try:
            told = unpack(data, quick)
            name = told[0], told[1]
            if name in known:
                return known[name](**told[2])
        except Exception:
            return hook(code, data)  # it knows what to do with what does not fit
        made = hook(code, data)
        if (type(made).__module__, type(made).__name__) == name:
            known[name] = type(made)
        return made

    return quick
