"""Blobs on an object store: what arrives is served at once, moved, stored once, and collected once nobody needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from holdfast.errors import BlobCorrupt, Conflict, HubUnavailable, NotFound, StorageUnavailable, UsageError
from holdfast.objects import BlobFiles, FileStore, MemoryStore, ObjectInfo
from holdfast.objects.blobs.collect import LEASES, Collector, lease
from holdfast.objects.blobs.stored import PREFIX, StoredBlobs
from holdfast.testing.clock import SettableClock

BODY = bytes(range(256)) * 9000
DIGEST = hashlib.sha256(BODY).digest()
GRACE_S = 3600.0


class Flaky(MemoryStore):
    """A store that can be away."""

    away = False

    def _open(self) -> None:
        if self.away:
            raise StorageUnavailable("no answer")
        super()._open()


@pytest.fixture
def blobs(tmp_path: Path) -> StoredBlobs:
    return StoredBlobs(Flaky(), BlobFiles(tmp_path / "blobs"))


def digest_of(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def names(blobs: StoredBlobs) -> list[str]:
    return [info.key for info in blobs.store.list(PREFIX)]


@pytest.mark.parametrize("moved", [False, True])
def test_a_blob_is_the_same_before_and_after_it_moved(blobs: StoredBlobs, tmp_path: Path, moved: bool) -> None:
    assert blobs.put(BODY) == (DIGEST, len(BODY))
    if moved:
        assert blobs.move() == 1
        assert not BlobFiles(tmp_path / "blobs").has(DIGEST)
    assert len(names(blobs)) == moved
    assert (blobs.has(DIGEST), blobs.size(DIGEST), blobs.verify(DIGEST)) == (True, len(BODY), True)
    assert blobs.missing([DIGEST, b"x" * 32]) == [b"x" * 32]
    assert list(blobs.iter()) == [DIGEST]
    assert blobs.read(DIGEST) == BODY
    for verify in (True, False):
        assert blobs.read(DIGEST, 1000, 5, verify=verify) == BODY[1000:1005]
        assert blobs.read(DIGEST, len(BODY) - 2, 9, verify=verify) == BODY[-2:]
    with blobs.open(DIGEST) as reader:
        assert reader.size == len(BODY)
        assert reader.read(10) + reader.read() == BODY
    assert blobs.resume(DIGEST) == len(BODY)
    assert blobs.finish(DIGEST) == len(BODY)
    assert blobs.delete(DIGEST) is True
    assert blobs.delete(DIGEST) is False
    assert not blobs.has(DIGEST)
    assert names(blobs) == []


def test_the_same_bytes_are_stored_once(blobs: StoredBlobs) -> None:
    for _ in range(3):
        blobs.put(BODY)
        blobs.move()
    assert len(names(blobs)) == 1
    other = StoredBlobs(blobs.store, blobs._staging)
    other.put(b"second")
    other.put(BODY)
    assert other.move() == 2
    assert list(blobs.iter()) == sorted([DIGEST, digest_of(b"second")])
    assert len(names(blobs)) == 2


def test_an_upload_goes_on_in_pieces_and_an_unfinished_one_does_not_move(blobs: StoredBlobs) -> None:
    assert blobs.append(DIGEST, 0, BODY[:1000]) == 1000
    assert blobs.move() == 0
    assert blobs.resume(DIGEST) == 1000
    with pytest.raises(Conflict):
        blobs.resume(DIGEST, 5)
    blobs.append(DIGEST, 1000, BODY[1000:])
    assert blobs.finish(DIGEST) == len(BODY)
    assert blobs.sweep(0.0) == 0
    assert blobs.finish(DIGEST) == len(BODY)
    upload = blobs.begin()
    blobs.extend(upload, 0, b"unnamed")
    assert blobs.complete(upload) == (digest_of(b"unnamed"), 7)
    with pytest.raises(NotFound):
        blobs.finish(b"x" * 32)


def test_while_the_store_is_away_blobs_arrive_and_are_served(blobs: StoredBlobs) -> None:
    blobs.put(b"far")
    blobs.move()
    assert isinstance(blobs.store, Flaky)
    blobs.store.away = True
    blobs.put(BODY)
    assert blobs.read(DIGEST) == BODY
    assert blobs.missing([DIGEST]) == []
    for call in (lambda: blobs.read(digest_of(b"far")), blobs.move, lambda: blobs.missing([digest_of(b"far")])):
        with pytest.raises(HubUnavailable):
            call()
    blobs.store.away = False
    assert blobs.move() == 1
    assert blobs.read(DIGEST) == BODY


def test_what_rotted_in_the_store_is_never_returned(blobs: StoredBlobs) -> None:
    blobs.put(BODY)
    blobs.move()
    (key,) = names(blobs)
    for damaged in (BODY[:-1] + b"?", BODY[:-1], BODY + b"?"):
        blobs.store.put(key, damaged)
        assert not blobs.verify(DIGEST)
        with pytest.raises(BlobCorrupt):
            blobs.read(DIGEST)
        with blobs.open(DIGEST) as reader, pytest.raises(BlobCorrupt):
            list(iter(lambda reader=reader: reader.read(100_000), b""))  # type: ignore[misc]


def test_a_move_keeps_what_did_not_arrive_whole(tmp_path: Path) -> None:
    class Torn(MemoryStore):
        def put(self, key: str, data: object, **options: object) -> ObjectInfo:
            return super().put(key, b"".join(data)[:-1], **options)  # type: ignore[arg-type]

    blobs = StoredBlobs(Torn(), BlobFiles(tmp_path / "blobs"))
    blobs.put(BODY)
    with pytest.raises(BlobCorrupt):
        blobs.move()
    assert blobs.read(DIGEST) == BODY


class Turning(MemoryStore):
    """A store that turns a bit in the first body that it is given of each key's beginning, and keeps its length."""

    turned = 0

    def put(self, key: str, data: object, **options: object) -> ObjectInfo:
        body = data if isinstance(data, bytes) else b"".join(data)  # type: ignore[call-overload]
        if not self.turned and key.startswith(PREFIX):
            self.turned, body = 1, body[:-1] + bytes([body[-1] ^ 1])
        return super().put(key, body, **options)  # type: ignore[arg-type]


