"""`holdfast notify`: rules of a hub that runs, told from its configuration where it may reach."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run, wait_for
from tests.cli.test_hub import Server, server
from tests.hub.receivers import Receiver

__all__ = ["server"]


def test_rules_are_made_tried_retried_and_removed(empty: Run, server: Server, home: Path) -> None:
    receiver = Receiver()
    config = server.home / "hub.yaml"
    config.write_text("serve:\n  notify_hosts: [127.0.0.1]\n")
    server.start("--config", str(config))
    hub = ("--hub", server.url)
    assert empty("notify", "ls", *hub, "--json").json == {"rules": [], "given_up": [], "next": None}
    lacking = empty("notify", "add", "ops", *hub, "--json")
    assert (lacking.code, "needs an address" in lacking.error["message"]) == (2, True)
    bearer = server.home / "bearer"
    bearer.write_text("tk_secret\n")
    where = f"{receiver.url}/T0P"
    made = empty("notify", "add", "ops", where, *hub, "--kind", "report", "--body", "--bearer-file", bearer)
    assert made.code == 0, made.err
    assert made.text.startswith("whsec_")
    assert empty("notify", "test", "ops", *hub).text == "ops: taken, with status 200\n"
    assert receiver.came[0].headers["authorization"] == "Bearer tk_secret"
    changed = empty("notify", "add", "ops", *hub, "--rate", "7", "--json").json
    assert (changed["made"], changed["secret"], changed["rule"]["rate"]) == (False, None, 7)
    assert (changed["rule"]["kinds"], changed["rule"]["body"]) == (["report"], True), "what is not said stays"
    receiver.answer = lambda number: (301, {})
    failed = empty("notify", "test", "ops", *hub)
    assert (failed.code, "redirects are not followed" in failed.err) == (1, True)
    assert empty("init", home / "store", "--agent", "ada", *hub).code == 0
    assert empty("--store", home / "store", "send", "people", "done", "--kind", "report").code == 0
    wait_for(lambda: empty("notify", "ls", *hub, "--json").json["given_up"])
    listed = empty("notify", "ls", *hub)
    assert "report" in listed.text
    assert "T0P" not in listed.text + listed.err
    receiver.answer = lambda number: (200, {})
    assert empty("notify", "retry", *hub).text == "1 notification tried again\n"
    wait_for(lambda: empty("notify", "ls", *hub, "--json").json["rules"][0]["sent"] == 1)
    needs = empty("notify", "add", "ops", *hub, "--needs", "--no-body", "--off", "--json").json["rule"]
    assert (needs["kinds"], needs["body"], needs["on"]) == ([], False, False)
    assert empty("notify", "rm", "ops", *hub).text == "removed: rule ops\n"
    assert empty("notify", "rm", "ops", *hub).code == 5
    receiver.close()
