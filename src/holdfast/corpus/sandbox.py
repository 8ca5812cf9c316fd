"""SQL of strangers, on SQLite: one statement, over views, on a connection that can do nothing else (ADR 0019).

Each layer would do alone, were it without a fault: the file is opened for reading; nothing is allowed that is not on
a list (`_allow`); limits on every size that SQLite knows; a deadline that is looked at every 1,000 steps; caps on rows
and bytes; a heap of its own. It runs in a process of its own (`corpus/sqlworker.py`), which can be killed.

Who may read a table is decided by the view through which it is read. SQLite tells the name of the innermost view *or
common table expression*, and whoever writes ``WITH records AS (SELECT * FROM rec)`` chooses that name. So the views
that read tables have names that nobody can guess, made anew by each process; the documented ones are views over these.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from holdfast import codec
from holdfast.corpus import views
from holdfast.errors import HoldfastError
from holdfast.records import BLOB, VALUE, read_blob_reference
from holdfast.sqlite import checksums

HEAP_BYTES: Final = 48 << 20
STEPS: Final = 1000
VALUE_BYTES_MAX: Final = 256 << 10
"""A body that unfolds to more is no value of ours (above 64 KiB it would be a blob)."""
SQL_BYTES_MAX: Final = 20_000
PARAMS_MAX: Final = 64
ROWS_SEEN: Final = 2_000
"""Newest rows of a relay's table that are looked at for its columns; from then on, every new one."""
TABLES_MAX: Final = 64
_LIMITS: Final = {
    "LENGTH": 1_000_000,
    "SQL_LENGTH": SQL_BYTES_MAX + 50_000,  # our own views are longer; a question's length is checked before
    "COLUMN": 128,
    "EXPR_DEPTH": 50,
    "COMPOUND_SELECT": 10,
    "VDBE_OP": 25_000,
    "FUNCTION_ARG": 32,
    "LIKE_PATTERN_LENGTH": 100,
    "VARIABLE_NUMBER": PARAMS_MAX,
    "PARSER_DEPTH": 100,
    "TRIGGER_DEPTH": 1,
    "WORKER_THREADS": 0,
}
_CALLABLE: Final = """
abs acos acosh asin asinh atan atan2 atanh avg ceil ceiling char coalesce concat concat_ws cos cosh count cume_dist
current_date current_time current_timestamp date datetime degrees dense_rank exp first_value floor glob group_concat
hex if ifnull iif instr json json_array json_array_length json_error_position json_extract json_group_array
json_group_object json_insert json_object json_patch json_pretty json_quote json_remove json_replace json_set json_type
json_valid julianday lag last_value lead length like likelihood likely ln log log10 log2 lower ltrim max median min mod
nth_value ntile nullif octet_length percent_rank percentile percentile_cont percentile_disc pi pow power quote radians
random rank replace round row_number rtrim sign sin sinh sqrt strftime string_agg subtype substr substring sum tan tanh
time timediff total trim trunc typeof unicode unixepoch unlikely upper -> ->>
"""
FUNCTIONS: Final = frozenset(_CALLABLE.split())
"""What may be called; all else is refused, also what a later SQLite brings."""
_OURS: Final = ("hf_value", "hf_field", "hf_size", "hf_part")
_TABLE_FUNCTIONS: Final = ("json_each", "json_tree")
_BASE: Final = ("rec", "name", "state", "told", "tag", "stream", "branch", "label")
_NAME = re.compile(r'"((?:[^"]|"")+)"|`((?:[^`]|``)+)`|\[([^\]]+)\]|\'((?:[^\']|\'\')+)\'|(\w[\w$]*)')
GAP = re.compile(r"(?:\s|;|--[^\n]*(?:\n|\Z)|/\*(?:(?!\*/).)*(?:\*/|\Z))*", re.DOTALL)
"""Blanks, semicolons and comments; written so that nothing else can be taken for one."""

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Question(msgspec.Struct):
    """One statement, and how far it may go.

    Attributes:
        sql: the statement.
        params: values for its ``?``, or for its ``:name``.
        limit: rows, at most.
        bytes_max: bytes of all rows, at most.
        seconds: how long it may take.
        objects: rows as objects, not as lists.
    """

    sql: str
    params: list[Any] | dict[str, Any] = []
    limit: int = 1000
    bytes_max: int = 1 << 20
    seconds: float = 1.0
    objects: bool = False


