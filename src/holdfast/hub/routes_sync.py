"""The simple endpoints for messages, for any HTTP client: POST /sync/message, POST /sync/messages, GET /query/messages.

A message is written into the hub's own stream of its sender. Its `msg_id` makes it one message for ever: sent again it
is the same message, and another one under its id is refused. Shapes are those of the seed (docs/http.md), with one
verdict per message beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast import clock, codec
from holdfast.collections.messages import OPTIONS_MAX, envelope, id_of
from holdfast.corpus import Stored, pages
from holdfast.corpus.sql import MESSAGES, TAGS
from holdfast.errors import Conflict, HoldfastError, NotCached, UsageError
from holdfast.hub.api import Call, Operation, refused, typed
from holdfast.hub.core import Core
from holdfast.hub.exchange import Receive, Scope, Send, answer, body_of, check_json, parse_json
from holdfast.hub.own import QUICK_BYTES, Desk, check_agent, verdict_of
from holdfast.hub.principal import READ, WRITE, Principal, principal_of
from holdfast.hub.shapes import PRINTED, Limit, MessageId, Problem, Text, Time, Told, When, time_ms
from holdfast.log import Draft, Log, drafts, load
from holdfast.log.drafts import new_id
from holdfast.records import KEY_BYTES_MAX, KIND_BYTES_MAX, MESSAGE, read_blob_reference
from holdfast.wire import RECORDS_MAX

ANONYMOUS: Final = "anonymous"
"""The sender of a message that names none."""
BATCH_MAX: Final = 10_000
SKIP_MAX: Final = 10_000
INLINE_BLOB_MAX: Final = 1 << 20
ANSWER_BYTES_MAX: Final = 16 << 20
_SEED = ("msg_id", "timestamp", "task_id", "sender", "recipient", "role", "content")
_RESERVED = frozenset({"body", "to", "task", "dedupe"})

Named = Annotated[str, Meta(max_length=KEY_BYTES_MAX // 2)]
_SENDER: Final = {"pattern": PRINTED, "not": {"const": "hub"}}


class Message(msgspec.Struct, kw_only=True):
    """A message. Only `content` is needed; any other field than these is kept, and comes back."""

    content: Any
    msg_id: MessageId | None = None
    timestamp: Told | Time | None = None
    task_id: Annotated[Text, Meta(description="the task that it belongs to")] | None = None
    sender: Annotated[Text, Meta(description="anonymous unless said", extra_json_schema=_SENDER)] | None = None
    recipient: Annotated[Text, Meta(description="who is to get it; all, unless said")] | None = None
    role: Annotated[Text, Meta(examples=["assistant"])] | None = None
    priority: Literal["", "low", "normal", "high", "hot"] | None = None
    thread: Text | None = None
    in_reply_to: Annotated[Named, Meta(description="the id of the message that it answers")] | None = None
    dedupe_key: (
        Annotated[Named, Meta(description="in place of msg_id: of one sender and key there is one message")] | None
    ) = None
    expires_at: Annotated[Told | Time, Meta(description="when nobody needs it any more")] | None = None
    options: (
        Annotated[list[Any], Meta(max_length=OPTIONS_MAX, description="of a question: the answers that it takes")]
        | None
    ) = None
    kind: (
        Annotated[
            str,
            Meta(max_length=KIND_BYTES_MAX, description="such as report", extra_json_schema={"pattern": PRINTED}),
        ]
        | None
    ) = None


class Known(Message, forbid_unknown_fields=True):
    """A message without other fields: they are looked for only where there are some."""


_decode_known = msgspec.json.Decoder(Known).decode


BatchId = Annotated[str, Meta(description="names the batch: sent again, it adds nothing")]
NodeName = Annotated[str, Meta(description="where they waited; the sender of those that name none")]


class Post(msgspec.Struct, frozen=True):
    """A message that passed every check: who sends it, its draft, and the time that it gave itself."""

    msg_id: str
    sender: str
    draft: Draft
    told_ms: int | None
    dedupe: bool = False


class Batch(msgspec.Struct):
    """Messages that waited somewhere; each is read on its own."""

    messages: list[msgspec.Raw]
    batch_id: BatchId | None = None
    node_id: NodeName | None = None


class MessageBatch(msgspec.Struct):
    """Messages that waited somewhere. Each gets its own verdict; a wrong one harms no other."""

    messages: Annotated[list[Message], Meta(max_length=BATCH_MAX)]
    batch_id: BatchId | None = None
    node_id: NodeName | None = None


class StoredMessage(msgspec.Struct):
    """It is stored, now or since it came before."""

    status: Literal["stored"]
    msg_id: str


class MessageVerdict(msgspec.Struct):
    """What became of one message of a batch."""

    msg_id: str | None
    status: Literal["stored", "duplicate", "rejected"]
    error: Problem | UnsetType = UNSET


class MessageVerdicts(msgspec.Struct):
    """One verdict for each message, in their order."""

    status: Literal["acked"]
    batch_id: str
    verdicts: list[MessageVerdict]


class Mailbox(msgspec.Struct, frozen=True):
    """Which messages."""

    agent: Annotated[str, Meta(description="sent by, or to this agent")] = ""
    task: Annotated[str, Meta(description="of this task")] = ""
    since: Annotated[When, Meta(description="not older, by their own timestamp: seconds since 1970, or ISO 8601")] = ""
    limit: Limit = 100
    page: Annotated[int, Meta(ge=1, le=SKIP_MAX + 1, description="from 1; at most 10,000 messages deep")] = 1
    order: Annotated[Literal["newest", "oldest"], Meta(description="in the order of arrival")] = "newest"


class MessageShown(msgspec.Struct):
    """A message as it was sent, with every other field that it had; `missing` where its body is not here."""

    msg_id: str
    timestamp: float
    task_id: Any
    sender: str
    recipient: Any
    role: Any
    content: Any
    missing: str | UnsetType = UNSET


class MessagesPage(msgspec.Struct):
    """A page of messages; a total above 10,000 is not counted further, and `total_capped`."""

    messages: list[MessageShown]
    total: int
    page: int
    total_capped: bool | UnsetType = UNSET


def operations(core: Core) -> Iterator[Operation]:
    """Messages of plain clients."""

    def declare(method: str, path: str, endpoint: Any, summary: str, **more: Any) -> Operation:
        needs = WRITE if method == "POST" else READ
        return Operation(
            method=method, path=path, endpoint=endpoint, needs=needs, summary=summary, tag="messages", **more
        )

    yield declare(
        *("POST", "/sync/message", OneMessage(core), "Post one message"),
        body=Message,
        answer=StoredMessage,
        errors=(409,),
        hot=True,
    )
    yield declare(
        *("POST", "/sync/messages", typed(ManyMessages(core)), "Post messages that waited"),
        body=Batch,
        shown=MessageBatch,
        answer=MessageVerdicts,
    )
    yield declare(
        *("GET", "/query/messages", typed(Messages(core)), "Messages, newest first"), query=Mailbox, answer=MessagesPage
    )


class OneMessage:
    """POST /sync/message: one message → ``{"status": "stored", "msg_id": …}``, visible to everybody when answered."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        data = await body_of(scope, receive)
        principal = principal_of(scope)
        post = read(data, sender=sender_of(principal))
        principal.check_write(post.sender, MESSAGES)
        log = await self._core.own.log_of(post.sender)
        (verdict,) = await store(self._core, log, [post], len(data))
        if isinstance(verdict, HoldfastError):
            raise verdict
        await answer(send, b'{"status":"stored","msg_id":%b}' % msgspec.json.encode(post.msg_id))


