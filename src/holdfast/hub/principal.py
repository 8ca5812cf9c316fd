"""Who asks, and what he may do: the one place that says yes or no.

Every request has a principal, put into its scope by the door. A hub without tokens listens on its own machine only and
knows nobody: then everybody is `ANYBODY`, who may do everything.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from holdfast.corpus.port import fits
from holdfast.errors import Denied, NotFound, Unauthenticated
from holdfast.hub.exchange import Scope

Kind = Literal["node", "agent", "service", "person", "anybody"]

READ: Final = "records:read"
"""Everything that shows records: values, messages, sessions, the feed, search, files."""
WRITE: Final = "records:write"
"""What plain clients write: messages, rows, sessions, files, decisions, the cache."""
APPEND: Final = "records:append"
"""What nodes ship: signed records of their agents, and the blobs that these name."""
SQL: Final = "sql:read"
INBOX: Final = "inbox:act"
METRICS: Final = "metrics:read"
ADMIN: Final = "admin"
"""All of the others, in every agent's name, and the tokens."""
SCOPES: Final = (READ, WRITE, APPEND, SQL, INBOX, METRICS, ADMIN)

FOR_EVER: Final = 1 << 62

_PLACE: Final = "holdfast.principal"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """One who asks.

    Attributes:
        kind: what it is.
        name: its name; for an agent, the only one that it may write as.
        id: of its token; empty for whoever needs none.
        scopes: what it may do at all.
        agents: globs of the agents that it may write as.
        collections: globs of the collections that it may read and write.
        ends_ms: when its token ends, in ms since 1970.
    """

    kind: Kind
    name: str
    id: str = ""
    scopes: frozenset[str] = frozenset()
    agents: tuple[str, ...] = ("*",)
    collections: tuple[str, ...] = ("*",)
    ends_ms: int = FOR_EVER

    def may(self, scope: str) -> bool:
        """Whether it has a scope; an empty one has everybody."""
        return not scope or scope in self.scopes or ADMIN in self.scopes

    def need(self, scope: str) -> None:
        """Returns only if it has the scope.

        Raises:
            Unauthenticated: nobody known asks.
            Denied: it has not.
        """
        if not self.may(scope):
            if self is NOBODY:
                raise Unauthenticated("this hub wants a token", hint="send it as: Authorization: Bearer <token>")
            if self is STRANGER:
                raise Unauthenticated("this hub does not know that token", hint="is it another hub's, or revoked?")
            raise Denied(
                f"{self} may not do this: it needs the scope {scope}", hint="ask for a token that has it", scope=scope
            )

    @property
    def writes_everything(self) -> bool:
        """Whether it may write every collection in every agent's name."""
        return ADMIN in self.scopes or ("*" in self.agents and "*" in self.collections)

    def writes_as(self, agent: str) -> bool:
        """Whether it may write in this agent's name at all."""
        return ADMIN in self.scopes or fits(agent, self.agents)

    def may_write(self, agent: str, collection: str) -> bool:
        """Whether it may write this collection in this agent's name."""
        return ADMIN in self.scopes or (fits(agent, self.agents) and fits(collection, self.collections))

    def check_write(self, agent: str | None, collection: str) -> None:
        """Returns only if it may write this collection in this agent's name.

        Args:
            agent: whose; None where what is written is no agent's, or before it is known whose.
            collection: its name.

        Raises:
            Denied: it may not.
        """
        if ADMIN in self.scopes:
            return
        if agent is None or fits(agent, self.agents):
            if fits(collection, self.collections):
                return
        else:
            raise Denied(f"{self} may not write as the agent {agent!r:.80}", hint="each agent has its own token")
        raise Denied(f"{self} may not write to {collection!r:.80}", hint="its token names other collections")

    def check_change(self, agent: str, collection: str, absent: NotFound) -> None:
        """Returns only if it may change what is there in this agent's name; who may not read is told it is not there.

        Raises:
            Denied: it may not, and might read it.
            NotFound: `absent`.
        """
        if not self.may(READ) and not self.may_write(agent, collection):
            raise absent
        self.check_write(agent, collection)

    @property
    def reads_everything(self) -> bool:
        """Whether no record is hidden from it."""
        return "*" in self.collections or ADMIN in self.scopes

    @property
    def readable(self) -> tuple[str, ...]:
        """Globs of the collections whose records are shown to it; empty: all of them."""
        return () if self.reads_everything else self.collections

    def need_everything(self) -> None:
        """Returns only if no record is hidden from it.

        Raises:
            Denied: some are.
        """
        if not self.reads_everything:
            raise Denied(f"{self} may not read everything", hint="its token names some collections only")

    def may_read(self, collection: str) -> bool:
        """Whether the records of this collection are shown to it."""
        return self.reads_everything or fits(collection, self.collections)

    def check_read(self, collection: str) -> None:
        """Returns only if the records of this collection are shown to it.

        Raises:
            Denied: they are not.
        """
        if not self.may_read(collection):
            raise Denied(f"{self} may not read {collection!r:.80}", hint="its token names other collections")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


ANYBODY: Final = Principal(kind="anybody", name="", scopes=frozenset({ADMIN}))
"""Whoever asks a hub without tokens."""
OPERATOR: Final = Principal(kind="person", name="operator", scopes=frozenset({ADMIN}))
"""Whoever shows the token that the hub was started with."""
NOBODY: Final = Principal(kind="anybody", name="nobody")
"""Who shows no token where one is wanted: may see what is open to all."""
STRANGER: Final = Principal(kind="anybody", name="stranger")
"""Who shows a token that is not known, or not any more."""


def principal_of(scope: Scope) -> Principal:
    """Who makes this request."""
    found: Any = scope.get(_PLACE, ANYBODY)
    return found  # type: ignore[no-any-return]


def set_principal(scope: Scope, principal: Principal) -> None:
    """The door's own: who makes this request."""
    scope[_PLACE] = principal
