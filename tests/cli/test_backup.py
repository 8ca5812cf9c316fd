"""`holdfast backup` on the command line: what it prints, and how it ends."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run


def test_the_whole_way_from_a_backup_to_a_store_that_works(empty: Run, home: Path) -> None:
    assert empty("init").code == 0
    empty("put", "plan", "first")
    made = empty("backup", "create", "file:bak", "--json")
    assert (made.code, made.json["records"], made.json["new_records"]) == (0, 1, 1)
    empty("put", "plan", "second")
    ran = empty("backup", "run", "file:bak", "--json")
    assert (ran.code, ran.json["ok"], ran.json["drill"]["backups"][0]["ok"]) == (0, True, True)
    listed = empty("backup", "ls", "file:bak", "--json").json
    assert [(each["records"], each["verified"]) for each in listed["backups"]] == [(1, True), (2, True)]
    assert "yes" in empty("backup", "ls", "file:bak").text
    assert empty("backup", "verify", "file:bak", "--json").json["findings"] == []
    back = empty("backup", "restore", "file:bak", "back", "--at", listed["backups"][0]["at"])
    assert back.code == 0
    assert "keys.db" in back.err
    keys = str(home / ".local" / "share" / "holdfast")
    again = empty("backup", "restore", "file:bak", "whole", "--keys", keys, "--json")
    assert (again.json["records"], again.json["keys"], again.json["whole"]) == (2, True, True)
    assert empty("get", "plan", "--store", "whole").text.strip() == "second"
    assert empty("verify", "--store", "whole").code == 0
    looked = empty("backup", "prune", "file:bak", "--keep-last", "1", "--dry-run", "--json")
    assert (looked.code, len(looked.json["kept"]), len(looked.json["removed"])) == (0, 1, 1)


def test_what_is_wrong_has_its_exit_code(empty: Run, home: Path) -> None:
    assert empty("backup", "create", "file:bak").code == 10
    assert empty("init").code == 0
    empty("put", "k", "v")
    assert empty("backup", "ls", "file:bak").code == 5
    assert empty("backup", "create", "file:bak", "--with-keys").code == 2
    assert empty("backup", "create", "file:bak").code == 0
    assert empty("backup", "prune", "file:bak", "--keep-last", "1").code == 6  # nothing was ever verified
    assert empty("backup", "prune", "file:bak", "--keep-within", "soon").code == 2
    assert empty("backup", "restore", "file:bak", "back", "--backup", "9").code == 5
    (home / "back").mkdir()
    (home / "back" / "mine").touch()
    assert empty("backup", "restore", "file:bak", "back").code == 6
    assert empty("backup", "verify", "file:bak", "--signer", "00" * 32).code == 9
    segment = next(path for path in (home / "bak" / "segments").rglob("*") if path.is_file())
    segment.write_bytes(segment.read_bytes()[:-1])
    assert empty("backup", "verify", "file:bak").code == 9
    assert empty("backup", "drill", "file:bak").code == 9
    assert empty("backup", "restore", "file:bak", "other").code == 9
