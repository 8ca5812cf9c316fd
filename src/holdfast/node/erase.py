"""Erasing a subject, or a key, from a whole node directory: its data key, its records, and every copy that lies here.

The order is what makes it safe to be cut off anywhere and asked for again: first the data key is destroyed, then each
log says so in a redact record and lets the bodies go, then the copies beside the logs follow, and only then keys.db
forgets whose key it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.corpus import SqlCorpus
from holdfast.errors import NotFound, UsageError
from holdfast.log.erasure import PENDING, Gone, erase, erasures, mark_of, scour
from holdfast.node.cache import Cache
from holdfast.node.directory import Directory, folder_of
from holdfast.node.parts import JSON
from holdfast.node.sealing import Sealing

if TYPE_CHECKING:
    from holdfast.node.hub import Hub

ERASE_S: Final = 600.0
"""An erasure at a hub goes in lots, and looks through all that an agent wrote."""


class Report(msgspec.Struct, frozen=True):
    """What an erasure did on this machine.

    Attributes:
        records: bodies taken away.
        blobs: files removed.
        keys: data keys destroyed.
        agents: whose logs say so now.
        left: what may still hold some of it, and is for a person to look after, in words.
    """

    records: int
    blobs: int
    keys: int
    agents: tuple[str, ...]
    left: tuple[str, ...]


def erase_subject(directory: Directory, subject: str, *, collection: str | None = None, reason: str = "") -> Report:
    """Erases everything that was written about a subject in sealed collections here, by all agents of this directory.

    Args:
        directory: the node's.
        subject: who.
        collection: only in this one.
        reason: kept in the history, for everybody to read: it must not say who it was about.

    Raises:
        NotFound: nothing was ever sealed for this subject here.
    """
    vault = directory.vault
    kids = vault.destroy(subject, collection)
    if not kids:
        where = f" in {collection}" if collection else ""
        raise NotFound(f"nothing was sealed for {subject!r}{where} here", hint="holdfast keys ls")
    # What was sealed while an earlier erasure ran, or stood in a log that was put back since, goes as well.
    every = sorted({*kids, *vault.erased()})
    done = [_erase_in(directory, agent, every, None, reason) for agent in directory.agents()]
    report = _finish(directory, done, every, [], len(kids))
    vault.note_erased(kids)
    return report


def erase_key(directory: Directory, agent: str, key: str, *, collection: str, reason: str = "") -> Report:
    """Erases every version of one key of one agent, in any collection; of an unsealed one the key's name stays.

    Raises:
        NotFound: the agent never had that key.
    """
    if not directory.has_agent(agent):
        raise NotFound(f"no agent {agent} on this machine", hint="holdfast ls --agents")
    opened = directory.open_log(agent, None)
    try:
        name = Sealing(directory, opened.log).name(collection, key)
        found = [each.record for each in opened.log.versions(collection, name) if each.record.key == name]
        if not found:
            raise NotFound(f"{agent} has nothing at {collection}/{key}", hint="holdfast ls shows what there is")
        marks = [mark_of(record) for record in found]
    finally:
        directory.release_log(opened)
    done = [_erase_in(directory, agent, [], marks, reason)]
    return _finish(directory, done, [], marks, 0)


def finish(directory: Directory, corpus: SqlCorpus) -> None:
    """Finishes erasures that a log learnt of from a hub: destroys the keys that they name, and removes the copies."""
    known = erasures(corpus)
    kids = sorted({kid for each in known for kid in each.kids})
    directory.vault.note_erased(kids)
    _scour(directory)


def check_reason(reason: str, subject: str) -> None:
    """Refuses a reason that names the one who is to be forgotten.

    Raises:
        UsageError: it does.
    """
    if subject and subject in reason:
        raise UsageError("the reason names the subject, and stays readable for ever", hint="say why, and not who")


def _erase_in(
    directory: Directory, agent: str, kids: Sequence[bytes], marks: Sequence[bytes] | None, reason: str
) -> tuple[str, Gone]:
    opened = directory.open_log(agent, None)
    try:
        return agent, erase(opened.log, _used(opened.corpus, kids), marks or [], reason)
    finally:
        directory.release_log(opened)


def _used(corpus: Any, kids: Sequence[bytes]) -> list[bytes]:
    """Those of these keys under which a body lies in a log: a redact record that names nothing says nothing."""
    rows = corpus.query("SELECT DISTINCT kid FROM rec WHERE kid IS NOT NULL AND why<>3")
    return sorted({bytes(row[0]) for row in rows}.intersection(kids))


def _finish(
    directory: Directory, done: Sequence[tuple[str, Gone]], kids: Sequence[bytes], marks: Sequence[bytes], keys: int
) -> Report:
    """Removes the copies beside the logs, and counts."""
    left = _scour(directory)
    if (directory.path / "cache.db").exists():
        cache = Cache(directory.path / "cache.db", directory.wall)
        try:
            cache.forget(kids, marks)
        finally:
            cache.close()
    left += _copies(directory)
    blobs = {digest for _, gone in done for digest in gone.blobs if not directory.blobs.has(digest)}
    agents = tuple(agent for agent, gone in done if gone.records)
    if agents and directory.shipper is not None:
        directory.shipper.poke()
    return Report(sum(gone.records for _, gone in done), len(blobs), keys, agents, tuple(left))


def _scour(directory: Directory) -> list[str]:
    """Removes what erasures have left in the logs of all agents and beside them; what could not be, in words."""
    left: list[str] = []
    logs = {agent: directory.open_log(agent, None) for agent in directory.agents()}
    try:
        for agent, opened in logs.items():
            others = [each.corpus for name, each in logs.items() if name != agent]
            if opened.corpus.meta(PENDING) and not scour(opened.corpus, directory.blobs, others):
                left.append(f"the WAL of {agent}, which somebody reads: erase again when they have ended")
    finally:
        for opened in logs.values():
            directory.release_log(opened)
    return left


def _copies(directory: Directory) -> list[str]:
    """Damaged files that were put aside: nobody can take one record out of them."""
    places = [directory.path / "quarantine"]
    places += [directory.path / "agents" / folder_of(agent) / "quarantine" for agent in directory.agents()]
    return [f"the files put aside in {place}: look through them, and remove them" for place in places if place.exists()]


# -- what plain clients wrote ---------------------------------------------------------------------------------------


class AtHub(msgspec.Struct, kw_only=True):
    """What hubs did about an erasure in their own streams.

    Attributes:
        records: bodies taken away.
        blobs: bytes of their own that went with them.
        agents: in whose names it had been written.
        clean: whether nothing is left to remove behind it; else the hub goes on with that by itself.
        left: what is not reached, in words.
    """

    records: int = 0
    blobs: int = 0
    agents: list[str] = []
    clean: bool = True
    left: list[str] = []


def erase_at_hub(
    hub: Hub,
    *,
    subject: str = "",
    session: str = "",
    agent: str = "",
    place: Sequence[str] = (),
    reason: str = "",
) -> AtHub:
    """Erases for good what plain clients wrote through a hub; of several hubs each does so in its own streams.

    Exactly one of subject, session and agent is named.

    Args:
        hub: asked with a token that has the scope `admin`.
        subject: whom sessions name as their user: all of these sessions.
        session: the id of one.
        agent: all that was written in this agent's name.
        place: of that only a collection, or a collection and a key in it.
        reason: stays readable for ever: why, and not about whom.

    Raises:
        Denied: the token has not that scope.
        HubUnavailable: a hub does not answer. Asked again, the others have nothing left of it.
        NotFound: no hub has anything of it.
    """
    place = (place,) if isinstance(place, str) else place
    named = {"subject": subject, "session": session, "agent": agent, "reason": reason}
    asked = {name: text for name, text in named.items() if text} | dict(zip(("collection", "key"), place, strict=False))
    body = msgspec.json.encode(asked)
    total, nothing = AtHub(), list[NotFound]()
    for each in hub.each:
        try:
            answer = each.client.want("POST", "/v1/erase", body=body, headers=JSON, timeout=ERASE_S)
        except NotFound as error:
            nothing.append(error)
            continue
        found = msgspec.convert(answer.json(), AtHub)
        total.records, total.blobs = total.records + found.records, total.blobs + found.blobs
        total.agents, total.left = sorted({*total.agents, *found.agents}), [*total.left, *found.left]
        total.clean = total.clean and found.clean
    if len(nothing) == len(hub.each):
        raise nothing[0]
    return total
