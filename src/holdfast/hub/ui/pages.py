"""The pages that there are, and their parameters."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from holdfast.hub.principal import ADMIN, INBOX, WRITE
from holdfast.hub.shapes import AfterName, AfterPos, Number, Prefix
from holdfast.hub.ui.routes import Page
from holdfast.records import KEY_BYTES_MAX

ROWS: Final = 50
"""What a page of a list shows."""


Format = Annotated[str, Meta(max_length=10, description="csv or jsonl: the whole list as a file")]


class Found(msgspec.Struct, frozen=True):
    """A page of a list by name."""

    after: AfterName = ""
    format: Format = ""


class NodesAt(msgspec.Struct, frozen=True, kw_only=True):
    """What was just done, and whether the list is wanted as a file."""

    done: Annotated[str, Meta(max_length=32)] = ""
    format: Format = ""


class Named(msgspec.Struct, frozen=True):
    """Whose page, where the path cannot say it."""

    name: Annotated[str, Meta(max_length=255)] = ""
    done: Annotated[str, Meta(max_length=32)] = ""


class DataAt(msgspec.Struct, frozen=True, kw_only=True):
    """Which collection, agent, key, and when; `collection` and `key` where the path cannot say them."""

    collection: str | None = None
    key: str | None = None
    agent: str = ""
    prefix: Prefix = ""
    after: str = ""
    before: AfterPos = 0
    version: Number = 0
    at: Annotated[str, Meta(max_length=64)] = ""
    diff: Annotated[str, Meta(max_length=48, description="two versions, such as 3..5")] = ""
    view: Annotated[str, Meta(max_length=8, description="raw or tree")] = ""
    flat: Annotated[str, Meta(max_length=1, description="1: keys as they are, and not by their parts")] = ""
    field: Annotated[str, Meta(max_length=200, description="a field of the values")] = ""
    op: Annotated[str, Meta(max_length=8, description="eq, ge, le, starts, has or text")] = "eq"
    value: Annotated[str, Meta(max_length=1000, description="what the field is to be, as JSON or as plain text")] = ""
    format: Format = ""
    done: Annotated[str, Meta(max_length=32)] = ""


class SessionsAt(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions, or from where on in one."""

    agent: str = ""
    after: Annotated[str, Meta(max_length=200)] = ""
    status: Annotated[str, Meta(max_length=16, description="active, paused or ended")] = ""
    deleted: Annotated[str, Meta(max_length=1, description="1: those that were deleted")] = ""
    session: Annotated[str, Meta(max_length=120, description="the one that something was done to")] = ""
    done: Annotated[str, Meta(max_length=32)] = ""
    format: Format = ""


class ArtifactsAt(msgspec.Struct, frozen=True, kw_only=True):
    """From where on, and whether the list is wanted as a file."""

    after: Annotated[str, Meta(max_length=32)] = ""
    format: Format = ""


class ChartsAt(msgspec.Struct, frozen=True, kw_only=True):
    """Of which time."""

    range: Literal["1h", "24h", "7d", "30d", "90d"] = "24h"


class SettingsAt(msgspec.Struct, frozen=True, kw_only=True):
    """Which tokens, and from where on in each list."""

    tokens: Literal["valid", "all"] = "valid"
    tokens_after: Annotated[str, Meta(max_length=64)] = ""
    given_up_after: Annotated[str, Meta(max_length=64)] = ""
    done: Annotated[str, Meta(max_length=32)] = ""


class MessagesAt(msgspec.Struct, frozen=True, kw_only=True):
    """Which messages; the pages of one message take the same, so that they know what is before and behind it."""

    tab: Annotated[str, Meta(max_length=16)] = ""
    q: Annotated[str, Meta(max_length=500, description="words, and tokens such as kind:alert")] = ""
    to: Annotated[str, Meta(max_length=255, description="whose inbox; *: everybody's; empty: yours")] = ""
    sender: Annotated[str, Meta(max_length=255)] = msgspec.field(default="", name="from")
    role: Annotated[str, Meta(max_length=255)] = ""
    node: Annotated[str, Meta(max_length=255)] = ""
    kind: Annotated[str, Meta(max_length=255)] = ""
    priority: Annotated[str, Meta(max_length=16)] = ""
    task: Annotated[str, Meta(max_length=255)] = ""
    time: Annotated[str, Meta(max_length=16)] = ""
    since: Annotated[str, Meta(max_length=40)] = ""
    until: Annotated[str, Meta(max_length=40)] = ""
    state: Annotated[str, Meta(max_length=16)] = msgspec.field(default="", name="is")
    has: Annotated[str, Meta(max_length=16)] = ""
    group: Annotated[str, Meta(max_length=1024, description="only repeats under this dedupe key")] = ""
    after: AfterPos = 0
    as_of: AfterPos = 0
    format: Annotated[str, Meta(max_length=8)] = ""
    done: Annotated[str, Meta(max_length=32)] = ""
    n: Number = 0
    undo: Annotated[str, Meta(max_length=2000)] = ""


class LetterAt(MessagesAt, frozen=True, kw_only=True):
    """Which message, and of which list; `id` where the path cannot say it, `sender` where two used one id."""

    id: Annotated[str, Meta(max_length=KEY_BYTES_MAX)] = ""
    of: Annotated[str, Meta(max_length=255)] = msgspec.field(default="", name="sender")


