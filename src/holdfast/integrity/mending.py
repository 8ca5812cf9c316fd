"""What is put right beside the log itself: blobs, values that nobody has any more, and the evidence in the log."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.corpus import Stored
from holdfast.errors import HoldfastError, NodeFull
from holdfast.integrity import incidents
from holdfast.integrity.checks import Finding
from holdfast.integrity.recovery import MANUAL, VERSION_ROLLBACK, Plan, Policy, Refusal, Step, strategy_for
from holdfast.integrity.recovery_log import Ground
from holdfast.integrity.scan import BLOB
from holdfast.integrity.source import Source
from holdfast.log.drafts import Draft
from holdfast.log.log import Log
from holdfast.objects import BlobFiles
from holdfast.records import BLOB as IS_BLOB
from holdfast.records import SEALED, TOMBSTONE, VALUE
from holdfast.wire import QUARANTINED

RECOVERY: Final = "recovery"
RESTORE: Final = "restore"
Wrong = dict[bytes, tuple[int, list[tuple[str, int]]]]
"""Digest -> its size, and the records (agent, seq) that refer to it."""


def blob_steps(wrong: Wrong, ground: Ground, files: BlobFiles, policy: Policy, plan: Plan) -> None:
    """Adds to a plan what the blobs need that are missing or rotten, and who has them."""
    bare = 0
    for digest, (size, who) in wrong.items():
        agent, seq = who[0]
        actual = "its bytes are others" if files.has(digest) else "not there"
        source = _holder(ground, digest, size, plan)
        lost = "" if source else f"the {size} bytes that {len(who)} records refer to"
        bare += source is None
        plan.findings.append(Finding(BLOB, agent, seq, f"the blob {digest.hex()} is {actual}"))
        plan.steps.append(
            Step(
                agent=agent,
                part="blob",
                check=BLOB,
                strategy=strategy_for(source.kind) if source else VERSION_ROLLBACK,
                first=seq,
                last=seq,
                source=source.name if source else "",
                records=len(who),
                expected=digest.hex(),
                actual=actual,
                lost=lost,
            )
        )
    if bare and not policy.rollback:
        what = f"nobody has {bare} of the blobs that records refer to"
        hint = "connect the hub, or name a backup; holdfast repair --rollback gives them up"
        plan.refusals.append(Refusal("loses a value", what, hint))


def _holder(ground: Ground, digest: bytes, size: int, plan: Plan) -> Source | None:
    for source in ground.sources:
        try:
            if source.blob(digest, size) is not None:
                return source
        except (HoldfastError, OSError) as error:
            plan.away[source.name] = str(error)
    return None


def bring_blobs(
    wrong: Wrong, ground: Ground, files: BlobFiles, home: Path
) -> tuple[list[dict[str, Any]], dict[bytes, list[tuple[str, int]]]]:
    """Fetches blobs from whoever has them, each proven by its digest; a rotten one is kept in quarantine.

    Returns:
        The evidence, a line for each blob; and those that nobody has, with the records that refer to them.
    """
    lines: list[dict[str, Any]] = []
    gone: dict[bytes, list[tuple[str, int]]] = {}
    for digest, (size, who) in wrong.items():
        begun = time.perf_counter()
        line: dict[str, Any] = {"part": "blob", "expected": digest.hex(), "size": size, "records": who[:50]}
        tried: dict[str, str] = {}
        if files.has(digest):
            try:
                line["incident"] = incidents.freeze(home / "blobs", {"blob": digest.hex()}, [files.path(digest)]).name
            except NodeFull as error:
                lines.append({**line, "outcome": "refused", "error": str(error)})
                gone[digest] = []
                continue
        source = _bring(ground, digest, size, files, tried)
        line |= {
            "outcome": "repaired" if source else "nobody has it",
            "strategy": strategy_for(source.kind) if source else MANUAL,
            "source": source.name if source else "",
            "tried": tried,
            "seconds": round(time.perf_counter() - begun, 3),
            "tool": incidents.tool(),
        }
        lines.append(line)
        if source is None:
            gone[digest] = who
    return lines, gone


def _bring(ground: Ground, digest: bytes, size: int, files: BlobFiles, tried: dict[str, str]) -> Source | None:
    for source in ground.sources:
        try:
            pieces = source.blob(digest, size)
            if pieces is None:
                tried[source.name] = "does not have it"
                continue
            files.put(pieces, expect=digest)
            return source
        except (HoldfastError, OSError) as error:
            tried[source.name] = str(error)
    return None


def note_recovery(log: Log, evidence: dict[str, Any], lost: Sequence[int], gone: Sequence[int]) -> list[dict[str, Any]]:
    """Writes into a log what was done to it, and puts keys back whose newest version nobody has any more.

    The history stays as it is: the lost version's row says that its body is in quarantine, and the last intact one is
    written again behind it.

    Args:
        log: the repaired log.
        evidence: what the attempt noted; it reaches the hub with the log.
        lost: records whose bodies were given up already.
        gone: records whose blobs nobody has: their references are given up here.

    Returns:
        What became of each key: its lost version, and the version that was written again (0: there was none).
    """
    if gone:

        def drop(tx: Any) -> None:
            for seq in gone:
                tx.drop_body(seq, QUARANTINED)

        log.corpus.write(drop)
    drafts, made = [], []
    for seq in sorted({*lost, *gone}):
        found = log.corpus.at(seq)
        if found is None or found.record.flags & TOMBSTONE or not found.record.flags & VALUE:
            continue
        record = found.record
        newest = log.newest(record.collection, record.key)
        if newest is None or newest.record.seq != seq:
            continue  # a later version is whole, or the key was deleted since
        draft, version = _intact(log, record.collection, record.key, record.link)
        if draft is not None:
            drafts.append(draft)
        made.append(
            {"collection": record.collection, "key": record.key, "lost": record.key_version, "back_to": version}
        )
    told = {**evidence, "rolled_back": made} if made else evidence
    note = Draft(RECOVERY, "", "", *codec.serialise(_short(told)), flags=0)
    for each in (note, *drafts):
        log.append([each])
    return made


def _intact(log: Log, collection: str, key: str, base: bytes) -> tuple[Draft | None, int]:
    for found in log.versions(collection, key):
        record = found.record
        if found.gone:
            break  # before that it was another life of the key
        if found.body is None:
            continue
        with contextlib.suppress(HoldfastError):
            return written_again(found, key, base=base), record.key_version
    return None, 0


def written_again(old: Stored, key: str, **how: Any) -> Draft:
    """A draft that makes an earlier version's value the newest: as it lies there, a sealed one under the same key.

    Args:
        old: the earlier version.
        key: its key now.
        how: further fields of the draft.

    Raises:
        IntegrityError: its body cannot be unpacked.
    """
    record = old.record
    flags = VALUE | (record.flags & (IS_BLOB | SEALED))
    return Draft(RESTORE, record.collection, key, record.fmt, old.payload(), flags, kid=record.kid, **how)


def _short(evidence: dict[str, Any]) -> dict[str, Any]:
    """Evidence that fits into one record without becoming a blob."""
    if len(msgspec.json.encode(evidence)) <= 32_000:
        return evidence
    return {k: v for k, v in evidence.items() if k not in ("steps", "findings", "unrecovered", "rolled_back")}
