"""Values to bytes with a content type, and back: equal and of the same type. Never pickled.

Text is ``text/plain``, bytes are ``application/octet-stream``, everything else is JSON (`serial_forms`). A content type
that the caller names is kept: bytes and text that are JSON already are stored as they are. Before anything is written,
what a value would read back as is proven; what cannot be stored is refused with the way to it inside the value.
"""

from __future__ import annotations

import codecs
import re
from typing import Any, Final

import msgspec

from holdfast.errors import HoldfastError, ObjectCorrupt, StorageRefused
from holdfast.objects.port import TYPE
from holdfast.objects.values.forms import MARK, TOO_DEEP, Reader, Sayer, Unsayable
from holdfast.objects.values.types import TYPES, Types

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
_MARKED: Final = f'"{MARK}'.encode()
_TYPE_MAX: Final = 200
_printable: Final = re.compile("[ -~]+").fullmatch
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def serialise(value: Any, content_type: str | None = None, *, types: Types = TYPES) -> tuple[bytes, str]:
    """The bytes that stand for a value, and their content type.

    Args:
        value: see the head of this module; bytes, text, or what JSON and our forms can say.
        content_type: what the bytes shall be; None: what fits the value.
        types: the user's classes.

    Raises:
        StorageRefused: it would not come back as it is, or is not of that content type.
    """
    if content_type is None:
        if _is_body(value):
            return bytes(value), TYPE
        if type(value) is str:
            return _text(value, "utf-8"), TEXT
        return _json(value, types), JSON
    if not isinstance(content_type, str) or not 0 < len(content_type) <= _TYPE_MAX or not _printable(content_type):
        raise StorageRefused(f"not a content type: {content_type!r:.80}", hint="such as application/json")
    if is_json(content_type):
        return _json_given(value, types), content_type
    try:
        charset = _charset(content_type)
    except LookupError as error:
        raise StorageRefused(f"{content_type!r:.80}: {error}", hint="such as text/plain; charset=utf-8") from error
    if _is_body(value):
        data = bytes(value)
        if charset:
            _check_text(data, charset, content_type)
        return data, content_type
    if type(value) is str and charset:
        return _text(value, charset), content_type
    if type(value) is str:
        hint = f"encode it, or say '{content_type}; charset=utf-8' to have text back"
        raise StorageRefused(f"text is not {content_type}, which is bytes", hint=hint)
    hint = "leave content_type out, or say application/json; or give the bytes"
    raise StorageRefused(f"a {type(value).__name__} is not {content_type}", hint=hint)


def deserialise(data: bytes, content_type: str, *, types: Types = TYPES, key: str = "") -> Any:
    """The value that bytes stand for.

    Args:
        data: the bytes.
        content_type: as stored; empty: found by looking (`guess`).
        types: the user's classes.
        key: for the error.

    Raises:
        ObjectCorrupt: they are not what their content type says.
        StorageRefused: a form or a class that is not known here.
    """
    content_type = content_type or guess(data)
    try:
        if is_json(content_type):
            tree = _decode(data)
            # Plain JSON, which is most of it, is not walked through.
            return Reader(types).read(tree) if _MARKED in data else tree
        charset = _charset(content_type)
        return data.decode(charset) if charset else data
    except HoldfastError:
        raise
    except (ValueError, LookupError, RecursionError, msgspec.MsgspecError) as error:
        raise ObjectCorrupt(
            f"the object {key!r:.200} is not the {content_type} that it is said to be: {error}",
            hint="load_bytes has its bytes as they are",
            key=key,
        ) from error


def is_json(content_type: str) -> bool:
    """Whether a content type is JSON."""
    media = content_type.partition(";")[0].strip().lower()
    return media == JSON or media.endswith("+json")


def guess(data: bytes) -> str:
    """The content type of bytes that nobody keeps one for: JSON if they are an object or array, else just bytes."""
    if data[:1] not in (b"{", b"["):
        return TYPE
    try:
        _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return TYPE
    return JSON


def _is_body(value: Any) -> bool:
    # Exactly these: numpy's bytes are of a class derived from bytes, and would come back as another one.
    kind = type(value)
    return kind in (bytes, bytearray) or (kind is memoryview and value.format == "B" and value.ndim == 1)


