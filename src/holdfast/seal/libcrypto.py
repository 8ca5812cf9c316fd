"""Ed25519 by the OpenSSL that this process has loaded already, for Python's own `ssl` and `hashlib`.

The `cryptography` package brings an OpenSSL of its own: 7 MB of memory and 40 ms, in a hub that may take 50 MB and a
command that may take 150 ms. Where the system's library is not at hand under its usual name, or fails its self-test,
`available` says None and `cryptography` does the work; both are the same primitive, held to the same tests.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from ctypes import c_char_p, c_int, c_size_t, c_void_p
from typing import Any, Final

_NAMES: Final = ("libcrypto.so.3", "libcrypto.so.1.1")
_ED25519: Final = 1087  # NID_ED25519, which never changes
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_SIGNATURES: Final[dict[str, tuple[Any, tuple[Any, ...]]]] = {
    "EVP_PKEY_new_raw_private_key": (c_void_p, (c_int, c_void_p, c_char_p, c_size_t)),
    "EVP_PKEY_new_raw_public_key": (c_void_p, (c_int, c_void_p, c_char_p, c_size_t)),
    "EVP_PKEY_get_raw_public_key": (c_int, (c_void_p, c_char_p, c_void_p)),
    "EVP_PKEY_free": (None, (c_void_p,)),
    "EVP_MD_CTX_new": (c_void_p, ()),
    "EVP_MD_CTX_free": (None, (c_void_p,)),
    "EVP_DigestSignInit": (c_int, (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)),
    "EVP_DigestSign": (c_int, (c_void_p, c_char_p, c_void_p, c_char_p, c_size_t)),
    "EVP_DigestVerifyInit": (c_int, (c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)),
    "EVP_DigestVerify": (c_int, (c_void_p, c_char_p, c_size_t, c_char_p, c_size_t)),
    "ERR_clear_error": (None, ()),
}


class Key:
    """One key, private or public; frees what the library holds of it."""

    def __init__(self, lib: Any, handle: int) -> None:
        self._lib = lib
        self.handle = handle

    def __del__(self) -> None:
        self._lib.EVP_PKEY_free(self.handle)


class Libcrypto:
    """The functions of the loaded library. Safe to share among threads: each call has a context of its own.

    Args:
        name: the library's file name.

    Raises:
        OSError: it is not there.
        AttributeError: it is too old for Ed25519.
    """

    def __init__(self, name: str) -> None:
        # Not CDLL: that lets other threads run during each of six calls, and beside one busy thread a check then took
        # 0.34 ms instead of 0.22 (0.1 ms is the work). Nothing here waits for anything.
        self._lib = lib = ctypes.PyDLL(name)
        for function, (result, arguments) in _SIGNATURES.items():
            found = getattr(lib, function)
            found.restype, found.argtypes = result, arguments

    def private(self, data: bytes) -> Key:
        """The private key of these 32 bytes.

        Raises:
            ValueError: they are none.
        """
        return self._key(self._lib.EVP_PKEY_new_raw_private_key, data)

    def public(self, data: bytes) -> Key:
        """The public key of these 32 bytes.

        Raises:
            ValueError: they are none.
        """
        return self._key(self._lib.EVP_PKEY_new_raw_public_key, data)

    def public_bytes(self, key: Key) -> bytes:
        """The public half of a key.

        Raises:
            ValueError: the library would not say.
        """
        buffer, size = ctypes.create_string_buffer(_KEY_BYTES), c_size_t(_KEY_BYTES)
        if self._lib.EVP_PKEY_get_raw_public_key(key.handle, buffer, ctypes.byref(size)) != 1:
            raise self._failed("read a public key")
        return buffer.raw[: size.value]

    def sign(self, key: Key, message: bytes) -> bytes:
        """The 64-byte signature of a message.

        Raises:
            ValueError: the library would not sign.
        """
        lib = self._lib
        context = lib.EVP_MD_CTX_new()
        try:
            buffer, size = ctypes.create_string_buffer(_SIGNATURE_BYTES), c_size_t(_SIGNATURE_BYTES)
            if (
                lib.EVP_DigestSignInit(context, None, None, None, key.handle) != 1
                or lib.EVP_DigestSign(context, buffer, ctypes.byref(size), message, len(message)) != 1
                or size.value != _SIGNATURE_BYTES
            ):
                raise self._failed("sign")
            return buffer.raw
        finally:
            lib.EVP_MD_CTX_free(context)

    def verify(self, key: Key, message: bytes, signature: bytes) -> bool:
        """Whether the signature is the key's over the message."""
        lib = self._lib
        context = lib.EVP_MD_CTX_new()
        try:
            good: bool = (
                lib.EVP_DigestVerifyInit(context, None, None, None, key.handle) == 1
                and lib.EVP_DigestVerify(context, signature, len(signature), message, len(message)) == 1
            )
            if not good:
                lib.ERR_clear_error()  # the queue is the thread's, and `ssl` reads it too
            return good
        finally:
            lib.EVP_MD_CTX_free(context)

    def _key(self, maker: Any, data: bytes) -> Key:
        handle = maker(_ED25519, None, data, len(data)) if len(data) == _KEY_BYTES else None
        if not handle:
            raise self._failed("read a key")
        return Key(self._lib, handle)

    def _failed(self, what: str) -> ValueError:
        self._lib.ERR_clear_error()
        return ValueError(f"libcrypto could not {what}")


@functools.cache
def available() -> Libcrypto | None:
    """The loaded library if it signs as RFC 8032 says, else None."""
    if sys.platform != "linux":  # elsewhere the file's name says too little about what it is
        return None
    for name in _NAMES:
        try:
            found = Libcrypto(name)
            if _tested(found):
                return found
        except (OSError, AttributeError, ValueError):
            continue
    return None


def _tested(lib: Libcrypto) -> bool:
    """RFC 8032, section 7.1, test 2; and that a changed message does not pass."""
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    wanted = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    key = lib.private(secret)
    public = lib.public(lib.public_bytes(key))
    good = lib.sign(key, b"\x72") == wanted and lib.verify(public, b"\x72", wanted)
    return good and not lib.verify(public, b"\x73", wanted)
