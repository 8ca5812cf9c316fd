"""A deterministic simulation of nodes, hubs and readers under every fault we know, everything from one seed.

    python -m holdfast.testing.sim --seeds 300
    python -m holdfast.testing.sim --seeds 50 --without settled

Three nodes (and their clones) with four agents ship to two hubs and read both feeds, while messages are lost,
doubled and late, processes and power die, directories and hubs are put back to old copies and clocks jump. Then
the faults stop; when all is quiet the checker looks at everything. The same seed is always the same history.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

import msgspec

from holdfast.testing.sim_check import check
from holdfast.testing.sim_without import WITHOUT, parts
from holdfast.testing.sim_world import World

PROTECTIONS = tuple(WITHOUT)
CHAOS = 30.0
"""Simulated seconds with faults."""
QUIET = 14.0
"""So long nothing must happen for all to be quiet: more than two routine hellos."""
PATIENCE = 300.0


class Report(msgspec.Struct):
    """What one seed showed."""

    seed: int
    records: int
    lost: int
    duplicated: int
    disordered: int
    stuck: int
    missed: int
    vanished: int
    problems: list[str]
    faults: Counter[str]

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        return not self.problems


def simulate(seed: int, *, without: frozenset[str] = frozenset()) -> Report:
    """Run one history and check it.

    Args:
        seed: of everything random.
        without: protections to take out, of `PROTECTIONS`.
    """
    world = World(seed, parts(without))
    world.after(0.3, lambda: _strike(world))
    world.run(CHAOS)
    _heal(world)
    found = check(world)
    return Report(
        seed=seed,
        records=len(world.written),
        lost=found.lost,
        duplicated=found.duplicated,
        disordered=found.disordered,
        stuck=found.stuck,
        missed=found.missed,
        vanished=found.vanished,
        problems=found.sentences,
        faults=world.faults,
    )


def _strike(world: World) -> None:
    """One fault, and the next one soon."""
    if world.clean:
        return
    rng = world.rng
    node, hub = rng.choice(world.nodes), rng.choice(sorted(world.hubs))
    chance = rng.random()
    if chance < 0.14:
        world.cut_off[(node.name, hub)] = world.time + rng.random() * (6.0 if chance < 0.03 else 1.0)
        world.faults["partition"] += 1
    elif chance < 0.24:
        world.stop_node(node, power=False)
    elif chance < 0.34:
        if node.up and chance < 0.29:
            # The worst moment: something was just written, and a request is under way.
            node.write()
            world.after(0.012 * rng.random(), lambda: world.stop_node(node, power=True))
        else:
            world.stop_node(node, power=True)
    elif chance < 0.42:
        world.stop_hub(hub, power=False)
    elif chance < 0.50:
        world.stop_hub(hub, power=True)
    elif chance < 0.60 and node.up:
        node.backups = [*node.backups[-2:], node.disk.copy()]
    elif chance < 0.66:
        world.restore_node(node)
    elif chance < 0.68:
        world.clone_node(node)
    elif chance < 0.84:
        if world.hubs[hub].up:
            world.hubs[hub].take_backup()
    elif chance < 0.88:
        world.restore_hub(hub, 1)
    elif chance < 0.91:
        world.restore_hub(hub, 2)
    elif chance < 0.95:
        node.offset_ms += rng.randint(-3_600_000, 3_600_000)
        world.faults["clock_jump"] += 1
    world.after(rng.expovariate(3.0), lambda: _strike(world))


def _heal(world: World) -> None:
    """No more faults; everything up; until nothing happens any more."""
    world.clean = True
    world.cut_off.clear()
    for hub in world.hubs.values():
        if not hub.up:
            hub.restart()
        world.feed(hub.name)
    for node in world.nodes:
        if not node.up:
            node.start()
        for name, outbox in node.outboxes.items():
            outbox.poke()
            node.wake(name, 0.0)
    quiet_since, last, end = world.time, _shape(world), world.time + PATIENCE
    while world.time < end:
        world.run(world.time + 2.0)
        shape = _shape(world)
        if shape != last or any(_waiting(world)):
            quiet_since, last = world.time, shape
        elif world.time - quiet_since >= QUIET:
            return


def _shape(world: World) -> tuple[int, ...]:
    cursors = (hash(r.cursor) for n in world.nodes for r in n.disk.readers.values())
    logs = (len(log.entries) for n in world.nodes for log in n.disk.logs.values())
    return (*(hub.head for hub in world.hubs.values()), *logs, *cursors)


def _waiting(world: World) -> list[bool]:
    return [o.status().state != "in_sync" for n in world.nodes for o in n.outboxes.values()]


def main(argv: list[str] | None = None) -> int:
    """Run many seeds and print how often each fault struck, and what was found; 1 if anything was."""
    asked = argparse.ArgumentParser(prog="python -m holdfast.testing.sim", description=(__doc__ or "").split("\n")[0])
    asked.add_argument("--seeds", type=int, default=300, help="how many (default 300)")
    asked.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    asked.add_argument("--without", action="append", default=[], choices=PROTECTIONS, help="take this protection out")
    asked.add_argument("--until-failure", action="store_true", help="stop at the first seed that fails")
    args = asked.parse_args(argv)
    totals: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    failing: list[Report] = []
    begun = time.monotonic()
    done = 0
    for seed in range(args.first, args.first + args.seeds):
        report = simulate(seed, without=frozenset(args.without))
        done += 1
        faults += report.faults
        totals += Counter({name: getattr(report, name) for name in FIGURES})
        if not report.ok:
            failing.append(report)
            print(f"seed {seed}: {'; '.join(report.problems[:4])}", flush=True)
            if args.until_failure:
                break
    print(table(faults))
    pace = done / (time.monotonic() - begun)
    print(f"{done} seeds, {len(failing)} failing, {pace:.1f} a second")
    print(", ".join(f"{name} {totals[name]:,}" for name in FIGURES))
    return 1 if failing else 0


FIGURES = ("records", "lost", "duplicated", "disordered", "stuck", "missed", "vanished")


def table(faults: Counter[str]) -> str:
    """How often each fault struck, one line each."""
    return "\n".join(f"{name:20} {count:>10,}" for name, count in sorted(faults.items()))


if __name__ == "__main__":
    sys.exit(main())
