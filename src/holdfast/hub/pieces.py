"""How the bytes of blobs come in and go out: piece by piece, so that no blob is ever whole in the hub's memory."""

from __future__ import annotations

import re
from typing import Final

from holdfast.errors import HubFull, NodeFull, NotFound, UsageError
from holdfast.hub.core import Core
from holdfast.hub.exchange import Gone, Receive, Send

PIECE_BYTES: Final = 256 << 10
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def range_of(text: str, size: int) -> tuple[int, int]:
    """The first and last byte that a Range asks for; first > last if that is impossible.

    Raises:
        UsageError: it is no range of ours.
    """
    if not text:
        return 0, size - 1
    found = _RANGE.fullmatch(text.strip())
    if not found or found.groups() == ("", ""):
        raise UsageError(f"cannot read the range {text!r:.80}", hint="one range, such as bytes=0-1023")
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size - 1) if int(last) else (size, size - 1)
    return int(first), min(int(last), size - 1) if last else size - 1


def room_for(core: Core, size: int) -> None:
    """Returns only while the disk has room for so many bytes more.

    Raises:
        HubFull: it has not.
    """
    try:
        core.home.reserve.check(size)
    except NodeFull as error:
        raise HubFull(error.message, hint="free space on the hub", **error.context) from error


def part_header(asked: str, first: int, last: int, size: int) -> list[tuple[bytes, bytes]]:
    """The header that says which part of a blob an answer is; none where the whole was asked for.

    Raises:
        UsageError: there is nothing of the blob in that range, with status 416.
    """
    if not asked:
        return []
    if first > last:
        error = UsageError(f"the range {asked!r:.80} is not within {size} bytes", hint="HEAD tells the size", size=size)
        error.status = 416
        raise error
    return [(b"content-range", b"bytes %d-%d/%d" % (first, last, size))]


async def send_range(core: Core, send: Send, digest: bytes, first: int, last: int) -> None:
    """The bytes of a blob from the first to the last, as the body of an answer that has begun."""
    blobs = core.home.blobs
    if first > last:
        await send({"type": "http.response.body", "body": b""})
    while first <= last:
        # Whoever asks for a blob proves it by its name; the hub reads each byte once.
        at, length = first, min(PIECE_BYTES, last - first + 1)
        part = await core.files(lambda at=at, length=length: blobs.read(digest, at, length, verify=False))  # type: ignore[misc]
        if len(part) != length:
            raise NotFound(f"the blob {digest.hex()} is shorter than it was")
        first += length
        await send({"type": "http.response.body", "body": part, "more_body": first <= last})


async def take(core: Core, name: bytes, at: int, skip: int, receive: Receive, *, most: int | None = None) -> int:
    """Stores the body of a request behind what an upload has, and returns where it stands then.

    What came before the client left stays for a resume.

    Args:
        core: the hub.
        name: the upload's: a digest, or 32 bytes in place of one.
        at: where it stands.
        skip: bytes of the body that are there already.
        receive: of the request.
        most: where it ends, if that was announced.

    Raises:
        Gone: the client left.
        UsageError: more came than was announced.
    """
    blobs = core.home.blobs
    more, waiting = True, bytearray()
    while more:
        message = await receive()
        gone = message["type"] == "http.disconnect"
        waiting += message.get("body", b"")
        more = message.get("more_body", False) and not gone
        if skip and waiting:
            passed = min(skip, len(waiting))
            del waiting[:passed]
            skip -= passed
        if waiting and (len(waiting) >= PIECE_BYTES or not more):
            data, start = bytes(waiting), at
            waiting.clear()
            if most is not None and start + len(data) > most:
                raise UsageError(f"more came than the {most} bytes that were announced", hint="see Content-Range")
            at = await core.files(lambda data=data, start=start: blobs.append(name, start, data))  # type: ignore[misc]
        if gone:
            raise Gone
    return at
