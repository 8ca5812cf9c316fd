"""The hub's feed of one recipient's mail; apart from the inbox, which asks no hub on a machine without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.log.drafts import MESSAGES
from holdfast.node.changes import HubFeed, Page, Wanted
from holdfast.node.inbox import POLL_S, version_of
from holdfast.node.local_mail import Letter

if TYPE_CHECKING:
    from holdfast.node.hub import Hub


class MailFeed(HubFeed):
    """The hub's feed of one recipient's messages; while no hub answers, what comes on this machine.

    Args:
        hub: one, or several.
        box: the recipient.
        since: a cursor.
        beside: what came on this machine since it was last asked.
    """

    def __init__(self, hub: Hub, box: str, since: str | None, beside: Callable[[], list[Letter]]) -> None:
        super().__init__(hub, Wanted(collection=MESSAGES, to=box), since, True)
        self._beside = beside
        self.away = False

    def pull(self) -> Page | None:
        self.away = False
        return super().pull()

    def _away(self, seconds: float) -> Page:
        waited = 0.0
        while waited < seconds and not self._stop.wait(POLL_S):
            waited += POLL_S
            if found := self._beside():
                self.away = True
                return [(self.cursor, version_of(each)) for each in found]
        return []
