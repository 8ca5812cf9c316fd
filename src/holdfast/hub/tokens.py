"""Tokens: who may ask a hub, and what he may do. Made once, shown once, stored as a hash, revoked at any time.

A token reads ``hf_<kind>_<id>_<secret>_<check>``: the kind for people, the id for finding it, 32 random bytes, and a
CRC-32 of all that, by which a scanner tells a leaked token from a word and the hub a torn one from a wrong one. The
file holds the SHA-256 of the secret: with 256 random bits there is nothing for a slow hash to slow down (ADR 0017).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from holdfast.clock import SYSTEM, Clock, iso
from holdfast.corpus.engine import Engine
from holdfast.errors import HoldfastError, NotFound, UsageError
from holdfast.hub import acts
from holdfast.hub.acts import Act, Actor, ActStore, SqliteActs
from holdfast.hub.principal import ADMIN, APPEND, FOR_EVER, INBOX, READ, SCOPES, WRITE, Kind, Principal
from holdfast.hub.sign_ins import SignInStore, SqliteSignIns
from holdfast.hub.token_text import TEXT_MAX, digest_of, join, new_id, new_secret, split
from holdfast.records import PUT, check_names

KINDS: Final = ("node", "agent", "service", "person")
USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "node": (READ, WRITE, APPEND),
    "agent": (READ, WRITE, APPEND),
    "service": (READ,),
    "person": (READ, INBOX),
}
"""The scopes of a token that was made without any."""
GLOBS_MAX: Final = 64
KNOWN_MAX: Final = 10_000
_FILE: Final = "auth.db"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token as it is kept: everything but its secret. Times are ms since 1970, None means never.

    Attributes:
        id: what it is called by in lists and in `revoke`.
        digest: SHA-256 of its secret.
        kind, name, scopes, agents, collections: see `Principal`.
        note: what for, in its maker's words.
        made_ms, ends_ms, revoked_ms: when it was made, ends by itself, was revoked.
        used_ms: when it was last shown, to the minute.
    """

    id: str
    digest: bytes
    kind: Kind
    name: str
    scopes: tuple[str, ...]
    agents: tuple[str, ...]
    collections: tuple[str, ...]
    note: str
    made_ms: int
    ends_ms: int | None = None
    revoked_ms: int | None = None
    used_ms: int | None = None

    def state(self, now_ms: int) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if self.revoked_ms is not None:
            return "revoked"
        return "expired" if self.ends_ms is not None and self.ends_ms <= now_ms else "valid"

    @property
    def principal(self) -> Principal:
        """Who shows it."""
        return Principal(
            kind=self.kind,
            name=self.name,
            id=self.id,
            scopes=frozenset(self.scopes),
            agents=self.agents,
            collections=self.collections,
            ends_ms=self.ends_ms or FOR_EVER,
        )


class TokenStore(Protocol):
    """Where tokens lie. Safe to share among threads; several processes may have it open."""

    def add(self, token: Token) -> None:
        """Keeps a new token; durable when it returns."""
        ...

    def find(self, token_id: str) -> Token | None:
        """The token with this id."""
        ...

    def every(self) -> list[Token]:
        """All tokens ever made, oldest first."""
        ...

    def revoke(self, token_id: str, now_ms: int) -> bool:
        """Ends a token for good, durably; False if it had ended so before."""
        ...

    def used(self, times: Mapping[str, int]) -> None:
        """Notes when tokens were last shown; need not survive a power cut."""
        ...

    def changes(self) -> tuple[int, bool]:
        """A number that grows with each token made or revoked, by whatever process; and whether there ever was one."""
        ...

    def sign_ins(self) -> SignInStore:
        """Where sign-ins with them lie."""
        ...

    def acts(self) -> ActStore:
        """Where it is kept who did what to this hub."""
        ...

    def close(self) -> None:
        """Closes it; a second close is fine."""
        ...


