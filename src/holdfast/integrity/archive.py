"""Old records in compressed files on any object store, readable without Holdfast, and by a hub as if they were there.

A file is zstd, and in it JSON, one document a line: first what the file is (`Head`), then the records of one stretch of
positions, each with its value as it was written, its salt, its hash and its header: whoever has the file can prove each
value by itself (docs/retention.md has the recipe). ``manifest.json`` names the files. Payloads above 64 KiB are objects
of their own, ``blobs/<sha256>``.

Once a file was read back and proven, a hub may let its bodies go (`drop`): the rows say that an archive holds them
(``why`` 4, which never leaves the corpus), and `integrity.shelf` brings them back where a row is read, proven by the
header's hash. What was erased since is taken out of the files by the next run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import clock, codec
from holdfast.corpus import SqlCorpus, Stored
from holdfast.corpus.rows import ARCHIVED
from holdfast.corpus.transaction import SqlTransaction
from holdfast.errors import Conflict, IntegrityError, ObjectNotFound, UsageError
from holdfast.integrity.shelf import META
from holdfast.objects import ObjectStore
from holdfast.objects.port import ABSENT
from holdfast.records import BLOB, SEALED, encode_header, read_blob_reference
from holdfast.wire import REDACTED

FORMAT: Final = "holdfast-archive/1"
MANIFEST: Final = "manifest.json"
FILE_RECORDS: Final = 2_000
FILE_BYTES: Final = 4 << 20
FILE_BYTES_MAX: Final = 256 << 20
_LOT: Final = 200
_OPTIONAL: Final = frozenset({"author", "sealed", "blob", "missing", "text", "base64"})
_VALUE: Final = b',"value":'
_WHY: Final = ("", "evicted", "quarantined", "redacted")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a file: what it is, and the SHA-256 of all that stands behind it."""

    format: str = FORMAT
    first: int
    last: int
    records: int
    oldest: str
    newest: str
    agents: list[str]
    sha256: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file as the manifest names it; `erased` of its records were erased when it was written."""

    name: str
    first: int
    last: int
    records: int
    bytes: int
    oldest: str
    newest: str
    agents: list[str]
    sha256: str
    erased: int = 0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds: its files in the order of their positions, and the link of the newest record."""

    format: str = FORMAT
    files: list[Entry] = []
    link: str = ""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One record. `value` is JSON as it was written, `text` a text, `base64` bytes (or what a sealed record holds).

    `missing` says why there is none of these: evicted, quarantined, redacted, lost.
    """

    pos: int
    agent: str
    stream: str
    seq: int
    time: str
    kind: str
    collection: str
    key: str
    version: int
    link: str
    header: str
    salt: str
    payload_hash: str
    author: str = ""
    sealed: bool = False
    blob: dict[str, Any] | None = None
    missing: str = ""
    text: str | None = None
    base64: str | None = None
    value: msgspec.Raw = msgspec.Raw()

    def payload(self) -> bytes | None:
        """The bytes that the record's hash is of."""
        if self.text is not None:
            return self.text.encode()
        if self.base64 is not None:
            return base64.b64decode(self.base64)
        return bytes(self.value) or None


class Made(msgspec.Struct):
    """What a run did."""

    records: int = 0
    files: int = 0
    bytes: int = 0
    blobs: int = 0
    rewritten: int = 0
    dropped: int = 0


