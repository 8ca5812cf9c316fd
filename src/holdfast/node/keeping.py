"""What a store does about bodies that may leave: the guard of its budget, pins, and lists that some have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.collections import Message, message_in
from holdfast.corpus import Stored
from holdfast.errors import NodeFull, NotCached, NotFound
from holdfast.log.versions import Version, version_of

if TYPE_CHECKING:
    from holdfast.log import OpenLog
    from holdfast.node.directory import Directory
    from holdfast.node.room import Room
    from holdfast.node.store import Store
    from holdfast.retention import Retention
    from holdfast.transport.client import Token

EVICTED: Final = "evicted"


def watched(
    directory: Directory, opened: OpenLog, given: Retention | None, hubs: Sequence[str], token: Token
) -> Room | None:
    """The guard of an agent's budget; None where everything may stay, which costs nothing.

    Args:
        directory: the node's.
        opened: the agent's log.
        given: what the store was opened with; None: what was written down.
        hubs, token: where what leaves must be.
    """
    if given is None and opened.agent not in (directory.config.get("retention") or {}):
        return None
    from holdfast.node.evicting import start

    return start(directory, opened, given, hubs, token)


def listed(stored: Stored, load: Callable[[Stored], Any]) -> Version:
    """A version of a list whose body has left: with its value from a hub, or without one and ``missing="evicted"``."""
    try:
        return version_of(stored, None, load(stored))
    except NotCached:
        return msgspec.structs.replace(version_of(stored, None, None), missing=EVICTED)


def message_listed(stored: Stored, load: Callable[[Stored], Any]) -> Message:
    """A message of a list; one whose body has left while no hub answers is there without it, and `extra` says so."""
    try:
        return message_in(stored, load(stored))
    except NotCached:
        return msgspec.structs.replace(message_in(stored, {"body": None}), extra={"missing": EVICTED})


def unpin(store: Store, collection: str, key: str) -> None:
    """Lets the value of a key leave again."""
    from holdfast.corpus import eviction

    eviction.pin(store._opened.corpus, collection, store._sealing.name(collection, key), False)


def pin(store: Store, collection: str, key: str) -> None:
    """Has the current value of a key stay here; fetches it if it had left."""
    from holdfast.corpus import eviction

    name, corpus = store._sealing.name(collection, key), store._opened.corpus
    stored = store._log.newest(collection, name)
    if stored is None:
        raise NotFound(f"{store.agent} has nothing at {collection}/{key} to pin", hint="put it first")
    eviction.pin(corpus, collection, name, True)  # before it is fetched: what comes back stays
    try:
        store._load(stored, keep=True)
    except (NotCached, NodeFull):
        eviction.pin(corpus, collection, name, False)
        raise
