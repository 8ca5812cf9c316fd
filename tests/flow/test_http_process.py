"""A hub as a process: it says where it listens, stops within three seconds, and a kill costs nobody a record."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from holdfast.errors import Locked, UsageError
from holdfast.hub.serve import STOP_S, is_loopback, listen, serve, url_of
from tests.flow.hubs import HubProcess, until
from tests.hub.lines import Events, Line
from tests.hub.pens import Pen


def test_the_listener_and_what_it_accepts_do_not_wait_for_more_bytes() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert listener.proto == socket.IPPROTO_TCP
        with socket.create_connection(listener.getsockname()) as client:
            until(lambda: _accepts(listener), "the connection is there")
            assert client.getpeername() == listener.getsockname()


def _accepts(listener: socket.socket) -> bool:
    try:
        accepted, _ = listener.accept()
    except BlockingIOError:
        return False
    with accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    return True


def test_the_ready_file_is_whole_and_goes_with_the_hub(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    ready = tmp_path / "hub.ready"
    said = json.loads(ready.read_text())
    assert said["url"] == f"http://127.0.0.1:{said['port']}"
    assert os.kill(said["pid"], 0) is None
    hub.stop()
    assert not ready.exists()
    assert (tmp_path / "hub" / "hub.clean").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_within_three_seconds_with_readers_and_pollers_listening(tmp_path: Path, number: int) -> None:
    hub = HubProcess(tmp_path / "hub")
    events = [Events(hub.url) for _ in range(5)]
    for each in events:
        each.until("caught_up")
    line, idle = Line(hub.url), Line(hub.url)
    idle.gen()
    polled: list[object] = []
    polling = threading.Thread(target=lambda: polled.append(line.json("GET", "/v1/feed?after=now&wait=60")))
    polling.start()
    until(lambda: idle.json("GET", "/health")["listeners"] == 6, "all listen")
    process = hub._process
    assert process is not None
    assert STOP_S < 3  # after this uvicorn cuts off who is still served; what it takes is the bench's business
    process.send_signal(number)
    assert process.wait(20) == 0
    for each in events:
        assert [event for event, _, _ in each if event != "comment"] == []
        each.close()
    polling.join(10)
    assert polled[0]["records"] == []  # type: ignore[index]
    line.close()
    idle.close()
    hub.kill()


def test_a_clean_stop_keeps_the_generation_and_a_kill_begins_a_new_one(hub: HubProcess) -> None:
    def gen() -> str:
        line = Line(hub.url)
        try:
            return line.gen()
        finally:
            line.close()

    first = gen()
    hub.stop()
    hub.start()
    assert gen() == first
    hub.kill()
    hub.start()
    second = gen()
    assert second != first
    hub.stop()
    hub.start()
    assert gen() == second


def test_what_was_acknowledged_outlives_kills_and_is_there_once(hub: HubProcess) -> None:
    pens = [Pen(f"agent-{n}") for n in range(3)]
    acked = {pen.agent: 0 for pen in pens}
    posted: list[str] = []
    enough = threading.Event()

    def ship(pen: Pen) -> None:
        while not enough.is_set():
            pen.put("k", pen.head.seq)
            while not enough.is_set() and acked[pen.agent] < pen.head.seq:
                with contextlib.suppress(Exception), contextlib.closing(Line(hub.url, timeout=5)) as line:
                    gen = line.gen()
                    while acked[pen.agent] < pen.head.seq:
                        verdict = line.append(pen.segment(acked[pen.agent] + 1), gen=gen).verdicts[0]
                        assert verdict.state == "ack"
                        acked[pen.agent] = verdict.at.seq

    def post() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            while not enough.is_set():
                with contextlib.suppress(Exception), contextlib.closing(Line(hub.url, timeout=5)) as line:
                    body = {"msg_id": f"m{number}", "sender": "plain", "content": number}
                    answer = line.json("POST", "/sync/message", body)
                    assert answer == {"status": "stored", "msg_id": f"m{number}"}
                    posted.append(f"m{number}")
                    break

    threads = [threading.Thread(target=ship, args=(pen,)) for pen in pens] + [threading.Thread(target=post)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        before = sum(acked.values()) + len(posted)
        until(lambda before=before: sum(acked.values()) + len(posted) > before + 40, "more is acknowledged")
        hub.kill()
        hub.start()
    enough.set()
    for thread in threads:
        thread.join(30)
    line = Line(hub.url)
    shown, after = [], "0"
    while True:
        page = line.json("GET", f"/v1/feed?after={after}")
        shown += page["records"]
        after = page["cursor"]
        if page["caught_up"]:
            break
    line.close()
    assert [each["pos"] for each in shown] == list(range(1, len(shown) + 1))
    for pen in pens:
        seqs = [each["seq"] for each in shown if each["agent"] == pen.agent]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) >= acked[pen.agent] > 0
    keys = [each["key"] for each in shown if each["agent"] == "plain"]
    assert len(keys) == len(set(keys))
    assert set(posted) <= set(keys)


def test_a_second_server_of_the_directory_is_refused(hub: HubProcess) -> None:
    with pytest.raises(Locked, match="already served by process"):
        serve(hub.directory, port=0)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.0.2.1"])
def test_other_machines_are_not_let_in_without_a_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError, match="no token is set"):
        serve(tmp_path / "hub", host, 0)
    assert not (tmp_path / "hub").exists()


def test_a_taken_port_and_a_foreign_address_are_told_as_such(hub: HubProcess, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1 port {hub.port}"):
        serve(tmp_path / "other", port=hub.port)
    with pytest.raises(UsageError, match=r"cannot listen at 192\.0\.2\.1"):
        serve(tmp_path / "other", "192.0.2.1", 0, token="t", plain_http=True)


def test_loopback_is_told_from_the_rest_of_the_world() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.9.1", "localhost", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "", "192.0.2.7", "no.such.host.invalid")] == [False] * 5
    with listen("::1", 0) as listener:
        assert url_of(listener).startswith("http://[::1]:")


def test_importing_serve_is_cheap() -> None:
    code = "import sys, holdfast.hub.serve; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "holdfast.hub.serve" in loaded
    assert not {"uvicorn", "starlette", "apsw", "cryptography", "zstandard", "uvloop"} & set(loaded)


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from holdfast.errors import MissingExtra\n"
        "from holdfast.hub.serve import serve\n"
        "try: serve(sys.argv[1], port=0)\n"
        "except MissingExtra as error: print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "h")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pip install 'holdfast[hub]'"


def test_a_token_in_force_is_asked_of_a_running_hub(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub", token="s3cret")
    line = Line(hub.url)
    assert line.ask("GET", "/v1/feed")[0] == 401
    assert line.ask("GET", "/v1/feed", Authorization="Bearer s3cret")[0] == 200
    line.close()
    hub.stop()