class Archive:
    """The files below one prefix of an object store.

    Args:
        store: the store.
        prefix: such as ``agents/ada/``; empty: all of it.
    """

    def __init__(self, store: ObjectStore, prefix: str = "") -> None:
        self._store, self._prefix = store, prefix

    def manifest(self) -> tuple[Manifest, str | int]:
        """What there is, and the etag to change it by.

        Raises:
            UsageError: something else lies there.
        """
        key = self._prefix + MANIFEST
        try:
            info = self._store.head(key)
            data = self._store.read(key)
        except ObjectNotFound:
            return Manifest(), ABSENT
        try:
            found = msgspec.json.decode(data, type=codec.ready(Manifest))
        except msgspec.DecodeError as error:
            raise UsageError(f"{key} is no manifest of an archive: {error}", hint="give a place of its own") from error
        if found.format != FORMAT:
            raise UsageError(f"{key} has the format {found.format!r}", hint="update holdfast")
        return found, info.etag

    def lines(self, entry: Entry) -> list[tuple[Line, bytes]]:
        """The records of a file, each with its line; the file is proven to be what was written.

        Raises:
            IntegrityError: it is not.
            ObjectNotFound: it is not there.
        """
        data = codec.inflate("zstd", self._store.read(self._prefix + entry.name), FILE_BYTES_MAX)
        top, _, rest = data.partition(b"\n")
        try:
            head = msgspec.json.decode(top, type=Head)
            rows = [(msgspec.json.decode(row, type=Line), row) for row in rest.split(b"\n")[:-1]]
        except msgspec.DecodeError as error:
            raise IntegrityError(f"{entry.name} is not what was written: {error}") from error
        if not head.sha256 == entry.sha256 == hashlib.sha256(rest).hexdigest() or len(rows) != head.records:
            raise IntegrityError(f"{entry.name} is not what was written", hint="take another copy of this archive")
        return rows

    def verify(self, entry: Entry) -> int:
        """Reads a file and proves each of its values by its record's header; how many records it holds.

        Raises:
            IntegrityError: one of them is not what was recorded.
        """
        rows = self.lines(entry)
        for line, _ in rows:
            prove(line)
        return len(rows)

    def blob(self, digest: bytes) -> bytes:
        """A payload above 64 KiB, proven.

        Raises:
            IntegrityError: it is something else.
        """
        data = self._store.read(f"{self._prefix}blobs/{digest.hex()}")
        if hashlib.sha256(data).digest() != digest:
            raise IntegrityError(f"the archive's blob {digest.hex()} is something else", digest=digest.hex())
        return data

    def run(
        self, corpus: SqlCorpus, blobs: Any, *, before_ms: int, told: Callable[[int], None] = lambda _: None
    ) -> Made:
        """Archives what is older and not here yet, and takes out what was erased since; reads back what it wrote.

        Args:
            corpus: a hub's, or an agent's log.
            blobs: where its blobs are.
            before_ms: ms since 1970.
            told: hears how many records are done.

        Raises:
            Conflict: this archive is of another corpus, or of one that was put back since.
        """
        manifest, etag = self.manifest()
        after = manifest.files[-1].last if manifest.files else 0
        if after:
            last = corpus.at(after)
            if last is None or last.record.link.hex() != manifest.link:
                raise Conflict(
                    "this archive holds other records at these positions: of another hub, or of before a restore",
                    hint="archive to a place of its own",
                )
        made = Made()
        row = corpus.one("SELECT max(pos) FROM rec WHERE hlc<?", (clock.pack(before_ms),))
        until = (row and row[0]) or 0
        while after < until:
            lot = [each for each in corpus.feed(after, FILE_RECORDS, FILE_BYTES) if each.pos <= until]
            rows = []
            for stored in lot:
                line = line_of(stored)
                if line.blob is not None and not line.missing:
                    made.blobs += self._keep_blob(bytes.fromhex(line.blob["digest"]), blobs)
                rows.append(encode(line))
            entry = self._write(rows, [line_of(each, bare=True) for each in (lot[0], lot[-1])], _facts(lot))
            self.verify(entry)
            manifest = Manifest(files=[*manifest.files, entry], link=lot[-1].record.link.hex())
            etag = self._publish(manifest, etag)
            after = lot[-1].pos
            made.records, made.files, made.bytes = made.records + len(lot), made.files + 1, made.bytes + entry.bytes
            told(made.records)
        made.rewritten = self._refresh(corpus, manifest, etag)
        return made

    def drop(self, corpus: SqlCorpus, address: str, *, before_ms: int) -> int:
        """Lets the bodies go that this archive was proven to hold; how many. A hub's alone: a node has its budget.

        Payloads above 64 KiB stay where they are (they may lie on an object store: ``serve --blobs``).

        Args:
            corpus: the hub's.
            address: where readers find this archive; it is kept with the corpus.
            before_ms: only what is older.
        """
        if not corpus.hub:
            raise UsageError("only a hub's bodies are dropped for an archive", hint="holdfast retention, on a node")
        limit, dropped = clock.pack(before_ms), 0
        for entry in self.manifest()[0].files:
            wanted = "SELECT 1 FROM rec WHERE pos>=? AND pos<=? AND hlc<? AND why=0 AND body IS NOT NULL LIMIT 1"
            if corpus.one(wanted, (entry.first, entry.last, limit)) is None:
                continue
            rows = self.lines(entry)  # read again: what is let go is what can be read now
            held = [(line.pos, bytes.fromhex(line.link)) for line, _ in rows if _is_whole(line)]
            for first in range(0, len(held), _LOT):
                lot = held[first : first + _LOT]

                def job(tx: SqlTransaction, lot: Sequence[tuple[int, bytes]] = lot) -> int:
                    if tx.meta(META) != address:
                        tx.set_meta(META, address)
                    gone = 0
                    for pos, link in lot:
                        sql = (
                            "UPDATE rec SET body=NULL, why=? WHERE pos=? AND link=? AND hlc<? AND why=0"
                            " AND body IS NOT NULL RETURNING 1"
                        )
                        gone += len(tx.sql(sql, (ARCHIVED, pos, link, limit)).fetchall())
                    return gone

                dropped += corpus.write(job)
        corpus.sync()
        return dropped

    def _keep_blob(self, digest: bytes, blobs: Any) -> int:
        key = f"{self._prefix}blobs/{digest.hex()}"
        if self._store.exists(key):
            return 0
        self._store.put(key, blobs.read(digest))
        return 1

    def _write(self, rows: Sequence[bytes], ends: Sequence[Line], facts: dict[str, Any]) -> Entry:
        body = b"".join(row + b"\n" for row in rows)
        digest = hashlib.sha256(body).hexdigest()
        about: dict[str, Any] = {"first": ends[0].pos, "last": ends[-1].pos, "records": len(rows), "sha256": digest}
        about |= {name: facts[name] for name in ("oldest", "newest", "agents")}
        data = codec.deflate("zstd", msgspec.json.encode(Head(**about)) + b"\n" + body)
        name = f"{ends[0].pos:012}-{ends[-1].pos:012}-{digest[:12]}.jsonl.zst"
        self._store.put(self._prefix + name, data, content_type="application/zstd")
        return Entry(name=name, bytes=len(data), erased=facts["erased"], **about)

    def _publish(self, manifest: Manifest, etag: str | int) -> str:
        data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        expect: Any = etag
        return self._store.put(self._prefix + MANIFEST, data, content_type="application/json", expect=expect).etag

    def _refresh(self, corpus: SqlCorpus, manifest: Manifest, etag: str | int) -> int:
        """Writes the files anew that hold what was erased since."""
        done = 0
        for number, entry in enumerate(manifest.files):
            sql = "SELECT pos FROM rec WHERE pos>=? AND pos<=? AND why=?"
            gone = {row[0] for row in corpus.query(sql, (entry.first, entry.last, REDACTED))}
            if len(gone) == entry.erased:
                continue
            kept, lost = [], []
            for line, row in self.lines(entry):
                if line.pos in gone and not line.missing:
                    lost.append(line)
                    row = encode(_bare(line, "redacted"))
                kept.append(row)
            ends = [msgspec.json.decode(row, type=Line) for row in (kept[0], kept[-1])]
            facts = {"oldest": entry.oldest, "newest": entry.newest, "agents": entry.agents, "erased": len(gone)}
            made = self._write(kept, ends, facts)
            files = [*manifest.files]
            files[number] = made
            manifest = msgspec.structs.replace(manifest, files=files)
            etag = self._publish(manifest, etag)
            if made.name != entry.name:
                self._store.delete(self._prefix + entry.name)
            for line in lost:
                digest = bytes.fromhex(line.blob["digest"]) if line.blob else b""
                if digest and not _refers(corpus, digest):
                    self._store.delete(f"{self._prefix}blobs/{digest.hex()}")
            done += 1
        return done


