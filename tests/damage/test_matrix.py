"""Which check sees which fault, each check alone: measured, and held against the golden tables beside this file.

A table changes only with a record of why under docs/adr. To write it anew: HOLDFAST_SNAPSHOT=1 pytest <this file>.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.errors import IntegrityError
from holdfast.integrity import walk
from holdfast.integrity.checks import CHECKS
from holdfast.integrity.quick import Quick
from tests.damage.matrix import HUB_FAULTS, NODE_FAULTS, Looker, Place, build, copy, head, line

SHAPES = {"node": NODE_FAULTS, "hub": HUB_FAULTS}
WRITE = os.environ.get("HOLDFAST_SNAPSHOT") == "1"


def golden(shape: str) -> Path:
    return Path(__file__).with_name(f"matrix_{shape}.txt")


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def place(shape: str, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return build(tmp_path_factory.mktemp(shape) / "sound", hub=shape == "hub")


def looked(place: Place) -> dict[str, str]:
    """Each check's sign over a place; if it cannot even be opened, that is the pages' finding."""
    try:
        with Looker(place) as looker:
            return {check: looker.sign(check) for check in CHECKS}
    except IntegrityError:
        return {check: "X" if check == "page" else "err" for check in CHECKS}


def test_every_fault_is_seen_by_the_checks_that_the_table_names(place: Place, shape: str, tmp_path: Path) -> None:
    lines = [head()]
    for number, (fault, inject) in enumerate(SHAPES[shape].items()):
        damaged = copy(place, tmp_path / str(number))
        inject(damaged)
        lines.append(line(fault, looked(damaged)))
    found = "\n".join(lines) + "\n"
    if WRITE:
        golden(shape).write_text(found)
    assert found == golden(shape).read_text()


def test_the_table_leaves_no_fault_unseen(shape: str) -> None:
    rows = golden(shape).read_text().splitlines()[1:]
    unseen = [row[:40].strip() for row in rows if "X" not in row[40:].split()]
    assert unseen == ["(healthy)"]


ONLY: dict[str, tuple[str, str]] = {
    "checksum": ("node", "two payloads swapped"),
    "chain": ("node", "forged row, own link redone"),
    "time": ("node", "clock set back 1 day (honest writer)"),
    "size": ("node", "payload deleted only"),
    "version": ("node", "predecessor of a version changed"),
    "page": ("node", "bit flip in unused bytes"),
    "index": ("node", "index misses rows"),
    "signature": ("hub", "signed head by another key"),
    "anchor": ("node", "database file rolled back (80 rec)"),
    "hub": ("node", "tail rows deleted (last 5)"),
    "blob": ("node", "blob orphaned"),
    "state": ("node", "walk back from message to message"),
    "wal": ("node", "bit flip in the -wal (acked frames)"),
}
"""For each check a fault that the verifier misses without it."""


@pytest.mark.parametrize("check", CHECKS)
def test_no_check_is_superfluous(check: str, tmp_path: Path) -> None:
    """The whole verifier finds the fault; the same without this one check does not."""
    kind, fault = ONLY[check]
    damaged = build(tmp_path / "store", hub=kind == "hub")
    known = dict(damaged.known)
    SHAPES[kind][fault](damaged)
    if check == "anchor":
        damaged.known["acked"] = ()  # what no hub had got yet
    if check == "wal":
        damaged.known.update(known)  # what neither had seen yet
    with Looker(damaged) as looker:
        whole = looker.scan(CHECKS)
        without = looker.scan([each for each in CHECKS if each != check])
    told = whole.notes if check == "blob" else whole.findings
    assert {finding.check for finding in told} == {check}
    assert (without.notes if check == "blob" else without.findings) == []


def test_the_short_way_through_sound_rows_sees_all_that_the_long_way_sees(
    place: Place, shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_ways = []

    class Counted(Quick):
        def take(self, rows: Any) -> None:
            short_ways.append(len(rows))
            super().take(rows)

    def told(damaged: Place) -> list[Any]:
        with Looker(damaged) as looker:
            scan = looker.scan(CHECKS)
        return [list(map(str, scan.findings)), scan.notes, {**msgspec.structs.asdict(scan), "seconds": 0}]

    for number, (fault, inject) in enumerate(SHAPES[shape].items()):
        damaged = copy(place, tmp_path / str(number))
        inject(damaged)
        try:
            monkeypatch.setattr(walk, "Quick", Counted)
            short = told(damaged)
            monkeypatch.setattr(walk, "Quick", lambda _: None)
            assert short == told(damaged), fault
        except IntegrityError:
            continue  # it cannot even be opened
        assert bool(short[0] or short[1]) == (fault != "(healthy)"), fault
    assert sum(short_ways) > 1_000
