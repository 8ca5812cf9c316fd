"""Sealed records and erasures between machines: the hub carries noise, keys are handed over, erasures reach all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import Erased, NotFound, Sealed
from holdfast.node.erase import erase_key, erase_subject
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from tests.flow.hubs import HubProcess, until

On = Callable[..., Store]
C = {"collection": "patients"}


def residue(directory: Path, needle: bytes) -> list[str]:
    return [p.name for p in directory.rglob("*") if p.is_file() and needle in p.read_bytes()]


def test_a_hub_carries_what_it_cannot_read_to_who_can(on_node: On, hub: HubProcess, tmp_path: Path) -> None:
    ada, bob, eve = on_node("n1", "ada", sealed=["patients"]), on_node("n2", "bob"), on_node("n3", "eve")
    secret = os.urandom(16).hex()
    ada.put("p-17/plan", {"note": secret}, **C, subject="p-17")
    ada.put("p-17/scan", secret * 5000, **C, subject="p-17")
    ada.put("p-18/plan", {"note": "other"}, **C, subject="p-18")
    ada.put("open", secret)
    assert ada.flush()
    bundle = ada._directory.vault.export("patients", "p-17")
    assert bob._directory.vault.take(bundle) == 1
    assert bob.get("p-17/plan", agent="ada", **C) == {"note": secret}
    assert bob.get("p-17/scan", agent="ada", **C) == secret * 5000
    assert [v.value for v in bob.history("p-17/plan", agent="ada", **C)] == [{"note": secret}]
    with pytest.raises(Sealed, match="not on this machine"):
        bob.get("p-18/plan", agent="ada", **C)
    name = ada._sealing.name("patients", "p-17/plan")
    with pytest.raises(Sealed):
        eve.get(name, agent="ada", **C)
    with pytest.raises(NotFound):
        eve.get("p-17/plan", agent="ada", **C)
    with Hub(hub.url) as reader:
        seen = {v.key: (v.value, v.missing) for v in reader.changes(live=False) if v.collection == "patients"}
        assert len(seen) == 3
        assert set(seen.values()) == {(None, "sealed")}
        until(lambda: reader.search(secret), "the open record is found")
        assert [v.key for v in reader.search(secret)] == ["open"]
        rows = reader.sql("SELECT value, missing, digest FROM records WHERE collection='patients' ORDER BY seq").rows
        assert [row[:2] for row in rows] == [[None, "sealed"]] * 3
    erase_key(ada._directory, "ada", "open", collection="state")
    assert ada.flush()
    until(lambda: not residue(tmp_path / "hub", secret.encode()), "no byte of it is on the hub")


def test_an_erasure_reaches_the_hub_its_blobs_and_readers_and_survives_what_comes_late(
    on_node: On, hub: HubProcess, tmp_path: Path
) -> None:
    ada = on_node("n1", "ada", sealed=["patients"])
    for number in range(20):
        ada.put(f"k{number}", {"n": os.urandom(16).hex()}, **C, subject=f"p-{number % 2}")
    ada.put("big", os.urandom(90_000), **C, subject="p-1")
    assert ada.flush()
    found = list(ada._log.corpus.feed(0))
    vault = ada._directory.vault
    mine = [r for r in found if vault.subject_of(r.record.kid) == "p-1"]
    ciphers = [r.body[4:30] for r in mine if r.body and not r.is_blob]
    blob = next(r.payload()[:32] for r in mine if r.is_blob)
    ada.close()
    shutil.copytree(tmp_path / "n1", tmp_path / "old")
    ada = on_node("n1", "ada")
    report = erase_subject(ada._directory, "p-1")
    assert (report.records, report.blobs) == (11, 1)
    assert ada.flush()
    blobs = [p for p in (tmp_path / "hub").rglob(blob.hex())]
    until(lambda: not any(p.exists() for p in blobs), "the hub's copy of the blob is gone")
    until(lambda: not any(residue(tmp_path / "hub", c) for c in ciphers), "no byte of it is on the hub")
    ada.close()
    # An old copy of the node comes back: it takes up what was written since, the erasure among it.
    again = on_node("old", "ada")
    again.put("late", 1)
    assert again.flush()
    until(lambda: not any(residue(tmp_path / "old", c) for c in ciphers), "the old copy has erased it too")
    with pytest.raises(Erased):
        again.get("k1", **C)
    assert again.get("k2", **C)["n"]
    assert again.get("late") == 1
    assert again.verify().sound
    with pytest.raises(NotFound):
        erase_subject(again._directory, "p-1")


def test_two_copies_of_a_node_agree_on_an_erasure_made_on_one(on_node: On, tmp_path: Path) -> None:
    ada = on_node("n1", "ada", sealed=["patients"])
    ada.put("k", "secret", **C, subject="p-1")
    ada.put("other", "kept", **C, subject="p-2")
    assert ada.flush()
    ada.close()
    shutil.copytree(tmp_path / "n1", tmp_path / "n2")
    one, two = on_node("n1", "ada"), on_node("n2", "ada")
    two.put("mine", 2)
    assert two.flush()
    erase_subject(one._directory, "p-1")
    one.put("mine too", 1)
    assert one.flush()
    two.put("more", 3)

    def agreed(store: Store) -> bool:
        store.flush()
        return isinstance(_error(store), Erased)

    two.close()
    two = on_node("n2", "ada")  # whoever opens says hello, and hears of the other branch
    until(lambda: agreed(two), "the other copy has heard of it")
    assert two.get("other", **C) == "kept"
    assert two.verify().sound
    assert one.verify().sound


def _error(store: Store) -> Exception | None:
    try:
        store.get("k", **C)
    except (Erased, Sealed) as error:
        return error
    return None