class ManyMessages:
    """POST /sync/messages: a batch → ``{"status": "acked", "batch_id": …, "verdicts": […]}``.

    Each message has its own verdict: stored, duplicate, or rejected with the reason; a bad one never takes the others
    with it. More than 500 are written in several transactions.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> dict[str, Any]:
        """The answer to one request."""
        batch: Batch = call.body
        if len(batch.messages) > BATCH_MAX:
            error = UsageError(
                f"{len(batch.messages)} messages at once, the most is {BATCH_MAX}", hint="send several batches"
            )
            error.status = 413
            raise error
        batch_id = batch.batch_id or new_id("batch")
        verdicts: list[dict[str, Any]] = []
        for first in range(0, len(batch.messages), RECORDS_MAX):
            verdicts += await self._store(call.principal, batch, batch_id, first)
        self._core.saw(batch.node_id or "")
        return {"status": "acked", "batch_id": batch_id, "verdicts": verdicts}

    async def _store(self, principal: Principal, batch: Batch, batch_id: str, first: int) -> list[dict[str, Any]]:
        """The verdicts of up to 500 messages; those of one sender share a transaction."""
        part = batch.messages[first : first + RECORDS_MAX]
        verdicts: list[dict[str, Any]] = [{} for _ in part]
        good: dict[str, list[tuple[int, Post]]] = {}
        for number, raw in enumerate(part):
            try:
                # Without an id of its own a message is known by its place in its batch, so a retry still adds nothing.
                sender = sender_of(principal, batch.node_id or ANONYMOUS)
                post = read(raw, sender=sender, msg_id=f"{batch_id}:{first + number}")
                principal.check_write(post.sender, MESSAGES)
            except HoldfastError as error:
                verdicts[number] = _rejected(_named(raw), error)
            else:
                good.setdefault(post.sender, []).append((number, post))
        for name, posts in good.items():
            log = await self._core.own.log_of(name)
            size = sum(len(post.draft.payload) for _, post in posts)
            outcomes = await store(self._core, log, [post for _, post in posts], size)
            for (number, post), outcome in zip(posts, outcomes, strict=True):
                if isinstance(outcome, HoldfastError):
                    verdicts[number] = _rejected(post.msg_id, outcome)
                else:
                    verdicts[number] = {"msg_id": post.msg_id, "status": outcome}
        return verdicts


class Messages:
    """GET /query/messages: ``{"messages": […], "total": n, "page": 1}``, newest first.

    `agent` finds what somebody sent or got; `since` compares with the time that a message gave itself. A total above
    10,000 is not counted further: it is 10,000, with ``"total_capped": true``.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    async def __call__(self, call: Call) -> bytes:
        """The answer to one request."""
        asked: Mailbox = call.query
        call.principal.check_read(MESSAGES)
        limit, page = asked.limit, asked.page
        skip = (page - 1) * limit
        if skip > SKIP_MAX:
            raise UsageError(
                f"page {page} begins behind {skip} messages, the most is {SKIP_MAX}",
                hint="narrow it with since=, or read /v1/records?collection=messages with after=",
            )
        which = pages.Mail(
            agent=asked.agent or None,
            task=asked.task or None,
            since_ms=time_ms(asked.since) or 0,
            newest_first=asked.order == "newest",
        )

        def look() -> bytes:
            corpus = self._core.corpus
            found, total = pages.mailbox(corpus, which, skip=skip, limit=limit)
            told = pages.told_ms(corpus, [each.pos for each in found])
            room = ANSWER_BYTES_MAX
            shapes = []
            for each in found:
                shape, size = self._shape(each, told.get(each.pos), room)
                room -= size
                shapes.append(shape)
            body: dict[str, Any] = {"messages": shapes, "total": min(total, pages.COUNT_MAX), "page": page}
            if total > pages.COUNT_MAX:
                body["total_capped"] = True
            return msgspec.json.encode(body)

        return await self._core.read(look)

    def _shape(self, stored: Stored, told: int | None, room: int) -> tuple[dict[str, Any], int]:
        """The message as the seed shows it, and about how many bytes it takes."""
        record = stored.record
        shape: dict[str, Any] = {
            "msg_id": record.key,
            "timestamp": (told if told is not None else clock.millis(record.hlc)) / 1000,
            "task_id": None,
            "sender": record.author or stored.agent,
            "recipient": None,
            "role": None,
            "content": None,
        }
        size = record.payload_len
        try:
            if stored.is_blob and stored.body is not None:
                digest, size = read_blob_reference(stored.payload())
                if size > min(INLINE_BLOB_MAX, room):
                    return {**shape, "missing": "blob", "digest": digest.hex(), "size": size}, 0
            value = load(stored, self._core.home.blobs)
        except NotCached as error:
            return {**shape, "missing": "blob", **error.context}, 0
        except HoldfastError:
            missing = ("", "evicted", "quarantined", "redacted")[stored.why] if stored.body is None else ""
            return {**shape, "missing": missing or "lost"}, 0
        found = value if isinstance(value, dict) and "body" in value else {"body": value}
        shape |= {
            "task_id": found.get("task"),
            "recipient": found.get("to"),
            "role": found.get("role"),
            "content": found["body"],
        }
        if record.kind != MESSAGE:
            shape["kind"] = record.kind
        taken = ("body", "to", "task", "role", "timestamp")
        shape |= {name: each for name, each in found.items() if name not in taken and name not in _SEED}
        return shape, size


