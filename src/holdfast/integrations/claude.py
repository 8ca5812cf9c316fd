"""The Claude Agent SDK's `SessionStore`: transcripts that every machine can resume.

    store = HoldfastSessionStore("http://hub:8084", agent="laptop")
    options = ClaudeAgentOptions(session_store=store)

The one door to the SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import MissingExtra, UsageError
from holdfast.integrations.conversation import Conversations
from holdfast.integrations.entries import Conversation, Name
from holdfast.integrations.place import Place, Where, settled

try:
    from claude_agent_sdk import fold_session_summary
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("the Claude Agent SDK is not installed", hint="pip install 'holdfast[claude]'") from error

if TYPE_CHECKING:
    from claude_agent_sdk import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )

COLLECTION: Final = "claude"
IN_PLACE_BYTES: Final = 16 << 10
_SUMMARY: Final = "summary"


class HoldfastSessionStore:
    """Claude's sessions and those of its subagents, in a node's log or at a hub. All six methods of the protocol.

    An entry with a `uuid` that the session has already is not stored again, so a batch that is sent twice is stored
    once. Forks, earlier states and what another machine began are reached through `conversations`, whose names are
    ``(project_key, session_id)``; see docs/frameworks.md.

    Args:
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
    """

    def __init__(
        self, where: Where, *, agent: str | None = None, shared: bool | None = None, collection: str = COLLECTION
    ) -> None:
        self.conversations = Conversations(Place(where, agent=agent, shared=shared), collection)

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Adds a batch of transcript entries, all or none."""
        if not entries:
            return
        name = _name(key)

        def change(state: dict[str, Any], fresh: list[Any]) -> dict[str, Any]:
            if len(name) > 2:
                return state
            return {**state, _SUMMARY: fold_session_summary(state.get(_SUMMARY), key, fresh)["data"]}

        def folded(state: dict[str, Any], fresh: list[Any]) -> dict[str, Any]:
            before = state.get(_SUMMARY)
            return change({**state, _SUMMARY: before and {"session_id": name[1], "mtime": 0, "data": before}}, fresh)

        marks = [mark if isinstance(mark := entry.get("uuid"), str) else None for entry in entries]
        if self._is_small(name, entries):
            self.conversations.append(name, entries, change=folded, ids=marks)
            return
        await settled(self.conversations.append, name, entries, change=folded, ids=marks)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """The entries of a session or of what is below it, in order; None if nothing was ever appended."""
        name = _name(key)
        if self.conversations.at_hand(name):
            return self.conversations.load(name)
        return await settled(self.conversations.load, name)

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of a project, and when each was last written (ms since 1970)."""
        found = await self._list((project_key,))
        return [{"session_id": each.name[-1], "mtime": each.updated} for each in found]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """What a list of a project's sessions shows of each, without its transcript."""
        found = await self._list((project_key,))
        return [
            {"session_id": each.name[-1], "mtime": each.updated, "data": each.state[_SUMMARY]}
            for each in found
            if each.state.get(_SUMMARY) is not None
        ]

    async def delete(self, key: SessionKey) -> None:
        """Deletes a session with all below it, or with a `subpath` that alone; one that is not there is fine."""
        name = _name(key)
        await settled(self.conversations.delete, name, below=len(name) == 2)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """The subpaths under which a session has transcripts, such as those of its subagents."""
        found = await self._list((key["project_key"], key["session_id"]))
        return [each.name[-1] for each in found]

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.conversations.place.close()

    def _is_small(self, name: Name, entries: list[SessionStoreEntry]) -> bool:
        """Whether the write takes less than the way to a thread: little, to one's own log, no disk to sync."""
        store = self.conversations.place.store
        if store is None or store._opened.level.full or not self.conversations.at_hand(name):
            return False
        try:
            return len(msgspec.json.encode(entries)) <= IN_PLACE_BYTES
        except (TypeError, ValueError, RecursionError):
            return False  # `append` says what is wrong

    async def _list(self, below: Name) -> list[Conversation]:
        found = self.conversations.list_at_hand(below)
        return await settled(self.conversations.list, below) if found is None else found


def _name(key: SessionKey) -> Name:
    project, session, below = key.get("project_key"), key.get("session_id"), key.get("subpath")
    if not project or not session:
        raise UsageError(f"no key of a session: {key!r:.200}", hint="project_key and session_id, and perhaps a subpath")
    return (project, session, below) if below else (project, session)
