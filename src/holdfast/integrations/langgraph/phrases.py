"""What LangChain's messages say of themselves, in msgpack and in the same words each time, as one sign each.

It makes a third of a message of half a kilobyte. What anybody said is in none of it, so nothing that an erasure has to
reach ever lies here. Rows hold these signs: to the end of the list may be added, and nothing else changed.
"""

from __future__ import annotations

import re
from typing import Final

_FIRST: Final = 0x100
"""The first sign: bytes end below it."""
_LOW: Final = 0x1C0
"""The signs for bytes below the space begin here."""


def _text(text: str) -> str:
    """How msgpack says a text of up to 31 bytes, a sign a byte."""
    return chr(0xA0 | len(text)) + text


def _begin(module: str, name: str, fields: int) -> str:
    """How a message of a class begins: an extension of type 5 with four members, of which the third holds fields."""
    return f"\x05\x94{_text(f'langchain_core.messages.{module}')}{_text(name)}{chr(0x80 | fields)}{_text('content')}"


_META: Final = f"{_text('additional_kwargs')}\x80{_text('response_metadata')}\x80{_text('type')}"
_NAME: Final = f"{_text('name')}\xc0{_text('id')}"
_PHRASES: Final = (
    _begin("human", "HumanMessage", 6),
    _begin("ai", "AIMessage", 9),
    _begin("tool", "ToolMessage", 9),
    _begin("system", "SystemMessage", 6),
    f"{_META}{_text('human')}{_NAME}",
    f"{_META}{_text('ai')}{_NAME}",
    f"{_META}{_text('tool')}{_text('name')}",
    f"{_META}{_text('system')}{_NAME}",
    f"{_text('tool_calls')}\x90{_text('invalid_tool_calls')}\x90{_text('usage_metadata')}",
    _text("model_validate_json"),
    f"{_text('additional_kwargs')}\x80{_text('response_metadata')}",
    f"{_text('type')}{_text('ai')}{_NAME}",
    f"{_text('type')}{_text('tool_call')}",
    f"{_text('invalid_tool_calls')}\x90{_text('usage_metadata')}",
    _text("tool_call_id"),
    f"{_text('artifact')}\xc0{_text('status')}{_text('success')}",
    _text("tool_calls"),
    _text("input_tokens"),
    _text("output_tokens"),
    _text("total_tokens"),
    _text("input_token_details"),
    _text("output_token_details"),
    _text("cache_read"),
    _text("finish_reason"),
    _text("model_name"),
)
_BY_PHRASE: Final = [(phrase, chr(_FIRST + number)) for number, phrase in enumerate(_PHRASES)]
_CONTROL: Final = {chr(code): chr(_LOW + code) for code in range(0x20) if chr(code) not in "\b\t\n\f\r"}
"""Signs that JSON says in six bytes."""
_BY_SIGN: Final = {sign: phrase for phrase, sign in (*_BY_PHRASE, *_CONTROL.items())}
_FRAME: Final = "langchain_core.messages."
_CONTROLS: Final = re.compile(f"[{re.escape(''.join(_CONTROL))}]")
_SIGNS: Final = re.compile(f"[{''.join(_BY_SIGN)}]")


def shortened(text: str) -> str:
    """A text of bytes with signs in the place of phrases, and of what is long in JSON."""
    if _FRAME in text:
        for phrase, sign in _BY_PHRASE:
            text = text.replace(phrase, sign)
    return _CONTROLS.sub(_control, text)


def whole(text: str) -> str:
    """The text again."""
    return _SIGNS.sub(_phrase, text)


def _control(found: re.Match[str]) -> str:
    return _CONTROL[found[0]]


def _phrase(found: re.Match[str]) -> str:
    return _BY_SIGN[found[0]]
