"""Other agents' records, fetched and proven, for when the hub is away; and the keys that they were first seen with.

Disposable: deleting cache.db loses nothing but speed, and the memory of whose key is whose.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.clock import Clock
from holdfast.corpus import Stored
from holdfast.corpus.engine import Engine
from holdfast.errors import IntegrityError
from holdfast.node.proof import Proven
from holdfast.records import decode_header

RECORDS_MAX: Final = 10_000
MAIL_MAX: Final = 10_000
_COLUMNS: Final = "header, link, salt, codec, body"
_HUB: Final = "hub\n"
"""Before the key of a hub, where that is pinned: no agent's name has a line break."""


class Cache:
    """cache.db of one node directory. Safe to share among threads and processes.

    Args:
        path: the file; its directory exists.
        wall: the clock.
    """

    def __init__(self, path: Path, wall: Clock) -> None:
        self._engine = Engine(path, roles=("cache",), cache_kib=512)
        self._wall = wall

    def pinned(self, agent: str) -> bytes | None:
        """The key that an agent was last seen with, or None if it never was."""
        row = self._engine.one("SELECT public_key FROM pin WHERE agent=?", (agent,))
        return row[0] if row else None

    def pin(self, agent: str, stream: bytes, key: bytes) -> None:
        """Remembers the key of an agent."""
        now = self._wall.now_ms()
        self._run("INSERT OR REPLACE INTO pin VALUES(?,?,?,?)", (agent, stream, key, now))

    def pin_hub(self, key: bytes) -> None:
        """Remembers that this key is a hub's."""
        self.pin(_HUB + key.hex(), b"", key)

    def is_hub(self, key: bytes) -> bool:
        """Whether this key is known to be a hub's."""
        return self.pinned(_HUB + key.hex()) is not None

    def keep(self, proven: Proven) -> None:
        """Keeps a record that was proven."""
        record, item = proven.record, proven.item
        row = (proven.agent, record.collection, record.key, record.key_version, record.hlc, record.seq, record.link)
        values = (*row, item.header, item.salt, item.codec, item.body)
        self._run(
            "INSERT OR IGNORE INTO rec(agent,coll,key,version,hlc,seq,link,header,salt,codec,body)"
            " VALUES(?,?,?,?,?,?,?,?,?,?,?)",
            values,
            "DELETE FROM rec WHERE id<=(SELECT max(id) FROM rec)-?",
            (RECORDS_MAX,),
        )

    def newest(self, agent: str, collection: str, key: str, *, until: int = 1 << 62) -> Stored | None:
        """The newest version that is here, not later than a stamp."""
        where = "agent=? AND coll=? AND key=? AND hlc<=? ORDER BY hlc DESC, seq DESC"
        sql = f"SELECT {_COLUMNS} FROM rec WHERE {where} LIMIT 1"
        return self._stored(agent, self._engine.one(sql, (agent, collection, key, until)))

    def version(self, agent: str, collection: str, key: str, version: int) -> Stored | None:
        """A version, if it is here."""
        sql = f"SELECT {_COLUMNS} FROM rec WHERE agent=? AND coll=? AND key=? AND version=? ORDER BY id DESC LIMIT 1"
        return self._stored(agent, self._engine.one(sql, (agent, collection, key, version)))

    def keep_mail(self, box: str, mail: Sequence[tuple[str, str, int, bytes, bytes]]) -> None:
        """Keeps mail as it came, each with its sender, id, number, link and itself."""
        put = "INSERT OR IGNORE INTO mail(box, sender, msg, seq, link, body) VALUES(?,?,?,?,?,?)"
        rows = [part for each in mail for part in (put, (box, *each))]
        self._run(*rows, "DELETE FROM mail WHERE id<=(SELECT max(id) FROM mail)-?", (MAIL_MAX,))

    def mail(self, box: str) -> list[bytes]:
        """The mail of an inbox that was kept, in the order in which it came."""
        return [row[0] for row in self._engine.query("SELECT body FROM mail WHERE box=? ORDER BY id", (box,))]

    def mail_named(self, msg: str) -> list[bytes]:
        """The mail with this id that was kept, whosever it is."""
        return [row[0] for row in self._engine.query("SELECT body FROM mail WHERE msg=? ORDER BY id", (msg,))]

    def forget(self, kids: Collection[bytes], marks: Collection[bytes]) -> int:
        """Removes the records that an erasure names, by the keys that sealed them or by number and link; how many."""
        gone = []
        for number, header, link in self._engine.query("SELECT id, header, link FROM rec"):
            record = decode_header(header, link)
            if record.kid in kids or record.seq.to_bytes(8, "big") + record.link in marks:
                gone.append(number)
        for number in gone:
            self._run("DELETE FROM rec WHERE id=?", (number,))
        letters = [
            number
            for number, seq, link in self._engine.query("SELECT id, seq, link FROM mail")
            if seq.to_bytes(8, "big") + link in marks
        ]
        for number in letters:
            self._run("DELETE FROM mail WHERE id=?", (number,))
        self._engine.scour()
        return len(gone) + len(letters)

    def close(self) -> None:
        """Closes the file; a second close is fine."""
        self._engine.close()

    def _stored(self, agent: str, row: Any) -> Stored | None:
        if row is None:
            return None
        header, link, salt, codec, body = row
        return Stored(0, 0, agent, 0, decode_header(header, link), salt, codec, body)

    def _run(self, *statements: Any) -> None:
        def job(_: Any) -> None:
            for sql, args in zip(statements[::2], statements[1::2], strict=True):
                self._engine.writer_execute(sql, args)

        self._engine.commits.run(job)


class Pins:
    """The keys that agents were first seen with, in memory: for a reader without a node directory."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._lock = threading.Lock()  # guards _keys

    def pinned(self, agent: str) -> bytes | None:
        """The key that an agent was last seen with, or None if it never was."""
        with self._lock:
            return self._keys.get(agent)

    def pin(self, agent: str, stream: bytes, key: bytes) -> None:
        """Remembers the key of an agent."""
        with self._lock:
            self._keys[agent] = key

    def pin_hub(self, key: bytes) -> None:
        """Remembers that this key is a hub's."""
        self.pin(_HUB + key.hex(), b"", key)

    def is_hub(self, key: bytes) -> bool:
        """Whether this key is known to be a hub's."""
        return self.pinned(_HUB + key.hex()) is not None


def trust(pins: Cache | Pins, proven: Proven) -> None:
    """Returns only if the record's key is the one that the agent was first seen with, or one that it handed over to.

    An agent for whom hubs write (a plain client, or `hub` itself) has the key of whichever hub wrote, so it may move
    from one hub's key to another's; a node's agent never moves to a hub's key.

    Raises:
        IntegrityError: another key under the same name.
    """
    known = pins.pinned(proven.agent)
    if known == proven.key:
        return
    if known is not None and known not in proven.keys and not (pins.is_hub(known) and pins.is_hub(proven.key)):
        raise IntegrityError(
            f"{proven.agent} was known by another key: this may be somebody else under its name",
            hint="if it did move to a new node directory, delete cache.db here and read again",
            known=known.hex(),
            key=proven.key.hex(),
        )
    pins.pin(proven.agent, proven.record.stream, proven.key)
