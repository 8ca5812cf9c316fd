"""Loss of power, full disks and I/O errors, on demand: two VFSs, and what a machine may find after a power cut.

`kill -9` proves nothing about syncs, since the kernel keeps what was written. Here a VFS records every
write, sync, truncation and deletion, and `crash_state` makes from any prefix of them the files as a
machine may find them: what was synced is there, of what was not any part may be.

    recorder = Recorder(directory)
    with recording(recorder) as vfs:  # checksums=True puts the page checksums on top
        connection = apsw.Connection(str(directory / "a.db"), vfs=vfs)
        ...                            # after each commit: acknowledged.append(recorder.mark())
        connection.close()
    files = crash_state(recorder.ops, k, random.Random(seed), "torn")

Model: data are durable up to the file's last sync; of later writes any subset survives, whole or torn at
512 bytes; creations and deletions survive as a prefix (journalled metadata), forced by a sync of the
directory or of a file created since. A sector is never spoilt outside of what was being written (SQLite
assumes the same: "powersafe overwrite"). Writes outside SQLite are told by `wrote` and `synced`, or all of them by
`recording_calls`.

Source: SQLite's src/test6.c; Pillai et al., "All File Systems Are Not Created Equal" (2014).
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import apsw
import apsw.sqlite_extra

from holdfast.testing.power_states import MODES as MODES
from holdfast.testing.power_states import SECTOR_BYTES as SECTOR_BYTES
from holdfast.testing.power_states import Mode as Mode
from holdfast.testing.power_states import Op as Op
from holdfast.testing.power_states import PowerCut as PowerCut
from holdfast.testing.power_states import crash_state as crash_state
from holdfast.testing.power_states import write_state as write_state

CALLS: Final = frozenset({"write", "sync", "truncate", "delete", "open"})
_CHECKSUMS: Final = "cksmvfs"
_numbers = itertools.count(1)


class Recorder:
    """Everything that was done to files, in order. Threads may share it.

    Args:
        root: names are relative to it, and files that are in it now are the state before; without it, a
            name is the last part of a path and every file is new.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._root = root.absolute() if root else None
        self.ops: list[Op] = []
        for path in sorted(root.rglob("*")) if root else ():
            if path.is_file():
                self.ops.append(Op("exists", self.name(path), 0, path.read_bytes()))

    def name(self, path: str | Path) -> str:
        """What a file is called in `ops`."""
        whole = Path(path).absolute()
        if self._root is not None and whole.is_relative_to(self._root):
            return whole.relative_to(self._root).as_posix()
        return whole.name

    def mark(self) -> int:
        """How many operations there were so far: the `k` of a power cut right now."""
        return len(self.ops)

    def synced(self, path: str | Path, upto: int | None = None) -> None:
        """Says that a file was synced by somebody else than SQLite.

        Args:
            path: the file.
            upto: the mark when the sync began, if others may have written meanwhile.
        """
        self.ops.append(Op("sync", self.name(path), self.mark() if upto is None else upto))

    def wrote(self, path: str | Path, offset: int, data: bytes) -> None:
        """Says that a file was written by somebody else than SQLite."""
        self.ops.append(Op("write", self.name(path), offset, bytes(data)))

    def renamed(self, old: str | Path, new: str | Path) -> None:
        """Says that a file has another name now, in the place of whatever had that."""
        self.ops.append(Op("rename", self.name(old), 0, self.name(new).encode()))

    def deleted(self, path: str | Path) -> None:
        """Says that a file was deleted by somebody else than SQLite; its directory was not synced."""
        self.ops.append(Op("delete", self.name(path)))

    def names_synced(self) -> None:
        """Says that a directory was synced."""
        self.ops.append(Op("names", ""))

    def datasync(self, path: str | Path) -> Callable[[int], None]:
        """An `os.fdatasync` for a descriptor of this file that records itself, to hand to an engine."""

        def sync(fd: int) -> None:
            upto = self.mark()
            os.fdatasync(fd)
            self.synced(path, upto)

        return sync