def sender_of(principal: Principal, otherwise: str = ANONYMOUS) -> str:
    """Whose a message is that does not say: the agent's who shows its token."""
    return principal.name if principal.kind == "agent" else otherwise


def read(data: bytes | msgspec.Raw, *, sender: str = ANONYMOUS, msg_id: str = "") -> Post:
    """A message from what a client sent, every field checked.

    Args:
        data: a `Message`, as JSON.
        sender: whose it is if it does not say.
        msg_id: its id if it has none; made here if empty.

    Raises:
        UsageError: with the field that is wrong.
    """
    others: dict[str, Any] = {}
    check_json(bytes(data))
    try:
        message: Message = _decode_known(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message, others = _with_others(bytes(data))
    who, key = message.sender or sender, message.dedupe_key
    check_agent(who, hub=False)
    if key and message.msg_id:
        raise UsageError("a msg_id and a dedupe_key at once", hint="give one of them: each names one message, for ever")
    name = message.msg_id or (id_of(who, key) if key else msg_id or new_id("msg"))
    found = envelope(
        message.content,
        to=message.recipient or None,
        task=message.task_id or None,
        role=message.role or None,
        thread=message.thread or None,
        priority=message.priority or "normal",
        in_reply_to=message.in_reply_to or None,
        dedupe=key or None,
        expires_at=message.expires_at,
        options=message.options or None,
    )
    told = None
    if message.timestamp is not None:
        told, found["timestamp"] = clock.parse_time(message.timestamp), message.timestamp
    if others:
        found |= others
    draft = drafts.message(found, msg_id=name, kind=message.kind or MESSAGE, author=who)
    tagged = msgspec.structs.replace(draft, tags=(*draft.tags, (TAGS["msg_id"], name)))
    return Post(name, who, tagged, told, bool(key))


def _with_others(data: bytes) -> tuple[Message, dict[str, Any]]:
    """A message, and the fields that it has beside those that are ours."""
    given = parse_json(data)
    try:
        message = msgspec.convert(given, Message)
    except msgspec.ValidationError as error:
        raise refused(error, given, shape=Message) from error
    others = {key: value for key, value in given.items() if key not in Message.__struct_fields__}
    if wrong := sorted(_RESERVED & set(others)):
        hint = "the fields are msg_id, timestamp, task_id, sender, recipient, role, content"
        raise UsageError(f"unknown field {wrong[0]!r}", hint=hint)
    return message, others


def _named(raw: msgspec.Raw) -> Any:
    """The id of a message that is wrong somewhere."""
    try:
        found = parse_json(bytes(raw))
    except HoldfastError:
        return None
    return found.get("msg_id") if isinstance(found, dict) else None


async def store(core: Core, log: Log, posts: Sequence[Post], size: int) -> list[str | HoldfastError]:
    """What became of each message of one sender, in one transaction: ``stored``, ``duplicate``, or why not."""
    quick = len(posts) == 1 and len(posts[0].draft.payload) <= QUICK_BYTES
    if quick:
        ready = [core.own.ready(log, posts[0].draft)]
    else:
        ready = await core.read(lambda: [core.own.ready(log, post.draft) for post in posts])

    def work(desk: Desk) -> list[str | HoldfastError]:
        out: list[str | HoldfastError] = []
        desk.look_ahead([(MESSAGES, post.msg_id) for post in posts], "msg_id", [post.msg_id for post in posts])
        for post, write in zip(posts, ready, strict=True):
            before = desk.first("msg_id", post.msg_id) or desk.newest(MESSAGES, post.msg_id)
            if before is not None:
                if before.is_blob:
                    desk.open_files()
                out.append(compare(core, before, post))
                continue
            stored = desk.append(write)
            if post.told_ms is not None:
                desk.tx.sql("INSERT INTO told(pos, ms) VALUES(?,?)", (stored.pos, post.told_ms))
            out.append("stored")
        return out

    found: list[str | HoldfastError] = await core.own.write(log.branch.agent, work, size=size, quick=quick)
    return found


def compare(core: Core, before: Stored, post: Post) -> str | HoldfastError:
    """A message that is here already is the same one; something else under its id is refused, not dropped."""
    try:
        # Whoever names what he says by a key wants it said once, whatever words he finds for it the next time.
        same = post.dedupe or codec.serialise(load(before, core.home.blobs)) == (post.draft.fmt, post.draft.payload)
    except HoldfastError:
        same = True  # its body was erased or has gone bad: the id alone says that it was here
    if same and (before.record.author or before.agent) == post.sender:
        return "duplicate"
    return Conflict(
        f"another message with the id {post.msg_id!r} is stored already", hint="an id names one message, for ever"
    )


def _rejected(msg_id: Any, error: HoldfastError) -> dict[str, Any]:
    return {"msg_id": msg_id if isinstance(msg_id, str) else None, "status": "rejected", "error": verdict_of(error)}
