"""How things are shown: tables for people, JSON for programs; data on stdout, everything else on stderr."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from holdfast.log.versions import Version

_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34"}


class Show:
    """Prints. Colours only on a terminal that wants them.

    Args:
        as_json: whether programs read us.
        color: False never colours.
        quiet: keep messages to ourselves; data and errors are printed all the same.
    """

    def __init__(self, *, as_json: bool = False, color: bool = True, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._color = color and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    # -- data ---------------------------------------------------------------------------------------------------

    def document(self, value: Any) -> None:
        """One JSON document, on one line."""
        self.raw(_json(value) + b"\n")

    def raw(self, data: bytes) -> None:
        """Exactly these bytes."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def line(self, text: str = "") -> None:
        """A line of data for people."""
        print(text)

    def steady(self, text: str) -> str:
        """Somebody's text of several lines: as it is, but on a terminal, which it must not steer."""
        return safe_lines(text) if sys.stdout.isatty() else text

    def flush(self) -> None:
        """Lets a reader of a live stream have what was printed."""
        sys.stdout.flush()

    def result(self, text: str, document: Any) -> None:
        """What a command has done: a line for people (none when quiet), a document for programs."""
        if self.as_json:
            self.document(document)
        elif not self.quiet:
            self.line(text)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Aligned columns; on a terminal the last one is cut to fit."""
        cells = [[safe(str(cell)) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        room = _columns(sys.stdout)
        for number, row in enumerate([list(head), *cells]):
            text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            if room and len(text) > room:
                text = text[: room - 1] + "…"
            self.line(self.paint(text, "bold") if number == 0 else text)

    # -- messages -----------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        """Something a person may want to know."""
        if not self.quiet:
            _to_stderr(text)

    def complain(self, text: str) -> None:
        """A line about one thing that failed among many; said even when quiet."""
        _to_stderr(safe(text))

    def warn(self, text: str, *, hint: str = "") -> None:
        """Something a person should know; said even when quiet."""
        _to_stderr(self.paint("warning: ", "yellow", sys.stderr) + safe_lines(text))
        if hint:
            _to_stderr(self.paint("hint: ", "dim", sys.stderr) + safe_lines(hint))

    def error(self, error: HoldfastError) -> None:
        """What failed, and what to do."""
        if self.as_json:
            _to_stderr(_json(error.to_wire()).decode())
            return
        _to_stderr(self.paint("error: ", "red", sys.stderr) + safe_lines(error.message))
        if error.hint:
            _to_stderr(self.paint("hint: ", "dim", sys.stderr) + safe_lines(error.hint))

    def paint(self, text: str, color: str, stream: TextIO | None = None) -> str:
        """The text in a colour, where the stream is a terminal."""
        if not self._color or not (stream or sys.stdout).isatty():
            return text
        return f"\033[{_CODES[color]}m{text}\033[0m"


class Progress:
    """A bar on a terminal's stderr; nothing anywhere else. Use it by ``with``."""

    def __init__(self, show: Show, what: str, total: int) -> None:
        self._on = sys.stderr.isatty() and not show.quiet and not show.as_json
        self._what = what
        self._total = max(total, 1)
        self._drawn = 0.0

    drawn = False
    """Whether a bar stands on the last line of this process's stderr."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._on:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        Progress.drawn = False

    def at(self, done: int, text: str = "") -> None:
        """Shows that so much of the total is done, at most twelve times a second."""
        now = time.monotonic()
        if not self._on or now - self._drawn < 0.08:
            return
        self._drawn = now
        Progress.drawn = True
        share = min(done / self._total, 1.0)
        filled = round(share * 24)
        bar = "█" * filled + "░" * (24 - filled)
        room = _columns(sys.stderr) - 1
        sys.stderr.write("\r\033[K" + f"{self._what} {bar} {share:4.0%} {text}"[:room])
        sys.stderr.flush()


def size_text(size: float) -> str:
    """Bytes for people: 640 B, 1.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def seconds_text(seconds: float) -> str:
    """A duration for people: 4 ms, 2.5 s, 12 min, 3 h, 5 d."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def count_text(number: int, one: str, many: str = "") -> str:
    """A number and its noun: 1 record, 1,240 records."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def clock_text(seconds: float) -> str:
    """A time for people, in their own zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def value_text(value: Any, most: int = 120) -> str:
    """A value on one line."""
    if isinstance(value, bytes):
        return f"<{size_text(len(value))}>"
    text = value if isinstance(value, str) else _json(value).decode()
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def version_text(version: Version) -> str:
    """The value of a version on one line, or why there is none."""
    return f"({version.missing})" if version.missing else value_text(version.value)


def safe(text: str) -> str:
    """Other people's text for a terminal: what would move the cursor or change a colour is shown, not obeyed."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)


def safe_lines(text: str) -> str:
    """The same of a text of several lines; what is only not to be seen, such as a space that does not break, stays."""
    return _STEERING.sub("�", text)


def _json(value: Any) -> bytes:
    import msgspec

    return msgspec.json.encode(value)


def _columns(stream: TextIO) -> int:
    """The width of a terminal; 0 if it is none."""
    if not stream.isatty():
        return 0
    try:
        return int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 80


def _to_stderr(text: str) -> None:
    if sys.stderr.isatty():
        text = f"\r\033[K{text}" if Progress.drawn else text  # over the bar, which is drawn again below it
    print(text, file=sys.stderr)
