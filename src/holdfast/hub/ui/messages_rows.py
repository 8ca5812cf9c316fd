"""A message as a row of a list: what it is about in one line, whose it is, how it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast import clock
from holdfast.collections.mailbox import Mail
from holdfast.collections.messages import PEOPLE, message_in
from holdfast.corpus import Stored
from holdfast.hub.routes_mail import lies_now, value_of
from holdfast.hub.ui.markdown import plain
from holdfast.hub.ui.words import can_be_part, part, with_query
from holdfast.log.drafts import PRIORITIES

if TYPE_CHECKING:
    from holdfast.hub.core import Core
    from holdfast.hub.principal import Principal

SUBJECT_MAX: Final = 120
SUBJECTS: Final = ("subject", "title", "summary", "text", "message", "question", "content", "action")
"""Fields of a body in which its one line may stand."""
_MARKS: Final = re.compile(r"^(?:[#>]+[ \t]+)+")
"""How a heading or a quote begins, in a text that is Markdown."""
ETAG_SHOWN: Final = 16
STATES: Final = {
    "unread": ("●", "Unread", "fresh"),
    "read": ("○", "Read", "quiet"),
    "acknowledged": ("✓", "Taken on", "good"),
    "done": ("✔", "Done", "good"),
    "snoozed": ("◔", "Snoozed", "quiet"),
    "archived": ("▤", "Archived", "quiet"),
    "expired": ("×", "Expired", "quiet"),
    "withdrawn": ("↩", "Withdrawn", "quiet"),
}
"""Shape, text and colour of each state: any one of them would be enough."""


class Row(msgspec.Struct):
    """A message in a list: `at` names it to forms, `repeats` counts those under the same dedupe key, itself too."""

    id: str
    sender: str
    to: str
    kind: str
    priority: str
    subject: str
    state: str
    needs: bool
    time: str
    until: str | None
    task: str | None
    thread: str | None
    role: str
    node: str
    artifact: bool
    dedupe: str | None
    repeats: int
    missing: str
    pos: int
    at: str
    named_twice: bool


class Exported(Row):
    """A message of an export: a row, and all that it says."""

    content: Any = None


def rows_of(
    core: Core, principal: Principal, found: Sequence[tuple[Mail, Stored]], repeats: dict[str, int], whole: bool = False
) -> list[Any]:
    """The rows of messages; for threads, as it reads from the corpus.

    Args:
        core: the hub.
        principal: who looks.
        found: the messages with their records.
        repeats: how many there are under each dedupe key.
        whole: whether what they say is to be there too (`Exported`).
    """
    now, twice = core.home.wall.now_ms(), _named_twice(core, [mail for mail, _ in found])
    out: list[Any] = []
    for mail, stored in found:
        value, missing, _ = value_of(core, stored)
        message = message_in(stored, {"body": None} if missing else value)
        state = lies_now(core, mail, now)
        row = Row(
            id=mail.msg,
            sender=mail.sender,
            to=mail.box,
            kind=mail.kind,
            priority=PRIORITIES[mail.priority],
            subject=missing_says(missing["missing"]) if missing else subject_of(message.body),
            state=state,
            needs=bool(mail.needs),
            time=clock.to_iso(stored.record.hlc),
            until=clock.iso(mail.due_ms) if mail.due_ms is not None and state == "snoozed" else None,
            task=mail.task,
            thread=message.thread if isinstance(message.thread, str) else None,
            role=mail.role,
            node=_node_of(core, mail.sender, stored) if principal.reads_everything else "",
            artifact=bool(mail.artifact),
            dedupe=mail.dedupe,
            repeats=max(1, repeats.get(mail.dedupe, 1)) if mail.dedupe else 1,
            missing=missing["missing"] if missing else "",
            pos=mail.pos,
            at=name_of(stored),
            named_twice=mail.msg in twice,
        )
        out.append(Exported(**msgspec.structs.asdict(row), content=message.body) if whole else row)
    return out


def name_of(stored: Stored) -> str:
    """What names a message in a form: its position, and a part of its link, should positions ever be others'."""
    return f"{stored.pos}.{stored.record.link.hex()[:ETAG_SHOWN]}"


def _named_twice(core: Core, mails: Sequence[Mail]) -> set[str]:
    if not mails:
        return set()
    marks = ",".join("?" * len(mails))
    sql = f"SELECT msg FROM mail WHERE msg IN ({marks}) GROUP BY msg HAVING count(*)>1"
    return {row[0] for row in core.corpus.query(sql, [mail.msg for mail in mails])}


def _node_of(core: Core, sender: str, stored: Stored) -> str:
    """The node that shipped a message; empty for what a plain client gave to the hub."""
    stream = stored.record.stream
    return next((node for node, seen in core.nodes.items() if seen.streams.get(sender) == stream), "")


def missing_says(missing: str) -> str:
    """What stands in place of a message whose body cannot be read here."""
    return {"blob": "(a large message)", "redacted": "(erased)"}.get(missing, f"({missing})")


def subject_of(body: Any) -> str:
    """What a message is about, in one line."""
    if isinstance(body, dict):
        body = next((body[name] for name in SUBJECTS if isinstance(body.get(name), str) and body[name].strip()), body)
    if isinstance(body, str):
        text = plain(_MARKS.sub("", body[: 4 * SUBJECT_MAX].strip()).partition("\n")[0])
    else:
        text = "" if body is None else json.dumps(body, ensure_ascii=False)[: 4 * SUBJECT_MAX]
    text = "".join(each if each.isprintable() else " " for each in text).strip()
    return (text if len(text) <= SUBJECT_MAX else text[: SUBJECT_MAX - 1] + "…") or "(empty)"


def below_title(text: str, title: str) -> str:
    """A text without the heading that it begins with, where that is what stands above it as its title."""
    first, _, rest = text.strip().partition("\n")
    return rest if first.startswith("#") and subject_of(first) == title else text


def message_url(msg: str, sender: str, query: str, named_twice: bool = False) -> str:
    """Where a message is shown, next to others of the list that a query names."""
    place = f"/messages/{part(msg)}" if can_be_part(msg) and msg != "act" else with_query("/messages/-", id=msg)
    if named_twice:
        query = "&".join(each for each in (query, with_query("", sender=sender)[1:]) if each)
    return place + ("&" if "?" in place else "?") * bool(query) + query


def to_says(to: str) -> str:
    """To whom a message goes, in words."""
    return {"": "whoever looks", PEOPLE: "people"}.get(to, to)
