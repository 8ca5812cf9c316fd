"""Tokens in a hub's PostgreSQL database: shared by all processes of that hub, and made and revoked from anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from holdfast.corpus.postgres import Database, PostgresEngine
from holdfast.corpus.postgres.door import translate
from holdfast.errors import NoStore
from holdfast.hub.acts import ActStore, DatabaseActs
from holdfast.hub.sign_ins import DatabaseSignIns, SignInStore
from holdfast.hub.tokens import Token, TokenStore, packed, unpacked


class DatabaseTokens(TokenStore):
    """Tokens in tables beside the corpus; they take no turn there, as nothing in the corpus depends on them.

    Args:
        engine: the open database; its owner closes it.
    """

    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine

    def add(self, token: Token) -> None:
        values = [packed(value) for value in msgspec.structs.astuple(token)]
        with self._writing() as execute:
            execute(f"INSERT INTO token VALUES({','.join('?' * len(values))})", values)
            execute("UPDATE token_change SET number=number+1", ())

    def find(self, token_id: str) -> Token | None:
        row = self._engine.one("SELECT * FROM token WHERE id=?", (token_id,))
        return unpacked(row) if row else None

    def every(self) -> list[Token]:
        return [unpacked(row) for row in self._engine.query("SELECT * FROM token ORDER BY made_ms, id")]

    def revoke(self, token_id: str, now_ms: int) -> bool:
        with self._writing() as execute:
            sql = "UPDATE token SET revoked_ms=? WHERE id=? AND revoked_ms IS NULL"
            done = execute(sql, (now_ms, token_id)).rowcount > 0
            if done:
                execute("UPDATE token_change SET number=number+1", ())
        return bool(done)

    def used(self, times: Mapping[str, int]) -> None:
        rows = sorted(dict(times).items())  # a copy, as the loop may still write to it; in one order, against deadlocks
        with self._writing() as execute:
            for token_id, ms in rows:
                execute("UPDATE token SET used_ms=greatest(coalesce(used_ms,0),?) WHERE id=?", (ms, token_id))

    def changes(self) -> tuple[int, bool]:
        number, any_ = self._engine.one("SELECT number, EXISTS(SELECT 1 FROM token) FROM token_change")
        return int(number), bool(any_)

    def sign_ins(self) -> SignInStore:
        return DatabaseSignIns(self._engine, self._writing)

    def acts(self) -> ActStore:
        return DatabaseActs(self._engine, self._writing)

    def close(self) -> None:
        pass

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Callable[..., Any]]:
        """What runs statements in one transaction, committed when the block ends."""
        with self._engine.reader() as connection, connection.transaction():
            yield lambda sql, values: connection.execute(translate(sql), values)


@contextlib.contextmanager
def tokens_of(database: str, *, make: bool = True) -> Iterator[DatabaseTokens]:
    """The tokens of the hub in a database, for as long as the block lasts.

    Args:
        database: its address.
        make: whether a hub's tables are made there if there are none.

    Raises:
        HubUnavailable: it cannot be reached.
        MissingExtra: psycopg is not installed.
        NoStore: there is no hub there, and none is to be made.
        UsageError: not an address, or a database that cannot hold a hub.
    """
    where = Database(database)
    if not make:
        connection, facts = where.connect()
        connection.close()
        if not facts.has_tables:
            raise NoStore(f"no hub in the database {where.name}", hint="--database URL, as for holdfast serve")
    engine = PostgresEngine(where)
    try:
        yield DatabaseTokens(engine)
    finally:
        engine.close()
