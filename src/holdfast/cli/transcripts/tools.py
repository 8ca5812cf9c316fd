"""The coding agents whose transcripts are followed: where each keeps them, which files they are, how they are read.

Pure: paths go in as text, relative to the tool's own folder and with slashes, and nothing is looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from holdfast.cli.transcripts import Reader, claude, codex, gemini, opencode, pi
from holdfast.cli.transcripts.said import text_of
from holdfast.errors import UsageError

LINES: Final = "lines"
"""A transcript: one event a line."""
BYTES: Final = "bytes"
"""What lies beside a transcript and is needed to resume it: kept, and not read."""
ROWS: Final = "rows"
"""A session in a database: a message a row, which changes in its place."""
PACKED: Final = ".zst"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_BESIDE = ("subagents", "tool-results", "workflows")


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One coding agent.

    Attributes:
        name: as a user says it.
        variable: of the environment; names the folder in place of the usual one.
        home: the folder below the user's home.
        inside: what stands between the variable's folder and the tool's own; most often nothing.
        places: folders below it that hold transcripts; the first is what a folder of another name stands for.
        read: its reader.
        kind: of a path: lines, bytes, or empty for what is none of ours.
        known_by: what a file is known by, wherever the tool moves it.
        session: the session that a path belongs to; empty if only its lines say so.
        project: a path with its project's folder in place of the one that it has; None: paths name no project.
        stored: whether its sessions lie in a database; then no path is one of its files.
    """

    name: str
    variable: str
    home: str
    inside: str = ""
    places: tuple[str, ...]
    read: Reader
    kind: Callable[[str], str]
    known_by: Callable[[str], str] = str
    session: Callable[[str], str]
    project: Callable[[str, str], str] | None = None
    stored: bool = False


def stem(path: str) -> str:
    """A path's last part without its ending."""
    return path.rpartition("/")[2].removesuffix(PACKED).rpartition(".")[0]


def session_in(event: dict[str, Any]) -> str:
    """The session that a line names, in any tool's way; empty if it names none."""
    payload = event.get("payload")
    if event.get("type") == "session_meta" and isinstance(payload, dict):
        return text_of(payload.get("id"))
    if pi.is_session(event):
        return text_of(event["id"])
    return text_of(event.get("sessionId"))


def parent_in(event: dict[str, Any]) -> str:
    """The session that this one was begun by, or forked from; empty if the line does not say."""
    payload = event.get("payload")
    if event.get("type") == "session_meta" and isinstance(payload, dict):
        found: Any = payload
        for name in ("source", "subagent", "thread_spawn"):
            found = found.get(name) if isinstance(found, dict) else None
        spawned = text_of(found.get("parent_thread_id")) if isinstance(found, dict) else ""
        return spawned or text_of(payload.get("parent_thread_id")) or text_of(payload.get("forked_from_id"))
    forked = event.get("forkedFrom")
    return text_of(forked.get("sessionId")) if isinstance(forked, dict) else ""


def folder_in(event: dict[str, Any]) -> str:
    """The folder that the agent worked in; empty if the line does not say."""
    payload = event.get("payload")
    return text_of(event.get("cwd")) or (text_of(payload.get("cwd")) if isinstance(payload, dict) else "")


# -- Claude Code: projects/<project>/<session>.jsonl, and what belongs to it below <session>/ ----------------------


def _claude_kind(path: str) -> str:
    parts = path.split("/")
    if len(parts) < 3 or parts[0] != "projects":
        return ""
    if parts[-1].endswith(".jsonl"):
        # A workflow's journal is no conversation, and is needed beside those that it tells of.
        return BYTES if parts[-1] == "journal.jsonl" else LINES
    return BYTES if len(parts) > 4 and parts[3] in _BESIDE else ""


def _claude_session(path: str) -> str:
    parts = path.split("/")
    if len(parts) > 4 and parts[3] in _BESIDE:
        return parts[2]
    # The side conversations of older versions lie beside the session; their lines say whose they are.
    return "" if parts[-1].startswith("agent-") else stem(path)


def _claude_project(path: str, folder: str) -> str:
    _, _, rest = path.split("/", 2)
    return f"projects/{re.sub(r'[^A-Za-z0-9]', '-', folder)}/{rest}"


# -- Codex: sessions/<year>/<month>/<day>/rollout-<time>-<id>.jsonl, moved when archived, packed when old ----------


def _codex_kind(path: str) -> str:
    name = path.rpartition("/")[2]
    return LINES if name.startswith("rollout-") and name.removesuffix(PACKED).endswith(".jsonl") else ""


def _codex_known_by(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(PACKED)


def _codex_session(path: str) -> str:
    found = _ID.search(stem(path))
    return found[0] if found else stem(path)


# -- Gemini CLI: tmp/<project>/chats/session-<time>-<id>.jsonl, those of subagents one folder deeper ---------------


def _gemini_kind(path: str) -> str:
    parts = path.split("/")
    chats = len(parts) in (4, 5) and parts[0] == "tmp" and parts[2] == "chats"
    return LINES if chats and parts[-1].endswith(".jsonl") else ""


def _gemini_session(path: str) -> str:
    parts = path.split("/")
    return parts[3] if len(parts) == 5 else ""


# -- pi: sessions/--<folder>--/<time>_<id>.jsonl --------------------------------------------------------------------


def _pi_kind(path: str) -> str:
    return LINES if path.startswith("sessions/") and path.endswith(".jsonl") else ""


def _pi_session(path: str) -> str:
    return stem(path).rpartition("_")[2]


def _pi_project(path: str, folder: str) -> str:
    _, _, rest = path.split("/", 2)
    return f"sessions/--{re.sub(r'[/:]', '-', folder.replace(chr(92), '/').strip('/'))}--/{rest}"


TOOLS: Final = {
    tool.name: tool
    for tool in (
        Tool(
            name="claude-code",
            variable="CLAUDE_CONFIG_DIR",
            home=".claude",
            places=("projects",),
            read=claude.read,
            kind=_claude_kind,
            session=_claude_session,
            project=_claude_project,
        ),
        Tool(
            name="codex",
            variable="CODEX_HOME",
            home=".codex",
            places=("sessions", "archived_sessions"),
            read=codex.read,
            kind=_codex_kind,
            known_by=_codex_known_by,
            session=_codex_session,
        ),
        Tool(
            name="gemini-cli",
            variable="GEMINI_CLI_HOME",
            home=".gemini",
            inside=".gemini",
            places=("tmp",),
            read=gemini.read,
            kind=_gemini_kind,
            session=_gemini_session,
        ),
        Tool(
            name="pi",
            variable="PI_CODING_AGENT_DIR",
            home=".pi/agent",
            places=("sessions",),
            read=pi.read,
            kind=_pi_kind,
            session=_pi_session,
            project=_pi_project,
        ),
        Tool(
            name="opencode",
            variable="XDG_DATA_HOME",
            home=".local/share/opencode",
            inside="opencode",
            places=("storage",),
            read=opencode.read,
            kind=lambda path: "",
            session=stem,
            stored=True,
        ),
    )
}


def tool_named(name: str) -> Tool:
    """The tool of a name.

    Raises:
        UsageError: there is none.
    """
    try:
        return TOOLS[name]
    except KeyError:
        raise UsageError(f"no tool is called {name!r:.60}", hint=", ".join(TOOLS)) from None


def digest(*words: str) -> str:
    """Twenty letters that stand for these words."""
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()[:20]
