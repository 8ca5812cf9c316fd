"""The numbers of one's own inboxes: messages that nobody has read, on every page, and those that need a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.collections.mail_lists import NEEDS, UNREAD, counts
from holdfast.errors import HoldfastError
from holdfast.hub.routes_mail import ready
from holdfast.hub.ui.messages_filters import mine

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Ask


async def unread(ask: Ask) -> int | None:
    """How many unread messages wait in somebody's own inboxes, counted up to 1000; None: he has none."""
    found = await _counted(ask, UNREAD)
    return None if found is None else found["unread"]


async def unread_and_needing(ask: Ask) -> tuple[int | None, int]:
    """The same, and how many messages there need a person, counted up to 1000, by one question."""
    found = await _counted(ask, UNREAD | NEEDS)
    return (None, 0) if found is None else (found["unread"], found["needs"])


async def _counted(ask: Ask, cells: dict[str, list[tuple[int, int]]]) -> dict[str, int] | None:
    core, boxes = ask.core, mine(ask.principal)
    if not boxes:
        return None
    try:
        await ready(core, boxes, core.home.wall.now_ms())
        return await core.read(lambda: counts(core.corpus, boxes, cells))
    except HoldfastError:
        return dict.fromkeys(
            cells, 0
        )  # of mail that is being put in order; and the page of an error must not fail, too
