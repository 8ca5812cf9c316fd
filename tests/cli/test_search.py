"""`holdfast search` and `holdfast index`: with a hub and without, for people and for programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
