"""The text of a token: ``hf_<kind>_<id>_<secret>_<check>``, and what is kept of its secret."""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from typing import Final

SECRET_CHARS: Final = 43
"""What 32 bytes take in base 62."""
TEXT_MAX: Final = 200
_DIGITS: Final = string.digits + string.ascii_letters


def new_id() -> str:
    """What a new token is called by."""
    return _base62(secrets.randbits(62), 10)[-10:]


def new_secret() -> str:
    """A secret of 256 random bits."""
    return _base62(int.from_bytes(secrets.token_bytes(32), "big"), SECRET_CHARS)


def join(kind: str, token_id: str, secret: str) -> str:
    """The text that a client shows."""
    front = f"hf_{kind}_{token_id}_{secret}"
    return f"{front}_{_check(front)}"


def split(text: str) -> tuple[str, str, str] | None:
    """(kind, id, secret) of a token's text; None if it is none, or not whole."""
    front, _, check = text.rpartition("_")
    parts = front.split("_")
    if len(parts) != 4 or parts[0] != "hf" or len(text) > TEXT_MAX or check != _check(front):
        return None
    return parts[1], parts[2], parts[3]


def digest_of(secret: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(b"hf/token/1\0" + secret.encode()).digest()


def _check(front: str) -> str:
    return _base62(zlib.crc32(front.encode()), 6)


def _base62(number: int, length: int) -> str:
    out = ""
    while number:
        number, digit = divmod(number, 62)
        out = _DIGITS[digit] + out
    return out.rjust(length, "0")
