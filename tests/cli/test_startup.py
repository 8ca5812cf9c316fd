"""A short command loads what it uses: each heavy module named here was once loaded by one that did not use it.

What that costs in milliseconds is `bench/startup.py`'s business; this needs no clock.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LOCAL = {
    "--help": "",
    "init": "",
    "put": "plan 2 --if-version 1",
    "get": "plan",
    "ls": "",
    "history": "plan",
    "diff": "plan 1",
    "rollback": "plan 1",
    "rm": "plan",
    "send": "people hello",
    "inbox": "",
    "export": "",
    "status": "",
    "doctor": "",
    "verify": "",
    "metrics": "",
    "version": "",
    "config": "show --origin",
}
HEAVY = {
    *("asyncio", "concurrent", "cryptography", "ctypes", "dataclasses", "email", "http", "importlib.metadata"),
    *("importlib.resources", "jinja2", "json", "logging", "multiprocessing", "random", "secrets", "selectors"),
    *("shutil", "socket", "sqlite3", "ssl", "starlette", "subprocess", "tempfile", "urllib.request", "uvicorn"),
    *("yaml", "zipfile", "zstandard"),
}
LIGHT = {"apsw", "hashlib", "holdfast.corpus", "msgspec", "pathlib"}
"""What even the overview does without."""
AT_THE_END = (
    "import atexit, sys; at_first = set(sys.modules);"
    " atexit.register(lambda: open('loaded', 'w').write('\\n'.join(set(sys.modules) - at_first)));"
    " from holdfast.cli import main; sys.argv[0] = 'holdfast'; main()"
)


def loaded(home: Path, *words: str) -> set[str]:
    """The modules that a command line has loaded when it ends."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "COVERAGE"))}
    environment |= {"HOME": str(home), "HOLDFAST_STORE": "store"}
    command = [sys.executable, "-c", AT_THE_END, *words]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set((home / "loaded").read_text().split())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a store and a value in it, to be copied."""
    home = tmp_path_factory.mktemp("begun")
    loaded(home, "init", "--agent", "me")
    loaded(home, "put", "plan", "1")
    return home


@pytest.mark.parametrize("name", LOCAL)
def test_a_local_command_loads_nothing_heavy(tmp_path: Path, begun: Path, name: str) -> None:
    home = shutil.copytree(begun, tmp_path / "home")
    found = loaded(home, name, *LOCAL[name].split())
    assert "click" in found
    assert found & HEAVY == set()


def test_the_overview_loads_no_store(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--help") & LIGHT == set()


def test_the_versions_are_told_without_opening_an_engine(tmp_path: Path) -> None:
    found = loaded(tmp_path, "version")
    assert "holdfast.sqlite" in found
    assert not any(name.startswith(("holdfast.corpus.engine", "holdfast.log", "holdfast.node")) for name in found)


def test_garbage_is_looked_for_as_usual_in_a_command_that_runs_on(tmp_path: Path) -> None:
    loaded(tmp_path, "init")
    ask = AT_THE_END.replace("'\\n'.join(set(sys.modules) - at_first)", "str(__import__('gc').get_threshold())")
    usual = repr(gc.get_threshold())
    for words, same in ((["watch", "--once"], True), (["ls"], False)):
        command = [sys.executable, "-c", ask, "--store", "store", *words]
        subprocess.run(command, cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)}, check=True)
        assert ((tmp_path / "loaded").read_text() == usual) == same


IDLE = """
import os, signal, sys, threading, time
from holdfast.cli import main

def tell():
    while not os.path.exists(sys.argv[-1]):
        time.sleep(0.02)
    print(*sorted(sys.modules), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=tell, daemon=True).start()
main(sys.argv[1:])
"""
NOT_IN_AN_IDLE_HUB = {
    # What others have written, for what somebody asks for.
    *("cryptography", "jinja2", "markdown_it", "prometheus_client", "psycopg"),
    *("sqlite3", "zipfile", "zoneinfo"),
    # Our own: what sends, follows, backs up, mends; the document of the API.
    *(f"holdfast.hub.{name}" for name in ("backup", "backups", "follow", "migrate", "multipart", "openapi", "repair")),
    *(f"holdfast.hub.notify.{name}" for name in ("desk", "letter", "outbox", "post")),
    *("holdfast.integrity.backup", "holdfast.integrity.recovery", "holdfast.node.store", "holdfast.transport.client"),
}
PAGES_OF_AN_IDLE_HUB = {"holdfast.hub.ui", *(f"holdfast.hub.ui.{name}" for name in ("live", "pages", "routes"))}
MODULES_MAX = 560
"""It has some 530; whoever comes to the limit asks first what a hub needs before somebody asks it for a thing."""


def test_an_idle_hub_has_loaded_little(tmp_path: Path) -> None:
    words = ["serve", "--data", tmp_path / "hub", "--port", "0", "--ready-file", tmp_path / "ready"]
    done = subprocess.run([sys.executable, "-c", IDLE, *map(str, words)], capture_output=True, timeout=60, check=True)
    known = set(done.stdout.decode().splitlines()[-1].split())
    assert "holdfast.hub.core" in known
    assert NOT_IN_AN_IDLE_HUB & known == set()
    assert {each for each in known if each.startswith("holdfast.hub.ui")} == PAGES_OF_AN_IDLE_HUB
    assert len(known) <= MODULES_MAX, len(known)
