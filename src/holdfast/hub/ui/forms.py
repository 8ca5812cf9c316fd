"""Forms: read, and let pass only if one of this hub's own pages sent them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from holdfast.errors import Denied, UsageError
from holdfast.hub.exchange import Scope, header

if TYPE_CHECKING:
    from holdfast.hub.core import Core

FIELDS_MAX: Final = 200
FIELD: Final = "form_token"


class Fields(dict[str, str]):
    """The fields of a form by name, of several with one name the last; `many` has all of these.

    Args:
        pairs: as they were sent.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def many(self, name: str) -> list[str]:
        """Every value of a name that is not empty, in their order."""
        return [value for each, value in self._pairs if each == name and value]


class Forms:
    """Makes and checks the token that each form carries.

    It is bound to the session, so that a form of one person is none of another's; whoever needs no session has the one
    of this hub. It comes on top of what the gate checks (Origin), the cookie (SameSite) and `Sec-Fetch-Site`.

    Args:
        core: the hub; every process of one database has the same key, so any of them takes what another showed.
    """

    def __init__(self, core: Core) -> None:
        self._key = hashlib.sha256(core.home.signer.sign(b"hf/form/1\0")).digest()

    def token(self, session: Any) -> str:
        """What a form of this session carries."""
        whose = session.digest if session is not None else b"nobody"
        return hmac.new(self._key, whose, hashlib.sha256).hexdigest()

    def read(self, scope: Scope, data: bytes, session: Any) -> Fields:
        """The fields of a form.

        Raises:
            Denied: another site's page sent it, or a page from before somebody signed in or out.
            UsageError: it is no form.
        """
        site = header(scope, b"sec-fetch-site")
        if site and site != b"same-origin":
            raise Denied("a page of another site may not act here", hint="use the pages of this hub")
        try:
            pairs = parse_qsl(
                data.decode(),
                keep_blank_values=True,
                strict_parsing=bool(data),
                errors="strict",
                max_num_fields=FIELDS_MAX,
            )
        except ValueError as error:
            raise UsageError(f"the body is no form: {error}", hint="use the pages of this hub") from error
        fields = Fields(pairs)
        if not hmac.compare_digest(fields.pop(FIELD, "").encode(), self.token(session).encode()):
            raise Denied("this form is not of this session", hint="load the page again, and send it from there")
        return fields
