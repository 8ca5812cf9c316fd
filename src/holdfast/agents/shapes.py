"""What a row must look like: known fields are checked and filled in, the user's own are kept as they are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from holdfast.errors import UsageError

_AT: Final = re.compile(r" - at `\$\.?(.*)`$")
K = TypeVar("K", bound=msgspec.Struct)


def shaped(table: str, kind: type[msgspec.Struct], row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with every field of `kind` checked; what has no value is left out.

    Args:
        table: named in the error.
        kind: the fields that are known; other ones stay as they are.
        row: what was given. Dates and times become ISO 8601 text.

    Raises:
        UsageError: a field is missing, or not of its kind: the message names it.
    """
    try:
        plain = msgspec.to_builtins(dict(row))
        known = msgspec.to_builtins(msgspec.convert(plain, kind))
    except msgspec.ValidationError as error:
        raise UsageError(f"{table}: {_told(error)}", hint=f"{table} has {', '.join(_fields(kind))}") from error
    except (TypeError, UnicodeEncodeError) as error:
        raise UsageError(f"{table}: {error}", hint="JSON values: text, numbers, lists, dicts") from error
    return {name: value for name, value in {**plain, **known}.items() if value is not None}


def blank(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Every field of a kind, with None where there is no value: what a row is shown on. To be called at import.

    msgspec makes out a type when it is first used, and two threads that do so at once end the process (0.22: a
    segmentation fault); the decoder that is made here has it done while there is one.
    """
    msgspec.json.Decoder(kind)
    return dict.fromkeys(_fields(kind))


def folded(text: str) -> str:
    """A skill, or a capability, as it is compared: without regard to case, spaces and forms of letters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def folded_all(texts: Any) -> list[str]:
    """Each of these once, folded, in order.

    Raises:
        UsageError: it is no list of texts.
    """
    if isinstance(texts, str) or not isinstance(texts, list | tuple | set | frozenset):
        raise UsageError(f"expected a list of texts, got {texts!r:.80}", hint='such as ["Python"]')
    for each in texts:
        if not isinstance(each, str):
            raise UsageError(f"expected a text, got {each!r:.80}", hint='such as "Python"')
    return sorted({folded(each) for each in texts} - {""})


def _fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.encode_name for field in msgspec.structs.fields(kind))


def _told(error: msgspec.ValidationError) -> str:
    text = str(error)
    at = _AT.search(text)
    if at is None:
        return text[:1].lower() + text[1:]
    said = text[: at.start()]
    return f"{at.group(1)}: {said[:1].lower()}{said[1:]}"