def test_what_a_bad_write_left_is_not_taken_for_the_blob_by_the_next_move(tmp_path: Path) -> None:
    """It was: it has as many bytes. And the only good copy was deleted."""
    blobs = StoredBlobs(Turning(), BlobFiles(tmp_path / "blobs"))
    blobs.put(BODY)
    blobs.put(b"another")
    with pytest.raises(BlobCorrupt):
        blobs.move()
    assert blobs.move() == 1  # the other one did not wait for it
    for digest, body in ((DIGEST, BODY), (digest_of(b"another"), b"another")):
        assert blobs.read(digest) == body
    assert len(names(blobs)) == 2
    assert list(blobs._staging.iter()) == []


def test_a_blob_that_is_sent_again_heals_what_rotted_in_the_store(blobs: StoredBlobs) -> None:
    blobs.put(BODY)
    blobs.move()
    (key,) = names(blobs)
    blobs.store.put(key, BODY[:-1] + b"?")
    blobs.put(BODY)
    assert blobs.move() == 1
    assert blobs.read(DIGEST) == BODY
    assert blobs.verify(DIGEST)
    assert len(names(blobs)) == 1
    assert key not in names(blobs)


def test_rot_that_the_store_itself_finds_is_rot_and_no_hub_that_is_away(tmp_path: Path) -> None:
    """A scan asks `verify`: it must hear of it, and not be told to come again."""
    blobs = StoredBlobs(FileStore(tmp_path / "store"), BlobFiles(tmp_path / "blobs"))
    for body in (BODY, b"small"):
        blobs.put(body)
        blobs.move()
        digest = digest_of(body)
        (path,) = (tmp_path / "store").rglob(f"{digest.hex()}.*")
        path.write_bytes(body[:-1] + b"?")
        assert not blobs.verify(digest)
        for verify in (True, False):
            with pytest.raises(BlobCorrupt):
                blobs.read(digest, verify=verify)
        blobs.put(body)
        assert blobs.move() == 1
        assert blobs.read(digest) == body


