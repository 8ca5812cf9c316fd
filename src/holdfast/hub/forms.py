"""Files on their way in: bodies piece by piece, and a form with a file, of which the hub holds a piece at a time."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import UsageError
from holdfast.hub.api import decode
from holdfast.hub.core import Core
from holdfast.hub.exchange import Gone, Receive, Scope, header, too_large
from holdfast.hub.files import NewFile
from holdfast.hub.pieces import PIECE_BYTES, room_for
from holdfast.records import BLOB_BYTES_MAX

if TYPE_CHECKING:
    from holdfast.hub.multipart import Part

FIELDS_BYTES_MAX: Final = 64 << 10
OVERHEAD_BYTES_MAX: Final = 1 << 20
_FILE_FIELDS: Final = frozenset(NewFile.__struct_fields__)


class Form:
    """A form with one file, taken while it arrives.

    Args:
        core: the hub.
        scope: of the request.

    Attributes:
        upload: where the file's bytes go; empty before they come.
    """

    def __init__(self, core: Core, scope: Scope) -> None:
        length = header(scope, b"content-length")
        size = int(length) if length.isdigit() else 0
        if size > BLOB_BYTES_MAX + OVERHEAD_BYTES_MAX:
            raise too_large(size, BLOB_BYTES_MAX)
        plain(scope)
        from holdfast.hub.multipart import Multipart  # and its parser: most hubs are sent no forms with files

        self._parts = Multipart(header(scope, b"content-type").decode("latin-1"))
        room_for(core, size)
        self._core = core
        self.upload = ""
        self._part: Part | None = None
        self._text = bytearray()
        self._fields: dict[str, Any] = {}
        self._field_bytes = 0
        self._waiting = bytearray()
        self._hash = hashlib.sha256()
        self._at = 0

    async def take(self, receive: Receive) -> NewFile:
        """What the form says of its file, whose bytes are stored by then.

        Raises:
            Gone: the client left.
            UsageError: it is not such a form.
        """
        async for data in arriving(receive):
            for each in self._parts.feed(data):
                if not isinstance(each, bytes):
                    await self._begin(each)
                elif self._part is not None and self._part.is_file:
                    self._waiting += each
                else:
                    self._say(each)
            if len(self._waiting) >= PIECE_BYTES:
                await self._write()
        self._parts.end()
        self._end_part()
        await self._write()
        if not self.upload:
            raise UsageError("there is no file in the form", hint="a part with a filename: curl -F file=@report.pdf")
        try:
            return msgspec.convert(self._fields, NewFile)
        except msgspec.ValidationError as error:
            raise UsageError(f"the form is not as it must be: {error}", hint="see docs/http.md, Files") from error

    async def complete(self, expect: bytes | None) -> tuple[bytes, int]:
        """The digest and the size of what is now a blob."""
        blobs, digest = self._core.home.blobs, self._hash.digest()
        return await self._core.files(lambda: blobs.complete(self.upload, expect=expect, hashed=digest))

    async def drop(self) -> None:
        """Forgets what came."""
        if self.upload:
            await self._core.files(lambda: self._core.home.blobs.drop(self.upload))

    async def _begin(self, part: Part) -> None:
        self._end_part()
        if part.is_file:
            if self.upload:
                raise UsageError("there are two files in the form", hint="send each in a request of its own")
            self.upload = await self._core.files(self._core.home.blobs.begin)
            self._fields.setdefault("name", part.filename or "unnamed")
            if part.kind:
                self._fields.setdefault("media_type", part.kind)
        elif part.name not in _FILE_FIELDS:
            known = ", ".join(sorted(_FILE_FIELDS))
            raise UsageError(f"unknown field {part.name!r:.80} in the form", hint=f"known are file, {known}")
        self._part = part

    def _say(self, data: bytes) -> None:
        self._field_bytes += len(data)
        if self._field_bytes > FIELDS_BYTES_MAX:
            raise too_large(self._field_bytes, FIELDS_BYTES_MAX)
        self._text += data

    def _end_part(self) -> None:
        part, self._part = self._part, None
        if part is None or part.is_file:
            return
        data = bytes(self._text)
        self._text.clear()
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"the field {part.name!r} is not UTF-8: {error}", hint="send text in UTF-8") from error
        if part.name == "metadata":
            self._fields["metadata"] = decode(data or b"{}", dict[str, Any])
        elif text or part.name == "name":
            self._fields[part.name] = text

    async def _write(self) -> None:
        data, at = bytes(self._waiting), self._at
        self._waiting.clear()
        if not data:
            return

        def work() -> Any:
            self._hash.update(data)
            return self._core.home.blobs.extend(self.upload, at, data)

        self._at = await self._core.files(work)


async def arriving(receive: Receive) -> AsyncIterator[bytes]:
    """The pieces of a body as they come.

    Raises:
        Gone: the client left before the end.
    """
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        more = message.get("more_body", False)
        if data := message.get("body", b""):
            yield data


def plain(scope: Scope) -> None:
    """Returns only if the body is not compressed: files go as they are.

    Raises:
        UsageError: it is (status 415).
    """
    coding = header(scope, b"content-encoding").decode("latin-1").strip().lower()
    if coding not in ("", "identity"):
        error = UsageError(f"a file is not taken with the content encoding {coding!r:.80}", hint="send it as it is")
        error.status = 415
        raise error
