"""Objects of 1 KB, 100 KB and 10 MB: put, got and listed on files, SQLite, S3 and Azure, beside who else does that."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from bench.harness import (
    Effort,
    Figures,
    Goal,
    Missing,
    Report,
    Scenario,
    Table,
    Turns,
    ms,
    number,
    same,
    spread,
    take_turns,
    times,
    us,
)
from bench.neighbours import key_values
from bench.neighbours import object_stores as stores
from bench.neighbours.clouds import SERVICES, Service, Signed
from bench.neighbours.local import clocked
from bench.neighbours.object_stores import FOLDER, Objects
from bench.processes import scratch


class Size(NamedTuple):
    """An object's bytes, and how many of them a full turn puts and gets."""

    bytes: int
    here: int
    away: int


SIZES = {"1 KB": Size(1 << 10, 570, 100), "100 KB": Size(100 << 10, 100, 20), "10 MB": Size(10 << 20, 4, 3)}
SMALL = "1 KB"
LISTED = 570
LISTINGS = 10
WARM_PART = 10
AT_ONCE = 16
OVER_FLOOR_MOST, OVER_DISK_LEAST, OVER_SDK_LEAST = 1.5, 10.0, 2.0
OURS, FLOOR, PATHS = "holdfast", "floor", "cloudpathlib"
DURABLE = (stores.SYNCED, stores.OURS, stores.OURS_SQLITE)
PERCENTILES = ("put p50 µs", "p99", "get p50 µs", "p99")
Opening = Callable[[Path], Objects]