def test_what_is_no_digest_or_range_is_refused(blobs: StoredBlobs) -> None:
    for call in (lambda: blobs.has(b"x"), lambda: blobs.read(DIGEST, -1), lambda: blobs.read(DIGEST, 0, -1)):
        with pytest.raises(UsageError):
            call()
    for missing in (blobs.read, blobs.size, blobs.open):
        with pytest.raises(NotFound):
            missing(DIGEST)
    with pytest.raises(AttributeError):
        blobs.path  # noqa: B018 - it has none, and says so


# -- collection --------------------------------------------------------------------------------------------------


def test_garbage_goes_in_two_phases_and_what_is_referred_to_stays(blobs: StoredBlobs) -> None:
    clock, live = SettableClock(), {digest_of(b"live")}
    collector = Collector(blobs, lambda: iter(live), grace_s=GRACE_S, wall=clock)
    for body in (b"live", b"dead", b"back"):
        blobs.put(body)
    blobs.move()
    done = collector.run(dry_run=True)
    assert (done.blobs, done.live, done.marked, done.deleted) == (3, 1, 2, 0)
    assert blobs.missing([digest_of(b"dead")]) == []
    done = collector.run()
    assert (done.live, done.marked, done.deleted) == (1, 2, 0)
    assert blobs.missing([digest_of(b"dead"), digest_of(b"live")]) == [digest_of(b"dead")]
    assert blobs.read(digest_of(b"dead")) == b"dead"  # condemned, and still readable
    clock.advance(GRACE_S - 1)
    assert collector.run().waiting == 2
    live.add(digest_of(b"back"))
    clock.advance(1)
    done = collector.run()
    assert (done.spared, done.deleted, done.deleted_bytes) == (1, 1, 4)
    assert list(blobs.iter()) == sorted(live)
    assert blobs.missing(live) == []
    assert [info.key for info in blobs.store.list()] == names(blobs)  # no marks are left


def test_a_condemned_blob_that_is_sent_again_gets_a_name_that_no_late_purge_knows(blobs: StoredBlobs) -> None:
    clock, live = SettableClock(), set[bytes]()
    collector = Collector(blobs, lambda: iter(live), grace_s=GRACE_S, wall=clock)
    blobs.put(BODY)
    blobs.move()
    collector.run()
    (doomed,) = names(blobs)
    blobs.put(BODY)
    blobs.move()
    live.add(DIGEST)
    assert len(names(blobs)) == 2
    clock.advance(GRACE_S)
    assert collector.run().deleted == 1
    (left,) = names(blobs)
    assert left != doomed
    blobs.store.delete(doomed)  # a purge that had stood still until now
    assert blobs.read(DIGEST) == BODY


def test_a_lease_keeps_a_blob_until_it_ends_or_expires(blobs: StoredBlobs) -> None:
    clock = SettableClock()
    collector = Collector(blobs, lambda: iter(()), grace_s=GRACE_S, wall=clock)
    blobs.put(BODY)
    blobs.move()
    with lease(blobs, DIGEST, 100, wall=clock):
        assert collector.run().marked == 0
        clock.advance(101)
        assert collector.run().marked == 1
    assert list(blobs.store.list(LEASES)) == []
    with pytest.raises(NotFound), lease(blobs, DIGEST, 100, wall=clock):
        pass
    assert list(blobs.store.list(LEASES)) == []
    with pytest.raises(UsageError):
        Collector(blobs, lambda: iter(()), grace_s=1)


