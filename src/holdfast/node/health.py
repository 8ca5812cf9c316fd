"""How a node stands, for people and for metrics: derived from what is there, nothing is counted on the side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast import clock
from holdfast.errors import CapacityError, HoldfastError
from holdfast.integrity.scan import Outside, Scan, verify_corpus
from holdfast.log import OpenLog
from holdfast.log.anchor import read_mark
from holdfast.log.hits import statuses
from holdfast.node.directory import Directory, folder_of
from holdfast.node.outbox_store import depth
from holdfast.node.proving import acknowledged, referred
from holdfast.node.room import cache
from holdfast.node.scanning import progress
from holdfast.node.tally import hub_status

REFUSED_MAX = 100


def health(directory: Directory, opened: OpenLog, hubs: Sequence[str]) -> dict[str, Any]:
    """Everything that can be said of a node and one of its agents, as JSON values; `problems` in words, worst first."""
    corpus, branch = opened.corpus, opened.log.branch
    head = corpus.head(branch.id)
    space = directory.reserve.state()
    diagnosis = corpus.engine.diagnosis
    trouble = opened.trouble()
    standing = [_hub(directory, opened, url) for url in hubs]
    refused = _refused(directory, branch.stream)
    found: dict[str, Any] = {
        "node": directory.node_id,
        "directory": str(directory.path),
        "agent": opened.agent,
        "level": opened.level.name,
        "stream": branch.stream.hex(),
        "key": directory.keyring.current().hex(),
        "head": {"seq": head.seq, "link": head.link.hex(), "time": clock.to_iso(head.hlc) if head.hlc else None},
        "log": {
            "bytes": corpus.size_bytes(),
            "wal": diagnosis.state if diagnosis is not None else None,
            "incidents": [msgspec.structs.asdict(each) for each in opened.incidents],
            "trouble": str(trouble) if trouble is not None else None,
        },
        "scan": _scan(directory, opened.agent),
        "cache": cache(directory, opened),
        "indexes": [msgspec.structs.asdict(each) for each in statuses(corpus, directory.wall.now_ms())],
        "disk": {**msgspec.structs.asdict(space), "writable": space.writable},
        "hubs": standing,
        "refused": refused,
        "quarantine": quarantined(directory, opened.agent),
    }
    found["problems"] = list(_problems(found))
    found["ok"] = not found["problems"]
    return found


def _scan(directory: Directory, agent: str) -> dict[str, Any]:
    done = progress(directory, agent)
    return {
        "last_turn": clock.iso(done.at_ms) if done.at_ms else None,
        "last_round": clock.iso(done.round_ms) if done.round_ms else None,
        "findings": [str(finding) for finding in done.findings],
    }


def _hub(directory: Directory, opened: OpenLog, url: str) -> dict[str, Any]:
    return {**hub_status(directory, url), "depth": depth(directory, opened, url)}


def _refused(directory: Directory, stream: bytes) -> list[dict[str, Any]]:
    rows = directory.node.query(
        "SELECT hub, seq, code, reason FROM refused WHERE stream=? ORDER BY seq DESC LIMIT ?", (stream, REFUSED_MAX)
    )
    return [dict(zip(("hub", "seq", "code", "reason"), row, strict=True)) for row in rows]


def quarantined(directory: Directory, agent: str) -> list[str]:
    """The damaged files of an agent's log that were moved aside."""
    try:
        return sorted(os.listdir(directory.path / "agents" / folder_of(agent) / "quarantine"))
    except FileNotFoundError:
        return []


def _problems(found: dict[str, Any]) -> list[str]:
    out = [f"{each['what']}: {each['detail']}" for each in found["log"]["incidents"]]
    if found["scan"]["findings"]:
        out.append(f"the scan found {len(found['scan']['findings'])}: {found['scan']['findings'][0]}")
    if found["log"]["trouble"]:
        out.append(f"background work failed: {found['log']['trouble']}")
    if not found["disk"]["writable"]:
        out.append(f"the disk is full: {found['disk']['free'] >> 20} MiB free, writes are refused")
    if found["cache"]["full"]:
        what, budget = found["cache"], found["cache"]["budget"]
        why = what["trouble"] or f"{what['unsettled']:,} bytes are not settled at the hub and its backups"
        said = f"the cache of {found['agent']} is full: {what['used']:,} of {budget:,} bytes, writes are refused"
        out.append(f"{said}; {why}")
    for index in found["indexes"]:
        if index["next_try"]:
            out.append(f"the embedding function of {index['name']} fails: {index['last_error']}")
        if index["failed"]:
            said = index["last_error"] or "no reason"
            out.append(f"{index['failed']} records of {index['name']} could not be embedded: {said}")
        if index["warning"]:
            out.append(f"the index of {index['name']} holds {index['warning']}")
    for hub in found["hubs"]:
        if hub["alert"]:
            out.append(f"{hub['url']}: {hub['alert']}")
        if hub["state"] == "offline" and hub["failures"]:
            out.append(f"{hub['url']} does not answer; {hub['depth']} records wait")
    if found["refused"]:
        out.append(f"{len(found['refused'])} payloads were refused by a hub and are kept here only")
    return out


def verify(directory: Directory, opened: OpenLog) -> Scan:
    """The report of `holdfast.integrity.scan.verify_corpus` over one agent's log.

    Raises:
        HoldfastError: the log cannot be read at all.
    """
    if opened.corpus.engine.unusable:
        raise HoldfastError(f"the log of {opened.agent} is not open", hint="open the store again")
    mark = read_mark(opened.corpus.engine.path.with_name("log.anchor"))
    stream = opened.log.branch.stream
    try:
        acked = [each for each in acknowledged(directory.node) if each.stream == stream]
    except CapacityError:
        acked = []  # a full disk has no room to open what the hubs said; the log itself can be proven all the same
    outside = Outside(
        acked=acked,
        now_ms=directory.wall.now_ms(),
        referred=referred(directory.path, opened.agent),
        wal=opened.corpus.engine.diagnosis,
    )
    return verify_corpus(opened.corpus, directory.blobs, anchor=mark, outside=outside)