class SqliteTokens(TokenStore):
    """Tokens in ``auth.db`` beside a hub's corpus.

    Args:
        directory: the hub's; it exists.
    """

    def __init__(self, directory: Path) -> None:
        self._engine = Engine(directory / _FILE, roles=("auth",), full=True, cache_kib=64)

    def add(self, token: Token) -> None:
        values = [packed(value) for value in msgspec.structs.astuple(token)]

        def job(_: Any) -> None:
            self._engine.writer_execute(f"INSERT INTO token VALUES({','.join('?' * len(values))})", values)
            self._engine.writer_execute("UPDATE change SET number=number+1")

        self._engine.commits.run(job)

    def find(self, token_id: str) -> Token | None:
        row = self._engine.one("SELECT * FROM token WHERE id=?", (token_id,))
        return unpacked(row) if row else None

    def every(self) -> list[Token]:
        return [unpacked(row) for row in self._engine.query("SELECT * FROM token ORDER BY made_ms, id")]

    def revoke(self, token_id: str, now_ms: int) -> bool:
        def job(_: Any) -> bool:
            sql = "UPDATE token SET revoked_ms=? WHERE id=? AND revoked_ms IS NULL RETURNING 1"
            done = self._engine.writer_execute(sql, (now_ms, token_id)).fetchone() is not None
            self._engine.writer_execute("UPDATE change SET number=number+?", (int(done),))
            return done

        found: bool = self._engine.commits.run(job)
        return found

    def used(self, times: Mapping[str, int]) -> None:
        rows = [(ms, token_id) for token_id, ms in dict(times).items()]  # a copy: the loop may still write to it

        def job(_: Any) -> None:
            for row in rows:
                self._engine.writer_execute("UPDATE token SET used_ms=max(coalesce(used_ms,0),?) WHERE id=?", row)

        self._engine.commits.run(job)

    def changes(self) -> tuple[int, bool]:
        number, any_ = self._engine.one("SELECT number, EXISTS(SELECT 1 FROM token) FROM change")
        return number, bool(any_)

    def sign_ins(self) -> SignInStore:
        return SqliteSignIns(self._engine)

    def acts(self) -> ActStore:
        return SqliteActs(self._engine)

    def close(self) -> None:
        self._engine.close()


def has_tokens(directory: Path) -> bool:
    """Whether tokens were ever made for the hub of a directory."""
    if not (directory / _FILE).exists():
        return False
    store = SqliteTokens(directory)
    try:
        return store.changes()[1]
    finally:
        store.close()


class Tokens:
    """What a running hub asks about tokens. Safe to share among threads; `known` is the event loop's.

    Args:
        store: where they lie.
        wall: the clock.
    """

    def __init__(self, store: TokenStore, wall: Clock = SYSTEM) -> None:
        self._store = store
        self._wall = wall
        self._used: dict[str, int] = {}
        self._known: dict[bytes, Principal] = {}
        self._change, self.in_force = store.changes()

    def known(self, shown: bytes) -> Principal | None:
        """Who shows this text, if that was found out before and still holds; costs two microseconds.

        Args:
            shown: the token's text.
        """
        found = self._known.get(hashlib.sha256(shown).digest())
        if found is None or found.ends_ms <= (now := self._wall.now_ms()):
            return None
        self._used[found.id] = now
        return found

    def look(self, shown: bytes) -> Principal | None:
        """Who shows this text; None if no valid token reads so. Asks the store: for threads."""
        parts = split(shown.decode("ascii", "replace"))
        if parts is None:
            return None
        kind, token_id, secret = parts
        change = self._change
        found = self._store.find(token_id)
        # Compared also where there is none: how long it takes must not say which ids exist.
        same = hmac.compare_digest(digest_of(secret), found.digest if found else bytes(32))
        now = self._wall.now_ms()
        if found is None or not same or found.kind != kind or found.state(now) != "valid":
            return None
        principal = found.principal
        if change == self._change:  # else it may be what a revocation has just ended
            if len(self._known) >= KNOWN_MAX:
                self._known = {}
            self._known[hashlib.sha256(shown).digest()] = principal
        self._used[token_id] = now
        return principal

    def refresh(self) -> bool:
        """Forgets what may not hold any more; True if a token was made or revoked since. For threads."""
        change, self.in_force = self._store.changes()
        if change == self._change:
            return False
        self._change = change
        self._known = {}
        return True

    def holds(self, principal: Principal) -> bool:
        """Whether the token that made somebody known is still valid. For threads."""
        found = self._store.find(principal.id)
        return found is not None and found.state(self._wall.now_ms()) == "valid"

    def by_id(self, token_id: str) -> Principal | None:
        """Whose valid token has this id; for whoever signed in with it. For threads."""
        found = self._store.find(token_id)
        now = self._wall.now_ms()
        if found is None or found.state(now) != "valid":
            return None
        self._used[token_id] = now
        return found.principal

    def unused_by_nodes(self) -> list[Token]:
        """The valid tokens of nodes that none has shown yet. For threads."""
        now = self._wall.now_ms()
        every = self._store.every()
        return [
            each
            for each in every
            if each.kind == "node" and each.used_ms is None and each.id not in self._used and each.state(now) == "valid"
        ]

    @property
    def change(self) -> int:
        """A number that is another one when a token or a sign-in may have ended."""
        return self._change

    def every(self) -> list[Token]:
        """All tokens ever made, oldest first. For threads."""
        return self._store.every()

    def make(self, wish: Wish, by: Actor) -> tuple[Token, str]:
        """A new token, stored, and its text; see `create`. For threads."""
        return create(self._store, wish, self._wall, by=by)

    def end(self, token_id: str, by: Actor) -> tuple[Token, bool]:
        """Ends a token for good; see `revoke`. For threads."""
        return revoke(self._store, token_id, self._wall, by=by)

    def sign_ins(self) -> SignInStore:
        """Where sign-ins lie."""
        return self._store.sign_ins()

    def acts(self) -> ActStore:
        """Where it is kept who did what to this hub."""
        return self._store.acts()

    def keep(self) -> None:
        """Writes down when tokens were last shown. For threads."""
        used, self._used = self._used, {}
        if used:
            self._store.used(used)

    def close(self) -> None:
        """Keeps what is to be kept, and closes the store; a second close is fine."""
        with contextlib.suppress(HoldfastError):  # when they were last shown is not worth a failed stop
            self.keep()
        self._store.close()


