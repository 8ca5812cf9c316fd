"""Mail within one node directory: what its agents wrote to each other, read from their logs with no hub between."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from holdfast.collections.delivery import DELIVERY, Act
from holdfast.collections.mailbox import acts_in
from holdfast.collections.messages import Message, message_in
from holdfast.corpus import Filter, Stored
from holdfast.errors import HoldfastError, UsageError
from holdfast.log import OpenLog
from holdfast.log.drafts import MESSAGES
from holdfast.log.sealing import value_in

if TYPE_CHECKING:
    from holdfast.node.directory import Directory

PAGE: Final = 200
LOCAL: Final = "local."
_NO_CURSOR: Final = "pass what an inbox's `cursor` gave, or begin without one"


class Letter(msgspec.Struct, frozen=True):
    """A message as it was found, and the record that it is."""

    message: Message
    stream: str
    seq: int
    etag: str


class LocalMail:
    """The logs of a node's agents, looked through for messages. Not to be shared among threads; close it.

    Args:
        directory: the node's.
        box: whose messages; None: everybody's.
        since: a cursor that another one gave; empty: from the beginning.

    Raises:
        UsageError: that is no cursor of local mail.
    """

    def __init__(self, directory: Directory, box: str | None, since: str = "") -> None:
        self._directory = directory
        self._box = box
        self._logs: dict[str, OpenLog] = {}
        self._seen = _positions(since)

    @property
    def cursor(self) -> str:
        """Where to go on behind everything that was pulled."""
        return LOCAL + urlencode(sorted(self._seen.items()))

    def pull(self) -> list[Letter]:
        """What came since, by the time at which it was posted; empty for nothing."""
        found: list[Letter] = []
        for agent, log in self._open():
            which = Filter(
                collection=MESSAGES,
                to=self._box,
                current=True,
                newest_first=False,
                after=self._seen.get(agent, 0),
                limit=PAGE,
            )
            rows = log.log.corpus.page(which)
            if rows:
                self._seen[agent] = rows[-1].pos
            for stored in rows:
                with contextlib.suppress(HoldfastError):  # what cannot be read is `verify`'s to report
                    found.append(self._letter(stored))
        return sorted(found, key=lambda each: (each.message.time, each.message.agent, each.seq))

    def named(self, msg: str, sender: str | None = None) -> list[Letter]:
        """The messages with this id."""
        found = []
        for agent, log in self._open():
            stored = log.log.newest(MESSAGES, msg) if sender in (None, agent) else None
            if stored is not None:
                found.append(self._letter(stored))
        return found

    def acts(self, msg: str, of: str) -> dict[str, list[tuple[int, Act]]]:
        """What each agent here said of a message."""
        found = {}
        for agent, log in self._open():
            said = acts_in(log.log.versions(DELIVERY, msg), of, self._value)
            if said:
                found[agent] = said
        return found

    def close(self) -> None:
        """Lets go of the logs; a second close is fine."""
        logs, self._logs = self._logs, {}
        for opened in logs.values():
            self._directory.release_log(opened)

    def _open(self) -> list[tuple[str, OpenLog]]:
        for agent in self._directory.agents():
            if agent not in self._logs:
                self._logs[agent] = self._directory.open_log(agent, None)
        return list(self._logs.items())

    def _value(self, stored: Stored) -> object:
        return value_in(stored, self._directory.blobs, self._directory.vault)

    def _letter(self, stored: Stored) -> Letter:
        record = stored.record
        message = message_in(stored, self._value(stored))
        return Letter(message, record.stream.hex(), record.seq, record.link.hex())


def _positions(since: str) -> dict[str, int]:
    if not since:
        return {}
    if not since.startswith(LOCAL):
        raise UsageError(f"the cursor {since!r:.80} is a hub's", hint="open the store with that hub, or begin anew")
    try:
        return {agent: int(pos) for agent, pos in parse_qsl(since.removeprefix(LOCAL), strict_parsing=True)}
    except ValueError:
        if since == LOCAL:
            return {}
        raise UsageError(f"not a cursor: {since!r:.80}", hint=_NO_CURSOR) from None
