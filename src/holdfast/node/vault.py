"""The keys of sealed collections: in keys.db, wrapped by a key-encryption key that is not in it.

    key-encryption key   a file that only its owner may read (``sealing.keys`` in the node directory, or where
                         ``HOLDFAST_KEY_FILE`` says), what Argon2id makes of ``HOLDFAST_PASSPHRASE``, or one in the
                         operating system's keyring (``HOLDFAST_KEYRING``)
      └ wraps            one index key a collection (hides the names of its keys)
      └ wraps            one data key for each subject of a collection (seals its records)

A rotation wraps anew and touches no record. Erasing a subject destroys its data key here; what it sealed is then
noise, wherever a copy of it lies.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast import codec
from holdfast.clock import Clock
from holdfast.corpus.engine import Engine
from holdfast.errors import HoldfastError, IntegrityError, Sealed, UsageError
from holdfast.log.sealing import no_key
from holdfast.node import oskeys
from holdfast.node.keyfile import add_key, drop_key

KEY_FILE: Final = "HOLDFAST_KEY_FILE"
PASSPHRASE: Final = "HOLDFAST_PASSPHRASE"
IN_KEYRING: Final = "HOLDFAST_KEYRING"
FILE_NAME: Final = "sealing.keys"
KEYRING: Final = "keyring"
BOXES_MAX: Final = 1_000
"""Keys that are kept unwrapped in memory."""
SUBJECT_BYTES_MAX: Final = 255
_WRAPPING: Final = "SELECT id, how, salt, proof FROM wrapping"
_PROOF: Final = b"hf/kek/1\0"


class Key(msgspec.Struct, frozen=True):
    """A data key as it is handed to another node: whose it is, and its 32 bytes."""

    collection: str
    subject: str
    key: bytes


class Bundle(msgspec.Struct, frozen=True):
    """What `Vault.export` hands over: index keys by collection, and data keys."""

    index: dict[str, bytes]
    keys: list[Key]

    def to_json(self) -> bytes:
        """Its form in a file."""
        return msgspec.json.format(msgspec.json.encode({"holdfast": "keys", "format": 1} | msgspec.to_builtins(self)))

    @classmethod
    def from_json(cls, data: bytes) -> Bundle:
        """The inverse.

        Raises:
            UsageError: it is none, or damaged.
        """
        try:
            found = msgspec.json.decode(data, type=codec.ready(_File))
        except msgspec.DecodeError as error:
            raise UsageError(f"these are no exported keys: {error}", hint="holdfast keys export") from error
        every = [*found.index.values(), *(each.key for each in found.keys)]
        if found.holdfast != "keys" or found.format != 1 or any(len(key) != 32 for key in every):
            raise UsageError("these are no exported keys, or of a form unknown here", hint="holdfast keys export")
        return cls(found.index, found.keys)


class _File(msgspec.Struct):
    holdfast: str
    format: int
    index: dict[str, bytes]
    keys: list[Key]


class Unsealing(msgspec.Struct, frozen=True):
    """Where the key-encryption key is come by, as somebody configured it.

    Attributes:
        key_file: the key file; None: the usual one.
        passphrase: gives the passphrase when it is needed; None: there is none.
        keyring: whether a new key is put into the operating system's keyring, where no passphrase is said.
    """

    key_file: Path | None = None
    passphrase: Callable[[], str | None] | None = None
    keyring: bool = False


def from_environment() -> Unsealing:
    """What the environment says of it now."""
    file = os.environ.get(KEY_FILE)
    keyring = os.environ.get(IN_KEYRING, "").lower() in ("1", "true", "yes", "on")
    return Unsealing(Path(file) if file else None, lambda: os.environ.get(PASSPHRASE), keyring)


class Vault:
    """The sealing keys of one node directory. Safe to share among threads and processes.

    Args:
        engine: keys.db.
        home: the node directory.
        wall: the clock.
        unsealing: says where the key-encryption key is, whenever it is needed.
    """

    def __init__(
        self, engine: Engine, home: Path, wall: Clock, unsealing: Callable[[], Unsealing] = from_environment
    ) -> None:
        self._engine = engine
        self._home = home
        self._wall = wall
        self._unsealing = unsealing
        self._lock = threading.RLock()  # guards what follows
        self._kek: tuple[str, Any] | None = None  # its id, and the box
        self._boxes: dict[bytes, Any] = {}  # by what is wrapped: a key that was erased or wrapped anew is not found
        self.collections: set[str] = {row[0] for row in engine.query("SELECT collection FROM sealed")}
        """Which collections are sealed here; grows as they are declared in this process."""

    # -- for sealing and opening --------------------------------------------------------------------------------

    def declare(self, collections: Sequence[str]) -> None:
        """Makes collections sealed from now on, in this directory, for every store that is opened on it.

        Raises:
            Sealed: the key-encryption key is not to be had.
        """
        for collection in collections:
            if collection not in self.collections:
                self._keep_index(collection, _new_key())

    def index(self, collection: str) -> bytes:
        """The key that hides the names of a collection's keys.

        Raises:
            Sealed: it is not here, or cannot be unwrapped.
        """
        row = self._engine.one("SELECT wrapped FROM sealed WHERE collection=?", (collection,))
        if row is None:
            raise Sealed(f"{collection!r} is not sealed here", hint=f"Store(…, sealed=[{collection!r}])")
        found: bytes = self._unwrapped(row[0], _index_bound(collection))
        return found

    def name(self, collection: str, key: str) -> str:
        """What stands for a key in headers: itself, or in a sealed collection what hides it."""
        if collection not in self.collections:
            return key
        from holdfast.seal.box import blind

        return blind(self.index(collection), key)

    def box_for(self, collection: str, subject: str) -> Any:
        """The key of a subject, made if there is none.

        Raises:
            Sealed: it cannot be unwrapped.
        """
        if not isinstance(subject, str) or len(subject.encode()) > SUBJECT_BYTES_MAX:
            raise UsageError(f"a subject is text of at most {SUBJECT_BYTES_MAX} bytes, got {subject!r:.80}")
        row = self._find(collection, subject)
        if row is None:
            self._add(collection, subject, _new_key())
            row = self._find(collection, subject)
        return self._box(row[0], row[1])

    def box(self, kid: bytes) -> Any:
        """The key of this name.

        Raises:
            Sealed: it is not here, was erased, or cannot be unwrapped.
        """
        row = self._engine.one("SELECT wrapped, erased_ms FROM dek WHERE kid=?", (kid,))
        if row is None or row[0] is None:
            raise no_key("this", kid)
        return self._box(kid, row[0])

    def subject_of(self, kid: bytes) -> str:
        """Whose key this is; empty: the collection's own, or not known here (any more)."""
        row = self._engine.one("SELECT subject FROM dek WHERE kid=? AND wrapped IS NOT NULL", (kid,))
        return (row and row[0]) or ""

    # -- erasing ------------------------------------------------------------------------------------------------

    def destroy(self, subject: str, collection: str | None = None) -> list[bytes]:
        """Destroys a subject's data keys, for good; their names, those of an erasure that a crash cut short included.

        Args:
            subject: whose.
            collection: only in this one; None: in all.
        """
        where = "subject=?" + ("" if collection is None else " AND collection=?")
        args = (subject,) if collection is None else (subject, collection)

        def job(_: Any) -> list[bytes]:
            execute = self._engine.writer_execute
            execute(f"UPDATE dek SET wrapped=NULL, erased_ms=? WHERE {where}", (self._wall.now_ms(), *args))
            return [row[0] for row in execute(f"SELECT kid FROM dek WHERE {where}", args)]

        found: list[bytes] = self._engine.commits.run(job)
        with self._lock:
            self._boxes.clear()
        self._engine.scour()
        return found

    def note_erased(self, kids: Sequence[bytes]) -> None:
        """Forgets whose keys these were, and destroys what an erasure elsewhere has named; their names are kept."""

        def job(_: Any) -> None:
            for kid in kids:
                self._engine.writer_execute(
                    "UPDATE dek SET wrapped=NULL, subject=NULL, erased_ms=coalesce(erased_ms, ?) WHERE kid=?",
                    (self._wall.now_ms(), kid),
                )

        self._engine.commits.run(job)
        with self._lock:
            self._boxes.clear()
        self._engine.scour()

    def erased(self) -> list[bytes]:
        """The names of all keys that were erased here."""
        return [row[0] for row in self._engine.query("SELECT kid FROM dek WHERE wrapped IS NULL")]

    # -- keys in and out ----------------------------------------------------------------------------------------

    def listed(self) -> list[tuple[str, str, bytes, int, int | None]]:
        """Every data key: collection, subject, its name, when it was made and when erased (ms since 1970)."""
        sql = "SELECT collection, coalesce(subject, ''), kid, made_ms, erased_ms FROM dek ORDER BY collection, made_ms"
        return [tuple(row) for row in self._engine.query(sql)]

    def export(self, collection: str, subject: str | None = None) -> Bundle:
        """What another node needs to read a collection, or one subject of it.

        Raises:
            Sealed: the collection is not sealed here, or its keys cannot be unwrapped.
        """
        rows = self._engine.query(
            "SELECT kid, subject, wrapped FROM dek WHERE collection=? AND wrapped IS NOT NULL", (collection,)
        )
        keys = [
            Key(collection, name, self._unwrapped(wrapped, _bound(kid)))
            for kid, name, wrapped in rows
            if subject is None or name == subject
        ]
        return Bundle({collection: self.index(collection)}, keys)

    def take(self, bundle: Bundle) -> int:
        """Takes keys that another node handed over; how many data keys were new.

        Raises:
            UsageError: the collection is sealed here under another index key already.
        """
        for collection, key in bundle.index.items():
            if collection not in self.collections:
                self._keep_index(collection, key)
            elif self.index(collection) != key:
                raise UsageError(
                    f"{collection!r} is sealed here already, with keys of its own",
                    hint="import before the collection's first use on this node",
                )
        have = {bytes(row[0]) for row in self._engine.query("SELECT kid FROM dek")}
        fresh = [each for each in bundle.keys if _kid(each.key) not in have]
        for each in fresh:
            self._add(each.collection, each.subject, each.key)
        return len(fresh)

    def rotate(self, *, passphrase: str | None = None, keyring: bool = False) -> int:
        """Wraps every key anew under another key-encryption key; records are not touched. How many keys there are.

        Args:
            passphrase: the new key is made of it; None: it is a new one, in the key file.
            keyring: or in the operating system's keyring.

        Raises:
            Sealed: the key in force is not to be had.
            MissingExtra: keyring is not installed.
        """
        with self._lock:

            def job(_: Any) -> tuple[str, Any, int, tuple[str, str]]:
                # All of it inside the transaction: of two processes one comes second, and wraps what the first wrapped.
                execute, count = self._engine.writer_execute, 0
                row = execute(_WRAPPING).fetchone()
                if row is None:
                    raise Sealed("nothing is sealed here yet", hint="Store(…, sealed=['patients'])")
                old, was = self._come_by(*row), row[:2]
                here = keyring or self._unsealing().keyring  # it stays there, where that is configured
                kek_id, made, row = self._new_kek(passphrase, here)
                for table, column in (("sealed", "collection"), ("dek", "kid")):
                    sql = f"SELECT {column}, wrapped FROM {table} WHERE wrapped IS NOT NULL"
                    for name, wrapped in execute(sql).fetchall():
                        bound = _index_bound(name) if table == "sealed" else _bound(name)
                        again = made.seal(old.open(wrapped, bound), bound)
                        execute(f"UPDATE {table} SET wrapped=? WHERE {column}=?", (again, name))
                        count += 1
                execute("DELETE FROM wrapping")
                execute("INSERT INTO wrapping VALUES(1,?,?,?,?)", row)
                return kek_id, made, count, was

            kek_id, made, count, was = self._engine.commits.run(job)
            self._kek = (kek_id, made)
            self._boxes.clear()
            self._engine.scour()
            self._drop(*was)  # what it wrapped is wrapped no more
        return count

    # -- inside -------------------------------------------------------------------------------------------------

    @property
    def _key_file(self) -> Path:
        return self._unsealing().key_file or self._home / FILE_NAME

    def _passphrase(self) -> str | None:
        ask = self._unsealing().passphrase
        return None if ask is None else ask()

    def _drop(self, kek_id: str, how: str) -> None:
        """Removes a key-encryption key that is in force no more; a file may hold others' keys."""
        if how == KEYRING:
            with contextlib.suppress(Sealed):  # it is locked by now: a key of nothing stays in it
                oskeys.drop(kek_id)
        elif how == "file":
            drop_key(self._key_file, kek_id)

    def _find(self, collection: str, subject: str) -> Any:
        sql = "SELECT kid, wrapped FROM dek WHERE collection=? AND subject=? AND wrapped IS NOT NULL"
        return self._engine.one(f"{sql} ORDER BY made_ms, kid", (collection, subject))

    def _add(self, collection: str, subject: str, key: bytes) -> None:
        kid = _kid(key)
        wrapped = self._wrapper()[1].seal(key, _bound(kid))
        now = self._wall.now_ms()

        def job(_: Any) -> None:
            self._engine.writer_execute(
                "INSERT INTO dek(kid, collection, subject, wrapped, made_ms) VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
                (kid, collection, subject, wrapped, now),
            )

        self._engine.commits.run(job)

    def _keep_index(self, collection: str, key: bytes) -> None:
        wrapped = self._wrapper()[1].seal(key, _index_bound(collection))

        def job(_: Any) -> None:
            self._engine.writer_execute(
                "INSERT INTO sealed VALUES(?,?,?) ON CONFLICT DO NOTHING", (collection, wrapped, self._wall.now_ms())
            )

        self._engine.commits.run(job)
        self.collections.add(collection)

    def _box(self, kid: bytes, wrapped: bytes) -> Any:
        found = self._boxes.get(wrapped)
        if found is None:
            from holdfast.seal.box import Box

            key = self._unwrapped(wrapped, _bound(kid))
            found = Box(key)
            if found.kid != kid:
                raise IntegrityError(f"keys.db holds another key under the name {kid.hex()}")
            with self._lock:
                if len(self._boxes) >= BOXES_MAX:
                    self._boxes.clear()
                self._boxes[wrapped] = found
        return found

    def _unwrapped(self, wrapped: bytes, bound: bytes) -> bytes:
        key: bytes
        try:
            key = self._key()[1].open(wrapped, bound)
        except IntegrityError:
            with self._lock:
                self._kek = None  # somebody may have wrapped everything anew meanwhile
            try:
                key = self._key()[1].open(wrapped, bound)
            except IntegrityError as error:
                raise IntegrityError(
                    "a key in keys.db is not what was wrapped there", hint="put keys.db back from its own backup"
                ) from error
        return key

    def _wrapper(self) -> tuple[str, Any]:
        """The key-encryption key, made when there is none yet."""
        with self._lock:
            if self._kek is None and self._engine.one(_WRAPPING) is None:
                words = self._passphrase() or None  # asked before the transaction: a command may take its time
                keyring = self._unsealing().keyring

                def job(_: Any) -> None:
                    execute = self._engine.writer_execute
                    if execute(_WRAPPING).fetchone() is None:
                        execute("INSERT INTO wrapping VALUES(1,?,?,?,?)", self._new_kek(words, keyring)[2])

                self._engine.commits.run(job)
            return self._key()

    def _new_kek(self, passphrase: str | None, keyring: bool) -> tuple[str, Any, tuple[Any, ...]]:
        """A new key-encryption key: its name, what wraps with it, and the row that says how it is come by."""
        from holdfast.seal.box import Box, derivation, passphrase_key

        kek_id = os.urandom(8).hex()
        if passphrase is None and keyring:
            key = _new_key()
            oskeys.keep(kek_id, key)
            made = Box(key)
            return kek_id, made, (kek_id, KEYRING, b"", made.seal(_PROOF, kek_id.encode()))
        if passphrase is None:
            made, salt, how = Box(add_key(self._key_file, kek_id)), b"", "file"
        else:
            salt, how = os.urandom(16), derivation()
            made = Box(passphrase_key(passphrase, salt, how))
        return kek_id, made, (kek_id, how, salt, made.seal(_PROOF, kek_id.encode()))

    def _key(self) -> tuple[str, Any]:
        """The key-encryption key in force.

        Raises:
            Sealed: it is not to be had, or is another.
        """
        with self._lock:
            if self._kek is None:
                row = self._engine.one(_WRAPPING)
                if row is None:
                    raise Sealed("nothing is sealed here yet", hint="Store(…, sealed=['patients'])")
                self._kek = row[0], self._come_by(*row)
            return self._kek

    def _come_by(self, kek_id: str, how: str, salt: bytes, proof: bytes) -> Any:
        from holdfast.seal import KeyRing
        from holdfast.seal.box import Box, passphrase_key

        if how == KEYRING:
            found, hint = Box(oskeys.find(kek_id)), "has the keyring been put back from an older copy?"
        elif how != "file":
            words = self._passphrase()
            if not words:
                raise Sealed(
                    "the sealing keys want a passphrase",
                    hint=f"set {PASSPHRASE}, or name a file or command that has it in the configuration",
                )
            found = Box(passphrase_key(words, salt, how))
            hint = f"{PASSPHRASE}, or what is configured, has other words than those that the keys were wrapped with"
        else:
            hint = f"put the key file back, or name it in {KEY_FILE} or store.key_file"
            try:
                found = Box(KeyRing.load(self._key_file).key(kek_id))
            except (HoldfastError, OSError) as error:
                raise Sealed(
                    f"the key file {self._key_file} does not open the sealing keys: {error}", hint=hint
                ) from error
        try:
            found.open(proof, kek_id.encode())
        except IntegrityError:
            raise Sealed("this is not the key that the sealing keys were wrapped with", hint=hint) from None
        return found


def _new_key() -> bytes:
    from holdfast.seal.box import new_key

    return new_key()


def _kid(key: bytes) -> bytes:
    from holdfast.seal.box import kid_of

    return kid_of(key)


def _bound(kid: bytes) -> bytes:
    return b"hf/dek/1\0" + kid


def _index_bound(collection: str) -> bytes:
    return b"hf/index/1\0" + collection.encode()
