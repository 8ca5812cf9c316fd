"""`holdfast nodes`: how a hub's nodes stand by the bounds that its configuration sets, and what is asked of them."""

from __future__ import annotations

import time
from contextlib import closing

import msgspec

from tests.cli.conftest import Run
from tests.cli.test_hub import Server, server
from tests.hub.lines import Line
from tests.hub.pens import Pen

__all__ = ["server"]


def test_nodes_are_late_as_configured_and_are_asked_and_forgotten(empty: Run, server: Server) -> None:
    config = server.home / "hub.yaml"
    config.write_text("watch:\n  lag: 2h\n  behind: 3h\n  clock: 30s\n")
    server.start("--config", str(config))
    hub = ("--hub", server.url)
    assert empty("nodes", "ls", *hub, "--json").json == {"nodes": []}
    pen = Pen("ada")
    pen.put("k", 1)

    def speaks(hours: float) -> None:
        now = round(time.time() * 1000)
        said = msgspec.structs.replace(
            pen.hello(), node="laptop", now_ms=now + 10_000, oldest_ms=now - round(hours * 3_600_000)
        )
        with closing(Line(server.url)) as line:
            line.hello(said)

    def stands() -> tuple[str, bool]:
        (node,) = empty("nodes", "ls", *hub, "--json").json["nodes"]
        return node["state"], node["clock_off"]

    speaks(1)
    assert stands() == ("in-sync", False), "an hour is nothing where two may be"
    speaks(2.5)
    assert stands()[0] == "catching-up"
    speaks(4)
    assert stands()[0] == "behind"
    with closing(Line(server.url)) as line:
        shown = {each["path"]: each for each in line.json("GET", "/settings.json")["configuration"]}
    assert (shown["watch.lag"]["value"], shown["watch.silent"]["value"]) == ("2h", "150s")
    assert shown["watch.lag"]["origin"].endswith("hub.yaml:2:8")
    assert shown["watch.silent"]["origin"] == ""
    assert shown["audit.keep_days"]["value"] == "0 days"

    asked = empty("nodes", "pause", "laptop", *hub, "--json").json
    assert {**asked, "at": ""} == {"node": "laptop", "paused": True, "by": "", "at": "", "heard": False}
    listed = empty("nodes", "ls", *hub)
    assert "paused" in listed.text
    assert "it is to pause, when it next speaks" in listed.text
    assert empty("nodes", "resume", "laptop", *hub).text == "laptop is to go on\n"
    assert empty("nodes", "sync", "laptop", *hub, "--json").json["paused"] is False
    assert empty("nodes", "pause", "ghost", *hub).code == 5
    assert empty("nodes", "forget", "laptop", *hub).text == "laptop is forgotten\n"
    assert empty("nodes", "ls", *hub, "--json").json == {"nodes": []}
    assert empty("nodes", "forget", "laptop", *hub).code == 5
