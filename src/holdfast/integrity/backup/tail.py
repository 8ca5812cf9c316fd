"""Goes on behind a restored backup with the records of a file that is damaged elsewhere, as far as they prove.

A hub's file is one row of records of many branches. Those behind the newest backup are as good as an incremental
backup of them would have been: they are read in their order, each held against its branch's chain, until the first that
cannot be read or does not follow. What the file derived is derived again by the hand that restores backups.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus import SqliteCorpus, Stored, moving
from holdfast.corpus.snapshot import snapshot
from holdfast.corpus.sql import TAGS
from holdfast.corpus.tags import ROW_FIRST, TABLES
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.integrity.backup import source as reading
from holdfast.integrity.backup.replay import Replay
from holdfast.integrity.backup.segment import Beside
from holdfast.integrity.backup.source import Part, Tables
from holdfast.integrity.checks import Line, check_payload, check_size
from holdfast.integrity.derived import derivable
from holdfast.log.drafts import tags_of
from holdfast.records import MORE
from holdfast.wire import Mark

LOT: Final = 500
UNDERIVED: Final = (TAGS["msg_id"], TAGS["touched"], TAGS["request"])
"""Tags of a hub's own records that do not follow from what they hold."""
FRESH: Final = ("name", "stream", "branch")


class Tail(msgspec.Struct, kw_only=True):
    """What a damaged file has behind a position.

    Attributes:
        after: the position.
        upto: the last that is proven, and ends a batch; `after` if there is none.
        last: the newest position that the file shows; 0 where even that cannot be read.
        tables: what stands beside the records; None: that cannot be read, and nothing can go on from here.
        why: what stopped it.
    """

    after: int
    upto: int
    last: int = 0
    tables: Tables | None = None
    why: str = ""


def look(part: Part, after: int, heads: dict[int, Mark]) -> Tail:
    """How far a damaged file goes on behind a position, without a doubt.

    Args:
        part: the file, opened on a copy.
        after: up to here it is known.
        heads: where each branch stands there, by its number.
    """
    tail = Tail(after=after, upto=after)
    try:
        tail.last = part.corpus.last()
        tail.tables = reading.moment(part)
        streams = {row[0]: bytes(row[1]) for row in tail.tables.rows["stream"]}
        lines = {}
        for row in tail.tables.rows["branch"]:
            mark = heads.get(row[0], Mark(row[4], bytes(row[5])))
            lines[row[0]] = Line(streams[row[1]], mark.seq, mark.link)
    except (HoldfastError, KeyError, TypeError, ValueError) as error:
        tail.tables, tail.why = None, str(error)
        return tail
    seen = after
    try:
        with snapshot(part.corpus) as view:
            for stored in view.records(after):
                line = lines.get(stored.branch)
                wrong = check_size(stored) or check_payload(stored)
                if wrong is None and (line is None or stored.pos != seen + 1):
                    tail.why = f"position {stored.pos} does not follow {seen}"
                    break
                found = [wrong] if wrong is not None else line.see(stored) if line is not None else []
                if found:
                    tail.why = str(found[0])
                    break
                seen = stored.pos
                if not stored.record.flags & MORE:
                    tail.upto = seen
    except (HoldfastError, TypeError, ValueError) as error:
        tail.why = str(error)
    return tail


def extend(corpus: SqliteCorpus, part: Part, tail: Tail) -> int:
    """Writes the proven tail behind what a file has; returns how many records that were.

    Args:
        corpus: the restored file, or a new one; nobody else has it.
        part: the damaged file, as `look` was given it.
        tail: what `look` found.

    Raises:
        IntegrityError: the two are not of one hub.
    """
    tables = tail.tables
    if tables is None or tail.upto <= tail.after:
        return 0
    replay = Replay(corpus, tables, set(), tail.upto)
    if tail.after:
        corpus.write(lambda tx: _join(tx, tables))
    else:
        replay.begin()
    ends = {branch.id: Mark(branch.seq, branch.link) for branch in corpus.branches()}
    after = tail.after
    while after < tail.upto:
        lot = list(reading.records(part, after, min(tail.upto, after + LOT)))
        if not lot:
            raise IntegrityError(f"the records behind position {after} cannot be read any more")
        told = {each.pos for each in lot if reading.explicit(each, tables.own, part.kind)}
        before = {each.branch: ends[each.branch] for each in lot}
        ends |= {each.branch: Mark(each.record.seq, each.record.link) for each in lot}
        plain = [_plain(each) for each in lot]
        beside = reading.beside(part, (after + 1, lot[-1].pos), told, before, {b: ends[b] for b in before})
        _derive(beside, [each for each in plain if each.pos in told])

        def job(tx: Any, plain: list[Stored] = plain, beside: Any = beside) -> None:
            replay._write(tx, plain)
            for table, rows in beside.items():
                replay._fill(tx, table, rows)

        corpus.write(job)
        after = lot[-1].pos
    replay.finish()
    return tail.upto - tail.after


def _join(tx: Any, tables: Tables) -> None:
    """Adds the names, streams and branches that came since, and lets go of what is written anew in the end."""
    tx.execute("DELETE FROM label")
    tx.execute("DELETE FROM lineage")
    for table in FRESH:
        columns = reading.columns(table)
        have = {row[0]: row for row in tx.execute(f"SELECT {columns} FROM {table}")}
        fresh = []
        for row in tables.rows[table]:
            if row[0] not in have:
                # A branch stands at its base until its records are written.
                fresh.append((*row[:6], row[4], row[5], None, 0) if table == "branch" else tuple(row))
            elif tuple(have[row[0]][:2]) != tuple(row[:2]):
                raise IntegrityError(f"the backup and the damaged file differ in {table} {row[0]}: another hub's?")
        if fresh:
            tx.fill(table, columns, fresh)
    tx.set_meta(moving.UNFINISHED, b"")
    tx.forget()


def _derive(beside: Beside, own: list[Stored]) -> None:
    """Puts what a hub's own records say in the place of what the damaged lists say of them."""
    made: dict[str, list[list[Any]]] = {"tag": [], "session": [], "sample": []}
    anew = set()
    for stored in own:
        if stored.body is None or not derivable(stored):
            continue
        try:
            found = tags_of(stored.record, stored.body)
        except HoldfastError:
            continue
        anew.add(stored.pos)
        for number, text in found:
            if number < ROW_FIRST:
                made["tag"].append([number, text, stored.pos])
            else:
                made[TABLES[number][0]].append([stored.pos, *msgspec.json.decode(text)])
    for table, rows in made.items():
        place = 2 if table == "tag" else 0
        kept = [row for row in beside.get(table, ()) if row[place] not in anew or (place and row[0] in UNDERIVED)]
        told = {tuple(row[:3]) for row in kept} if place else set()
        beside[table] = [*kept, *(row for row in rows if tuple(row[:3]) not in told)]


def _plain(stored: Stored) -> Stored:
    """The record with its payload as it was written, as a segment holds it."""
    if stored.body is None:
        return stored
    return msgspec.structs.replace(stored, codec=codec.RAW, body=stored.payload())
