"""GET /metrics: what the hub counted, and what can be told of its files, in Prometheus' text form.

prometheus-client is loaded by the first scrape, in the thread that reads, with a registry of our own: what it would
measure by itself about the process is not the hub's. A metric is here only if something feeds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.corpus.search import pending
from holdfast.corpus.space import Space
from holdfast.errors import HoldfastError, MissingExtra
from holdfast.hub.api import Call, Operation, Reply, typed
from holdfast.hub.core import Core
from holdfast.hub.directory import HubDirectory
from holdfast.hub.home import Home
from holdfast.hub.indexes import every
from holdfast.hub.meters import BOUNDS, NODES_MAX, OTHER, OUTCOMES, Meter
from holdfast.hub.principal import METRICS
from holdfast.hub.routes_health import hub_version, look
from holdfast.hub.seen import Standing
from holdfast.log.hits import IndexStatus

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
AGENTS_MAX: Final = 200
PAGE_BYTES: Final = 4096
BLOBS_EVERY_S: Final = 60.0
BLOBS_PATIENCE: Final = 100
"""Blobs are counted anew after so many times of what counting them took: at most a hundredth of a disk's time."""

Labels = tuple[str, ...]


def operations(core: Core) -> Iterator[Operation]:
    """The metrics."""
    yield Operation(
        method="GET",
        path="/metrics",
        endpoint=typed(Scrape(core)),
        needs=METRICS,
        summary="What Prometheus scrapes",
        tag="health",
        answer=bytes,
        gives=TEXT,
    )


class Found(msgspec.Struct):
    """What a scrape looks at before anything is written down, each thing once."""

    checks: dict[str, str]
    warnings: list[str]
    nodes: list[Standing]
    space: Space
    files: dict[str, int]
    wal_bytes: int | None
    pending: int | None
    indexes: list[IndexStatus]
    rate: float
    now: float


class Scrape:
    """Answers one scrape after another; `core.options.seed_metrics` adds the names of the seed.

    Args:
        core: the hub.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._blobs = Blobs(core.home.path / "blobs") if isinstance(core.home, HubDirectory) else None

    async def __call__(self, call: Call) -> Reply:
        """Every metric as of now."""
        core = self._core
        checks, warnings = await look(core)
        nodes, now = core.standings(), time.monotonic()
        rate = core.meters.intake.rate(now)
        counted = self._blobs
        blobs = {"blob": await core.files(lambda: counted.size(now))} if counted is not None else {}

        def work() -> bytes:
            found = Found(
                checks=checks,
                warnings=warnings,
                nodes=nodes,
                space=core.home.reserve.state(),
                files={**_sizes(core.home), **blobs},
                wal_bytes=_wal_bytes(core),
                pending=_pending(core),
                indexes=_indexes(core),
                rate=rate,
                now=core.home.wall.now_ms() / 1000,
            )
            return render(core, found)

        return Reply(await core.read(work), kind=TEXT)


class Blobs:
    """How many bytes the blobs take: counted by looking, and remembered for a while.

    Args:
        root: the directory below which they lie.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._size = 0
        self._again = float("-inf")

    def size(self, now: float) -> int:
        """Bytes of all blobs, as of the last count.

        Args:
            now: `time.monotonic`.
        """
        if now >= self._again:
            began = time.monotonic()
            self._size = sum(_size_of(path) for path in self._root.rglob("*") if path.is_file())
            self._again = now + max(BLOBS_EVERY_S, BLOBS_PATIENCE * (time.monotonic() - began))
        return self._size


