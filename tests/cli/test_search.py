"""`holdfast search` and `holdfast index`: with a hub and without, for people and for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from holdfast.node.store import Store
from tests.cli.conftest import Run
from tests.cli.test_hub import Server, server

__all__ = ["server"]

EMBED = "tests.embedders:embed"
MEMORIES = {
    "tea": "She likes black tea",
    "car": "He drives a red car to the office",
    "cup": "A cup of oolong each morning",
}


def remember(hf: Run, *options: str) -> None:
    """Puts memories into a store."""
    for key, text in MEMORIES.items():
        assert hf("put", key, f'{{"text": "{text}", "n": {len(key)}}}', "-c", "memory", *options).code == 0


def keys(found: object) -> list[str]:
    """The keys of hits."""
    assert isinstance(found, dict)
    return [each["key"] for each in found["hits"]]


@pytest.mark.parametrize("where", ["here", "hub"])
def test_searching_and_filling_an_index(hf: Run, server: Server, where: str) -> None:
    more: tuple[str, ...] = ()
    if where == "hub":
        server.start()
        more = ("--hub", server.url)
    remember(hf, *more)
    found = hf("search", "likes", "tea", *more, "--json").json
    assert (keys(found), found["mode"], found["hits"][0]["score"]) == (["tea"], "text", 1.0)
    shown = hf("search", "which tea does she like", *more, "--explain")
    assert "memory/tea v1" in shown.text
    assert "She likes black tea" in shown.text
    assert keys(hf("search", "a", "--filter", '{"n": {"gt": 3}}', *more, "--json").json) == []
    assert "nothing was found" in hf("search", "zebra", *more).err
    assert hf("search", "tea", "--filter", "[1]", *more).code == 2
    assert hf("search", "tea", "--mode", "vector", "-c", "memory", *more).code == 2
    assert hf("index", "status", *more, "--json").json == {"indexes": []}
    missing = hf("search", "beverage", "-c", "memory", "--embed", EMBED, *more)
    assert (missing.code, "holdfast index fill memory" in missing.err) == (2, True)
    fill = ("index", "fill", "memory", "--embed", EMBED, "--field", "text", "--once")
    made = hf(*fill, *more, "--json")
    assert (made.code, made.json["vectors"], made.json["complete"], made.json["model"]) == (0, 3, True, EMBED), made.err
    asked = ("search", "beverage", "-c", "memory", "--embed", EMBED, "--limit", "2", *more, "--json")
    near = hf(*asked).json
    assert (set(keys(near)), near["mode"]) == ({"tea", "cup"}, "hybrid")
    other = hf("search", "x", "-c", "memory", "--embed", EMBED, "--model", "m", *more)
    assert (other.code, f"--model {EMBED}" in other.err) == (2, True)
    status = hf("index", "status", "memory", *more)
    assert (status.code, "complete" in status.text) == (0, True)
    (stands,) = hf("index", "status", *more, "--json").json["indexes"]
    assert (stands["vectors"], stands["pending"], stands["failed"]) == (3, 0, 0)
    anew = hf("index", "rebuild", "memory", *more, "--json").json
    assert (anew["vectors"], anew["identity"]) == (0, stands["identity"])
    failed = hf("index", "fill", "memory", "--embed", "tests.embedders:failing", "--model", EMBED, "--once", *more)
    assert (failed.code, "the model is away" in failed.err) == (3, True)
    assert hf(*fill, *more).code == 0
    assert hf("index", "drop", "memory", *more).text == "dropped the index of memory\n"
    for command in ("drop", "rebuild", "status"):
        assert hf("index", command, "memory", *more).code == 5, command
    for wrong in ("nothing", "no.such.module:embed", "tests.embedders:nothing"):
        assert hf("index", "fill", "memory", "--embed", wrong, "--once", *more).code == 2, wrong


def test_a_hub_is_told_what_to_index_and_fills_by_itself(
    hf: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    server.start("--embed", EMBED, "--embed-model", "meanings")
    hub = ("--hub", server.url)
    made = hf("index", "add", "memory", "--model", "meanings", "--field", "text", *hub, "--json").json
    assert (made["name"], made["fields"]) == ("memory", ["text"])
    remember(hf, *hub)
    until = hf("index", "fill", "memory", "--embed", EMBED, "--model", "meanings", "--once", *hub, "--json")
    assert (until.code, until.json["vectors"]) == (0, 3), until.err
    found = hf("search", "beverage", "-c", "memory", "--limit", "2", *hub, "--json").json
    assert (set(keys(found)), found["mode"]) == ({"tea", "cup"}, "hybrid")
    assert keys(hf("search", "tea", "--local", "--json").json) == ["tea"]
    assert hf("index", "status", "--local", *hub, "--json").json == {"indexes": []}


def test_every_agent_here_is_asked_and_each_hit_says_whose_it_is(hf: Run, server: Server, home: Path) -> None:
    store = home / ".local/share/holdfast"
    for agent, text in (("ada", "green tea in the morning"), ("bob", "black tea"), ("me", "coffee")):
        assert hf("put", "drink", json.dumps({"text": text}), "-c", "memory", "--agent", agent).code == 0
    found = hf("search", "tea", "--json").json
    assert sorted((each["agent"], each["value"]["text"]) for each in found["hits"]) == [
        ("ada", "green tea in the morning"),
        ("bob", "black tea"),
    ]
    assert found["asked"] == ["ada", "bob", "me"]
    assert "bob memory/drink" in hf("search", "black", "tea").text.splitlines()[0]
    assert [each["agent"] for each in hf("search", "tea", "--agent", "ada", "--json").json["hits"]] == ["ada"]
    assert [each["agent"] for each in hf("search", "tea", "--from", "bob", "--json").json["hits"]] == ["bob"]
    assert hf("search", "tea", "--agent", "me", "--json").json["hits"] == []
    assert hf("search", "tea", "--agent", "ada", "--from", "bob").code == 2
    nobody = hf("search", "tea", "--agent", "eve")
    assert (nobody.code, "ada, bob, me" in nobody.err) == (5, True)
    assert "asked: ada, bob, me" in hf("search", "zebra").err
    assert len(hf("search", "tea", "--limit", "1", "--json").json["hits"]) == 1
    with Store(store, "bob", hub=[]) as bob:
        read = bob.changes(live=False)
        assert len(list(read)) == 1
        cursor = read.cursor
    assert hf("search", "tea", "--at", cursor).code == 2
    assert [each["agent"] for each in hf("search", "tea", "--at", cursor, "--agent", "bob", "--json").json["hits"]] == [
        "bob"
    ]

    server.start()
    hub = ("--hub", server.url)
    with Store(home / "far", "far", hub=server.url) as far:
        far.put("drink", {"text": "mint tea"}, collection="memory")
        assert far.flush(60)
    assert hf("put", "cup", '{"text": "a cup of tea"}', "-c", "memory", "--agent", "bob", *hub).code == 0
    with Store(store, "bob", hub=[]) as bob:
        bob.put("cup", {"text": "a cup of milk"}, collection="memory")  # and the hub has not heard of it
        bob.put("pot", {"text": "a pot of tea"}, collection="memory")
    found = hf("search", "tea", *hub, "--json").json
    assert sorted((each["agent"], each["key"]) for each in found["hits"]) == [
        ("ada", "drink"), ("bob", "drink"), ("bob", "pot"), ("far", "drink")]  # fmt: skip
    assert [each["agent"] for each in hf("search", "tea", *hub, "--agent", "far", "--json").json["hits"]] == ["far"]
    server.end()
    away = hf("search", "tea", *hub, "--json")
    assert (away.code, "the hub does not answer" in away.err, away.json["partial"]) == (3, True, True)
    assert {each["agent"] for each in away.json["hits"]} == {"ada", "bob"}
    (log,) = (store / "agents" / "ada").glob("log.db")
    log.write_bytes(b"nothing of ours" * 1000)
    harmed = hf("search", "tea", "--json")
    assert (harmed.code, "\nada: " in f"\n{harmed.err}", harmed.json["asked"]) == (3, True, ["bob", "me"])


def test_what_other_agents_here_have_is_named(hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hf("put", "plan", "1").code == 0
    assert hf("get", "plan").err == ""
    assert hf("put", "plan", "2", "--agent", "ada").code == 0
    assert hf("put", "shape", "3", "--agent", "bob").code == 0
    got = hf("get", "plan")
    assert (got.text, "ada has one too" in got.err, "bob" in got.err) == ("1\n", True, False)
    assert "ada has one too" in hf("history", "plan").err
    for words in (("get", "shape"), ("history", "shape"), ("diff", "shape", "1")):
        missing = hf(*words)
        assert (missing.code, "bob has it on this machine: --agent bob" in missing.err) == (5, True), words
    assert "ada" not in hf("get", "nothing").err
    assert (hf("get", "plan", "--agent", "ada").text, hf("get", "plan", "--agent", "ada").err) == ("2\n", "")
    listed = hf("ls")
    assert ("plan" in listed.text, "also ada, bob" in listed.err) == (True, True)
    assert hf("ls", "--names", "--agent", "bob").text == "shape\n"
    places = hf("ls", "--collections", "--json").json["collections"]
    assert [(each["agent"], each["keys"]) for each in places] == [("ada", 1), ("bob", 1), ("me", 1)]
    monkeypatch.setenv("HOLDFAST_AGENT", "bob")
    assert (hf("get", "shape").text, hf("ls").err) == ("3\n", "")
    monkeypatch.delenv("HOLDFAST_AGENT")
    with Store(home / "node", "eve", hub=[]) as eve:
        eve.put("plan", 4)
    lost = hf("get", "plan", "--store", home / "node")
    assert (lost.code, "eve has it on this machine: --agent eve" in lost.err) == (5, True)
    assert [path.name for path in (home / "node" / "agents").iterdir()] == ["eve"], "reading begins no log"
    fill = ("index", "fill", "state", "--embed", EMBED, "--once", "--agent", "ada")
    assert hf(*fill).code == 0
    assert [each["agent"] for each in hf("index", "status", "--json").json["indexes"]] == ["ada"]
    for command in ("drop", "rebuild"):
        missing = hf("index", command, "state")
        assert (missing.code, "--agent ada: ada has one here" in missing.err) == (5, True), command
    assert hf("search", "2", "--embed", EMBED, "-c", "state", "--json").json["mode"] == "hybrid"
    assert hf("index", "drop", "state", "--agent", "ada").code == 0