class ThreadAt(msgspec.Struct, frozen=True, kw_only=True):
    """Which conversation, where the path cannot say it, and from where on."""

    id: Annotated[str, Meta(max_length=KEY_BYTES_MAX)] = ""
    after: AfterPos = 0


class SignInAt(msgspec.Struct, frozen=True, kw_only=True):
    """Where to go afterwards, and the link by which somebody came."""

    next: str = "/"
    link: Annotated[str, Meta(max_length=100)] = ""


class CareAt(msgspec.Struct, frozen=True, kw_only=True):
    """From where on in a list, what was just asked for, and which backup somebody thinks of going back to."""

    after: Annotated[int, Meta(ge=0, le=10_000)] = 0
    done: Annotated[str, Meta(max_length=32)] = ""
    restore: Annotated[str, Meta(max_length=64)] = ""


class AuditAt(msgspec.Struct, frozen=True, kw_only=True):
    """Whose acts, which, from when to when (in UTC), behind which; and as what kind of file."""

    who: Annotated[str, Meta(max_length=255)] = ""
    what: Annotated[str, Meta(max_length=64)] = ""
    since: Annotated[str, Meta(max_length=64)] = ""
    until: Annotated[str, Meta(max_length=64)] = ""
    before: Annotated[str, Meta(max_length=64)] = ""
    form: Annotated[str, Meta(max_length=8)] = "csv"


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """Which page's changes."""

    page: str
    agent: str = ""
    node: str = ""
    view: Annotated[str, Meta(max_length=4000, description="of messages: the query of the list; of one: which")] = ""


PAGES: Final = (
    Page(path="/overview", work="overview.overview"),
    Page(path="/messages", work="messages.messages", or_needs=INBOX, query=MessagesAt),
    Page(path="/reports", work="messages.messages", or_needs=INBOX, query=MessagesAt),
    Page(path="/messages/act", work="messages_act.act", method="POST", needs=INBOX, or_needs=WRITE, twin=False),
    Page(path="/messages/views", work="views.change", method="POST", needs=INBOX, or_needs=WRITE, twin=False),
    Page(path="/messages/reply", work="answering.reply", method="POST", needs=INBOX, or_needs=WRITE, twin=False),
    Page(path="/messages/execute", work="answering.execute", method="POST", needs=INBOX, or_needs=WRITE, twin=False),
    Page(path="/messages/{rest:path}", work="letter.letter", or_needs=INBOX, query=LetterAt),
    Page(path="/threads/{rest:path}", work="threads.thread", or_needs=INBOX, query=ThreadAt),
    Page(path="/nodes", work="nodes.nodes", query=NodesAt),
    Page(path="/nodes/{rest:path}", work="nodes.node", query=Named),
    Page(path="/nodes/change", work="wishing.change", method="POST", needs=ADMIN, twin=False),
    Page(path="/agents", work="agents.agents", query=Found),
    Page(path="/agents/{rest:path}", work="agents.agent", query=Named),
    Page(path="/agents/send", work="agents.send", method="POST", needs=WRITE, twin=False),
    Page(path="/data", work="data.data", query=DataAt),
    Page(path="/data/{rest:path}", work="data.data", query=DataAt),
    Page(path="/data/change", work="changes.change", method="POST", needs=WRITE, twin=False),
    Page(path="/sessions", work="sessions.sessions", query=SessionsAt),
    Page(path="/sessions/{rest:path}", work="sessions.session", query=SessionsAt),
    Page(path="/integrity", work="integrity.integrity", query=CareAt),
    Page(path="/integrity/act", work="integrity.act", method="POST", needs=ADMIN, twin=False),
    Page(path="/backups", work="backups.backups", query=CareAt),
    Page(path="/backups/act", work="backups.act", method="POST", needs=ADMIN, twin=False),
    Page(path="/audit", work="audit.audit", query=AuditAt),
    Page(path="/audit/export", work="audit.export", query=AuditAt, twin=False),
    Page(path="/charts", work="charts.charts", query=ChartsAt),
    Page(path="/settings", work="settings.settings", query=SettingsAt),
    Page(path="/settings/tokens", work="settings_changes.tokens", method="POST", needs=ADMIN, twin=False),
    Page(path="/settings/notify", work="settings_changes.notify", method="POST", needs=ADMIN, twin=False),
    Page(path="/sessions/change", work="sessions.change", method="POST", needs=WRITE, twin=False),
    Page(path="/artifacts", work="artifacts.artifacts", query=ArtifactsAt),
    Page(path="/artifacts/{rest:path}", work="artifacts.artifact"),
    Page(path="/artifacts/verify", work="artifacts.verify", method="POST", twin=False),
    Page(path="/sign-in", work="sign_in.sign_in_page", needs="", query=SignInAt, twin=False),
    Page(path="/sign-in", work="sign_in.sign_in", method="POST", needs="", twin=False),
    Page(path="/sign-out", work="sign_in.sign_out", method="POST", needs="", twin=False),
    Page(path="/ui/scheme", work="scheme.choose", method="POST", needs="", twin=False),
    Page(path="/ui/events", work="", or_needs=INBOX, query=Live, twin=False),
    Page(path="/ui/{rest:path}", work="assets.asset", needs="", twin=False),
)
