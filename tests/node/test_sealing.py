"""Sealed collections on one node: read here by who has the key, noise to everything else, and erased with the key."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.corpus import search
from holdfast.errors import Erased, IntegrityError, NotFound, Sealed, UsageError
from holdfast.log import drafts
from holdfast.node.aio import AsyncStore
from holdfast.node.erase import erase_key, erase_subject
from holdfast.node.keyfile import drop_key
from holdfast.node.store import Store
from holdfast.node.vault import Bundle
from holdfast.objects import BlobFiles
from holdfast.objects.blobs import aside
from holdfast.records import SEALED
from holdfast.seal import KeyRing
from tests.node.conftest import ROOMY

Open = Callable[..., Store]
C = {"collection": "patients"}


def residue(directory: Path, needle: str) -> list[str]:
    return [p.name for p in directory.rglob("*") if p.is_file() and needle.encode() in p.read_bytes()]


def canary() -> str:
    return os.urandom(16).hex()


def test_a_sealed_collection_does_all_that_an_open_one_does_and_shows_nothing(open_store: Open, tmp_path: Path) -> None:
    store, secret, key = open_store(sealed=["patients"]), canary(), f"p-17/{canary()}"
    first = store.put(key, {"note": secret}, **C, subject="p-17")
    assert (first.key, first.value, first.version) == (key, {"note": secret}, 1)
    store.put(key, {"note": "two"}, **C, expect=1)
    assert store.get(key, **C) == {"note": "two"}
    assert store.get(key, **C, at=1) == store.get(key, **C, at=first.time) == {"note": secret}
    assert store.rollback(key, 1, **C).value == {"note": secret}
    store.put("p-18/scan", secret * 4000, **C, subject="p-18")
    assert store.get("p-18/scan", **C) == secret * 4000
    with store.batch() as batch:
        batch.put("a", b"\0" + secret.encode(), **C, subject="p-19")
        batch.put("a", secret, **C)
        batch.put("open", 1)
        batch.delete("p-18/scan", **C, reason=secret)
    assert [(v.key, v.version, v.gone) for v in batch.versions] == [
        *(("a", 1, False), ("a", 2, False), ("open", 1, False), ("p-18/scan", 2, True))
    ]
    assert store.keys("", **C) == ["a", key]
    assert store.keys("p-17", **C) == [key]
    assert store.keys("", **C, after="a") == [key]
    assert [v.value for v in store.history(key, **C)] == [{"note": secret}, {"note": "two"}, {"note": secret}]
    assert [v.key for v in store.changes(live=False, collection="patients", prefix="p-17")] == [key] * 3
    assert store.search(secret) == []
    assert store.search(key) == []
    with pytest.raises(NotFound, match="patients/gone"):
        store.get("gone", **C)
    with pytest.raises(UsageError, match="key by key"):
        store.delete("p-", prefix=True, **C)
    assert store.verify().sound
    names = {r.record.key for r in store._log.corpus.feed(0) if r.record.flags & SEALED}
    assert all(len(name) == 32 and name not in (key, "a") for name in names)
    while search.fill(store._log.corpus):
        pass
    store.close()
    assert residue(tmp_path, secret) == residue(tmp_path, key) == []
    # It stays sealed for whoever opens the directory, without being told.
    again = open_store()
    again.put("b", secret, **C)
    assert again.get("b", **C) == secret
    assert residue(tmp_path, secret) == []


def test_sealing_is_refused_where_others_must_read_and_a_subject_where_nothing_is_sealed(open_store: Open) -> None:
    for name in ("messages", "sessions", "metrics", "files", "table/x", ""):
        with pytest.raises(UsageError, match="cannot be sealed"):
            open_store(sealed=[name])
    with pytest.raises(UsageError, match="cas"):
        open_store(sealed=["c"], cas=["c"])
    with pytest.raises(UsageError, match="is not sealed"):
        open_store().put("k", 1, subject="p-17")


def test_async_stores_seal_too(tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncStore(tmp_path / "node", "ada", hub=[], limits=ROOMY, sealed=["patients"]) as store:
            await store.put("k", {"a": 1}, **C, subject="p")
            async with store.batch() as batch:
                batch.put("k", {"a": 2}, **C)
            assert (await store.get("k", **C), await store.keys(**C)) == ({"a": 2}, ["k"])
            assert (await store.delete("k", **C)).gone
            assert len(await store.history("k", **C)) == 3

    asyncio.run(run())


def test_an_erased_subject_leaves_no_byte_and_others_keep_theirs(open_store: Open, tmp_path: Path) -> None:
    store, bob = open_store(sealed=["patients"]), open_store("bob")
    mine = {f"k{n}/{canary()}": canary() for n in range(40)}
    for number, (key, secret) in enumerate(mine.items()):
        store.put(key, {"s": secret, "pad": "x" * 50 * number}, **C, subject=f"subject-{number % 2}")
    bob.put("about", {"s": "bob's"}, **C, subject="subject-1")
    store.put("big", os.urandom(90_000), **C, subject="subject-1")
    stored = {r.record.key: r for r in store._log.corpus.feed(0)}
    ciphers = [r.body[20:40] for r in stored.values() if r.body and not r.is_blob]
    report = erase_subject(store._directory, "subject-1", reason="asked to")
    assert (report.records, report.blobs, report.keys, report.agents) == (22, 1, 1, ("ada", "bob"))
    assert report.left == ()
    files = [p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()]
    assert [any(cipher in data for data in files) for cipher in ciphers] == [n % 2 == 0 for n in range(40)]
    assert residue(tmp_path, "subject-1") == []
    odd = [key for number, key in enumerate(mine) if number % 2]
    for key in odd:
        with pytest.raises(Erased):
            store.get(key, **C)
    assert store.get(odd[0], **C, default=None) is None
    assert [(v.missing, v.value) for v in store.history(odd[0], **C)] == [("redacted", None)]
    even = [key for number, key in enumerate(mine) if number % 2 == 0]
    assert store.keys(**C) == sorted(even)
    assert [store.get(key, **C)["s"] for key in even] == [mine[key] for key in even]
    scan = store.verify()
    assert scan.sound
    assert scan.missing == 21
    assert bob.verify().sound
    with pytest.raises(NotFound, match="nothing was sealed"):
        erase_subject(store._directory, "subject-1")
    # Whoever comes back is a stranger: a new key, and nothing of what was.
    store.put(odd[0], "anew", **C, subject="subject-1")
    assert store.get(odd[0], **C) == "anew"


def test_erasing_cut_off_behind_the_key_is_finished_by_asking_again(open_store: Open) -> None:
    store = open_store(sealed=["patients"])
    store.put("k", "v", **C, subject="p")
    store._directory.vault.destroy("p")  # and here the machine stopped
    with pytest.raises(Sealed):
        store.get("k", **C)
    assert erase_subject(store._directory, "p").records == 1
    with pytest.raises(Erased):
        store.get("k", **C)


def test_one_open_key_is_erased_from_bodies_index_and_blobs(open_store: Open, tmp_path: Path) -> None:
    store, bob = open_store(), open_store("bob")
    words = [canary() for _ in range(90)]
    for number, word in enumerate(words):
        store.put(f"k/{number % 30}", {"text": f"{word} said", "pad": "y" * 40 * (number % 30)})
    same, own = canary() * 4000, canary() * 4000
    for writer, key, value in ((store, "same", same), (store, "own", own), (bob, "same", same)):
        writer.put(key, value)
    while search.fill(store._log.corpus):
        pass
    assert len(store.search(words[62])) == 1
    for number in range(0, 30, 3):
        assert erase_key(store._directory, "ada", f"k/{number}", collection="state").records == 3
    for key in ("same", "own"):
        erase_key(store._directory, "ada", key, collection="state")
    left = [number for number, word in enumerate(words) if residue(tmp_path, word)]
    # A word in a compressed body shows in the bytes no more than an erased one: what can be read must be read.
    assert not [number for number in left if number % 3 == 0]
    assert [store.get(f"k/{n}")["text"] for n in range(30) if n % 3] == [
        f"{words[60 + n]} said" for n in range(30) if n % 3
    ]
    assert store.search(words[60]) == []
    assert len(store.search(words[61])) == 1
    assert residue(tmp_path, own) == []
    assert bob.get("same") == same
    assert erase_key(store._directory, "ada", "k/0", collection="state").records == 0
    with pytest.raises(NotFound):
        erase_key(store._directory, "ada", "never", collection="state")
    assert store.verify().sound
    assert bob.verify().sound


def test_a_blob_that_is_written_again_while_it_is_erased_stays(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was told that equal bytes are there already must find them when his write has returned."""
    store, bob = open_store(), open_store("bob")
    value, other = canary() * 4000, canary() * 4000
    store.put("first", value)
    again = store._log.job([drafts.value("state", "again", value)])  # it finds the blob
    erase_key(store._directory, "ada", "first", collection="state")
    assert residue(tmp_path, value) == []
    store._log.corpus.write(again)
    assert store.get("again") == value

    store.put("mine", other)
    hide = aside.put_aside

    def put_aside(files: BlobFiles, digest: bytes) -> None:
        bob.put("his", other)  # nobody referred to it when that was looked at
        hide(files, digest)

    with monkeypatch.context() as patch:
        patch.setattr(aside, "put_aside", put_aside)
        erase_key(store._directory, "ada", "mine", collection="state")
    assert bob.get("his") == other

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    store.put("mine", other)
    with monkeypatch.context() as patch:
        patch.setattr(aside, "drop_aside", die)
        erase_key(store._directory, "bob", "his", collection="state")  # ada's is still there
        with pytest.raises(KeyboardInterrupt):
            erase_key(store._directory, "ada", "mine", collection="state")
    assert residue(tmp_path, other)
    erase_key(store._directory, "ada", "mine", collection="state")
    assert residue(tmp_path, other) == []
    assert store.verify().sound
    assert bob.verify().sound


