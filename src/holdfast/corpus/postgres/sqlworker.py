"""The process in which strangers' SQL is sent to PostgreSQL: as a role that reads views, one connection a question.

It is a process of its own for what comes back: a value may have a gigabyte, and that must not be the hub's. A statement
goes in as ``SELECT * FROM (…) LIMIT $n`` by the extended protocol, which carries one statement only; the transaction is
read-only and always rolled back; a connection is used once, so nothing that a statement sets outlives it.
"""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from typing import Any, Final

import msgspec

from holdfast.corpus import views
from holdfast.corpus.postgres.door import first_line, psycopg
from holdfast.corpus.postgres.sqlviews import quote, text
from holdfast.corpus.sandbox import (
    GAP,
    PARAMS_MAX,
    ROWS_SEEN,
    TABLES_MAX,
    Answer,
    Question,
    Refused,
    distinct,
    words_of,
)
from holdfast.corpus.sqlworker import serve

CONNECT_S: Final = 10
_TOKEN: Final = re.compile(
    r"""(?P<kept>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$.*?\$\2\$|--[^\n]*|/\*.*?\*/|::|:=)"""
    r"""|\?(?P<number>\d*)|(?<![\w:]):(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL,
)
_REASONS: Final = {
    "57014": "time",
    "42501": "forbidden",
    "25006": "forbidden",
    "0A000": "forbidden",
    "53100": "memory",
    "53200": "memory",
    "53400": "memory",
    "08P01": "values",
    "42P18": "values",
    "42P02": "values",
}


_CALL: Final = re.compile(r'"?(\w+)"?\s*\(')
_CLOSED: Final = re.compile(
    "lo_.*|lowrite|loread|pg_(try_)?advisory.*|pg_notify|pg_sleep.*|pg_(terminate|cancel)_backend|set_config|setval"
    "|pg_export_snapshot|dblink.*|(query|cursor)_to_xml.*|ts_stat|ts_rewrite"
)
"""Functions that everybody may call in PostgreSQL, and that write, wait, lock, or carry out another text."""


class Gateway:
    """Sends questions to one database.

    Args:
        given: how the role that reads the views logs in.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self._driver = psycopg()
        self._given = {**given, "connect_timeout": CONNECT_S}

    def ask(self, question: Question) -> Answer:
        """What the statement finds, or why it was refused."""
        driver, there = self._driver, []
        try:
            with driver.connect("", cursor_factory=driver.RawCursor, prepare_threshold=None, **self._given) as link:
                try:
                    link.read_only = True
                    link.execute(f"SET LOCAL statement_timeout = {max(1, int(question.seconds * 1000))}")
                    tables = [row[0] for row in link.execute("SELECT collection FROM relay_tables LIMIT 10000")]
                    named = views.names_of([table.removeprefix(views.TABLE) for table in tables])
                    there = sorted([*views.NAMES, *named])[:100]
                    return Answer(self._run(link, question, named))
                finally:
                    link.rollback()
        except Refused as error:
            return Answer(b"", error.reason, str(error)[:500], there if error.reason in ("syntax", "forbidden") else [])
        except KeyError as error:
            return Answer(b"", "values", f"there is no parameter {error}")
        except MemoryError:
            return Answer(b"", "memory", "its rows need more than this process may have")
        except driver.Error as error:
            return self._why(error, question, there)

    def _why(self, error: Any, question: Question, there: list[str]) -> Answer:
        state = error.sqlstate or ""
        reason = _REASONS.get(state, {"42": "syntax", "3F": "syntax", "54": "size", "22": "values"}.get(state[:2], ""))
        said = f"stopped after {question.seconds:g} s" if reason == "time" else first_line(error)
        if not reason:
            # Without a state the driver itself refused a value; what else is left is the server's trouble.
            reason = "values" if isinstance(error, self._driver.DataError) else "failed"
            if state.startswith("XX") and "alloc" in said:
                reason = "memory"
        return Answer(b"", reason, said[:500], there if reason in ("syntax", "forbidden") else [])

    def _run(self, link: Any, question: Question, named: dict[str, str]) -> bytes:
        if closed := sorted(name for name in calls_of(question.sql) if _CLOSED.fullmatch(name)):
            raise Refused("forbidden", f"the function {closed[0]} is not called here")
        sql, params = placed(_bare(question.sql), question.params)
        words = words_of(question.sql)
        wanted = [(view, table) for view, table in named.items() if view.lower() in words][:TABLES_MAX]
        shown = [f"{quote(view)} AS NOT MATERIALIZED ({self._rows(link, table)})" for view, table in wanted]
        before = f"WITH {', '.join(shown)} " if shown else ""
        whole = f"{before}SELECT * FROM (\n{sql}\n) AS holdfast_q LIMIT ${len(params) + 1}"
        out: list[bytes] = []
        columns: list[str] = []
        size, truncated = 0, b"false"
        with link.cursor() as cursor:
            rows = cursor.stream(whole, [*params, question.limit + 1])
            try:
                for row in rows:
                    columns = columns or distinct([column.name for column in cursor.description or ()])
                    if len(out) >= question.limit:
                        truncated = b'"rows"'
                        break
                    values = [_plain(value) for value in row]
                    data = _encode(dict(zip(columns, values, strict=True)) if question.objects else values)
                    size += len(data)
                    if size > question.bytes_max:
                        truncated = b'"bytes"'
                        break
                    out.append(data)
            finally:
                rows.close()
            columns = columns or distinct([column.name for column in cursor.description or ()])
        if not columns:
            columns = [column.name for column in link.execute(whole, [*params, 0]).description or ()]
        if not columns:
            raise Refused("syntax", "there is no statement in it that finds anything")
        return views.answered(_encode(columns), out, truncated)

    def _rows(self, link: Any, table: str) -> str:
        """The rows of a relay's table with the fields of its newest ones; numbers where there are no others."""
        found = link.execute(
            "SELECT f.key, bool_and(json_typeof(f.value) IN ('number', 'boolean', 'null'))"
            " FROM (SELECT value FROM relay_rows WHERE collection=$1 AND json_typeof(value)='object'"
            " ORDER BY pos DESC LIMIT $2) r, LATERAL json_each(r.value) f GROUP BY f.key ORDER BY f.key LIMIT $3",
            (views.TABLE + table, ROWS_SEEN, views.FIELDS_MAX),
        ).fetchall()
        columns = ["coalesce(value ->> 'id', key) AS id", "coalesce(value ->> 'agent_id', agent) AS agent_id"]
        seen = {"id", "agent_id"}
        for field, numbers in found:
            # PostgreSQL cuts names at 63 bytes: two that are alike up to there are one.
            short = field.encode()[:63].decode(errors="ignore").lower()
            if short in seen or not short or len(columns) >= views.FIELDS_MAX:
                continue
            seen.add(short)
            at = f"value -> {text(field)}"
            said = (
                f"CASE json_typeof({at}) WHEN 'number' THEN (value ->> {text(field)})::numeric"
                f" WHEN 'boolean' THEN CASE value ->> {text(field)} WHEN 'true' THEN 1 ELSE 0 END END"
            )
            columns.append(f"{said if numbers else f'value ->> {text(field)}'} AS {quote(field)}")
        rows = f"FROM relay_rows WHERE collection={text(views.TABLE + table)}"
        return f"SELECT {', '.join(columns)} {rows}"


def placed(sql: str, params: list[Any] | dict[str, Any]) -> tuple[str, list[Any]]:
    """The statement with PostgreSQL's ``$1`` in place of ``?`` and ``:name``, and the values in that order.

    Raises:
        KeyError: a name that has no value.
        Refused: as many values as there are places are needed.
    """
    values: list[Any] = []
    names: dict[str, int] = {}
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        if found["kept"] is not None:
            return found[0]
        if (name := found["name"]) is not None:
            if not isinstance(params, dict):
                raise KeyError(name)
            if name not in names:
                values.append(params[name])
                names[name] = len(values)
            return f"${names[name]}"
        number = int(found["number"]) if found["number"] else count + 1
        count = max(count, number)
        if isinstance(params, dict) or not 0 < number <= len(params):
            raise Refused("values", f"there is no value for the parameter {number}")
        return f"${number}"

    if re.search(r"\$\d", sql):
        raise Refused("syntax", "values are placed by ? or :name")
    out = _TOKEN.sub(place, sql)
    if isinstance(params, dict):
        return out, values
    if count != len(params) or len(params) > PARAMS_MAX:
        raise Refused("values", f"the statement has {count} parameters, and {len(params)} values were given")
    return out, list(params)


def calls_of(sql: str) -> set[str]:
    """The names of all functions that a statement may call, in lower case.

    Raises:
        Refused: a name is written in a way that hides it.
    """
    if re.search(r"[uU]&[\"']", sql):
        raise Refused("forbidden", "names and texts are written without U&")
    bare = _TOKEN.sub(lambda found: found[0] if found[0].startswith('"') else " ", sql)
    return {name.lower() for name in _CALL.findall(bare)}


def _bare(sql: str) -> str:
    """The statement without the semicolon that ends it, and what stands behind."""
    cut = sql.rfind(";")
    while cut >= 0 and GAP.fullmatch(sql[cut:]):
        sql = sql[:cut]
        cut = sql.rfind(";")
    return sql


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 1 << 63 else float(value)
    return value


_encode = msgspec.json.Encoder(enc_hook=str).encode


if __name__ == "__main__":
    serve(Gateway, sys.stdin.buffer, sys.stdout.buffer)
