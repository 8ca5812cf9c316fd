"""The numbers of one's own inboxes: messages that nobody has read, on every page, and those that need a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from holdfast.collections import mail_lists
from holdfast.corpus import SqlCorpus
from holdfast.errors import HoldfastError
from holdfast.hub.routes_mail import ready
from holdfast.hub.ui.messages_filters import mine

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Ask


async def unread(ask: Ask) -> int | None:
    """How many unread messages wait in somebody's own inboxes, counted up to 1000; None: he has none."""
    return await _counted(ask, mail_lists.unread)


async def waiting(ask: Ask) -> int:
    """How many messages there need a person, counted up to 1000."""
    return await _counted(ask, mail_lists.waiting) or 0


async def _counted(ask: Ask, count: Callable[[SqlCorpus, Sequence[str]], int]) -> int | None:
    core, boxes = ask.core, mine(ask.principal)
    if not boxes:
        return None
    try:
        await ready(core, boxes, core.home.wall.now_ms())
        return await core.read(lambda: count(core.corpus, boxes))
    except HoldfastError:
        return 0  # of mail that is being put in order; and the page of an error must not fail, too
