"""What can be asked of a node from its page, by whoever may do everything."""

from __future__ import annotations

from holdfast.errors import NotFound, UsageError
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.words import named_url, with_query


async def change(ask: Ask) -> View:
    """POST /nodes/change: try again now, pause, resume, forget."""
    form, core = ask.form, ask.core
    node, what = form.get("node", ""), form.get("what", "")
    if node not in core.nodes:
        raise NotFound(f"there is no node {node!r:.80}", hint="Nodes shows those that have spoken to this hub")
    by, wishes = ask.principal.name, core.wishes
    if what == "hurry":
        await core.read(lambda: wishes.hurry(node, by))
    elif what in ("pause", "resume"):
        await core.read(lambda: wishes.pause(node, what == "pause", by))
    elif what == "forget":
        if form.get("name", "").strip() != node:
            raise UsageError(
                f"to forget {node} its name must be typed as it is, got {form.get('name', '')!r:.80}",
                hint="go back, and copy it from the head of the page",
            )
        await core.read(lambda: core.forget(node))
        return View(status=303, headers=(("location", "/nodes?done=forgotten"),))
    else:
        raise UsageError(f"cannot do {what!r:.40} with a node", hint="use the forms of its page")
    place = named_url("nodes", node)
    done = {"hurry": "asked", "pause": "paused", "resume": "resumed"}[what]
    mark = "&" if "?" in place else "?"
    return View(status=303, headers=(("location", place + mark + with_query("", done=done)[1:]),))