@cache
def _stuff(size: int) -> bytes:
    return random.Random(size).randbytes((size + 1) // 2).hex().encode()[:size]


def body(count: int, size: int) -> bytes:
    """The object with this number: ASCII, so that stores of text need not encode it; no two are the same."""
    return f"{count:016x}".encode() + _stuff(size)[16:]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the garbage collector, which would stop whom it likes."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def exchange(store: Objects, size: int, count: int) -> Figures:
    """New objects put one after the other, all of them got in another order and compared: one caller."""
    keys = [f"{FOLDER}/{each:05d}" for each in range(count)]
    bodies = [body(each, size) for each in range(count)]
    warm = max(1, count // WARM_PART)
    asked = random.Random(size).sample(range(count), count)
    if isinstance(store, Signed):
        for key, data in zip(keys, bodies, strict=True):
            store.prepare(key, data)
    clocked(store, lambda n: store.put(keys[n], bodies[n]), warm)
    begun = time.process_time()
    put = clocked(store, lambda n: store.put(keys[n], bodies[n]), max(1, count - warm), min(warm, count - 1))[0]
    between = time.process_time()
    got, found = clocked(store, lambda n: store.get(keys[asked[n]]), count)
    ended = time.process_time()
    for place, each in zip(asked, found, strict=True):
        same(store.shown(each) == bodies[place], True, f"whether the bytes of {keys[place]} are those that were put")
    cpu = {"put_cpu": (between - begun) / len(put), "get_cpu": (ended - between) / len(got)}
    return spread("put", put) | spread("get", got) | cpu


def listing(store: Objects, keys: list[str]) -> Figures:
    """All of them listed, some times over."""
    if type(store).list is Objects.list:
        return {}
    took, found = clocked(store, lambda _: store.list(), LISTINGS)
    for each in found:
        same(store.listed(each), keys, "a listing")
    return spread("list", took)


def crowd(store: Objects, size: int, count: int) -> Figures:
    """The same by 16 threads at once: objects a second."""
    each = max(1, count // AT_ONCE)
    bodies = [body(n, size) for n in range(AT_ONCE * each)]

    def puts(thread: int) -> None:
        for n in range(thread * each, (thread + 1) * each):
            store.put(f"{FOLDER}/{n:05d}", bodies[n])

    def gets(thread: int) -> bool:
        mine = range(thread * each, (thread + 1) * each)
        return all([store.get(f"{FOLDER}/{n:05d}") == bodies[n] for n in mine])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(puts, range(AT_ONCE)))  # connections are made here
        begun = time.perf_counter()
        list(pool.map(puts, range(AT_ONCE)))
        between = time.perf_counter()
        right = list(pool.map(gets, range(AT_ONCE)))
        ended = time.perf_counter()
    same(all(right), True, "whether 16 threads read what they put")
    return {"put_rate": len(bodies) / (between - begun), "get_rate": len(bodies) / (ended - between)}


# -- on this machine --------------------------------------------------------------------------------------------------


def local(opening: Opening, size: int, count: int) -> Figures:
    """One turn of a store on the disk: a new one each time. Small objects are listed, too."""
    with scratch() as folder:
        store = opening(folder)
        try:
            with quiet():
                figures = exchange(store, size, count)
                if size == SIZES[SMALL].bytes:
                    figures |= listing(store, [f"{FOLDER}/{each:05d}" for each in range(count)])
            return figures
        finally:
            store.close()


def in_turn(size: int, count: int) -> dict[str, Figures]:
    """New objects put by all who survive a power cut, one by each in turn: what the disk does, it does to all."""
    took: dict[str, list[float]] = {who: [] for who in DURABLE}
    with scratch() as folder, ExitStack() as stack, quiet():
        opened = [(who, stack.enter_context(closing(stores.STORES[who](folder)))) for who in DURABLE]
        for each in range(count):
            put = partial(_put, body(each, size))
            for who, store in opened if each % 2 else reversed(opened):
                seconds = clocked(store, partial(put, store), 1, each)[0]
                if each >= max(1, count // WARM_PART):
                    took[who] += seconds
    return {who: spread("put", each) for who, each in took.items()}


def _put(data: bytes, store: Objects, number: int) -> None:
    store.put(f"{FOLDER}/{number:05d}", data)


def durable(effort: Effort, report: Report, sizes: Mapping[str, Size]) -> None:
    """Durable puts beside two syncs, for which they have a goal."""
    table = Table("Durable puts, each in turn with the others", ("store", *(f"{name}: ×" for name in sizes), *sizes))
    found = {}
    for name, size in sizes.items():
        turns = found[name] = Turns()
        for _ in range(effort.rounds):
            for who, figures in in_turn(size.bytes, effort.count(size.here, 3)).items():
                turns.given.setdefault(who, []).append(figures)
        report.figures[f"durable, {name}"] = turns.given
        for ours in DURABLE[1:]:
            what = f"durable put of {name} over two syncs, {ours.removeprefix('holdfast ')}"
            report.goals.append(Goal(what, turns.ratio(ours, "put_p50", stores.SYNCED), OVER_FLOOR_MOST, "×"))
    for who in DURABLE:
        ratios = [times(turns.ratio(who, "put_p50", stores.SYNCED)) for turns in found.values()]
        table.rows.append((who, *ratios, *(f"{us(turns.median(who, 'put_p50'), 0)} µs" for turns in found.values())))
    report.tables.append(table)


def here(effort: Effort, report: Report, sizes: Mapping[str, Size] = SIZES) -> None:
    """Stores on this machine's disk, small objects among the sizes."""
    openings: dict[str, Opening] = stores.STORES | key_values.STORES
    survives = stores.SURVIVES | key_values.SURVIVES
    found = {}
    for name, size in sizes.items():
        count = effort.count(size.here, 3)
        turns = take_turns({who: partial(local, it, size.bytes, count) for who, it in openings.items()}, effort)
        report.notes += turns.notes()
        report.figures[f"here, {name}"] = turns.given
        table = Table(
            f"{name}, here",
            ("store", "what a put survives", "put: × synced files", "get: × files", *PERCENTILES),
        )
        for who in filter(turns.has, openings):
            ratios = turns.ratio(who, "put_p50", stores.SYNCED), turns.ratio(who, "get_p50", stores.FILES)
            table.rows.append((who, survives[who], *map(times, ratios), *_percentiles(turns, who)))
        report.tables.append(table)
        found[name] = turns
    durable(effort, report, sizes)
    report.tables.append(_listed(found[SMALL], effort.count(SIZES[SMALL].here, 3)))
    report.goals += _goals_here(found[SMALL])
    report.notes += _limits(found[SMALL])


def _percentiles(turns: Turns, who: str) -> list[str]:
    return [us(turns.median(who, f"{work}_{part}"), 0) for work in ("put", "get") for part in ("p50", "p99")]


def _listed(turns: Turns, count: int) -> Table:
    table = Table(f"{count} objects of {SMALL} listed, here", ("store", "× scandir and stat", "p50 ms", "p99"))
    for who in turns.given:
        if turns.median(who, "list_p50") is not None:
            shown = [ms(turns.median(who, f"list_{part}")) for part in ("p50", "p99")]
            table.rows.append((who, times(turns.ratio(who, "list_p50", stores.FILES)), *shown))
    return table


def _limits(turns: Turns) -> Iterator[str]:
    """What of a goal is to be had at all."""
    put, get = (turns.ratio(key_values.DISK, f"{work}_p50", stores.INSERTS) for work in ("put", "get"))
    if put and get:
        yield (
            "The bare INSERT has one table of keys and bodies, and no store on SQLite undercuts it at this durability: "
            f"it is {times(put)} as fast as DiskStore's put, and its SELECT {times(get)} as fast as DiskStore's get."
        )


def _goals_here(turns: Turns) -> Iterator[Goal]:
    # At one durability each: DiskStore survives the process, FileTreeStore syncs its file.
    for theirs, pairs in (
        (key_values.DISK, (stores.OURS_UNSYNCED, key_values.OURS_UNSYNCED)),
        (key_values.TREE, (stores.OURS_SQLITE, key_values.OURS)),
    ):
        for ours in pairs:
            for work in ("put", "get"):
                ratio = turns.ratio(theirs, f"{work}_p50", ours)
                what = f"{work} of {SMALL}, {ours}: times as fast as {theirs}'s"
                reason = turns.missing.get(theirs, "") or turns.missing.get(ours, "")
                yield Goal(what, ratio, OVER_DISK_LEAST, "×", at_least=True, reason=reason)


# -- over the network -----------------------------------------------------------------------------------------------


class Away:
    """A service and who speaks with it; what was started or opened stays so until the end."""

    def __init__(self, start: Callable[[], Service], listed: int) -> None:
        self._service: Service = start()
        self.vendor = self._service.vendor
        self.names = list(self._service.clients)
        self._listed = [f"{FOLDER}/{each:05d}" for each in range(listed)]
        self._made: set[str] = set()
        self._open: dict[tuple[str, str], Objects] = {}
        try:
            self._service.bucket("listed")
            filler = self._client(self.vendor, "listed")
            for each, key in enumerate(self._listed):
                filler.put(key, body(each, SIZES[SMALL].bytes))
        except BaseException:
            self.close()
            raise

    def _client(self, who: str, bucket: str) -> Objects:
        found = self._open.get((who, bucket))
        if found is None:
            found = self._open[who, bucket] = self._service.clients[who](bucket)
        return found

    def turn(self, who: str, size: Size, count: int) -> Figures:
        """One turn of a client: one caller; small objects by 16 at once, too, and listed."""
        bucket = f"of-{who}"
        if bucket not in self._made:
            self._made.add(self._service.bucket(bucket))
        client = self._client(who, bucket)
        with quiet():
            figures = exchange(client, size.bytes, count)
        if size == SIZES[SMALL] and who != FLOOR:
            figures |= listing(self._client(who, "listed"), self._listed)
            figures |= crowd(client, size.bytes, 2 * count) if who != PATHS else {}
        return figures

    def close(self) -> None:
        """Ends clients and server."""
        for client in self._open.values():
            client.close()
        self._service.close()


def away(name: str, effort: Effort, report: Report, sizes: Mapping[str, Size] = SIZES) -> None:
    """Who speaks with one service, small objects among the sizes."""
    try:
        service = Away(SERVICES[name], effort.count(LISTED, 3))
    except Missing as absent:
        report.notes.append(f"{name}: not measured ({absent})")
        report.goals.append(Goal(f"{SMALL} in {name}", None, OVER_SDK_LEAST, "×", True, str(absent)))
        return
    with closing(service):
        turns_of = {}
        for title, size in sizes.items():
            count = effort.count(size.away, 3)
            contestants = {who: partial(service.turn, who, size, count) for who in service.names}
            turns_of[title] = take_turns(contestants, effort)
            report.notes += turns_of[title].notes()
            report.figures[f"{name}, {title}"] = turns_of[title].given
        report.tables += _tables_away(name, service.vendor, turns_of)
        report.goals += _goals_away(name, service.vendor, turns_of[SMALL])


def _tables_away(name: str, vendor: str, turns_of: dict[str, Turns]) -> Iterator[Table]:
    for title, turns in turns_of.items():
        ratios = (f"put: × {vendor}", f"get: × {vendor}")
        table = Table(f"{title}, {name}", ("client", *ratios, *PERCENTILES, "client's CPU µs: put", "get"))
        for who in turns.given:
            shares = [times(turns.ratio(who, f"{work}_p50", vendor)) for work in ("put", "get")]
            cpu = [us(turns.median(who, f"{work}_cpu"), 0) for work in ("put", "get")]
            table.rows.append((who, *shares, *_percentiles(turns, who), *cpu))
        yield table
    turns = turns_of[SMALL]
    columns = ("client", f"puts/s: × {vendor}", "gets/s: ×", "puts/s", "gets/s", "a listing: ×", "ms")
    table = Table(f"{SMALL} by {AT_ONCE} threads, and a listing, {name}", columns)
    for who in turns.given:
        if who != FLOOR:
            rates = [turns.ratio(who, f"{work}_rate", vendor) for work in ("put", "get")]
            shown = [number(turns.median(who, f"{work}_rate")) for work in ("put", "get")]
            listed = times(turns.ratio(who, "list_p50", vendor)), ms(turns.median(who, "list_p50"))
            table.rows.append((who, *map(times, rates), *shown, *listed))
    yield table


def _goals_away(name: str, vendor: str, turns: Turns) -> Iterator[Goal]:
    reason = turns.missing.get(vendor, "") or turns.missing.get(OURS, "")
    for work in ("put", "get"):
        alone = turns.ratio(vendor, f"{work}_p50", OURS)
        yield Goal(f"{work} of {SMALL}, {name}: times as fast as {vendor}'s", alone, OVER_SDK_LEAST, "×", True, reason)
    for work in ("put", "get"):
        rate = turns.ratio(OURS, f"{work}_rate", vendor)
        what = f"{work}s of {SMALL} by {AT_ONCE} threads, {name}: times as many as {vendor}'s"
        yield Goal(what, rate, OVER_SDK_LEAST, "×", True, reason)


def run(effort: Effort) -> Report:
    """Measures it."""
    report = Report()
    here(effort, report)
    for name in SERVICES:
        away(name, effort, report)
    report.notes += NOTES
    return report


NOTES = (
    "One caller unless it says threads; new objects, got in another order; every byte that was got is compared. KB and "
    "MB are of 1,024. Ratios are of medians within a round.",
    "Durable puts are compared put by put, as a disk that is shared, or lets only so much through, changes from "
    "one turn to the next.",
    "py-key-value holds dictionaries: an object is one text in one, which costs it no base64. Its DiskStore is "
    "diskcache (WAL, synchronous=NORMAL); its FileTreeStore syncs the file but not the directory. Goals compare at the "
    "like durability: DiskStore with durable=False, FileTreeStore with a put that survives a power cut, which takes "
    "a sync whoever makes it. It cannot list without opening every value, nor can ours: a dash.",
    "floor, over the network: the same requests signed beforehand, on one open connection of http.client: what the "
    "server itself takes, which no client can undercut: where it is near 0.5×, twice the SDK's speed is all there is. "
    "rclone and Azurite keep objects in memory; moto is a server in Python. Servers and clients share the cores.",
    "fsspec has no figures for S3 and Azure: s3fs cannot be installed beside a current boto3 (aiobotocore pins "
    "botocore), and what it does locally is measured. cloudpathlib is for clouds only; by "
    "threads it has no figure, for one put alone takes it tens of milliseconds.",
)
SCENARIO = Scenario("objects", "Objects on files, SQLite, S3 and Azure", run)
