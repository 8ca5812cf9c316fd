"""remember, recall, forget, search, history: what assistants know, by its words, and how it came to be so."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from holdfast import clock
from holdfast.corpus import Filter
from holdfast.corpus.search import WORDS
from holdfast.errors import NotFound
from holdfast.integrations.mcp_server import graph, memories
from holdfast.integrations.mcp_server.desk import ALIASES, Desk
from holdfast.integrations.mcp_server.graph import key_of
from holdfast.integrations.mcp_server.memories import Memory, searched, standing
from holdfast.integrations.mcp_server.tools import Answer, Tool
from holdfast.log.versions import Version
from holdfast.node.shelf import GONE, OVER, PATH

THEME: Final = "memory"
VALUE_CHARS_MAX: Final = 4000
"""Of a value that was found so much is shown; `history` shows more of it."""
HISTORY_CHARS_MAX: Final = 20_000
_INSIDE: Final = (PATH, OVER, GONE, WORDS, "removed", "made")
"""What our own rows hold besides what was said."""
_OURS: Final = frozenset(ALIASES.values())

Limit = Annotated[int, Meta(ge=1, le=100, description="The most that is returned")]
Query = Annotated[str, Meta(description="Words, or a question; a phrase in double quotes; a beginning with *")]


class Remember(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    text: Annotated[str, Meta(description="What to remember, in whole sentences that make sense by themselves")]
    key: Annotated[
        str,
        Meta(
            description="A name to find and replace it by later, such as favourite-tea. Without one it gets a new one"
        ),
    ] = ""
    tags: Annotated[list[str], Meta(description="What to file it under, such as a project's or a person's name")] = []


class Remembered(msgspec.Struct):
    """A memory in an answer."""

    key: str
    text: str
    agent: Annotated[str, Meta(description="Who said it last")]
    time: str
    tags: list[str]
    rivals: Annotated[
        list[str],
        Meta(description="What other machines said under this key at the same time; remember it anew to settle it"),
    ]
    score: Annotated[float | None, Meta(description="How well it fits the query, where that is known")] = None


class Kept(Remembered, kw_only=True):
    """Answer."""

    replaced: Annotated[bool, Meta(description="Whether something was remembered under this key before")]


class Recall(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    query: Query = ""
    tags: Annotated[list[str], Meta(description="Only what is filed under all of these")] = []
    key: Annotated[str, Meta(description="Only what is remembered under this key")] = ""
    limit: Limit = 10


class Recalled(msgspec.Struct):
    """Answer."""

    memories: list[Remembered]


class Forget(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    key: Annotated[str, Meta(min_length=1, description="The key of the memory, as recall shows it")]


class Forgotten(msgspec.Struct):
    """Answer."""

    key: str
    message: str


class Search(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    query: Annotated[str, Meta(min_length=1, description="Words, or a question; a phrase in double quotes")]
    collection: Annotated[
        str,
        Meta(description="Only in this collection: memory, graph, artifacts, messages, state, or any other name"),
    ] = ""
    agent: Annotated[str, Meta(description="Only what this agent wrote")] = ""
    limit: Limit = 20


class Hit(msgspec.Struct):
    """Something that was found."""

    collection: str
    key: str
    agent: str
    time: str
    kind: str
    text: Annotated[str, Meta(description="The value, as text or JSON; cut where it is long")]
    score: float | None = None


class Found(msgspec.Struct):
    """Answer."""

    hits: list[Hit]


class History(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments."""

    key: Annotated[
        str, Meta(min_length=1, description="The key; of the graph an entity's name, of artifacts a file's name")
    ]
    collection: Annotated[
        str, Meta(description="Where it is a key of: memory, graph, artifacts, state, or any other name")
    ] = "memory"
    agent: Annotated[str, Meta(description="Only what this agent wrote")] = ""
    limit: Limit = 20


class Past(msgspec.Struct):
    """A version of a key."""

    agent: str
    version: int
    time: str
    kind: str
    gone: Annotated[bool, Meta(description="Whether this version took the value away")]
    text: str


class Versions(msgspec.Struct):
    """Answer."""

    versions: Annotated[list[Past], Meta(description="The newest first")]


def remember(desk: Desk, given: Remember) -> Answer:
    """See its description."""
    made, replaced = desk.memories.remember(given.text, key=given.key, tags=given.tags)
    told = {**_told(made), "replaced": replaced}
    return Answer(told, f"{'replaced' if replaced else 'remembered'} {made.key}")


def recall(desk: Desk, given: Recall) -> Answer:
    """See its description."""
    if given.key:
        found = desk.memories.get(given.key)
        wanted = [] if found is None or not set(given.tags) <= set(found.tags) else [found]
    else:
        wanted = desk.memories.recall(given.query, tags=given.tags, limit=given.limit)
    if not desk.who.may_read(graph.COLLECTION):
        wanted = [each for each in wanted if not each.key.startswith("graph/")]
    return Answer({"memories": [_told(each) for each in wanted]})


def forget(desk: Desk, given: Forget) -> Answer:
    """See its description."""
    desk.memories.forget(given.key)
    return Answer({"key": given.key, "message": "Forgotten. Its history stays, until somebody erases it."})


def search(desk: Desk, given: Search) -> Answer:
    """See its description."""
    collection = ALIASES.get(given.collection, given.collection) or None
    if collection is not None:
        desk.who.check_read(collection)
    found = searched(
        desk.line, given.query, collection, min(given.limit * memories.WIDER, memories.LOOKED_AT), given.agent or None
    )
    found = [hit for hit in _holding(desk, found) if desk.who.may_read(hit.collection)]
    return Answer({"hits": [_hit(hit) for hit in found[: given.limit]]})


