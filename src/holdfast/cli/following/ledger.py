"""What the log holds of the files that are followed. Nothing else remembers how far a file was read.

Three kinds of keys in the collection `transcripts`, for a file that is known by `fid` (the messages of a session in a
database have keys of their own, see `holdfast.cli.following.rows`):

    head/<fid>                                          how far it was read, and what its content consists of
    raw/<fid>/<generation>/<start>-<size>-<lines>-<digest>   some of its bytes, which never change
    of/<group>/<fid>                                    that it belongs to a session

A file's content is made of spans: from `begin` on, the chunks of one generation, up to where the next span begins. What
is appended goes into the last generation. A file that was written anew begins a generation where it first differs, so
what was there before stays, and what both have in common is kept once. Each write expects the head that it has read, so
of two who follow one file the second looks again, and nothing is there twice.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast.cli.transcripts.tools import digest
from holdfast.corpus.search import WORDS
from holdfast.errors import IntegrityError, NotFound
from holdfast.log import Draft, value
from holdfast.node.hub import Hub
from holdfast.node.store import Store
from holdfast.records import INLINE_BYTES_MAX, blob_reference, payload_hash

TRANSCRIPTS: Final = "transcripts"
CHUNK_BYTES: Final = 60 << 10
"""A chunk of several lines stays below what a record holds inline."""
SPANS_MAX: Final = 500
RECORDS_MAX: Final = 400
BATCH_BYTES: Final = 600 << 10
"""So much is written at once, beside a lot's chunks and its head."""
_PAGE: Final = 50


class Head(msgspec.Struct, omit_defaults=True, kw_only=True):
    """How a file stands in the log.

    Attributes:
        tool, root, path, kind: which file it is.
        session: the tool's session that it belongs to.
        group: what this machine's files of that session have in common.
        conversation: the id under which it is told, empty for what is only kept.
        parent: the tool's session that it was begun by.
        spans: (generation, where it begins), by where they begin.
        end: how many of the file's bytes were read.
        tail: how many of them are a last line that has no end yet.
        lines: how many lines have ended.
        size, mtime_ns: of the file, when all of it was certainly read; 0 while it may still change unseen.
        first, last, title, folder: what is shown of a conversation.
        said, copied, bad: messages told here, those that another session told before, lines that could not be read.
        why: the last of these, as (line, why).
        first_said: what the first message is known by.
        before: conversations that begin with the same message, and may have told others of it.
        form: of a session from a database, the version of its form.
        mark: what its shape was when all of it was kept; empty while something waits.
        gone: whether its tool has deleted it.
    """

    tool: str
    root: str
    path: str
    kind: str
    session: str = ""
    group: str = ""
    conversation: str = ""
    parent: str = ""
    spans: list[tuple[int, int]] = []
    end: int = 0
    tail: int = 0
    lines: int = 0
    size: int = 0
    mtime_ns: int = 0
    first: str = ""
    last: str = ""
    title: str = ""
    folder: str = ""
    said: int = 0
    copied: int = 0
    bad: int = 0
    why: list[tuple[int, str]] = []
    first_said: str = ""
    before: list[str] = []
    form: int = 0
    mark: str = ""
    gone: bool = False

    @property
    def generation(self) -> int:
        """The one that is written to."""
        return self.spans[-1][0]

    def cut(self, at: int, lines: int) -> Head:
        """The head of a file that is another from there on."""
        spans = [span for span in self.spans if span[1] < at]
        following = max((number for number, _ in self.spans), default=0) + 1
        return msgspec.structs.replace(self, spans=[*spans, (following, at)], end=at, tail=0, lines=lines)


class Chunk(msgspec.Struct, frozen=True):
    """Some bytes of a file: its lines from `start` on, `size` bytes of the file, kept under `key`."""

    key: str
    start: int
    size: int
    lines: int
    digest: str


def digest_of(data: bytes) -> str:
    """What a chunk's bytes are known by, as they are kept."""
    return hashlib.sha256(data).hexdigest()[:32]


def chunk_draft(fid: str, head: Head, start: int, size: int, kept: Sequence[bytes], *, lines: int) -> Draft:
    """A draft of a chunk.

    Args:
        fid: the file.
        head: it is written into this one's generation.
        start, size: the bytes of the file that it stands for.
        kept: the bytes that are kept of them.
        lines: how many lines end in it.
    """
    data = b"".join(kept)
    name = f"{start:015}-{size}-{lines}-{digest_of(data)}"
    return value(TRANSCRIPTS, f"raw/{fid}/{head.generation:06}/{name}", data, expect=0)