class _OnSystem(apsw.VFS):
    """A VFS on top of the operating system's, registered under its label."""

    def __init__(self, label: str) -> None:
        self.label = label
        super().__init__(label, _system())


class RecordingVFS(_OnSystem):
    """A VFS that passes everything on to the operating system's, and records it; see `recording`."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__(name)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _RecordingFile(self._recorder, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self._recorder.ops.append(Op("delete", self._recorder.name(filename), int(syncdir)))


class _RecordingFile(apsw.VFSFile):
    def __init__(self, recorder: Recorder, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._ops = recorder.ops
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = recorder.name(path) if path else ""  # "": a temporary file, gone with the power
        super().__init__(_system(), name, flags)

    def _note(self, kind: str, offset: int, data: bytes = b"") -> None:
        if self._name:
            self._ops.append(Op(kind, self._name, offset, data))

    # A write is recorded before it is done, a sync after: a power cut in between is then a state of its own.
    def xWrite(self, data: Any, offset: int) -> None:
        self._note("write", offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._note("truncate", newsize)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        upto = len(self._ops)
        super().xSync(flags)
        self._note("sync", upto)


@contextmanager
def recording(recorder: Recorder, *, checksums: bool = False) -> Iterator[str]:
    """Registers a recording VFS for the block and gives its name, for ``apsw.Connection(path, vfs=name)``.

    Close every connection inside the block.

    Args:
        recorder: what it records into.
        checksums: put the page-checksum VFS on top; the name is then that one's, ``cksmvfs``, and for the
            length of the block every connection with page checksums in this process is recorded.
    """
    vfs = RecordingVFS(f"holdfast-recording-{next(_numbers)}", recorder)
    with _registered(vfs, checksums=checksums) as name:
        yield name


@contextmanager
def recording_calls(recorder: Recorder) -> Iterator[None]:
    """For the block, records what Python code itself writes, syncs, renames and deletes below the recorder's root.

    Linux only. It replaces pwrite, fsync, fdatasync, rename and unlink of `os` for the process, and sees no other way.
    """
    real = {name: getattr(os, name) for name in ("pwrite", "fsync", "fdatasync", "rename", "unlink")}

    def pwrite(fd: int, data: Any, offset: int) -> int:
        recorder.wrote(os.readlink(f"/proc/self/fd/{fd}"), offset, data)
        done: int = real["pwrite"](fd, data, offset)
        assert done == len(data), "a write was cut short: what was recorded is not what was done"
        return done

    def sync(fd: int, *, by: str) -> None:
        path, upto = os.readlink(f"/proc/self/fd/{fd}"), recorder.mark()
        real[by](fd)
        if os.path.isdir(path):
            recorder.names_synced()
        else:
            recorder.synced(path, upto)

    def rename(old: Any, new: Any) -> None:
        real["rename"](old, new)
        recorder.renamed(old, new)

    def unlink(path: Any) -> None:
        real["unlink"](path)
        recorder.deleted(path)

    syncs = [functools.partial(sync, by=name) for name in ("fsync", "fdatasync")]
    for name, stand_in in zip(real, (pwrite, *syncs, rename, unlink), strict=True):
        setattr(os, name, stand_in)
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)


class Faults:
    """When and how a `FaultVFS` fails: set it between two tries. It starts letting everything through.

    Args:
        calls: which calls count: write, sync, truncate, delete, open.
    """

    def __init__(self, calls: frozenset[str] = CALLS) -> None:
        self.calls = calls
        self.seen = 0
        """Calls counted since `arm` or `disarm`."""
        self.hits = 0
        """Calls failed since `arm` or `disarm`."""
        self._at = 0
        self._full = self._sticky = self._torn = False

    def arm(
        self,
        at: int,
        error: Literal["ioerr", "full"] = "ioerr",
        *,
        sticky: bool = False,
        torn: bool = False,
    ) -> None:
        """Makes the `at`-th call from now fail.

        Args:
            at: number of the call, from 1.
            error: "full" fails writes as a full disk does; all else fails as an I/O error of its kind.
            sticky: every later call fails too.
            torn: half of a failing write reaches the file.
        """
        self.seen = self.hits = 0
        self._at, self._full, self._sticky, self._torn = at, error == "full", sticky, torn

    def disarm(self) -> None:
        """Lets every call through again, and counts from 0."""
        self.arm(0)

    def due(self, call: str) -> Exception | None:
        """Counts a call; the error that it must fail with, or None. For the VFS and for writers beside it."""
        if call not in self.calls:
            return None
        self.seen += 1
        if not self._at or self.seen < self._at or (self.seen > self._at and not self._sticky):
            return None
        self.hits += 1
        codes = {
            "write": apsw.SQLITE_FULL if self._full else apsw.SQLITE_IOERR_WRITE,
            "sync": apsw.SQLITE_IOERR_FSYNC,
            "truncate": apsw.SQLITE_IOERR_TRUNCATE,
            "delete": apsw.SQLITE_IOERR_DELETE,
            "open": apsw.SQLITE_CANTOPEN,
        }
        error = apsw.exception_for(codes[call])
        error.args = (f"injected: {call} number {self.seen}",)
        return error

    def part(self, size: int) -> int:
        """How many bytes of a failing write of `size` reach the file."""
        return size // 2 if self._torn else 0


class _Quiet:
    def excepthook(
        self,
        etype: type[BaseException] | None,
        evalue: BaseException | None,
        etraceback: TracebackType | None,
    ) -> bool:
        # An injected error on a path where SQLite asks nobody (a close, a cleanup) is not worth a message.
        return isinstance(evalue, apsw.Error)


class FaultVFS(_Quiet, _OnSystem):
    """A VFS that fails when its `Faults` say so; see `faulty`."""

    def __init__(self, name: str, faults: Faults) -> None:
        self._faults = faults
        super().__init__(name)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if error := self._faults.due("open"):
            raise error
        return _FaultFile(self._faults, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if error := self._faults.due("delete"):
            raise error
        super().xDelete(filename, syncdir)


class _FaultFile(_Quiet, apsw.VFSFile):
    def __init__(self, faults: Faults, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._faults = faults
        super().__init__(_system(), name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        if error := self._faults.due("write"):
            if size := self._faults.part(len(data)):
                super().xWrite(data[:size], offset)
            raise error
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if error := self._faults.due("sync"):
            raise error
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        if error := self._faults.due("truncate"):
            raise error
        super().xTruncate(newsize)


@contextmanager
def faulty(faults: Faults, *, checksums: bool = False) -> Iterator[str]:
    """Registers a failing VFS for the block and gives its name. Close every connection inside the block.

    Args:
        faults: when it fails.
        checksums: put the page-checksum VFS on top, as `recording` does.
    """
    vfs = FaultVFS(f"holdfast-faulty-{next(_numbers)}", faults)
    with _registered(vfs, checksums=checksums) as name:
        yield name


@contextmanager
def _registered(vfs: _OnSystem, *, checksums: bool) -> Iterator[str]:
    before = apsw.vfs_names()
    try:
        if checksums:
            _stack_checksums(vfs.label)
        yield _CHECKSUMS if checksums else vfs.label
    finally:
        if checksums:
            # Back to where it was, or its next opener would call into a VFS that is gone.
            _stack_checksums(_system())
            if _CHECKSUMS not in before:
                apsw.unregister_vfs(_CHECKSUMS)
            apsw.set_default_vfs(before[0])
        vfs.unregister()


def _stack_checksums(base: str) -> None:
    """Puts the page-checksum VFS on top of another: it takes the default, once, when it is loaded."""
    if _CHECKSUMS in apsw.vfs_names():
        apsw.unregister_vfs(_CHECKSUMS)
    apsw.set_default_vfs(base)
    connection = apsw.Connection(":memory:", vfs=_system())
    try:
        apsw.sqlite_extra.load(connection, "cksumvfs")
    finally:
        connection.close()


def _system() -> str:
    # By name: the default may be the page-checksum VFS, which must lie on top of ours and not below it.
    return "unix" if "unix" in apsw.vfs_names() else "win32"
