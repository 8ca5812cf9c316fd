"""The one door to `keyring`: the operating system's own store of secrets, as a place for a key-encryption key.

macOS' Keychain, Windows' Credential Locker, the Secret Service of a Linux desktop, or whatever backend its user has
chosen for `keyring`. There is one entry for each key: the service ``holdfast``, the id of the key, its 32 bytes in hex.
"""

from __future__ import annotations

from typing import Any, Final

from holdfast.errors import MissingExtra, Sealed

SERVICE: Final = "holdfast"
KEY_BYTES: Final = 32
_HINT: Final = "is somebody signed in here, and is it unlocked? `keyring --list-backends` says what there is"


def keep(key_id: str, key: bytes) -> None:
    """Puts a key into the keyring, and returns when it can be had from there again.

    Raises:
        MissingExtra: keyring is not installed.
        Sealed: there is no keyring, or it takes nothing.
    """
    library = _library()
    try:
        library.set_password(SERVICE, key_id, key.hex())
        found = library.get_password(SERVICE, key_id)
    except library.errors.KeyringError as error:
        raise _refused(error) from error
    if found != key.hex():
        raise Sealed("the keyring of this account does not keep what it is given", hint=_HINT)


def find(key_id: str) -> bytes:
    """A key that was put there.

    Raises:
        MissingExtra: keyring is not installed.
        Sealed: there is no keyring, it is locked, or the key is not in it.
    """
    library = _library()
    try:
        found = library.get_password(SERVICE, key_id)
    except library.errors.KeyringError as error:
        raise _refused(error) from error
    if found is None:
        raise Sealed(f"the key {key_id} is not in the keyring of this account", hint="whose account sealed it?")
    try:
        key = bytes.fromhex(found)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Sealed(f"what the keyring has under {SERVICE} {key_id} is no key of ours", hint=_HINT)
    return key


def drop(key_id: str) -> None:
    """Removes a key that nothing is wrapped with any more; one that is not there is as it should be.

    Raises:
        MissingExtra: keyring is not installed.
        Sealed: there is no keyring, or it is locked: the key stays in it.
    """
    library = _library()
    try:
        if library.get_password(SERVICE, key_id) is not None:
            library.delete_password(SERVICE, key_id)
    except library.errors.KeyringError as error:
        raise _refused(error) from error


def _refused(error: Exception) -> Sealed:
    return Sealed(f"the keyring of this account cannot be used: {error}", hint=_HINT)


def _library() -> Any:
    try:
        import keyring
        import keyring.errors
    except ImportError as error:
        raise MissingExtra(
            f"a key in the keyring needs a package that is not installed: {error.name}",
            hint="pip install 'holdfast[keyring]'",
        ) from error
    return keyring
