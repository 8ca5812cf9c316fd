"""An opencode of our own: it writes what opencode writes, after its public schema, and takes its exports as it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw

START_MS = 1_767_700_000_000
V1 = """
CREATE TABLE project (id text PRIMARY KEY, worktree text NOT NULL, vcs text, name text, icon_url text, icon_color text,
    time_created integer NOT NULL, time_updated integer NOT NULL, time_initialized integer, sandboxes text NOT NULL);
CREATE TABLE session (id text PRIMARY KEY, project_id text NOT NULL, parent_id text, slug text NOT NULL,
    directory text NOT NULL, title text NOT NULL, version text NOT NULL, share_url text, summary_additions integer,
    summary_deletions integer, summary_files integer, summary_diffs text, revert text, permission text,
    time_created integer NOT NULL, time_updated integer NOT NULL, time_compacting integer, time_archived integer,
    workspace_id text, path text, agent text, model text, cost real DEFAULT 0 NOT NULL,
    CONSTRAINT fk FOREIGN KEY (project_id) REFERENCES project(id) ON DELETE CASCADE);
CREATE TABLE message (id text PRIMARY KEY, session_id text NOT NULL, time_created integer NOT NULL,
    time_updated integer NOT NULL, data text NOT NULL,
    CONSTRAINT fk FOREIGN KEY (session_id) REFERENCES session(id) ON DELETE CASCADE);
CREATE TABLE part (id text PRIMARY KEY, message_id text NOT NULL, session_id text NOT NULL,
    time_created integer NOT NULL, time_updated integer NOT NULL, data text NOT NULL,
    CONSTRAINT fk FOREIGN KEY (message_id) REFERENCES message(id) ON DELETE CASCADE);
CREATE TABLE todo (session_id text NOT NULL, content text NOT NULL, status text NOT NULL, priority text NOT NULL,
    position integer NOT NULL, time_created integer NOT NULL, time_updated integer NOT NULL,
    CONSTRAINT pk PRIMARY KEY (session_id, position),
    CONSTRAINT fk FOREIGN KEY (session_id) REFERENCES session(id) ON DELETE CASCADE);
CREATE INDEX message_session_time_created_id_idx ON message (session_id, time_created, id);
CREATE INDEX part_message_id_id_idx ON part (message_id, id);
CREATE INDEX part_session_idx ON part (session_id);
"""
V2 = """
CREATE TABLE session_v2 (id text PRIMARY KEY, project_id text NOT NULL, workspace_id text, parent_id text,
    fork_session_id text, fork_boundary text, slug text NOT NULL, directory text NOT NULL, path text, title text,
    version text NOT NULL, share_url text, summary_additions integer, summary_deletions integer, summary_files integer,
    summary_diffs text, metadata text, cost real DEFAULT 0 NOT NULL, tokens_input integer DEFAULT 0 NOT NULL,
    tokens_output integer DEFAULT 0 NOT NULL, tokens_reasoning integer DEFAULT 0 NOT NULL,
    tokens_cache_read integer DEFAULT 0 NOT NULL, tokens_cache_write integer DEFAULT 0 NOT NULL, revert text,
    permission text, agent text, model text, time_created integer NOT NULL, time_updated integer NOT NULL,
    time_idle integer, time_viewed integer, idle_outcome text, time_compacting integer, time_archived integer,
    time_suspended integer, resume_attempts integer DEFAULT 0 NOT NULL);
CREATE TABLE session_message (id text PRIMARY KEY, session_id text NOT NULL, type text NOT NULL, seq integer NOT NULL,
    time_created integer NOT NULL, time_updated integer NOT NULL, data text NOT NULL,
    CONSTRAINT fk FOREIGN KEY (session_id) REFERENCES session_v2(id) ON DELETE CASCADE);
