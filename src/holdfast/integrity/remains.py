"""What is left of one agent's log: its own rows where SQLite still reads them, and every other trace of them.

Works on copies that nobody has open. What it returns is offered, not believed; `holdfast.integrity.pieces` decides.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from holdfast.corpus import Branch, SqliteCorpus
from holdfast.corpus.index.fields import MARK
from holdfast.corpus.rows import COLUMNS, unbind
from holdfast.corpus.search import INDEXED
from holdfast.errors import HoldfastError
from holdfast.integrity.pieces import Piece
from holdfast.integrity.salvage import Image, is_name, is_record
from holdfast.log.prune import BEGIN_LINK, BEGIN_SEQ
from holdfast.records import BLOB, encode_header, genesis, stream_id
from holdfast.wire import REDACTED, Mark

STEP: Final = 500
_ROWS: Final = f"SELECT {COLUMNS} FROM rec r WHERE r.pos BETWEEN ? AND ? ORDER BY r.pos LIMIT ?"
_UNREADABLE: Final = (HoldfastError, struct.error, KeyError, TypeError, ValueError, OverflowError, AttributeError)
"""What a row says that is none: a number or a name that no header can carry."""
ROW_BYTES_MIN: Final = 64
"""A record has two digests, whatever else."""
_NAMES_MAX: Final = 4
_WAYS_MAX: Final = 16


class Remains:
    """A damaged log, opened on a copy.

    Args:
        path: the copy; it may be missing, or unreadable.
        agent: whose log it is.
        keys: the node's public keys, of which one names the stream.
    """

    def __init__(self, path: Path, agent: str, keys: Iterable[bytes]) -> None:
        self.path, self.agent = path, agent
        self.trouble = ""
        self.corpus: SqliteCorpus | None = None
        if path.exists():
            try:
                self.corpus = SqliteCorpus(path)
            except (HoldfastError, OSError) as error:
                self.trouble = str(error)
        else:
            self.trouble = "the file is not there"
        self._keys = list(keys)
        self._names: dict[int, str] = {}
        self.branches = self._branches()
        self.meta = self._meta()

    @property
    def streams(self) -> dict[bytes, bytes]:
        """The streams that this log may be, each with the key that names it; one, where the file says which."""
        said = {branch.stream: branch.public_key for branch in self.branches}
        return said or {stream_id(key, self.agent): key for key in self._keys}

    def begin(self, stream: bytes) -> Mark:
        """The mark before the first record that the chain is proven from."""
        seq, link = self.meta.get(BEGIN_SEQ), self.meta.get(BEGIN_LINK)
        if isinstance(seq, int) and isinstance(link, bytes):
            return Mark(seq, link)
        return Mark(0, genesis(stream))

    def last(self, at_least: int = 0) -> int:
        """A number behind which SQLite reads no rows."""
        try:
            found = self.corpus.last() if self.corpus else 0
        except HoldfastError:
            found = self._highest()
        # A page in another's place may show any number: more rows than these bytes can hold are not looked for.
        begin = self.meta.get(BEGIN_SEQ)
        most = (begin if isinstance(begin, int) else 0) + os.stat(self.path).st_size // ROW_BYTES_MIN
        return max(at_least, min(found, most))

    def rows(self, stream: bytes, last: int, first: int = 1) -> Iterator[Piece]:
        """The records that SQLite reads, in order; what it cannot read is left out."""
        at = first - 1
        for low in range(first, last + 1, STEP):
            for row in self._read(low, min(low + STEP - 1, last)):
                piece = self._piece(row, stream)
                # A page in another's place has rows of other numbers; its own are looked for among the stray pages.
                if piece is not None and at < piece.seq == row[0] <= last:
                    at = piece.seq
                    yield piece

    def tags(self) -> dict[int, list[tuple[int, str]]]:
        """By number, what messages are found by whose text is not in the log: nobody can derive that again."""
        bare = "r.why<>? AND (r.body IS NULL OR r.flags & ?)"
        sql = f"SELECT t.pos, t.k, t.v FROM tag t JOIN rec r ON r.pos=t.pos WHERE {bare}"
        found: dict[int, list[tuple[int, str]]] = {}
        with contextlib.suppress(HoldfastError):
            for pos, number, value in self.corpus.query(sql, (REDACTED, BLOB)) if self.corpus else ():
                if type(pos) is type(number) is int and type(value) is str:
                    found.setdefault(pos, []).append((number, value))
        return found

    def close(self) -> None:
        """Closes the copy; a second close is fine."""
        if self.corpus is not None:
            self.corpus.close()
            self.corpus = None

    def _read(self, low: int, high: int) -> list[Any]:
        # Halves whatever fails: a bad page costs its own rows and some twenty questions.
        assert self.corpus is not None
        try:
            return self.corpus.query(_ROWS, (low, high, 20 * (high - low) + 10_000))  # pages may name each other
        except HoldfastError:
            if low == high:
                return []
        middle = (low + high) // 2
        return [*self._read(low, middle), *self._read(middle + 1, high)]

    def _piece(self, row: Any, stream: bytes) -> Piece | None:
        try:
            stored = unbind(row, self._name, lambda _: stream)
            header = encode_header(stored.record)
        except _UNREADABLE:
            return None
        record = stored.record
        return Piece(record.seq, header, record.link, stored.salt, stored.codec, stored.body, stored.why, stored.branch)

    def _name(self, number: int) -> str:
        try:
            return self._names[number]
        except KeyError:
            assert self.corpus is not None
            row = self.corpus.one("SELECT s FROM name WHERE id=?", (number,))
            if row is None:
                raise KeyError(number) from None
            self._names[number] = row[0]
            return str(row[0])

    def _branches(self) -> list[Branch]:
        try:
            return self.corpus.branches(agent=self.agent) if self.corpus else []
        except HoldfastError:
            return []

    def _meta(self) -> dict[str, Any]:
        try:
            rows = (
                self.corpus.query("SELECT k, v FROM meta WHERE k NOT IN (?,?)", (INDEXED, MARK)) if self.corpus else []
            )
        except HoldfastError:
            return {}
        return dict(rows)

    def _highest(self) -> int:
        image = Image(self.path)
        try:
            return max((row[2] for row in image.rows() if is_record(row)), default=0)
        finally:
            image.close()


def strays(path: Path, stream: bytes, origin: str, wanted: Iterable[int] | None, behind: int) -> Iterator[Piece]:
    """Records that lie anywhere in a file or its WAL, found without SQLite.

    Args:
        path: the file; it or its WAL may be missing.
        stream: whose records they would be.
        origin: what the place is called in evidence.
        wanted: the numbers that are looked for; None: all.
        behind: all from behind this number are wanted too.
    """
    numbers = None if wanted is None else frozenset(wanted)
    image = Image(path)
    try:
        names: dict[int, list[str]] = {}
        for row in image.rows():
            if is_name(row) and row[1] not in (known := names.setdefault(row[0], [])) and len(known) < _NAMES_MAX:
                known.append(row[1])
        for row in image.rows():
            if is_record(row) and (numbers is None or row[2] in numbers or row[2] > behind):
                yield from _readings(row, stream, names, origin)
    finally:
        image.close()


def is_cut(path: Path) -> bool:
    """Whether a file is shorter than it says itself, or gone: one event, and not rot all over it."""
    image = Image(path)
    try:
        return image.is_cut()
    finally:
        image.close()


def _readings(row: Any, stream: bytes, names: dict[int, list[str]], origin: str) -> Iterator[Piece]:
    """What a row may say: a rotten name may be read in two ways, and a hash tells which is right."""
    said = [names.get(row[n], []) for n in (4, 5, 6, 7)]
    for ways in itertools.islice(itertools.product(*said), _WAYS_MAX):
        texts = dict(zip(row[4:8], ways, strict=True))
        try:
            stored = unbind(tuple(row[:22]), texts.__getitem__, lambda _: stream)
            header = encode_header(stored.record)
        except _UNREADABLE:
            continue
        yield Piece(row[2], header, row[18], stored.salt, stored.codec, stored.body, stored.why, stored.branch, origin)
