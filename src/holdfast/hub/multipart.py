"""Forms with files (multipart/form-data), taken apart while they arrive: never more of one in memory than a piece."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.errors import MissingExtra, UsageError

try:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header
except ImportError as error:  # pragma: no cover - tests/house installs without extras
    raise MissingExtra(
        f"a hub needs a package that is not installed: {error.name}", hint="pip install 'holdfast[hub]'"
    ) from error

PARTS_MAX: Final = 32
HEADER_BYTES_MAX: Final = 8 << 10
_HINT: Final = "as curl -F 'file=@report.pdf' sends it"


class Part(msgspec.Struct):
    """Where a part begins.

    Attributes:
        name: of its field.
        filename: what the client calls its file; None where it is no file.
        kind: its media type; empty if it does not say.
    """

    name: str
    filename: str | None
    kind: str

    @property
    def is_file(self) -> bool:
        """Whether a file begins: it has a name of its own, or is called so."""
        return self.filename is not None or self.name == "file"


class Multipart:
    """Takes a form apart, piece by piece.

    Args:
        content_type: of the request.

    Raises:
        UsageError: it is no multipart/form-data (status 415), or says not where its parts end.
    """

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            error = UsageError(f"a file comes as multipart/form-data, not as {content_type!r:.80}", hint=_HINT)
            error.status = 415
            raise error
        self._found: list[Part | bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._parts = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                options.get(b"boundary", b""),
                {
                    "on_part_begin": self._begin,
                    "on_part_data": self._data,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as failure:
            raise _broken(failure) from failure
        if not options.get(b"boundary"):
            raise UsageError("the form does not say what its boundary is", hint=_HINT)

    def feed(self, data: bytes) -> list[Part | bytes]:
        """What these bytes are: beginnings of parts, and bytes of the part that began last.

        Raises:
            UsageError: they are no form.
        """
        try:
            self._parser.write(data)
        except FormParserError as failure:
            raise _broken(failure) from failure
        found, self._found = self._found, []
        return found

    def end(self) -> None:
        """Returns only if the form is whole.

        Raises:
            UsageError: it was cut short.
        """
        if not self._ended:
            raise UsageError("the form is cut short", hint="its last boundary is missing")

    # -- what the parser calls -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise UsageError(f"a form has at most {PARTS_MAX} parts", hint="one file, and the fields of docs/http.md")
        self._headers = {}

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check()

    def _check(self) -> None:
        if len(self._name) + len(self._value) > HEADER_BYTES_MAX or len(self._headers) > PARTS_MAX:
            raise UsageError(f"the header of a part has at most {HEADER_BYTES_MAX} bytes", hint=_HINT)

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        filename = options.get(b"filename")
        self._found.append(
            Part(
                _text(options.get(b"name", b"")),
                None if filename is None else _text(filename),
                self._headers.get(b"content-type", b"").decode("latin-1"),
            )
        )

    def _end(self) -> None:
        self._ended = True


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"a name in the form is not UTF-8: {error}", hint="send names in UTF-8") from error


def _broken(error: Exception) -> UsageError:
    return UsageError(f"the body is no multipart/form-data: {error}", hint=_HINT)
