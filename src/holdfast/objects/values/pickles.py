"""Old pickles, read once to be stored anew: plain values come out, and nothing that they ask for is run.

They are read in a process of its own, with limits on memory and time and nothing of the caller's environment, by a
reader that knows names only as texts (`pickle_reading`, ADR 0026). Nothing in Holdfast writes a pickle.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from typing import Any, Final

import msgspec

from holdfast.errors import HoldfastError, ObjectCorrupt, StorageError, StorageRefused
from holdfast.objects.raw import Bytes
from holdfast.objects.values.serial import JSON, deserialise
from holdfast.objects.values.types import Types

MEMORY_BYTES: Final = 1 << 30
SECONDS: Final = 30.0
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT")


def read_pickle(
    data: Bytes, *, allow: Collection[str] = (), seconds: float = SECONDS, memory: int = MEMORY_BYTES
) -> Any:
    """What a pickle holds, if that is plain: numbers, text, bytes, dates, containers, arrays.

    `OrderedDict`, `defaultdict` and `Counter` come out as dicts, a `deque` as a list. Starting the process
    takes about 0.1 s; asyncio code calls ``await asyncio.to_thread(read_pickle, data)``.

    Args:
        data: the pickle, of any protocol; Python 2's text that is not ASCII comes out as bytes.
        allow: paths of classes, such as ``app.config.Agent``, whose objects shall be read as dicts of their attributes.
            Their code is neither needed nor run.
        seconds: after so many it is given up.
        memory: the most bytes of memory the process may have.

    Raises:
        StorageRefused: it asks for something that is not plain, or more time or memory than it was given.
        ObjectCorrupt: it is not a whole pickle.
        MissingExtra: it holds a numpy array, and numpy is not installed.
        StorageError: the process could not be started, or was ended from outside.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise StorageRefused(f"a pickle is bytes, not {type(data).__name__}")
    if isinstance(allow, str) or not all(isinstance(each, str) and "\0" not in each for each in allow):
        raise StorageRefused(f"allow is a set of paths, not {allow!r:.80}", hint="such as {'app.config.Agent'}")
    # -P: a module that lies in the working directory is not taken for one of ours.
    command = [
        sys.executable,
        "-P",
        "-m",
        "holdfast.objects.values.pickle_worker",
        str(int(memory)),
        str(seconds),
        *allow,
    ]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        done = subprocess.run(
            command, input=bytes(data), capture_output=True, env=environment, timeout=seconds, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        raise StorageRefused(
            f"a pickle that was not read in {seconds:g} s", hint="read_pickle(data, seconds=…) gives it more"
        ) from None
    except OSError as error:
        raise StorageError(f"no process to read a pickle can be started: {error}") from error
    return _value(done)


def _value(done: subprocess.CompletedProcess[bytes]) -> Any:
    kind, body = done.stdout[:1], done.stdout[1:]
    if kind == b"v" and done.returncode == 0:
        return deserialise(body, JSON, types=Types(), key="pickle")
    if kind in (b"r", b"c"):
        message, hint = msgspec.json.decode(body, type=tuple[str, str])
        refused: type[HoldfastError] = ObjectCorrupt if kind == b"c" else StorageRefused
        raise refused(message, hint=hint)
    last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
    if "MemoryError" in last or done.returncode < 0:
        why = last or f"ended by signal {-done.returncode}"
        raise StorageRefused(
            f"a pickle that needs more than it was given: {why:.200}",
            hint="read_pickle(data, memory=…, seconds=…) gives it more",
        )
    raise StorageError(f"the process that reads pickles failed: {last or done.returncode:.300}")
