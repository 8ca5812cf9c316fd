"""Keys and signatures. The only room that imports `cryptography`, and only once something is signed or checked."""

from holdfast.seal.ed25519 import Signer, generate, verify

__all__ = ["Signer", "generate", "verify"]