def _charset(content_type: str) -> str:
    """What the text of this type is encoded with; empty: it is no text.

    Raises:
        LookupError: an encoding that is not known.
    """
    media, *parameters = content_type.split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            found = codecs.lookup(value.strip().strip('"'))
            if not getattr(found, "_is_text_encoding", True):
                raise LookupError(f"not an encoding of text: {value!r:.40}")
            return found.name
    return "utf-8" if media.strip().lower().startswith("text/") else ""


def _text(value: str, charset: str) -> bytes:
    try:
        return value.encode(charset)
    except UnicodeEncodeError as error:
        why = f"text that {charset} cannot say, at character {error.start}: {value[error.start]!a}"
        raise StorageRefused(why, hint="half of a surrogate pair is no character; store bytes instead") from error


def _check_text(data: bytes, charset: str, content_type: str) -> None:
    try:
        data.decode(charset)
    except UnicodeDecodeError as error:
        raise StorageRefused(f"these bytes are not {content_type}: {error}", hint="name their charset") from error


def _json_given(value: Any, types: Types) -> bytes:
    """What the caller calls JSON: a value, or a document that he made himself, which stays as it is."""
    if type(value) is str or _is_body(value):
        data = _text(value, "utf-8") if type(value) is str else bytes(value)
        try:
            deserialise(data, JSON, types=types)
        except ObjectCorrupt as error:
            hint = "leave content_type out to store text as text and bytes as bytes"
            raise StorageRefused(f"said to be JSON, and is not: {error.__cause__}", hint=hint) from error
        return data
    return _json(value, types)


def _json(value: Any, types: Types) -> bytes:
    sayer = Sayer(types)
    try:
        said = sayer.say(value)
        data: bytes = _encode(said)
    except Unsayable as error:
        raise _refused(error.where, error.why, error.hint) from error.__cause__
    except UnicodeEncodeError as error:
        where = _broken_text(said)
        raise _refused(where, "text with half of a surrogate pair", "store bytes instead") from error
    except RecursionError:
        raise _refused("", TOO_DEEP, "store its parts under keys of their own") from None
    if sayer.structured:
        _prove(data, said, types)
    return data


def _prove(data: bytes, said: Any, types: Types) -> None:
    """Whether the user's own classes come back as they went: their decode is not ours to trust."""
    try:
        back = Sayer(types).say(deserialise(data, JSON, types=types))
    except Unsayable as error:
        raise _refused(error.where, f"it reads back as {error.why}", "see the class's decode") from error
    except ObjectCorrupt as error:
        raise _refused("", f"it does not read back: {error.__cause__}", "see the class's encode and decode") from error
    if _encode(back) != data:
        raise _refused(_first_difference(said, back), "it reads back otherwise", "see the class's encode and decode")


def _first_difference(one: Any, other: Any) -> str:
    if type(one) is dict and type(other) is dict and one.keys() == other.keys():
        for key in one:
            if one[key] != other[key]:
                return f"[{key!r:.60}]" + _first_difference(one[key], other[key])
    if type(one) is list and type(other) is list and len(one) == len(other):
        for at, (left, right) in enumerate(zip(one, other, strict=True)):
            if left != right:
                return f"[{at}]" + _first_difference(left, right)
    return ""


def _broken_text(said: Any) -> str:
    """The way to the text that UTF-8 cannot say."""
    if isinstance(said, dict):
        for key, value in said.items():
            if not _sound(key) or not _sound(value):
                return f"[{key!a:.60}]" + _broken_text(value)
    if isinstance(said, list):
        for at, value in enumerate(said):
            if not _sound(value):
                return f"[{at}]" + _broken_text(value)
    return ""


def _sound(said: Any) -> bool:
    try:
        _encode(said)
    except UnicodeEncodeError:
        return False
    return True


def _refused(where: str, why: str, hint: str) -> StorageRefused:
    at = f" at value{where}" if where else ""
    return StorageRefused(f"cannot be stored{at}: {why}", hint=hint, path=where)
