"""`holdfast migrate objects`: what it does, says and refuses."""

from __future__ import annotations

from pathlib import Path

from holdfast.node.objects import open_store
from tests.cli.conftest import Run


def addresses(tmp_path: Path) -> tuple[str, str]:
    return f"sqlite:{tmp_path / 'one.db'}", f"sqlite:{tmp_path / 'two.db'}"


def test_the_command_moves_looks_and_takes_back(empty: Run, tmp_path: Path) -> None:
    one, two = addresses(tmp_path)
    with open_store(one) as here:
        for number in range(9):
            here.put(f"k/{number}", b"x" * number)
    would = empty("migrate", "objects", one, two, "--dry-run", "--json")
    assert (would.json["copied"], would.json["dry_run"]) == (9, True)
    done = empty("migrate", "objects", one, two)
    assert "copied 9 objects" in done.text
    assert "verified" in done.text
    again = empty("migrate", "objects", one, two, "--json")
    assert (again.json["copied"], again.json["known"]) == (0, 9)
    back = empty("migrate", "objects", one, two, "--rollback", "--json")
    assert back.json["removed"] == 9
    with open_store(two) as there:
        assert list(there.list()) == []
        there.put("k/3", b"mine")
    clash = empty("migrate", "objects", one, two, "--json")
    assert clash.code == 3
    assert clash.json["conflicts"] == ["k/3"]


def test_the_command_moves_a_switch_and_back(empty: Run, tmp_path: Path) -> None:
    one, two = addresses(tmp_path)
    switch = f"switch:{tmp_path / 'app.switch'}"
    assert "points at" in empty("migrate", "objects", switch, one).text
    with open_store(switch) as store:
        store.put("early", b"1")
    assert empty("migrate", "objects", switch, two, "--json").json["ok"]
    with open_store(switch) as store:
        store.put("late", b"1")
        assert store.name.endswith("two.db")
    assert empty("migrate", "objects", switch, "--rollback", "--json").json == {"ok": True, "at": one, "copied_back": 1}
    empty("migrate", "objects", switch, two)
    assert empty("migrate", "objects", switch, "--finish", "--json").json["at"] == two
    for words in (
        ["switch:", two],
        [switch],
        [switch, two, "--dry-run"],
        [one, two, "--finish"],
        [one],
        [one, two, "--rollback", "--journal", str(tmp_path / "none")],
        [one, two, "--parallel", "0"],
    ):
        refused = empty("migrate", "objects", *words)
        assert refused.code == 2, words
        assert refused.err
