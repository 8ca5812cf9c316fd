"""What the data browser can change: take a key's value away with a reason, or make an earlier version the newest."""

from __future__ import annotations

from itertools import islice
from typing import Any

from holdfast.corpus import Stored
from holdfast.errors import Conflict, Denied, NotFound, UsageError
from holdfast.hub import acts, audit
from holdfast.hub.own import QUICK_BYTES, Desk
from holdfast.hub.ui.data import VERSIONS_STEPS, unchangeable
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.words import key_url
from holdfast.log import Draft, drafts, load

REASON_MAX = 1_000


async def change(ask: Ask) -> View:
    """POST /data/change: one change of one key, if it is still as the page showed it."""
    form = ask.form
    agent, collection, key = (form.get(name, "") for name in ("agent", "collection", "key"))
    what, expect = form.get("what", ""), form.get("expect", "")
    if what not in ("delete", "rollback") or not expect:
        raise UsageError(f"cannot do {what!r:.40} here", hint="use the forms of the page of a key")
    ask.principal.check_read(collection)
    draft = await ask.core.read(lambda: _draft(ask, agent, collection, key))
    log = await ask.core.own.log_of(agent)
    quick = len(draft.payload) <= QUICK_BYTES
    own = ask.core.own
    ready = own.ready(log, draft) if quick else await ask.core.read(lambda: own.ready(log, draft))

    def work(desk: Desk) -> Stored | Conflict:
        try:
            return desk.append(ready)
        except Conflict as error:
            return error

    found = await own.write(agent, work, size=len(draft.payload), quick=quick)
    if isinstance(found, Conflict):
        raise Conflict("somebody changed this key since the page was made", hint="look at it again, and decide anew")
    said = acts.DELETE if what == "delete" else acts.ROLLBACK
    audit.done(ask.scope, what=said, about=f"{collection}/{key} of {agent}", ref=found.record.link)
    done = "deleted" if what == "delete" else "rolled-back"
    return View(status=303, headers=(("location", key_url(agent, collection, key, done=done)),))


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
    text = form.get("version", "")
    wanted = [each for each in versions if str(each.record.key_version) == text and each.record.key == key]
    if not wanted or wanted[0].gone:
        raise NotFound(f"there is no version {text!r:.40} to go back to", hint="take one that has a value")
    if versions[0].gone:
        more["expect"] = 0  # to a log a key without a value is as if it never had one
        if versions[0].record.link.hex() != form["expect"]:
            raise Conflict(
                "somebody changed this key since the page was made", hint="look at it again, and decide anew"
            )
    return drafts.value(collection, key, load(wanted[0], core.home.blobs), **more)
