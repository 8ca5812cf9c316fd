"""What a machine may find after a power cut, made from what was recorded before it. Pure; the model is `power`'s."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

Mode = Literal["subset", "torn", "drop", "garbage"]
"""What becomes of unsynced writes: any subset; each torn or lost; none survives; sectors hold random bytes."""
MODES: Final[tuple[Mode, ...]] = ("subset", "torn", "drop", "garbage")
SECTOR_BYTES: Final = 512


class Op(NamedTuple):
    """One change: `kind` is write, truncate (to `offset`), sync (of all before op `offset`), delete, rename or exists.

    `exists` is a file that was there before; a delete has offset 1 when it syncs its directory. A rename's new name is
    in `data`. `names` is the sync of a directory.
    """

    kind: str
    name: str
    offset: int = 0
    data: bytes = b""


def crash_state(ops: Sequence[Op], k: int, rng: random.Random, mode: Mode) -> dict[str, bytes]:
    """The files that a machine may find after it lost power just behind the first `k` operations.

    Args:
        ops: what was recorded.
        k: how many of them had happened.
        rng: decides what survives.
        mode: see `Mode`.

    Returns:
        Content by name. Shared memory (``-shm``) is left out: no machine keeps it.
    """
    return PowerCut(ops, k).files(rng, mode)


class PowerCut:
    """One moment at which the power went; `files` gives what a machine may find then, as often as it is asked.

    Args:
        ops: what was recorded.
        k: how many of them had happened.
    """

    def __init__(self, ops: Sequence[Op], k: int) -> None:
        self._past = past = _past(ops[:k])
        # Of each file what was synced comes before what was not: it is the same in every state.
        self._synced: dict[int, bytearray] = defaultdict(bytearray)
        self._loose: list[tuple[int, Op]] = []
        for i, inode, op in past.changes:
            if i >= past.synced.get(inode, 0):
                self._loose.append((inode, op))
            elif op.kind == "truncate":
                del self._synced[inode][op.offset :]
            else:
                _put(self._synced[inode], op.offset, op.data)

    def files(self, rng: random.Random, mode: Mode) -> dict[str, bytes]:
        """One state; see `crash_state`."""
        past = self._past
        content: dict[int, bytearray] = defaultdict(bytearray)
        for inode, op in self._loose:
            if inode not in content:
                content[inode] = bytearray(self._synced.get(inode, b""))
            if op.kind == "truncate":
                if rng.random() < 0.5:
                    del content[inode][op.offset :]
            else:
                for at, piece in _survivors(op.data, rng, mode):
                    _put(content[inode], op.offset + at, piece)
        steps = past.forced if mode == "drop" else rng.randint(past.forced, len(past.names))
        found: dict[str, int] = {}
        for name, held, before in past.names[:steps]:
            found.pop(before, None)
            if held is None:
                found.pop(name, None)
            else:
                found[name] = held
        return {name: bytes(content.get(inode, self._synced.get(inode, b""))) for name, inode in found.items()}


class _Past(NamedTuple):
    """What happened, by inode: a name may be deleted and made again, and only the new file was synced."""

    changes: list[tuple[int, int, Op]]
    synced: dict[int, int]
    names: list[tuple[str, int | None, str]]  # a name, what it stands for from here on, and its name before
    forced: int


def _past(ops: Sequence[Op]) -> _Past:
    changes: list[tuple[int, int, Op]] = []
    synced: dict[int, int] = {}
    names: list[tuple[str, int | None, str]] = []
    forced = 0
    places: dict[int, int] = {}
    now: dict[str, int] = {}
    for i, op in enumerate(ops):
        if op.name.endswith("-shm"):
            continue
        if op.kind == "delete":
            if now.pop(op.name, None) is not None:
                names.append((op.name, None, ""))
            forced = len(names) if op.offset else forced
            continue
        if op.kind == "names":
            forced = len(names)
            continue
        if op.kind == "rename":
            new = op.data.decode()
            now[new] = now.pop(op.name)
            names.append((new, now[new], op.name))
            continue
        if op.name not in now:
            now[op.name] = i
            names.append((op.name, i, ""))
            places[i] = len(names)
        inode = now[op.name]
        if op.kind == "exists":
            changes.append((i, inode, op))
            synced[inode] = i + 1
            forced = len(names)
        elif op.kind == "sync":
            synced[inode] = max(op.offset, synced.get(inode, 0))
            forced = max(forced, places[inode])
        else:
            changes.append((i, inode, op))
    return _Past(changes, synced, names, forced)


def _survivors(data: bytes, rng: random.Random, mode: Mode) -> Iterator[tuple[int, bytes]]:
    chance = rng.random()
    if mode == "drop" or chance < 0.4:
        return
    if mode == "subset" and chance >= 0.7:
        yield 0, data
        return
    for at in range(0, len(data), SECTOR_BYTES):
        piece = data[at : at + SECTOR_BYTES]
        fate = rng.random()
        if mode == "garbage" and fate < 0.3:
            yield at, rng.randbytes(len(piece))
        elif fate >= 0.5:
            yield at, piece


def _put(content: bytearray, offset: int, piece: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(piece)] = piece


def write_state(files: dict[str, bytes], directory: Path) -> None:
    """Puts a crash state on the disk, under `directory`, which is made."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
