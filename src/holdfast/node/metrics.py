"""A node's metrics as text that Prometheus reads, without a library: derived from what lies here when it is asked for.

Several processes may share the directory; the text is the same whichever of them writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from holdfast.errors import HoldfastError
from holdfast.log.hits import statuses
from holdfast.node.directory import Directory, read_config
from holdfast.node.health import quarantined
from holdfast.node.outbox_store import Owed, owed
from holdfast.node.room import cache
from holdfast.node.scanning import progress
from holdfast.node.tally import REASONS, Tally, hub_status

AGENTS_MAX: Final = 200
OTHER: Final = "other"
_OF_INDEXES: Final = (
    ("index_vectors", "Vectors that the index of a collection holds"),
    ("index_pending_records", "Records that the embedding function has not seen yet"),
    ("index_failed_records", "Records that the embedding function failed on; they are tried again"),
    ("index_complete", "1 if the index once held everything; until then searches by it find a part"),
)
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Series = Mapping[tuple[str, ...], float]


class Family(msgspec.Struct, frozen=True):
    """One metric: its type, what it says, the names of its labels behind `node`, and its values by them."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...]
    values: Series


class _Agent(msgspec.Struct):
    """One agent's figures, added up over all that share a label."""

    records: int = 0
    bytes: int = 0
    owed: Owed = Owed()
    incidents: int = 0
    refused: int = 0
    moved: int = 0
    unreadable: int = 0
    budget: int = 0
    full: int = 0
    evicted: int = 0
    unsettled: int = 0
    scan_findings: int = 0
    scan_turn_ms: int = 0
    scan_round_ms: int = 0
    scan_records: int = 0
    indexes: dict[str, list[int]] = {}
    """By collection: vectors, records that wait, records that failed, and whether it is complete."""


def metrics(directory: Directory, hubs: Sequence[str] | None = None, *, seed_names: bool = True) -> str:
    """Every metric of a node and of all its agents, in Prometheus' text form.

    Args:
        directory: the node's.
        hubs: whose acknowledgements count; None: those that are written down, and those that were shipped to.
        seed_names: show the names of the earlier systems too.
    """
    known = _hubs(directory) if hubs is None else list(hubs)
    node = directory.node_id
    agents = _agents(directory, known)
    found = [*_of_agents(agents), *_of_hubs(directory, known), *_of_house(directory, agents)]
    lines = [line for family in found for line in _lines(family, node, "holdfast_")]
    if seed_names:
        lines += [line for family in _seeds(found) for line in _lines(family, node, "")]
    return "\n".join(lines) + "\n"


def _hubs(directory: Directory) -> list[str]:
    shipped = [row[0] for row in directory.node.query("SELECT url FROM hub ORDER BY url")]
    return list(dict.fromkeys([*read_config(directory.path).get("hubs", ()), *shipped]))


def _agents(directory: Directory, hubs: Sequence[str]) -> dict[str, _Agent]:
    found: dict[str, _Agent] = {}
    for number, name in enumerate(directory.agents()):
        figures = found.setdefault(name if number < AGENTS_MAX else OTHER, _Agent())
        try:
            _look(directory, name, hubs, figures)
        except HoldfastError:
            figures.unreadable += 1
    return found


def _look(directory: Directory, name: str, hubs: Sequence[str], into: _Agent) -> None:
    opened = directory.open_log(name, None)
    try:
        branch = opened.log.branch
        into.records += opened.corpus.head(branch.id).seq
        into.bytes += opened.corpus.size_bytes()
        # A record is owed until the slowest hub has it.
        most = max((owed(directory, opened, url) for url in hubs), key=lambda each: each.records, default=Owed())
        oldest = min((at for at in (into.owed.oldest_ms, most.oldest_ms) if at), default=0)
        into.owed = Owed(into.owed.records + most.records, into.owed.bytes + most.bytes, oldest)
        into.incidents += len(opened.incidents)
        into.refused += directory.node.one("SELECT count(*) FROM refused WHERE stream=?", (branch.stream,))[0]
        into.moved += len(quarantined(directory, name))
        room = cache(directory, opened)
        into.budget, into.full = into.budget + room["budget"], into.full + room["full"]
        into.evicted += room.get("evicted", 0)
        into.unsettled += room.get("unsettled", 0)
        for each in statuses(opened.corpus, directory.wall.now_ms()):
            told = [each.vectors, each.pending, each.failed, int(each.complete)]
            have = into.indexes.get(each.name)
            into.indexes[each.name] = told if have is None else [a + b for a, b in zip(have, told, strict=True)]
        scan = progress(directory, name)
        into.scan_findings += len(scan.findings)
        into.scan_turn_ms = min(into.scan_turn_ms or scan.at_ms, scan.at_ms)
        into.scan_round_ms = min(into.scan_round_ms or scan.round_ms, scan.round_ms)
        into.scan_records += scan.records
    finally:
        directory.release_log(opened)


