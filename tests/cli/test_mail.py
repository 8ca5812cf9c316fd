"""Mail on the command line: what waits, what is said of it, and what its sender sees."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Run, wait_for
from tests.cli.test_hub import server as server
from tests.cli.test_hub import two as two


def ids(hf: Run, *words: str) -> list[str]:
    return [each["id"] for each in hf("inbox", "--json", *words).json["messages"]]


@pytest.fixture(params=["this machine", "two machines"])
def sides(request: pytest.FixtureRequest, empty: Run) -> tuple[Run, Run]:
    """Whoever sends and whoever reads: agents of one store without a hub, or of two with one."""
    if request.param == "this machine":
        assert empty("init", "--agent", "me").code == 0
        return empty, lambda *words: empty(*words, "--agent", "boss")
    both = request.getfixturevalue("two")
    return (lambda *words: empty(*words, *both("laptop"))), (lambda *words: empty(*words, *both("desk")))


def test_what_is_said_of_mail_shows_in_the_inbox_and_to_its_sender(sides: tuple[Run, Run]) -> None:
    hf, boss = sides
    for name in ("m1", "m2", "m3", "m4", "m5"):
        assert hf("send", "people", f"about {name}", "--id", name, "--priority", "high").code == 0
    assert ids(boss) == ["m1", "m2", "m3", "m4", "m5"]
    assert boss("ack", "m1", "m2").code == 0
    assert boss("done", "m2", '{"rows": 3}').code == 0
    assert boss("snooze", "m3", "--until", "2h").code == 0
    assert boss("archive", "m4", "--json").json["done"] == ["m4"]
    assert ids(boss) == ["m5"]
    states = {each["id"]: each["state"] for each in boss("inbox", "--state", "all", "--json").json["messages"]}
    assert states == {"m1": "acknowledged", "m2": "done", "m3": "snoozed", "m4": "archived", "m5": "unread"}
    assert "about m3" in boss("inbox", "--state", "snoozed").text
    assert boss("reopen", "m3").code == 0
    assert ids(boss, "--state", "needs") == ["m3", "m5"]
    reply = boss("reply", "m5", "will do", "--json").json
    assert (reply["in_reply_to"], reply["thread"]) == ("m5", "m5")
    sent = {each["id"]: each["delivery"] for each in hf("sent", "--json").json["messages"]}
    assert {name: told["state"] for name, told in sent.items() if name != "m3"} == {
        **{"m1": "acknowledged", "m2": "done", "m5": "acknowledged"},
        "m4": sent["m4"]["state"],
    }
    (who,) = sent["m2"]["readers"].values()
    assert who["result"] == {"rows": 3}
    assert "done" in hf("sent").text


def test_what_cannot_be_found_is_named_and_the_rest_is_done(hf: Run) -> None:
    hf("send", "people", "hello", "--id", "m1")
    result = hf("ack", "m1", "nothing", "--json")
    assert (result.code, result.json["done"], result.json["failed"][0]["id"]) == (3, ["m1"], "nothing")
    assert "nothing: there is no message 'nothing'" in result.err
    assert hf("ack", "nothing").code == 5
    for until in ("soon", "999999y", "1970-01-01"):
        assert hf("snooze", "m1", "--until", until).code == 2
    assert hf("inbox", "--state", "open", "--task", "t").code == 2
    assert hf("send", "people", "x", "--dedupe", "k", "--id", "m2").code == 2
    for _ in range(2):
        assert hf("send", "people", "daily", "--dedupe", "k", "--expires", "1h").code == 0
    assert len(ids(hf, "--state", "unread")) == 1


def test_a_question_is_asked_and_answered_and_withdrawn(hf: Run, spawn: Callable[..., subprocess.Popen[bytes]]) -> None:
    asking = spawn("ask", "Deploy?", "--option", "yes", "--option", "no")
    (question,) = wait_for(lambda: ids(hf))
    assert "one of: yes, no" in hf("inbox").text
    assert hf("answer", question, "perhaps", "--agent", "boss").code == 2
    assert hf("answer", question, "yes", "--agent", "boss").code == 0
    out, _ = asking.communicate(timeout=60)
    assert (out, asking.returncode) == (b"yes\n", 0)
    late = hf("ask", "And now?", "--timeout", "0.05", "--id", "q2", "--json")
    assert (late.code, late.error["code"], late.error["context"]) == (1, "unanswered", {"question": "q2"})
    assert "--id q2" in late.error["hint"]
    assert hf("answer", "q2", "later", "--agent", "boss").code == 0
    told: Any = hf("ask", "And now?", "--timeout", "30", "--id", "q2", "--json").json
    assert (told["body"], told["agent"]) == ("later", "boss")
    asking = spawn("ask", "Never mind?")
    wait_for(lambda: ids(hf))
    asking.send_signal(signal.SIGINT)
    assert asking.wait(60) == 130
    assert ids(hf) == []
    assert len(ids(hf, "--state", "withdrawn")) == 1
