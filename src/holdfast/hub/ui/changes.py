"""What the data browser can change: set a key, take its value away with a reason, go back to an earlier version."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

from holdfast.collections.typed.schema import is_ours
from holdfast.corpus import Stored
from holdfast.errors import Conflict, Denied, HoldfastError, NotFound, UsageError
from holdfast.hub import acts, audit
from holdfast.hub.own import QUICK_BYTES, Desk
from holdfast.hub.ui.pages import DataAt
from holdfast.hub.ui.record import VERSIONS_STEPS, of, unchangeable
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.words import key_url
from holdfast.log import Draft, drafts, load

REASON_MAX = 1_000
DONE = {"write": "written", "delete": "deleted", "rollback": "rolled-back"}
ACTS = {"write": acts.CHANGE, "delete": acts.DELETE, "rollback": acts.ROLLBACK}


async def change(ask: Ask) -> View:
    """POST /data/change: one change of one key, if it is still as the page showed it.

    What was typed is never lost: a value that could not be written comes back with the page, as it is now.
    """
    form = ask.form
    agent, collection, key = (form.get(name, "") for name in ("agent", "collection", "key"))
    what = form.get("what", "")
    if what not in DONE or not form.get("expect"):
        raise UsageError(f"cannot do {what!r:.40} here", hint="use the forms of the page of a key")
    ask.principal.check_read(collection)
    try:
        await _carry_out(ask, agent, collection, key)
    except (Conflict, UsageError) as error:
        if what != "write":
            raise
        return await _kept(ask, error, agent, collection, key)
    return View(status=303, headers=(("location", key_url(agent, collection, key, done=DONE[what])),))


async def _carry_out(ask: Ask, agent: str, collection: str, key: str) -> None:
    draft = await ask.core.read(lambda: _draft(ask, agent, collection, key))
    own = ask.core.own
    log = await own.log_of(agent)
    quick = len(draft.payload) <= QUICK_BYTES
    ready = own.ready(log, draft) if quick else await ask.core.read(lambda: own.ready(log, draft))

    def work(desk: Desk) -> Stored | Conflict:
        try:
            return desk.append(ready)
        except Conflict as error:
            return error

    found = await own.write(agent, work, size=len(draft.payload), quick=quick)
    if isinstance(found, Conflict):
        raise _beaten()
    audit.done(ask.scope, what=ACTS[ask.form["what"]], about=f"{collection}/{key} of {agent}", ref=found.record.link)


async def _kept(ask: Ask, error: HoldfastError, agent: str, collection: str, key: str) -> View:
    """The page of the key as it is now, with what was typed and why it was not written."""
    view = await of(ask, DataAt(agent=agent, collection=collection, key=key), agent, collection, key)
    view.status = error.status
    view.extra |= {"typed": ask.form.get("value", ""), "problem": error}
    return view


def _beaten() -> Conflict:
    return Conflict("somebody changed this key since the page was made", hint="look at it again, and decide anew")


def _draft(ask: Ask, agent: str, collection: str, key: str) -> Draft:
    """What is to be written; read from the corpus, so for threads."""
    core, form = ask.core, ask.form
    versions: list[Stored] = list(islice(core.corpus.versions(agent, collection, key), VERSIONS_STEPS))
    if not versions:
        raise NotFound(f"{agent} has nothing at {collection}/{key}", hint="Data shows what there is")
    if why_not := unchangeable(ask.principal, core, versions[0]):
        raise Denied(f"{collection}/{key} cannot be changed here: {why_not}", hint="see docs/ui.md")
    author = ask.principal.name or "operator"
    more: dict[str, Any] = {"expect": form["expect"], "author": author}
    if form["what"] == "delete":
        reason = form.get("reason", "").strip()
        if not reason or len(reason) > REASON_MAX:
            raise UsageError(
                "a deletion needs a reason, of at most 1,000 letters", hint="say why; it stays in the history"
            )
        return drafts.remove(collection, key, reason=reason, **more)
    if versions[0].gone:
        more["expect"] = 0  # to a log a key without a value is as if it never had one
        if versions[0].record.link.hex() != form["expect"]:
            raise _beaten()
    if form["what"] == "write":
        return drafts.value(collection, key, _typed(ask, collection), **more)
    text = form.get("version", "")
    wanted = [each for each in versions if str(each.record.key_version) == text and each.record.key == key]
    if not wanted or wanted[0].gone:
        raise NotFound(f"there is no version {text!r:.40} to go back to", hint="take one that has a value")
    return drafts.value(collection, key, load(wanted[0], core.home.blobs), **more)


def _typed(ask: Ask, collection: str) -> Any:
    """The value that was typed, as JSON; it fits the collection's schema if there is one.

    Raises:
        UsageError: with the place that is wrong.
    """
    try:
        value = msgspec.json.decode(ask.form.get("value", ""))
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"this is no JSON: {error}", hint='texts stand in double quotes, such as "done"') from error
    known = None if is_ours(collection) else ask.core.schemas.of(collection)
    if known is not None:
        known.check_value(value, known.newest.version)
    return value