def render(core: Core, found: Found) -> bytes:
    """All metrics as text.

    Raises:
        MissingExtra: prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest
    except ImportError as error:
        raise MissingExtra(
            f"metrics need a package that is not installed: {error.name}", hint="pip install 'holdfast[hub]'"
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(core, found))
    return generate_latest(registry)


class _Collector:
    """Turns what was found into metric families, in the order in which they are shown."""

    def __init__(self, core: Core, found: Found) -> None:
        self._core = core
        self._found = found

    def collect(self) -> Iterator[Any]:
        """Every family."""
        yield from self._life()
        yield from self._work()
        yield from self._room()
        yield from self._nodes()
        yield from self._backups()
        yield from self._notifications()
        if self._core.options.seed_metrics:
            yield from self._seed()

    def _life(self) -> Iterator[Any]:
        core, found = self._core, self._found
        backend = _backend(core)
        yield _gauge(
            "build_info", "Which Holdfast this is; always 1", {(hub_version(), backend): 1}, ("version", "backend")
        )
        started = found.now - (time.monotonic() - core.started)
        yield _gauge("hub_start_timestamp_seconds", "When this hub process started", started)
        ready = all(state == "ok" for state in found.checks.values())
        yield _gauge("hub_ready", "1 while writes are taken, as /readyz says", int(ready))
        yield _gauge(
            "hub_check_ok",
            "1 for each check of /readyz that passed",
            {(name,): int(state == "ok") for name, state in found.checks.items()},
            ("check",),
        )
        yield _gauge("hub_warnings", "What is degraded and works all the same; /readyz says what", len(found.warnings))
        scan = core.scanning.progress
        yield _gauge("scan_findings", "What the scan found not to be as it was written", len(scan.findings))
        yield _gauge("scan_last_turn_timestamp_seconds", "When the scan last looked at what is new", scan.at_ms / 1000)
        yield _gauge(
            "scan_last_round_timestamp_seconds", "When the scan had last looked at everything", scan.round_ms / 1000
        )
        yield _counter("scan_records", "Records that the scan has looked at", scan.records)
        yield _gauge(
            "hub_damaged", "1 if something was not what was recorded when the hub started", int(bool(core.home.damage))
        )

    def _work(self) -> Iterator[Any]:
        core, backend = self._core, _backend(self._core)
        writer, feed, intake = core.writer, core.feed, core.meters.intake
        meters = list(core.meters.operations())
        outcomes = {(m.name, backend, OUTCOMES[n]): count for m in meters for n, count in enumerate(m.counts)}
        yield _counter(
            "operations",
            "Requests by route and outcome: ok, refused (4xx), failed (5xx), gone (the client left first)",
            outcomes,
            ("operation", "backend", "outcome"),
        )
        yield _histogram(
            "operation_duration_seconds",
            "How long requests took; live feeds are left out",
            [(m.name, backend, m) for m in meters if not m.lasting],
        )
        yield _counter(
            "hub_ingest_records",
            "Records taken in, by the node that sent them; 'hub': from plain clients",
            {(who,): count for who, count in list(intake.records.items())},
            ("node",),
        )
        yield _counter(
            "hub_ingest_bytes",
            "Bytes of the bodies of these records as they are stored, without blobs",
            {(who,): count for who, count in list(intake.bytes.items())},
            ("node",),
        )
        yield _counter("hub_commits", "Transactions that wrote records", writer.commits)
        yield _counter(
            "hub_syncs", "Times the log was forced to the disk, each for all that had been committed", writer.syncs
        )
        yield _gauge("hub_position", "The newest position in commit order", feed.head)
        yield _gauge("hub_sse_clients", "Readers that listen to the feed now", feed.listeners)
        yield _counter("hub_feed_overflows", "Times a listener was too slow and went back to reading", feed.overflows)

    def _room(self) -> Iterator[Any]:
        found, space = self._found, self._found.space
        yield _gauge(
            "storage_bytes",
            "Bytes on the disk by what they hold: log (records, newest values and search index), wal, blob, reserve",
            {(kind,): size for kind, size in found.files.items()},
            ("kind",),
        )
        if space.total:  # a database server's disk is not ours to see
            yield _gauge("hub_disk_free_bytes", "Free bytes on the hub's disk", space.free)
            yield _gauge("hub_disk_size_bytes", "Size of the hub's disk", space.total)
            yield _gauge("hub_disk_floor_bytes", "Free bytes below which writes are refused", space.floor)
        if found.wal_bytes is not None:
            yield _gauge("wal_bytes", "Bytes in the write-ahead log that are not in the file yet", found.wal_bytes)
        yield from self._indexes()

    def _indexes(self) -> Iterator[Any]:
        found, index = self._found, ("index",)
        pending = {(each.name,): each.pending for each in found.indexes}
        if found.pending is not None:
            pending["search",] = found.pending  # the index of words
        yield _gauge("index_pending_records", "Records that the index does not hold yet", pending, index)
        vectors = {(each.name,): each.vectors for each in found.indexes}
        yield _gauge("index_vectors", "Vectors that the index of a collection holds", vectors, index)
        failed = {(each.name,): each.failed for each in found.indexes}
        what = "Records that the embedding function failed on; they are tried again"
        yield _gauge("index_failed_records", what, failed, index)
        complete = {(each.name,): int(each.complete) for each in found.indexes}
        what = "1 if the index once held everything; until then searches by it find a part"
        yield _gauge("index_complete", what, complete, index)

    def _nodes(self) -> Iterator[Any]:
        nodes = self._found.nodes[:NODES_MAX]
        yield _gauge("hub_nodes", "Nodes that were ever seen", len(self._found.nodes))
        yield _gauge(
            "node_last_contact_timestamp_seconds",
            "When a node last spoke to this hub",
            {(n.node,): n.seen_s for n in nodes},
            ("node",),
        )
        behind: dict[Labels, float] = {}
        for at, count in (((n.node, agent), c) for n in nodes for agent, c in n.behind.items()):
            where = at if at in behind or len(behind) < AGENTS_MAX else (OTHER, OTHER)
            behind[where] = behind.get(where, 0) + count
        yield _gauge(
            "node_behind_records",
            "Records that a node has said it holds and this hub does not, by agent",
            behind,
            ("node", "agent"),
        )
        yield _gauge(
            "node_sync_lag_seconds",
            "Age of the oldest record that this hub lacks, by the node's word; 0 if it lacks none",
            {(n.node,): n.lag_s(self._found.now) for n in nodes},
            ("node",),
        )
        yield _gauge(
            "clock_skew_seconds",
            "How far a node's clock was ahead of this hub's when it last said hello",
            {(n.node,): n.skew_s for n in nodes if n.skew_s is not None},
            ("node",),
        )

    def _backups(self) -> Iterator[Any]:
        backups = self._core.backups
        if backups is None:
            return
        yield _gauge("backup_failing", "1 if the last backup was not made, or did not come back", bool(backups.trouble))
        yield _gauge("backup_verified", "Backups that a drill has brought back", backups.verified)
        yield _gauge(
            "backup_newest_verified_timestamp_seconds",
            "When the newest verified backup was made; 0: there is none",
            backups.newest_ms / 1000,
        )
        yield _gauge(
            "backup_drill_last_success_timestamp_seconds",
            "When a drill last brought all of its backups back; 0: never",
            backups.drilled_ms / 1000,
        )

    def _notifications(self) -> Iterator[Any]:
        notifying = self._core.notifying
        yield _counter("notifications_sent", "Notifications that were taken", notifying.sent)
        yield _counter("notifications_failed", "Times a notification was not taken", notifying.failed)
        yield _gauge("notifications_waiting", "Notifications that are still to be sent", notifying.waiting)
        yield _gauge("notifications_given_up", "Notifications that were given up", notifying.given_up)

    def _seed(self) -> Iterator[Any]:
        nodes = self._found.nodes[:NODES_MAX]
        yield _family(
            "gauge",
            "sync_lag_seconds",
            "As holdfast_node_sync_lag_seconds",
            {(n.node,): n.lag_s(self._found.now) for n in nodes},
            ("node",),
        )
        yield _family(
            "gauge",
            "htpc_write_throughput_bytes",
            "Bytes of records taken in a second, in the last minute",
            self._found.rate,
        )


def _gauge(name: str, text: str, values: Any, labels: Labels = ()) -> Any:
    return _family("gauge", f"holdfast_{name}", text, values, labels)


def _counter(name: str, text: str, values: Any, labels: Labels = ()) -> Any:
    return _family("counter", f"holdfast_{name}", text, values, labels)


def _family(kind: str, name: str, text: str, values: float | Mapping[Labels, float], labels: Labels = ()) -> Any:
    """A family with these values by their labels, or one value without; prometheus-client adds a counter's `_total`."""
    from prometheus_client import core as families

    make = families.GaugeMetricFamily if kind == "gauge" else families.CounterMetricFamily
    family = make(name, text, labels=labels)
    for at, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric(at, value)
    return family


