"""Where opencode keeps its sessions: a database, or before version 1.2 a tree of JSON files; both are only read.

    opencode.db             session, message, part, todo        (version 1)
                            session_v2, session_message         (version 2; those of 1 stay beside them)
    opencode-<channel>.db   the same, of a build of another channel
    storage/                session/<project>/<id>.json, message/<session>/<id>.json, part/<message>/<id>.json

opencode takes the files over into its database once, and never looks at them again; so neither are they looked at here
where there is a database. A session is looked at by its *shape* first: what its messages are, and what changes whenever
one of them does. What a message says is read only where that differs from before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from holdfast.cli.following.files import home_of
from holdfast.cli.transcripts import opencode as form
from holdfast.cli.transcripts.tools import TOOLS
from holdfast.errors import StorageError, UsageError
from holdfast.sqlite import foreign
from holdfast.sqlite.foreign import Foreign

DATABASES: Final = "opencode*.db"
USUAL: Final = "opencode.db"
VARIABLE: Final = "OPENCODE_DB"
_MANY: Final = 400
"""Messages asked for by one statement."""


class Item(msgspec.Struct, frozen=True):
    """A message in the shape of a session.

    Attributes:
        order: what it stands by among the others: the time of its beginning, or its number.
        id: its own.
        mark: another one whenever it was changed.
        size: of what is stored of it, in bytes.
        newest_ms: when it was changed last.
    """

    order: int
    id: str
    mark: tuple[int, ...]
    size: int
    newest_ms: int


class Shape(msgspec.Struct, frozen=True):
    """A session: the version of its form, its own row as it is kept, and its messages in their order."""

    version: int
    about: dict[str, Any]
    items: tuple[Item, ...]


class Source(Protocol):
    """A place with sessions.

    Attributes:
        path: of the place.
        known_by: what stands before a session's id where it is known by it; empty for the usual place.
    """

    path: str
    known_by: str

    def stamp(self) -> tuple[int, ...]:
        """What changes whenever something was written there, as far as that can be told without reading it."""

    def sessions(self) -> dict[str, Hashable]:
        """The sessions, each with what changes when it probably did."""

    def shape(self, session: str) -> Shape | None:
        """A session's shape; None if it is no longer there."""

    def messages(self, session: str, version: int, items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        """What is stored of messages, all of one moment; those that are gone by now are left out.

        What cannot be read comes as the error.
        """


def sources(home: Path) -> list[Source]:
    """The places below a folder of opencode's; below the usual one also the database that the environment names."""
    paths = sorted(str(path) for path in home.glob(DATABASES) if path.is_file())
    named = os.environ.get(VARIABLE, "") if home == home_of(TOOLS["opencode"], None) else ""
    if named and named != ":memory:":
        chosen = os.path.abspath(home / Path(named).expanduser())
        paths += [chosen] if chosen not in paths and os.path.isfile(chosen) else []
    found: list[Source] = [Database(path, "" if path == str(home / USUAL) else Path(path).stem) for path in paths]
    # A folder of storage that was copied alone stands for the one around it.
    storage = home if (home / "session").is_dir() and (home / "message").is_dir() else home / "storage"
    if not any(each.known_by == "" for each in found) and (storage / "session").is_dir():
        found.append(Tree(str(storage)))
    return found


class Database:
    """An SQLite file of opencode's."""

    def __init__(self, path: str, known_by: str) -> None:
        self.path = path
        self.known_by = known_by
        self._rows: dict[str, int] = {}
        self._times: dict[str, int] = {}

    def stamp(self) -> tuple[int, ...]:
        """Sizes and times of the file, and of what lies beside it."""
        return foreign.stamp(self.path)

    def sessions(self) -> dict[str, Hashable]:
        """A session's own row does not tell of each new message, so the rows that were added are looked through."""
        return foreign.read(self.path, self._sessions)

    def shape(self, session: str) -> Shape | None:
        """A session's shape, of one moment; in version 2 if it is there."""
        return foreign.read(self.path, lambda found: _shape(found, session))

    def messages(self, session: str, version: int, items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        """What is stored of messages, of one moment."""
        read = _messages_2 if version == 2 else _messages_1
        made: list[tuple[Item, Any]] = foreign.read(self.path, lambda found: list(read(found, session, items)))
        yield from made

    def _sessions(self, found: Foreign) -> dict[str, Hashable]:
        listed: dict[str, Hashable] = {}
        for version, table in ((1, "session"), (2, "session_v2")):
            if found.columns(table):
                rows = found.rows(f"SELECT id, time_updated FROM {table} ORDER BY rowid")
                listed |= {id: (version, updated) for id, updated in rows if isinstance(id, str)}
        if not listed and not found.columns("session") and not found.columns("session_v2"):
            raise UsageError(f"{self.path} has no sessions of opencode in it", hint="opencode 1.2 or later writes them")
        rows_now = dict(self._rows)
        for table in ("message", "part", "session_message"):
            if not found.columns(table):
                continue
            before = self._rows.get(table, 0)
            ((last,),) = found.rows(f"SELECT coalesce(max(rowid), 0) FROM {table}")
            if before and last > before:
                touched = found.rows(f"SELECT DISTINCT session_id FROM {table} WHERE rowid > ?", before)
                for (id,) in touched:
                    self._times[id] = self._times.get(id, 0) + 1
            elif last < before:
                for id in listed:  # written anew (VACUUM): rows have other numbers now
                    self._times[id] = self._times.get(id, 0) + 1
            rows_now[table] = last
        self._rows = rows_now
        return {id: (*hint, self._times.get(id, 0)) for id, hint in listed.items()}  # type: ignore[misc]


def _shape(found: Foreign, session: str) -> Shape | None:
    for version, table in ((2, "session_v2"), (1, "session")):
        names = found.columns(table)
        rows = list(found.rows(f"SELECT * FROM {table} WHERE id = ?", session)) if names else []
        if rows:
            about = form.about(dict(zip(names, rows[0], strict=True)), version)
            todos = found.columns("todo") and list(
                found.rows("SELECT content, status, priority FROM todo WHERE session_id = ? ORDER BY position", session)
            )
            if todos:
                about["todos"] = [dict(zip(("content", "status", "priority"), each, strict=True)) for each in todos]
            items = _items_2(found, session) if version == 2 else _items_1(found, session)
            return Shape(version, about, tuple(items))
    return None


def _items_1(found: Foreign, session: str) -> Iterator[Item]:
    parts: dict[str, tuple[int, int, int]] = {}
    # `octet_length` reads no more of a row than its header, however long its text is.
    for message, count, size, newest in found.rows(
        "SELECT message_id, count(*), sum(octet_length(data)), max(time_updated) FROM part"
        " WHERE session_id = ? GROUP BY message_id",
        session,
    ):
        parts[message] = (count, size or 0, newest or 0)
    for id, created, updated, size in found.rows(
        "SELECT id, time_created, time_updated, octet_length(data) FROM message WHERE session_id = ?"
        " ORDER BY time_created, id",
        session,
    ):
        count, more, newest = parts.get(id, (0, 0, 0))
        mark = (updated or 0, size or 0, count, more, newest)
        yield Item(created or 0, id, mark, (size or 0) + more, max(updated or 0, newest))


def _items_2(found: Foreign, session: str) -> Iterator[Item]:
    for id, order, updated, size in found.rows(
        "SELECT id, seq, time_updated, octet_length(data) FROM session_message WHERE session_id = ? ORDER BY seq",
        session,
    ):
        yield Item(order, id, (updated or 0, size or 0), size or 0, updated or 0)


def _messages_1(found: Foreign, session: str, items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
    for at in range(0, len(items), _MANY):
        some = items[at : at + _MANY]
        ids = [each.id for each in some]
        marks = ",".join("?" * len(ids))
        parts: dict[str, list[dict[str, Any]]] = {}
        wrong: dict[str, Exception] = {}
        for id, message, data in found.rows(
            f"SELECT id, message_id, data FROM part WHERE message_id IN ({marks}) ORDER BY message_id, id", *ids
        ):
            try:
                parts.setdefault(message, []).append(form.part_1(id, session, message, _object(data)))
            except ValueError as error:
                wrong[message] = error
        said = dict(found.rows(f"SELECT id, data FROM message WHERE id IN ({marks})", *ids))
        for each in some:
            if each.id in wrong:
                yield each, wrong[each.id]
            elif each.id in said:
                try:
                    yield each, form.message_1(each.id, session, _object(said[each.id]), parts.get(each.id, []))
                except ValueError as error:
                    yield each, error


def _messages_2(found: Foreign, session: str, items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
    for each in items:
        for kind, data in found.rows("SELECT type, data FROM session_message WHERE id = ?", each.id):
            try:
                yield each, form.message_2(each.id, kind, _object(data))
            except ValueError as error:
                yield each, error


def _object(data: Any) -> dict[str, Any]:
    """An object of JSON, also with halves of letters in it, which are JSON to opencode.

    Raises:
        ValueError: it is none.
    """
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"not an object but {type(found).__name__}")
    return found


class Tree:
    """The files in which opencode kept its sessions before version 1.2."""

    known_by = ""

    def __init__(self, path: str) -> None:
        self.path = path
        self._files: dict[str, str] = {}

    def stamp(self) -> tuple[int, ...]:
        """Files are written singly, each in a folder of its own: nothing tells of all."""
        return ()

    def sessions(self) -> dict[str, Hashable]:
        """The sessions by their files; a message that is new shows in its folder."""
        listed: dict[str, Hashable] = {}
        for project in _listed(os.path.join(self.path, "session")):
            for file in _listed(project.path) if project.is_dir() else ():
                if file.name.endswith(".json"):
                    id = file.name.removesuffix(".json")
                    status = file.stat()
                    self._files[id] = file.path
                    listed[id] = (1, status.st_mtime_ns, status.st_size, *_folder(self.path, "message", id))
        return listed

    def shape(self, session: str) -> Shape | None:
        """A session's shape: sizes and times of its files."""
        try:
            info = _object(_read(self._files.get(session, "")))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StorageError(f"{self._files[session]}: {error}") from error
        # What the first versions did not write, those of today want to be there.
        lacking = {name: "" for name in ("slug", "directory", "title", "version") if name not in info}
        items = []
        for file in _listed(os.path.join(self.path, "message", session)):
            if not file.name.endswith(".json"):
                continue
            id = file.name.removesuffix(".json")
            stats = [file.stat(), *(each.stat() for each in self._parts(id))]
            mark = (len(stats), *(number for each in stats for number in (each.st_mtime_ns, each.st_size)))
            newest = max(each.st_mtime_ns for each in stats) // 1_000_000
            items.append(Item(_begun(file.path), id, mark, sum(each.st_size for each in stats), newest))
        items.sort(key=lambda each: (each.order, each.id))
        return Shape(1, {"info": info | lacking}, tuple(items))

    def messages(self, session: str, version: int, items: Sequence[Item]) -> Iterator[tuple[Item, Any]]:
        """What is stored of messages, file by file."""
        for each in items:
            try:
                data = _object(_read(os.path.join(self.path, "message", session, f"{each.id}.json")))
                parts = [
                    form.part_1(file.name.removesuffix(".json"), session, each.id, _object(_read(file.path)))
                    for file in self._parts(each.id)
                ]
            except FileNotFoundError:
                continue  # taken away meanwhile
            except ValueError as error:
                yield each, error
            else:
                yield each, form.message_1(each.id, session, data, parts)

    def _parts(self, message: str) -> list[os.DirEntry[str]]:
        return [each for each in _listed(os.path.join(self.path, "part", message)) if each.name.endswith(".json")]


def _begun(path: str) -> int:
    """When a message began, which is its place in its session."""
    try:
        time = _object(_read(path)).get("time")
    except (ValueError, FileNotFoundError):
        return 0
    created = time.get("created") if isinstance(time, dict) else None
    return created if isinstance(created, int) else 0


def _listed(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as found:
            return sorted(found, key=lambda each: each.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folder(path: str, *names: str) -> tuple[int, ...]:
    try:
        return (os.stat(os.path.join(path, *names)).st_mtime_ns,)
    except FileNotFoundError:
        return (0,)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
