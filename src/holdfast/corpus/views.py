"""What SQL sees of a corpus: views with documented columns, never the tables (docs/sql.md).

A view is one SELECT over the corpus's tables. What SQLite and PostgreSQL say differently stands in a `Dialect`, so each
engine has the same views with the same columns. What was deleted, also by a prefix, is in `records` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from holdfast.records import BLOB, SEALED, TOMBSTONE, VALUE

FIELDS_MAX: Final = 100
"""Columns that the view of a relay's table has at most."""
TABLE: Final = "table/"
"""The collections of relay's tables begin so; the view has the rest of the name."""


class Dialect(msgspec.Struct, frozen=True):
    """How an engine says what another says differently.

    Attributes:
        table: the full name of one of the corpus's tables.
        iso: ms since 1970 as ISO 8601 text.
        hex: bytes as lower-case hexadecimal text.
        value: the value of the record `r` as JSON text; NULL if it is not in the row.
        field: one field of the value of `r`, as text or a number; objects and lists as JSON text.
        number: the same of a field that is a number.
        part: the first, second, … part of the key of `r`, between slashes.
        size: the size in bytes that a blob's reference, the body of `r`, tells.
        quote: a name as an identifier.
    """

    table: Callable[[str], str]
    iso: Callable[[str], str]
    hex: Callable[[str], str]
    value: str
    field: Callable[[str], str]
    number: Callable[[str], str]
    part: Callable[[int], str]
    size: str
    quote: Callable[[str], str]


def views(d: Dialect) -> dict[str, str]:
    """The views of every hub: name -> its SELECT."""
    found = {
        "records": _records(d),
        "latest": _latest(d),
        "messages": _messages(d),
        "files": _files(d),
        "sessions": _sessions(d),
        "history": _history(d),
        "state": _state(d),
        "artifacts": _artifacts(d),
        "metrics": _metrics(d),
        "tags": _tags(d),
        "agents": _agents(d),
    }
    return found


NAMES: Final = (
    *("records", "latest", "messages", "files", "sessions", "history", "state", "artifacts", "metrics"),
    *("tags", "agents"),
)


def rows(d: Dialect, table: str, fields: Sequence[str]) -> str:
    """The SELECT behind the view of a relay's table.

    Args:
        d: the engine's.
        table: its name.
        fields: the fields of its rows; `id` and `agent_id` are there without being named.
    """
    columns = [f"coalesce({d.field('id')}, r.key) AS id", f"coalesce({d.field('agent_id')}, a.s) AS agent_id"]
    seen = {"id", "agent_id"}
    for field in fields:
        if field.lower() in seen or len(columns) >= FIELDS_MAX:
            continue
        seen.add(field.lower())
        columns.append(f"{d.field(field)} AS {d.quote(field)}")
    return f"SELECT {', '.join(columns)} {_live(d, TABLE + table)}"


def names_of(tables: Sequence[str]) -> dict[str, str]:
    """Which view a relay's table is: its own name, or ``table_<name>`` where that is taken: view -> table.

    Names are compared without regard to case, as SQL does: of two that differ in nothing else the first in order wins.
    """
    out: dict[str, str] = {}
    taken: set[str] = set()
    late: list[str] = []
    for table in sorted(tables):
        low = table.lower()
        if low in NAMES or low in taken or low.startswith(("sqlite_", "pg_")):
            late.append(table)
        else:
            taken.add(low)
            out[table] = table
    for table in late:
        if (low := f"table_{table.lower()}") not in taken and low not in NAMES:
            taken.add(low)
            out[f"table_{table}"] = table
    return out


# -- the views --------------------------------------------------------------------------------------------------


