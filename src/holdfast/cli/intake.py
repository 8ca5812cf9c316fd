"""What import writes: batches in one commit each, and nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.cli import exports
from holdfast.cli.transcripts import Bad, Other, Reader, Said, recognise
from holdfast.collections import sessions
from holdfast.collections.metrics import METRIC
from holdfast.corpus import Corpus, Filter
from holdfast.errors import Conflict, UsageError
from holdfast.log import Draft, load, message, remove, value
from holdfast.log.drafts import MESSAGES
from holdfast.log.marks import METRICS, SESSIONS
from holdfast.node.store import Store
from holdfast.records import DELETE_PREFIX, INLINE_BYTES_MAX
from holdfast.wire import RECORDS_MAX, SEGMENT_BYTES_MAX

ENDINGS: Final = (".json", ".jsonl", ".ndjson")
_KINDS: Final = {
    SESSIONS: (sessions.SESSION, sessions.STATE, sessions.MESSAGE, sessions.ARTIFACT, sessions.CONTENT),
    METRICS: (METRIC,),
}
_ATTEMPTS: Final = 5
_ALL: Final = 1 << 31
_LOOK_BYTES: Final = 4 << 20


class Source(msgspec.Struct, frozen=True):
    """One file to import: where it is, what threads are named after, and how it is read (None: our own export)."""

    path: Path
    name: str
    format: str
    reader: Reader | None


class Tally(msgspec.Struct):
    """What an import has done so far."""

    files: int = 0
    skipped: int = 0
    """Files of a folder that hold no conversation."""
    new: int = 0
    already: int = 0
    others: int = 0
    """Lines that are in order and are no messages."""
    bad: int = 0
    conflicts: int = 0
    threads: set[str] = set()


def sources(paths: Iterable[Path]) -> Iterator[Source | Path]:
    """The files to import, in a steady order; a path by itself is a file of a folder with nothing to read in it.

    Raises:
        UsageError: a file that was named holds no conversation, or is not there.
    """
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
            if not files:
                raise UsageError(f"no conversations below {path}", hint=f"it looks for {', '.join(ENDINGS)}")
            for file in files:
                # Below a folder the path is part of a name, or two chats of one name would become one.
                yield _source(file, file.relative_to(path).with_suffix("").as_posix()) or file
        elif path.exists():
            found = _source(path, path.stem)
            if found is None:
                hint = "it reads OpenAI-style chats, Claude Code and Codex sessions, and holdfast export"
                raise UsageError(f"{path} holds no conversation that is known here", hint=hint)
            yield found
        else:
            raise UsageError(f"no such file or folder: {path}", hint="holdfast import --help has examples")


def _source(path: Path, name: str) -> Source | None:
    with path.open("rb") as file:
        start = file.read(_LOOK_BYTES)
    if exports.is_export(start):
        return Source(path, name, "holdfast", None)
    known = recognise(start)
    return known and Source(path, name, *known)


class Intake:
    """Writes what was read into a store.

    Args:
        store: whose log it goes into.
        tally: counts it.
        dry_run: count, and write nothing.
        redact: take obvious secrets out of what was said.
    """

    def __init__(self, store: Store, tally: Tally, *, dry_run: bool = False, redact: bool = False) -> None:
        self._redact = redact
        self._store = store
        self._dry_run = dry_run
        self._tally = tally
        self._drafts: list[Draft] = []
        self._waiting: set[str] = set()
        self._size = 0

    def say(self, said: Said, source: str) -> None:
        """Takes one message; it is written with its batch, unless it is there already, or was there and was deleted."""
        self._tally.threads.add(said.thread)
        if said.id in self._waiting or self._known(said.id):
            self._tally.already += 1
            return
        envelope = said.envelope(source)
        if self._redact:
            from holdfast.node.secrets import redact_secrets

            envelope = redact_secrets(MESSAGES, said.id, envelope)
        self.add(message(envelope, msg_id=said.id, kind=said.kind))

    def flush(self) -> None:
        """Writes the batch that has gathered, in one commit."""
        drafts, self._drafts, self._size = self._drafts, [], 0
        self._waiting.clear()
        for _ in range(_ATTEMPTS):
            if not drafts:
                return
            try:
                if not self._dry_run:
                    with self._store.batch() as batch:
                        for draft in drafts:
                            batch.take(draft)
                self._tally.new += len(drafts)
                return
            except Conflict:
                # Somebody else imports the same right now: leave out what they wrote, and try again.
                fresh = [draft for draft in drafts if draft.collection != MESSAGES or not self._known(draft.key)]
                self._tally.already += len(drafts) - len(fresh)
                drafts = fresh
        raise Conflict("somebody keeps writing the same messages", hint="run the import again when they are done")

    def add(self, draft: Draft) -> None:
        """Takes one draft; writes the batch before it if both together would be too much."""
        size = min(len(draft.payload), INLINE_BYTES_MAX)
        if self._drafts and (len(self._drafts) >= RECORDS_MAX or self._size + size > SEGMENT_BYTES_MAX):
            self.flush()
        self._drafts.append(draft)
        self._waiting.add(draft.key)
        self._size += size

    def _known(self, msg_id: str) -> bool:
        return bool(self._store.history(msg_id, collection=MESSAGES, limit=1))


def conversation(source: Source, data: bytes, intake: Intake, tally: Tally) -> Iterator[int | Bad]:
    """Takes in one transcript; yields the line it stands at, and each bad line."""
    assert source.reader is not None
    for found in source.reader(data, source.name):
        if isinstance(found, Bad):
            yield found
        elif isinstance(found, Other):
            tally.others += 1
        else:
            try:
                intake.say(found, f"{source.format}:{source.path.name}")
            except UsageError as error:
                yield Bad(found.line, error.message)
            yield found.line


class Restore:
    """Writes an export's versions into a log: of each key those that it does not have yet, in their order.

    A key whose versions here are others than the export's is left as it is, and reported.
    """

    def __init__(self, store: Store, corpus: Corpus, intake: Intake, tally: Tally) -> None:
        self._store = store
        self._corpus = corpus
        self._intake = intake
        self._tally = tally
        self._read: Counter[tuple[str, str, bool]] = Counter()
        self._here: dict[tuple[str, str, bool], list[tuple[bool, Any]] | None] = {}

    def take(self, entry: exports.Entry) -> Bad | None:
        """Takes one version; says why if it cannot."""
        if entry.missing:
            self._tally.others += 1
            return None
        key = (entry.collection, entry.key, entry.prefix)
        if key not in self._here:
            self._here[key] = self._versions(entry)
        have, number = self._here[key], self._read[key]
        self._read[key] += 1
        if have is None:
            return None
        if number < len(have):
            if have[number] == (entry.gone, entry.value):
                self._tally.already += 1
                return None
            self._here[key] = None
            self._tally.conflicts += 1
            return Bad(entry.line, f"{entry.collection}/{entry.key} has another v{number + 1} here: left as it is")
        try:
            self._intake.add(_draft(entry))
        except UsageError as error:
            self._here[key] = None
            return Bad(entry.line, error.message)
        return None

    def _versions(self, entry: exports.Entry) -> list[tuple[bool, Any]]:
        if entry.prefix:
            which = Filter(collection=entry.collection, key=entry.key, kinds=(DELETE_PREFIX,), newest_first=False)
            found = self._corpus.page(msgspec.structs.replace(which, limit=_ALL))
            return [(True, load(stored, None)) for stored in found]
        # A deletion by prefix counts as a version of every key below it, here; in the export it stands once.
        versions = self._store.history(entry.key, collection=entry.collection, limit=_ALL)
        return [(v.gone, v.value) for v in reversed(versions) if v.kind != DELETE_PREFIX]


def _draft(entry: exports.Entry) -> Draft:
    if entry.gone:
        reason = entry.value.get("reason", "") if isinstance(entry.value, dict) else ""
        return remove(entry.collection, entry.key, reason=reason, prefix=entry.prefix)
    if entry.collection == MESSAGES and isinstance(entry.value, dict):
        return message(entry.value, msg_id=entry.key, kind=entry.kind)
    made = value(entry.collection, entry.key, entry.value)
    # A session, or a message in it, is what it is by its kind; a hub finds it by that.
    return msgspec.structs.replace(made, kind=entry.kind) if entry.kind in _KINDS.get(entry.collection, ()) else made
