"""The form of backups is frozen: vectors, a second reader that knows only the page, and a flip in every byte."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from holdfast import codec, records, wire
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, IntegrityError
from holdfast.integrity.backup import manifest as forms
from holdfast.integrity.backup import segment as segments
from holdfast.integrity.backup.manifest import Drill, Drilled, Manifest, Packed, PartEntry, SegmentEntry
from holdfast.integrity.backup.retention import DAY_MS, HOUR_MS, Policy
from holdfast.integrity.backup.segment import Start
from holdfast.records import Record
from holdfast.seal import Signer

GOLDEN = Path(__file__).with_name("golden_backup_v1.json")
SIGNER = Signer(bytes(range(32)))
STREAM = records.stream_id(SIGNER.public_key, "ada")
SALT = bytes(range(16))


def history() -> list[Stored]:
    """A log with all that a row can say: a value and its next version, one without a body, a batch, a gap."""
    out: list[Stored] = []
    link, stamp = records.genesis(STREAM), 1_700_000_000_000 << 16
    rows: list[tuple[int, str, int, bytes | None, int]] = [
        (1, "a", records.VALUE, b'{"n":1}', 0),
        (2, "b", records.VALUE | records.MORE, b"text " * 200, 0),
        (3, "a", records.VALUE, b'{"n":2}', 1),
        (4, "c", records.VALUE, None, 0),
        (7, "é", records.TOMBSTONE, b"{}", 0),
    ]
    for seq, key, flags, payload, prior in rows:
        stamp += 1 << 16
        salt = hashlib.sha256(bytes([seq])).digest()[:16] if payload is not None else b""
        digest = records.payload_hash(salt, payload if payload is not None else b"gone")
        base = out[prior - 1].record.link if prior else records.ZERO32
        size = len(payload) if payload is not None else 4
        record = Record(STREAM, 2, flags, seq, stamp, base, 1 + bool(prior), size, "put", "", "state", key,
                        records.ZERO16, digest)  # fmt: skip
        link = records.next_link(link, records.encode_header(record))
        record = msgspec.structs.replace(record, link=link)
        why = wire.HERE if payload is not None else wire.EVICTED
        packed = codec.pack(payload) if payload is not None else (codec.RAW, None)
        out.append(Stored(seq, 1, "ada", prior, record, salt, *packed, why))
    return out


def encoded(last: int = 7) -> bytes:
    """The segment of that history."""
    starts = {1: Start(1, STREAM, "ada", 0, records.genesis(STREAM))}
    rows = [stored for stored in history() if stored.pos <= last]
    return segments.encode(rows, (1, last), starts, {"tag": [[2, "t", 3]]}, SALT)


def signed() -> tuple[str, bytes]:
    """A manifest that names it."""
    ends = [(1, 7, history()[-1].record.link.hex())]
    entry = SegmentEntry(id="ab" * 32, size=9, first=1, last=7, records=5, ends=ends)
    part = PartEntry(kind="agent", segments=[entry], tables=Packed("cd" * 32, 5), pos=7, heads=ends, records=5)
    what = Manifest(
        format=1,
        repository="0011223344556677",
        made_ms=1_700_000_000_123,
        previous="",
        parts=[part],
        documents=Packed("ef" * 32, 3),
    )
    return forms.sign(what, SIGNER)


def plain(stored: Stored) -> dict[str, Any]:
    """A record as the vectors say it."""
    record = stored.record
    body = None if stored.body is None else codec.unpack(stored.codec, stored.body, record.payload_len).hex()
    return {"pos": stored.pos, "link": record.link.hex(), "header": records.encode_header(record).hex(), "body": body}


def inflated(data: bytes) -> bytes:
    """What a zstd frame holds, by the library itself."""
    out: bytes = zstandard.ZstdDecompressor().decompress(data)
    return out


def test_the_vectors_are_read_and_written_as_they_were() -> None:
    golden = json.loads(GOLDEN.read_text())
    found = segments.decode(bytes.fromhex(golden["segment"]))
    assert [plain(stored) for stored in found.records] == golden["records"]
    assert [plain(stored) for stored in history()] == golden["records"]
    assert found.beside == {"tag": [[2, "t", 3]]}
    # How it is compressed is the library's business; what is compressed is not.
    assert inflated(encoded()[9:]) == inflated(bytes.fromhex(golden["segment"])[9:])
    name, data = golden["name"], bytes.fromhex(golden["manifest"])
    read = forms.read(Manifest, name, data, [SIGNER.public_key])
    assert json.loads(msgspec.json.encode(read)) == golden["backup"]
    assert inflated(signed()[1][105:]) == inflated(data[105:])


def test_a_second_reader_that_knows_only_the_page_reads_the_same() -> None:
    golden = json.loads(GOLDEN.read_text())
    content = bytes.fromhex(golden["segment"])
    assert content[:9] == b"hf/seg/1\0"
    salt, first, last, starts, rows, _ = msgspec.msgpack.decode(inflated(content[9:]))
    assert (salt, first, last) == (SALT, 1, 7)
    ends = {branch: (seq, link) for branch, _, _, seq, link in starts}
    streams = {branch: stream for branch, stream, *_ in starts}
    links: dict[int, bytes] = {}
    pos = hlc = 0
    for row, said in zip(rows, golden["records"], strict=True):
        dpos, branch, seq, dhlc, author, kind, coll, key, fmt, flags, version, prior, base, kid, size, digest = row[:16]
        salted, payload, _, link = row[16:]
        pos, hlc = pos + dpos, hlc + dhlc
        if payload is not None:
            size, digest = len(payload), hashlib.sha256(b"hf/pay/1\0" + salted + payload).digest()
        before, prev = ends[branch]
        number = before + 1 if seq is None else seq
        if base is None:
            base = links.get(prior, bytes(32))
        header = b"hf/rec/1\0" + streams[branch] + bytes([fmt, flags]) + number.to_bytes(8) + hlc.to_bytes(8)
        header += base + version.to_bytes(8) + size.to_bytes(8)
        for width, text in ((1, kind), (2, author), (2, coll), (2, key)):
            header += len(text.encode()).to_bytes(width) + text.encode()
        header += (kid or bytes(16)) + digest
        if link is None:
            link = hashlib.sha256(b"hf/link/1\0" + prev + hashlib.sha256(header).digest()).digest()
        ends[branch], links[pos] = (number, link), link
        assert {"pos": pos, "link": link.hex(), "header": header.hex(), "body": payload and payload.hex()} == said
    data = bytes.fromhex(golden["manifest"])
    assert golden["name"] == f"1700000000123-{hashlib.sha256(data).hexdigest()[:24]}"
    message = b"hf/bak/1\0" + hashlib.sha256(data[105:]).digest()
    Ed25519PublicKey.from_public_bytes(data[9:41]).verify(data[41:105], message)
    assert json.loads(inflated(data[105:])) == golden["backup"]


def test_a_flip_in_any_byte_of_a_manifest_or_drill_is_refused() -> None:
    drill = Drill(format=1, repository="00", made_ms=5, backups=[Drilled(backup="x", ok=True)])
    for kind, (name, data) in ((Manifest, signed()), (Drill, forms.sign(drill, SIGNER))):
        for at in range(len(data)):
            broken = bytearray(data)
            broken[at] ^= 1 << at % 8
            with pytest.raises(IntegrityError):
                forms.read(kind, name, bytes(broken), [SIGNER.public_key])
            # Also by somebody who names it by what it has become: he has not the key.
            renamed = f"{name[:14]}{hashlib.sha256(broken).hexdigest()[:24]}"
            with pytest.raises(IntegrityError):
                forms.read(kind, renamed, bytes(broken), [SIGNER.public_key])
        with pytest.raises(IntegrityError, match="not the repository's key"):
            forms.read(kind, name, data, [bytes(32)])
        with pytest.raises(IntegrityError):
            forms.read(kind, "9" + name[1:], data, [SIGNER.public_key])


def test_a_flip_in_any_byte_of_a_segments_content_is_an_error_or_changes_its_end() -> None:
    """Its name shows a flip long before; but what is taken apart must never pass as the chain that was signed."""
    data = encoded(4)
    wanted = [(stored.record, stored.body) for stored in segments.decode(data).records]
    end = {1: wire.Mark(4, history()[3].record.link)}
    ended = 0
    inner = inflated(data[9:])
    for at in range(len(data) + len(inner)):
        broken = bytearray(data if at < len(data) else inner)
        where = at if at < len(data) else at - len(data)
        broken[where] ^= 1 << at % 8
        content = bytes(broken) if at < len(data) else data[:9] + zstandard.ZstdCompressor().compress(bytes(broken))
        try:
            found = segments.decode(content)
        except IntegrityError:
            continue
        except HoldfastError as error:
            pytest.fail(f"byte {at}: {error!r}")
        if found.ends == end:
            ended += 1
            assert [(stored.record, stored.body) for stored in found.records] == wanted, at
    assert ended < 100  # of the segment's salt, of where rows lie, and of what stands beside


def test_an_erased_payload_leaves_its_record_and_takes_what_was_made_of_it() -> None:
    found = segments.decode(encoded())
    gone = found.records[2].record.link
    kept, beside, number = segments.without(found, [gone])
    assert number == 1
    assert (kept[2].body, kept[2].salt, kept[2].why) == (None, b"", wire.REDACTED)
    assert [stored.record for stored in kept] == [stored.record for stored in found.records]
    assert beside == {"tag": []}
    again = segments.encode(kept, (1, 7), found.starts, beside, SALT)
    assert b'{"n":2}' not in inflated(again[9:])
    assert segments.decode(again).ends == found.ends


def test_a_policy_keeps_the_newest_of_each_slot() -> None:
    now = 1_700_000_000_000
    hours = [now - number * HOUR_MS for number in range(24 * 40)]
    assert Policy(last=3).keeps(hours, now) == set(hours[:3])
    assert Policy(within_ms=DAY_MS).keeps(hours, now) == set(hours[:25])
    daily = sorted(Policy(daily=5).keeps(hours, now), reverse=True)
    assert daily[0] == now
    assert len({ms // DAY_MS for ms in daily}) == len(daily) == 5
    assert all(ms + HOUR_MS > (ms // DAY_MS + 1) * DAY_MS for ms in daily[1:])  # the newest of its day
    assert len(Policy(weekly=4).keeps(hours, now)) == 4
    assert len(Policy(monthly=9).keeps(hours, now)) == 2
    assert Policy(last=1, daily=5).keeps(hours, now) == set(daily)
