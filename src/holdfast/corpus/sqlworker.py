"""The process in which strangers' SQL runs: questions come in on stdin, answers go out on stdout, its end is theirs.

Started by `hub/sqlroom.py` as ``python -m holdfast.corpus.sqlworker``. It loads nothing of the hub. A message is its
length in four bytes, then msgpack; the first says which corpus it is about. What it may take of the machine is bounded
by the kernel, too.
"""

from __future__ import annotations

import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import apsw
import msgspec

from holdfast.corpus.sandbox import HEAP_BYTES, Answer, Question, Sandbox

LENGTH: Final = struct.Struct(">I")
DATA_BYTES: Final = 192 << 20
READY: Final = Answer(b"ready")


class Carrier(Protocol):
    """Whatever answers questions about a corpus."""

    def ask(self, question: Question) -> Answer:
        """What the statement finds, or why it was refused."""
        ...


def serve(opened: Callable[[Any], Carrier], source: BinaryIO, sink: BinaryIO) -> None:
    """Answers until the questions end.

    Args:
        opened: makes what answers, of the first message.
        source, sink: where questions come from and answers go.
    """
    encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Question).decode
    carrier = opened(msgspec.msgpack.decode(_take(source)))
    _bound()
    answer = READY
    while True:
        data = encode(answer)
        sink.write(LENGTH.pack(len(data)) + data)
        sink.flush()
        if not (asked := _take(source)):
            return
        answer = carrier.ask(decode(asked))


def _take(source: BinaryIO) -> bytes:
    head = source.read(LENGTH.size)
    return source.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else b""


def _open_file(path: str) -> Sandbox:
    apsw.hard_heap_limit(HEAP_BYTES)
    return Sandbox(Path(path))


def _bound() -> None:
    """What this process cannot do from here on, whatever SQLite is brought to: grow, write a file, open many."""
    for what, most in ((resource.RLIMIT_DATA, DATA_BYTES), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    serve(_open_file, sys.stdin.buffer, sys.stdout.buffer)
