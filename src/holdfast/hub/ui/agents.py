"""Agents: who writes here, what each is at work on, and a word to it."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from holdfast.clock import iso, parse_time
from holdfast.collections import mailbox
from holdfast.collections.messages import PEOPLE
from holdfast.corpus import Filter, Stored, pages
from holdfast.corpus.sql import MESSAGES
from holdfast.corpus.tally import live_keys
from holdfast.errors import CapacityError, HoldfastError, HubUnavailable, UsageError
from holdfast.hub.exchange import encode_json
from holdfast.hub.principal import WRITE
from holdfast.hub.routes_sync import read, sender_of, store
from holdfast.hub.ui.nodes import name_of
from holdfast.hub.ui.overview import Written, written
from holdfast.hub.ui.pages import ROWS
from holdfast.hub.ui.routes import Ask, View, no_page
from holdfast.hub.ui.rows import found, readable
from holdfast.hub.ui.standing import NodeShown, nodes_for
from holdfast.hub.ui.usage import Pair, total
from holdfast.hub.ui.words import named_url
from holdfast.log.drafts import new_id
from holdfast.query import where

LATEST: Final = 20
KEYS_MAX: Final = 10_000
PAIRS_SHOWN: Final = 100
WORK_SHOWN: Final = 5
TEXT_SHOWN: Final = 160
UNREAD_MAX: Final = 1_000
REGISTRIES_MAX: Final = 8
REGISTRIES: Final = ("agents", "shared_agents")
"""Where `holdfast.agents` keeps who there is: a commander's own, or everybody's."""
TASKS: Final = ("tasks", "shared_tasks")


class AgentRow(msgspec.Struct):
    """An agent: what it is, what it wrote, and the nodes that speak for it. `unread` is null where it is not told."""

    agent: str
    role: str
    status: str
    records: int
    size: int
    day_records: int
    last_write: str | None
    last_contact: str | None
    nodes: list[str]
    through_hub: bool
    cache_used: int | None
    cache_limit: int | None
    cache_full: bool
    unread: int | None


class AgentsPage(msgspec.Struct):
    """Agents by name; `next` goes into `after`."""

    agents: list[AgentRow]
    next: str | None
    counted: float


class Kept(msgspec.Struct):
    """A collection of an agent: its keys that have a value (at least so many where `more`), and what was written."""

    collection: str
    keys: int
    more: bool
    records: int
    size: int
    day_records: int
    last_write: str | None


class Line(msgspec.Struct):
    """A record of its log, and how its value begins."""

    record: Written
    text: str


class Item(msgspec.Struct):
    """A task, a decision or a goal: where it lies, and what it is."""

    owner: str
    collection: str
    key: str
    title: str
    status: str
    when: str | None


class Work(msgspec.Struct):
    """What an agent has before it; the newest of each."""

    tasks: list[Item]
    decisions: list[Item]
    goals: list[Item]


class AgentPage(msgspec.Struct):
    """One agent; `may_write`: whoever looks may send it a message."""

    agent: AgentRow
    streams: list[dict[str, object]]
    collections: list[Kept]
    work: Work
    latest: list[Line]
    may_write: bool


async def agents(ask: Ask) -> View:
    """GET /agents: who writes here."""
    core, principal, after, rows_max = ask.core, ask.principal, ask.query.after, ROWS * ask.scale
    speaks = await _speakers(ask)
    await _mail_in_order(ask)
    use = _use(ask)

    def look() -> list[tuple[AgentRow, str]]:
        if principal.readable:
            names = pages.writers(core.corpus, principal.readable, after, rows_max + 1)
            own = dict.fromkeys(names, False)
        else:
            own = {}
            for row in pages.streams(core.corpus, after, rows_max + 1):
                own[row[0]] = own.get(row[0], False) or row[2]
        return [(_row(ask, name, speaks, use, through), name) for name, through in own.items()]

    rows = await core.read(look)
    following = rows[rows_max - 1][1] if len(rows) > rows_max else None
    shown = AgentsPage([row for row, _ in rows[:rows_max]], following, round(ask.front.usage().done, 3))
    return View(template="agents.html", title="Agents", data=shown, rows="agents")


async def agent(ask: Ask) -> View:
    """GET /agents/{agent}: what one of them is, has before it and wrote, and where."""
    return await _agent(ask, name_of(ask))


async def send(ask: Ask) -> View:
    """POST /agents/send: a message to an agent, as a plain client would post it; once, however often it is sent."""
    form, core, principal = ask.form, ask.core, ask.principal
    name, text = form.get("agent", ""), form.get("text", "")
    try:
        if not text.strip():
            raise UsageError("a message without a word", hint="write what the agent is to know")
        said = {"content": text, "recipient": name, "kind": form.get("kind") or "message", "msg_id": form.get("id")}
        said["priority"] = form.get("priority") or "normal"
        data = json.dumps({key: value for key, value in said.items() if value}).encode()
        post = read(data, sender=sender_of(principal, principal.name or PEOPLE))
        principal.check_write(post.sender, MESSAGES)
        log = await core.own.log_of(post.sender)
        (verdict,) = await store(core, log, [post], len(data))
        if isinstance(verdict, HoldfastError):
            raise verdict
    except HoldfastError as error:
        view = await _agent(ask, name)
        view.status = error.status
        view.extra |= {"problem": error, "typed": view.extra["typed"] | form}
        return view
    place = named_url("agents", name)
    return View(status=303, headers=(("location", f"{place}{'&' if '?' in place else '?'}done=sent"),))


async def _agent(ask: Ask, name: str) -> View:
    core, principal = ask.core, ask.principal
    speaks = await _speakers(ask)
    await _mail_in_order(ask)
    use = _use(ask)
    mine = use.by_agent.get(name, {})
    largest = sorted(mine, key=lambda each: -mine[each].size)[:PAIRS_SHOWN]
    now = core.home.wall.now_ms()

    def look() -> AgentPage:
        branches = core.corpus.branches(name)
        latest = core.corpus.page(Filter(agents=(name,), readable=principal.readable, limit=LATEST))
        if not branches or (principal.readable and not latest):
            raise no_page(f"/agents/{name}")
        kept = []
        for each in largest:
            keys, whole = live_keys(core.corpus, name, each, KEYS_MAX + 1), total([mine[each]], now)
            last = iso(whole.last_write) if whole.last_write else None
            kept.append(
                Kept(each, min(keys, KEYS_MAX), keys > KEYS_MAX, whole.records, whole.size, whole.day_records, last)
            )
        streams: dict[bytes, dict[str, object]] = {}
        for branch in branches if principal.reads_everything else ():
            streams[branch.stream] = {"stream": branch.stream.hex(), "through_hub": branch.own}
        through = any(stream["through_hub"] for stream in streams.values())
        return AgentPage(
            agent=_row(ask, name, speaks, use, through),
            streams=list(streams.values()),
            collections=kept,
            work=_work(ask, name, mine),
            latest=[Line(written(stored), _text(ask, stored)) for stored in latest],
            may_write=principal.may(WRITE) and principal.may_read(MESSAGES),
        )

    data = await core.read(look)
    typed = {"id": "", "text": "", "kind": "", "priority": ""}
    extra = {"done": getattr(ask.query, "done", ""), "id": new_id("msg"), "problem": None, "typed": typed}
    return View(template="agent.html", title=name, data=data, extra=extra)


class Use(msgspec.Struct):
    """What was written, by agent and collection, and whose registries of agents there are."""

    by_agent: dict[str, dict[str, Pair]]
    registries: list[tuple[str, str]]


def _use(ask: Ask) -> Use:
    found = Use({}, [])
    for (agent, collection), pair in ask.front.usage().readable(ask.principal).items():
        found.by_agent.setdefault(agent, {})[collection] = pair
        if collection in REGISTRIES and len(found.registries) < REGISTRIES_MAX:
            found.registries.append((agent, collection))
    return found


async def _speakers(ask: Ask) -> dict[str, list[NodeShown]]:
    """Agent -> the nodes that speak for it."""
    spoken: dict[str, list[NodeShown]] = {}
    for shown in await nodes_for(ask):
        for name in shown.agents:
            spoken.setdefault(name, []).append(shown)
    return spoken


async def _mail_in_order(ask: Ask) -> None:
    """Takes up what came into inboxes, as far as there is room and time."""
    core = ask.core
    try:
        await core.read(lambda: mailbox.catch_up(core.corpus, core.home.blobs))
    except (CapacityError, HubUnavailable):
        return


def _row(ask: Ask, name: str, speaks: dict[str, list[NodeShown]], use: Use, own: bool) -> AgentRow:
    """An agent at a look; reads the corpus, so for threads."""
    core, principal = ask.core, ask.principal
    whole = total(list(use.by_agent.get(name, {}).values()), core.home.wall.now_ms())
    nodes = speaks.get(name, [])
    caches = [cache for node in nodes for cache in node.caches if cache.agent == name]
    registered = _registered(ask, name, use)
    unread = mailbox.unread(core.corpus, name, UNREAD_MAX) if principal.may_read(MESSAGES) else None
    return AgentRow(
        agent=name,
        role=_word(registered.get("role")),
        status=_word(registered.get("status")),
        records=whole.records,
        size=whole.size,
        day_records=whole.day_records,
        last_write=iso(whole.last_write) if whole.last_write else None,
        last_contact=max((node.last_contact for node in nodes), default=None),
        nodes=[node.node for node in nodes],
        through_hub=own,
        cache_used=sum(cache.used for cache in caches) if caches else None,
        cache_limit=sum(cache.limit for cache in caches) if caches and all(cache.limit for cache in caches) else None,
        cache_full=any(cache.full for cache in caches),
        unread=unread,
    )


def _registered(ask: Ask, name: str, use: Use) -> dict[str, Any]:
    """What a registry of agents says of one; the newest word of any."""
    told: list[dict[str, Any]] = []
    for owner, collection in use.registries:
        stored = ask.core.corpus.newest(owner, collection, name)
        value = readable(ask.core, stored) if stored is not None else None
        if isinstance(value, dict):
            told.append(value)
    return max(told, key=lambda each: str(each.get("updated_at") or ""), default={})


def _word(value: Any) -> str:
    return value[:TEXT_SHOWN] if isinstance(value, str) else ""


def _text(ask: Ask, stored: Stored) -> str:
    """How a value begins, on one line."""
    value = readable(ask.core, stored)
    if isinstance(value, bytes) or value is None:
        return ""
    if isinstance(value, dict) and stored.record.collection == MESSAGES and "body" in value:
        value = value["body"]
    text = value if isinstance(value, str) else encode_json(value).decode("utf-8", "replace")
    text = " ".join(text[: 4 * TEXT_SHOWN].split())
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN] + "…"


def _work(ask: Ask, name: str, mine: dict[str, Pair]) -> Work:
    """What the stores of `holdfast.agents` hold for an agent: what it is given, has decided, wants to reach."""

    def of(collection: str, field: str, when: str) -> list[Item]:
        if not ask.principal.may_read(collection) or collection not in mine:
            return []
        met = found(ask.core, name, collection, order=(f"-{when}",), limit=WORK_SHOWN)
        return [_item(each.agent, collection, each.key, each.value, field, when) for each in met.found]

    tasks = of("tasks", "title", "created_at")
    mine_now = where("assigned_agent") == name
    for collection in TASKS:  # given by others: found by the index that every board of tasks declares
        if not ask.principal.may_read(collection):
            continue
        met = found(ask.core, None, collection, mine_now, order=("-created_at",), limit=2 * WORK_SHOWN)
        tasks += [_item(each.agent, collection, each.key, each.value, "title", "created_at") for each in met.found]
    distinct = {(each.owner, each.collection, each.key): each for each in tasks}
    return Work(
        tasks=sorted(distinct.values(), key=lambda each: each.when or "", reverse=True)[: 2 * WORK_SHOWN],
        decisions=of("decisions", "decision_type", "created_at"),
        goals=of("goals", "title", "created_at"),
    )


def _item(owner: str, collection: str, key: str, value: Any, field: str, when: str) -> Item:
    row = value if isinstance(value, dict) else {}
    title = _word(row.get(field)) or key
    chosen = _word(row.get("chosen_option")) or _word(row.get("outcome"))
    at = row.get(when)
    return Item(owner, collection, key, title, _word(row.get("status")) or chosen, _time(at))


def _time(value: Any) -> str | None:
    """A time as a row gives it, if it is one that a page can show."""
    try:
        return iso(parse_time(value)) if isinstance(value, str) and value else None
    except HoldfastError:
        return None
