"""A redact record on a hub: it wins in any order of arrival, on every branch, and over nobody else's records."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from holdfast import codec, records
from holdfast.corpus import SqliteCorpus
from holdfast.corpus.space import Reserve
from holdfast.hub.app import create_app
from holdfast.hub.directory import HubDirectory
from holdfast.hub.erasing import Erasing
from holdfast.integrity.scan import verify_corpus
from holdfast.log.erasure import Erasure, drafts_of, erasures, mark_of, reapply
from holdfast.objects import BlobFiles
from holdfast.records import Record
from tests.flow.hubs import until
from tests.hub.conftest import Room
from tests.hub.pens import Pen

KID = bytes(range(16))


def sealed(pen: Pen, key: str, body: bytes, kid: bytes = KID) -> Record:
    """A record as a sealed collection makes it; to the hub it is noise."""
    flags = records.VALUE | records.SEALED
    return pen.write(key, codec.FMT_BYTES, body, collection="patients", flags=flags, kid=kid)


def redact(pen: Pen, kids: list[bytes] = [], marks: list[bytes] = []) -> None:  # noqa: B006 - never changed
    for draft in drafts_of(kids, marks, "asked to"):
        pen.write("", draft.fmt, draft.payload, kind=records.REDACT, flags=0)


def missing(room: Room) -> dict[str, Any]:
    return {each["key"]: each.get("missing") for each in room.records() if each["collection"]}


def residue(directory: Path, needle: bytes) -> list[str]:
    return [p.name for p in directory.rglob("*") if p.is_file() and needle in p.read_bytes()]


def test_a_redact_record_erases_what_came_before_it_and_with_it_and_after_it(room: Room) -> None:
    ada, bob = Pen("ada"), Pen("bob")
    sealed(ada, "before", os.urandom(40))
    sealed(ada, "other", os.urandom(40), kid=os.urandom(16))
    sealed(bob, "his", os.urandom(40))
    room.append(ada.segment(), bob.segment())
    clone = ada.fork()
    sealed(ada, "with", os.urandom(40))
    redact(ada, [KID])
    assert room.append(ada.segment(3)).verdicts[0].state == "ack"
    # The copy of the node knows nothing of it, and brings what it has, also what the hub has seen with a body.
    sealed(clone, "after", os.urandom(40))
    assert room.append(clone.segment(3)).verdicts[0].state == "ack"
    gone = "redacted"
    assert missing(room) == {"before": gone, "other": "sealed", "his": "sealed", "with": gone, "after": gone}
    for key in ("before", "with", "after"):
        row = room.core.corpus.one("SELECT body, why, length(salt) FROM rec WHERE key=?", (key,))
        assert (row[0], row[1], row[2]) == (None, 3, 0)
    # What it erased it still proves: the same segments again are known, and nothing of them comes back.
    assert room.append(clone.segment()).verdicts[0].state == "ack"
    assert missing(room)["before"] == gone


def test_single_records_are_erased_with_their_words_tags_and_blob_and_others_keep_theirs(room: Room) -> None:
    ada, bob = Pen("ada"), Pen("bob")
    blob = os.urandom(100_000)
    digest = hashlib.sha256(blob).digest()
    reference = records.blob_reference(digest, len(blob))
    flags = records.VALUE | records.BLOB
    assert room.client.put(f"/v1/blobs/{digest.hex()}", content=blob).status_code == 201
    said = ada.message("m1", "the quagga said", to="carl", task="t-9")
    ada.message("m2", "the zebra said", to="carl", task="t-9")
    mine = ada.write("big", codec.FMT_BYTES, reference, collection="state", flags=flags)
    room.append(ada.segment())
    his = bob.write("big", codec.FMT_BYTES, reference, collection="state", flags=flags)
    room.append(bob.segment())

    def search(word: str) -> list[str]:
        return [each["key"] for each in room.get("/v1/search", q=word)["records"]]

    until(lambda: room.core.corpus.meta("fts_pos") == 4, "all is indexed")
    assert search("quagga") == ["m1"]
    redact(ada, marks=[mark_of(said), mark_of(mine)])
    room.append(ada.segment(4))
    until(lambda: not room.core.corpus.meta("erasing"), "nothing is left to erase")
    assert (search("quagga"), search("zebra")) == ([], ["m2"])
    assert [each["key"] for each in room.get("/v1/records", task="t-9")["records"]] == ["m2"]
    assert room.core.home.blobs.has(digest), "bob's blob is the same, and his"
    redact(bob, marks=[mark_of(his)])
    room.append(bob.segment(2))
    until(lambda: not room.core.home.blobs.has(digest), "nobody refers to the blob any more")


def test_nobody_erases_what_is_anothers_and_a_redact_record_that_says_nothing_does_nothing(room: Room) -> None:
    ada, eve = Pen("ada"), Pen("eve")
    hers = sealed(ada, "k", os.urandom(40))
    room.append(ada.segment())
    redact(eve, [KID], [mark_of(hers)])
    eve.write("", codec.FMT_JSON, b'{"kids": ["00"]}', kind=records.REDACT, flags=0)
    eve.write("", codec.FMT_BYTES, b"{not json", kind=records.REDACT, flags=0)
    eve.put("redact", {"kids": [KID.hex()]}, kind=records.REDACT)
    assert room.append(eve.segment()).verdicts[0].state == "ack"
    assert missing(room) == {"k": "sealed", "redact": None}
    # Whoever starts again, or backs up, reads all of them anew.
    assert [len(each.kids) for each in erasures(room.core.corpus)] == [1, 0]
    Erasing(room.core.home)


def test_no_byte_stays_in_a_hubs_directory_and_a_restored_one_is_erased_again(tmp_path: Path) -> None:
    def running(where: Path) -> TestClient:
        reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
        # Without the scan: while it reads, the WAL cannot be emptied, and erasing waits for that with its next round.
        return TestClient(create_app(HubDirectory(where, settle="acked", reserve=reserve), scan_s=0))

    where, old, ada = tmp_path / "hub", tmp_path / "old", Pen("ada")
    canaries = [os.urandom(16).hex() for _ in range(60)]
    made = [
        ada.put(f"k/{n}", {"text": f"{canary} and more", "pad": "x" * 90 * (n % 9)})
        for n, canary in enumerate(canaries)
    ]
    erased, kept = canaries[::3], [c for n, c in enumerate(canaries) if n % 3]
    with running(where) as client:
        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        room.append(ada.segment())
        until(lambda: room.get("/v1/search", q=canaries[-1])["records"], "the index is full")
    shutil.copytree(where, old)
    with running(where) as client:
        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        redact(ada, marks=[mark_of(record) for record in made[::3]])
        room.append(ada.segment(61))
        until(lambda: not room.core.corpus.meta("erasing"), "nothing is left to erase")
        assert [c for c in erased if residue(where, c.encode())] == []
        found = {each["value"]["text"][:32] for each in room.records() if each["collection"] and each.get("value")}
        assert found >= set(kept)
        known = erasures(room.core.corpus)
    # A manifest carries the list; who restores applies it, and the chain proves itself with and without the bodies.
    told = msgspec.json.decode(msgspec.json.encode([each.to_wire() for each in known]))
    home = HubDirectory(old, settle="acked", reserve=Reserve(tmp_path, floor_bytes=0, ballast_bytes=0))
    assert reapply(home.corpus, home.blobs, [Erasure.from_wire(each) for each in told]).records == len(erased)
    assert reapply(home.corpus, home.blobs, known).records == 0
    report = verify_corpus(home.corpus, home.blobs)
    assert (report.findings, report.missing) == ([], len(erased))
    home.corpus.write(lambda tx: tx.set_meta("reapplied", None))
    report = verify_corpus(home.corpus, home.blobs)
    assert len(report.findings) == len(erased), "a body that nobody has erased is a hole, whatever its row says"
    home.close()
    assert [c for c in erased if residue(old, c.encode())] == []
    with running(old) as client:
        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        assert room.append(ada.segment()).verdicts[0].state == "ack"
        assert sum(each.get("missing") == "redacted" for each in room.records()) == len(erased)


def test_a_list_of_erasures_that_is_none_is_refused() -> None:
    for told in ({"kids": ["xy"]}, {"stream": "00", "records": ["00"]}, [], {"kids": ["00" * 16]}):
        with pytest.raises(ValueError, match="names no erasure"):
            Erasure.from_wire(told)


def test_what_a_restore_erased_again_comes_back_from_nobody(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, floor_bytes=0, ballast_bytes=0)
    ada = Pen("ada")
    made = [ada.put(f"k{number}", f"secret-{number}") for number in range(3)]
    home = HubDirectory(tmp_path / "hub", settle="acked", reserve=reserve)
    with TestClient(create_app(home, scan_s=0)) as client:
        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        room.append(ada.segment(1, 1))
    # The hub was put back to before the redact record came, and to before what it names; the backup's list knew of it.
    corpus = SqliteCorpus(tmp_path / "hub" / "hub.db", hub=True)
    known = Erasure(ada.stream, marks=frozenset(mark_of(each) for each in made[:2]))
    assert reapply(corpus, BlobFiles(tmp_path / "hub" / "blobs"), [known]).records == 1
    corpus.close()
    home = HubDirectory(tmp_path / "hub", settle="acked", reserve=reserve)
    with TestClient(create_app(home, scan_s=0)) as client:
        room = Room(client, client.app.state.core)  # type: ignore[attr-defined]
        assert room.append(ada.segment(2)).verdicts[0].state == "ack", "a copy of the node that has not heard of it"
        assert missing(room) == {"k0": "redacted", "k1": "redacted", "k2": None}
        assert verify_corpus(room.core.corpus, home.blobs).findings == []
