"""The addresses of resources."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from holdfast.errors import NotFound

GRAPH: Final = "memory://knowledge-graph"
"""As the reference memory server names it."""
MEMORIES: Final = "holdfast://memories"
SESSIONS: Final = "holdfast://sessions/"
ARTIFACTS: Final = "holdfast://artifacts/"
FIXED: Final = (GRAPH, MEMORIES)


def artifact_uri(name: str) -> str:
    """The address of a file."""
    return ARTIFACTS + quote(name, safe="/")


def session_uri(session: str) -> str:
    """The address of a session."""
    return SESSIONS + quote(session, safe="")


def meant(uri: str) -> tuple[str, str]:
    """What an address names: one of `FIXED`, `SESSIONS` or `ARTIFACTS`, and of these two which.

    Raises:
        NotFound: nothing has an address like that.
    """
    if uri in FIXED:
        return uri, ""
    for kind in (SESSIONS, ARTIFACTS):
        if uri.startswith(kind) and len(uri) > len(kind):
            return kind, unquote(uri[len(kind) :])
    raise NotFound(f"there is no resource {uri!r:.200}", hint=f"{', '.join(FIXED)}, {SESSIONS}ID or {ARTIFACTS}NAME")
