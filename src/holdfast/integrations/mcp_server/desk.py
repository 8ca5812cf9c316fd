"""What one agent's assistants work at: the graph, the memories, the files and the mail of its store."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Self

from holdfast.hub.principal import ANYBODY, Principal
from holdfast.integrations.mcp_server import artifacts, graph, memories
from holdfast.integrations.mcp_server.artifacts import Artifacts
from holdfast.integrations.mcp_server.graph import Graph
from holdfast.integrations.mcp_server.memories import Memories
from holdfast.integrations.mcp_server.reach import Line
from holdfast.integrations.mcp_server.shared import Shared
from holdfast.node.store import Store

ALIASES = {"memory": memories.COLLECTION, "graph": graph.COLLECTION, "artifacts": artifacts.COLLECTION}
"""What assistants call the collections that are theirs."""


class Desk:
    """An agent's, over its open store. Safe to share among threads.

    Args:
        store: the agent's; whoever opened it closes it.

    Attributes:
        who: who sits at it, which decides what is shown.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.line = Line(store)
        self.graph = Graph(Shared(self.line, graph.COLLECTION))
        self.memories = Memories(Shared(self.line, memories.COLLECTION), self.graph)
        self.artifacts = Artifacts(Shared(self.line, artifacts.COLLECTION))
        self.who: Principal = ANYBODY

    @property
    def agent(self) -> str:
        """In whose name it is written."""
        return self.store.agent

    def seen_by(self, who: Principal) -> Self:
        """The same desk with somebody else at it."""
        made = copy.copy(self)
        made.who = who
        return made


class Desks:
    """A desk for each agent that writes through one server; opened when its first client comes.

    Args:
        opened: opens an agent's store.
        agent: whose desk it is where nobody says whose.
    """

    def __init__(self, opened: Callable[[str], Store], agent: str) -> None:
        self._opened = opened
        self._lock = threading.Lock()  # guards _desks
        self._desks: dict[str, Desk] = {}
        self.agent = agent

    def desk(self, agent: str = "") -> Desk:
        """An agent's desk."""
        name = agent or self.agent
        with self._lock:
            if name not in self._desks:
                self._desks[name] = Desk(self._opened(name))
            return self._desks[name]

    def close(self) -> None:
        """Closes every store; a second close is fine."""
        with self._lock:
            desks, self._desks = list(self._desks.values()), {}
        for each in desks:
            each.store.close()
