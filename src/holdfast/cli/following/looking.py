"""One look at one session of a tool that keeps them in a database: what differs from the log is kept, and told."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.cli.following import rows
from holdfast.cli.following.files import LOT_BYTES, LOT_LINES, Found
from holdfast.cli.following.ledger import TRANSCRIPTS, Head, head_draft, member_draft
from holdfast.cli.following.opencode import Item, Source
from holdfast.cli.following.reading import WHY_CHARS, WHY_KEPT, Desk, Stop, redacted
from holdfast.cli.following.spoken import conversation_id
from holdfast.cli.following.telling import Telling
from holdfast.cli.transcripts import opencode as form
from holdfast.cli.transcripts.tools import ROWS, digest
from holdfast.log import Draft

WAIT_MS: Final = 60_000
"""So long what is not finished may stand still before it is kept as it is."""
AT_WORK_MS: Final = 600_000
"""What was written so lately is looked at whenever anything was written."""
ITEM_BYTES_MAX: Final = 64 << 20
"""A longer message is not kept: it would have to be held in memory as one."""


class Followed:
    """A session, as this process last saw it.

    Attributes:
        hint: what its source said of it when it was last looked at; None: it is to be looked at.
        marks: its messages as they were then, by name, while it is at work.
        at_ms: when it was written last.
        waiting: whether a message of it is not finished.
    """

    def __init__(self, source: Source, session: str, fid: str) -> None:
        self.source = source
        self.session = session
        self.fid = fid
        self.hint: Hashable = None
        self.marks: dict[str, str] | None = None
        self.at_ms = 0
        self.waiting = False

    @property
    def place(self) -> str:
        """What it is called when something is wrong with it."""
        return f"{self.source.path}:{self.session}"

    def forget(self) -> None:
        """Has the next look begin with what the log holds."""
        self.hint = self.marks = None


class Looking:
    """One look at one session.

    Args:
        desk: what every look needs.
        each: the session, as it was last seen; it is brought up to date.
        now_ms: the time.
    """

    def __init__(self, desk: Desk, each: Followed, now_ms: int) -> None:
        self._desk = desk
        self._each = each
        self._now_ms = now_ms
        self._wrong: list[tuple[int, str]] = []

    def run(self, stop: Stop) -> bool:
        """Keeps what is not kept yet; whether anything was written.

        Args:
            stop: asked between commits whether to end.

        Raises:
            Conflict: somebody else wrote what is known of it meanwhile.
        """
        each = self._each
        shape = each.source.shape(each.session)
        if shape is None:
            return False  # the next survey misses it
        self._shape = shape
        found = self._desk.ledger.head(each.fid)
        self._head, self._version = (self._new(), 0) if found is None else found
        if self._head.form > shape.version:
            return False  # the tool has moved it into another form, and taken it out there: this is the old one
        each.at_ms = max((item.newest_ms for item in shape.items), default=0)
        now = {rows.name_of(item.order, item.id): str(item.mark) for item in shape.items}
        mark = digest("shape", str(shape.version), str(shape.about), str(now))
        each.waiting = False
        wrote = False
        if mark != self._head.mark or self._head.gone:
            wrote = self._read(now, mark, stop)
        at_work = each.at_ms > self._now_ms - AT_WORK_MS
        each.marks = now if at_work and not stop() else None  # told to end, it has not seen all of them
        return wrote

    # -- inside -----------------------------------------------------------------------------------------------------

    def _read(self, now: dict[str, str], mark: str, stop: Stop) -> bool:
        each, shape = self._each, self._shape
        stays = set(now)
        marks = each.marks if self._head.form == shape.version else None
        before, wrote = self._head, False
        self._head = self._known(before)
        self._telling = self._new_telling()
        new = []
        for number, (name, item) in enumerate(zip(list(now), shape.items, strict=True), start=1):
            if marks is not None and marks.get(name) == now[name]:
                continue
            if item.size > ITEM_BYTES_MAX:
                self._bad(number, f"{item.id}: a message of {item.size:,} bytes is not kept")
            else:
                new.append((number, item))
        for lot in _lots(new):
            if stop():
                return wrote
            wrote |= self._keep(dict((item, number) for number, item in lot), now)
        gone = [
            name for name in (rows.names(self._desk.ledger, each.fid) if marks is None else marks) if name not in stays
        ]
        drafts = [draft for name in gone for draft in rows.changed(self._desk.ledger, each.fid, name, rows.GONE)]
        drafts += rows.changed(self._desk.ledger, each.fid, rows.ABOUT, self._line(shape.about))
        size = sum(item.size for item in shape.items)
        self._head = msgspec.structs.replace(self._head, lines=len(now), end=size, mark="" if each.waiting else mark)
        last = self._telling.outdated(self._head)
        if not drafts and not last and self._head == before:
            return wrote
        self._write(drafts, last)
        return True

    def _keep(self, numbers: dict[Item, int], now: dict[str, str]) -> bool:
        """Keeps and tells a lot of messages; whether there was anything to write. What waits is taken out of `now`."""
        each, ledger = self._each, self._desk.ledger
        drafts: list[Draft] = []
        said: list[tuple[int, bytes]] = []
        for item, message in each.source.messages(each.session, self._shape.version, list(numbers)):
            name = rows.name_of(item.order, item.id)
            if isinstance(message, Exception):
                self._bad(numbers[item], f"{item.id}: {message}")
            elif not form.settled(message) and item.newest_ms > self._now_ms - WAIT_MS:
                each.waiting = True
                now.pop(name)
            else:
                line = self._line(message)
                drafts += rows.changed(ledger, each.fid, name, line)
                said.append((numbers[item], line))
        before = self._head
        self._head, messages = self._telling.each(before, said)
        if not drafts and not messages and self._head == before:
            return False
        self._desk.tally.lines += len(drafts)
        self._head = msgspec.structs.replace(self._head, mark="")
        self._write([*drafts, *messages], self._telling.begun(self._head), before)
        return True

    def _write(self, drafts: Sequence[Draft], last: Sequence[Draft], before: Head | None = None) -> None:
        each, ledger, tally, head = self._each, self._desk.ledger, self._desk.tally, self._head
        new = not self._version
        more = [member_draft(each.fid, head)] if new else []
        self._version = ledger.write(drafts, last=[*more, *last, head_draft(each.fid, head, self._version)])[-1]
        tally.files += new
        if before is not None:
            tally.said += head.said - before.said
            tally.copied += head.copied - before.copied
            if head.said > before.said:
                tally.conversations.add(head.conversation)
        wrong, self._wrong = self._wrong, []
        tally.bad += len(wrong)
        for number, why in wrong:  # only now, or whoever has to look again would say it again
            self._desk.tell(f"{each.place}:{number}", why)

    def _new(self) -> Head:
        each, desk = self._each, self._desk
        path = f"{Path(each.source.path).name}/{each.session}.json"
        return Head(
            tool=desk.tool.name,
            root=str(Path(each.source.path).parent),
            path=path,
            kind=ROWS,
            session=each.session,
            group=desk.ledger.group(desk.tool.name, each.session),
            conversation=conversation_id(desk.tool.name, each.session, path, each.fid),
            form=self._shape.version,
        )

    def _known(self, head: Head) -> Head:
        """The head with what the session's own row says, and where that lies now."""
        info, place = self._shape.about["info"], Path(self._each.source.path)
        return msgspec.structs.replace(
            head,
            root=str(place.parent),
            path=f"{place.name}/{self._each.session}.json",
            form=self._shape.version,
            gone=False,
            parent=str(info.get("parentID") or ""),
            folder=self._clean(form.folder(info)),
            title=self._clean(form.title(info)) or head.title,
            first=head.first or form.moment(info.get("time") or {}, "created"),
        )

    def _new_telling(self) -> Telling:
        each, desk = self._each, self._desk
        found = Found(f"{each.session}.json", each.place, ROWS)
        modified = each.at_ms or self._now_ms
        return Telling(desk.ledger, desk.tool, found, each.fid, modified_ms=modified, bad=self._noted)

    def _noted(self, head: Head, number: int, why: str) -> Head:
        """The head with what is wrong with a message; what was wrong with it before was said then."""
        why = why[:WHY_CHARS]
        if (number, why) in map(tuple, head.why):
            return head
        self._wrong.append((number, why))
        return msgspec.structs.replace(head, bad=head.bad + 1, why=[*head.why, (number, why)][-WHY_KEPT:])

    def _bad(self, number: int, why: str) -> None:
        self._head = self._noted(self._head, number, why)

    def _line(self, content: Any) -> bytes:
        """What is kept of it: one line of JSON, without secrets where these are taken out."""
        try:
            line = msgspec.json.encode(content) + b"\n"
        except (UnicodeEncodeError, OverflowError):
            line = json.dumps(content).encode() + b"\n"  # halves of letters, and numbers that only it can say
        redact = self._desk.redact
        return line if redact is None else redacted(line, redact, self._each.fid)

    def _clean(self, text: str) -> str:
        redact = self._desk.redact
        return text if redact is None else str(redact(TRANSCRIPTS, self._each.fid, text))


def _lots(new: Sequence[tuple[int, Item]]) -> Iterator[list[tuple[int, Item]]]:
    """Messages in lots of what is read, and written, at once; one that is longer is a lot of its own."""
    lot: list[tuple[int, Item]] = []
    size = 0
    for number, item in new:
        if lot and (size + item.size > LOT_BYTES or len(lot) == LOT_LINES):
            yield lot
            lot, size = [], 0
        lot.append((number, item))
        size += item.size
    if lot:
        yield lot
