"""Saved views: a name for a list of messages. Each person's own, kept as records, so they are on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.collections.messages import PEOPLE
from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.own import Desk
from holdfast.hub.routes_mail import check_reader
from holdfast.hub.ui.messages_act import back_of
from holdfast.hub.ui.messages_filters import asked_in, filters_of, query_of
from holdfast.hub.ui.routes import Ask, View
from holdfast.log import drafts, load

if TYPE_CHECKING:
    from holdfast.hub.core import Core
    from holdfast.hub.principal import Principal

VIEWS: Final = "views"
"""The collection that they are kept in, in the hub's log of whoever made them."""
VIEWS_MAX: Final = 20
NAME_MAX: Final = 60


class SavedView(msgspec.Struct):
    """A list of messages under a name; `own` is False of what every hub has."""

    name: str
    query: str
    own: bool = True


PRESETS: Final = (
    SavedView("Questions", "tab=needs&kind=question", own=False),
    SavedView("Alerts", "tab=feed&kind=alert", own=False),
    SavedView("High and hot", "tab=feed&priority=high%2B", own=False),
    SavedView("Unread", "tab=feed&is=unread", own=False),
    SavedView("The last hour", "tab=feed&time=1h", own=False),
)
EVERYBODYS: Final = SavedView("Everybody's mail", "tab=feed&to=%2A", own=False)
"""For who reads all messages."""


def saved(core: Core, principal: Principal) -> list[SavedView]:
    """Somebody's own, in the order of their names; for threads."""
    out = []
    for stored in core.corpus.keys(owner(principal), VIEWS, limit=VIEWS_MAX):
        try:
            value = load(stored, core.home.blobs)
            asked = asked_in(value["query"])
            filters_of(asked)
        except (HoldfastError, TypeError, KeyError):
            continue  # somebody wrote something else here
        out.append(SavedView(stored.record.key, query_of(asked)))
    return out


def owner(principal: Principal) -> str:
    """Whose views somebody sees and saves."""
    return principal.name or PEOPLE


async def change(ask: Ask) -> View:
    """POST /messages/views: saves the list that `query` names as `name`, or forgets that name."""
    core, form, whose = ask.core, ask.form, owner(ask.principal)
    check_reader(ask.principal, whose)
    name, what = form.get("name", "").strip(), form.get("what", "")
    if what not in ("save", "forget"):
        raise UsageError(f"cannot {what!r:.40} a view", hint="save, or forget")
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise UsageError(f"a view needs a name of 1 to {NAME_MAX} letters, got {name!r:.80}", hint="such as: my alerts")
    if what == "save":
        asked = asked_in(form.get("query", ""))
        filters_of(asked)
        have = await core.read(lambda: core.corpus.keys(whose, VIEWS, limit=VIEWS_MAX + 1))
        if len(have) >= VIEWS_MAX and name not in [each.record.key for each in have]:
            raise UsageError(f"there are {VIEWS_MAX} views already", hint="forget one of them first")
        draft = drafts.value(VIEWS, name, {"query": query_of(asked)}, author=whose)
    else:
        draft = drafts.remove(VIEWS, name, author=whose)
    written = core.own.ready(await core.own.log_of(whose), draft)

    def work(desk: Desk) -> Any:
        return desk.append(written) if what == "save" or desk.newest(VIEWS, name) else None

    await core.own.write(whose, work, size=len(draft.payload), quick=True)
    return View(status=303, headers=(("location", back_of(form)),))