def _histogram(name: str, text: str, meters: Sequence[tuple[str, str, Meter]]) -> Any:
    from prometheus_client import core as families

    family = families.HistogramMetricFamily(f"holdfast_{name}", text, labels=("operation", "backend"))
    for operation, backend, meter in meters:
        family.add_metric((operation, backend), list(_cumulative(meter.buckets)), meter.seconds)
    return family


def _cumulative(counts: Iterable[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
        total += count
        yield bound, total


# -- what the place can tell where everything lies ----------------------------------------------------------------


def _backend(core: Core) -> str:
    return "sqlite" if isinstance(core.home, HubDirectory) else "postgresql"


def _sizes(home: Home) -> dict[str, int]:
    if not isinstance(home, HubDirectory):
        return {}  # a database server tells what it takes
    sizes = {"log": _size_of(home.path / "hub.db"), "wal": _size_of(home.path / "hub.db-wal")}
    return {**sizes, "reserve": home.reserve.state().ballast}


def _wal_bytes(core: Core) -> int | None:
    return core.corpus.wal_pages * PAGE_BYTES if isinstance(core.home, HubDirectory) else None


def _pending(core: Core) -> int | None:
    try:
        return pending(core.corpus)
    except HoldfastError:
        return None  # the check of the corpus says so already


def _indexes(core: Core) -> list[IndexStatus]:
    try:
        return every(core)
    except HoldfastError:
        return []


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
