"""Ed25519 (RFC 8032): who wrote this, provable to anybody who has the public key.

Two libraries can do it, and either does it alone: see `holdfast.seal.libcrypto`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.seal.libcrypto import Libcrypto


KEY_BYTES = 32
SIGNATURE_BYTES = 64

Check = Callable[[bytes, bytes], bool]


def generate() -> bytes:
    """A new private key, 32 bytes from the system's randomness (RFC 8032 asks no more of one)."""
    return os.urandom(KEY_BYTES)


def _loaded() -> Libcrypto | None:
    from holdfast.seal import libcrypto  # ctypes is 5 ms, and most commands sign nothing

    return libcrypto.available()


class Signer:
    """Signs with one private key of 32 bytes."""

    def __init__(self, private_key: bytes) -> None:
        self._sign: Callable[[bytes], bytes]
        loaded = _loaded()
        if loaded is not None:
            key = loaded.private(private_key)
            self._sign = functools.partial(loaded.sign, key)
            self.public_key = loaded.public_bytes(key)
        else:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            made = Ed25519PrivateKey.from_private_bytes(private_key)
            self._sign = made.sign
            self.public_key = made.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of `message`."""
        return self._sign(message)


@functools.lru_cache(maxsize=256)
def _checker(public_key: bytes) -> Check:
    """What checks signatures of one key: (message, signature) -> whether it is one."""
    loaded = _loaded()
    if loaded is not None:
        return functools.partial(loaded.verify, loaded.public(public_key))
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(public_key)

    def check(message: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return check


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the holder of `public_key`'s private half signed exactly `message`."""
    if len(public_key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        return _checker(public_key)(message, signature)
    except ValueError:
        return False  # 32 bytes that are no key
