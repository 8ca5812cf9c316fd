"""Processes that start at once: forks of one that has loaded what most of them load, and that does nothing else.

A new interpreter needs half a second of a processor until it is a hub, and the tests start some hundreds. What is
forked is a process of its own like any other: it has its own words, directory, environment and files, is killed,
stopped and waited for by its id, and ends as an interpreter ends. Whoever looks at the start itself, or at what memory
a process takes, starts a fresh one (`subprocess`).
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

LOADED = (
    "argparse",
    "csv",
    "holdfast.agents",
    "holdfast.corpus.postgres",
    "holdfast.hub.app",
    "holdfast.hub.doorstep",
    "holdfast.hub.serve",
    "holdfast.log",
    "holdfast.node.ship",
    "holdfast.node.store",
    "holdfast.transport.client",
    "importlib.resources",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvloop",
)
LOOK_S = 0.002
_HEAD = struct.Struct("!I")


class Fork:
    """A process of Python, with what `subprocess.Popen` has of one.

    Args:
        words: as they follow `python` on a command line: ``-c``, code and its words, or a script's path and its words.
        stdin: `subprocess.PIPE` or `subprocess.DEVNULL`.
        stdout: a file, `subprocess.PIPE`, `subprocess.DEVNULL`, or None for ours.
        stderr: a file, `subprocess.DEVNULL`, or None for ours.
        cwd: its directory, if not ours.
        env: its environment, if not ours.
    """

    def __init__(
        self,
        *words: str | os.PathLike[str],
        stdin: int = subprocess.DEVNULL,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self.stdin: IO[str] | None = None
        self.stdout: IO[str] | None = None
        theirs = [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)]
        fds = [theirs[0], *(_number(file, ours, theirs[0]) for file, ours in ((stdout, 1), (stderr, 2)))]
        if stdin == subprocess.PIPE:
            fds[0], ours = os.pipe()
            theirs.append(fds[0])
            self.stdin = os.fdopen(ours, "w")
        if stdout == subprocess.PIPE:
            ours, fds[1] = os.pipe()
            theirs.append(fds[1])
            self.stdout = os.fdopen(ours)
        where = {"cwd": str(cwd or os.getcwd()), "environ": dict(os.environ if env is None else env)}
        try:
            self.pid = int(_nursery().ask(["fork", *map(os.fspath, words)], fds, where))
        finally:
            for fd in theirs:
                os.close(fd)

    def poll(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            self.returncode = _nursery().ask(["ended", str(self.pid)])
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within so many seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0.0)
            time.sleep(LOOK_S)
        return code

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it still runs."""
        if self.poll() is None:  # nobody else waits for it, so until then its id is its own
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    *words: str | os.PathLike[str],
    timeout: float = 60.0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs one to its end: its exit code, and what it said.

    Raises:
        subprocess.TimeoutExpired: it has not ended within so many seconds; it is killed.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = Fork(*words, stdout=out, stderr=err, cwd=cwd, env=env)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


def _number(file: IO[Any] | int | None, ours: int, nothing: int) -> int:
    if file is None:
        return ours
    return nothing if isinstance(file, int) else file.fileno()


class Nursery:
    """The process that is forked: it ends with this one, and its children with it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        self._lock = threading.Lock()
        with theirs:
            # Not its script's directory but what this process sees: a module of the tests hides none of the world's.
            command = [sys.executable, "-P", __file__, str(theirs.fileno())]
            environ = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environ
            )
        atexit.register(self.close)

    def ask(self, words: list[str], fds: Sequence[int] = (), where: Mapping[str, Any] | None = None) -> Any:
        """What it answers."""
        about = {"words": words, **(where or {})}
        with self._lock:
            _send(self._line, about, fds)
            answer, _ = _receive(self._line)
        return answer

    def close(self) -> None:
        """Ends it."""
        self._line.close()
        self._process.wait()


_running: Nursery | None = None


def _nursery() -> Nursery:
    global _running
    if _running is None:
        _running = Nursery()
    return _running


def _send(line: socket.socket, what: Any, fds: Sequence[int] = ()) -> None:
    body = json.dumps(what).encode()
    socket.send_fds(line, [_HEAD.pack(len(body))], list(fds))
    line.sendall(body)


def _receive(line: socket.socket) -> tuple[Any, list[int]]:
    """What somebody said, and the files that came with it; EOFError when he is gone."""
    head, fds, _, _ = socket.recv_fds(line, _HEAD.size, 3)
    if not head:
        raise EOFError
    (size,), body = _HEAD.unpack(head), b""
    while len(body) < size:
        part = line.recv(size - len(body))
        if not part:
            raise EOFError
        body += part
    return json.loads(body), fds


def _attend(line: socket.socket) -> list[str] | None:
    """Forks and waits as it is asked; the words of a child in that child, None when nobody is left to ask."""
    while True:
        try:
            order, fds = _receive(line)
        except (EOFError, ConnectionError):
            return None
        what, *words = order["words"]
        if what == "ended":
            ended, status = os.waitpid(int(words[0]), os.WNOHANG)
            _send(line, os.waitstatus_to_exitcode(status) if ended else None)
            continue
        born = os.fork()
        if not born:
            line.close()
            _become(order, fds)
            return words
        for fd in fds:
            os.close(fd)
        _send(line, born)


def _become(order: dict[str, Any], fds: list[int]) -> None:
    _end_with_parent()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["cwd"])


def _end_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _run(words: list[str]) -> None:
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__", "__builtins__": builtins})
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def _load() -> None:
    """Loads what a hub and a store load by themselves: nothing of it starts a thread or opens a file by that."""
    hub = importlib.import_module("holdfast.hub")
    routes = [f"holdfast.hub.{each.name}" for each in pkgutil.iter_modules(hub.__path__) if "routes" in each.name]
    for name in (*LOADED, *routes):
        with contextlib.suppress(ImportError):  # no uvloop here, say: then a hub does without it too
            importlib.import_module(name)


def main() -> None:
    """Loads, and attends to whoever holds the other end of the line."""
    line = socket.socket(fileno=int(sys.argv[1]))
    _load()
    gc.collect()
    gc.freeze()
    if words := _attend(line):
        _run(words)


if __name__ == "__main__":
    main()
