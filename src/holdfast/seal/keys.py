"""The keys that seal objects: a ring of them, by name; the first one seals, all of them open."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from holdfast.errors import StorageDenied, StorageRefused

KEY_BYTES: Final = 32
KEY_ID_MAX: Final = 32
_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)
_LINE: Final = "hf-key-1"
_ENDS: Final = "# {} in all"
_SALT_MIN: Final = 16
_SCRYPT: Final = {"n": 1 << 15, "r": 8, "p": 1, "maxmem": 64 << 20}
"""32 MiB and about a tenth of a second a guess."""


class KeyRing:
    """Keys of 32 bytes by their ids. The first seals what is written; every one opens what it sealed.

    A key id is written beside every ciphertext, in the clear; it must never stand for another key later.

    Args:
        keys: by id, the primary first; an id has up to 32 letters, digits, dots, dashes and underscores.
        fernet: keys of Fernet (32 bytes in URL-safe Base64) that may *read* Fernet tokens; nothing is written so.

    Raises:
        StorageRefused: no key, a key that has not 32 bytes, or an id that cannot be.
    """

    def __init__(self, keys: Mapping[str, bytes], *, fernet: Iterable[str | bytes] = ()) -> None:
        if not keys:
            raise StorageRefused("a ring without a key seals nothing", hint='KeyRing.generate("k1")')
        for key_id, key in keys.items():
            if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
                raise StorageRefused(f"not a key id: {key_id!r:.60}", hint="up to 32 of A-Z a-z 0-9 . _ -")
            if not isinstance(key, bytes) or len(key) != KEY_BYTES:
                # Never the key itself: a message lands in logs.
                raise StorageRefused(f"key {key_id!r} is not of {KEY_BYTES} bytes", hint='KeyRing.generate("k1")')
        self._keys = dict(keys)
        self.primary = next(iter(self._keys))
        """The id of the key that seals."""
        self._fernet = tuple(_fernet_key(key) for key in fernet)

    @classmethod
    def generate(cls, key_id: str = "k1") -> Self:
        """A ring of one new key from the system's randomness. Keep it (`save`): nothing opens without it."""
        return cls({key_id: os.urandom(KEY_BYTES)})

    @classmethod
    def from_passphrase(cls, passphrase: str, *, salt: bytes, key_id: str = "k1") -> Self:
        """A ring of the key that scrypt makes of a passphrase (n=32768, r=8, p=1); the same words give the same key.

        Args:
            passphrase: what somebody remembers, in any script.
            salt: at least 16 bytes of your own, kept beside the data; it need not be secret.
            key_id: the key's name.

        Raises:
            StorageRefused: no passphrase, or too short a salt.
        """
        if not passphrase or len(salt) < _SALT_MIN:
            raise StorageRefused(f"a passphrase and a salt of at least {_SALT_MIN} bytes make a key")
        return cls({key_id: hashlib.scrypt(passphrase.encode(), salt=salt, dklen=KEY_BYTES, **_SCRYPT)})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The ring that `save` wrote.

        Raises:
            StorageDenied: others may read the file, so its keys are secret no more.
            StorageRefused: it is no ring.
            FileNotFoundError: there is no such file.
        """
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise StorageDenied(f"others may read {path} (mode {mode & 0o777:o})", hint=f"chmod 600 {path}")
            text = file.read()
        keys: dict[str, bytes] = {}
        lines = text.decode("ascii", "replace").splitlines()
        for number, line in enumerate(lines, 1):
            if not line or line.startswith("#"):
                continue
            words = line.split(" ")
            if len(words) != 3 or words[0] != _LINE or words[1] in keys:
                raise StorageRefused(f"{path}, line {number}: not a key, or its id stands there twice")
            try:
                keys[words[1]] = base64.b64decode(words[2], altchars=b"-_", validate=True)
            except (binascii.Error, ValueError):
                raise StorageRefused(f"{path}, line {number}: key {words[1]!r:.60} is not in Base64") from None
        if not lines or lines[-1] != _ENDS.format(len(keys)):
            # Half a ring would seem whole, and be missed when its other keys are needed.
            raise StorageRefused(f"{path} is cut off: it does not end by saying how many keys it has")
        return cls(keys)

    def save(self, path: Path | str) -> None:
        """Writes the ring to a new file that only its owner may read; it survives a power cut.

        Raises:
            FileExistsError: there is a file, which may hold the only copy of other keys.
        """
        lines = [f"{_LINE} {key_id} {base64.urlsafe_b64encode(key).decode()}\n" for key_id, key in self._keys.items()]
        text = "# Keys of a Holdfast store; the first one seals. Without them nothing of it can be read.\n"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write((text + "".join(lines) + _ENDS.format(len(lines)) + "\n").encode())
            file.flush()
            os.fsync(fd)
        directory = os.open(Path(path).parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def with_primary(self, key_id: str, key: bytes | None = None) -> KeyRing:
        """A ring with another primary key; all keys of this one stay and open what they sealed.

        Args:
            key_id: the new primary's id.
            key: its 32 bytes; None: one of this ring, or else a new one.

        Raises:
            StorageRefused: the id stands for another key already.
        """
        if key is not None and self._keys.get(key_id, key) != key:
            raise StorageRefused(
                f"key {key_id!r} is another one in this ring", hint="give the new key an id of its own"
            )
        first = key or self._keys.get(key_id) or os.urandom(KEY_BYTES)
        return KeyRing({key_id: first} | self._keys | {key_id: first}, fernet=self._fernet)

    def without(self, key_id: str) -> KeyRing:
        """A ring without this key: what is still sealed with it cannot be opened any more.

        Raises:
            StorageRefused: it is not in the ring, or it is the primary.
        """
        if key_id not in self._keys or key_id == self.primary:
            raise StorageRefused(f"key {key_id!r:.60} is not in the ring, or it is the primary")
        return KeyRing({each: key for each, key in self._keys.items() if each != key_id}, fernet=self._fernet)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys, the primary first."""
        return tuple(self._keys)

    def key(self, key_id: str) -> bytes:
        """The key with this id.

        Raises:
            StorageDenied: it is not in the ring.
        """
        try:
            return self._keys[key_id]
        except KeyError:
            known = ", ".join(self._keys)
            raise StorageDenied(
                f"sealed with the key {key_id!r}, which is not in the ring", hint=f"in it: {known}", key_id=key_id
            ) from None

    @property
    def reads_fernet(self) -> bool:
        """Whether the ring has keys for Fernet tokens."""
        return bool(self._fernet)

    def open_fernet(self, token: bytes) -> bytes:
        """What a Fernet token holds, however old it is.

        Raises:
            StorageDenied: no key of the ring made it, or it was changed: Fernet cannot tell these apart.
        """
        from cryptography.fernet import Fernet, InvalidToken, MultiFernet

        try:
            made: Any = MultiFernet([Fernet(key) for key in self._fernet])
            plain: bytes = made.decrypt(token)
        except InvalidToken:
            raise StorageDenied(
                "a Fernet token that none of the ring's Fernet keys opens: of another key, or damaged"
            ) from None
        return plain

    def __repr__(self) -> str:
        return f"<KeyRing {' '.join(self._keys)}>"  # never a key


def _fernet_key(key: str | bytes) -> bytes:
    raw = key.encode() if isinstance(key, str) else bytes(key)
    try:
        if len(base64.urlsafe_b64decode(raw)) == KEY_BYTES:
            return raw
    except (binascii.Error, ValueError):
        pass
    raise StorageRefused("not a key of Fernet", hint="32 bytes in URL-safe Base64, as Fernet.generate_key() gives")