def _of_agents(agents: Mapping[str, _Agent]) -> Iterator[Family]:
    def each(name: str, text: str, value: Callable[[_Agent], float]) -> Family:
        return Family(name, "gauge", text, ("agent",), {(agent,): value(a) for agent, a in agents.items()})

    yield each("log_records", "Records in an agent's log", lambda a: a.records)
    yield each("cache_used_bytes", "Bytes that an agent's log takes on this machine", lambda a: a.bytes)
    yield each("cache_budget_bytes", "Bytes that log, WAL and blobs may take here; 0: no budget", lambda a: a.budget)
    yield each("cache_full", "1 while the budget refuses writes; holdfast retention show says why", lambda a: a.full)
    yield each("cache_unsettled_bytes", "Of a budget, what may not leave yet", lambda a: a.unsettled)
    yield each("cache_evicted_records", "Bodies that have left this machine for its budget", lambda a: a.evicted)
    yield each("outbox_records", "Records that the slowest hub has not acknowledged", lambda a: a.owed.records)
    yield each("outbox_bytes", "Bytes of their bodies as they are stored, without blobs", lambda a: a.owed.bytes)
    yield each(
        "outbox_oldest_record_timestamp_seconds",
        "When the oldest of them was written; 0 if there is none",
        lambda a: a.owed.oldest_ms / 1000,
    )
    yield each("integrity_incidents", "What was not as it should be when the log was opened", lambda a: a.incidents)
    yield each("quarantined_records", "Records whose payload a hub refused: it is kept here only", lambda a: a.refused)
    yield each("quarantined_files", "Damaged files that were moved aside", lambda a: a.moved)
    yield each("scan_findings", "What the scan found not to be as it was written", lambda a: a.scan_findings)
    yield each(
        "scan_last_turn_timestamp_seconds", "When the scan last looked at what is new", lambda a: a.scan_turn_ms / 1000
    )
    yield each(
        "scan_last_round_timestamp_seconds",
        "When the scan had last looked at everything; 0 if it never had",
        lambda a: a.scan_round_ms / 1000,
    )
    yield Family(
        "scan_records_total",
        "counter",
        "Records that the scan has looked at",
        ("agent",),
        {(agent,): figures.scan_records for agent, figures in agents.items()},
    )
    for number, (name, text) in enumerate(_OF_INDEXES):
        values: Series = {
            (agent, index): told[number] for agent, figures in agents.items() for index, told in figures.indexes.items()
        }
        yield Family(name, "gauge", text, ("agent", "index"), values)
    yield each("log_unreadable", "1 if the log could not be opened", lambda a: a.unreadable)


def _of_hubs(directory: Directory, hubs: Sequence[str]) -> Iterator[Family]:
    standing = {url: hub_status(directory, url) for url in hubs}
    tallies = {url: Tally(status.get("tally")) for url, status in standing.items()}
    yield Family(
        "sync_attempts_total",
        "counter",
        "Requests to a hub",
        ("hub",),
        {(url,): tally.attempts for url, tally in tallies.items()},
    )
    yield Family(
        "sync_failures_total",
        "counter",
        "Requests to a hub that failed, by reason",
        ("hub", "reason"),
        {(url, reason): tally.failures[reason] for url, tally in tallies.items() for reason in REASONS},
    )
    yield Family(
        "sync_last_success_timestamp_seconds",
        "gauge",
        "When a hub last answered; 0 if it never did",
        ("hub",),
        {(url,): (status.get("contact_ms") or 0) / 1000 for url, status in standing.items()},
    )
    yield Family(
        "sync_alert",
        "gauge",
        "1 if a hub refuses this node and somebody has to do something; holdfast status says what",
        ("hub",),
        {(url,): int(bool(status.get("alert"))) for url, status in standing.items()},
    )


def _of_house(directory: Directory, agents: Mapping[str, _Agent]) -> Iterator[Family]:
    from holdfast import __version__

    space = directory.reserve.state()
    oldest = min((a.owed.oldest_ms for a in agents.values() if a.owed.oldest_ms), default=0)
    now = directory.wall.now_ms()
    lag = max(0.0, (now - oldest) / 1000) if oldest else 0.0
    cache = directory.path / "cache.db"
    yield _one("sync_lag_seconds", "Age of the oldest record that a hub has not acknowledged; 0 if there is none", lag)
    yield Family("node_info", "gauge", "Which Holdfast wrote this; always 1", ("version",), {(__version__,): 1})
    yield _one("node_metrics_timestamp_seconds", "When this was written", now / 1000)
    yield _one("reading_cache_bytes", "Bytes of others' records that are kept here; disposable",
               cache.stat().st_size if cache.exists() else 0)  # fmt: skip
    yield _one("node_disk_free_bytes", "Free bytes on this node's disk", space.free)
    yield _one("node_disk_size_bytes", "Size of this node's disk", space.total)
    yield _one("node_disk_floor_bytes", "Free bytes below which writes are refused", space.floor)


def _one(name: str, text: str, value: float) -> Family:
    return Family(name, "gauge", text, (), {(): value})


def _seeds(found: Iterable[Family]) -> Iterator[Family]:
    """The same figures under the names that the dashboards of the earlier systems know."""
    ours = {family.name: family for family in found}
    cache, depth, lag, failures = (
        ours[name] for name in ("cache_used_bytes", "outbox_records", "sync_lag_seconds", "sync_failures_total")
    )
    yield Family("cache_bytes_used", "gauge", f"As holdfast_{cache.name}", cache.labels, cache.values)
    yield Family("outbox_queue_depth", "gauge", f"As holdfast_{depth.name}", depth.labels, depth.values)
    yield Family("sync_lag_seconds", "gauge", f"As holdfast_{lag.name}", (), lag.values)
    total = sum(failures.values.values())
    yield Family("sync_failures_total", "counter", f"As holdfast_{failures.name}, added up", (), {(): total})


def _lines(family: Family, node: str, prefix: str) -> Iterator[str]:
    name = prefix + family.name
    yield f"# HELP {name} {family.text}"
    yield f"# TYPE {name} {family.kind}"
    for labels, value in family.values.items():
        pairs = zip(("node", *family.labels), (node, *labels), strict=True)
        inside = ",".join(f'{label}="{text.translate(_ESCAPES)}"' for label, text in pairs)
        yield f"{name}{{{inside}}} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"
