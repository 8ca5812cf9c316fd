"""Full-text search that never slows a write: the index is filled in the background, behind a watermark.

The index (FTS5, contentless: it holds no text that an erasure could not reach) is filled in lots inside the filler's
own transaction. A search reads the index and then scans what is not indexed yet, up to a bound; beyond it, it says so.
Results come newest first: ranking a common word over millions of records costs a third of a second, the newest 20
cost 0.1 ms (and newest is what people look for in a log).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus.pages import LIVE
from holdfast.corpus.port import fits
from holdfast.corpus.rows import COLUMNS, Stored
from holdfast.corpus.sql import SqlCorpus
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import HoldfastError, UsageError
from holdfast.records import SEALED, TOMBSTONE
from holdfast.wire import REDACTED

LOT: Final = 100
"""Records indexed in one transaction: about half a millisecond that a writer may have to wait."""
TAIL_MAX: Final = 500
TEXT_CHARS_MAX: Final = 64 << 10
TERMS_MAX: Final = 32
WORDS: Final = "$words"
"""The field of a value that says by which words it is found, in place of all its texts and its key."""
WORD_CHARS_MAX: Final = 500
"""Of a longer word an index may keep so much; the rest is looked at in the text."""
INDEXED: Final = "fts_pos"
"""In `meta`: the newest pos that the index holds."""
UNINDEXED: Final = "fts_gone"
"""In `meta`: up to where the words of bodies that were evicted were taken out of the index too."""
_ERASED: Final = f"SELECT pos FROM rec WHERE pos>? AND pos<=? AND why={REDACTED}"
_CANDIDATES: Final = 20
_TERM = re.compile(r'"([^"]*)"|(\S+)')
_WORD = re.compile(r"\w+")


class Hits(msgspec.Struct, frozen=True):
    """What a search found, newest first; `partial` when the unindexed tail was too long to scan whole."""

    found: list[Stored]
    partial: bool


def fill(corpus: SqlCorpus, lot: int = LOT) -> int:
    """Indexes the next lot and returns how many records it covered; 0 when nothing is left."""
    mark = corpus.meta(INDEXED) or 0
    batch = corpus.feed(mark, lot, corpus.lot_bytes)
    if not batch:
        return 0
    rows = [(each.pos, text, each.agent, each.record.kind) for each in batch if (text := text_of(each))]
    last = batch[-1].pos

    def job(tx: SqlTransaction) -> bool:
        if (tx.meta(INDEXED) or 0) != mark:
            return False  # another process filled it meanwhile
        # What was erased since it was read must not be indexed now: nobody would look for it here again.
        gone = {pos for (pos,) in tx.execute(_ERASED, (mark, last))}
        tx.index([row for row in rows if row[0] not in gone] if gone else rows)
        tx.set_meta(INDEXED, last)
        return True

    return len(batch) if corpus.write(job) else 0


def pending(corpus: SqlCorpus) -> int:
    """How many records the index does not hold yet."""
    return max(0, corpus.last() - (corpus.meta(INDEXED) or 0))


def search(
    corpus: SqlCorpus,
    text: str,
    *,
    agents: Sequence[str] = (),
    collection: str | None = None,
    kinds: Sequence[str] = (),
    readable: tuple[str, ...] = (),
    limit: int = 50,
) -> Hits:
    """Current values and messages that hold every term of `text`, newest first.

    Args:
        corpus: where to look.
        text: words; in double quotes a phrase, with a trailing ``*`` a beginning.
        agents, collection, kinds: narrow it.
        readable: globs of collections, of which a record must be in one; empty: any.
        limit: the most results.

    Raises:
        UsageError: nothing to look for, or too much.
    """

    def wanted(stored: Stored) -> bool:
        record = stored.record
        return (
            (not agents or stored.agent in agents)
            and (collection is None or record.collection == collection)
            and (not kinds or record.kind in kinds)
            and (not readable or fits(record.collection, readable))
        )

    return _search(corpus, terms_of(text), wanted, limit, agents)


def search_under(corpus: SqlCorpus, text: str, agent: str, collection: str, prefix: str, *, limit: int = 50) -> Hits:
    """The same among the keys of one agent's collection that begin with a prefix (of whole words, such as an id).

    Raises:
        UsageError: nothing to look for, or too much.
    """
    # The key is indexed with the text, so the index itself leaves out what lies elsewhere.
    under = Term(_WORD.findall(prefix.replace("_", " ").casefold()), prefix=False)

    def wanted(stored: Stored) -> bool:
        record = stored.record
        return stored.agent == agent and record.collection == collection and record.key.startswith(prefix)

    return _search(corpus, [*terms_of(text), under], wanted, limit, (agent,))


def _search(
    corpus: SqlCorpus, terms: list[Term], wanted: Callable[[Stored], bool], limit: int, agents: Sequence[str]
) -> Hits:
    mark = corpus.meta(INDEXED) or 0
    tail = corpus.feed(mark, TAIL_MAX)
    partial = bool(tail) and corpus.last() > tail[-1].pos
    found: list[Stored] = []
    for lot in candidates(corpus, terms, tail, mark, agents, limit):
        found += standing(corpus, [stored for stored in lot if wanted(stored)])
        if len(found) >= limit:
            break
    return Hits(found[:limit], partial)


def standing(corpus: SqlCorpus, lot: list[Stored]) -> list[Stored]:
    """Those that were neither replaced nor deleted since: one question for all, which may go to another machine."""
    if not lot:
        return lot
    sql = f"SELECT r.pos FROM rec r WHERE r.pos IN ({','.join('?' * len(lot))}) AND {LIVE}"
    there = {row[0] for row in corpus.query(sql, [stored.pos for stored in lot])}
    return [stored for stored in lot if stored.pos in there]


def standing_at(corpus: SqlCorpus, places: Sequence[int], collection: str | None = None) -> list[Stored]:
    """The records at these positions that are values now, the newest first; of others not even the body is read.

    Args:
        corpus: where.
        places: at most `TAIL_MAX` positions.
        collection: the only one, if it is.
    """
    if not places:
        return []
    of = "" if collection is None else " AND r.coll=(SELECT id FROM name WHERE s=?)"
    marks = ",".join("?" * len(places))
    sql = f"SELECT {COLUMNS} FROM rec r WHERE r.pos IN ({marks}){of} AND {LIVE} ORDER BY r.pos DESC"
    return corpus.rows(sql, (*places, *(() if collection is None else (collection,))))


def text_of(stored: Stored) -> str:
    """What of a record can be searched: its key and every text in its value; empty for what is gone or sealed."""
    record = stored.record
    if record.flags & (TOMBSTONE | SEALED) or not record.collection:
        return ""
    parts = [record.key]
    if stored.body is not None and not stored.is_blob and record.fmt != codec.FMT_BYTES:
        with contextlib.suppress(HoldfastError):  # damage is `verify`'s to report; a search must not stop at it
            value = codec.deserialise(record.fmt, stored.payload())
            if isinstance(value, dict) and isinstance(said := value.get(WORDS), str):
                return said[:TEXT_CHARS_MAX]  # it says itself what it is found by
            parts += _texts(value)
    return " ".join(parts)[:TEXT_CHARS_MAX]


def words_of(text: str) -> list[str]:
    """The words of a text, as they are searched for."""
    return _WORD.findall(text.replace("_", " ").casefold())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)


class Term(msgspec.Struct, frozen=True):
    """Words that stand behind one another; with `prefix` the last is a beginning, `quoted` by whoever asked."""

    words: list[str]
    prefix: bool
    quoted: bool = False

    def within(self, words: list[str]) -> bool:
        """Whether it is among these words."""
        size = len(self.words)
        for at in range(len(words) - size + 1):
            window = words[at : at + size]
            if window[:-1] == self.words[:-1] and (
                window[-1].startswith(self.words[-1]) if self.prefix else window[-1] == self.words[-1]
            ):
                return True
        return False


class Look:
    """Records that hold every word of a text, the newest first, in lots; deleted ones among them.

    Attributes:
        last: the position that was looked down to.
        ended: whether there is nothing below it.
        partial: whether the newest may be missing, as the index is far behind.

    Args:
        corpus: where to look.
        terms: what to look for.
        below: a position.
        hits: how many are looked at, about.
    """

    def __init__(self, corpus: SqlCorpus, terms: list[Term], below: int, hits: int) -> None:
        self._corpus, self._terms, self._below, self._hits = corpus, terms, below, hits
        self.last = below
        self.ended = self.partial = False

    def __iter__(self) -> Iterator[list[Stored]]:
        corpus, terms, seen = self._corpus, self._terms, 0
        mark = corpus.meta(INDEXED) or 0
        if self._below > mark + 1:
            tail = corpus.feed(mark, TAIL_MAX)
            self.partial = bool(tail) and corpus.last() > tail[-1].pos
            near = [each for each in reversed(tail) if each.pos < self._below and within(each, terms)]
            seen, self.last = len(near), mark + 1
            if near:
                yield near
        words = [(term.words, term.prefix) for term in terms]
        while seen < self._hits:
            rows = corpus.matching(words, min(self.last, self._below), min(LOT, self._hits), ())
            if not rows:
                self.ended = True
                return
            seen, self.last = seen + len(rows), rows[-1].pos
            yield [each for each in rows if corpus.index_is_exact or _holds(each, terms)]


def looked(corpus: SqlCorpus, text: str, below: int, hits: int) -> Look:
    """Records below a position that hold every word of a text.

    Raises:
        UsageError: nothing to look for, or too much.
    """
    return Look(corpus, terms_of(text), below, hits)


def terms_of(text: str) -> list[Term]:
    """What a text asks for.

    Raises:
        UsageError: nothing to look for, or too much.
    """
    terms = []
    for phrase, word in _TERM.findall(text):
        words = words_of(phrase or word)
        if words:
            terms.append(Term(words, prefix=word.endswith("*"), quoted=bool(phrase)))
    if not terms:
        raise UsageError(f"nothing to search for in {text!r}", hint="give at least one word")
    if len(terms) > TERMS_MAX:
        raise UsageError(f"{len(terms)} search terms, the most is {TERMS_MAX}")
    return terms


def candidates(
    corpus: SqlCorpus, terms: list[Term], tail: list[Stored], mark: int, agents: Sequence[str], limit: int
) -> Iterator[list[Stored]]:
    """Records that hold every term, the newest first, in lots; replaced and deleted ones among them.

    Args:
        corpus: where.
        terms: what to look for.
        tail: what is not indexed yet.
        mark: up to where it is.
        agents: whose the index is to look for, as far as it knows; empty: anybody's.
        limit: how many are wanted, about.
    """
    step = max(_CANDIDATES, min(limit, TAIL_MAX))  # most often all of the first are wanted
    near = (stored for stored in reversed(tail) if within(stored, terms))
    while lot := list(islice(near, step)):
        yield lot
    # Only up to the mark that the tail begins at: the filler may have moved on since, and nothing is shown twice.
    below = mark + 1
    while rows := corpus.matching([(term.words, term.prefix) for term in terms], below, step, agents):
        yield [stored for stored in rows if corpus.index_is_exact or _holds(stored, terms)]
        below, step = rows[-1].pos, min(step * 4, TAIL_MAX)


def _holds(stored: Stored, terms: list[Term]) -> bool:
    if all(len(term.words) == 1 and len(term.words[0]) <= WORD_CHARS_MAX for term in terms):
        return True
    return within(stored, terms)


def whole(
    corpus: SqlCorpus,
    terms: list[Term],
    tail: list[Stored],
    mark: int,
    *,
    agents: Sequence[str],
    collection: str | None,
    limit: int,
) -> Iterator[tuple[int, list[Stored]]]:
    """Records that hold every term and are values now, the newest first, in lots: how many were looked at, and these.

    Args:
        corpus, terms, tail, mark, agents, limit: see `candidates`.
        collection: the only one, if it is.
    """
    near = [stored for stored in reversed(tail) if within(stored, terms)]
    if near:
        yield len(near), standing(corpus, near)
    below, step = mark + 1, max(_CANDIDATES, min(limit, TAIL_MAX))
    asked = [(term.words, term.prefix) for term in terms]
    while places := corpus.places(asked, below, step, agents):
        found = standing_at(corpus, places, collection)
        yield len(places), [stored for stored in found if corpus.index_is_exact or _holds(stored, terms)]
        if len(places) < step:
            return  # that was all of them
        below, step = places[-1], min(step * 4, TAIL_MAX)


def within(stored: Stored, terms: list[Term]) -> bool:
    """Whether a record's text holds every term."""
    words = words_of(text_of(stored))
    return all(term.within(words) for term in terms)
