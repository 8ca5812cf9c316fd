"""What of a rule nobody is to read: its address, a token, and the key of its signatures. Sealed into the rule.

The key is made of the hub's own: nothing is stored that opens it, and no other hub can. What is sealed opens only with
the rest of the rule as it was: who may write into the collection cannot send messages elsewhere by changing a rule.
"""

from __future__ import annotations

import base64
import hashlib
import os
from typing import Any, Final

import msgspec

from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.notify.rules import Rule
from holdfast.seal.box import Box

_KEY: Final = b"hf/notify/1\0"
_SECRET: Final = "whsec_"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rule's notifications go.

    Attributes:
        address: of the webhook, or of the topic.
        token: shown there as a bearer's; empty: none.
        secret: the key of the signatures.
    """

    address: str
    token: str = ""
    secret: bytes = b""

    @property
    def secret_text(self) -> str:
        """The key as receivers of webhooks are given it."""
        return _SECRET + base64.b64encode(self.secret).decode()


def new_secret() -> bytes:
    """A key of signatures."""
    return os.urandom(32)


class Vault:
    """Seals and opens with the key of one hub.

    Args:
        signer: of the hub.
    """

    def __init__(self, signer: Any) -> None:
        self._box = Box(hashlib.sha256(signer.sign(_KEY)).digest())

    def seal(self, name: str, rule: Rule, target: Target) -> Rule:
        """The rule with what is secret of it sealed in."""
        sealed = self._box.seal(msgspec.json.encode(target), _bound(name, rule))
        return msgspec.structs.replace(rule, sealed=base64.b64encode(sealed).decode())

    def open(self, name: str, rule: Rule) -> Target:
        """What was sealed.

        Raises:
            UsageError: it was sealed by another hub, or the rule was changed by somebody who may not.
        """
        try:
            plain = self._box.open(base64.b64decode(rule.sealed, validate=True), _bound(name, rule))
            return msgspec.json.decode(plain, type=Target)
        except (HoldfastError, ValueError) as error:
            raise UsageError(
                "its address does not open: another hub sealed it, or the rule was changed past this hub's settings",
                hint=f"give the address again: holdfast notify add {name} ADDRESS",
            ) from error


def _bound(name: str, rule: Rule) -> bytes:
    return name.encode() + b"\0" + msgspec.json.encode(msgspec.structs.replace(rule, sealed=""))
