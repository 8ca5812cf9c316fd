"""One agent's sealed collections: drafts are sealed on their way into the log, keys are found by their hidden names.

A collection is sealed for the whole node directory once a store has declared it (`Store(sealed=…)`): whoever opens the
directory afterwards seals it too, the command line included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from holdfast.corpus import Stored
from holdfast.errors import NotFound, UsageError
from holdfast.log import Draft, Log
from holdfast.log.drafts import MESSAGES
from holdfast.log.marks import METRICS, SESSIONS
from holdfast.log.sealing import open_sealed, sealed
from holdfast.node.directory import Directory
from holdfast.node.looking import When, as_of, newest
from holdfast.node.vault import Vault
from holdfast.records import DELETE_PREFIX, SEALED, check_names

OPEN: Final = (MESSAGES, SESSIONS, METRICS, "files", "objects", "tables")
"""Collections that others find things in by what stands in them; a sealed one could not be found in."""
_TABLE: Final = "table/"
_KEYS_STEP: Final = 1_000


class Sealing:
    """What one store seals and opens. Safe to share among threads.

    Args:
        directory: the node's.
        log: the agent's.
    """

    def __init__(self, directory: Directory, log: Log) -> None:
        self.vault: Vault = directory.vault
        self.collections = self.vault.collections
        self._log = log

    def declare(self, collections: Iterable[str], cas: Iterable[str]) -> None:
        """Seals these collections from now on.

        Raises:
            UsageError: one that cannot be sealed.
            Sealed: the key-encryption key is not to be had.
        """
        wanted = [collections] if isinstance(collections, str) else list(collections)
        check_sealable(wanted)
        for name in wanted:
            if name in cas:
                raise UsageError(f"{name!r} is a cas collection: the hub decides it, and must read it", hint="choose")
        self.vault.declare(wanted)

    def seal(self, draft: Draft, subject: str | None, before: Sequence[Draft] = ()) -> Draft:
        """The draft, sealed for a subject; None: whose the key's newest version is, else the collection's own.

        Args:
            draft: a value, or a removal.
            subject: who it is about.
            before: what stands before it in its batch.

        Raises:
            UsageError: its collection is not sealed, or it deletes a prefix.
            Sealed: the keys are not to be had.
        """
        collection = draft.collection
        if collection not in self.collections:
            raise UsageError(
                f"{collection!r} is not sealed, so nothing of {subject!r} could be erased from it by its key",
                hint=f"Store(…, sealed=[{collection!r}])",
            )
        if draft.kind == DELETE_PREFIX:
            raise UsageError("a sealed collection is deleted key by key", hint="list the keys, and delete each")
        name = self.name(collection, draft.key)
        if subject is None:
            subject = self._subject(collection, name, before)
        return sealed(draft, self.vault.box_for(collection, subject), self._log.branch.stream, name)

    def name(self, collection: str, key: str) -> str:
        """What stands for a key in headers: itself, or in a sealed collection what hides it."""
        return self.vault.name(collection, key)

    def find(self, collection: str, key: str, at: When | None = None) -> Stored:
        """The record of a key of a sealed collection, as it is or as it was.

        Raises:
            NotFound: there is none.
        """
        name = self.name(collection, key)
        try:
            log = self._log
            return newest(log, collection, name) if at is None else as_of(log, collection, name, at)
        except NotFound as error:
            raise NotFound(error.message.replace(name, key), hint=error.hint.replace(name, key)) from None

    def keys(self, log: Log, collection: str, prefix: str, after: str, limit: int) -> list[str]:
        """The keys of a sealed collection with a value here, in order: each is opened, since its name is in it."""
        found: list[str] = []
        last = ""
        while rows := log.corpus.keys(log.branch.agent, collection, "", last, _KEYS_STEP):
            last = rows[-1].record.key
            for stored in rows:
                if stored.body is not None and stored.record.flags & SEALED:
                    found.append(open_sealed(stored, log.blobs, self.vault).key)
        return sorted(key for key in found if key.startswith(prefix) and (not after or key > after))[:limit]

    def _subject(self, collection: str, name: str, before: Sequence[Draft]) -> str:
        for draft in reversed(before):
            if (draft.collection, draft.key) == (collection, name):
                return self.vault.subject_of(draft.kid)
        # The newest version, also one that is a deletion: what came back belongs to whom it belonged to.
        stored = next(iter(self._log.versions(collection, name)), None)
        return "" if stored is None else self.vault.subject_of(stored.record.kid)


def check_sealable(collections: Iterable[str]) -> None:
    """Refuses a collection in which others find things by what stands in them.

    Raises:
        UsageError: one of them is such, or no name at all.
    """
    for name in collections:
        check_names("put", name, "")
        if not name or name in OPEN or name.startswith(_TABLE):
            raise UsageError(f"{name!r} cannot be sealed", hint="take a collection of your own")
