"""Whether records are found by what they say: tags, the rows of sessions and metrics, and the words of the search.

All of it follows from the records, and is derived here once more by the code that wrote it first. Neither side is kept
in memory: every row is hashed, sums of the hashes are compared, and only where these differ is it looked for which row.
What a hub writes for plain clients carries more than its payload says (ids of requests, tasks of files): of that only
what the payload does say is held against it. Of a body that is not here nothing is derived, but that an erased one is
quoted nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus import SqlCorpus, Stored
from holdfast.corpus.snapshot import Snapshot
from holdfast.corpus.sql import MESSAGES, TAGS
from holdfast.corpus.tags import ROW_FIRST, TAG_BYTES_MAX
from holdfast.errors import HoldfastError
from holdfast.integrity.checks import INDEX, STATE, Finding, check_payload
from holdfast.log.drafts import tags_of
from holdfast.log.marks import METRICS, SESSIONS
from holdfast.records import PUT
from holdfast.wire import REDACTED

NAMED_MAX: Final = 100
"""So many wrong rows are named one by one."""
_ANEW: Final = "the log is right: holdfast repair derives it from it again"
_WORDS: Final = "the log is right: holdfast repair makes the index again"
_FOREIGN: Final = frozenset((TAGS["msg_id"], TAGS["request"]))
"""Tags that say how a record came here, and not what it holds."""
_LASTING: Final = frozenset((TAGS["ref"], TAGS["touched"]))
"""Tags that outlive the payload: names stay taken."""
_NAMES: Final = {number: name for name, number in TAGS.items()}


class Places:
    """A set of positions, in a bit each."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytearray] = {}

    def add(self, pos: int) -> None:
        """Takes a position in."""
        chunk = self._chunks.get(pos >> 16)
        if chunk is None:
            chunk = self._chunks[pos >> 16] = bytearray(8192)
        chunk[(pos & 0xFFFF) >> 3] |= 1 << (pos & 7)

    def __contains__(self, pos: Any) -> bool:
        if type(pos) is not int:  # a row of another table, on a page in another's place
            return False
        chunk = self._chunks.get(pos >> 16)
        return chunk is not None and bool(chunk[(pos & 0xFFFF) >> 3] & 1 << (pos & 7))

    def __bool__(self) -> bool:
        return bool(self._chunks)


class Derived:
    """What all records of a corpus are to be found by.

    Args:
        corpus: the file or database.
        own: numbers of the branches that were written where the file is; of an agent's file: all.
        proven: whether somebody else holds each payload against its hash.
    """

    def __init__(self, corpus: SqlCorpus, own: frozenset[int] | None, *, proven: bool) -> None:
        self._hub, self._own, self._proven = corpus.hub, own, proven
        self._listed = frozenset((MESSAGES, SESSIONS, METRICS) if corpus.hub else (MESSAGES,))
        self._blind, self._bare, self._mine = Places(), Places(), Places()
        self._sum = self._count = 0

    def see(self, stored: Stored) -> None:
        """The next record; of an agent's file only messages need to be shown."""
        tags = self.tags(stored)
        if tags is None:
            self._blind.add(stored.pos)
        elif tags:
            for each in tags:
                self._sum += hash(each)
            self._count += len(tags)

    def wants(self, branch: int, collection: str) -> bool:
        """Whether a record of this branch and collection says anything to it."""
        return collection in self._listed or (self._hub and (self._own is None or branch in self._own))

    def tags(self, stored: Stored) -> set[tuple[Any, ...]] | None:
        """The rows that follow from a record, each with its position; None if that cannot be told."""
        record, pos = stored.record, stored.pos
        mine = self._own is None or stored.branch in self._own
        if record.collection not in self._listed:
            return None if mine and self._hub else set()
        if mine and self._hub:
            self._mine.add(pos)
        if stored.body is None:
            if stored.why != REDACTED:
                return None
            self._bare.add(pos)
            return set()
        if mine and not derivable(stored):
            return None
        if not self._proven and check_payload(stored) is not None:
            return None
        try:
            found = tags_of(record, codec.unpack(stored.codec, stored.body, record.payload_len))
        except HoldfastError:
            return None
        return {_row(*tag, pos) for tag in found if not self._skips(*tag, pos)}

    def findings(self, corpus: SqlCorpus, view: Snapshot) -> Iterator[Finding]:
        """What is found by something that it does not say, or is not found by what it does."""
        total = count = 0
        for row in self._rows(view):
            total += hash(row)
            count += 1
        if (total, count) == (self._sum, self._count):
            return
        named = 0
        for finding in self._look(corpus, view):
            yield finding
            named += 1
            if named >= NAMED_MAX:
                return
        if not named:
            what = "the lists that records are found by do not hold what the records say"
            yield Finding(STATE, "", 0, what, _ANEW, f"{self._count} entries", f"{count} entries")

    def _rows(self, view: Snapshot) -> Iterator[tuple[Any, ...]]:
        """Every row of the tables that can be derived."""
        blind = self._blind
        plain = not blind
        for number, value, pos in view.tags():
            if not self._skips(number, value, pos) and (plain or pos not in blind):
                yield number, value, pos
        if self._hub:
            for row in view.tag_rows():
                if row[1] not in blind:
                    yield row

    def _skips(self, number: int, value: Any, pos: int) -> bool:
        """Whether a tag of this kind, there, may stand or be missing without telling anything."""
        if number in _FOREIGN or (number == TAGS["touched"] and pos in self._mine):
            return True
        if number < ROW_FIRST and type(value) is str and len(value) > TAG_BYTES_MAX // 4:
            return len(value.encode(errors="replace")) > TAG_BYTES_MAX  # some engines leave it out
        return number in _LASTING and pos in self._bare

    def _look(self, corpus: SqlCorpus, view: Snapshot) -> Iterator[Finding]:
        """Which rows they are; it costs a second pass."""
        for row in self._rows(view):
            pos = row[1] if row[0] >= ROW_FIRST else row[2]
            stored = corpus.at(pos) if type(pos) is int else None
            if stored is None:
                what = f"position {pos!r:.40} is found by {_text(row)}, and there is no record"
                yield Finding(STATE, "", 0, what, _ANEW, "none", _text(row))
            elif row not in (self.tags(stored) or ()):
                what = f"the record is found by {_text(row)}, which it does not say"
                yield Finding(STATE, stored.agent, stored.record.seq, what, _ANEW, "none", _text(row))
        for stored in view.records():
            yield from self.missed(view, stored)

    def missed(self, view: Snapshot, stored: Stored) -> Iterator[Finding]:
        """What one record says and is not found by."""
        for row in self.tags(stored) or ():
            if not view.has_tag(row):
                what = f"the record is not found by {_text(row)}, which it says"
                yield Finding(STATE, stored.agent, stored.record.seq, what, _ANEW, _text(row), "none")