def _records(d: Dialect) -> str:
    t = d.table
    return f"""SELECT r.pos AS pos, a.s AS agent, u.s AS author, {d.hex("t.stream")} AS stream, r.seq AS seq,
 {_common(d)},
 CASE WHEN (r.flags & {TOMBSTONE}) <> 0 THEN 1 ELSE 0 END AS deleted
 FROM {t("rec")} r LEFT JOIN {t("name")} a ON a.id=r.agent LEFT JOIN {t("name")} u ON u.id=r.author
 LEFT JOIN {t("name")} k ON k.id=r.kind LEFT JOIN {t("name")} c ON c.id=r.coll
 LEFT JOIN {t("branch")} b ON b.id=r.branch LEFT JOIN {t("stream")} t ON t.id=b.stream"""


def _latest(d: Dialect) -> str:
    t = d.table
    # Said twice, the planner may begin with either: a key is found in the state, a range of pos in the records.
    return f"""SELECT r.pos AS pos, a.s AS agent, u.s AS author, {_common(d)}
 FROM {t("state")} st JOIN {t("rec")} r ON r.pos=st.pos AND r.agent=st.agent AND r.coll=st.coll AND r.key=st.key
 LEFT JOIN {t("name")} a ON a.id=st.agent LEFT JOIN {t("name")} u ON u.id=r.author
 LEFT JOIN {t("name")} k ON k.id=r.kind LEFT JOIN {t("name")} c ON c.id=st.coll
 WHERE st.gone=0 AND (r.flags & {VALUE}) <> 0"""


def _common(d: Dialect) -> str:
    """The columns that `records` and `latest` share."""
    blob, open_ = f"(r.flags & {BLOB}) <> 0", f"(r.flags & {SEALED}) = 0"
    return f"""{d.iso("(r.hlc >> 16)")} AS time, (r.hlc >> 16) AS ms, k.s AS kind, c.s AS collection, r.key AS key,
 r.version AS version, {d.hex("r.link")} AS etag, CASE r.fmt WHEN 2 THEN 'json' WHEN 1 THEN 'text' ELSE 'bytes' END
 AS format, CASE WHEN {open_} THEN {d.value} END AS value,
 CASE WHEN {blob} AND r.body IS NOT NULL THEN {d.size} ELSE r.plen END AS bytes,
 CASE WHEN {blob} AND r.body IS NOT NULL THEN {d.hex("substr(r.body, 1, 32)")} END AS digest,
 CASE WHEN r.body IS NULL THEN CASE r.why WHEN 1 THEN 'evicted' WHEN 2 THEN 'quarantined' WHEN 3 THEN 'redacted'
 WHEN 4 THEN 'archived' ELSE 'lost' END WHEN (r.flags & {SEALED}) <> 0 THEN 'sealed' WHEN {blob} THEN 'blob'
 END AS missing"""


def _live(d: Dialect, collection: str) -> str:
    """FROM and WHERE of the current values of a collection; in order of pos without sorting."""
    t, text = d.table, collection.replace("'", "''")
    return f"""FROM {t("rec")} r LEFT JOIN {t("name")} a ON a.id=r.agent
 WHERE r.coll=(SELECT n.id FROM {t("name")} n WHERE n.s='{text}') AND (r.flags & {VALUE}) <> 0
 AND r.pos=(SELECT st.pos FROM {t("state")} st WHERE st.agent=r.agent AND st.coll=r.coll AND st.key=r.key
 AND st.gone=0)"""


def _fields(d: Dialect, *names: str, numbers: tuple[str, ...] = ("size", "value")) -> str:
    said = [(d.number(name) if name in numbers else d.field(name), name) for name in names]
    return ", ".join(f"{text} AS {d.quote(name)}" for text, name in said)


def _messages(d: Dialect) -> str:
    t = d.table
    ms = f"coalesce((SELECT told.ms FROM {t('told')} told WHERE told.pos=r.pos), r.hlc >> 16)"
    said = {"recipient": "to", "task": "task", "thread": "thread", "role": "role"}
    fields = ", ".join(f"{d.field(field)} AS {name}" for name, field in said.items())
    kind = f"(SELECT k.s FROM {t('name')} k WHERE k.id=r.kind)"
    sender = f"coalesce((SELECT nullif(u.s, '') FROM {t('name')} u WHERE u.id=r.author), a.s)"
    return f"""SELECT r.key AS id, {d.iso(ms)} AS time, {ms} AS ms, {sender} AS sender, {fields}, {kind} AS kind,
 coalesce({d.field("priority")}, 'normal') AS priority, {d.field("body")} AS content, r.pos AS pos
 {_live(d, "messages")}"""


