"""Values in a log: two records of one batch for each version, the value itself and what is known of it.

The value's record is one like any other's (a large value is a blob that it refers to), so whatever works on logs works
on these. What is known of it lies in a collection of its own, at the very next position: a newest value that is not
beside its newest description was replayed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast import codec, seal
from holdfast.clock import millis
from holdfast.corpus import Stored
from holdfast.errors import Conflict, HoldfastError, IntegrityError, NotFound
from holdfast.integrity import checks
from holdfast.integrity.scan import verify_corpus
from holdfast.integrity.swarm.package import Kept, proven
from holdfast.integrity.swarm.shelf import Blobs, Found, Problems, check_blob, check_stamp, nothing
from holdfast.integrity.swarm.words import IntegrityCheckType
from holdfast.log import CRITICAL, Draft, Level, OpenLog, remove, value
from holdfast.log.anchor import Anchor
from holdfast.records import BLOB, PUT, TOMBSTONE, VALUE, blob_reference, payload_hash
from holdfast.seal.ed25519 import KEY_BYTES

AGENT: Final = "storage"
KNOWN: Final = "storage/known"
"""The collection of what is known of the values; theirs are ``storage/<data type>``."""
_PAGE: Final = 500
_STEMS: Final = {
    checks.CHECKSUM: IntegrityCheckType.CHECKSUM,
    checks.CHAIN: IntegrityCheckType.HASH_CHAIN,
    checks.TIME: IntegrityCheckType.TIMESTAMP,
    checks.SIZE: IntegrityCheckType.SIZE_VERIFICATION,
    checks.VERSION: IntegrityCheckType.VERSION_CONTROL,
}


class LogShelf:
    """The shelf of `StorageType.DATABASE` and `HYBRID`. Threads and processes may share it.

    Args:
        home: the log's directory; made with a key of its own if it is not there.
        blobs: where large values lie.
        level: what a returned write survives.

    Raises:
        IntegrityError: the log cannot be opened; or, at level critical, it has lost commits.
    """

    def __init__(self, home: Path, blobs: Blobs, level: Level) -> None:
        self.home = home
        self.blobs = blobs
        self.now: Callable[[], float] = time.time
        # Log and scan want of blobs what BlobFiles and StoredBlobs can both.
        self.opened = OpenLog(home, AGENT, public_key=_key(home), blobs=blobs, level=level)  # type: ignore[arg-type]
        self._log = self.opened.log
        self._corpus = self.opened.corpus

    @property
    def unusable(self) -> bool:
        """Whether the disk failed it: it must be opened anew."""
        return self._corpus.engine.unusable

    # -- reading ------------------------------------------------------------------------------------------------

    def newest(self, data_id: str) -> Found | None:
        """The newest version, also one that says that the value was deleted; None if there never was one."""
        stored = self._log.newest(KNOWN, data_id)
        return None if stored is None else _found(stored)

    def payload(self, found: Found) -> bytes:
        """The serialised value of a version that is no blob, proven."""
        return proven(found.kept, self._value(found).payload())

    def versions(self, data_id: str) -> Iterator[Found]:
        """The versions that can be read, newest first."""
        with contextlib.suppress(HoldfastError):  # behind a damaged page nothing is known of older ones
            for stored in self._log.versions(KNOWN, data_id):
                with contextlib.suppress(HoldfastError):
                    yield _found(stored)

    def ids(self) -> Iterable[str]:
        """Every name that is known here, also of what was deleted."""
        after = ""
        while page := self._corpus.keys(AGENT, KNOWN, after=after, limit=_PAGE):
            yield from (stored.record.key for stored in page)
            after = page[-1].record.key

    def written_since(self, seq: int) -> Iterator[Found]:
        """Every version written behind a number of the log.

        Raises:
            IntegrityError: something there cannot be read.
        """
        while page := self._corpus.feed(seq, _PAGE):
            for stored in page:
                if stored.record.collection == KNOWN and stored.record.kind == PUT:
                    yield _found(stored)
            seq = page[-1].record.seq

    def head(self) -> tuple[str, int]:
        """Which log this is and where it stands."""
        return self.stream, self._corpus.head(self._log.branch.id).seq

    @property
    def stream(self) -> str:
        """Which log this is."""
        return self._log.branch.stream.hex()

    def touch(self, data_id: str) -> None:
        """Reads every row that has to do with the newest version of a value.

        Raises:
            IntegrityError: a page that they lie on is damaged.
        """
        found = self.newest(data_id)
        if found is not None:
            self._corpus.at(found.at - 1)
            self._log.newest(_place(found.kept), data_id)

    def _value(self, found: Found) -> Stored:
        kept = found.kept
        stored = self._corpus.at(found.at - 1)
        if stored is None or (stored.record.collection, stored.record.key) != (_place(kept), kept.data_id):
            raise IntegrityError(f"{kept.data_id} version {kept.version}: its record is not in the log")
        return stored

    # -- writing ------------------------------------------------------------------------------------------------

    def write(self, kept: Kept, payload: bytes | None, expect: int | None = None) -> Kept:
        """Adds a version and returns it with its number: the next one, or its own if that is higher."""
        while True:
            stored = self._log.newest(KNOWN, kept.data_id)
            number = 0 if stored is None else _found(stored).kept.version
            if expect is not None and number != expect:
                raise Conflict(f"{kept.data_id} is at version {number}, you expected {expect}", current_version=number)
            # Stamped behind the look at the newest, and written only if that is the newest still: times keep order.
            stamp = kept.timestamp or self.now()
            made = msgspec.structs.replace(kept, version=max(number + 1, kept.version), timestamp=stamp)
            known = value(
                KNOWN, kept.data_id, msgspec.to_builtins(made), expect=stored.record.link.hex() if stored else 0
            )
            try:
                self._log.append([_draft(made, payload), known], durable=kept.integrity_level == CRITICAL.name)
            except Conflict:
                continue  # another thread or process was faster
            return made

    def put_back(self, found: Found, payload: bytes | None) -> None:
        """Puts the proven bytes of a version in the place of damaged ones; the number stays.

        Raises:
            IntegrityError: the record's own header does not prove them, or its page cannot be written.
        """
        if payload is None:
            return
        stored = self._value(found)
        if payload_hash(stored.salt, payload) != stored.record.payload_hash:
            raise IntegrityError(f"{found.kept.data_id}: the record's header does not prove what was found")
        packed, body = codec.pack(payload)
        self._corpus.write(
            lambda tx: tx.execute("UPDATE rec SET codec=?, why=0, body=? WHERE pos=?", (packed, body, stored.pos))
        )
        self._corpus.sync()

    def rederive(self, data_id: str) -> None:
        """Lets the newest versions of a value be those that the log says; the log is right, and keys derive from it."""
        newest = "SELECT max(r.pos) FROM rec r WHERE r.agent=state.agent AND r.coll=state.coll AND r.key=state.key"
        gone = f"(SELECT iif(g.flags & {TOMBSTONE}, g.pos, 0) FROM rec g WHERE g.pos=({newest}))"
        self._corpus.write(
            lambda tx: tx.execute(f"UPDATE state SET pos=({newest}), gone={gone} WHERE key=?", (data_id,))
        )

    # -- proving ------------------------------------------------------------------------------------------------

    def check(self, data_id: str, now: float) -> Problems:
        """What the five checks find of a value."""
        while True:
            problems = nothing()
            at = 0
            try:
                known = self._log.newest(KNOWN, data_id)
                if known is None:
                    raise NotFound(f"nothing is known of {data_id}")
                at = known.pos
                found = _found(known)
                stored = self._value(found)
                self._check_records([stored, known], now, problems)
                self._check_bytes(found, stored, problems)
                self._check_versions(found, known, stored, now, problems)
            except IntegrityError as error:
                problems[IntegrityCheckType.CHECKSUM].append(error.message)
            if not any(problems.values()) or not self._moved(data_id, at):
                return problems

    def _moved(self, data_id: str, at: int) -> bool:
        """Whether somebody wrote the value while it was checked: then what was found may be half of each."""
        try:
            known = self._log.newest(KNOWN, data_id)
        except IntegrityError:
            return False
        return known is not None and known.pos > at > 0

    def _check_records(self, pair: list[Stored], now: float, problems: Problems) -> None:
        first = pair[0]
        stream, seq = self._log.branch.stream, first.record.seq - 1
        link = self._corpus.link_at(self._log.branch.id, seq)
        found = [*checks.checksum(pair), *checks.size(pair), *checks.time(pair, now_ms=round(now * 1000))]
        if link is None:
            problems[IntegrityCheckType.VERSION_CONTROL].append(f"the record before seq {first.record.seq} is missing")
        else:
            found += checks.chain(pair, stream, seq, link)
        for finding in found:
            problems[_STEMS[finding.check]].append(str(finding))

    def _check_bytes(self, found: Found, stored: Stored, problems: Problems) -> None:
        kept = found.kept
        if kept.deleted:
            return
        if kept.blob:
            return check_blob(self.blobs, kept, problems)
        size = stored.record.payload_len
        if size != kept.size:
            problems[IntegrityCheckType.SIZE_VERIFICATION].append(f"{size} bytes are here, {kept.size} were stored")
        if stored.body is not None and not problems[IntegrityCheckType.CHECKSUM]:
            proven(kept, stored.payload())

    def _check_versions(self, found: Found, known: Stored, stored: Stored, now: float, problems: Problems) -> None:
        kept, wrong = found.kept, problems[IntegrityCheckType.VERSION_CONTROL]
        newest = next(self._log.versions(_place(kept), kept.data_id), None)
        if newest is None or newest.pos != stored.pos:
            wrong.append("the newest value is not the one that the newest description speaks of: one was replayed")
        older = self._corpus.at(known.prior) if known.prior else None
        before = _found(older).kept if older is not None else None
        if known.prior and older is None:
            wrong.append(f"the version before {kept.version} is missing")
        if older is not None and known.record.key_version != older.record.key_version + 1:
            wrong.append(f"record version {known.record.key_version} follows {older.record.key_version}")
        if before is not None and kept.version <= before.version:
            wrong.append(f"version {kept.version} follows version {before.version}")
        if abs(millis(known.record.hlc) / 1000 - kept.timestamp) > 3600 and kept.timestamp <= now:
            problems[IntegrityCheckType.TIMESTAMP].append("its time is not that of its record")
        check_stamp(kept, before, now, problems)

    def whole(self) -> list[str]:
        """What is wrong with the log as a whole, in words: a full verification, with the anchor's word."""
        self.opened.sync()
        anchor = Anchor(self.home / "log.anchor")
        try:
            mark = anchor.read()
        finally:
            anchor.close()
        scan = verify_corpus(self._corpus, self.blobs, anchor=mark)
        told = [f"{incident.what}: {incident.detail}" for incident in self.opened.incidents]
        return told + [str(finding) for finding in scan.findings]

    def close(self) -> None:
        """Syncs, and lets go of files."""
        self.opened.close()
        if (close := getattr(self.blobs, "close", None)) is not None:
            close()


