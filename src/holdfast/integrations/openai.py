"""The OpenAI Agents SDK's `Session`: a conversation that outlives its process, and its machine.

    session = HoldfastSession("chat-1", "./node", agent="laptop")
    await Runner.run(agent, "Hello", session=session)

The one door to the SDK.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import Conflict, MissingExtra, NotFound, UsageError
from holdfast.integrations.conversation import Conversations
from holdfast.integrations.entries import Conversation, Name
from holdfast.integrations.place import Place, Where, settled

try:
    from agents.memory import session as _sessions
    from agents.memory.session_settings import SessionSettings, resolve_session_limit
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("the OpenAI Agents SDK is not installed", hint="pip install 'holdfast[openai]'") from error

if TYPE_CHECKING:
    from agents.items import TResponseInputItem

COLLECTION: Final = "openai"
MAIN: Final = "main"
"""The branch that a session begins with."""


class HoldfastSession:
    """One conversation, with branches. What is not awaited to its end is done or not, and never half.

    Several objects, processes and (shared) machines may have the same session: no item is lost. Deleted and replaced
    items stay readable as the past of `conversations`, until they are erased.

    Args:
        session_id: any text.
        where, agent, shared: where they are kept; see `Place`.
        collection: the name under which they are kept.
        session_settings: the SDK's, such as the limit of `get_items`.
    """

    def __init__(
        self,
        session_id: str,
        where: Where,
        *,
        agent: str | None = None,
        shared: bool | None = None,
        collection: str = COLLECTION,
        session_settings: SessionSettings | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self.conversations = Conversations(Place(where, agent=agent, shared=shared), collection)
        self.branch = MAIN

    # -- the protocol ---------------------------------------------------------------------------------------------

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items of the branch in order; with a limit (else that of the settings) the newest so many."""
        most = resolve_session_limit(limit, self.session_settings)
        name = self._name(self.branch)
        if most is not None and most < 0:
            most = None
        return await settled(self.conversations.load, name, limit=most) or []

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Adds items at the end, all or none."""
        if items:
            await settled(self.conversations.append, self._name(self.branch), items)

    async def pop_item(self) -> TResponseInputItem | None:
        """Takes the newest item away and returns it; None if there is none."""
        found: TResponseInputItem | None = await settled(self.conversations.pop, self._name(self.branch))
        return found

    async def clear_session(self) -> None:
        """Takes all items of all branches away; the session goes on with its main branch."""
        await settled(self.conversations.delete, self._name(MAIN))
        self.branch = MAIN

    # -- branches, history, other machines ------------------------------------------------------------------------

    async def create_branch_from_turn(self, turn_number: int, branch_name: str | None = None) -> str:
        """Begins a branch with all that came before a turn of the user's, and goes on in it.

        Args:
            turn_number: the turn that is to be taken anew; 1 is the first message of the user's.
            branch_name: None: one is made.

        Returns:
            The branch's name.

        Raises:
            UsageError: there is no such turn.
            Conflict: there is such a branch.
        """
        return await settled(self._branch, turn_number, branch_name)

    async def switch_to_branch(self, branch_name: str) -> None:
        """Goes on in another branch of this session.

        Raises:
            NotFound: there is none of this name.
        """
        if branch_name != MAIN and await settled(self.conversations.get, self._name(branch_name)) is None:
            raise NotFound(f"session {self.session_id} has no branch {branch_name!r:.80}", hint="list_branches()")
        self.branch = branch_name

    async def list_branches(self) -> list[str]:
        """The names of the session's branches, the main one first."""
        found = await settled(self.conversations.list, self._name(MAIN))
        return [MAIN, *(each.name[-1] for each in found)]

    async def delete_branch(self, branch_name: str) -> None:
        """Takes a branch away; the one that is in use, and the main one, stay.

        Raises:
            UsageError: it is the main branch, or the one in use.
            NotFound: there is none of this name.
        """
        if branch_name in (MAIN, self.branch):
            raise UsageError(f"{branch_name!r:.80} is in use, or the main branch", hint="switch_to_branch first")
        if not await settled(self.conversations.delete, self._name(branch_name)):
            raise NotFound(f"session {self.session_id} has no branch {branch_name!r:.80}", hint="list_branches()")

    async def history(self, limit: int = 1000) -> list[Conversation]:
        """How the branch stood after each change, newest first; `items_at` reads what it held."""
        return await settled(self.conversations.history, self._name(self.branch), limit=limit)

    async def items_at(self, at: Any) -> list[TResponseInputItem]:
        """The items of the branch at a revision, or a time (seconds, ISO 8601 text, datetime)."""
        return await settled(self.conversations.load, self._name(self.branch), at=at) or []

    async def continue_from(self, agent: str, session_id: str | None = None) -> None:
        """Begins this session with the items of another agent's, from whatever machine, through the hub.

        Args:
            agent: whose.
            session_id: which of his; None: the one of the same name.

        Raises:
            NotFound: he has none.
            Conflict: this session has items already.
        """
        name = self._name(self.branch)
        await settled(self.conversations.fork, (session_id or self.session_id,), name, agent=agent)

    def close(self) -> None:
        """Closes the place, if it was opened here."""
        self.conversations.place.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> Any:
        """What the SDK's compaction asks of sessions that can replace their newest items at once.

        Without it the SDK takes all items away and adds the new ones, and loses them if it is stopped in between.
        """
        name = self._name(self.branch)

        def look() -> tuple[Conversation | None, list[Any]]:
            found = self.conversations.get(name)
            return found, (self.conversations.load(name, at=found.revision) or []) if found else []

        found, items = await settled(look)
        window = items[-limit:] if limit > 0 else []
        older = items[: len(items) - len(window)]

        def put(start: int, output: list[Any]) -> bool:
            before = [*older, *window[:start]]
            if prune_prefix is not None:
                before = list(itertools.dropwhile(prune_prefix, before))
            if found is None or not window[start:]:
                return False
            try:
                self.conversations.replace(name, [*before, *output], expect=found.revision)
            except Conflict:
                return False
            return True

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            return await settled(put, start, output)

        return _sessions._CompactionSnapshot(items=window, complete=not older, replace_suffix=replace_suffix)

    def _name(self, branch: str) -> Name:
        return (self.session_id,) if branch == MAIN else (self.session_id, branch)

    def _branch(self, turn: int, branch: str | None) -> str:
        here = self._name(self.branch)
        items = self.conversations.load(here) or []
        turns = [number for number, item in enumerate(items) if isinstance(item, dict) and item.get("role") == "user"]
        if not 1 <= turn <= len(turns):
            raise UsageError(
                f"there is no turn {turn}", hint=f"1 to {len(turns)}" if turns else "nobody has said a word"
            )
        if branch is None:
            taken = [
                int(found[1])
                for each in self.conversations.list(self._name(MAIN))
                if (found := re.fullmatch(r"branch-(\d+)", each.name[-1]))
            ]
            branch = f"branch-{max(taken, default=0) + 1}"
        if branch == MAIN:
            raise Conflict("the main branch is there already", hint="another name")
        self.conversations.fork(here, self._name(branch), most=turns[turn - 1])
        self.branch = branch
        return branch
