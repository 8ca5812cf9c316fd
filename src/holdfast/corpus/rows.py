"""How a record lies in a row, and comes back out of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast import codec, wire
from holdfast.errors import Erased, IntegrityError, NotCached
from holdfast.records import BLOB, TOMBSTONE, ZERO16, ZERO32, Record, encode_header, verify_payload

COLUMNS: Final = (
    "r.pos, r.branch, r.seq, r.hlc, r.agent, r.author, r.kind, r.coll, r.key, r.fmt, r.flags, r.version, r.prior,"
    " r.base, r.kid, r.plen, r.phash, r.salt, r.link, r.codec, r.why, r.body"
)
ARCHIVED: Final = 4
"""Why a hub's row has no body, in the row alone: an archive holds it, and whoever reads the row gets it from there."""
INSERT: Final = f"INSERT INTO rec({COLUMNS.replace('r.', '')}) VALUES({','.join('?' * 22)})"
INSERT_OWN: Final = f"INSERT INTO rec({COLUMNS.replace('r.', '')}, back) VALUES({','.join('?' * 23)})"
"""The same in an agent's own file, where each record says which message came before it."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A record where it lies: its header, and the bytes behind it as they are stored.

    `pos` is the file's commit order; `agent` whose log it is in (`record.author` is who wrote it through a hub);
    `prior` the position of the version it replaces (0: none); `body` None when the bytes are elsewhere or gone, and
    `why` says which.
    """

    pos: int
    branch: int
    agent: str
    prior: int
    record: Record
    salt: bytes
    codec: int
    body: bytes | None
    why: int = wire.HERE

    @property
    def gone(self) -> bool:
        """Whether this version says that its key has no value."""
        return bool(self.record.flags & TOMBSTONE)

    @property
    def is_blob(self) -> bool:
        """Whether the payload is a reference to bytes kept outside the log."""
        return bool(self.record.flags & BLOB)

    def payload(self) -> bytes:
        """The payload, proven to be what was recorded.

        Raises:
            Erased: erased.
            IntegrityError: damaged or quarantined.
            NotCached: evicted; the hub holds it.
        """
        record = self.record
        if self.body is None:
            where = f"{record.collection}/{record.key} seq {record.seq} of {self.agent}"
            if self.why == wire.EVICTED:
                raise NotCached(f"{where} was evicted from this node", hint="reach the hub and ask again")
            if self.why == wire.REDACTED:
                raise Erased(f"{where} was erased", hint="its history still proves itself", seq=record.seq)
            what = "is quarantined" if self.why == wire.QUARANTINED else "has lost its body"
            raise IntegrityError(f"{where} {what}", seq=record.seq)
        payload = codec.unpack(self.codec, self.body, record.payload_len)
        verify_payload(record, self.salt, payload)
        return payload

    def item(self) -> wire.Item:
        """The record as it travels."""
        return wire.Item(encode_header(self.record), self.salt, self.codec, self.body, self.why)


def behind(prefix: str) -> str | bytes:
    """The first value in SQLite's order behind every text that starts with `prefix`."""
    while prefix:
        last = ord(prefix[-1])
        if last < 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)  # surrogates are no characters
        prefix = prefix[:-1]
    return b""  # any blob is behind any text


def within(column: str, prefix: str) -> tuple[str, tuple[Any, ...]]:
    """The test, and its values, of a text that starts with `prefix`."""
    end = behind(prefix)
    # A blob is behind any text to SQLite alone, so nothing bounds what nothing can be behind.
    return (f"{column}>=? AND {column}<?", (prefix, end)) if end else (f"{column}>=?", (prefix,))


def named(column: str, names: Sequence[str], plain: str = "") -> str:
    """The test of a column that holds one of these interned names; `plain`: a plus where its index is not to serve."""
    if len(names) == 1:  # an equality keeps the order of the index behind it
        return f"{plain}{column}=(SELECT id FROM name WHERE s=?)"
    return f"{plain}{column} IN (SELECT id FROM name WHERE s IN ({','.join('?' * len(names))}))"


def bind(pos: int, branch: int, prior: int, ids: tuple[int, int, int, int], record: Record, rest: Any) -> Any:
    """The values for `INSERT`; `ids` are agent, author, kind and collection, `rest` an `Item`-like's stored part."""
    agent, author, kind, coll = ids
    return (
        pos,
        branch,
        record.seq,
        record.hlc,
        agent,
        author,
        kind,
        coll,
        record.key,
        record.fmt,
        record.flags,
        record.key_version,
        prior,
        None if record.base == ZERO32 else record.base,
        None if record.kid == ZERO16 else record.kid,
        record.payload_len,
        record.payload_hash,
        rest.salt,
        record.link,
        rest.codec,
        rest.why,
        rest.body,
    )


def unbind(row: tuple[Any, ...], names: Any, streams: Any) -> Stored:
    """The record in a row of `COLUMNS`.

    Args:
        row: the values.
        names: finds the text of an interned name by its id.
        streams: finds the 16-byte stream of a branch by its id.

    Raises:
        IntegrityError: these are not a record's values: a page of another table lies where this one's should.
    """
    # fmt: off
    (pos, branch, seq, hlc, agent, author, kind, coll, key, fmt, flags, version, prior,
     base, kid, plen, phash, salt, link, codec_id, why, body) = row
    # fmt: on
    # STRICT holds for what is written. Page checksums do not know where a page belongs, so a misdirected one is read;
    # the columns are those without which a record could not be handled (0.3 µs).
    if not (
        type(seq) is type(hlc) is type(flags) is type(version) is type(prior) is type(plen) is type(codec_id) is int
        and type(key) is str
        and type(phash) is type(salt) is type(link) is bytes
        and (body is None or type(body) is bytes)
    ):
        raise IntegrityError(f"what lies at position {pos} is not a record", hint="holdfast verify")
    record = Record(
        streams(branch),
        fmt,
        flags,
        seq,
        hlc,
        base or ZERO32,
        version,
        plen,
        names(kind),
        names(author),
        names(coll),
        key,
        kid or ZERO16,
        phash,
        link,
    )
    return Stored(pos, branch, names(agent), prior, record, salt, codec_id, body, why)
