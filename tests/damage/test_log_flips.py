"""One turned bit anywhere in what a node keeps is found when it is read or by a scan, and never returned as a value."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.clock import SYSTEM
from holdfast.errors import BlobCorrupt, HoldfastError
from holdfast.log.anchor import Anchor
from holdfast.node.keys import Keyring
from holdfast.objects import BlobFiles
from tests.damage.witness import PAGE, Witness, named
from tests.promises import Count

FLIPS = {"header": 200, "page head": 300, "interior": 200, "leaf": 600, "index": 400, "free": 100, "checksum": 200}
"""Of the database file, 2,000 in all; fifty times as many in the long run."""
WAL_FLIPS = 400


@pytest.fixture(scope="module")
def witness(quick: Path) -> Witness:
    return Witness(quick)


def kinds_of_pages(data: bytes) -> dict[str, list[int]]:
    """The pages of a file by what they hold, as sqlite.org/fileformat2.html says."""
    kinds: dict[str, list[int]] = {"interior": [], "leaf": [], "index": [], "free": []}
    free: set[int] = set()
    trunk = int.from_bytes(data[32:36], "big")
    while trunk:
        at = (trunk - 1) * PAGE
        count = int.from_bytes(data[at + 4 : at + 8], "big")
        free |= {trunk} | {int.from_bytes(data[at + 8 + 4 * n : at + 12 + 4 * n], "big") for n in range(count)}
        trunk = int.from_bytes(data[at : at + 4], "big")
    for number in range(1, len(data) // PAGE):
        kind = data[number * PAGE]
        if number + 1 in free:
            kinds["free"].append(number)
        elif kind in (2, 5):
            kinds["interior"].append(number)
        else:
            kinds["index" if kind == 10 else "leaf"].append(number)  # leaves, and the overflow of large bodies
    return kinds


def places(data: bytes, kind: str, many: int) -> Iterator[tuple[int, int]]:
    """Where to turn a bit, a byte and which of its bits: `many` of one kind, the first bytes each at least once."""
    rng = random.Random(f"{kind}{many}")
    kinds = kinds_of_pages(data)
    assert all(kinds.values()), {kind: len(pages) for kind, pages in kinds.items()}
    used = kinds["leaf"] + kinds["interior"] + kinds["index"]
    for number in range(many):
        if kind == "header":
            at = number % 100  # the 100 bytes that say what the file is
        elif kind == "page head":
            at = rng.choice(used) * PAGE + number % 12
        elif kind == "checksum":
            at = rng.choice(used) * PAGE + PAGE - 8 + number % 8
        else:
            at = rng.choice(kinds[kind]) * PAGE + rng.randrange(PAGE - 8)
        yield at, 1 << rng.randrange(8)


def turned(data: bytes, at: int, mask: int) -> bytes:
    """The same bytes with one bit turned."""
    bad = bytearray(data)
    bad[at] ^= mask
    return bytes(bad)


LONG = [pytest.param(kind, 50 * many, marks=pytest.mark.long) for kind, many in FLIPS.items()]


@pytest.mark.parametrize(("kind", "many"), [*FLIPS.items(), *LONG])
def test_every_flip_in_the_file_is_found_and_none_is_returned(
    witness: Witness, count: Count, kind: str, many: int
) -> None:
    data, found = witness.closed["log.db"], Counter[str]()
    for at, mask in places(data, kind, many):
        verdict = witness.judge({**witness.closed, "log.db": turned(data, at, mask)})
        assert not verdict.wrong, (at, mask, verdict)
        assert verdict.found, f"bit {mask} of byte {at} was not found"
        found[verdict.found] += 1
    assert found.total() == many
    if kind in ("leaf", "interior"):
        assert found["read"] + found["open"] > many // 4, "reading does not notice"
    count("a bit turned in a log's file", tried=many, **named(found))


@pytest.mark.parametrize("many", [WAL_FLIPS, pytest.param(50 * WAL_FLIPS, marks=pytest.mark.long)])
def test_no_flip_in_the_wal_loses_a_commit_unseen(witness: Witness, count: Count, many: int) -> None:
    wal, found = witness.killed["log.db-wal"], Counter[str]()
    # Frames of the run that counts; behind them lie those of an older one, which nobody reads.
    salts = wal[16:24]
    frames = next(n for n in range(1 << 20) if wal[(start := 32 + n * (PAGE + 24)) + 8 : start + 16] != salts)
    assert frames > 20
    for number in range(many):
        rng = random.Random(number)
        # A third in the header and the last frames, where a flip looks like a torn tail.
        low, high = ((0, 32), (32 + (frames - 4) * (PAGE + 24), 32 + frames * (PAGE + 24)), (0, len(wal)))[
            number % 6 if number % 6 < 2 else 2
        ]
        at = rng.randrange(low, high if number % 12 < 8 else min(high, 32 + frames * (PAGE + 24)))
        verdict = witness.judge({**witness.killed, "log.db-wal": turned(wal, at, 1 << rng.randrange(8))})
        # Behind an incident the log is an older one; without it, every answer must be right.
        assert verdict.found == "open" or (not verdict.wrong and not verdict.found), (at, verdict)
        found[verdict.found or "harmless"] += 1
    assert found["open"] > many // 2
    count("a bit turned in a log's WAL", tried=many, **named(found))


def test_no_flip_in_the_anchor_makes_it_lie(witness: Witness, quick: Path, count: Count) -> None:
    """Its slots are written in turn, so the other one is there: a mark that is older, or the same."""
    path, data = quick / "anchor", witness.closed["log.anchor"]
    path.write_bytes(data)
    anchor = Anchor(path)
    newest = anchor.read()
    assert newest is not None
    older, found = newest, Counter[str]()
    for at in range(len(data)):
        path.write_bytes(turned(data, at, 1 << at % 8))
        mark = anchor.read()
        assert mark is not None
        if mark != newest:
            assert mark.seq < newest.seq
            older = mark
        found["read" if mark != newest else "harmless"] += 1
    anchor.close()
    assert found["read"] == 84, "each byte of the newest slot is under its checksum"
    # What is left is still a mark of this log.
    assert older.link in {stored.record.link for stored, _ in witness.truth["feed"]}
    spoilt = {**witness.closed, "log.anchor": turned(data, data.index(newest.link), 1)}
    assert witness.judge(spoilt) == ("", [], [])
    count("a bit turned in an anchor, every byte of it", tried=len(data), **named(found))


@pytest.mark.parametrize("size", [4096, pytest.param(70_000, marks=pytest.mark.long)])
def test_no_flip_in_a_blob_is_returned(quick: Path, count: Count, size: int) -> None:
    blobs = BlobFiles(quick / f"blobs{size}")
    body = random.Random(size).randbytes(size)
    digest, _ = blobs.put(body)
    path = blobs.path(digest)
    for at in range(size):
        path.write_bytes(turned(body, at, 1 << at % 8))
        with pytest.raises(BlobCorrupt):
            blobs.read(digest)
    path.write_bytes(body)
    assert blobs.read(digest) == body
    count("a bit turned in a blob, every byte of it", tried=size, found_on_reading=size)


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.long)])
def test_no_flip_in_the_keys_gives_another_key(quick: Path, count: Count, step: int) -> None:
    path = quick / "keys.db"
    keyring = Keyring(path, SYSTEM)
    keyring.make_first()
    keyring.prepare_next()
    public = keyring.current()
    signature, known = keyring.signer(public).sign(b"x"), keyring.public_keys()
    keyring.close()
    data, found = path.read_bytes(), Counter[str]()
    # The header and the rows at every byte, the rest (mostly zeros) at every `step`.
    wanted = {at for at in range(len(data)) if at < 100 or at % step == 0 or (step > 1 and data[at] and at % 3 == 0)}
    for at in sorted(wanted):
        path.write_bytes(turned(data, at, 1 << at % 8))
        try:
            keyring = Keyring(path, SYSTEM)
        except HoldfastError:
            found["open"] += 1
            continue
        try:
            said = keyring.current(), keyring.public_keys(), keyring.signer(public).sign(b"x")
        except HoldfastError:
            found["read"] += 1
        else:
            assert said == (public, known, signature), f"byte {at}: another key"
            found["harmless"] += 1
        finally:
            keyring.close()
    path.unlink()
    assert found["open"] + found["read"] > found.total() // 10
    count("a bit turned in the file of keys", tried=found.total(), **named(found))


def test_the_untouched_files_are_sound(witness: Witness) -> None:
    assert witness.judge(witness.closed) == witness.judge(witness.killed) == ("", [], [])
