"""Keys, signatures and sealed objects. The only room that imports `cryptography`, and only once something is signed,
checked, sealed or opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.seal.ed25519 import Signer, generate, verify

if TYPE_CHECKING:
    from holdfast.seal.keys import KeyRing

__all__ = ["KeyRing", "Signer", "generate", "verify"]


def __getattr__(name: str) -> Any:
    if name != "KeyRing":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from holdfast.seal.keys import KeyRing  # most commands sign, and few seal

    return KeyRing