def test_a_key_that_is_lost_wrong_or_damaged_is_said_and_nothing_else_suffers(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_PASSPHRASE", "right words")
    store = open_store(sealed=["patients"])
    store.put("k", "v", **C)
    store.put("open", 1)
    store.close()
    for words, what in (("wrong words", "not the key"), (None, "passphrase")):
        monkeypatch.setenv("HOLDFAST_PASSPHRASE", words) if words else monkeypatch.delenv("HOLDFAST_PASSPHRASE")
        store = open_store()
        with pytest.raises(Sealed, match=what):
            store.get("k", **C)
        assert store.get("open") == 1
        assert store.verify().sound
        store.close()
    monkeypatch.setenv("HOLDFAST_PASSPHRASE", "right words")
    store = open_store()
    bodies = [r.body for r in store._log.corpus.feed(0)]
    assert store._directory.vault.rotate() == 2
    assert bodies == [r.body for r in store._log.corpus.feed(0)]
    store.close()
    monkeypatch.delenv("HOLDFAST_PASSPHRASE")
    store = open_store()
    assert store.get("k", **C) == "v"
    store.close()
    ring = tmp_path / "node" / "sealing.keys"
    kept = ring.read_bytes()
    for broken in (b"", kept[:-9], kept.replace(b"hf-key-1", b"hf-key-2")):
        ring.write_bytes(broken)
        with pytest.raises(Sealed):
            open_store().get("k", **C)
    ring.unlink()
    with pytest.raises(Sealed, match=r"sealing\.keys"):
        open_store().get("k", **C)


def test_one_key_file_serves_several_directories_and_whatever_else_is_kept_in_it(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrapping one directory's keys anew takes nobody else's key away, nor makes one that which a ring seals with."""
    file = tmp_path / "all.keys"
    KeyRing.generate("objects").save(file)
    monkeypatch.setenv("HOLDFAST_KEY_FILE", str(file))
    ours = {"collection": "patients"}
    homes = [tmp_path / name for name in ("one", "two", "three")]
    for home in homes:
        with Store(home, "ada", sealed=["patients"], limits=ROOMY) as store:
            store.put("k", home.name, **ours)
    ids = KeyRing.load(file).ids
    assert (len(ids), ids[0]) == (4, "objects")
    with Store(homes[0], "ada", limits=ROOMY) as store:
        vault = store._directory.vault
        assert vault.rotate() == 2
        assert vault.rotate(passphrase="words") == 2
        monkeypatch.setenv("HOLDFAST_PASSPHRASE", "words")
        assert vault.rotate() == 2
    # Of two processes that rotate at once, one tidies up after the other has gone on.
    with Store(homes[1], "ada", limits=ROOMY) as store, monkeypatch.context() as patch:
        vault = store._directory.vault
        late: list[Any] = []
        patch.setattr("holdfast.node.vault.drop_key", lambda *args: late.append(args))
        vault.rotate()
        patch.undo()
        vault.rotate()
        for args in late:
            drop_key(*args)
    monkeypatch.delenv("HOLDFAST_PASSPHRASE")
    for home in homes:
        with Store(home, "ada", limits=ROOMY) as store:
            assert store.get("k", **ours) == home.name
    after = KeyRing.load(file).ids
    assert (len(after), after[0]) == (4, "objects")
    assert len({*ids} & {*after}) == 2
    drop_key(file, after[-1])
    drop_key(file, "never there")
    assert KeyRing.load(file).ids == after[:-1]


def test_keys_handed_to_another_node_open_what_they_sealed_and_no_more(open_store: Open, tmp_path: Path) -> None:
    ada = open_store(sealed=["patients"])
    ada.put("k", "one", **C, subject="p-1")
    ada.put("l", "two", **C, subject="p-2")
    bundle = ada._directory.vault.export("patients", "p-1")
    assert isinstance(bundle, Bundle)
    assert len(bundle.keys) == 1
    other = open_store("bob", tmp_path / "other")
    assert other._directory.vault.take(bundle) == 1
    assert other._directory.vault.take(bundle) == 0
    box = other._directory.vault.box(ada._directory.vault.box_for("patients", "p-1").kid)
    assert other._sealing.name("patients", "k") == ada._sealing.name("patients", "k")
    assert box
    with pytest.raises(Sealed, match="not on this machine"):
        other._directory.vault.box(ada._directory.vault.box_for("patients", "p-2").kid)
    third = open_store("carl", tmp_path / "third", sealed=["patients"])
    with pytest.raises(UsageError, match="keys of its own"):
        third._directory.vault.take(bundle)


def test_a_flipped_bit_in_keys_db_is_an_error_and_never_another_key(open_store: Open, tmp_path: Path) -> None:
    store = open_store(sealed=["patients"])
    store.put("k", "v", **C)
    store.close()
    path = tmp_path / "node" / "keys.db"
    whole, outcomes = path.read_bytes(), set[str]()
    for at in range(8, len(whole), len(whole) // 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        for name in ("keys.db-wal", "keys.db-shm"):
            (path.parent / name).unlink(missing_ok=True)
        try:
            opened = open_store()
            outcomes.add(opened.get("k", **C))
            opened.close()
        except (IntegrityError, Sealed):
            outcomes.add("refused")
    assert outcomes <= {"v", "refused"}
    assert "refused" in outcomes
    path.write_bytes(whole)
    shutil.rmtree(path.parent / "quarantine", ignore_errors=True)
    assert open_store().get("k", **C) == "v"


def test_a_hook_takes_secrets_out_before_anything_is_written(open_store: Open, tmp_path: Path) -> None:
    secret = canary()

    def hook(collection: str, key: str, value: Any) -> Any:
        return {"collection": collection, "key": key, "text": str(value).replace(secret, "…")}

    store = open_store(redact=hook)
    assert store.put("k", f"a {secret}").value == {"collection": "state", "key": "k", "text": "a …"}
    with store.batch() as batch:
        batch.put("l", secret)
        batch.post(secret, msg_id="m1")
    store.post(secret, to="bob", msg_id="m2")
    assert [m.body["text"] for m in store.messages()] == ["…", "…"]
    store.close()
    assert residue(tmp_path, secret) == []