def history(desk: Desk, given: History) -> Answer:
    """See its description."""
    collection = ALIASES.get(given.collection, given.collection)
    desk.who.check_read(collection)
    key = key_of(given.key) if collection == graph.COLLECTION and not given.key.startswith("r/") else given.key
    found = _past(desk, collection, key, given.agent, given.limit)
    if not found:
        raise NotFound(f"there never was a {given.key!r:.200} in {given.collection}", hint="search finds keys by words")
    told = [
        {
            "agent": each.author or each.agent,
            "version": each.version,
            "time": _time(each.time),
            "kind": each.kind,
            "gone": each.gone or (isinstance(each.value, dict) and bool(each.value.get(GONE))),
            "text": "" if each.missing else _text(each, HISTORY_CHARS_MAX),
        }
        for each in found
    ]
    return Answer({"versions": told})


def _past(desk: Desk, collection: str, key: str, agent: str, limit: int) -> list[Version]:
    """The versions of a key, whoever wrote them, the newest first."""
    store = desk.store

    def here() -> list[Version]:
        places = [each for each in (store, *desk.line.neighbours()) if agent in ("", each.agent)]
        return [version for each in places for version in each.history(key, collection=collection, limit=limit)]

    def everywhere() -> list[Version]:
        which = Filter(agents=(agent,) if agent else (), collection=collection, key=key, limit=limit)
        own = [] if agent not in ("", store.agent) else store.history(key, collection=collection, limit=limit)
        others = store._reader().hub.records(which)
        return own + [each for each in others if each.agent != store.agent]

    return sorted(desk.line.ask(everywhere, here), key=lambda each: (-each.time, -each.version))[:limit]


def _holding(desk: Desk, hits: list[Version]) -> list[Version]:
    """Hits without those rows of ours that somebody has replaced or taken away since."""
    ours = {each.collection: each for each in (desk.graph.shared, desk.memories.shared, desk.artifacts.shared)}
    good: set[tuple[str, str, str]] = set()
    for name, shared in ours.items():
        among = [hit for hit in hits if hit.collection == name]
        if among:
            rows = shared.rows(hit.key for hit in among)
            good |= {(hit.agent, hit.collection, hit.key) for hit in standing(among, rows)}
    return [hit for hit in hits if hit.collection not in ours or (hit.agent, hit.collection, hit.key) in good]


def _told(memory: Memory) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "key": memory.key,
        "text": memory.text,
        "agent": memory.agent,
        "time": _time(memory.time),
        "tags": memory.tags,
        "rivals": memory.rivals,
    }
    return plain if memory.score is None else {**plain, "score": memory.score}


def _hit(hit: Version) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "collection": hit.collection,
        "key": hit.key,
        "agent": hit.author or hit.agent,
        "time": _time(hit.time),
        "kind": hit.kind,
        "text": _text(hit, VALUE_CHARS_MAX),
    }
    score = getattr(hit, "score", None)
    return plain if score is None else {**plain, "score": score}


def _text(version: Version, most: int) -> str:
    """A value to be read: of our own rows what was said, without what machines need."""
    value = version.value
    if isinstance(value, dict) and version.collection in _OURS:
        value = {name: each for name, each in value.items() if name not in _INSIDE}
        if set(value) <= {"text", "tags"} and isinstance(value.get("text"), str):
            value = value["text"]
    if isinstance(value, bytes):
        text = base64.b64encode(value[:most]).decode()
    else:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _time(seconds: float) -> str:
    return clock.iso(round(seconds * 1000))


TOOLS: Final = (
    Tool(
        name="remember",
        title="Remember",
        description="Keep a fact, a decision, a preference or a result for later conversations, on this and every other"
        " machine. Under a key that is taken it replaces what is there (the earlier text stays in its history), so use"
        " keys for what may change. Never for secrets.",
        theme=THEME,
        arguments=Remember,
        result=Kept,
        run=remember,
        writes=True,
        again=False,
        collections=(memories.COLLECTION,),
    ),
    Tool(
        name="recall",
        title="Recall",
        description="Find what was remembered, by words or a question, here or on any other machine; entities of the"
        " knowledge graph too. Without a query: what was remembered last. Call it before saying that you do not know"
        " something about the user, a project or earlier work.",
        theme=THEME,
        arguments=Recall,
        result=Recalled,
        run=recall,
        collections=(memories.COLLECTION,),
    ),
    Tool(
        name="forget",
        title="Forget",
        description="Take a memory away, by its key, on every machine. The history tool still shows what it was.",
        theme=THEME,
        arguments=Forget,
        result=Forgotten,
        run=forget,
        writes=True,
        destroys=True,
        collections=(memories.COLLECTION,),
    ),
    Tool(
        name="search",
        title="Search everything",
        description="Search all that agents have written on all machines, by words: memories, knowledge graph,"
        " messages, conversations of coding agents, states, and whatever else is kept here.",
        theme=THEME,
        arguments=Search,
        result=Found,
        run=search,
    ),
    Tool(
        name="history",
        title="History of a key",
        description="Every version of something, newest first: what it was before, who changed it and when; also of"
        " what was forgotten or deleted.",
        theme=THEME,
        arguments=History,
        result=Versions,
        run=history,
    ),
)