# -- making, listing, revoking ----------------------------------------------------------------------------------


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A token that somebody wants made; empty tuples mean the usual ones of its kind."""

    kind: str
    name: str
    scopes: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    collections: tuple[str, ...] = ("*",)
    ends_ms: int | None = None
    note: str = ""


def create(store: TokenStore, wish: Wish, wall: Clock = SYSTEM, *, by: Actor | None = None) -> tuple[Token, str]:
    """A new token, stored, and its text, which is nowhere else.

    Args:
        store: where it is to lie.
        wish: what it is to be.
        wall: the clock.
        by: who makes it; None: the account that this runs under.

    Raises:
        UsageError: a kind, name, scope or glob that cannot be, or an end in the past.
    """
    now = wall.now_ms()
    token, secret = _made(wish, now), new_secret()
    token = msgspec.structs.replace(token, digest=digest_of(secret))
    store.add(token)
    acts.tell(store.acts(), _token_act(acts.TOKEN, token, by), wall)
    return token, join(token.kind, token.id, secret)


def revoke(store: TokenStore, token_id: str, wall: Clock = SYSTEM, *, by: Actor | None = None) -> tuple[Token, bool]:
    """Ends the token with this id (or whose text this is); the token, and whether it was still to be ended.

    Args:
        store: where it lies.
        token_id: its id, or its text.
        wall: the clock.
        by: who ends it; None: the account that this runs under.

    Raises:
        NotFound: there is no such token.
    """
    parts = split(token_id)
    wanted = parts[1] if parts else token_id
    if store.find(wanted) is None:
        # Not what was typed: it may be half a secret.
        raise NotFound("this hub has no token with that id", hint="holdfast token ls shows them")
    done = store.revoke(wanted, wall.now_ms())
    found = store.find(wanted)
    assert found is not None
    if done:
        acts.tell(store.acts(), _token_act(acts.REVOKED, found, by), wall)
    return found, done


def adopt(store: TokenStore, tokens: Sequence[Token]) -> tuple[int, int]:
    """Takes over tokens of another hub, without their secrets, which are nowhere: how many were new, and how many of
    those that were here are revoked now. Those that are here stay as they are otherwise; again changes nothing.

    Raises:
        UsageError: one is not as a token must be; those before it were taken.
    """
    new = ended = 0
    for token in tokens:
        if len(token.digest) != 32 or token.kind not in KINDS or not set(token.scopes) <= set(SCOPES):
            raise UsageError(f"not a token as export writes it: {token.id!r:.80}", hint="holdfast token export")
        for glob in (*token.agents, *token.collections):
            check_glob(glob)
        if store.find(token.id) is None:
            store.add(token)
            new += 1
        elif token.revoked_ms is not None:
            ended += store.revoke(token.id, token.revoked_ms)
    if new or ended:
        detail = {"new": str(new), "revoked": str(ended)}
        acts.tell(
            store.acts(), Act(by=acts.by_machine(), what=acts.IMPORTED, about="tokens of another hub", detail=detail)
        )
    return new, ended


def _token_act(what: str, token: Token, by: Actor | None) -> Act:
    detail = {"id": token.id, "kind": token.kind, "name": token.name, "scopes": ", ".join(token.scopes)}
    if token.ends_ms is not None:
        detail["ends"] = iso(token.ends_ms)
    return Act(by=by or acts.by_machine(), what=what, about=f"{token.kind} {token.name}", detail=detail)


def _made(wish: Wish, now: int) -> Token:
    kind = wish.kind
    if kind not in KINDS:
        raise UsageError(f"unknown kind {kind!r:.80}", hint=f"one of {', '.join(KINDS)}")
    scopes = tuple(wish.scopes or USUAL[kind])
    if wish.agents and not wish.scopes and WRITE not in scopes:
        scopes += (WRITE,)  # who is told in whose names is to write
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise UsageError(f"unknown scope {unknown[0]!r:.80}", hint=f"known are {', '.join(SCOPES)}")
    check_names(PUT, "", "", wish.name)
    if not wish.name or len(wish.note) > TEXT_MAX:
        raise UsageError("a token needs a name, and a note of at most 200 letters", hint="such as 'recruiter-1'")
    writes = bool({WRITE, APPEND} & set(scopes)) and ADMIN not in scopes
    agents = wish.agents
    if kind == "agent":
        if agents or ADMIN in scopes:
            what = "other names" if agents else "the scope admin, which writes in every name"
            raise UsageError(
                f"an agent's token writes as {wish.name} alone, and takes no {what}",
                hint="a node's or a service's token takes --agent",
            )
        if any(char in wish.name for char in "*?["):
            raise UsageError(f"{wish.name!r:.80} is a glob, and no agent's name", hint="--agent of a node's token")
        agents = (wish.name,)
    elif writes and not agents:
        raise UsageError(
            f"it is not said which agents this {kind} may write as",
            hint="--agent 'recruiter-*', repeated for several; --agent '*' for all of them",
        )
    if ADMIN in scopes:
        if wish.collections != ("*",) or wish.agents:
            raise UsageError("the scope admin knows no bounds", hint="name the scopes that it needs instead")
        agents = ("*",)
    for glob in (*agents, *wish.collections):
        check_glob(glob)
    if not wish.collections or max(len(agents), len(wish.collections)) > GLOBS_MAX:
        raise UsageError(f"a token names 1 to {GLOBS_MAX} collections and agents", hint="'*' is all of them")
    if wish.ends_ms is not None and wish.ends_ms <= now:
        raise UsageError("it would end in the past", hint="--expires 90d, or a date to come")
    return Token(
        id=new_id(),
        digest=b"",
        kind=kind,  # type: ignore[arg-type]
        name=wish.name,
        scopes=tuple(sorted(set(scopes))),
        agents=tuple(agents),
        collections=tuple(wish.collections),
        note=wish.note,
        made_ms=now,
        ends_ms=wish.ends_ms,
    )


def check_glob(glob: str) -> str:
    """The glob, if it is one: ``*`` stands for anything, ``?`` for one letter, everything else for itself.

    Raises:
        UsageError: it is empty, too long, or uses brackets (which databases read in different ways).
    """
    if not glob or len(glob) > TEXT_MAX or "[" in glob or not glob.isprintable():
        raise UsageError(f"not a glob: {glob!r:.80}", hint="such as 'recruiter-*'; only * and ? are special")
    return glob


def packed(value: Any) -> Any:
    """A token's field as a column holds it."""
    return msgspec.json.encode(value).decode() if isinstance(value, tuple) else value


def unpacked(row: Sequence[Any]) -> Token:
    """The token in a row, whose columns are its fields in their order."""
    lists = (tuple(msgspec.json.decode(each)) for each in row[4:7])
    return Token(**dict(zip(Token.__struct_fields__, (*row[:4], *lists, *row[7:]), strict=True)))
