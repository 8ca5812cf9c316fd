"""The pages that there are, and their parameters."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from holdfast.hub.principal import ADMIN, WRITE
from holdfast.hub.shapes import AfterName, AfterPos, Number, Prefix
from holdfast.hub.ui.routes import Page

ROWS: Final = 50
"""What a page of a list shows."""


class Found(msgspec.Struct, frozen=True):
    """A page of a list by name."""

    after: AfterName = ""


class Named(msgspec.Struct, frozen=True):
    """Whose page, where the path cannot say it."""

    name: Annotated[str, Meta(max_length=255)] = ""


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
    done: Annotated[str, Meta(max_length=32)] = ""


class SessionsAt(msgspec.Struct, frozen=True, kw_only=True):
    """Which sessions, or from where on in one."""

    agent: str = ""
    after: Annotated[str, Meta(max_length=200)] = ""


class ChartsAt(msgspec.Struct, frozen=True, kw_only=True):
    """Of which time."""

    range: Literal["1h", "24h", "7d", "30d", "90d"] = "24h"


class SettingsAt(msgspec.Struct, frozen=True, kw_only=True):
    """Which tokens, and from where on in each list."""

    tokens: Literal["valid", "all"] = "valid"
    tokens_after: Annotated[str, Meta(max_length=64)] = ""
    given_up_after: Annotated[str, Meta(max_length=64)] = ""
    done: Annotated[str, Meta(max_length=32)] = ""


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


PAGES: Final = (
    Page(path="/overview", work="overview.overview"),
    Page(path="/nodes", work="nodes.nodes"),
    Page(path="/nodes/{rest:path}", work="nodes.node", query=Named),
    Page(path="/agents", work="nodes.agents", query=Found),
    Page(path="/agents/{rest:path}", work="nodes.agent", query=Named),
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
    Page(path="/sign-in", work="sign_in.sign_in_page", needs="", query=SignInAt, twin=False),
    Page(path="/sign-in", work="sign_in.sign_in", method="POST", needs="", twin=False),
    Page(path="/sign-out", work="sign_in.sign_out", method="POST", needs="", twin=False),
    Page(path="/ui/scheme", work="scheme.choose", method="POST", needs="", twin=False),
    Page(path="/ui/events", work="", query=Live, twin=False),
    Page(path="/ui/{rest:path}", work="assets.asset", needs="", twin=False),
)
