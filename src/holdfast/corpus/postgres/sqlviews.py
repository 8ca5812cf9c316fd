"""What strangers' SQL sees of a corpus on PostgreSQL: a schema of views, and a role that can read these and no more.

The hub makes both when it is first asked. The role logs in by itself: from inside one statement `set_config` can take
back a SET ROLE, but nothing makes another of who logged in. Its password is made of the hub's key, so every process of
a hub knows it and no table has to keep it.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from holdfast import seal
from holdfast.corpus import views
from holdfast.corpus.postgres.door import Database
from holdfast.errors import UsageError

TEMP_KIB: Final = 64 << 10
_LOCK: Final = 0x686F6C6466617374
_ROW: Final = "r.fmt, r.flags, r.body"
_SETTINGS: Final = {
    "default_transaction_read_only": "on",
    "statement_timeout": "'30s'",
    "lock_timeout": "'1s'",
    "idle_in_transaction_session_timeout": "'10s'",
    "work_mem": "'4MB'",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_IF_IT_MAY: Final = {"temp_file_limit": str(TEMP_KIB), "client_connection_check_interval": "'500ms'"}
"""What only a superuser can set, and what older servers do not know."""
_FUNCTIONS: Final = """
CREATE OR REPLACE FUNCTION {s}.hf_json(fmt smallint, flags integer, body bytea) RETURNS json
 LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $f$
BEGIN
 IF body IS NULL OR (flags & 2) <> 0 THEN RETURN NULL; END IF;
 IF fmt = 2 THEN RETURN convert_from(body, 'UTF8')::json; END IF;
 IF fmt = 1 THEN RETURN to_json(convert_from(body, 'UTF8')); END IF;
 IF fmt = 0 THEN RETURN to_json(translate(encode(body, 'base64'), E'\\n', '')); END IF;
 RETURN NULL;
EXCEPTION WHEN OTHERS THEN RETURN NULL;
END $f$;
CREATE OR REPLACE FUNCTION {s}.hf_field(name text, fmt smallint, flags integer, body bytea) RETURNS text
 LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $f$
DECLARE found json := {s}.hf_json(fmt, flags, body);
BEGIN
 IF json_typeof(found) = 'object' THEN RETURN found ->> name; END IF;
 IF name = 'body' THEN RETURN found #>> '{{}}'; END IF;
 RETURN NULL;
EXCEPTION WHEN OTHERS THEN RETURN NULL;
END $f$;
CREATE OR REPLACE FUNCTION {s}.hf_number(name text, fmt smallint, flags integer, body bytea) RETURNS numeric
 LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $f$
