"""The warnings of the seed's dashboard, each caused for real and seen by somebody who just looks."""

from __future__ import annotations

import os
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import Clock
from holdfast.errors import NodeFull
from holdfast.log import drafts
from holdfast.node.directory import Directory, Limits
from holdfast.node.store import Store
from holdfast.retention import MB, Retention
from tests.fault_proxy import FaultProxy, proxies
from tests.flow.hubs import HubProcess, until
from tests.ui.conftest import Watched, asker

__all__ = ["proxies"]

SMALL = Limits(floor_bytes=0, ballast_bytes=0, scan_s=0)
MINUTES = 600


class Earlier(Clock):
    """The time as it was a while ago."""

    def now_ms(self) -> int:
        return round(time.time() * 1000) - MINUTES * 1000

    def monotonic(self) -> float:
        return time.monotonic()


def test_sync_lag_and_a_full_cache_are_seen_at_once(
    chromium: Any, tmp_path_factory: pytest.TempPathFactory, proxies: list[FaultProxy]
) -> None:
    home = tmp_path_factory.mktemp("warned")
    hub = HubProcess(home / "hub", settle="backups")
    proxy = FaultProxy(hub.port)
    proxies.append(proxy)
    try:
        _wrote_while_away(home / "away")
        context = chromium.new_context()
        context.set_default_timeout(30_000)
        watched = Watched(context, hub.url)
        page = watched.go("/")
        warnings = page.locator(".notices")
        assert page.locator(".notices li", has_text="Sync lag").count() == 0

        proxy.always("POST", "503")
        proxy.spoil("POST", "")  # its hello comes through, and then the network is gone
        with Store(home / "away", "ada", hub=proxy.url, limits=SMALL) as cut_off:
            warnings.get_by_text("Sync lag").wait_for()
            assert "3 records behind" in warnings.inner_text()
            before = counted(page)
            assert before >= 1

            proxy.heal()
            assert cut_off.flush(60)
            until(lambda: "Sync lag" not in page.content(), "the warning goes with its cause")

            full = Limits(floor_bytes=0, ballast_bytes=0, scan_s=0, retention=Retention(max_bytes=4 * MB, wait_s=0.0))
            with Store(home / "full", "bob", hub=hub.url, limits=full) as store:
                _fill(store)
                warnings.get_by_text("Cache full: bob").wait_for()
                assert counted(page) == before
                other = Watched(context, hub.url).go("/nodes")
                assert int(other.locator("#badge").inner_text().split()[1]) == before, "on every page"
                assert other.locator("tr", has_text="Full: bob").locator("meter").count() == 1

        assert [each for each in watched.complaints if "ERR_" not in each] == []
        context.close()
    finally:
        hub.kill()


def counted(page: Any) -> int:
    """How many things need somebody, once the badge says what the tile does: what comes live is put in part by part."""
    figure = "document.querySelector('#t-you + .figure').textContent"
    page.wait_for_function(f"() => document.querySelector('#badge').childNodes[1].textContent === {figure}")
    return int(page.evaluate(figure))


def _wrote_while_away(path: Path) -> None:
    """A node that wrote three records ten minutes ago, and has not spoken to anybody since."""
    Directory.init(path)
    directory = Directory(path, limits=SMALL, wall=Earlier())
    log = directory.open_log("ada", None)
    for number in range(3):
        log.log.append([drafts.value("state", f"k{number}", number)])
    directory.release_log(log)
    directory.close()


def _fill(store: Store) -> None:
    """Writes until a write is refused: nothing may leave, as the hub has no backups."""

    def much() -> None:
        for number in range(1_000):
            store.put(f"k{number}", os.urandom(20_000).hex())

    with pytest.raises(NodeFull):
        much()


def test_hub_storage_that_is_critical_is_seen_and_ends(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub", floor_bytes=1 << 60)
    try:
        ask = asker(hub.url)
        with pytest.raises(Exception, match="507"):
            ask("POST", "/sync/message", b'{"content": "x"}')
        page = ask("GET", "/overview.json").decode()
        assert "Hub storage critical: full" in page
        with Store(tmp_path / "node", "ada", hub=hub.url, limits=SMALL) as store:
            store.put("k", 1)
            assert not store.flush(0.5), "everything is kept there"
    finally:
        hub.kill()


def test_a_real_node_pauses_and_goes_on(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    try:
        ask = asker(hub.url)
        with Store(tmp_path / "node", "ada", hub=hub.url, limits=SMALL) as store:
            store.put("a", 1)
            assert store.flush()
            name = store.health()["node"]
            _press(hub.url, name, "pause")
            store.put("b", 1)  # what is on its way still comes, and its answer says that there is a wish
            until(lambda: store.health()["hubs"][0]["state"] == "paused", "it has heard")
            store.put("c", 1)
            assert not store.flush(0.5)
            assert b'"paused":1' in ask("GET", "/overview.json")
            _press(hub.url, name, "resume")
            assert store.flush(30)
            told = ask("GET", f"/nodes/{name}.json").decode()
            assert '"version":"' in told
            assert '"used":' in told
    finally:
        hub.kill()


def _press(url: str, node: str, what: str) -> None:
    """Presses a button of a node's page, as a browser without JavaScript would."""

    ask = asker(url)
    page = _page(url, f"/nodes/{node}")
    token = re.search(r'name="form_token" value="([^"]+)"', page)
    assert token
    form = urllib.parse.urlencode({"form_token": token[1], "node": node, "what": what}).encode()
    ask("POST", "/nodes/change", form, "application/x-www-form-urlencoded")


def _page(url: str, path: str) -> str:

    request = urllib.request.Request(url + path, headers={"Accept": "text/html"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: bytes = answer.read()
    return found.decode()
