"""Other processes: started in a directory of their own, measured through /proc, and always ended."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from bench.harness import Missing, Wrong

HERE = Path(__file__).resolve().parent
PATIENCE_S = 30.0
SLOW_SYNC_MS = 15
MEBI = 1 << 20


@contextmanager
def scratch() -> Iterator[Path]:
    """A new directory on the disk that is measured, gone afterwards; any user may walk through it."""
    place = Path(tempfile.mkdtemp(prefix="holdfast-bench-"))
    place.chmod(0o711)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps every file of a directory in memory: what is asked is the software, and not a disk.

    To read them once is not enough on machines that give the memory of files to others within seconds (DAMON reclaims
    so in many virtual machines): of a store of 0.6 GB a sixth was gone again after 20 s, and 4 KiB from the disk took
    up to 150 ms. Where locking is not allowed (`ulimit -l`) they are read once.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mlock.argtypes = libc.munlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = libc.mlock.argtypes
    mapped: list[tuple[int, int]] = []
    try:
        for path in folder.rglob("*"):
            with suppress(OSError, ValueError), path.open("rb", buffering=0) as file:  # a socket, a directory, or gone
                size = os.fstat(file.fileno()).st_size
                at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0) if size else None
                if at is not None and at != ctypes.c_void_p(-1).value:
                    mapped.append((at, size))
                    if libc.mlock(at, size) == 0:
                        continue
                while file.read(1 << 20):
                    pass
        yield
    finally:
        for at, size in mapped:
            libc.munmap(at, size)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str, *places: str) -> str:
    """The path of a program.

    Raises:
        Missing: it is not installed.
    """
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


class Process:
    """A server or a child of ours. A context manager: it is ended on the way out, whatever happened."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        *,
        env: Mapping[str, str] | None = None,
        log: str = "log",
        ending: int = signal.SIGTERM,
        cwd: Path = HERE.parent,
    ) -> None:
        self._ending = ending
        self._log = folder / log
        with open(self._log, "ab") as out:
            self.popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=os.environ | dict(env or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                start_new_session=True,  # what it starts ends with it
            )
        self._rest = b""

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its number."""
        return self.popen.pid

    def said(self) -> str:
        """The end of what it wrote to stderr."""
        return self._log.read_text("utf-8", "replace")[-2000:]

    def tell(self, line: str = "") -> None:
        """Sends it a line."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def line(self, timeout: float = PATIENCE_S) -> str:
        """The next line it prints.

        Raises:
            Wrong: it ended, or stayed silent for `timeout` seconds.
        """
        out = self.popen.stdout
        assert out is not None
        end = time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            ready = select.select([out], [], [], max(0.0, left))[0]
            data = os.read(out.fileno(), 1 << 16) if ready else b""
            if not data:
                said = self.said().strip()
                why = "ended" if ready else f"was silent for {timeout:.0f} s"
                raise Wrong(f"a process {why}: {said.rpartition(chr(10))[2]}\n{said}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def answer(self, timeout: float = PATIENCE_S) -> dict[str, Any]:
        """The JSON object on its next line."""
        found: dict[str, Any] = json.loads(self.line(timeout))
        return found

    def stop(self, kill: bool = False) -> None:
        """Ends it: asked first, then not asked."""
        if self.popen.poll() is None:
            self._signal(signal.SIGKILL if kill else self._ending)
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(10)
        self._signal(signal.SIGKILL)  # whatever it may have left behind
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _signal(self, which: int) -> None:
        try:
            os.killpg(self.popen.pid, which)
        except (ProcessLookupError, PermissionError):
            if self.popen.poll() is None:
                self.popen.send_signal(which)

    # -- what it costs --------------------------------------------------------------------------------------------

    def family(self) -> list[int]:
        """It and what descends from it."""
        found, left = [], [self.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            try:
                for task in os.listdir(f"/proc/{pid}/task"):
                    left += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
            except OSError:
                continue
        return found

    def cpu(self) -> float:
        """CPU seconds that its family has used, the dead included."""
        if not Path("/proc/self/stat").exists():
            raise Missing("CPU time needs /proc")
        ticks = 0
        for pid in self.family():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += sum(map(int, fields[11:15] if pid == self.pid else fields[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self, peak: bool = False) -> float:
        """MiB that its family holds in memory, shared pages once; `peak`: the most that it ever held."""
        word = "VmHWM:" if peak else "Pss:"
        total = 0
        for pid in self.family():
            try:
                name = "status" if peak else "smaps_rollup"
                text = Path(f"/proc/{pid}/{name}").read_text()
            except OSError:
                continue
            total += sum(int(row.split()[1]) for row in text.splitlines() if row.startswith(word))
        return total / 1024

    def resident(self) -> float:
        """MiB resident, of the process alone, as `ps` shows it."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEBI


def child(role: str, logs: Path, **plan: Any) -> Process:
    """A process of ours that plays a role of `bench.child`."""
    command = [sys.executable, "-m", "bench.child", role, json.dumps(plan)]
    return Process(command, logs, log=f"{role.replace(':', '-')}.log", env={"PYTHONPATH": _python_path()})


def _python_path() -> str:
    return os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))


def listening(port: int, process: Process) -> None:
    """Waits until somebody answers on the port.

    Raises:
        Wrong: the process ended, or nobody did in time.
    """
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if process.popen.poll() is not None:
            raise Wrong(f"a server ended:\n{process.said()}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise Wrong(f"nobody listens on {port}:\n{process.said()}")


# -- small C programs, where there is a compiler ----------------------------------------------------------------------


@cache
def _built() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="holdfast-bench-c-")


@cache
def compiled(name: str, *options: str) -> str:
    """The program or library made of bench/<name>.c.

    Raises:
        Missing: there is no C compiler.
    """
    compiler = program(os.environ.get("CC", "cc"))
    target = Path(_built().name) / name
    Path(_built().name).chmod(0o755)
    made = subprocess.run(
        [compiler, "-O2", "-o", str(target), str(HERE / f"{name}.c"), *options], capture_output=True, text=True
    )
    if made.returncode:
        raise Missing(f"{name}.c does not compile here: {made.stderr[-300:]}")
    return str(target)


def slow_disk() -> dict[str, str]:
    """The environment of a process for which every sync takes 15 ms longer.

    Raises:
        Missing: not on Linux, or no compiler.
    """
    if sys.platform != "linux":
        raise Missing("the slow disk needs LD_PRELOAD")
    library = compiled("slowsync", "-shared", "-fPIC", "-ldl")
    return {"LD_PRELOAD": library, "SLOWSYNC_MS": str(SLOW_SYNC_MS)}
