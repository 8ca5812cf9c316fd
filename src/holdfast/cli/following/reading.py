"""One look at one file: where it agrees with what the log holds of it, and what is new from there on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import msgspec

from holdfast.cli.following import files
from holdfast.cli.following.ledger import (
    CHUNK_BYTES,
    SPANS_MAX,
    TRANSCRIPTS,
    Chunk,
    Head,
    Ledger,
    chunk_draft,
    digest_of,
    head_draft,
    member_draft,
)
from holdfast.cli.following.telling import Telling
from holdfast.cli.transcripts.tools import BYTES, LINES, PACKED, Tool
from holdfast.log import Draft

if TYPE_CHECKING:
    from holdfast.cli.following.follower import Followed

WHY_KEPT: Final = 5
WHY_CHARS: Final = 200
_PIECES: Final = 4

Complain = Callable[[str, str], None]
Redact = Callable[[str, str, Any], Any]
Stop = Callable[[], bool]


class Tally(msgspec.Struct):
    """What a follower has done so far."""

    files: int = 0
    """Files that it had not seen before."""
    lines: int = 0
    said: int = 0
    copied: int = 0
    """Messages that another session told before."""
    bad: int = 0
    anew: int = 0
    """Files that were cut short or written anew."""
    failed: int = 0
    """Files and folders that could not be read."""
    conversations: set[str] = set()


class Desk(msgspec.Struct, frozen=True):
    """What every look needs: the log, the tool and its folder, who is told, and who takes secrets out."""

    ledger: Ledger
    tool: Tool
    home: str
    tally: Tally
    tell: Complain
    redact: Redact | None
    told: set[tuple[str, str]] = msgspec.field(default_factory=set)

    def complain(self, place: str, why: str) -> None:
        """Tells what is wrong at a place, once however often it is met."""
        if (place, why) not in self.told:
            self.told.add((place, why))
            self.tally.failed += 1
            self.tell(place, why)


class Reading:
    """One look at one file that is open.

    Args:
        desk: what every look needs.
        each: the file, as it was last seen; its head is brought up to date.
        file: it.
        size: how many bytes it gives.
        mtime_ns: when it was written.
    """

    def __init__(self, desk: Desk, each: Followed, file: BinaryIO, size: int, mtime_ns: int) -> None:
        self._desk = desk
        self._each = each
        self._file = file
        self._size = size
        self._rested = False
        self._behind = False
        self._new = each.head is None
        session = desk.tool.session(each.found.rel)
        self._head = each.head or Head(
            tool=desk.tool.name,
            group=desk.ledger.group(desk.tool.name, session),
            root=desk.home,
            path=each.found.rel.removesuffix(PACKED),
            kind=each.found.kind,
            session=session,
            spans=[(1, 0)],
        )
        self._wrong: list[tuple[int, str]] = []
        ms = mtime_ns // 1_000_000
        self._telling = Telling(desk.ledger, desk.tool, each.found, each.fid, modified_ms=ms, bad=self._bad)

    @property
    def whole(self) -> bool:
        """Whether all of the file was read, so that no last line waits for its end."""
        return not self._new and not self._behind and self._head.end == self._size

    def run(self, *, quick: bool, rested: bool, stop: Stop) -> bool:
        """Reads what the log does not have; whether anything was written.

        Args:
            quick: the file has grown since it was last read: only its last chunk is looked at again.
            rested: nobody has written it for so long that a last line without an end will get none.
            stop: asked between commits whether to end.
        """
        self._rested = rested or self._head.kind == BYTES
        at, lines = self._agreed(quick)
        wrote = False
        if at < self._head.end:
            other = self._size < self._head.end or at < self._head.end - self._head.tail
            if not other and not self._goes_on(at):
                self._behind = True  # a last line that had no end, and still has none
                return False
            self._desk.tally.anew += other
            self._head = self._head.cut(at, lines)
            if len(self._head.spans) > SPANS_MAX:
                self._head = self._head.cut(0, 0)
            if not self._goes_on(self._head.end):
                self._write(self._head, [], [])
                wrote = True
        while not stop() and self._goes_on(self._head.end):
            self._lot()
            wrote = True
        return wrote

    def settle(self, rest: tuple[int, int] | None) -> bool:
        """Notes how the file stands, now that it was read; whether that had to be written.

        Args:
            rest: its size and time, if they tell from now on whether it changes.
        """
        if self._new:
            return False
        drafts = self._telling.outdated(self._head)
        if rest is not None and rest != (self._head.size, self._head.mtime_ns):
            self._write(msgspec.structs.replace(self._head, size=rest[0], mtime_ns=rest[1]), [], drafts)
        elif drafts:
            self._write(self._head, [], drafts)
        else:
            return False
        return True

    # -- what agrees ----------------------------------------------------------------------------------------------

    def _agreed(self, quick: bool) -> tuple[int, int]:
        """Up to where the file is what the log holds, and how many lines end before: always where a chunk begins."""
        head, last = self._head, self._each.last
        if self._new:
            return 0, 0
        if quick and last is not None and not head.tail and last.start + last.size == head.end and self._is(last):
            return head.end, head.lines
        at = lines = 0
        for chunk in self._desk.ledger.chunks(self._each.fid, head):
            if chunk.start != at or not self._is(chunk):
                break
            if head.tail and chunk.start >= head.end - head.tail and self._size > head.end:
                break  # a line without an end, which has gone on
            at, lines = chunk.start + chunk.size, lines + chunk.lines
        return at, lines

    def _is(self, chunk: Chunk) -> bool:
        if chunk.start + chunk.size > self._size:
            return False
        if chunk.size > files.LINE_BYTES_MAX:
            # Only of what was not looked through is there so large a chunk, and it says nothing but its size.
            return self._desk.redact is not None and digest_of(_too_long(chunk.size)) == chunk.digest
        data = files.read(self._file, chunk.start, chunk.size)
        return len(data) == chunk.size and digest_of(b"".join(self._kept(_lines(data)))) == chunk.digest

    def _goes_on(self, at: int) -> bool:
        """Whether there is something to read from there on."""
        if at >= self._size:
            return False
        return self._rested or bool(files.line_end(self._file, at, self._size))

    # -- what is new ----------------------------------------------------------------------------------------------

    def _lot(self) -> None:
        """Reads and writes the next lines, or what there is of the last one."""
        at = self._head.end
        lines = files.whole_lines(self._file, at, self._size)
        if lines:
            self._take(lines, ended=True)
            return
        end = files.line_end(self._file, at, self._size)
        reach = end or self._size
        if reach - at > files.LINE_BYTES_MAX:
            self._take_long(reach, ended=bool(end))
        elif data := files.read(self._file, at, reach - at):
            self._take([data], ended=data.endswith(b"\n"))
        else:
            self._size = at  # it became shorter while it was read: the next look finds out

    def _take(self, lines: Sequence[bytes], *, ended: bool) -> None:
        """Writes lines, and what was said in them."""
        head, at = self._head, self._head.end
        kept = self._kept(lines)
        drafts: list[Draft] = []
        last = None
        for first, behind in _groups(kept):
            size = sum(map(len, lines[first:behind]))
            count = behind - first if ended else 0
            drafts.append(chunk_draft(self._each.fid, head, at, size, kept[first:behind], lines=count))
            last = Chunk("", at, size, count, digest_of(b"".join(kept[first:behind])))
            at += size
        messages: list[Draft] = []
        if head.kind == LINES:
            head, messages = self._telling.lines(head, kept)
        head = msgspec.structs.replace(
            head,
            end=at,
            tail=0 if ended else len(lines[-1]),
            lines=head.lines + (len(lines) if ended else 0),
            size=0,
            mtime_ns=0,
        )
        self._write(head, messages, [*self._telling.begun(head), *drafts])
        self._each.last = last
        self._desk.tally.lines += len(lines)

    def _take_long(self, end: int, *, ended: bool) -> None:
        """Writes a line that is too long to be looked at, piece by piece; until it is whole it counts as a tail."""
        if self._head.kind == LINES and not self._head.conversation:
            self._head = self._telling.named(self._head, b"")
        begin = at = self._head.end
        size = end - begin
        while at < end:
            drafts: list[Draft] = []
            if self._desk.redact is not None:
                kept = [_too_long(size)]
                drafts.append(chunk_draft(self._each.fid, self._head, at, size, kept, lines=int(ended)))
                at = end
            while at < end and len(drafts) < _PIECES:
                data = files.read(self._file, at, min(files.PIECE_BYTES, end - at))
                if not data:
                    self._size = at
                    return
                count = int(ended and at + len(data) == end)
                drafts.append(chunk_draft(self._each.fid, self._head, at, len(data), [data], lines=count))
                at += len(data)
            over = ended and at == end
            head = msgspec.structs.replace(
                self._head, end=at, tail=0 if over else at - begin, lines=self._head.lines + over, size=0, mtime_ns=0
            )
            if at == end:
                kept_not = "not kept, as nobody can look through it for secrets"
                why = "kept, and not looked at" if self._desk.redact is None else kept_not
                head = self._bad(head, self._head.lines + 1, f"a line of {size:,} bytes: {why}")
            self._write(head, [], drafts)
        self._each.last = None
        self._desk.tally.lines += 1

    def _kept(self, lines: Sequence[bytes]) -> list[bytes]:
        """Lines as they are kept: as they are, or without their secrets."""
        redact = self._desk.redact
        return list(lines) if redact is None else [redacted(line, redact, self._each.fid) for line in lines]

    def _bad(self, head: Head, line: int, why: str) -> Head:
        self._wrong.append((line, why))
        why = why[:WHY_CHARS]
        return msgspec.structs.replace(head, bad=head.bad + 1, why=[*head.why, (line, why)][-WHY_KEPT:])

    def _write(self, head: Head, drafts: Sequence[Draft], last: Sequence[Draft]) -> None:
        each, tally = self._each, self._desk.tally
        more = [member_draft(each.fid, head)] if self._new else []
        version = 0 if self._new else each.version
        versions = self._desk.ledger.write(drafts, last=[*more, *last, head_draft(each.fid, head, version)])
        before = self._head
        each.head, each.version = head, versions[-1]
        tally.files += self._new
        tally.said += head.said - before.said
        tally.copied += head.copied - before.copied
        if head.said > before.said:
            tally.conversations.add(head.conversation)
        self._head, self._new = head, False
        wrong, self._wrong = self._wrong, []
        tally.bad += len(wrong)
        for line, why in wrong:  # only now, or whoever has to look again would say it again
            self._desk.tell(f"{each.found.path}:{line}", why)


def redacted(line: bytes, redact: Redact, fid: str) -> bytes:
    """A line without its secrets; one that has none is the same, to the byte.

    Args:
        line: as the tool wrote it.
        redact: the hook.
        fid: what it is told as the key.
    """
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = line.decode("utf-8", "surrogateescape")
        clean = redact(TRANSCRIPTS, fid, text)
        return line if clean == text else str(clean).encode("utf-8", "surrogateescape")
    clean = redact(TRANSCRIPTS, fid, value)
    end = line[len(line.rstrip(b"\r\n")) :]
    return line if clean == value else msgspec.json.encode(clean) + end


def _too_long(size: int) -> bytes:
    return msgspec.json.encode({"type": "redacted", "bytes": size}) + b"\n"


def _lines(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _groups(kept: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Which lines go into one chunk: as many as a record holds inline, or one that is longer."""
    first = size = 0
    for number, line in enumerate(kept):
        if number > first and size + len(line) > CHUNK_BYTES:
            yield first, number
            first, size = number, 0
        size += len(line)
    yield first, len(kept)
