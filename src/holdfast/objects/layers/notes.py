"""Keys that one store owes to another, noted durably: each note is a small object that names its key."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Set
from typing import Final

import msgspec

from holdfast.errors import HoldfastError, ObjectNotFound
from holdfast.objects.layers.owing import key_name
from holdfast.objects.port import ObjectStore

NOTES: Final = ".holdfast/mirror/"


class _Note(msgspec.Struct):
    key: str


class Notes:
    """The notes in a store, read when they are first asked for. Any thread may use it.

    Args:
        journal: where they lie.
    """

    def __init__(self, journal: ObjectStore) -> None:
        self._journal = journal
        self._lock = threading.RLock()
        self._noted: dict[str, set[str]] | None = None
        self._unnoted: set[str] = set()

    def forked(self) -> None:
        """In a forked child: nobody is left who would open the parent's lock."""
        self._lock = threading.RLock()

    @property
    def none(self) -> bool:
        """Whether it is known, without looking, that there are none."""
        return self._noted == {} and not self._unnoted

    def refresh(self) -> None:
        """Reads them anew when they are asked for next: another process may have made some."""
        with self._lock:
            self._noted = None

    def owed(self) -> Set[str]:
        """Every key that is owed, those included that could not be noted.

        Raises:
            StorageUnavailable: the notes cannot be read.
        """
        with self._lock:
            return {*self._loaded(), *self._unnoted}

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._unnoted or key in self._loaded()

    def of(self, key: str) -> Set[str]:
        """The names of a key's notes, to be forgotten when it was paid."""
        with self._lock:
            return set(self._loaded().get(key, ()))

    def add(self, key: str) -> None:
        """Notes a key; when it returns, a crash does not lose it.

        Raises:
            StorageError: it could not be noted. It is remembered until this process ends.
        """
        name = f"{NOTES}{key_name(key)}/{os.urandom(8).hex()}"
        try:
            older = self.of(key)
            self._journal.put(name, msgspec.json.encode(_Note(key)), content_type="application/json")
        except HoldfastError:
            with self._lock:
                self._unnoted.add(key)
            raise
        with self._lock:
            self._loaded().setdefault(key, set()).add(name)
            self._unnoted.discard(key)
        # A new note each time: another process that pays an older one takes only that one away.
        self._remove(key, older)

    def forget(self, key: str, names: Set[str]) -> None:
        """The key was paid after these notes had been made; what cannot be removed is paid once more."""
        self._remove(key, names)
        with self._lock:
            self._unnoted.discard(key)

    def _remove(self, key: str, names: Set[str]) -> None:
        gone = set()
        for name in names:
            with contextlib.suppress(HoldfastError):
                self._journal.delete(name)
                gone.add(name)
        with self._lock:
            noted = self._loaded()
            noted.get(key, set()).difference_update(gone)
            if not noted.get(key):
                noted.pop(key, None)

    def _loaded(self) -> dict[str, set[str]]:
        if self._noted is None:
            found: dict[str, set[str]] = {}
            for info in self._journal.list(NOTES):
                with contextlib.suppress(ObjectNotFound):
                    note = msgspec.json.decode(self._journal.read(info.key), type=_Note)
                    found.setdefault(note.key, set()).add(info.key)
            self._noted = found
        return self._noted
