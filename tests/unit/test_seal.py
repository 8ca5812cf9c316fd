"""Ed25519 as RFC 8032 has it: the right key's signature passes, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast import seal
from holdfast.seal import ed25519, libcrypto

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.fixture(params=["libcrypto", "cryptography"], autouse=True)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every law holds whichever library does the work."""
    if request.param == "cryptography":
        monkeypatch.setattr(libcrypto, "available", lambda: None)
    elif libcrypto.available() is None:
        pytest.skip("this machine's OpenSSL is not at hand")
    ed25519._checker.cache_clear()
    yield request.param
    ed25519._checker.cache_clear()


def test_a_signature_of_one_library_passes_in_the_other(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = seal.Signer(bytes(range(32)))
    signature = signer.sign(b"message")
    monkeypatch.undo()
    if library == "libcrypto":
        monkeypatch.setattr(libcrypto, "available", lambda: None)
    ed25519._checker.cache_clear()
    assert seal.Signer(bytes(range(32))).public_key == signer.public_key
    assert seal.verify(signer.public_key, b"message", signature)
    assert not seal.verify(signer.public_key, b"massage", signature)


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032_hold(secret: str, public: str, message: str, signature: str) -> None:
    signer = seal.Signer(bytes.fromhex(secret))
    assert signer.public_key.hex() == public
    assert signer.sign(bytes.fromhex(message)).hex() == signature
    assert seal.verify(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


def test_another_key_another_message_or_a_flipped_bit_does_not_pass() -> None:
    signer, other = seal.Signer(seal.generate()), seal.Signer(seal.generate())
    signature = signer.sign(b"message")
    assert seal.verify(signer.public_key, b"message", signature)
    assert not seal.verify(other.public_key, b"message", signature)
    assert not seal.verify(signer.public_key, b"messagE", signature)
    for bit in range(512):
        bad = bytearray(signature)
        bad[bit // 8] ^= 1 << bit % 8
        assert not seal.verify(signer.public_key, b"message", bytes(bad))


@pytest.mark.parametrize("key_size", [0, 31, 33, 64])
def test_a_key_of_another_length_does_not_pass(key_size: int) -> None:
    signer = seal.Signer(seal.generate())
    key = (signer.public_key * 2)[:key_size]
    assert not seal.verify(key, b"m", signer.sign(b"m"))


@pytest.mark.parametrize("size", [0, 63, 65, 128])
def test_a_signature_of_another_length_does_not_pass(size: int) -> None:
    signer = seal.Signer(seal.generate())
    assert not seal.verify(signer.public_key, b"m", (signer.sign(b"m") * 2)[:size])


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, b"\x02" + bytes(31)])
def test_32_bytes_that_are_no_usable_key_do_not_pass(key: bytes) -> None:
    assert not seal.verify(key, b"m", seal.Signer(seal.generate()).sign(b"m"))
    assert not seal.verify(key, b"m", b"\xff" * 64)


def test_generated_keys_differ() -> None:
    keys = {seal.generate() for _ in range(20)}
    assert len(keys) == 20
    assert {len(key) for key in keys} == {32}
