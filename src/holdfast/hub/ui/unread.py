"""The number on every page: messages that nobody has read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.collections import mail_lists
from holdfast.errors import HoldfastError
from holdfast.hub.routes_mail import ready
from holdfast.hub.ui.messages_filters import mine

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Ask


async def unread(ask: Ask) -> int | None:
    """How many unread messages wait in somebody's own inboxes, counted up to 1000; None: he has none."""
    core, boxes = ask.core, mine(ask.principal)
    if not boxes:
        return None
    try:
        await ready(core, boxes, core.home.wall.now_ms())
        return await core.read(lambda: mail_lists.unread(core.corpus, boxes))
    except HoldfastError:
        return 0  # of mail that is being put in order; and the page of an error must not fail, too