def derivable(stored: Stored) -> bool:
    """Whether the tags of a record that was written where its file is follow from its payload."""
    record = stored.record
    if stored.body is None or record.collection not in (MESSAGES, SESSIONS, METRICS):
        return False
    # A large message's tags came from what was still in memory; what was put there is no message.
    return record.collection != MESSAGES or not (stored.is_blob or record.kind == PUT or record.key_version != 1)


def words(view: Snapshot, after: int = 0, until: int = 1 << 62) -> Iterator[Finding]:
    """Records (behind one position, up to another) that the search index lacks, or has no business to hold."""
    for pos in view.overvectored(after, until, NAMED_MAX):
        what = f"an index of vectors holds position {pos}, where there is nothing to be searched"
        yield Finding(INDEX, "", 0, what, _WORDS, "missing", "there")
    if view.index_is_even(after, until):
        return
    for pos, agent, seq in view.unindexed(after, until, NAMED_MAX):
        what = f"the record at position {pos} is not in the search index"
        yield Finding(INDEX, agent or "", seq or 0, what, _WORDS, "there", "missing")
    for pos in view.overindexed(after, until, NAMED_MAX):
        what = f"the search index holds position {pos}, where there is nothing to be searched"
        yield Finding(INDEX, "", 0, what, _WORDS, "missing", "there")


def count_words(view: Snapshot) -> Iterator[Finding]:
    """Whether the search index holds as many words as were put into it."""
    put, there = view.words()
    if put != there:
        what = "the search index does not hold the words that were put into it"
        yield Finding(INDEX, "", 0, what, _WORDS, f"{put} words", f"{there} words" if there >= 0 else "unreadable")


def own_branches(corpus: SqlCorpus, branches: Sequence[Any]) -> frozenset[int] | None:
    """The branches that a hub wrote itself; None in an agent's file."""
    return frozenset(each.id for each in branches if each.own) if corpus.hub else None


def _row(number: int, value: str, pos: int) -> tuple[Any, ...]:
    """A tag as it lies in its table: (number, value, pos), or (number, pos, columns) where it stands for a row."""
    return (number, value, pos) if number < ROW_FIRST else (number, pos, *msgspec.json.decode(value))


def _text(row: Sequence[Any]) -> str:
    if row[0] >= ROW_FIRST:
        return f"its row of {'sessions' if row[0] == ROW_FIRST else 'metrics'} {row[2:]!r:.200}"
    return f"{_NAMES.get(row[0], row[0])} {row[1]!r:.100}"
