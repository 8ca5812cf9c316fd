"""`holdfast doctor`: each thing that it knows, shown to fail; the exit code says it too."""

from __future__ import annotations

import os
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from holdfast.cli import checkup, machine
from holdfast.corpus.space import Space
from holdfast.node.store import Store
from tests.cli.conftest import Run, wait_for
from tests.cli.test_health import nowhere, store_of
from tests.cli.test_hub import Server, server

__all__ = ["nowhere", "server"]
MOUNTS = """\
/dev/a / ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
server:/x /mnt/my\\040disk nfs4 rw 0 0
me@there: /home/me/far fuse.sshfs rw 0 0
ntfs /media/usb fuseblk rw 0 0
overlay /mnt/over overlay rw 0 0
/dev/b /mnt/over ext4 rw 0 0
//nas/share /srv cifs rw 0 0
/dev/c /srv/local xfs rw 0 0
"""


def states(hf: Run, *words: str | Path) -> dict[str, str]:
    """What doctor says of each thing."""
    return {check["name"]: check["state"] for check in hf("doctor", "--json", *words).json["checks"]}


def test_doctor_finds_a_store_in_order(hf: Run, home: Path) -> None:
    hf("put", "k", "1")
    told = hf("doctor", "--json")
    found = {check["name"]: check["state"] for check in told.json["checks"]}
    in_memory = home.resolve().is_relative_to("/dev/shm")  # as tests are; it says of that what it should
    assert found.pop("file system") == ("warn" if in_memory else "ok")
    assert found == dict.fromkeys(
        (
            *("sqlite", "configuration", "store", "permissions", "keys", "logs", "scan", "wal"),
            *("disk", "ballast", "inodes", "open files", "hub"),
        ),
        "ok",
    )
    assert told.code == 0


def test_doctor_fails_where_there_is_no_store(empty: Run) -> None:
    told = empty("doctor")
    assert told.code == 1
    assert "fail  store" in told.text
    assert "fix: holdfast init" in told.text


def test_doctor_sees_what_is_not_well(hf: Run, home: Path, nowhere: str) -> None:
    store = store_of(home)
    store.chmod(0o755)
    (store / ".stfolder").mkdir()
    (home / "token").write_text("secret")
    (home / "token").chmod(0o644)
    told = hf("doctor", "--hub", nowhere, "--token-file", home / "token", "--json")
    states = {check["name"]: (check["state"], bool(check["fix"])) for check in told.json["checks"]}
    for name, state in {"permissions": "warn", "file system": "warn", "token": "warn", "hub": "fail"}.items():
        assert states[name] == (state, True), name
    assert (told.code, told.json["failed"], told.json["warnings"]) == (1, 1, 3)


@pytest.mark.parametrize("content", ["", None])
def test_doctor_needs_a_token_in_the_token_file(hf: Run, home: Path, content: str | None) -> None:
    if content is not None:
        (home / "token").write_text(content)
    told = hf("doctor", "--token-file", home / "token", "--json").json
    assert [check["state"] for check in told["checks"] if check["name"] == "token"] == ["fail"]


# -- the machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "state"),
    [
        ("/var/lib/node", "ext4", "ok"),
        ("/mnt/my disk/node", "nfs4", "fail"),
        ("/home/me/far", "fuse.sshfs", "fail"),
        ("/home/me/farther", "ext4", "ok"),
        ("/media/usb/node", "fuseblk", "warn"),
        ("/run/node", "tmpfs", "warn"),
        ("/mnt/over/node", "ext4", "ok"),
        ("/srv/node", "cifs", "fail"),
        ("/srv/local/node", "xfs", "ok"),
    ],
)
def test_doctor_knows_file_systems_that_databases_break_on(tmp_path: Path, path: str, kind: str, state: str) -> None:
    assert machine.kind_of(path, MOUNTS) == kind
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nx {tmp_path} {kind} rw 0 0\n")
    found = machine.file_system(tmp_path / "store", mounts)
    assert (found.state, bool(found.fix)) == (state, state != "ok")
    assert machine.file_system(tmp_path / "store", tmp_path / "none").state == "ok", "another system has no such table"


@pytest.mark.parametrize(
    "folder",
    [
        "Dropbox",
        "Dropbox (Work)",
        "OneDrive - Contoso",
        "GoogleDrive",
        "iCloud Drive",
        "com~apple~CloudDocs",
        "Nextcloud",
    ],
)
def test_doctor_knows_folders_that_are_kept_in_step(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder / "node").mkdir(parents=True)
    found = machine.file_system(tmp_path / folder / "node")
    assert (found.state, folder in found.text) == ("warn", True)
    assert machine.file_system(tmp_path).state in ("ok", "warn"), "whatever this test itself runs on"


def test_doctor_knows_an_old_sqlite() -> None:
    assert machine.sqlite((3, 40, 1)).state == "fail"
    assert machine.sqlite((3, 51, 3)).state == machine.sqlite((4, 0, 0)).state == "ok"


def test_doctor_knows_a_disk_that_is_full_or_soon_will_be() -> None:
    def disk(**changes: int) -> list[str]:
        usual = {
            "free": 10 << 30,
            "total": 20 << 30,
            "floor": 64 << 20,
            "ballast": 20 << 20,
            "ballast_wanted": 20 << 20,
        }
        return [check.state for check in machine.disk(Space(**(usual | changes)))]

    assert disk() == ["ok", "ok"]
    assert disk(free=100 << 20) == ["warn", "ok"]
    assert disk(free=1 << 20, ballast=0) == ["fail", "warn"]
    assert disk(floor=9 << 30) == ["warn", "ok"], "soon at a floor of one's own"


