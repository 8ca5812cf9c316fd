"""Tells a followed file as a session: its messages once, whoever copied their lines and however often.

A message is known by what `spoken.known_by` says, so a line that is read again is the same message, and one that says
something else under its id is the message's next version. A message that was deleted stays deleted. A session that
begins with another's first message is a copy of its beginning (resumed or forked): what the other has told is not told
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from holdfast.cli.following import spoken
from holdfast.cli.following.files import Found
from holdfast.cli.following.ledger import TRANSCRIPTS, Head, Ledger
from holdfast.cli.transcripts import Bad, Other, Said, lines
from holdfast.cli.transcripts.tools import Tool, digest, folder_in, parent_in, session_in, stem
from holdfast.clock import iso
from holdfast.collections.sessions import MESSAGE, SESSION, key_of
from holdfast.corpus.search import WORDS
from holdfast.errors import NotCached, UsageError
from holdfast.log import Draft, value
from holdfast.log.marks import SESSIONS
from holdfast.log.versions import Version

BEFORE_MAX: Final = 16
_LOOK: Final = 20
"""Lines that may say whose session it is."""

Complaint = Callable[[Head, int, str], Head]


class Telling:
    """One look's messages.

    Args:
        ledger: where they go.
        tool, found, fid: whose they are.
        modified_ms: when the file was written, for lines that do not say when.
        bad: notes in a head that a line could not be read.
    """

    def __init__(self, ledger: Ledger, tool: Tool, found: Found, fid: str, *, modified_ms: int, bad: Complaint) -> None:
        self._ledger = ledger
        self._store = ledger.store
        self._tool = tool
        self._found = found
        self._fid = fid
        self._modified = iso(modified_ms)
        self._bad = bad
        self._root: Version | None = None
        self._looked = False
        self._first: Draft | None = None
        self._making: dict[str, tuple[dict[str, Any], int]] = {}

    def lines(self, head: Head, kept: Sequence[bytes]) -> tuple[Head, list[Draft]]:
        """The head behind these lines, and drafts of the messages in them."""
        data = b"".join(kept)
        if not head.conversation:
            head = self.named(head, data)
        self._making = {}
        for found in self._tool.read(data, stem(self._found.rel)):
            head = self._take(head, found, kept[found.line - 1], head.lines + found.line)
        return head, self._made()

    def each(self, head: Head, kept: Sequence[tuple[int, bytes]]) -> tuple[Head, list[Draft]]:
        """The same for lines that do not follow on one another, each with its number."""
        self._making = {}
        for number, line in kept:
            for found in self._tool.read(line, stem(self._found.rel)):
                head = self._take(head, found, line, number)
        return head, self._made()

    def begun(self, head: Head) -> list[Draft]:
        """What is written with the first messages of a session."""
        drafts = [] if self._first is None else [self._first]
        self._first = None
        if head.conversation and head.said + head.copied and self._session(head) is None:
            drafts += self.outdated(head)
            self._looked = False
        return drafts

    def outdated(self, head: Head) -> list[Draft]:
        """The session's own record, if it is another than the one that is there; none if it was deleted."""
        if not head.conversation or not head.said + head.copied:
            return []
        root = self._session(head)
        content = spoken.about_session(head, self._fid, self._store.agent)
        if root is not None and (root.gone or root.value == content):
            return []
        return [spoken.session_draft(head.conversation, content)]

    def named(self, head: Head, data: bytes) -> Head:
        """The head with what its first lines say of the session; else its path says it."""
        session, parent, folder = head.session, "", ""
        for number, found in enumerate(lines.objects(data)):
            if number >= _LOOK:
                break
            if isinstance(found, Bad):
                continue
            session = session or session_in(found[1])
            parent = parent or parent_in(found[1])
            folder = folder or folder_in(found[1])
        own = stem(head.path)
        session = session or own
        if not parent and session not in own and (self._tool.session(head.path) or own.startswith("agent-")):
            parent = session
        return msgspec.structs.replace(
            head,
            session=session,
            group=self._ledger.group(head.tool, session),
            parent=parent,
            folder=folder,
            conversation=spoken.conversation_id(head.tool, session, head.path, self._fid),
        )

    # -- inside -------------------------------------------------------------------------------------------------

    def _take(self, head: Head, found: Said | Bad | Other, line: bytes, number: int) -> Head:
        if isinstance(found, Bad):
            return self._bad(head, number, found.why)
        if isinstance(found, Other):
            return head
        try:
            return self._say(head, found, line, number)
        except (UsageError, RecursionError) as error:
            why = error.message if isinstance(error, UsageError) else "nested too deeply"
            return self._bad(head, number, why)

    def _made(self) -> list[Draft]:
        return [spoken.message_draft(key, *made) for key, made in self._making.items()]

    def _session(self, head: Head) -> Version | None:
        if not self._looked:
            self._root = self._newest(key_of(head.conversation, SESSION))
            self._looked = True
        return self._root

    def _newest(self, key: str, collection: str = SESSIONS) -> Version | None:
        found = self._store.history(key, collection=collection, limit=1)
        return found[0] if found else None

    def _say(self, head: Head, said: Said, line: bytes, number: int) -> Head:
        root = self._session(head)
        if root is not None and root.gone:
            return head  # somebody deleted the session: its file is kept, and it is not told again
        known = spoken.known_by(said, line, number)
        if not head.first_said:
            head = self._begins(head, known)
        time = spoken.moment(said.time)
        key = key_of(head.conversation, MESSAGE, known)
        content = spoken.content_of(said, time or head.last or self._modified, number)
        told = self._told(head, key, known, content, stated=bool(time))
        if told is None:
            return head
        at = content["timestamp"]
        return msgspec.structs.replace(
            head,
            said=head.said + told,
            copied=head.copied + (not told),
            first=head.first or at,
            last=max(head.last, at),
            title=head.title or spoken.title_of(said),
        )

    def _told(self, head: Head, key: str, known: str, content: dict[str, Any], *, stated: bool) -> bool | None:
        """Whether it is told now; None: it was, or must not be; False: another session told it."""
        if key in self._making:
            self._making[key] = (content, self._making[key][1])
            return None
        try:
            latest = self._newest(key)
        except NotCached:
            return None  # its body is elsewhere; it was told
        if latest is not None:
            if not latest.gone:
                if not stated and isinstance(latest.value, dict):
                    content["timestamp"] = latest.value.get("timestamp", content["timestamp"])
                if not spoken.same(latest.value, content):
                    self._making[key] = (content, latest.version)
            return None
        if any(self._newest(key_of(other, MESSAGE, known)) is not None for other in reversed(head.before)):
            return False
        self._making[key] = (content, 0)
        return True

    def _begins(self, head: Head, known: str) -> Head:
        """The head of a conversation whose first message is known by this."""
        name = f"first/{digest(self._tool.name, known)}"
        there = self._newest(name, TRANSCRIPTS)
        content = there.value if there is not None and isinstance(there.value, dict) else {}
        others = [each for each in content.get("sessions", ()) if each != head.conversation]
        listed = {"sessions": [*others, head.conversation][-BEFORE_MAX:], WORDS: ""}
        self._first = value(TRANSCRIPTS, name, listed, expect=0 if there is None else there.version)
        return msgspec.structs.replace(head, first_said=known, before=others[-BEFORE_MAX:])