def line_of(stored: Stored, *, bare: bool = False) -> Line:
    """A record as a line of an archive.

    Args:
        stored: the record.
        bare: without its value.
    """
    record = stored.record
    line = Line(
        pos=stored.pos,
        agent=stored.agent,
        stream=record.stream.hex(),
        seq=record.seq,
        time=clock.to_iso(record.hlc),
        kind=record.kind,
        collection=record.collection,
        key=record.key,
        version=record.key_version,
        link=record.link.hex(),
        header=base64.b64encode(encode_header(record)).decode(),
        salt=base64.b64encode(stored.salt).decode(),
        payload_hash=record.payload_hash.hex(),
        author=record.author,
        sealed=bool(record.flags & SEALED),
    )
    if stored.body is None:
        return msgspec.structs.replace(line, missing=_WHY[stored.why] if 0 < stored.why < len(_WHY) else "lost")
    if bare:
        return line
    payload = stored.payload()
    if record.flags & BLOB:
        digest, size = read_blob_reference(payload)
        blob = {"digest": digest.hex(), "size": size, "fmt": ("bytes", "text", "json")[record.fmt]}
        return msgspec.structs.replace(line, blob=blob, base64=base64.b64encode(payload).decode())
    if record.flags & SEALED or record.fmt == codec.FMT_BYTES:
        return msgspec.structs.replace(line, base64=base64.b64encode(payload).decode())
    if record.fmt == codec.FMT_TEXT:
        return msgspec.structs.replace(line, text=payload.decode())
    return msgspec.structs.replace(line, value=msgspec.Raw(payload))


