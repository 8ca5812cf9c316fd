"""What all machines keep together under keys: of each key what nobody has replaced or removed, whoever wrote it.

Nobody writes into another's log. Who changes what somebody else has put writes a row of his own, which says which
versions of others it stands for (`holdfast.node.shelf`). So what two machines do at once to one key is there twice,
as rivals, until somebody writes it again; what they make of rivals is up to those who use this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast import clock
from holdfast.collections.typed import Schema
from holdfast.corpus import Filter, Stored
from holdfast.corpus.search import WORDS
from holdfast.errors import Conflict, Erased, UsageError
from holdfast.integrations.mcp_server.reach import Line
from holdfast.node.shelf import GONE, OVER, PATH, NodeShelf, Row, Span, merged, others_under
from holdfast.node.store import Store
from holdfast.query import EVERYTHING, Condition, where

Raw = dict[str, Any]
Maker = Callable[[Row | None], Raw | None]
"""What a row becomes: its new content, `KEEP` for what it was, or None: it is taken away. May be called again."""

KEEP: Final[Raw] = {}
PAGE: Final = 400
ASKED_MAX: Final = 200
"""So many keys one question to a hub names."""
TRIES: Final = 100
COMMIT_BYTES: Final = 600 << 10
"""Rows larger than this together are written one by one; so are more than `PAGE`."""


class Shared:
    """The rows of one collection. Safe to share among threads; any number of processes and machines may write.

    Args:
        line: to the hub, and the store whose agent writes.
        collection: its name.

    Raises:
        UsageError: the collection is sealed on this machine: nobody else could read it.
    """

    def __init__(self, line: Line, collection: str) -> None:
        store = line.store
        if collection in store._sealed:
            raise UsageError(
                f"{collection!r} is sealed here, and could not be shared", hint="keep it in a store of its own"
            )
        self.line = line
        self.store = store
        self.collection = collection
        self._lock = threading.Lock()  # one writer of this process at a time: the others would only have to look again
        if store.hubs:
            NodeShelf(store, collection)  # tells the hub what rows are found by
            schema: Schema[Any] = Schema(None, index=(PATH,))
            self._at_hub = store._reader().hub.collection(collection, schema)

    # -- reading ------------------------------------------------------------------------------------------------------

    def every(self, prefix: str = "") -> list[Row]:
        """All rows whose keys begin so, in the order of their keys."""
        condition: Condition = where(PATH).starts(prefix) if prefix else EVERYTHING
        own = self._scanned(self.store, prefix)
        others = self.line.ask(lambda: self._found(condition), lambda: self._beside(self._scanned, prefix))
        return merged([Span([*own, *others], "")]).rows

    def rows(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows of these keys, of which there are any."""
        wanted = list(dict.fromkeys(keys))

        def at_hub() -> list[Row]:
            lots = [wanted[start : start + ASKED_MAX] for start in range(0, len(wanted), ASKED_MAX)]
            return [row for lot in lots for row in self._found(where(PATH).is_in(lot))]

        own = self._named(self.store, wanted)
        others = self.line.ask(at_hub, lambda: self._beside(self._named, wanted))
        return {row.key: row for row in merged([Span([*own, *others], "")]).rows}

    def newest(self, limit: int) -> list[Row]:
        """The rows written last, the newest first; at most so many."""
        which = Filter(collection=self.collection, limit=limit * 2)

        def here(store: Store, limit: int) -> list[str]:
            one = msgspec.structs.replace(which, agents=(store.agent,), current=True, limit=limit)
            return [stored.record.key for stored in store._log.corpus.page(one)]

        keys = here(self.store, limit)
        keys += self.line.ask(
            lambda: [each.key for each in self.store._reader().hub.records(which)],
            lambda: self._beside(here, limit),
        )
        found = sorted(self.rows(keys).values(), key=lambda row: (-row.time, row.key))
        return found[:limit]

    # -- writing ------------------------------------------------------------------------------------------------------

    def change(self, makers: Mapping[str, Maker]) -> None:
        """Makes of each row what its maker says, in one commit where that can be.

        Raises:
            Conflict: others of this log were faster all the time.
            NodeFull: this machine's disk is full; nothing was written.
        """
        left = dict(makers)
        with self._lock:
            for _ in range(TRIES):
                if not left:
                    return
                # One's own versions first: what is read behind them is at least as new, or the write is refused.
                own = {key: self.store._log.newest(self.collection, key) for key in left}
                found = self.rows(left)
                made = {key: raw for key, make in left.items() if (raw := make(found.get(key))) is not KEEP}
                left = {key: make for key, make in left.items() if key in made}
                self._write(own, found, made, left)
        if left:
            raise Conflict(f"{len(left)} keys of {self.collection} were changed all the time", hint="try again")

    # -- inside -------------------------------------------------------------------------------------------------------

    def _write(
        self, own: Mapping[str, Stored | None], found: Mapping[str, Row], made: Mapping[str, Raw | None], left: Any
    ) -> None:
        """Writes rows, and takes those that are written from what is left to do."""
        rows: list[tuple[str, Raw | None, int]] = []
        for key, raw in made.items():
            before, row = own[key], found.get(key)
            over = others_under(row, self.store.agent) if row is not None else {}
            # Of a key that this agent had taken away: what it said of others' versions still holds.
            for name, version in self._said(before).items():
                over[name] = max(version, over.get(name, 0))
            version = 0 if before is None else before.record.key_version
            if raw is None and not over:
                rows.append((key, None, version))
            else:
                told = {GONE: True, WORDS: ""} if raw is None else raw
                rows.append((key, {PATH: key, **told, **({OVER: over} if over else {})}, version))
        rows = [row for row in rows if row[1] is not None or row[2]]  # nothing of one's own: nothing to delete
        for key in set(made) - {row[0] for row in rows}:
            left.pop(key, None)
        at_once = len(rows) <= PAGE and len(msgspec.json.encode([raw for _, raw, _ in rows])) <= COMMIT_BYTES
        for lot in [rows] if at_once else [[row] for row in rows]:
            try:
                with self.store.batch() as batch:
                    for key, raw, version in lot:
                        if raw is None:
                            batch.delete(key, collection=self.collection, expect=version)
                        else:
                            batch.put(key, raw, collection=self.collection, expect=version)
            except Conflict:
                continue
            for key, _, _ in lot:
                left.pop(key, None)

    def _said(self, stored: Stored | None) -> dict[str, int]:
        if stored is None:
            return {}
        try:
            raw = self.store._load(stored)
        except Erased:
            return {}
        return dict(raw.get(OVER, {})) if isinstance(raw, dict) else {}

    def _found(self, condition: Condition) -> list[Row]:
        """Others' rows at the hub."""
        rows: list[Row] = []
        after = ""
        while True:
            page = self._at_hub.find(condition, order=PATH, limit=PAGE, after=after)
            rows += [
                _row(each.key, each.agent, each.version, each.time * 1000, each.value)
                for each in page.found
                if each.agent != self.store.agent and isinstance(each.value, dict)
            ]
            after = page.cursor
            if not after:
                return rows

    def _beside(self, look: Callable[[Store, Any], list[Any]], what: Any) -> list[Any]:
        """What the other agents of this directory have."""
        return [each for store in self.line.neighbours() for each in look(store, what)]

    def _scanned(self, store: Store, prefix: str) -> list[Row]:
        out: list[Row] = []
        after = ""
        while True:
            page = store._log.corpus.keys(store.agent, self.collection, prefix, after, PAGE)
            out += self._read(store, page)
            if len(page) < PAGE:
                return out
            after = page[-1].record.key

    def _named(self, store: Store, keys: Sequence[str]) -> list[Row]:
        found = (store._log.newest(self.collection, key) for key in keys)
        return self._read(store, [stored for stored in found if stored is not None])

    def _read(self, store: Store, found: Sequence[Stored]) -> list[Row]:
        rows = []
        for stored in found:
            try:
                raw = store._load(stored)
            except Erased:
                continue
            record = stored.record
            if isinstance(raw, dict):
                rows.append(_row(record.key, store.agent, record.key_version, clock.millis(record.hlc), raw))
        return rows


def _row(key: str, agent: str, version: int, time: float, raw: Any) -> Row:
    return Row(key, agent, version, time, lambda: raw)
