"""Hubs that refuse, hang, come back older or are not hubs; nodes that die or hang in the middle."""

from __future__ import annotations

import asyncio
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.errors import HubUnavailable, Unauthenticated, UsageError
from holdfast.node.aio import AsyncStore
from holdfast.node.directory import Limits, write_config
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from tests.flow.hubs import HubProcess, until

On = Callable[..., Store]


def state(store: Store) -> str:
    """How the store's first hub stands."""
    return str(store.health()["hubs"][0]["state"])


def test_a_token_that_is_refused_is_said_and_a_new_one_is_read_from_its_file(tmp_path: Path, on_node: On) -> None:
    hub = HubProcess(tmp_path / "guarded", token="right")
    try:
        token = tmp_path / "token"
        token.write_text("wrong\n")
        ada = on_node("n1", "ada", hub=hub.url, token=token)
        ada.put("k", 1)
        until(lambda: state(ada) == "denied", "the refusal was noticed")
        assert any("credential" in each for each in ada.health()["problems"])
        assert ada.outbox_depth == 1
        with pytest.raises(Unauthenticated):
            ada.get("k", agent="bob")
        ada.close()
        token.write_text("right\n")
        ada = on_node("n1", "ada", hub=hub.url, token=token)
        assert ada.flush(30)
        with pytest.raises(Unauthenticated), Hub(hub.url) as stranger:
            stranger.agents()
        write_config(tmp_path / "n1", {"format": 1, "hubs": [hub.url], "token_file": str(token)})
        bob = on_node("n1", "bob", hub=None)
        bob.put("k", 1)
        assert bob.hubs == (hub.url,)
        assert bob.flush(30)
    finally:
        hub.kill()


@pytest.mark.parametrize("address", ["hub:8084", "ftp://hub", "http://", ""])
def test_what_is_no_address_is_refused_at_once(on_node: On, address: str) -> None:
    with pytest.raises(UsageError, match="address"):
        on_node("n1", "ada", hub=address)


@pytest.fixture
def portal() -> Iterator[str]:
    """A captive portal: it answers everything with 200 and a page to log in at."""

    class Portal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>Welcome to our hotel</html>")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_captive_portal_acknowledges_nothing(on_node: On, portal: str) -> None:
    ada = on_node("n1", "ada", hub=portal)
    ada.put("k", 1)
    until(lambda: state(ada) == "offline" and ada.health()["hubs"][0]["failures"], "it was asked")
    assert ada.outbox_depth == 1
    assert not ada.flush(0)
    with pytest.raises(HubUnavailable, match="not a hub"):
        ada.messages()


def test_a_hub_that_came_back_older_is_filled_again(on_node: On, hub: HubProcess, tmp_path: Path) -> None:
    ada, bob = on_node("n1", "ada"), on_node("n2", "bob")
    ada.put("k/0", 0)
    assert ada.flush()
    changes = bob.changes()
    assert next(changes).value == 0
    hub.stop()
    shutil.copytree(hub.directory, tmp_path / "backup")
    hub.start()
    for number in range(1, 20):
        ada.put(f"k/{number}", number)
    assert ada.flush(30)
    assert [next(changes).value for _ in range(19)] == list(range(1, 20))
    hub.kill()
    shutil.rmtree(hub.directory)
    shutil.copytree(tmp_path / "backup", hub.directory)
    hub.start()
    ada.put("k/20", 20)
    with Hub(hub.url) as reader:
        until(lambda: len(reader.keys("k/", agent="ada")) == 21, "the hub was filled again")
        assert [each.seq for each in reader.changes(live=False)] == list(range(1, 22))
    assert next(changes).value == 20
    changes.close()


