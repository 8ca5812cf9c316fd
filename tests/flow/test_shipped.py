"""The words that are shipped start a hub: those of the unit, of the image and of the compose file, as they stand there.

What a manager of services puts in their places (a directory, a secret's file, a free port) is put there; nothing else.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flow.hubs import DEADLINE_S, until
from tests.flow.test_operations import COMPOSE, UNIT, instructions
from tests.services import database

__all__ = ["database"]
PROGRAM = [sys.executable, "-c", "from holdfast.cli import main; main()"]
TOKEN = "0f" * 32
"""As docs/operations.md makes it: openssl rand -hex 32."""


class Shipped:
    """A hub that was started with words which others will start it with.

    Args:
        words: behind the program's name.
        places: what stands in them -> what is there in this test.
        variables: its environment, beside what Python itself needs.
    """

    def __init__(self, tmp_path: Path, words: list[str], places: Mapping[str, Path], **variables: str) -> None:
        self.secret = tmp_path / "token"
        self.secret.write_text(TOKEN + "\n")
        self.secret.chmod(0o440)
        self._ready = tmp_path / "ready"
        words = [*words, "--port", "0", "--ready-file", str(self._ready)]  # the last one counts
        words = [_put(word, places) for word in words]
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "TMPDIR") if name in os.environ}
        environment = {**kept, "HOME": str(tmp_path / "no-home"), **variables}
        self.process = subprocess.Popen(
            PROGRAM + words, env=environment, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, umask=0o077
        )
        until(lambda: self._ready.exists() or self.process.poll() is not None, "it listens")
        if self.process.poll() is not None:
            assert self.process.stderr is not None
            pytest.fail(f"{' '.join(words)}\n{self.process.stderr.read().decode()}")
        self.port = json.loads(self._ready.read_text())["port"]

    def ask(self, token: str = "", host: str = "localhost") -> int:
        """The status of a read."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(line):
            headers = {"Host": host, **({"Authorization": f"Bearer {token}"} if token else {})}
            line.request("GET", "/v1/records", headers=headers)
            return line.getresponse().status

    def end(self, number: signal.Signals) -> int:
        """Ends it; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


def _put(word: str, places: Mapping[str, Path]) -> str:
    for name, path in places.items():
        word = word.replace(name, str(path))
    return word


@pytest.fixture
def running() -> Iterator[list[Shipped]]:
    """What was started, to be ended whatever happens."""
    started: list[Shipped] = []
    yield started
    for each in started:
        each.process.kill()
        each.process.wait()
        assert each.process.stderr is not None
        each.process.stderr.close()


def test_the_units_words_start_a_hub_that_systemd_is_told_of(tmp_path: Path, running: list[Shipped]) -> None:
    (line,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.M)
    (credential, _) = re.findall(r"^LoadCredential=(\w+):(.*)$", UNIT.read_text(), re.M)[0]
    assert "Type=notify" in UNIT.read_text()
    (tmp_path / "state").mkdir(mode=0o700)
    places = {"%S": tmp_path / "state", f"${{CREDENTIALS_DIRECTORY}}/{credential}": tmp_path / "token"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        hub = Shipped(tmp_path, shlex.split(line)[1:], places, NOTIFY_SOCKET=str(tmp_path / "notify"))
        running.append(hub)
        assert manager.recv(100) == b"READY=1"
        assert (hub.ask(), hub.ask(TOKEN)) == (401, 200)
        assert (tmp_path / "state" / "holdfast" / "hub.db").exists()
        assert hub.end(signal.SIGTERM) == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_the_images_words_start_a_hub(tmp_path: Path, running: list[Shipped]) -> None:
    last: dict[str, str] = dict(instructions())
    places = {"/run/secrets/hub_token": tmp_path / "token", last["VOLUME"]: tmp_path / "volume"}
    hub = Shipped(tmp_path, json.loads(last["CMD"]), places)
    running.append(hub)
    assert (hub.ask(), hub.ask(TOKEN)) == (401, 200)
    assert (tmp_path / "volume" / "hub.db").exists()
    assert hub.end(signal.Signals[last["STOPSIGNAL"]]) == 0


def test_the_compose_files_words_start_a_hub_on_its_database(
    tmp_path: Path, running: list[Shipped], database: str
) -> None:
    service: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]["hub"]
    (tmp_path / "pgpass").write_text("postgres:5432:holdfast:holdfast:secret\n")
    (tmp_path / "pgpass").chmod(0o400)
    address = service["environment"]["HOLDFAST_DATABASE"]
    # Its server has another address here; how the password's file is named stays.
    there, _, name = database.partition("@/")
    name, _, where = name.partition("?")
    assert address.startswith(f"{there}@postgres:5432/holdfast?")
    address = address.replace("@postgres:5432/holdfast?", f"@/{name}?{where}&")
    address = address.replace("/run/secrets/pgpass", str(tmp_path / "pgpass"))
    places = {"/run/secrets/hub_token": tmp_path / "token"}
    hub = Shipped(tmp_path, service["command"], places, HOLDFAST_DATABASE=address)
    running.append(hub)
    assert (hub.ask(), hub.ask(TOKEN), hub.ask(TOKEN, host="hub:8084")) == (401, 200, 200), "prometheus asks for it so"
    assert hub.ask(TOKEN, host="elsewhere:8084") == 421
    assert hub.end(signal.SIGTERM) == 0
