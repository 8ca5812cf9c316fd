"""What a served hub writes down about itself: one line an event, JSON for programs, text for people.

Values of records and tokens are never in it: fields are picked from a list, and of an exception that may quote what
it met (a ValueError, a KeyError) only the kind and the place are shown.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any, Final, Literal, TextIO

import msgspec

from holdfast.clock import iso
from holdfast.errors import HoldfastError

Format = Literal["json", "text"]
FIELDS: Final = (
    *("node", "agent", "seq", "duration_ms", "request_id"),
    *("route", "outcome", "method", "path", "hub", "stream", "pos", "digest", "quarantined", "gen", "url"),
)
"""What of an event's details is written down; anything else is not."""
FIELD_CHARS_MAX: Final = 200
FRAMES_MAX: Final = 20
_QUOTES_NOTHING: Final = (HoldfastError, OSError, MemoryError)


def configure(form: Format | None = None, level: str = "warning", stream: TextIO | None = None) -> None:
    """Sends every log line of this process to a stream in one form.

    Args:
        form: json or text; None: text on a terminal, else json.
        level: debug (with a line for each request), info, warning or error.
        stream: standard error unless given.
    """
    out = sys.stderr if stream is None else stream
    chosen = form or ("text" if out.isatty() else "json")
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines() if chosen == "json" else TextLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # others' chatter is not ours to write down
    logging.getLogger("holdfast").setLevel(getattr(logging, level.upper()))


class JsonLines(logging.Formatter):
    """One JSON object a line: ts, level, event, logger, and the details that `FIELDS` names."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return msgspec.json.encode(facts(record)).decode()


class TextLines(logging.Formatter):
    """One line of text: time, level, event, details; no control character gets through."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        found = facts(record)
        head = [found.pop("ts"), found.pop("level").upper(), found.pop("event")]
        del found["logger"]
        where = found.pop("error", None)
        parts = [*head, *(f"{name}={value}" for name, value in found.items())]
        if where is not None:
            parts.append(" < ".join([where["kind"], *([where["message"]] if "message" in where else []), *where["at"]]))
        text = " ".join(map(str, parts))
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """What of a log record may be written down."""
    found: dict[str, Any] = {
        "ts": iso(round(record.created * 1000)),
        "level": record.levelname.lower(),
        "event": record.getMessage(),
        "logger": record.name,
    }
    for name in FIELDS:
        value = getattr(record, name, None)
        if value is not None:
            found[name] = value if isinstance(value, int | float) else str(value)[:FIELD_CHARS_MAX]
    if record.exc_info and record.exc_info[1] is not None:
        found["error"] = told(record.exc_info[1])
    return found


def told(error: BaseException) -> dict[str, Any]:
    """An exception without what it may quote: its kind, where it came from (innermost first), and its message only if
    it is ours or the system's."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    found: dict[str, Any] = {
        "kind": type(error).__name__,
        "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames)],
    }
    if isinstance(error, _QUOTES_NOTHING) or type(error).__module__.split(".")[0] == "apsw":
        found["message"] = str(error)
    if error.__cause__ is not None:
        found["cause"] = told(error.__cause__)
    return found
