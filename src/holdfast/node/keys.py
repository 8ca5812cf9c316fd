"""The node's keys: one in force, retired ones kept, and a rotation that a crash may interrupt anywhere.

A rotation runs next → (a `rotate` record in every log) → current. A crash between leaves some logs under the old key
and some under the new one; every log says itself which (its `current_key`), so any of our keys may open a log, and
the next rotation starts from where each log stands.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from holdfast import seal
from holdfast.clock import Clock
from holdfast.corpus.engine import Engine
from holdfast.errors import IntegrityError

_CACHE_KIB = 256


class Keyring:
    """The keys of one node directory. Safe to share among threads and processes.

    Args:
        path: of keys.db; its directory exists.
        wall: the clock, for when a key was made.
    """

    def __init__(self, path: Path, wall: Clock) -> None:
        self.engine = self._engine = Engine(path, roles=("keys",), full=True, cache_kib=_CACHE_KIB)
        self._wall = wall
        self._signers: dict[bytes, seal.Signer] = {}
        self._lock = threading.Lock()  # guards _signers

    def make_first(self) -> None:
        """Makes the node's key unless it has one; only for a directory that is being made."""
        self._engine.commits.run(self._first)

    def current(self) -> bytes:
        """The public key in force.

        Raises:
            IntegrityError: there is none; a new one would be a stranger's to every log here.
        """
        row = self._engine.one("SELECT public FROM key WHERE state='current'")
        if row is None:
            raise IntegrityError("keys.db holds no key", hint="put the node's own keys.db back from a backup")
        public: bytes = row[0]
        return public

    def public_keys(self) -> list[bytes]:
        """Every key that was or will be in force here, newest first."""
        return [row[0] for row in self._engine.query("SELECT public FROM key ORDER BY id DESC")]

    def destroyed(self) -> list[bytes]:
        """The names of the data keys that an erasure destroyed here."""
        return [bytes(row[0]) for row in self._engine.query("SELECT kid FROM dek WHERE wrapped IS NULL")]

    def before(self, public_key: bytes) -> bytes:
        """The key that was in force before this one; empty if it is the first."""
        sql = "SELECT public FROM key WHERE id<(SELECT id FROM key WHERE public=?) ORDER BY id DESC LIMIT 1"
        row = self._engine.one(sql, (public_key,))
        return row[0] if row else b""

    def signer(self, public_key: bytes) -> seal.Signer:
        """What signs for a public key of ours, in force or retired.

        Raises:
            IntegrityError: its private half is not here.
        """
        with self._lock:
            found = self._signers.get(public_key)
            if found is None:
                row = self._engine.one("SELECT private FROM key WHERE public=?", (public_key,))
                if row is None:
                    raise IntegrityError(
                        f"the private half of key {public_key.hex()} is not in keys.db",
                        hint="put the node's own keys.db back from a backup",
                    )
                found = self._signers[public_key] = seal.Signer(row[0])
            return found

    def prepare_next(self) -> bytes:
        """The public half of the key that a rotation goes to: the one a crashed rotation began with, or a new one."""
        public: bytes = self._engine.commits.run(self._next)
        return public

    def promote(self, public_key: bytes) -> None:
        """Puts the next key in force and retires the one before."""

        def job(_: Any) -> None:
            self._engine.writer_execute("UPDATE key SET state='retired' WHERE state='current'")
            self._engine.writer_execute("UPDATE key SET state='current' WHERE public=?", (public_key,))

        self._engine.commits.run(job)

    def scrub(self) -> list[str]:
        """What is wrong with the file's pages, in words; empty when it is sound."""
        return self._engine.scrub()

    def close(self) -> None:
        """Closes the file; a second close is fine."""
        self._engine.close()

    def _first(self, _: Any) -> None:
        if self._engine.writer_execute("SELECT 1 FROM key").fetchone() is None:
            self._add("current")

    def _next(self, _: Any) -> bytes:
        row = self._engine.writer_execute("SELECT public FROM key WHERE state='next'").fetchone()
        return row[0] if row else self._add("next")

    def _add(self, state: str) -> bytes:
        private = seal.generate()
        public = seal.Signer(private).public_key
        sql = "INSERT INTO key(public, private, state, made_ms) VALUES(?,?,?,?)"
        self._engine.writer_execute(sql, (public, private, state, self._wall.now_ms()))
        return public