def encode(line: Line) -> bytes:
    """A line without what says nothing; the value stands last, byte for byte as it was written."""
    plain = {name: getattr(line, name) for name in line.__struct_fields__ if name != "value"}
    said = {name: each for name, each in plain.items() if name not in _OPTIONAL or each not in ("", None, False)}
    row = msgspec.json.encode(said)
    return row[:-1] + _VALUE + bytes(line.value) + b"}" if bytes(line.value) else row


def prove(line: Line) -> None:
    """Returns only if a line's value is the one whose hash its header holds.

    Raises:
        IntegrityError: it is not.
    """
    payload = line.payload()
    salt = base64.b64decode(line.salt)
    if payload is None:
        if not line.missing:
            raise IntegrityError(f"the archive's record {line.seq} of {line.agent} has no value", seq=line.seq)
        return
    found = hashlib.sha256(b"hf/pay/1\0" + salt + payload).hexdigest()
    if found != line.payload_hash or bytes.fromhex(found) not in base64.b64decode(line.header):
        raise IntegrityError(f"the archive's record {line.seq} of {line.agent} is not what was recorded", seq=line.seq)


def select(archive: Archive, wanted: Callable[[Line], bool]) -> Iterator[bytes]:
    """The lines of an archive that are wanted, oldest first, as they stand in its files."""
    for entry in archive.manifest()[0].files:
        for line, row in archive.lines(entry):
            if wanted(line):
                yield row


def _facts(lot: Sequence[Stored]) -> dict[str, Any]:
    stamps = [each.record.hlc for each in lot]
    return {
        "oldest": clock.to_iso(min(stamps)),
        "newest": clock.to_iso(max(stamps)),
        "agents": sorted({each.agent for each in lot}),
        "erased": sum(each.why == REDACTED for each in lot),
    }


def _bare(line: Line, why: str) -> Line:
    return msgspec.structs.replace(line, missing=why, salt="", blob=None, text=None, base64=None, value=msgspec.Raw())


def _is_whole(line: Line) -> bool:
    """Whether a hub may let go of this body: its value is here, and it is nothing that a log needs to be read."""
    if line.missing or line.blob is not None or not line.collection:
        return False
    prove(line)
    return True


def _refers(corpus: SqlCorpus, digest: bytes) -> bool:
    sql = "SELECT 1 FROM rec WHERE (flags & ?) <> 0 AND body IS NOT NULL AND substr(body, 1, 32)=? LIMIT 1"
    return corpus.one(sql, (BLOB, digest)) is not None
