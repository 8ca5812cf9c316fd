"""opencode's sessions: what a row, or a file, of its storage says, and what `opencode import` takes.

Two forms. Of version 1 a message is ``{"info": {…}, "parts": [{…}, …]}``: it lies in the tables `message` and `part`,
or before 1.2 in files of JSON; of version 2 it is one object with a `type`, in the table `session_message`. Both are
kept as the tool's own export has them, so an export is the session's `info` and its messages, in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.cli.transcripts.lines import objects
from holdfast.cli.transcripts.said import Bad, Found, Other, Said, text_of
from holdfast.errors import HoldfastError

_UNNAMED: Final = re.compile(r"(?:New|Child) session - \d{4}-\d\d-\d\dT[\d:.]+Z")
"""What a session is called until the tool has thought of a title."""
_SILENT_2: Final = ("agent-switched", "model-switched", "location-switched", "idle")
_ROLES_2: Final = {"user": "user", "assistant": "assistant", "shell": "user"}
_TOKENS: Final = ("tokens_input", "tokens_output", "tokens_reasoning", "tokens_cache_read", "tokens_cache_write")
_SUMS: Final = {"summary_additions": "additions", "summary_deletions": "deletions", "summary_files": "files"}
_TIMES: Final = ("created", "updated", "compacting", "archived", "idle", "viewed")
_CODED: Final = ("summary_diffs", "metadata", "revert", "permission", "model", "fork_boundary")
_PLAIN_1: Final = {
    # the column -> the field of a session's own export
    **{name: name for name in ("id", "slug", "directory", "path", "title", "version", "agent", "cost")},
    **{"project_id": "projectID", "workspace_id": "workspaceID", "parent_id": "parentID"},
}
_PLAIN_2: Final = {
    **{name: name for name in ("id", "title", "agent", "cost")},
    **{"project_id": "projectID", "parent_id": "parentID", "path": "subpath", "idle_outcome": "outcome"},
}


def read(data: bytes, name: str) -> Iterator[Found]:
    """The messages in kept ones, a message a line.

    Args:
        data: the lines.
        name: the session.
    """
    for found in objects(data):
        if isinstance(found, Bad):
            yield found
            continue
        line, message = found
        said = _said_1(message) if "info" in message else _said_2(message)
        yield Bad(line, said) if isinstance(said, str) else Other(line) if said is None else _at(said, line, name)


def settled(message: Mapping[str, Any]) -> bool:
    """Whether the tool is through with a message: what an assistant still writes is not."""
    if "info" not in message:
        if message.get("type") == "assistant":
            return "completed" in _map(message, "time")
        return message.get("type") not in ("shell", "compaction") or message.get("status") != "running"
    info = _map(message, "info")
    if info.get("role") == "assistant":
        return "completed" in _map(info, "time") or info.get("error") is not None
    return bool(message.get("parts"))


def message_1(id: str, session: str, data: Mapping[str, Any], parts: list[dict[str, Any]]) -> dict[str, Any]:
    """A message of version 1, as an export has it.

    Args:
        id, session: its own, and its session's.
        data: what is stored of it.
        parts: of `part_1`, in their order.
    """
    return {"info": _with({"id": id, "sessionID": session}, data), "parts": parts}


def part_1(id: str, session: str, message: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a message of version 1, as an export has it."""
    return _with({"id": id, "sessionID": session, "messageID": message}, data)