class Answer(msgspec.Struct):
    """What came of it: the JSON of the answer, or why there is none.

    Attributes:
        data: ``{"columns": …, "rows": …, "count": n, "truncated": …}``; empty if it was refused.
        reason: empty, or one of syntax, forbidden, time, memory, size, values, failed.
        message: what failed, as SQLite says it.
        views: which views there are, where that helps.
    """

    data: bytes = b""
    reason: str = ""
    message: str = ""
    views: list[str] = []


class Refused(Exception):
    """A statement that is not carried out; `reason` is one of `Answer`'s."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Sandbox:
    """A connection that answers questions about one hub's file, one at a time.

    Args:
        path: the file; opened for reading.
        clock: seconds that only grow.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = secrets.token_hex(16)
        self._schema = f"s{self._secret}"
        self._tables: dict[str, _Table] = {}
        self._columns: dict[str, tuple[str, ...]] = {}
        self._memo: tuple[Any, Any] = (None, None)
        self._outer: set[str] = set()
        self._end = 0.0
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_MEMORY | apsw.SQLITE_OPEN_URI
        self._db = apsw.Connection(":memory:", flags=flags)
        self._open(path)

    def ask(self, question: Question) -> Answer:
        """What the statement finds, or why it was refused; never raises for what a statement does."""
        self._end = self._clock() + question.seconds
        try:
            self._show_tables(question.sql)
            return Answer(self._run(question))
        except Refused as error:
            return self._no(error.reason, str(error))
        except apsw.InterruptError:
            return self._no("time", f"stopped after {question.seconds:g} s")
        except (apsw.NoMemError, MemoryError):
            return self._no("memory", f"it needs more than {HEAP_BYTES >> 20} MiB")
        except apsw.AuthError as error:
            return self._no("forbidden", str(error))
        except apsw.TooBigError as error:
            return self._no("size", str(error))
        except KeyError as error:
            return self._no("values", f"there is no parameter {error}")
        except (apsw.BindingsError, TypeError, OverflowError, UnicodeEncodeError) as error:
            return self._no("values", str(error))
        except UnicodeDecodeError:
            return self._no("values", "a text of the answer is not UTF-8")
        except (apsw.BusyError, apsw.LockedError, apsw.IOError, apsw.CorruptError, apsw.CantOpenError) as error:
            return self._no("failed", str(error))
        except apsw.Error as error:
            forbidden = "prohibited" in str(error) or "not authorized" in str(error)
            return self._no("forbidden" if forbidden else "syntax", str(error))
        finally:
            self._memo = (None, None)

    def close(self) -> None:
        """Closes the connection."""
        self._db.close()

    # -- opening ------------------------------------------------------------------------------------------------

    def _open(self, path: Path) -> None:
        db, vfs = self._db, checksums()
        for option, wanted in (
            (apsw.SQLITE_DBCONFIG_DEFENSIVE, 1),
            (apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0),
            (apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0),
            (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, 0),
            (apsw.SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, 0),
            (apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
            (apsw.SQLITE_DBCONFIG_DQS_DML, 0),
        ):
            if db.config(option, wanted) != wanted:
                raise apsw.Error(f"option {option} is not {wanted}")
        # Attached under a name that nobody can guess, so that a table cannot be named where it lies either.
        db.execute(f"ATTACH ? AS {self._schema}", (f"{path.absolute().as_uri()}?mode=ro&vfs={vfs}",))
        if not db.readonly(self._schema):
            raise apsw.Error("the file is open for writing")
        db.set_busy_timeout(500)
        for pragma in ("temp_store=2", "mmap_size=0", "cache_size=-2000"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute(f"PRAGMA {self._schema}.cache_size=-2000").fetchall()
        for name, most in _LIMITS.items():
            db.limit(getattr(apsw, f"SQLITE_LIMIT_{name}"), most)
        innocuous = {"deterministic": True, "flags": apsw.SQLITE_INNOCUOUS}
        db.create_scalar_function("hf_value", self._value, 5, **innocuous)  # type: ignore[arg-type]
        db.create_scalar_function("hf_field", self._field, 6, **innocuous)  # type: ignore[arg-type]
        db.create_scalar_function("hf_size", _size, 1, **innocuous)  # type: ignore[arg-type]
        db.create_scalar_function("hf_part", _part, 2, **innocuous)  # type: ignore[arg-type]
        modules = {row[0].lower() for row in db.execute("SELECT name FROM pragma_module_list")}
        found = db.execute(f"SELECT lower(name) FROM {self._schema}.sqlite_schema")
        self._closed = (modules | {row[0] for row in found}) - set(_TABLE_FUNCTIONS) - set(_BASE)
        for name in _BASE:
            self._hide(name)
        for name, select in views.views(self._dialect()).items():
            self._show(name, select)
        db.limit(apsw.SQLITE_LIMIT_ATTACHED, 0)
        db.execute("PRAGMA query_only=1").fetchall()
        db.authorizer = self._allow
        db.set_progress_handler(self._late, STEPS)

    def _dialect(self) -> views.Dialect:
        row = "r.fmt, r.flags, r.codec, r.plen, r.body"
        return views.Dialect(
            table=lambda name: f"{self._schema}.{name}",
            iso=lambda ms: f"strftime('%Y-%m-%dT%H:%M:%fZ', ({ms})/1000.0, 'unixepoch')",
            hex=lambda value: f"lower(hex({value}))",
            value=f"hf_value({row})",
            field=lambda name: f"hf_field({_text(name)}, {row})",
            number=lambda name: f"hf_field({_text(name)}, {row})",
            part=lambda number: f"hf_part(r.key, {number})",
            size="hf_size(r.body)",
            quote=_quote,
        )

    def _show(self, name: str, select: str) -> None:
        inner = _quote(f"i{self._secret}_{name}")
        for view in (_quote(name), inner):
            self._db.execute(f"DROP VIEW IF EXISTS temp.{view}")
        self._db.execute(f"CREATE TEMP VIEW {inner} AS {select}")
        self._db.execute(f"CREATE TEMP VIEW {_quote(name)} AS SELECT * FROM temp.{inner}")
        self._outer.add(name.lower())

    def _hide(self, name: str) -> None:
        """Who names a table finds this in its place, and is told that it is not for him."""
        self._db.execute(f"CREATE TEMP VIEW {name} AS SELECT hf_forbidden() AS closed")

    @contextlib.contextmanager
    def _unguarded(self) -> Iterator[None]:
        """For our own statements only."""
        self._db.authorizer = None
        self._db.execute("PRAGMA query_only=0").fetchall()
        try:
            yield
        finally:
            self._db.execute("PRAGMA query_only=1").fetchall()
            self._db.authorizer = self._allow

    # -- what is allowed ----------------------------------------------------------------------------------------

    def _allow(self, op: int, one: str | None, two: str | None, db: str | None, by: str | None) -> int:
        return apsw.SQLITE_OK if self._may(op, one or "", two or "", db or "", by or "") else apsw.SQLITE_DENY

    def _may(self, op: int, one: str, two: str, db: str, by: str) -> bool:
        if op in (apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE):
            return True
        inside = by.startswith(f"i{self._secret}_")
        if op == apsw.SQLITE_FUNCTION:
            name = two.lower()
            return name in FUNCTIONS or (inside and name in _OURS)
        if op != apsw.SQLITE_READ:
            return False
        name = one.lower()
        if db == self._schema:  # without a column: what counts the rows of one of our views
            return name in _BASE and (inside or not two)
        if name.startswith(f"i{self._secret}_"):
            return True  # whoever knows this name is one of our views
        if name in self._outer or name in _TABLE_FUNCTIONS:
            return True
        # A table of which no column is read: what counts the rows of a view, or of a name of the statement's own.
        return not two and not db and name not in self._closed and not name.startswith(("sqlite_", "pragma_"))

    def _late(self) -> bool:
        return self._clock() > self._end

    # -- running ------------------------------------------------------------------------------------------------

    def _run(self, question: Question) -> bytes:
        columns: list[str] = []
        begun = False

        def one(cursor: apsw.Cursor, text: str, _: Any) -> bool:
            nonlocal begun
            if begun and GAP.fullmatch(text):
                return True  # a comment behind the statement
            if begun or not _only(question.sql, text):
                raise Refused("forbidden", "one statement at a time")
            if cursor.is_explain:
                raise Refused("forbidden", "EXPLAIN is not answered here")
            if not cursor.is_readonly:
                raise Refused("forbidden", "this changes something; only SELECT is answered here")
            begun = True
            columns.extend(distinct([name for name, *_ in cursor.get_description()]))
            return True

        cursor = self._db.cursor()
        cursor.exec_trace = one
        try:
            found = cursor.execute(question.sql, _bound(question.params), can_cache=False)
            if not columns:
                raise Refused("syntax", "there is no statement in it that finds anything")
            return self._collect(found, columns, question)
        finally:
            cursor.close(True)

    def _collect(self, rows: Any, columns: list[str], question: Question) -> bytes:
        out: list[bytes] = []
        size, truncated = 0, b"false"
        for row in rows:
            if len(out) >= question.limit:
                truncated = b'"rows"'
                break
            data = encode(dict(zip(columns, row, strict=True)) if question.objects else row)
            size += len(data)
            if size > question.bytes_max:
                truncated = b'"bytes"'
                break
            out.append(data)
            if self._late():
                raise apsw.InterruptError
        return views.answered(encode(columns), out, truncated)

    def _no(self, reason: str, message: str) -> Answer:
        text = message.replace(f"i{self._secret}_", "").replace(f"{self._schema}.", "")
        if "hf_forbidden" in text:
            reason, text = "forbidden", "the tables of the corpus are not read here, only its views"
        helps = reason in ("syntax", "forbidden")
        return Answer(b"", reason, text[:500], self._there() if helps else [])

    def _there(self) -> list[str]:
        """The names of the views that there are, up to a hundred."""
        self._end = self._clock() + 1
        try:
            with self._unguarded():
                found = views.names_of(list(self._numbers()))
        except apsw.Error:
            found = {}
        return sorted([*views.NAMES, *found])[:100]

    # -- the tables of the relay --------------------------------------------------------------------------------

    def _show_tables(self, sql: str) -> None:
        """Makes the views of the relay's tables that the statement may name, with the fields they have by now."""
        words = words_of(sql) - set(views.NAMES)
        if not words:
            return
        with self._unguarded():
            ids = self._numbers()
            wanted = [(view, table) for view, table in views.names_of(list(ids)).items() if view.lower() in words]
            for view, table in wanted[:TABLES_MAX]:
                known = self._tables.setdefault(table, _Table())
                self._look(ids[table], known)
                fields = tuple(known.fields)
                if self._columns.get(view) != fields:
                    self._show(view, views.rows(self._dialect(), table, fields))
                    self._columns[view] = fields
            # One that has not been asked for long takes its room from those that are.
            while len(self._columns) > TABLES_MAX:
                view = next(iter(self._columns))
                del self._columns[view]
                self._outer.discard(view.lower())
                for name in (view, f"i{self._secret}_{view}"):
                    self._db.execute(f"DROP VIEW IF EXISTS temp.{_quote(name)}")
                if view.lower() in _BASE:
                    self._hide(view.lower())

    def _numbers(self) -> dict[str, int]:
        """The relay's tables, and the number of the collection of each."""
        start, end = views.TABLE, views.TABLE[:-1] + chr(ord("/") + 1)
        rows = self._db.execute(f"SELECT id, s FROM {self._schema}.name WHERE s>=? AND s<?", (start, end))
        return {text.removeprefix(start): number for number, text in rows}

    def _look(self, coll: int, known: _Table) -> None:
        """Adds the fields of the rows that came since the last look, the newest rows' first."""
        rows = self._db.execute(
            f"SELECT pos, fmt, flags, codec, plen, body FROM {self._schema}.rec WHERE coll=? AND pos>?"
            f" AND (flags & {VALUE})<>0 ORDER BY pos DESC LIMIT ?",
            (coll, known.pos, ROWS_SEEN),
        )
        newest = known.pos
        for pos, *row in rows:
            newest = max(newest, pos)
            value = self._load(*row)
            if isinstance(value, dict):
                for field in value:
                    if len(known.fields) < views.FIELDS_MAX and _nameable(field):
                        known.fields.setdefault(field)
        known.pos = newest

    # -- functions of the views ---------------------------------------------------------------------------------

    def _load(self, fmt: int, flags: int, codec_id: int, plen: int, body: bytes | None) -> Any:
        """The value in a row; `_NOTHING` if it is not in it, or is none."""
        if body is None or flags & BLOB or plen > VALUE_BYTES_MAX:
            return _NOTHING
        if self._memo[0] == (fmt, codec_id, plen, body):
            return self._memo[1]
        try:
            value = codec.deserialise(fmt, codec.unpack(codec_id, body, plen))
        except HoldfastError:
            value = _NOTHING
        self._memo = ((fmt, codec_id, plen, body), value)
        return value

    def _value(self, *row: Any) -> str | None:
        value = self._load(*row)
        return None if value is _NOTHING else encode(value).decode()

    def _field(self, name: str, *row: Any) -> Any:
        value = self._load(*row)
        found = value.get(name) if isinstance(value, dict) else None
        if found is None and name == "body" and value is not _NOTHING and not isinstance(value, dict):
            found = value  # a message that is nothing but what it says
        if isinstance(found, dict | list | bytes):
            return encode(found).decode()
        if isinstance(found, int) and not -(1 << 63) <= found < 1 << 63:
            return float(found)
        return found


class _Table:
    """What is known of one of the relay's tables: how far it was looked at, and the fields that were seen."""

    def __init__(self) -> None:
        self.pos = 0
        self.fields: dict[str, None] = {}


_NOTHING: Final = object()


def _size(body: bytes | None) -> int | None:
    try:
        return read_blob_reference(body)[1] if isinstance(body, bytes) else None
    except HoldfastError:
        return None


def _part(key: str, number: int) -> str | None:
    parts = key.split("/")
    return parts[number - 1] if number <= len(parts) else None


def _nameable(field: str) -> bool:
    return 0 < len(field) <= 255 and "\0" not in field


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _only(whole: str, statement: str) -> bool:
    """Whether there is nothing but blanks and comments behind the statement."""
    at = whole.find(statement)
    rest = whole[at + len(statement) :]
    found = GAP.match(rest)
    return at >= 0 and found is not None and found.end() == len(rest)


def words_of(sql: str) -> set[str]:
    """Every name that a statement may mean, and more, in lower case."""
    return {next(filter(None, found.groups())).lower() for found in _NAME.finditer(sql[:SQL_BYTES_MAX])}


def distinct(columns: Sequence[str]) -> list[str]:
    """Column names of which no two are the same: an object has each but once."""
    out: list[str] = []
    for name in columns:
        number, made = 2, name
        while made in out:
            made, number = f"{name}_{number}", number + 1
        out.append(made)
    return out


def _bound(params: list[Any] | dict[str, Any]) -> Any:
    given = params.values() if isinstance(params, dict) else params
    if len(params) > PARAMS_MAX:
        raise Refused("values", f"{len(params)} parameters, the most is {PARAMS_MAX}")
    for value in given:
        if not isinstance(value, str | int | float | bool | None):
            raise Refused("values", f"a parameter is a text, a number, true, false or null, not {type(value).__name__}")
    return params
