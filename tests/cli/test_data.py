"""Keys on the command line: what is put is what is got, as it is and as it was."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run


def test_init_makes_a_store_once_and_keeps_it(empty: Run, home: Path) -> None:
    first = empty("init", "--agent", "a", "--json").json
    assert first["made"] is True
    assert Path(first["store"]) == home / ".local/share/holdfast"
    assert empty("put", "k", "1").code == 0
    second = empty("init", "--hub", "http://127.0.0.1:9", "--json").json
    assert second | {"made": True, "hubs": []} == first
    assert second["hubs"] == ["http://127.0.0.1:9"]
    assert empty("get", "k", "--hub", "http://127.0.0.1:9").text == "1\n"


def test_init_takes_a_path(empty: Run, home: Path) -> None:
    assert empty("init", home / "there").code == 0
    assert empty("put", "k", "1", "--store", home / "there").code == 0


@pytest.mark.parametrize("url", ["hub:8084", "ftp://hub", "http://"])
def test_init_refuses_what_is_no_address(empty: Run, home: Path, url: str) -> None:
    assert empty("init", "--hub", url).code == 2
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "options", "value"),
    [
        ("1", (), 1),
        ('{"b": [null, true]}', (), {"b": [None, True]}),
        ("hello world", (), "hello world"),
        ("1", ("--text",), "1"),
        ("NaN", (), "NaN"),
        ("@@home", (), "@home"),
        ("größer", (), "größer"),
    ],
)
def test_a_value_is_json_when_it_parses(hf: Run, given: str, options: tuple[str, ...], value: Any) -> None:
    assert hf("put", "k", given, *options).code == 0
    assert hf("get", "k", "--json").json["value"] == value


def test_a_file_is_stored_to_the_byte(hf: Run, home: Path) -> None:
    data = bytes(range(256)) * 1000
    (home / "file").write_bytes(data)
    assert hf("put", "k", "@file").code == 2, "not UTF-8, so it must be asked for"
    assert hf("put", "k", "@file", "--bytes").code == 0
    assert hf("get", "k", "--raw").out == data
    assert hf("get", "k").out == data
    (home / "file").write_text('{"a": 1}')
    assert hf("put", "k", "@file").code == 0
    assert hf("get", "k", "--raw").out == b'{"a":1}'


def test_standard_input_is_a_value(hf: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n")))
    assert hf("put", "k", "-").code == 0
    assert hf("get", "k", "--raw").out == b"a\nb\n"


def test_put_says_which_version_it_made(hf: Run) -> None:
    assert hf("put", "k", "1").text == "stored state/k v1\n"
    assert hf("put", "k", "2", "-q").text == ""
    told = hf("put", "k", "3", "--json", "--durable").json
    assert (told["version"], told["seq"], told["agent"], told["value"]) == (3, 3, "me", 3)


def test_if_version_refuses_a_stale_write(hf: Run) -> None:
    assert hf("put", "k", "1", "--if-version", "0").code == 0
    etag = hf("get", "k", "--json").json["etag"]
    assert hf("put", "k", "2", "--if-version", etag).code == 0
    result = hf("put", "k", "3", "--if-version", "1", "--json")
    assert result.code == 6
    assert result.error["context"]["current_version"] == 2
    assert hf("rm", "k", "--if-version", "1").code == 6
    assert hf("get", "k").text == "2\n"


def test_collections_are_apart(hf: Run) -> None:
    hf("put", "k", "1")
    hf("put", "k", "2", "-c", "other")
    assert hf("get", "k").text == "1\n"
    assert hf("get", "k", "--collection", "other").text == "2\n"
    assert hf("ls", "--collections", "--json").json == {
        "collections": [{"collection": "other", "keys": 1}, {"collection": "state", "keys": 1}]
    }


def test_ls_pages_through_the_keys(hf: Run) -> None:
    for name in ("a/1", "a/2", "b"):
        hf("put", name, '{"n": 1}')
    assert hf("ls", "--names").text == "a/1\na/2\nb\n"
    assert hf("ls", "a/", "--names").text == "a/1\na/2\n"
    page = hf("ls", "--limit", "2", "--json").json
    assert ([key["key"] for key in page["keys"]], page["next"]) == (["a/1", "a/2"], "a/2")
    assert [key["key"] for key in hf("ls", "--after", "a/2", "--json").json["keys"]] == ["b"]
    head, first, *_ = hf("ls").text.splitlines()
    assert head.split() == ["KEY", "VERSION", "CHANGED", "VALUE"]
    assert first.split()[0] == "a/1"


def test_ls_shows_the_agents_of_this_machine(hf: Run) -> None:
    hf("put", "k", "1")
    hf("put", "k", "1", "--agent", "other")
    found = hf("ls", "--agents", "--json").json["agents"]
    assert [(each["agent"], each["records"], each["keys"]) for each in found] == [("me", 1, 1), ("other", 1, 1)]
    assert hf("get", "k", "--agent", "other").text == "1\n"
    assert hf("get", "k", "--agent", "stranger").code == 5


def test_what_is_removed_is_gone_and_comes_back(hf: Run) -> None:
    hf("put", "k", "1")
    assert "holdfast rollback k 1" in hf("rm", "k", "--reason", "done").text
    assert hf("get", "k").code == 5
    assert hf("rm", "k").code == 5
    assert hf("get", "k", "--version", "1").text == "1\n"
    assert hf("rollback", "k", "1").code == 0
    assert hf("get", "k").text == "1\n"
    versions = hf("history", "k", "--json").json["versions"]
    assert [(v["version"], v["gone"]) for v in versions] == [(3, False), (2, True), (1, False)]
    assert versions[1]["value"] == {"reason": "done"}


def test_a_prefix_is_removed_whole(hf: Run) -> None:
    for name in ("a/1", "a/2", "b"):
        hf("put", name, "1")
    assert hf("rm", "a/", "--prefix").code == 0
    assert hf("ls", "--names").text == "b\n"


def test_get_reaches_back(hf: Run) -> None:
    hf("put", "k", '"first"')
    then = hf("get", "k", "--json").json["time"]
    hf("put", "k", '"second"')
    assert hf("get", "k", "--version", "1").text == "first\n"
    assert hf("get", "k", "--version", "1", "--json").json["value"] == "first"
    assert hf("get", "k", "--at", "2400-01-01").text == "second\n"
    assert hf("get", "k", "--at", "2400-01-01", "--json").json["version"] == 2
    assert hf("get", "k", "--at", "2001-01-01T00:00:00Z").code == 5
    assert hf("get", "k", "--at", then, "--json").json["version"] in (1, 2)
    assert hf("get", "k", "--at", "yesterday").code == 2
    assert hf("get", "k", "--version", "9").code == 5
    assert hf("get", "k", "--version", "1", "--at", "0").code == 2


def test_diff_shows_what_changed(hf: Run) -> None:
    hf("put", "k", '{"a": 1, "b": 2}')
    hf("put", "k", '{"a": 1, "b": 3}')
    assert [line for line in hf("diff", "k", "1", "2").text.splitlines() if line[:1] in "+-"] == [
        "--- k v1",
        "+++ k v2",
        '-  "b": 2',
        '+  "b": 3',
    ]
    told = hf("diff", "k", "1", "--json").json
    assert (told["same"], told["from"]["version"], told["to"]["version"]) == (False, 1, 2)
    assert hf("diff", "k", "2", "2").text == ""
    assert hf("diff", "k", "1", "7").code == 5


def test_history_of_nothing_is_not_found(hf: Run) -> None:
    assert hf("history", "k").code == 5


def test_messages_are_sent_and_read(hf: Run) -> None:
    sent = hf("send", "people", "The import is done", "--kind", "report", "--priority", "high", "--json").json
    hf("send", "recruiter", '{"look": "here"}', "--task", "42", "--agent", "other")
    (message,) = hf("inbox", "--json").json["messages"]
    assert {k: message[k] for k in ("id", "agent", "kind", "body", "priority")} == {
        "id": sent["id"],
        "agent": "me",
        "kind": "report",
        "body": "The import is done",
        "priority": "high",
    }
    (other,) = hf("inbox", "--to", "recruiter", "--json").json["messages"]
    assert (other["agent"], other["body"], other["task"]) == ("other", {"look": "here"}, "42")
    assert len(hf("inbox", "--all", "--json").json["messages"]) == 2
    assert len(hf("inbox", "--all", "--limit", "1", "--json").json["messages"]) == 1
    assert hf("inbox", "--all", "--from", "me", "--json").json["messages"] == [message]
    assert "The import is done" in hf("inbox").text
    assert "no messages" in hf("inbox", "--to", "nobody").err


def test_a_message_is_sent_once(hf: Run) -> None:
    for _ in range(2):
        assert hf("send", "people", "hello", "--id", "m1").code == 0
    assert len(hf("inbox", "--json").json["messages"]) == 1


def test_watch_resumes_behind_its_cursor(hf: Run) -> None:
    for number in range(3):
        hf("put", f"k{number}", str(number))
    lines = hf("watch", "--since", "start", "--limit", "2", "--json").text.splitlines()
    import json

    first, second = map(json.loads, lines)
    assert (first["key"], second["key"]) == ("k0", "k1")
    rest = hf("watch", "--since", second["cursor"], "--once", "--json").json
    assert rest["key"] == "k2"
    assert hf("watch", "--once", "--json").text == ""
    assert "state/k2 v1  2" in hf("watch", "--once", "--since", "start", "--prefix", "k2").text


def test_a_home_that_nobody_has_is_a_mistake_of_the_caller(hf: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (("put", "k", "@~nobody-of-this-name/x"), ("ls", "--store", "~nobody-of-this-name/x")):
        result = hf(*words)
        assert (result.code, "~" in result.err) == (2, True)
        assert "fault of our own" not in result.err
