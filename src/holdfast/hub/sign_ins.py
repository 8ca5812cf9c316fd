"""Who has signed in to the pages of a hub, and the links that let somebody sign in once.

Both stand for a token: they end when it does, may what it may, and are kept beside it, as the digest of a secret. Each
that ends early counts as a change of tokens, so that every process of a hub forgets it within a second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.corpus.engine import Engine

Kind = Literal["link", "session"]
SESSION_MS: Final = 7 * 86_400_000
OPERATOR: Final = "operator:"
"""A sign-in with the token that the hub was started with names that token's digest behind this."""
_COLUMNS: Final = "digest, kind, token, made_ms, ends_ms"
_FIND: Final = f"SELECT {_COLUMNS} FROM sign_in WHERE digest=? AND kind=?"


class SignIn(msgspec.Struct, frozen=True):
    """A link that was not used yet, or a session; times are ms since 1970."""

    digest: bytes
    kind: Kind
    token: str
    made_ms: int
    ends_ms: int


class SignInStore(Protocol):
    """Where they lie. Safe to share among threads; several processes may have it open."""

    def add(self, made: SignIn) -> None:
        """Keeps a new one, and forgets those that ended before it was made."""
        ...

    def find(self, digest: bytes, kind: Kind) -> SignIn | None:
        """The one with this digest, also if it has ended."""
        ...

    def take(self, digest: bytes, kind: Kind) -> SignIn | None:
        """Ends the one with this digest; of several who ask at once, one gets it."""
        ...


class NoSignIns(SignInStore):
    """Of a hub that keeps no tokens."""

    def add(self, made: SignIn) -> None:
        raise UsageError("this hub keeps no tokens, so nobody can sign in")

    def find(self, digest: bytes, kind: Kind) -> SignIn | None:
        return None

    def take(self, digest: bytes, kind: Kind) -> SignIn | None:
        return None


class SqliteSignIns(SignInStore):
    """Those of a hub's directory, beside its tokens.

    Args:
        engine: of the tokens; its owner closes it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, made: SignIn) -> None:
        def job(_: Any) -> None:
            self._engine.writer_execute("DELETE FROM sign_in WHERE ends_ms<=?", (made.made_ms,))
            self._engine.writer_execute("INSERT INTO sign_in VALUES(?,?,?,?,?)", msgspec.structs.astuple(made))

        self._engine.commits.run(job)

    def find(self, digest: bytes, kind: Kind) -> SignIn | None:
        row = self._engine.one(_FIND, (digest, kind))
        return SignIn(*row) if row else None

    def take(self, digest: bytes, kind: Kind) -> SignIn | None:
        def job(_: Any) -> SignIn | None:
            sql = f"DELETE FROM sign_in WHERE digest=? AND kind=? RETURNING {_COLUMNS}"
            rows = list(self._engine.writer_execute(sql, (digest, kind)))
            if rows:
                self._engine.writer_execute("UPDATE change SET number=number+1")
            return SignIn(*rows[0]) if rows else None

        found: SignIn | None = self._engine.commits.run(job)
        return found


class DatabaseSignIns(SignInStore):
    """Those of a hub in a database, beside its tokens.

    Args:
        engine: of the database; its owner closes it.
        writing: what runs statements in one transaction.
    """

    def __init__(self, engine: Any, writing: Callable[[], AbstractContextManager[Callable[..., Any]]]) -> None:
        self._engine = engine
        self._writing = writing

    def add(self, made: SignIn) -> None:
        with self._writing() as execute:
            execute("DELETE FROM sign_in WHERE ends_ms<=?", (made.made_ms,))
            execute("INSERT INTO sign_in VALUES(?,?,?,?,?)", msgspec.structs.astuple(made))

    def find(self, digest: bytes, kind: Kind) -> SignIn | None:
        row = self._engine.one(_FIND, (digest, kind))
        return SignIn(bytes(row[0]), *row[1:]) if row else None

    def take(self, digest: bytes, kind: Kind) -> SignIn | None:
        with self._writing() as execute:
            sql = f"DELETE FROM sign_in WHERE digest=? AND kind=? RETURNING {_COLUMNS}"
            row = execute(sql, (digest, kind)).fetchone()
            if row:
                execute("UPDATE token_change SET number=number+1", ())
        return SignIn(bytes(row[0]), *row[1:]) if row else None


def digest_of(secret: str) -> bytes:
    """What is stored of a secret of 256 random bits."""
    return hashlib.sha256(b"hf/sign-in/1\0" + secret.encode("utf-8", "replace")).digest()