def _files(d: Dialect) -> str:
    fields = _fields(d, "name", "size", "media_type", "digest", "task_id", "metadata", "uploaded_at")
    # Beside each file's record lies another, under <file_id>/bytes, which refers to its blob.
    return f"""SELECT r.key AS file_id, a.s AS agent_id, {fields}, r.pos AS pos {_live(d, "files")}
 AND (r.flags & {BLOB}) = 0"""


def _kind(d: Dialect, kind: str) -> str:
    return f"r.kind=(SELECT k.id FROM {d.table('name')} k WHERE k.s='{kind}')"


def _sessions(d: Dialect) -> str:
    fields = _fields(d, "user_id", "status", "created_at", "updated_at", "metadata", "forked_from")
    return f"""SELECT {d.part(1)} AS id, a.s AS agent_name, {fields}, r.version AS version, r.pos AS pos
 {_live(d, "sessions")} AND {_kind(d, "session")}"""


def _history(d: Dialect) -> str:
    return f"""SELECT {d.part(3)} AS id, {d.part(1)} AS session_id, a.s AS agent_name,
 {_fields(d, "role", "content", "timestamp", "metadata")}, r.pos AS pos
 {_live(d, "sessions")} AND {_kind(d, "message")}"""


def _state(d: Dialect) -> str:
    return f"""SELECT {d.part(1)} AS session_id, a.s AS agent_name, {_fields(d, "data", "updated_at")},
 r.version AS version, r.pos AS pos {_live(d, "sessions")} AND {_kind(d, "state")}"""


def _artifacts(d: Dialect) -> str:
    t = d.table
    # An artifact's bytes are a record of their own, beside the one that says what it is.
    content = "replace(r.key, '/about', '/content')"
    digest = f"""(SELECT {d.hex("substr(c.body, 1, 32)")} FROM {t("rec")} c WHERE (c.flags & {BLOB}) <> 0 AND c.pos=
 (SELECT st.pos FROM {t("state")} st WHERE st.agent=r.agent AND st.coll=r.coll AND st.key={content} AND st.gone=0))"""
    return f"""SELECT {d.part(3)} AS id, {d.part(1)} AS session_id, a.s AS agent_name,
 {_fields(d, "name", "type", "path", "size", "created_at", "metadata")}, {digest} AS digest, r.pos AS pos
 {_live(d, "sessions")} AND {_kind(d, "artifact")}"""


def _metrics(d: Dialect) -> str:
    fields = ("entity_type", "entity_name", "session_id", "metric_name", "value", "timestamp", "labels")
    return f"""SELECT r.key AS id, {_fields(d, *fields)}, a.s AS agent_name, r.pos AS pos
 {_live(d, "metrics")} AND {_kind(d, "metric")}"""


def _tags(d: Dialect) -> str:
    t = d.table
    return f"""SELECT g.pos AS pos, CASE g.k WHEN 1 THEN 'to' WHEN 2 THEN 'task' ELSE 'thread' END AS tag, g.v AS value
 FROM {t("tag")} g WHERE g.k<=3"""


def _agents(d: Dialect) -> str:
    t = d.table
    return f"""SELECT n.s AS agent, {d.hex("s.stream")} AS stream, s.own AS hub,
 (SELECT max(l.seq) FROM {t("label")} l WHERE l.stream=s.id) AS seq
 FROM {t("stream")} s LEFT JOIN {t("name")} n ON n.id=s.agent"""


def answered(columns: bytes, rows: Sequence[bytes], truncated: bytes) -> bytes:
    """The answer to a question, of its parts as JSON."""
    return b'{"columns":%b,"rows":[%b],"count":%d,"truncated":%b}' % (columns, b",".join(rows), len(rows), truncated)
