"""Lists of messages, which are written and read at every step, and nearly all of which is what it was the step before.

To serialise a message takes fifteen times as long as to serialise its fields, and to make one anew eight times as long
as to give an object its fields back. So for the first members of a list an image keeps their bytes, and the fields of
the objects that these bytes become. It is gone by only where the bytes, or all fields, are the same: what anybody
changes in a message, or writes from elsewhere, is seen as if there were no image.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from holdfast.integrations.langgraph.lists import Body
from holdfast.integrations.langgraph.packing import list_body, list_data
from holdfast.integrations.langgraph.serde import StrictSerializer

MSGPACK: Final = "msgpack"
_MESSAGES: Final = "langchain_core.messages."
FEW: Final = 4
"""For fewer members an image does not pay."""


class Image(msgspec.Struct, frozen=True):
    """What the first `count` members of a list are: their bytes, their fields in msgpack, and their classes.

    Beside each class: the names of the fields that were set, as pydantic remembers them.
    """

    count: int
    data: bytes
    fields: bytes
    kinds: list[tuple[type, frozenset[str]]]

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return len(self.data) + len(self.fields) + 8 * self.count


def dumped(serde: Any, values: list[Any], image: Image | None) -> bytes | None:
    """The bytes of the members of a list whose first ones are those of the image; None: they are not."""
    if image is None or len(values) < image.count:
        return None
    known = values[: image.count]
    for each, (kind, _) in zip(known, image.kinds, strict=True):
        if type(each) is not kind:
            return None
    if _fields(serde, known) != image.fields:
        return None
    rest = values[image.count :]
    found = list_body(serde.dumps_typed(rest)[1]) if rest else (0, b"")
    return image.data + found[1] if found else None


def loaded(serde: Any, body: Body, image: Image | None) -> tuple[list[Any], Image | None]:
    """The members of a list, made of its bytes, and the image of it, if it has one."""
    if image is None or not (image.count <= body.count and body.data.startswith(image.data)):
        values = _load(serde, body.count, body.data)
        return values, _image(serde, body.data, values)
    values = _again(serde, image)
    if len(body.data) > len(image.data):
        rest = _load(serde, body.count - image.count, body.data[len(image.data) :])
        values += rest
        image = _extended(serde, body.data, image, rest)
    return values, image


def seen(serde: Any, body: Body, image: Image | None) -> Image | None:
    """The image of a list that was just written, so that it is there for the next time."""
    if image is None or not (image.count <= body.count and body.data.startswith(image.data)):
        return loaded(serde, body, None)[1]
    if len(body.data) == len(image.data):
        return image
    rest = _load(serde, body.count - image.count, body.data[len(image.data) :])
    return _extended(serde, body.data, image, rest)


def _image(serde: Any, data: bytes, values: list[Any]) -> Image | None:
    if len(values) < FEW:
        return None
    fields = _exact(serde, values)
    return None if fields is None else Image(len(values), data, fields, list(map(_kind, values)))


def _extended(serde: Any, data: bytes, image: Image, rest: list[Any]) -> Image | None:
    """The image of more members; None: they are none that can be in one."""
    fields = _exact(serde, rest)
    old, new = list_body(image.fields), None if fields is None else list_body(fields)
    if old is None or new is None:
        return None
    count = image.count + len(rest)
    return Image(count, data, list_data(count, old[1] + new[1]), [*image.kinds, *map(_kind, rest)])


def _load(serde: Any, count: int, data: bytes) -> list[Any]:
    made: list[Any] = serde.loads_typed((MSGPACK, list_data(count, data)))
    return made


def _exact(serde: Any, values: list[Any]) -> bytes | None:
    """The fields of messages, if these are all there is to them and are read back as they were."""
    fields = _fields(serde, values)
    if fields is None or any(each.__pydantic_extra__ != {} for each in values):
        return None
    same: bool = serde.loads_typed((MSGPACK, fields)) == [each.__dict__ for each in values]
    return fields if same else None


def _fields(serde: Any, values: list[Any]) -> bytes | None:
    if type(serde) is not StrictSerializer or not all(map(_is_message, set(map(type, values)))):
        return None
    for each in values:
        if each.__pydantic_extra__ or each.__pydantic_private__ is not None:
            return None
    try:
        fields: bytes = serde.dumps_typed([each.__dict__ for each in values])[1]
    except (TypeError, ValueError):
        return None  # something that only the message itself knows how to say
    return fields


@functools.lru_cache(maxsize=256)
def _is_message(kind: type) -> bool:
    """Whether it is a class of LangChain's own: of these all that is serialised is in their fields."""
    return f"{kind.__module__}.".startswith(_MESSAGES) and hasattr(kind, "__pydantic_fields_set__")


_kinds: Final[dict[tuple[type, frozenset[str]], tuple[type, frozenset[str]]]] = {}


def _kind(value: Any) -> tuple[type, frozenset[str]]:
    kind = type(value), frozenset(value.__pydantic_fields_set__)
    return _kinds.setdefault(kind, kind)  # one for all that are alike


def _again(serde: Any, image: Image) -> list[Any]:
    """The members that the image is of, made as copying and unpickling make them: from their fields."""
    out: list[Any] = []
    for fields, (kind, names) in zip(serde.loads_typed((MSGPACK, image.fields)), image.kinds, strict=True):
        made: Any = object.__new__(kind)
        made.__setstate__(
            {
                "__dict__": fields,
                "__pydantic_extra__": {},
                "__pydantic_fields_set__": set(names),
                "__pydantic_private__": None,
            }
        )
        out.append(made)
    return out
