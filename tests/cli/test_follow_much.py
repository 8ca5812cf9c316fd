"""Following much: what is read again and what is held at once, counted in bytes; and a gigabyte of it, with `long`."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.following import files
from holdfast.cli.following.follower import Follower
from holdfast.cli.transcripts.tools import TOOLS
from holdfast.node.store import Store

OLD_NS = 1_767_700_000_000_000_000
ROOT = Path(__file__).parents[2]
RSS_MAX = 160 << 20
"""Of a follower of a gigabyte: the interpreter, SQLite's caches, one lot."""
FOLLOW = "import sys; from holdfast.cli import main; sys.argv[0] = 'holdfast'; main()"


def session(number: int, size: int, texts: list[str]) -> Iterator[str]:
    """The lines of a session of Claude Code, of about so many bytes: words, and what tools read."""
    luck, written, line = random.Random(number), 0, 0
    while written < size:
        line += 1
        text = luck.choice(texts)
        at = luck.randrange(len(text))
        said: Any = text[at : at + luck.choice((80, 400, 3_000, 9_000))]
        role = "assistant" if line % 3 else "user"
        if line % 3 == 2:
            role, said = "user", [{"type": "tool_result", "tool_use_id": f"t{line}", "content": said}]
        event = {"type": role, "uuid": f"u{number}-{line}", "sessionId": f"s{number}", "cwd": f"/src/p{number % 7}"}
        event["timestamp"] = f"2026-01-06T{line // 3600 % 24:02}:{line // 60 % 60:02}:{line % 60:02}.000Z"
        yield (made := json.dumps(event | {"message": {"role": role, "content": said}}) + "\n")
        written += len(made)


def write(home: Path, count: int, size: int) -> list[Path]:
    """So many sessions of so many bytes, at rest."""
    texts = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    paths = []
    for number in range(count):
        path = home / "projects" / f"-src-p{number % 7}" / f"{number:08}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            file.writelines(session(number, size, texts))
        os.utime(path, ns=(OLD_NS, OLD_NS))
        paths.append(path)
    return paths


def test_each_byte_is_read_once_and_a_restart_reads_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path / "claude", 8, 700_000)
    size = sum(path.stat().st_size for path in paths)
    read: list[int] = []
    usual = files.read

    def counting(file: Any, start: int, wanted: int) -> bytes:
        data = usual(file, start, wanted)
        read.append(len(data))
        return data

    monkeypatch.setattr(files, "read", counting)
    with Store(tmp_path / "node", "me", hub=[]) as store:

        def follower() -> Follower:
            return Follower(store, TOOLS["claude-code"], tmp_path / "claude", lambda *_: None)

        def run(chosen: Follower) -> int:
            del read[:]
            chosen.walk()
            chosen.once()
            return sum(read)

        first = follower()
        assert size <= run(first) < 1.3 * size, "what a lot cuts off is read with the next"
        assert max(read) <= files.LOT_BYTES, "no more than a lot is held"
        assert run(first) == 0
        assert run(follower()) == 0, "a file at rest is not opened"
        for number in (99, 97):
            with paths[3].open("a") as file:
                file.writelines(session(number, 2_000, ["one more line of words"]))
            again = run(first)
        grown = paths[3].stat().st_size
        assert again <= 100_000, "of a file that grows the last chunk, and what is new"
        with paths[5].open("a") as file:
            file.writelines(session(98, 2_000, ["and one more"]))
        assert run(follower()) <= 1.3 * (grown + paths[5].stat().st_size), "a restart reads the files that changed"


@pytest.mark.long
def test_a_gigabyte(tmp_path: Path) -> None:
    write(tmp_path / "claude", 25, 40_000_000)
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*words: str) -> tuple[Any, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", FOLLOW, *words], env=environment, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert after.ru_maxrss * 1024 < RSS_MAX
        return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    run("init", "--agent", "laptop")
    follow = ("follow", "claude-code", str(tmp_path / "claude"), "--once", "--json")
    out, first = run(*follow)
    assert json.loads(out)["files"] == 25
    out, again = run(*follow)
    assert json.loads(out)["lines"] == 0
    assert again < first / 20, "the log remembers what was read"
