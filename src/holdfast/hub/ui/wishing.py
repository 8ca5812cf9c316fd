"""What can be asked of a node from its page, by whoever may do everything."""

from __future__ import annotations

from holdfast.errors import UsageError
from holdfast.hub import routes_nodes
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.words import named_url, with_query

DONE = {"sync": "asked", "pause": "paused", "resume": "resumed"}
"""What the page says of what was asked."""


async def change(ask: Ask) -> View:
    """POST /nodes/change: try again now, pause, resume, forget."""
    form, core = ask.form, ask.core
    node, what = form.get("node", ""), form.get("what", "")
    if what == "forget":
        if form.get("name", "").strip() != node:
            raise UsageError(
                f"to forget {node} its name must be typed as it is, got {form.get('name', '')!r:.80}",
                hint="go back, and copy it from the head of the page",
            )
        await routes_nodes.forget(core, node)
        return View(status=303, headers=(("location", "/nodes?done=forgotten"),))
    if what not in DONE:
        raise UsageError(f"cannot do {what!r:.40} with a node", hint="use the forms of its page")
    await routes_nodes.ask(core, node, what, ask.principal.name)
    place = named_url("nodes", node)
    mark = "&" if "?" in place else "?"
    return View(status=303, headers=(("location", place + mark + with_query("", done=DONE[what])[1:]),))
