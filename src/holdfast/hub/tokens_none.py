"""The tokens of a hub that keeps none."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.errors import UsageError
from holdfast.hub.acts import ActStore, NoActs
from holdfast.hub.sign_ins import NoSignIns, SignInStore
from holdfast.hub.tokens import Token, TokenStore


class NoTokens(TokenStore):
    """Of a hub that keeps none: nobody has one, and none can be made."""

    def add(self, token: Token) -> None:
        raise UsageError("this hub keeps no tokens", hint="holdfast serve --token-file FILE")

    def find(self, token_id: str) -> Token | None:
        return None

    def every(self) -> list[Token]:
        return []

    def revoke(self, token_id: str, now_ms: int) -> bool:
        return False

    def used(self, times: Mapping[str, int]) -> None:
        pass

    def changes(self) -> tuple[int, bool]:
        return 0, False

    def sign_ins(self) -> SignInStore:
        return NoSignIns()

    def acts(self) -> ActStore:
        return NoActs()

    def close(self) -> None:
        pass
