"""The key of sealed collections in the operating system's keyring: no file holds it, and it comes and goes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.cli import main
from holdfast.corpus.engine import Engine
from holdfast.errors import MissingExtra, Sealed
from holdfast.node import oskeys
from holdfast.node.proving import prove
from holdfast.node.store import Store
from tests.services import missing

Open = Callable[..., Store]
C = {"collection": "patients"}


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, str], str]]:
    """What the keyring of this account holds, by service and name: a backend of keyring's own kind, in memory."""
    if importlib.util.find_spec("keyring") is None:
        missing("the package keyring")
    import keyring
    from keyring.backend import KeyringBackend
    from keyring.errors import KeyringLocked, PasswordDeleteError

    held: dict[tuple[str, str], str] = {}

    class Memory(KeyringBackend):
        priority = 1  # type: ignore[assignment]
        locked = False

        def get_password(self, service: str, username: str) -> str | None:
            if held.get(("state", "locked")):
                raise KeyringLocked("the keyring is locked")
            return held.get((service, username))

        def set_password(self, service: str, username: str, password: str) -> None:
            held[service, username] = password

        def delete_password(self, service: str, username: str) -> None:
            if held.pop((service, username), None) is None:
                raise PasswordDeleteError("no such password")

    before = keyring.get_keyring()
    keyring.set_keyring(Memory())
    monkeypatch.setenv("HOLDFAST_KEYRING", "1")
    monkeypatch.delenv("HOLDFAST_PASSPHRASE", raising=False)
    yield held
    keyring.set_keyring(before)


def test_the_key_lies_in_the_keyring_and_in_no_file(
    open_store: Open, ring: dict[tuple[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(sealed=["patients"])
    store.put("k", "secret", **C, subject="p-1")
    store.close()
    (((service, name), key),) = ring.items()
    assert (service, len(bytes.fromhex(key))) == ("holdfast", 32)
    files = [path for path in (tmp_path / "node").rglob("*") if path.is_file()]
    assert not [path for path in files if path.name == "sealing.keys"]
    for path in files:
        assert bytes.fromhex(key) not in path.read_bytes()
        assert key.encode() not in path.read_bytes()
    # Where a key is, keys.db says: whoever opens the directory without a word finds it there.
    monkeypatch.delenv("HOLDFAST_KEYRING")
    store = open_store()
    assert store.get("k", **C) == "secret"
    store.close()
    for lost in (None, "", "00" * 31, "no key", "00" * 32):
        ring.pop((service, name), None)
        if lost is not None:
            ring[service, name] = lost
        with pytest.raises(Sealed):
            open_store().get("k", **C)
    ring[service, name] = key
    ring["state", "locked"] = "yes"
    with pytest.raises(Sealed, match="locked"):
        open_store().get("k", **C)
    del ring["state", "locked"]
    assert open_store().get("k", **C) == "secret"


def test_a_rotation_moves_the_key_into_the_keyring_and_out_of_it(
    open_store: Open, ring: dict[tuple[str, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOLDFAST_KEYRING")
    store, file = open_store(sealed=["patients"]), tmp_path / "node" / "sealing.keys"
    store.put("k", "secret", **C)
    store.close()
    assert (file.exists(), ring) == (True, {})

    def rotate(*words: str) -> int:
        return main(["--store", str(tmp_path / "node"), "keys", "rotate", *words], standalone_mode=False)

    assert rotate("--keyring", "--passphrase") == 2
    assert rotate("--keyring") == 0
    assert (file.exists(), len(ring)) == (False, 1)
    first = set(ring)
    monkeypatch.setenv("HOLDFAST_KEYRING", "yes")
    assert rotate() == 0, "it stays there, where that is configured"
    assert (file.exists(), len(ring), set(ring) & first) == (False, 1, set())
    monkeypatch.delenv("HOLDFAST_KEYRING")
    assert rotate() == 0
    assert (file.exists(), ring) == (True, {})
    assert open_store().get("k", **C) == "secret"


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(MissingExtra, match="keyring") as error:
        oskeys.find("k")
    assert error.value.hint == "pip install 'holdfast[keyring]'"


def test_keys_of_the_form_before_are_read_by_a_proof_and_brought_up_to_date_by_a_store(
    open_store: Open, tmp_path: Path
) -> None:
    open_store().close()
    keys = Engine(tmp_path / "node" / "keys.db", roles=("keys",))
    keys.commits.run(lambda _: keys.writer_execute("DROP TABLE wrapping").fetchall())
    old = "CREATE TABLE wrapping(only INTEGER PRIMARY KEY, id TEXT, how TEXT, salt BLOB, proof BLOB) STRICT"
    keys.commits.run(lambda _: [keys.writer_execute(each).fetchall() for each in (old, "PRAGMA user_version=2")])
    keys.close()
    (agent,) = [path.name for path in (tmp_path / "node" / "agents").iterdir()]
    before = (tmp_path / "node" / "keys.db").read_bytes()
    assert prove(tmp_path / "node", agent).findings == []
    assert (tmp_path / "node" / "keys.db").read_bytes() == before, "a proof changes nothing"
    store = open_store(sealed=["patients"])
    store.put("k", "secret", **C)
    assert store.get("k", **C) == "secret"
