"""The budget of one agent's log, kept by whoever writes to it: a write that would not fit waits, or is refused.

The write's side only: it counts what is there, and refuses before anything is written. What makes room runs beside it
(`holdfast.node.evicting`), in this process or in the one that ships. What is counted: the file's pages that hold
something (free ones are used again), the WAL, and the blobs that bodies here refer to.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.corpus import eviction
from holdfast.errors import HoldfastError, NodeFull, UsageError
from holdfast.node.directory import change_config
from holdfast.node.tally import hub_status
from holdfast.records import INLINE_BYTES_MAX
from holdfast.retention import MB, Retention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.log import Draft, OpenLog
    from holdfast.node.directory import Directory

LOOK_EVERY_S: Final = 0.25
LOOK_EVERY_BYTES: Final = 1 << 20
PAUSE_S: Final = 0.02
WANT_MS: Final = 10_000
ROW_BYTES: Final = 8192
"""What a record takes besides its body, at most: a page of its own, and its share of those above it."""
_WAL_LEAST: Final = 512 << 10
_MARGIN_LEAST: Final = 320 << 10
_WAL_MOST: Final = 16 << 20
_SLACK_MOST: Final = 64 * MB
SHM_BYTES: Final = 64 << 10


class Standing(msgspec.Struct, frozen=True):
    """What the last round of eviction left, kept in node.db for every process.

    Attributes:
        at_ms: when.
        upto: records up to here were counted.
        blobs: bytes of the blobs that bodies up to there refer to.
        settled: the newest number that may go, as the hubs said.
        spare, held, pinned: bytes that could still go; that a hub or its backups lack; that are pinned.
        evicted: bodies that ever went.
        trouble: why no room could be made, in words.
    """

    at_ms: int = 0
    upto: int = 0
    blobs: int = 0
    settled: int = 0
    spare: int = 0
    held: int = 0
    pinned: int = 0
    evicted: int = 0
    trouble: str = ""


class Lines(msgspec.Struct, frozen=True):
    """How a budget is parted, in bytes.

    The file of a log never becomes smaller by itself, so it may take `log` at most: what it once took, blobs cannot.

    Attributes:
        budget: all of it.
        wal: what the WAL is kept at; it may have twice that for a moment.
        stop: log, WAL and blobs together never come past this.
        log: the log's file never comes past this.
        slack: with less room than this more is made, until there is twice as much.
    """

    budget: int
    wal: int
    stop: int
    log: int
    slack: int

    @classmethod
    def of(cls, budget: int) -> Lines:
        """The parts of a budget; without end if there is none."""
        if not budget:
            return cls(0, 0, 1 << 62, 1 << 62, 0)
        wal = max(_WAL_LEAST, min(budget // 16, _WAL_MOST))
        stop = budget - SHM_BYTES - max(budget // 32, _MARGIN_LEAST)
        return cls(budget, wal, stop, (stop - 2 * wal) * 3 // 4, min(budget // 16, _SLACK_MOST))


class Figures(msgspec.Struct, frozen=True):
    """What an agent's log takes now, in bytes.

    Attributes:
        used: in all.
        file: the log's file; `live` of it is in use, and the rest is used before the file grows.
        wal: its write-ahead log.
        blobs: what bodies here refer to.
        inline: room for bodies in the log's file.
        beside: room for blobs.
    """

    used: int
    file: int
    live: int
    wal: int
    blobs: int
    inline: int
    beside: int


class Need(msgspec.Struct, frozen=True):
    """Room that a write wants, in bytes: in the log's file, and beside it for blobs."""

    inline: int = 0
    beside: int = 0

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.inline + self.beside

    @classmethod
    def of(cls, made: Sequence[Draft]) -> Need:
        """What these drafts may take at most, before they are packed."""
        sizes = [len(draft.payload) for draft in made]
        small = sum(size for size in sizes if size <= INLINE_BYTES_MAX)
        return cls(small + small // 8 + len(made) * ROW_BYTES, sum(s for s in sizes if s > INLINE_BYTES_MAX))

    def fits(self, figures: Figures) -> bool:
        """Whether there is that much room."""
        return (
            self.inline <= figures.inline
            and self.beside <= figures.beside
            and (self.inline + self.beside <= figures.beside + figures.file - figures.live)
        )


class Room:
    """The guard of one agent's budget in this process. Safe to share among threads.

    Args:
        directory: the node's.
        opened: the agent's log.
        retention: what it may take.
    """

    def __init__(self, directory: Directory, opened: OpenLog, retention: Retention) -> None:
        self.retention = retention
        self.lines = Lines.of(retention.max_bytes)
        self._directory, self._opened = directory, opened
        self._lock = threading.RLock()  # guards what follows
        self._left = 0
        self._again = float("-inf")
        self._told = -1  # the `at_ms` of the standing that the blobs were counted from
        self._upto = self._blobs = 0

    def begin(self) -> Room:
        """Has the log's own background work keep to its part too: the WAL, and what the index takes at once."""
        if self.retention.max_bytes:
            corpus = self._opened.corpus
            corpus.engine.keep_wal(self.lines.wal)
            corpus.lot_bytes = min(corpus.lot_bytes, self.lines.wal // 16)
        return self

    @property
    def agent(self) -> str:
        """Whose log it is."""
        return self._opened.agent

    def fits(self, need: Need) -> bool:
        """Whether a write fits now; if so, it is counted. Cheap: looks every 0.25 s, or when much was written."""
        if not self.retention.max_bytes:
            return True
        with self._lock:
            size = need.size
            if size <= self._left and self._directory.wall.monotonic() < self._again:
                self._left -= size
                return True
            self._left = 0
            with contextlib.suppress(HoldfastError):
                self._opened.corpus.engine.checkpoint()
            figures = self.figures()
            if not need.fits(figures):
                return False
            # Others may write to this log too: nobody takes all that is left without looking again.
            most = min(figures.inline, figures.beside) // 4
            self._left = min(most, LOOK_EVERY_BYTES, self.lines.wal // 2) - size
            self._again = self._directory.wall.monotonic() + LOOK_EVERY_S
            return True

    def passes(self, made: Sequence[Draft]) -> bool:
        """Whether these fit now; if so, they are counted. Waits for nobody."""
        return self.fits(Need.of(made))

    def enter(self, made: Sequence[Draft]) -> None:
        """Returns once a write fits; waits `Retention.wait_s` for what a hub is taking.

        Raises:
            NodeFull: it does not fit, and nothing that would make room can leave.
        """
        self.claim(Need.of(made))

    def claim(self, need: Need) -> None:
        """Returns once there is that much room.

        Raises:
            NodeFull: as `enter` says.
        """
        if self.fits(need):
            return
        wall = self._directory.wall
        until = wall.monotonic() + self.retention.wait_s
        if want_of(self._directory, self.agent) != need:
            write_want(self._directory, self.agent, need)
        while True:
            evictor = self._directory.evictor
            if evictor is not None:
                evictor.poke()
            hope = evictor is not None and not evictor.hopeless(self.agent) and self._could_ever(need)
            left = until - wall.monotonic()
            if not hope or left <= 0:
                raise self.full(need)
            evictor.wait(min(PAUSE_S, left))
            if self.fits(need):
                return

    def figures(self) -> Figures:
        """What the log takes now."""
        corpus, lines = self._opened.corpus, self.lines
        found = eviction.usage(corpus)
        standing = standing_of(self._directory, self.agent)
        with self._lock:
            if standing.at_ms != self._told:
                self._told, self._upto, self._blobs = standing.at_ms, standing.upto, standing.blobs
            more, self._upto = eviction.blob_bytes(corpus, self._upto)
            self._blobs += more
            blobs = self._blobs
        wal = max(found.wal, 2 * lines.wal)  # what it may have at any moment is nobody else's
        free = found.file - found.live
        beside = lines.stop - found.file - wal - blobs
        inline = min(lines.log - found.file, beside) + free
        return Figures(found.file + wal + blobs, found.file, found.live, found.wal, blobs, inline, beside)

    def took_back(self, size: int) -> None:
        """A blob of an older record is here again: counted for every process, until the next round counts anew."""
        node, name = self._directory.node, f"room {self.agent}"

        def job(_: Any) -> None:
            rows = node.writer_execute("SELECT v FROM meta WHERE k=?", (name,)).fetchall()
            if rows:
                known = msgspec.msgpack.decode(rows[0][0], type=Standing)
                at_ms = max(known.at_ms + 1, self._directory.wall.now_ms())
                fresh = msgspec.structs.replace(known, blobs=known.blobs + size, at_ms=at_ms)
                node.writer_execute("UPDATE meta SET v=? WHERE k=?", (msgspec.msgpack.encode(fresh), name))

        node.commits.run(job)
        with self._lock:
            self._left = 0  # whoever writes next looks

    def lacks(self, figures: Figures) -> Need:
        """What room is to be made: none while there is enough of it, and nobody waits for more."""
        if not self.retention.max_bytes:
            return Need()
        slack, want = self.lines.slack, want_of(self._directory, self.agent)
        inline = max(want.inline, slack)
        beside = max(want.beside, slack)
        return Need(
            inline + slack - figures.inline if figures.inline < inline else 0,
            beside + slack - figures.beside if figures.beside < beside and figures.blobs else 0,
        )

    def _could_ever(self, need: Need) -> bool:
        return need.inline <= self.lines.log and need.beside <= self.lines.stop - self.lines.log

    def has_for(self, inline: int, beside: int) -> bool:
        """Whether bytes that were fetched back may stay: not if room would have to be made for them."""
        if not self.retention.keep_fetched:
            return False
        figures = self.figures()
        more = Need(inline + ROW_BYTES + 2 * self.lines.slack, beside + 2 * self.lines.slack)
        return not self.retention.max_bytes or more.fits(figures)

    def full(self, need: Need) -> NodeFull:
        """The error of a write that does not fit: how much there is, what keeps it here, and what to do."""
        self._directory.news += 1  # hubs are told soon, and not with the next routine hello
        figures, standing = self.figures(), standing_of(self._directory, self.agent)
        held = unsettled(self._opened, standing)
        away = [url for url in self._hubs() if hub_status(self._directory, url)["state"] == "offline"]
        said = f"the cache of {self.agent} is full: {figures.used:,} of {self.retention.max_bytes:,} bytes"
        why = f"{held:,} bytes are not settled at the hub and its backups, so nothing of them may leave"
        if not self._could_ever(need):
            why, hint = (
                "what is to be written is larger than the budget leaves room for",
                "raise the budget (max_bytes)",
            )
        elif not self._hubs():
            why, hint = "without a hub nothing may leave", "give the store a hub, or a larger budget (max_bytes)"
        elif away:
            hint = (
                f"bring back {away[0]}, or raise the budget (max_bytes); reads go on, and writes as soon as it answers"
            )
        elif standing.trouble:
            why, hint = standing.trouble, "raise the budget (max_bytes); holdfast retention show says what is here"
        else:
            hint = (
                "wait until the hub's backups hold it (or run the hub with --settle acked), or raise the budget"
                " (max_bytes); reads go on"
            )
        context = {
            "used": figures.used,
            "budget": self.retention.max_bytes,
            "unsettled": held,
            "size": need.size,
        }
        return NodeFull(f"{said}; {why}", hint=hint, **context)

    def _hubs(self) -> Sequence[str]:
        evictor = self._directory.evictor
        return evictor.hubs if evictor is not None else ()


def cache(directory: Directory, opened: OpenLog) -> dict[str, Any]:
    """How an agent's log stands to its budget, as JSON values; `full` while writes are refused."""
    retention = retention_of(directory, opened.agent)
    found: dict[str, Any] = {"budget": retention.max_bytes, "days": retention.days, "full": False, "trouble": ""}
    if not retention.limits:
        return {"used": opened.corpus.size_bytes(), **found}
    standing, figures = standing_of(directory, opened.agent), _figures(directory, opened, retention)
    return {
        **found,
        "used": figures.used,
        "evicted": standing.evicted,
        "unsettled": unsettled(opened, standing),
        "pinned": standing.pinned,
        "full": bool(retention.max_bytes) and not _wanted(directory, opened).fits(figures),
        "trouble": standing.trouble,
    }


def taken(directory: Directory, opened: OpenLog, retention: Retention) -> tuple[int, int, bool]:
    """What an agent's log takes in bytes, of how many it may (0: no budget), and whether writes are refused for it."""
    if not retention.max_bytes:
        return opened.corpus.size_bytes(), 0, False
    figures = _figures(directory, opened, retention)
    return figures.used, retention.max_bytes, not _wanted(directory, opened).fits(figures)


def _figures(directory: Directory, opened: OpenLog, retention: Retention) -> Figures:
    known = directory.rooms.get((opened.agent, opened.level.name))
    return (known or Room(directory, opened, retention)).figures()


def _wanted(directory: Directory, opened: OpenLog) -> Need:
    """What the next write needs at least: a row, or what somebody waits for."""
    return max(Need(ROW_BYTES), want_of(directory, opened.agent), key=lambda need: need.size)


def unsettled(opened: OpenLog, standing: Standing) -> int:
    """Bytes of the bodies behind what is settled, blobs included."""
    corpus = opened.corpus
    sql = "SELECT coalesce(sum(length(body)), 0) FROM rec WHERE pos>? AND body IS NOT NULL"
    return int(corpus.one(sql, (standing.settled,))[0]) + eviction.blob_bytes(corpus, standing.settled)[0]


def write_want(directory: Directory, agent: str, need: Need) -> None:
    """Tells whoever makes room, in whichever process, how much somebody waits for."""
    _write(directory, f"want {agent}", msgspec.msgpack.encode((directory.wall.now_ms(), need)))


def want_of(directory: Directory, agent: str) -> Need:
    """How much somebody waits for, or did a moment ago."""
    row = directory.node.one("SELECT v FROM meta WHERE k=?", (f"want {agent}",))
    at_ms, need = msgspec.msgpack.decode(row[0], type=tuple[int, Need]) if row else (0, Need())
    return need if abs(directory.wall.now_ms() - at_ms) < WANT_MS else Need()


# -- what is written down ---------------------------------------------------------------------------------------------


def standing_of(directory: Directory, agent: str) -> Standing:
    """How the last round left an agent's log; nothing if there was none."""
    row = directory.node.one("SELECT v FROM meta WHERE k=?", (f"room {agent}",))
    return msgspec.msgpack.decode(row[0], type=Standing) if row else Standing()


def retention_of(directory: Directory, agent: str) -> Retention:
    """What was written down for an agent; everything, for ever, if nothing was."""
    return told(directory.config, agent)


def told(config: dict[str, Any], agent: str) -> Retention:
    """What config.json says of an agent.

    Raises:
        UsageError: it says something that cannot be meant.
    """
    found = config.get("retention") or {}
    said = found.get(agent) if isinstance(found, dict) else found
    if said is None:
        return Retention()
    try:
        return msgspec.convert(said, Retention)
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(
            f"config.json says of the retention of {agent}: {error}", hint="holdfast retention set"
        ) from error


def write_retention(directory: Directory, agent: str, retention: Retention) -> None:
    """Writes down what an agent's log may take, for whoever opens the node next."""

    def change(config: dict[str, Any]) -> None:
        every = config.setdefault("retention", {})
        if retention == Retention():
            every.pop(agent, None)
        else:
            plain = msgspec.to_builtins(Retention())
            every[agent] = {k: v for k, v in msgspec.to_builtins(retention).items() if v != plain[k]}

    change_config(directory.path, change)


def write_standing(directory: Directory, agent: str, standing: Standing) -> None:
    """Keeps how a round left an agent's log, for every process of this node."""
    _write(directory, f"room {agent}", msgspec.msgpack.encode(standing))


def _write(directory: Directory, name: str, data: bytes) -> None:
    node = directory.node
    sql = "INSERT INTO meta VALUES(?,?) ON CONFLICT(k) DO UPDATE SET v=excluded.v"
    node.commits.run(lambda _: node.writer_execute(sql, (name, data)))