class Garbage(RuleBasedStateMachine):
    """Writers who look and then refer, and collectors who stand still anywhere, in any order: nothing live is lost."""

    BODIES = (b"one", b"two", b"three")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.clock = SettableClock()
        self.live: set[bytes] = set()
        self.looked: dict[bytes, float] = {}
        self.blobs = StoredBlobs(MemoryStore(), BlobFiles(Path(self.directory.name)))
        self.late: list[Iterator[None]] = []

    def teardown(self) -> None:
        self.directory.cleanup()

    @rule(body=st.sampled_from(BODIES))
    def look_and_send(self, body: bytes) -> None:
        digest = digest_of(body)
        if self.blobs.missing([digest]):
            self.blobs.put(body)
        self.looked[digest] = self.clock.monotonic()

    @precondition(lambda self: self.looked)
    @rule(data=st.data())
    def refer(self, data: st.DataObject) -> None:
        digest = data.draw(st.sampled_from(sorted(self.looked)))
        if self.clock.monotonic() - self.looked.pop(digest) < GRACE_S:
            self.live.add(digest)

    @rule(body=st.sampled_from(BODIES))
    def forget(self, body: bytes) -> None:
        self.live.discard(digest_of(body))

    @rule()
    def move(self) -> None:
        self.blobs.move()

    @rule(seconds=st.sampled_from([1.0, GRACE_S / 2, GRACE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def collect(self) -> None:
        Collector(self.blobs, lambda: iter(set(self.live)), grace_s=GRACE_S, wall=self.clock).run()

    @rule()
    def a_collector_stands_still(self) -> None:
        """Asks for the references now, and does all the rest at some later time."""
        seen = [dict.fromkeys(info.key for info in self.blobs.store.list("marks/"))]
        live = set(self.live)
        store = Late(self.blobs.store, seen[0])
        collector = Collector(StoredBlobs(store, None), lambda: iter(live), grace_s=GRACE_S, wall=self.clock)
        now = self.clock.now_ms()

        def run() -> Iterator[None]:
            yield
            collector._wall = SettableClock(now)
            collector.run()

        waiting = run()
        next(waiting)
        self.late.append(waiting)

    @precondition(lambda self: self.late)
    @rule()
    def it_goes_on(self) -> None:
        next(self.late.pop(), None)

    @invariant()
    def what_is_referred_to_is_there(self) -> None:
        for digest in self.live:
            assert self.blobs.verify(digest)


class Late(MemoryStore):
    """A store as a collector sees it that has read the marks long ago: it deletes, and writes no marks."""

    def __init__(self, inner: MemoryStore, marks: dict[str, None]) -> None:
        super().__init__()
        self.inner, self.marks = inner, marks

    def list(self, prefix: str = "", **options: object) -> Iterator[ObjectInfo]:  # type: ignore[override]
        found = self.inner.list(prefix, **options)  # type: ignore[arg-type]
        return (info for info in found if not info.key.startswith("marks/") or info.key in self.marks)

    def read(self, key: str, **options: object) -> bytes:  # type: ignore[override]
        return self.inner.read(key)

    def head(self, key: str) -> ObjectInfo:
        return self.inner.head(key)

    def put(self, key: str, *args: object, **options: object) -> ObjectInfo:  # type: ignore[override]
        return ObjectInfo(
            key=key, size=0, etag="", modified=self.inner.head(next(iter(self.inner.list())).key).modified
        )

    def delete(self, key: str, *, expect: str | None = None) -> bool:
        return self.inner.delete(key)


@pytest.mark.parametrize("many", [30, pytest.param(600, marks=pytest.mark.long)])
def test_what_is_referred_to_is_never_collected(many: int) -> None:
    limits = settings(max_examples=many, stateful_step_count=30, deadline=None, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(Garbage, settings=limits)
