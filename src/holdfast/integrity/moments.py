"""Takes a log's values back to an earlier moment: by writing them again, never by taking history away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from holdfast import clock, codec
from holdfast.corpus import Stored
from holdfast.errors import IntegrityError, NotFound
from holdfast.integrity.mending import RECOVERY, written_again
from holdfast.integrity.recovery import TIMESTAMP_ROLLBACK
from holdfast.integrity.scan import verify_corpus
from holdfast.log.drafts import MESSAGES, Draft, remove
from holdfast.log.log import Log

_STATE: Final = (
    "SELECT c.s, st.key, st.pos, st.gone FROM state st JOIN name c ON c.id=st.coll WHERE c.s<>? ORDER BY c.s, st.key"
)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was otherwise then: its version now and then, by number (0: it had no value)."""

    collection: str
    key: str
    now: int
    then: int
    stored: Stored | None = None
    base: bytes = b""

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {"collection": self.collection, "key": self.key, "now": self.now, "then": self.then}


def changes(log: Log, moment: int) -> list[Change]:
    """What would have to be written to have the values of `moment` (a stamp) again; messages stay as they are.

    Raises:
        IntegrityError: the log is not sound; repair it first.
    """
    found = verify_corpus(log.corpus)
    if not found.sound:
        raise IntegrityError(f"the log is not sound: {found.findings[0]}", hint="holdfast repair, then try again")
    return list(_changes(log, moment))


def _changes(log: Log, moment: int) -> Iterator[Change]:
    for collection, key, pos, gone in log.corpus.query(_STATE, (MESSAGES,)):
        newest = log.corpus.at(pos)
        try:
            then: Stored | None = log.as_of(collection, key, stamp=moment)
        except NotFound:
            then = None
        if newest is None or (then is None and gone) or (then is not None and then.pos == pos and not gone):
            continue
        yield Change(
            collection=collection,
            key=key,
            now=0 if gone else newest.record.key_version,
            then=then.record.key_version if then else 0,
            stored=then,
            base=newest.record.link,
        )


def take_back(log: Log, moment: int, wanted: Sequence[Change], evidence: dict[str, Any]) -> int:
    """Writes the values of an earlier moment again, behind a record that says why; returns how many keys.

    Raises:
        Conflict: a key was written since `changes` looked; nothing of it was changed, and of the keys before it all.
        IntegrityError: a value of then cannot be read; nothing was written.
    """
    drafts = [_draft(change, moment) for change in wanted]
    told = {**evidence, "strategy": TIMESTAMP_ROLLBACK, "moment": clock.to_iso(moment), "keys": len(drafts)}
    log.append([Draft(RECOVERY, "", "", *codec.serialise(told), flags=0)])
    for draft in drafts:
        log.append([draft])
    return len(drafts)


def side_state(wanted: Sequence[Change]) -> bytes:
    """What would be written, one JSON object a line, for whoever confirms it."""
    return b"".join(msgspec.json.encode(change.to_json()) + b"\n" for change in wanted)


def _draft(change: Change, moment: int) -> Draft:
    if change.stored is None:
        reason = f"taken back to {clock.to_iso(moment)}"
        return remove(change.collection, change.key, reason=reason, expect=change.now)
    return written_again(change.stored, change.key, expect=change.now, base=change.base)
