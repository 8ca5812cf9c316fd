"""What a hub writes down: lines that programs can read, without a token or a value in any of them."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from holdfast.corpus.space import Reserve
from holdfast.errors import UsageError
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.hub.logs import configure
from tests.flow.hubs import SERVE, until

TOKEN = "canary-token-7Q"
VALUE = "canary-value-8W"
logger = logging.getLogger("holdfast.hub.app")


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _others_logging_stays() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("holdfast")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def logged(form: Any = "json", level: str = "debug") -> io.StringIO:
    """Everything that is logged from here on."""
    out = io.StringIO()
    configure(form, level, out)
    return out


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    """The JSON lines in it."""
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_no_token_and_no_value_is_in_a_line_or_a_metric(tmp_path: Path) -> None:
    out = logged()
    home = HubDirectory(tmp_path / "hub", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    app = create_app(home, token=TOKEN)

    def fails(*_: Any) -> None:
        raise ValueError(f"cannot understand {VALUE!r}")

    with TestClient(app, raise_server_exceptions=False, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert client.post("/sync/message", json={"content": VALUE, "sender": "ada"}).status_code == 200
        assert client.post("/sync/message", content=f'{{"content": "{VALUE}'.encode()).status_code == 400
        assert client.get("/v1/search", params={"q": VALUE}).status_code == 200
        assert client.get("/v1/feed", params={"after": VALUE}).status_code == 400
        wrong = {"Authorization": f"Bearer {VALUE}"}
        assert client.get("/v1/agents", headers=wrong).status_code == 401
        app.state.core.nodes_json = fails
        failed = client.get("/v1/nodes")
        told = client.get("/metrics").text
    assert failed.status_code == 500
    assert 'outcome="refused"' in told
    for secret in (TOKEN, VALUE):
        assert secret not in out.getvalue()
        assert secret not in told
    events = lines(out)
    (request,) = [e for e in events if e.get("route") == "POST /sync/message" and e["outcome"] == "ok"]
    assert (request["level"], request["logger"], request["duration_ms"] > 0) == ("debug", "holdfast.hub.access", True)
    (failure,) = [e for e in events if e["level"] == "error"]
    assert failure["request_id"] == failed.json()["error"]["context"]["request_id"]
    assert failure["error"]["kind"] == "ValueError"
    assert "fails" in failure["error"]["at"][0]


def test_requests_are_written_down_only_when_asked_for(tmp_path: Path) -> None:
    out = logged(level="info")
    home = HubDirectory(tmp_path / "hub", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    with TestClient(create_app(home)) as client:
        client.get("/livez")
    assert out.getvalue() == ""


def test_a_line_holds_what_is_known_and_nothing_else() -> None:
    out = logged()
    logger.warning("it is %s", "so", extra={"node": "n", "agent": "ada", "seq": 3, "value": VALUE, "path": "p" * 999})
    (line,) = lines(out)
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "it is so",
        "logger": "holdfast.hub.app",
        "node": "n",
        "agent": "ada",
        "seq": 3,
        "path": "p" * 200,
    }


def test_of_a_failure_our_own_and_the_systems_words_are_kept() -> None:
    out = logged()
    for error in (UsageError("not a cursor"), OSError(28, "No space left"), KeyError(VALUE)):
        try:
            raise error from ValueError(VALUE)
        except Exception:
            logger.exception("failed")
    found = [line["error"] for line in lines(out)]
    assert [each.get("message") for each in found] == ["not a cursor", "[Errno 28] No space left", None]
    assert [each["cause"]["kind"] for each in found] == ["ValueError"] * 3
    assert VALUE not in out.getvalue()


def test_text_is_for_people_and_one_line_stays_one_line() -> None:
    out = logged("text")
    logger.error("a\nb \x1b[31m", extra={"node": "n"})
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().endswith("ERROR a\\nb \\x1b[31m node=n\n")


@pytest.mark.parametrize(("stream", "first"), [(io.StringIO(), "{"), (Terminal(), "2")])
def test_the_form_follows_the_reader(stream: io.StringIO, first: str) -> None:
    configure(None, "info", stream)
    logger.info("x")
    assert stream.getvalue()[0] == first


def test_a_library_prints_nothing_by_itself(tmp_path: Path) -> None:
    code = (
        "import logging, holdfast; holdfast.Store;"
        " logging.getLogger('holdfast.node.ship').error('not for this program')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_is_told_when_it_listens_lives_and_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(30)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
        command = [sys.executable, "-c", SERVE, str(tmp_path / "hub"), "0", str(tmp_path / "ready"), "{}"]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            heard = {ear.recv(64)}
            until(lambda: heard.add(ear.recv(64)) or {b"READY=1", b"WATCHDOG=1"} <= heard, "it is ready and lives")
            assert (tmp_path / "ready").exists()
            process.send_signal(signal.SIGTERM)
            until(lambda: ear.recv(64) == b"STOPPING=1", "it says that it stops")
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
