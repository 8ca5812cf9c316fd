"""The frame of every page: the templates, what stands around each, and errors as pages."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from holdfast.errors import HoldfastError
from holdfast.hub.exchange import RETRY_AFTER
from holdfast.hub.principal import ANYBODY, NOBODY, READ, STRANGER, Principal
from holdfast.hub.ui import assets, letters, markdown, running, words, zones
from holdfast.hub.ui.messages_rows import STATES
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.scheme import SCHEMES, keys_of, scheme_of
from holdfast.hub.ui.standing import WORDS, nodes_for, notices
from holdfast.hub.ui.unread import unread

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Front

NAV: Final[tuple[tuple[str, str, str], ...]] = (
    ("/", "Overview", "overview"),
    ("/messages", "Messages", "messages"),
    ("/nodes", "Nodes", "nodes"),
    ("/agents", "Agents", "agents"),
    ("/data", "Data", "data"),
    ("/artifacts", "Artifacts", "artifacts"),
    ("/sessions", "Sessions", "sessions"),
    ("/integrity", "Integrity", "integrity"),
    ("/backups", "Backups", "backups"),
    ("/audit", "Audit", "audit"),
    ("/charts", "Charts", "charts"),
    ("/settings", "Settings", "settings"),
)
WHOLE: Final = ("integrity", "backups", "audit")
"""Pages of the whole hub: only for those from whom no record is hidden."""
BADGE_MAX: Final = 99


class Problem(msgspec.Struct):
    """What went wrong, for the page that says so."""

    status: int
    message: str
    hint: str


@cache
def environment() -> Environment:
    """The templates. Everything that they are given is escaped; a name that they lack is an error, not nothing."""
    made = Environment(
        loader=PackageLoader("holdfast.hub.ui"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(
        size=words.size_text,
        count=words.count_text,
        span=words.span_text,
        spark=words.sparkline,
        plain_time=zones.plain_time,
        minute=zones.minute,
        moment=zones.moment,
        hour_of=zones.hour_of,
        day_of=zones.day_of,
        point=zones.point,
        field=zones.field,
        pretty=pretty,
        markdown=markdown.rendered,
    )
    made.globals.update(
        many=words.many,
        ago=words.ago,
        asset=assets.address,
        states=WORDS,
        run_states=running.WORDS,
        with_query=words.with_query,
        key_url=words.key_url,
        collection_url=words.collection_url,
        named_url=words.named_url,
        spark_box=(words.SPARK_WIDTH, words.SPARK_HEIGHT),
        letter_url=letters.letter_url,
        thread_url=letters.thread_url,
        message_looks=STATES,
    )
    return made


def pretty(value: Any) -> str:
    """A JSON value over several lines; what cannot be seen in a text is written out."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(each if each == "\n" or each.isprintable() else json.dumps(each)[1:-1] for each in text)


async def page_of(front: Front, ask: Ask, view: View) -> bytes:
    """The page that a view is."""
    context = await around(front, ask, view)
    made = await front.core.read(lambda: rendered(view.template, context))
    return made.encode("utf-8", "replace")


def rendered(template: str, context: dict[str, Any]) -> str:
    """A template with its values; its times are said in their `zone`. It takes a while, so it is for threads."""
    with zones.read_in(context["zone"]):
        return environment().get_template(template).render(context)


async def around(front: Front, ask: Ask, view: View) -> dict[str, Any]:
    """What a template is given."""
    principal = ask.principal
    badge = view.extra.get("badge")
    if badge is None:
        badge = len(await notices(ask, await nodes_for(ask))) if principal.may(READ) else 0
    mail = view.extra["unread"] if view.extra.get("unread") is not None else await unread(ask)
    live = view.live or ("badge" if mail is not None and view.status == 200 else "")
    path, query = ask.scope["path"], ask.scope["query_string"].decode("latin-1")
    raw = (ask.scope.get("raw_path") or path.encode()).partition(b"?")[0].decode("ascii", "replace")
    area: str = raw.strip("/").partition("/")[0].removesuffix(".json") or "overview"
    area = "messages" if area in ("reports", "threads") else area
    return {
        "d": view.data,
        "title": view.title,
        "nav": _nav(principal, mail),
        "area": area,
        "badge": badge,
        "badge_text": f"{BADGE_MAX}+" if badge > BADGE_MAX else str(badge),
        "scheme": scheme_of(ask),
        "schemes": SCHEMES,
        "keys": keys_of(ask),
        "zone": zones.zone_of(ask),
        "back": raw + (f"?{query}" if query else ""),
        "twin": ("/overview" if raw == "/" else raw) + ".json" + (f"?{query}" if query else ""),
        "who": "" if principal in (ANYBODY, NOBODY, STRANGER) else str(principal),
        "signed_in": ask.session is not None,
        "form_token": front.forms().token(ask.session),
        "live": live,
        "live_view": "",
        "script": "",
        "now_ms": front.core.home.wall.now_ms(),
        **view.extra,
        "unread": mail,
    }


def _nav(principal: Principal, mail: int | None) -> tuple[tuple[str, str, str], ...]:
    """The pages that somebody can go to."""
    if principal in (NOBODY, STRANGER):
        return ()
    hidden = {"messages"} if mail is None else set()
    if not principal.reads_everything:
        hidden.update(WHOLE)
    return tuple(each for each in NAV if each[2] not in hidden)


def error_view(error: HoldfastError) -> View:
    """The page of an error."""
    shown = Problem(error.status, error.message, error.hint)
    headers: tuple[tuple[str, str], ...] = ()
    if error.status in RETRY_AFTER:
        headers = (("retry-after", RETRY_AFTER[error.status].decode()),)
    return View(
        template="error.html",
        title=f"{error.status}",
        data=shown,
        status=error.status,
        headers=headers,
        extra={"twin": ""},
    )
