"""The streams of the pages: what comes, how many there may be, and when they end."""

from __future__ import annotations

import http.client
import re
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.hub.tokens import SqliteTokens, Wish, create, revoke
from tests.flow.hubs import HubProcess
from tests.hub.pens import Pen
from tests.ui.conftest import asker
from tests.ui.furnishing import Furnisher


class Stream:
    """One stream of events, read as it comes."""

    def __init__(self, hub: HubProcess, page: str, cookie: str = "", last: str = "") -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
        headers = {"Accept": "text/event-stream", "Cookie": cookie, **({"Last-Event-ID": last} if last else {})}
        self._line.request("GET", f"/ui/events?page={page}", headers=headers)
        self._answer = self._line.getresponse()
        self.status = self._answer.status

    def event(self) -> dict[str, str]:
        """The next event; empty at the end of the stream."""
        found: dict[str, str] = {}
        while line := self._answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if not line.strip() and found:
                break
            if name:
                found[name] = found.get(name, "") + value
        return found

    def close(self) -> None:
        self._answer.close()
        self._line.close()


Opener = Callable[..., Stream]


@pytest.fixture
def opened() -> Iterator[Opener]:
    """Opens streams, and closes them in the end."""
    streams: list[Stream] = []

    def open_one(*arguments: Any, **more: Any) -> Stream:
        streams.append(Stream(*arguments, **more))
        return streams[-1]

    yield open_one
    for each in streams:
        each.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub in a process of its own."""
    process = HubProcess(tmp_path / "hub")
    yield process
    process.kill()


def test_who_comes_back_gets_the_whole_and_the_fifth_a_look(hub: HubProcess, opened: Opener) -> None:
    furnisher = Furnisher(asker(hub.url))
    pen = Pen("ada")
    pen.put("first", 1)
    furnisher.ship("laptop", [pen])
    stream = opened(hub, "overview")
    seen = stream.event()
    assert (seen["retry"], "first" in seen["data"], 'hx-swap-oob="outerMorph"' in seen["data"]) == ("500", True, True)
    pen.put("second", 2)
    furnisher.ship_from("laptop", pen, 2)
    while "second" not in (event := stream.event())["data"]:
        pass
    assert int(event["id"].partition(".")[0]) == 2, "the feed's cursor"
    stream.close()
    pen.put("third", 3)
    furnisher.ship_from("laptop", pen, 3)
    again = [opened(hub, "overview", last=event["id"]) for _ in range(4)]
    for each in again:
        data = each.event()["data"]
        assert [data.count(f"/data/state/{key}?") for key in ("first", "second", "third")] == [1, 1, 1]
    fifth = opened(hub, "nodes")
    told = fifth.event()
    assert (told["retry"], "laptop" in told["data"]) == ("10000", True)
    assert fifth.event() == {}, "it has ended"
    assert opened(hub, "no-such-page").status == 404


def test_a_stream_ends_with_the_token_that_it_stands_for(tmp_path: Path, opened: Opener) -> None:
    store = SqliteTokens(_made(tmp_path / "hub"))
    token, text = create(store, Wish(kind="person", name="ada"))
    hub = HubProcess(tmp_path / "hub")
    try:
        assert opened(hub, "overview").status == 401
        cookie = _signed_in(hub, text)
        stream = opened(hub, "overview", cookie)
        assert "data" in stream.event()
        revoke(store, token.id)
        while stream.event():
            pass
        assert opened(hub, "overview", cookie).status == 401
    finally:
        store.close()
        hub.kill()


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _signed_in(hub: HubProcess, token: str) -> str:
    """The cookie of a new session."""
    line = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=20)
    line.request("GET", "/sign-in", headers={"Accept": "text/html"})
    page = line.getresponse().read().decode()
    fields = dict(re.findall(r'type="hidden" name="(form_token|next)" value="([^"]*)"', page))
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": hub.url}
    line.request("POST", "/sign-in", urllib.parse.urlencode({**fields, "token": token}), headers)
    answer = line.getresponse()
    answer.read()
    assert answer.status == 303
    line.close()
    return answer.headers["Set-Cookie"].partition(";")[0]