def _draft(kept: Kept, payload: bytes | None) -> Draft:
    if kept.deleted:
        return remove(_place(kept), kept.data_id)
    if payload is None:
        reference = blob_reference(kept.digest, kept.size)
        return Draft(PUT, _place(kept), kept.data_id, kept.fmt, reference, VALUE | BLOB)
    return Draft(PUT, _place(kept), kept.data_id, kept.fmt, payload)


def _found(stored: Stored) -> Found:
    try:
        return Found(msgspec.json.decode(stored.payload(), type=Kept), stored.pos)
    except msgspec.DecodeError as error:
        raise IntegrityError(f"what is known of {stored.record.key} cannot be read: {error}") from error


def _place(kept: Kept) -> str:
    return f"storage/{kept.data_type}"


def _key(home: Path) -> bytes:
    """The public key that this log's stream is bound to; its private half is made with the log."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / "storage.key"
    with contextlib.suppress(FileExistsError):
        # Whole or not there: the file gets its name when it is.
        partial = home / f".storage.key.{os.urandom(6).hex()}"
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, seal.generate())
            os.fsync(fd)
            os.link(partial, path)
        finally:
            os.close(fd)
            partial.unlink()
    private = path.read_bytes()
    if len(private) != KEY_BYTES:
        hint = "holdfast-integrity --rescue makes a new log from the newest backup"
        raise IntegrityError(f"{path} has {len(private)} bytes: it is no key", hint=hint)
    return seal.Signer(private).public_key