def test_an_empty_hub_at_the_same_address_is_filled_again(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    large = os.urandom(200_000)
    ada.put("large", large)
    ada.put("k", 1)
    assert ada.flush(30)
    hub.kill()
    shutil.rmtree(hub.directory)
    hub.start()
    ada.put("k", 2)
    with Hub(hub.url) as reader:
        until(lambda: ada.flush(1) and ada.outbox_depth == 0, "the hub was filled again")
        assert reader.get("large", agent="ada") == large
        assert [each.value for each in reader.history("k", agent="ada")] == [2, 1]


def test_a_flush_finds_an_empty_hub_also_where_nothing_is_owed(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    ada.put("k", 1)
    assert ada.flush(30)
    hub.kill()
    assert ada.flush(30), "what it acknowledged counts while it is away"
    shutil.rmtree(hub.directory)
    hub.start()
    with Hub(hub.url) as reader:
        until(lambda: ada.flush(30) and reader.keys(agent="ada") == ["k"], "the hub was filled again")
        assert reader.get("k", agent="ada") == 1


UPLOADER = """
import sys
from holdfast.node.store import Store
store = Store(sys.argv[1], "ada", hub=sys.argv[2])
store.put("large", b"0123456789abcdef" * (4 << 20))
print("put", flush=True)
store.flush(60)
"""


def test_a_node_that_is_killed_in_an_upload_goes_on_with_it(on_node: On, hub: HubProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-c", UPLOADER, str(tmp_path / "n1"), hub.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"put\n"
    partial = hub.directory / "blobs" / "partial"
    until(lambda: partial.is_dir() and any(each.stat().st_size for each in partial.iterdir()), "the upload has begun")
    process.kill()
    process.wait()
    process.stdout.close()
    ada = on_node("n1", "ada")
    assert ada.flush(60)
    with Hub(hub.url) as reader:
        assert reader.get("large", agent="ada") == b"0123456789abcdef" * (4 << 20)


HOLDER = """
import sys
from holdfast.node.store import Store
store = Store(sys.argv[1], "holder", hub=sys.argv[2])
store.put("k", 1)
store.flush(30)
print("leads", flush=True)
sys.stdin.read()
"""


def test_a_shipper_that_hangs_is_not_waited_for(on_node: On, hub: HubProcess, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "n1"), hub.url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"leads\n"
    ada = on_node("n1", "ada")
    try:
        ada.put("k", 1)
        assert ada.flush(30), "the other process did not ship it"
        process.send_signal(signal.SIGSTOP)
        ada.put("k", 2)
        assert ada.flush(30), "nobody shipped it"
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_a_hub_that_hangs_does_not_slow_the_writer(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    ada.put("k", 0)
    assert ada.flush()
    hub.signal(signal.SIGSTOP)
    try:
        for number in range(500):
            ada.put(f"k/{number}", number)
        assert ada.outbox_depth == 500
    finally:
        hub.signal(signal.SIGCONT)
    assert ada.flush(30)


def test_an_async_agent_ships_reads_and_follows(hub: HubProcess, tmp_path: Path) -> None:
    roomy = Limits(floor_bytes=0, ballast_bytes=0)

    async def work() -> None:
        async with (
            AsyncStore(tmp_path / "n1", "ada", hub=hub.url, limits=roomy) as ada,
            AsyncStore(tmp_path / "n2", "bob", hub=hub.url, limits=roomy, cas=("claims",)) as bob,
        ):
            await asyncio.gather(*(ada.put(f"k/{number}", number) for number in range(200)))
            assert await ada.flush(30)
            assert await bob.get("k/7", agent="ada") == 7
            seen = []
            async with bob.changes(prefix="k/") as changes:
                async for each in changes:
                    seen.append(each.seq)
                    if len(seen) == 200:
                        break
            assert seen == list(range(1, 201))
            claim = await bob.put("task", "bob's", collection="claims", expect=0)
            assert await bob.get("task", collection="claims") == "bob's"
            await bob.delete("task", collection="claims", expect=claim.version)
            assert await bob.messages() == []
            large = os.urandom(100_000)
            await ada.put("large", large)
            assert await ada.flush(30)
            assert await bob.get("large", agent="ada") == large

    asyncio.run(work())


def test_a_post_through_the_hub_is_one_message_however_often_it_is_sent(on_node: On, hub: HubProcess) -> None:
    ada = on_node("n1", "ada")
    with Hub(hub.url) as plain:
        first = plain.post("hello", agent="boss", to="ada", kind="report", task="t", thread="th", msg_id="m1")
        assert first == plain.post("hello", agent="boss", to="ada", kind="report", task="t", thread="th", msg_id="m1")
        assert plain.health()
        assert [each["agent"] for each in plain.agents()] == ["boss"]
    (message,) = ada.messages(to="ada")
    assert (message.body, message.agent, message.kind, message.task, message.thread) == (
        "hello", "boss", "report", "t", "th",
    )  # fmt: skip