DECLARE found json := {s}.hf_json(fmt, flags, body) -> name;
BEGIN
 IF json_typeof(found) = 'number' THEN RETURN (found #>> '{{}}')::numeric; END IF;
 IF json_typeof(found) = 'boolean' THEN RETURN CASE found #>> '{{}}' WHEN 'true' THEN 1 ELSE 0 END; END IF;
 RETURN NULL;
EXCEPTION WHEN OTHERS THEN RETURN NULL;
END $f$;
CREATE OR REPLACE FUNCTION {s}.hf_size(body bytea) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $f$
 SELECT CASE WHEN length(body) = 40 THEN ('x' || encode(substr(body, 33, 8), 'hex'))::bit(64)::bigint END $f$;
"""


def dialect(tables: str, own: str) -> views.Dialect:
    """How PostgreSQL says what SQLite says differently.

    Args:
        tables: the schema of the corpus.
        own: the schema of the views.
    """
    return views.Dialect(
        table=lambda name: f"{tables}.{name}",
        iso=lambda ms: f"to_char(to_timestamp(({ms})/1000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
        hex=lambda value: f"encode({value}, 'hex')",
        value=f"{own}.hf_json({_ROW})::text",
        field=lambda name: f"{own}.hf_field({text(name)}, {_ROW})",
        number=lambda name: f"{own}.hf_number({text(name)}, {_ROW})",
        part=lambda number: f"split_part(r.key, '/', {number})",
        size=f"{own}.hf_size(r.body)",
        quote=quote,
    )


def quote(name: str) -> str:
    """A name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text as a literal, whatever `standard_conforming_strings` says."""
    return ("E" if "\\" in value else "") + "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def script(tables: str, own: str) -> str:
    """What makes the views anew."""
    d = dialect(tables, own)
    made = [f"DROP SCHEMA IF EXISTS {own} CASCADE", f"CREATE SCHEMA {own}", _FUNCTIONS.format(s=own)]
    made += [f"CREATE VIEW {own}.{quote(name)} AS {select}" for name, select in views.views(d).items()]
    # Of the relay's tables the views are made with each statement (`sqlworker`), over this one.
    made.append(
        f"CREATE VIEW {own}.relay_rows AS SELECT c.s AS collection, r.key AS key, a.s AS agent, r.pos AS pos,"
        f" {d.value}::json AS value FROM {tables}.rec r JOIN {tables}.name c ON c.id=r.coll"
        f" LEFT JOIN {tables}.name a ON a.id=r.agent WHERE c.s LIKE 'table/%' AND (r.flags & 1) <> 0"
        f" AND r.pos=(SELECT st.pos FROM {tables}.state st WHERE st.agent=r.agent AND st.coll=r.coll AND st.key=r.key"
        " AND st.gone=0)"
    )
    made.append(f"CREATE VIEW {own}.relay_tables AS SELECT s AS collection FROM {tables}.name WHERE s LIKE 'table/%'")
    return ";\n".join(made)


def prepare(connection: Any, database: Database, signer: seal.Signer) -> dict[str, Any]:
    """How the role that only reads the views logs in; makes both where they are not, or not as they must be.

    Args:
        connection: of the hub's own role.
        database: which one it is.
        signer: the hub's key.

    Raises:
        UsageError: the hub's role may not make roles (status 501).
    """
    own = f"{database.schema}_sql"
    made = script(database.schema, own)
    mark = hashlib.sha256(made.encode()).hexdigest()
    where = connection.execute("SELECT oid::int8 FROM pg_database WHERE datname=current_database()").fetchone()[0]
    role = f"{own}_{hashlib.sha256(signer.public_key + str(where).encode()).hexdigest()[:12]}"
    secret = hashlib.sha256(signer.sign(b"hf/sql-role/1\0" + role.encode())).hexdigest()
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock($1)", (_LOCK,))
            found = connection.execute("SELECT obj_description(to_regnamespace($1), 'pg_namespace')", (own,)).fetchone()
            if found[0] != mark:
                _run(connection, f"{made};\nCOMMENT ON SCHEMA {own} IS '{mark}'")
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname=$1", (role,)).fetchone() is None:
                _make_role(connection, role, secret, own)
            _run(
                connection,
                f"GRANT USAGE ON SCHEMA {own} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {own} TO {role}",
            )
    except database.driver.errors.InsufficientPrivilege as error:
        wrong = UsageError(
            f"SQL needs a role of its own, and the hub's may not make one: {str(error).splitlines()[0]}",
            hint="ALTER ROLE <the hub's> CREATEROLE, or do without SQL",
        )
        wrong.status = 501
        raise wrong from error
    given = {name: value for name, value in database.given.items() if name not in ("user", "password", "options")}
    return {
        **given,
        "user": role,
        "password": secret,
        "application_name": "holdfast-sql",
        "target_session_attrs": "primary",
    }


def _make_role(connection: Any, role: str, secret: str, own: str) -> None:
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION CONNECTION LIMIT 32"
    _run(connection, f"CREATE ROLE {role} {rights} PASSWORD '{secret}'")
    for name, value in {**_SETTINGS, "search_path": own}.items():
        _run(connection, f"ALTER ROLE {role} SET {name} = {value}")
    for name, value in _IF_IT_MAY.items():
        try:
            with connection.transaction():
                _run(connection, f"ALTER ROLE {role} SET {name} = {value}")
        except Exception as error:
            if not hasattr(error, "sqlstate"):
                raise


def _run(connection: Any, sql: str) -> None:
    connection.execute(sql.encode())