CREATE UNIQUE INDEX session_message_session_seq_idx ON session_message (session_id, seq);
"""
MODEL = {"providerID": "acme", "modelID": "m-1"}


class OpenCode:
    """One installation, which holds its database open as the tool does.

    Args:
        home: its data folder.
        name: of its database.
    """

    def __init__(self, home: Path, name: str = "opencode.db") -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.path = home, home / name
        self.now = START_MS
        self.db = apsw.Connection(str(self.path))
        self.db.execute("PRAGMA journal_mode = WAL").fetchall()
        self.db.execute("PRAGMA foreign_keys = ON")
        if not self.db.execute("SELECT 1 FROM sqlite_master WHERE name = 'session'").fetchall():
            self.db.execute(V1)
            self.db.execute("INSERT INTO project VALUES ('global', '/', NULL, NULL, NULL, NULL, 1, 1, NULL, '[]')")

    def close(self) -> None:
        """Ends it: the WAL goes into the file, and away."""
        self.db.close()

    def tick(self) -> int:
        """The next moment."""
        self.now += 1_000
        return self.now

    # -- version 1 ----------------------------------------------------------------------------------------------------

    def session(self, id: str, title: str = "Basket", parent: str | None = None, directory: str = "/src/shop") -> str:
        """A new session."""
        at = self.tick()
        self.db.execute(
            "INSERT INTO session(id, project_id, parent_id, slug, directory, title, version, agent, model, permission,"
            " time_created, time_updated) VALUES (?, 'global', ?, 'quiet-river', ?, ?, '1.18.3', 'build', ?, ?, ?, ?)",
            (id, parent, directory, title, json.dumps({"id": "m-1", "providerID": "acme"}), "[]", at, at),
        )
        return id

    def message(self, session: str, id: str, data: dict[str, Any]) -> None:
        """Writes a message, new or anew, as the tool does: in its place."""
        at = self.tick()
        self.db.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET data = excluded.data,"
            " time_updated = excluded.time_updated",
            (id, session, data["time"]["created"], at, json.dumps(data)),
        )

    def part(self, session: str, message: str, id: str, data: dict[str, Any]) -> None:
        """Writes a part, new or anew, in its place."""
        at = self.tick()
        self.db.execute(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET data = excluded.data,"
            " time_updated = excluded.time_updated",
            (id, message, session, at, at, json.dumps(data)),
        )

    def user(self, session: str, id: str, text: str) -> None:
        """What a person says."""
        data = {"role": "user", "time": {"created": self.tick()}, "agent": "build", "model": MODEL}
        self.message(session, id, data)
        self.part(session, id, f"prt_{id}_1", {"type": "text", "text": text})

    def assistant(self, session: str, id: str, text: str, *, done: bool = True) -> None:
        """What a model says, with a thought, a call of a tool, and what only the tool needs."""
        time = {"created": self.tick()} | ({"completed": self.tick()} if done else {})
        tokens = {"input": 10, "output": 2, "reasoning": 0, "cache": {"read": 0, "write": 0}}
        data = {"role": "assistant", "time": time, "parentID": "x", "mode": "build", "cost": 0.25, "tokens": tokens}
        data |= {**MODEL, "agent": "build", "path": {"cwd": "/src/shop", "root": "/"}}
        self.message(session, id, data)
        call: dict[str, Any] = {"type": "tool", "callID": f"c_{id}", "tool": "bash"}
        state = {"status": "completed", "input": {"command": "ls"}, "output": f"out of {id}", "title": "ls"}
        state |= {"metadata": {}, "time": {"start": 1, "end": 2}}
        parts: list[dict[str, Any]] = [
            {"type": "step-start", "snapshot": "abc"},
            {"type": "reasoning", "text": "Hm.", "time": {"start": 1, "end": 2}},
            call | {"state": state if done else {"status": "running", "input": {}, "time": {"start": 1}}},
            {"type": "text", "text": text},
        ]
        for number, each in enumerate(parts):
            self.part(session, id, f"prt_{id}_{number}", each)

    def export(self, session: str) -> dict[str, Any]:
        """What `opencode export` of version 1 prints."""
        names = [row[1] for row in self.db.execute("PRAGMA table_info(session)")]
        row = dict(zip(names, *self.db.execute("SELECT * FROM session WHERE id = ?", (session,)), strict=True))
        info: dict[str, Any] = {name: row[name] for name in ("id", "slug", "directory", "title", "version", "cost")}
        info |= {"projectID": row["project_id"], "time": {"created": row["time_created"]}}
        info["time"]["updated"] = row["time_updated"]
        for name, field in (("parent_id", "parentID"), ("agent", "agent"), ("path", "path")):
            info |= {field: row[name]} if row[name] is not None else {}
        for name in ("model", "permission", "revert"):
            info |= {name: json.loads(row[name])} if row[name] is not None else {}
        if row["summary_files"] is not None:
            info["summary"] = {each: row[f"summary_{each}"] for each in ("additions", "deletions", "files")}
        messages = []
        for id, data in self.db.execute(
            "SELECT id, data FROM message WHERE session_id = ? ORDER BY time_created, id", (session,)
        ):
            parts = [
                {"id": part, "sessionID": session, "messageID": id, **json.loads(content)}
                for part, content in self.db.execute(
                    "SELECT id, data FROM part WHERE message_id = ? ORDER BY id", (id,)
                )
            ]
            messages.append({"info": {"id": id, "sessionID": session, **json.loads(data)}, "parts": parts})
        todos = [
            dict(zip(("content", "status", "priority"), each, strict=True))
            for each in self.db.execute(
                "SELECT content, status, priority FROM todo WHERE session_id = ? ORDER BY position", (session,)
            )
        ]
        return {"info": info, "messages": messages} | ({"todos": todos} if todos else {})

    def take(self, document: dict[str, Any]) -> None:
        """What `opencode import` of version 1 does with an export; it refuses what lacks a field."""
        info = document["info"]
        time, summary = info["time"], info.get("summary") or {}
        row = {"id": info["id"], "project_id": info["projectID"], "parent_id": info.get("parentID")}
        row |= {name: info[name] for name in ("slug", "directory", "title", "version")}
        row |= {"path": info.get("path"), "agent": info.get("agent"), "cost": info.get("cost", 0)}
        row |= {each: _text(info.get(each)) for each in ("model", "permission", "revert")}
        row |= {f"summary_{each}": summary.get(each) for each in ("additions", "deletions", "files")}
        row |= {f"time_{each}": time[each] for each in ("created", "updated")}
        row |= {f"time_{each}": time.get(each) for each in ("compacting", "archived")}
        self._insert("session", row)
        for message in document["messages"]:
            own = message["info"]
            rest = {name: value for name, value in own.items() if name not in ("id", "sessionID")}
            at = own["time"]["created"]
            row = {"id": own["id"], "session_id": info["id"], "time_created": at, "time_updated": self.tick()}
            self._insert("message", row | {"data": json.dumps(rest)})
            for part in message["parts"]:
                rest = {name: part[name] for name in part if name not in ("id", "sessionID", "messageID")}
                at = self.tick()
                row = {"id": part["id"], "message_id": part["messageID"], "session_id": info["id"]}
                self._insert("part", row | {"time_created": at, "time_updated": at, "data": json.dumps(rest)})

    # -- version 2 ----------------------------------------------------------------------------------------------------

    def upgrade(self) -> None:
        """Makes the tables of version 2, beside those of version 1."""
        self.db.execute(V2)

    def session_2(self, id: str, title: str | None = "Basket", directory: str = "/src/shop") -> str:
        """A new session of version 2."""
        at = self.tick()
        model = json.dumps({"id": "m-1", "providerID": "acme", "variant": "default"})
        row: dict[str, Any] = {"id": id, "project_id": "global", "slug": "s", "directory": directory}
        row |= {"title": title, "model": model}
        row |= {"version": "2.0.25", "agent": "build", "time_created": at, "time_updated": at, "path": ""}
        self._insert("session_v2", row | {"time_idle": at, "idle_outcome": "succeeded"})
        return id

    def message_2(self, session: str, id: str, kind: str, data: dict[str, Any]) -> None:
        """Writes a message of version 2, new or anew."""
        at = self.tick()
        ((seq,),) = self.db.execute("SELECT coalesce(max(seq), 0) + 3 FROM session_message")
        self.db.execute(
            "INSERT INTO session_message VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET"
            " data = excluded.data, time_updated = excluded.time_updated",
            (id, session, kind, seq, data["time"]["created"], at, json.dumps(data)),
        )

    def export_2(self, session: str) -> dict[str, Any]:
        """What `opencode session export` of version 2 prints: only what is settled."""
        names = [row[1] for row in self.db.execute("PRAGMA table_info(session_v2)")]
        row = dict(zip(names, *self.db.execute("SELECT * FROM session_v2 WHERE id = ?", (session,)), strict=True))
        info = {"id": row["id"], "projectID": row["project_id"], "agent": row["agent"], "cost": row["cost"]}
        info |= {"title": row["title"]} if row["title"] is not None else {}
        cache = {each: row[f"tokens_cache_{each}"] for each in ("read", "write")}
        info["tokens"] = {each: row[f"tokens_{each}"] for each in ("input", "output", "reasoning")} | {"cache": cache}
        times = {each: row[f"time_{each}"] for each in ("created", "updated", "idle", "viewed", "archived")}
        info["time"] = {name: value for name, value in times.items() if value is not None}
        info |= {"location": {"directory": row["directory"]}, "model": json.loads(row["model"])}
        info |= {"outcome": row["idle_outcome"]} if row["idle_outcome"] else {}
        info |= {"subpath": row["path"]} if row["path"] else {}
        messages = [
            {"id": id, "type": kind, **json.loads(data)}
            for id, kind, data in self.db.execute(
                "SELECT id, type, data FROM session_message WHERE session_id = ? ORDER BY seq", (session,)
            )
        ]
        return {"info": info, "messages": [each for each in messages if _settled(each)]}

    def take_2(self, document: dict[str, Any]) -> None:
        """What `opencode session import` of version 2 does with an export."""
        info = document["info"]
        time, tokens = info["time"], info["tokens"]
        row = {"id": info["id"], "project_id": info["projectID"], "slug": "s", "version": "2.0.25", "path": ""}
        row |= {"directory": info["location"]["directory"], "title": info.get("title"), "agent": info["agent"]}
        row |= {"model": json.dumps(info["model"]), "cost": info["cost"], "idle_outcome": info.get("outcome")}
        row |= {f"tokens_{each}": tokens[each] for each in ("input", "output", "reasoning")}
        row |= {f"tokens_cache_{each}": tokens["cache"][each] for each in ("read", "write")}
        self._insert("session_v2", row | {f"time_{each}": time.get(each) for each in ("created", "updated", "idle")})
        for seq, message in enumerate(filter(_settled, document["messages"]), start=1):
            rest = {name: message[name] for name in message if name not in ("id", "type")}
            row = {"id": message["id"], "session_id": info["id"], "type": message["type"], "seq": seq}
            row |= {"time_created": message["time"]["created"], "time_updated": self.tick()}
            self._insert("session_message", row | {"data": json.dumps(rest)})

    # -- before version 1.2 -------------------------------------------------------------------------------------------

    def to_files(self, session: str) -> None:
        """The session as the files that older versions kept."""
        document = self.export(session)
        document["info"].pop("cost")
        storage = self.home / "storage"
        write(storage / "session" / "global" / f"{session}.json", document["info"])
        for message in document["messages"]:
            id = message["info"]["id"]
            write(storage / "message" / session / f"{id}.json", message["info"])
            for part in message["parts"]:
                write(storage / "part" / id / f"{part['id']}.json", part)

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        self.db.execute(f"INSERT INTO {table}({names}) VALUES ({marks})", tuple(row.values()))


def write(path: Path, value: Any) -> None:
    """A file of JSON, as the tool writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _settled(message: dict[str, Any]) -> bool:
    if message["type"] == "assistant":
        return "completed" in message["time"]
    return message["type"] not in ("shell", "compaction") or message["status"] != "running"