def message_2(id: str, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """A message of version 2, as an export has it."""
    return _with({"id": id, "type": kind}, data)


def about(row: Mapping[str, Any], version: int) -> dict[str, Any]:
    """What is kept of a session's own row: `info`, as an export has it, and in `row` what has no place in that.

    Args:
        row: its columns.
        version: of the form, 1 or 2.
    """
    left = {name: _value(name, value) for name, value in row.items() if value is not None}
    plain = _PLAIN_1 if version == 1 else _PLAIN_2
    info = {field: left.pop(name) for name, field in plain.items() if name in left}
    info["time"] = {name: left.pop(f"time_{name}") for name in _TIMES if f"time_{name}" in left}
    if all(name in left for name in _TOKENS):
        put_in, out, thought, read_, written = (left.pop(name) for name in _TOKENS)
        cache = {"read": read_, "write": written}
        info["tokens"] = {"input": put_in, "output": out, "reasoning": thought, "cache": cache}
    for name in ("metadata", "revert", "model"):
        if name in left:
            info[name] = left.pop(name)
    if "permission" in left:
        info["permission" if version == 1 else "permissions"] = left.pop("permission")
    if version == 1:
        _about_1(info, left)
    else:
        _about_2(info, left)
    return {"info": info, "row": left} if left else {"info": info}


def title(info: Mapping[str, Any]) -> str:
    """What a session is called; empty while it has no name."""
    found = text_of(info.get("title"))
    return "" if _UNNAMED.fullmatch(found) else found


def folder(info: Mapping[str, Any]) -> str:
    """The folder that the agent works in; empty if it is not said."""
    return text_of(info.get("directory")) or text_of(_map(info, "location").get("directory"))


def moment(time: Mapping[str, Any], name: str) -> str:
    """A time of opencode's, which are milliseconds, as text; empty if it is none."""
    ms = time.get(name)
    if not isinstance(ms, int) or isinstance(ms, bool):
        return ""
    try:
        return clock.iso(ms)
    except (HoldfastError, ValueError, OverflowError, OSError):
        return ""


def _about_1(info: dict[str, Any], left: dict[str, Any]) -> None:
    if any(name in left for name in _SUMS):
        info["summary"] = {field: left.pop(name, 0) for name, field in _SUMS.items()}
        if "summary_diffs" in left:
            info["summary"]["diffs"] = left.pop("summary_diffs")
    if "share_url" in left:
        info["share"] = {"url": left.pop("share_url")}


def _about_2(info: dict[str, Any], left: dict[str, Any]) -> None:
    if info.get("subpath") == "":
        del info["subpath"]
    info["location"] = {"directory": left.pop("directory", "")}
    if isinstance(info.get("model"), dict):
        info["model"].setdefault("variant", "default")
    if "workspace_id" in left:
        info["location"]["workspaceID"] = left.pop("workspace_id")
    if "fork_session_id" in left and "fork_boundary" in left:
        info["fork"] = {"sessionID": left.pop("fork_session_id"), "boundary": left.pop("fork_boundary")}


def _with(own: dict[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored, behind what it is known by: as a file the two lie together, in a table they do not."""
    return own | {name: value for name, value in data.items() if name not in own}


def _value(name: str, value: Any) -> Any:
    """A column's value; lists and objects are stored as text."""
    if name in _CODED and isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
    return value.hex() if isinstance(value, bytes) else value


def _map(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _list(value: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = value.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _at(said: Said, line: int, name: str) -> Said:
    return msgspec.structs.replace(said, line=line, thread=said.thread or name)


# -- what is said ---------------------------------------------------------------------------------------------------


def _said_1(message: Mapping[str, Any]) -> Said | str | None:
    info = _map(message, "info")
    role, id = text_of(info.get("role")), text_of(info.get("id"))
    if not role or not id:
        return "a message without id or role"
    body = [block for part in _list(message, "parts") for block in _part(part)]
    error = _map(info, "error")
    if error:
        body.append({"type": "error", "error": error.get("name"), "message": _map(error, "data").get("message")})
    if not body:
        return None
    time = moment(_map(info, "time"), "created")
    kind = "compaction" if info.get("summary") is True else "message"
    return Said(thread=text_of(info.get("sessionID")), place=id, role=role, kind=kind, body=body, time=time)


def _said_2(message: Mapping[str, Any]) -> Said | str | None:
    kind, id = text_of(message.get("type")), text_of(message.get("id"))
    if not kind or not id:
        return "a message without id or type"
    body: list[Any] = []
    if kind == "assistant":
        body = [block for part in _list(message, "content") for block in _part(part)]
        if message.get("error") is not None:
            body.append({"type": "error", "error": message["error"]})
    elif kind == "shell":
        output = message.get("output")
        output = output.get("output") if isinstance(output, dict) else output
        body = [{"type": "shell", "command": message.get("command"), "output": output}]
    elif kind == "compaction":
        body = [{"type": "text", "text": text_of(message.get("summary"))}] if message.get("summary") else []
    elif kind not in _SILENT_2:
        body = [{"type": "text", "text": text_of(message.get("text"))}] if message.get("text") else []
        body += [_file(each) for each in _list(message, "files")]
    if not body:
        return None
    time = moment(_map(message, "time"), "created")
    spoken = "message" if kind in ("user", "assistant", "system") else kind
    return Said(thread="", place=id, role=_ROLES_2.get(kind, "system"), kind=spoken, body=body, time=time)


def _part(part: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a part has to say, of either version; most that only the tool needs says nothing."""
    kind = part.get("type")
    if kind in ("text", "reasoning"):
        if text_of(part.get("text")).strip():
            yield {"type": kind, "text": part["text"]}
    elif kind == "tool":
        yield _call(part)
    elif kind == "file":
        yield _file(part)
    elif kind == "subtask":
        yield {"type": kind, **{name: part.get(name) for name in ("agent", "description", "prompt")}}
    elif kind == "patch":
        yield {"type": kind, "files": part.get("files")}
    elif kind == "retry":
        yield {"type": kind, "error": part.get("error")}


def _call(part: Mapping[str, Any]) -> dict[str, Any]:
    state = _map(part, "state")
    told = {"type": "tool", "tool": part.get("tool") or part.get("name"), "input": state.get("input")}
    output = state.get("output", [each.get("text") for each in _list(state, "content") if each.get("text")])
    told |= {"output": output} if output else {}
    told |= {"error": state["error"]} if state.get("error") is not None else {}
    return told if state.get("status") == "completed" else told | {"status": state.get("status")}


def _file(part: Mapping[str, Any]) -> dict[str, Any]:
    """A file that was handed in: what it is called; its bytes are in the transcript."""
    named = {name: part[name] for name in ("filename", "name", "mime") if part.get(name)}
    where = text_of(part.get("url"))
    return {"type": "file", **named} | ({"url": where} if where and not where.startswith("data:") else {})
