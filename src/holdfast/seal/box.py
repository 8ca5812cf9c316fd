"""What seals the payload of a record, and what wraps the keys that do so. No I/O, and nothing known of records.

A data key is named by a commitment to it, ``kid = SHA256("hf/kid/1\\0" ‖ key)[:16]``: no second key opens what is
sealed under that name. Every sealing takes a random nonce of 96 bits, which is safe for 2^32 sealings under one key; a
key seals one subject of one collection (ADR 0034).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any, Final

from holdfast.errors import IntegrityError, UsageError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
BLIND_BYTES: Final = 16
_KID: Final = b"hf/kid/1\0"
_BLIND: Final = b"hf/key/1\0"
_ARGON: Final[dict[str, Any]] = {"iterations": 3, "lanes": 4, "memory_cost": 64 << 10}
"""64 MiB and about a sixth of a second a guess."""
_SCRYPT: Final = {"n": 1 << 16, "r": 8, "p": 1, "maxmem": 128 << 20}


def new_key() -> bytes:
    """A key from the system's randomness."""
    return os.urandom(KEY_BYTES)


def kid_of(key: bytes) -> bytes:
    """The 16 bytes that name a data key in the headers of what it sealed."""
    return hashlib.sha256(_KID + key).digest()[:16]


def blind(index_key: bytes, key: str) -> str:
    """What stands in a header for the name of a key: found again by whoever has the index key, told to nobody else."""
    return hmac.digest(index_key, _BLIND + key.encode(), "sha256")[:BLIND_BYTES].hex()


class Box:
    """A key that seals and opens; made once and kept, since making one costs five sealings.

    Args:
        key: 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        # Lazy: 30 ms of every command that opens nothing sealed.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) != KEY_BYTES:
            raise UsageError(f"a key has {KEY_BYTES} bytes, this has {len(key)}")
        self.kid = kid_of(key)
        self._cipher: Any = AESGCM(key)
        self._invalid = InvalidTag

    def seal(self, plain: bytes, bound: bytes) -> bytes:
        """The sealed bytes, 28 longer: they open only together with `bound`, which is not in them."""
        nonce = os.urandom(NONCE_BYTES)
        sealed: bytes = nonce + self._cipher.encrypt(nonce, plain, bound)
        return sealed

    def open(self, sealed: bytes, bound: bytes) -> bytes:
        """What was sealed.

        Raises:
            IntegrityError: it was changed, moved, or sealed with another key.
        """
        try:
            plain: bytes = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
        except (self._invalid, ValueError):
            raise IntegrityError("what is sealed does not open: it was changed, or moved from another place") from None
        return plain

    def __repr__(self) -> str:
        return f"<Box {self.kid.hex()}>"  # never the key


def derivation() -> str:
    """How keys are made of passphrases here: argon2id, or scrypt where this build of OpenSSL lacks it."""
    try:
        _argon2id(bytes(16))
    except Exception:  # it is not one error: the module, or the algorithm, may be missing
        return "scrypt"
    return "argon2id"


def passphrase_key(passphrase: str, salt: bytes, how: str) -> bytes:
    """The key that a derivation makes of a passphrase (64 MiB of memory); the same words give the same key.

    Raises:
        UsageError: an empty passphrase.
    """
    if not passphrase:
        raise UsageError("an empty passphrase", hint="give some words")
    if how == "scrypt":
        return hashlib.scrypt(passphrase.encode(), salt=salt, dklen=KEY_BYTES, **_SCRYPT)
    made: bytes = _argon2id(salt).derive(passphrase.encode())
    return made


def _argon2id(salt: bytes) -> Any:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    return Argon2id(salt=salt, length=KEY_BYTES, **_ARGON)