def test_doctor_knows_when_files_run_out() -> None:
    assert [machine.inodes(free, 1 << 20).state for free in (50, 5_000, 500_000)] == ["fail", "warn", "ok"]
    assert machine.inodes(0, 0).state == "ok", "not every file system counts them"
    assert [machine.open_files(limit).state for limit in (64, 1024, -1)] == ["warn", "ok", "ok"]


def test_doctor_knows_a_store_that_this_user_may_not_write_to(
    hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever runs this may be root, who may do everything
    assert machine.permissions(store_of(home)).state == "fail"
    monkeypatch.undo()
    store_of(home).chmod(0o755)
    assert machine.permissions(store_of(home)).state == "warn"


# -- what is configured, and the hub ----------------------------------------------------------------------------------


def test_doctor_tells_of_a_wrong_configuration_and_goes_on(
    hf: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_SERV_PORT", "1")
    assert states(hf)["configuration"] == "warn"
    (home / "holdfast.yaml").write_text("limits: {flor: 1}\n")
    told = hf("doctor", "--json")
    (check,) = [each for each in told.json["checks"] if each["name"] == "configuration"]
    assert (told.code, check["state"], check["fix"]) == (1, "fail", "holdfast config check")
    assert check["text"].endswith("holdfast.yaml:1:10: limits.flor: unknown key; did you mean 'floor'?")
    (home / "holdfast.yaml").unlink()
    (store_of(home) / "config.json").write_text("{")
    assert hf("doctor").code == 1


def test_doctor_looks_at_every_file_that_holds_a_key(hf: Run, home: Path) -> None:
    assert states(hf)["keys"] == "ok"
    (home / "ring").write_text("key")
    (home / "holdfast.yaml").write_text("store: {key_file: ./ring}")
    (home / "ring").chmod(0o640)
    assert states(hf)["keys"] == "fail"
    (home / "ring").chmod(0o600)
    (store_of(home) / "keys.db").chmod(0o644)
    assert states(hf)["keys"] == "fail"


def test_doctor_asks_a_command_for_the_token(hf: Run, home: Path, nowhere: str) -> None:
    config = home / "c.yaml"
    config.write_text(f"hub: {{urls: '{nowhere}', token_command: [/none/such]}}")
    assert states(hf, "--config", config)["token"] == "fail"
    config.write_text(f"hub: {{urls: '{nowhere}', token_command: [echo, t]}}")
    assert states(hf, "--config", config)["token"] == "ok"


def test_doctor_knows_what_a_token_may_not(hf: Run, server: Server, home: Path) -> None:
    server.start()
    data = ("--data", server.home / "hub")
    hf("init", "--hub", server.url)
    assert {name: states(hf)[name] for name in ("hub", "rights", "clock")} == dict.fromkeys(
        ("hub", "rights", "clock"), "ok"
    )
    for kind, name, scopes, state in (
        ("node", "laptop", (), "ok"),
        ("person", "eve", (), "warn"),
        ("service", "meter", ("--scope", "metrics:read"), None),
    ):
        made = hf(
            "token",
            "create",
            *data,
            "--kind",
            kind,
            "--name",
            name,
            *scopes,
            *(("--agent", "*") if kind == "node" else ()),
        )
        assert made.code == 0
        (home / kind).write_text(made.text)
        (home / kind).chmod(0o600)
        shown = ("--token-file", home / kind)
        wait_for(lambda shown=shown, state=state: states(hf, *shown).get("rights") == state)  # within a second
        found = states(hf, *shown)
        assert found["hub"] == ("fail" if state is None else "ok")


def test_doctor_knows_how_old_is_what_no_hub_has(hf: Run, home: Path, nowhere: str) -> None:
    hf("init", "--hub", nowhere)
    hf("put", "k", "1")
    assert (states(hf)["outbox"], states(hf)["settled"]) == ("ok", "ok"), "it is a moment old"
    with Store(store_of(home), "me", hub=[]) as store:
        long_ago = round(time.time() * 1000) - 5 * 86_400_000 << 16
        store._opened.corpus.write(lambda tx: tx.execute("UPDATE rec SET hlc=?", (long_ago,)))
    told = {each["name"]: each for each in hf("doctor", "--json").json["checks"]}
    assert (told["outbox"]["state"], told["settled"]["state"]) == ("warn", "warn")
    assert "5 d old" in told["outbox"]["text"]


def test_doctor_knows_clocks_and_protocols_that_do_not_fit() -> None:
    now = 1_800_000_000.0
    assert [checkup.skew(formatdate(now + off, usegmt=True), now).state for off in (0, 1, 10, -10)] == [
        "ok", "ok", "warn", "warn",
    ]  # fmt: skip
    assert checkup.skew("", now).state == "ok"
    assert checkup.protocol("u", {"protocol": 99}, "well").state == "fail"
    assert checkup.protocol("u", {"protocol": 1}, "well").text == "well"


def test_doctor_knows_a_wal_that_nobody_empties(hf: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hf("put", "k", "1")
    monkeypatch.setattr(checkup, "WAL_BYTES_MANY", -1)
    assert states(hf)["wal"] == "warn"