class Ledger:
    """The files that an agent's log holds, here or through the hub.

    Args:
        place: what is asked: a store, or a hub.
        agent: whose; None: the store's own, and only those are written.
    """

    def __init__(self, place: Store | Hub, agent: str | None = None) -> None:
        self._place: Any = place  # both are asked with the same words
        self.agent = None if isinstance(place, Store) and agent == place.agent else agent

    @property
    def store(self) -> Store:
        """The store that is written to."""
        store: Store = self._place
        return store

    @functools.cached_property
    def _stream(self) -> str:
        # One agent's name may be in use on several machines, each with a stream of its own.
        stream: bytes = self.store._opened.log.branch.stream
        return stream.hex()

    def fid(self, tool: str, known_by: str) -> str:
        """What a file of this machine is known by."""
        return digest(self._stream, tool, known_by)

    def group(self, tool: str, session: str) -> str:
        """What this machine's files of a tool's session have in common."""
        return digest("group", self._stream, tool, session)

    def head(self, fid: str, at: Any = None) -> tuple[Head, int] | None:
        """A file's head and its version; None if nothing is known of it.

        Args:
            fid: the file.
            at: a time, or a version: as it stood then.
        """
        key = f"head/{fid}"
        if at is not None:
            try:
                return _head(self.get(key, at)), 0
            except NotFound:
                return None
        found = self._place.history(key, agent=self.agent, collection=TRANSCRIPTS, limit=1)
        if not found or found[0].gone:
            return None
        return _head(found[0].value), found[0].version

    def files(self, prefix: str = "head/") -> Iterator[str]:
        """The files that are known, or (`of/<group>/`) those of a session."""
        after = ""
        while True:
            keys = self.keys(prefix, after, _PAGE)
            for key in keys:
                yield key.rpartition("/")[2]
            if len(keys) < _PAGE:
                return
            after = keys[-1]

    def keys(self, prefix: str, after: str, limit: int) -> list[str]:
        """Keys that begin so and have a value, in order, behind `after`."""
        found: list[str] = self._place.keys(prefix, agent=self.agent, collection=TRANSCRIPTS, after=after, limit=limit)
        return found

    def get(self, key: str, at: Any = None) -> Any:
        """A key's value, now or at a time.

        Raises:
            NotFound: there is none.
        """
        return self._place.get(key, agent=self.agent, at=at, collection=TRANSCRIPTS)

    def same(self, key: str, data: bytes) -> tuple[bool, int]:
        """Whether a key's value is this, and its version (0: it has none); asks for no body, which may not be here."""
        store = self.store
        if TRANSCRIPTS in store._sealed:
            found = store.history(key, collection=TRANSCRIPTS, limit=1)
            return (bool(found) and found[0].value == data, found[0].version) if found else (False, 0)
        stored = store._log.newest(TRANSCRIPTS, key)
        if stored is None:
            return False, 0
        long = len(data) > INLINE_BYTES_MAX
        payload = blob_reference(hashlib.sha256(data).digest(), len(data)) if long else data
        return payload_hash(stored.salt, payload) == stored.record.payload_hash, stored.record.key_version

    def chunks(self, fid: str, head: Head) -> Iterator[Chunk]:
        """What a file's content is made of, in order, without its bytes."""
        for number, (generation, begin) in enumerate(head.spans):
            until = head.spans[number + 1][1] if number + 1 < len(head.spans) else head.end
            prefix = f"raw/{fid}/{generation:06}/"
            after = f"{prefix}{begin:015}"
            while after:
                keys = self.keys(prefix, after, _PAGE)
                after = keys[-1] if len(keys) == _PAGE else ""
                for key in keys:
                    start, size, lines, known = key[len(prefix) :].split("-")
                    if int(start) >= until:
                        after = ""
                        break
                    yield Chunk(key, int(start), int(size), int(lines), known)

    def content(self, fid: str, head: Head) -> Iterator[bytes]:
        """A file's content, as it was kept.

        Raises:
            IntegrityError: some of it is missing, or is not what was kept.
        """
        at = 0
        for chunk in self.chunks(fid, head):
            data = self.get(chunk.key)
            if chunk.start != at or not isinstance(data, bytes) or digest_of(data) != chunk.digest:
                break
            yield data
            at += chunk.size
        if at != head.end:
            raise IntegrityError(f"{head.path} is not whole: its bytes from {at:,} on are gone", hint="holdfast scan")

    def write(self, drafts: Sequence[Draft], *, last: Sequence[Draft]) -> list[int]:
        """Writes drafts, in several commits if they are many, and with the last of them what makes them count.

        Returns:
            The versions of `last`.

        Raises:
            Conflict: somebody else wrote one of them first.
        """
        lot: list[Draft] = []
        size = 0
        for draft in drafts:
            if lot and (len(lot) >= RECORDS_MAX or size + len(draft.payload) > BATCH_BYTES):
                self._commit(lot)
                lot, size = [], 0
            lot.append(draft)
            size += len(draft.payload)
        return self._commit([*lot, *last])[len(lot) :]

    def _commit(self, drafts: Sequence[Draft]) -> list[int]:
        with self.store.batch() as batch:
            for draft in drafts:
                batch.take(draft)
        return [made.version for made in batch.versions]


def head_draft(fid: str, head: Head, version: int) -> Draft:
    """A draft of a head; a search does not find it, as it says nothing."""
    return value(TRANSCRIPTS, f"head/{fid}", {**msgspec.to_builtins(head), WORDS: ""}, expect=version)


def member_draft(fid: str, head: Head) -> Draft:
    """A draft that says to which session a file belongs."""
    content = {"path": head.path, "kind": head.kind, WORDS: ""}
    return value(TRANSCRIPTS, f"of/{head.group}/{fid}", content)


def _head(content: Any) -> Head:
    return msgspec.convert(content, Head)
