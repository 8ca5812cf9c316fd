"""The floor: a bare INSERT of bytes that are serialised already, through APSW, three indexes, nothing else."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import apsw
import msgspec

from bench.neighbours.local import PAGE, LocalStore

SYNC_S = 0.050
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Floor(LocalStore):
    """One table, the least that could be called a store; serialising and decoding are not on its clock."""

    def __init__(self, folder: Path, durability: str) -> None:
        self._path = str(folder / "floor.db")
        self._connection = apsw.Connection(self._path)
        full = durability == "critical"
        for setting in ("journal_mode=WAL", f"synchronous={'FULL' if full else 'NORMAL'}", "wal_autocheckpoint=4000"):
            self._connection.execute("PRAGMA " + setting).fetchall()
        for statement in (
            "CREATE TABLE rec(pos INTEGER PRIMARY KEY, agent INT, kind INT, thread TEXT, key TEXT, body BLOB)",
            "CREATE UNIQUE INDEX rec_key ON rec(agent, key, pos)",
            "CREATE INDEX rec_thread ON rec(thread, pos)",
            "CREATE INDEX rec_kind ON rec(kind, pos)",
        ):
            self._connection.execute(statement)
        self._ready: list[bytes] = []
        self._ended = threading.Event()
        self._syncer = threading.Thread(target=self._sync, daemon=True) if durability == "advanced" else None
        if self._syncer:
            self._syncer.start()

    def _sync(self) -> None:
        wal = os.open(self._path + "-wal", os.O_RDONLY)
        while not self._ended.wait(SYNC_S):
            os.fdatasync(wal)
        os.close(wal)

    def prepare(self, values: list[dict[str, Any]]) -> None:
        """Serialises all of them."""
        self._ready = [_encode(value) for value in values]

    def append(self, number: int, session: str, message: dict[str, Any]) -> None:
        """One INSERT."""
        self._connection.execute(
            "INSERT INTO rec(agent, kind, thread, key, body) VALUES(1, 1, ?, ?, ?)",
            (session, f"{number:032x}", self._ready[number]),
        )

    def message(self, number: int) -> bytes:
        """One SELECT."""
        return self.get(f"{number:032x}")

    def last(self, session: str) -> list[bytes]:
        """One SELECT of 100 rows."""
        sql = "SELECT body FROM rec WHERE thread = ? ORDER BY pos DESC LIMIT ?"
        return [body for (body,) in self._connection.execute(sql, (session, PAGE))]

    def put(self, number: int, key: str, value: dict[str, Any]) -> None:
        """One INSERT: every version is kept, as in a log."""
        self._connection.execute(
            "INSERT INTO rec(agent, kind, thread, key, body) VALUES(1, 2, '', ?, ?)", (key, self._ready[number])
        )

    def get(self, key: str) -> bytes:
        """One SELECT."""
        sql = "SELECT body FROM rec WHERE agent = 1 AND key = ? ORDER BY pos DESC LIMIT 1"
        found: bytes = self._connection.execute(sql, (key,)).get
        return found

    def shown(self, found: Any) -> Any:
        """Decodes what a SELECT gave."""
        return _decode(found) if isinstance(found, bytes) else [_decode(body) for body in reversed(found)]

    def close(self) -> None:
        """Ends it."""
        self._ended.set()
        if self._syncer:
            self._syncer.join()
        self._connection.close()
