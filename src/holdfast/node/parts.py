"""How the parts of a hub's service are asked: sessions, files, tables and the others, as attributes of `Hub`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import quote

import msgspec

from holdfast import codec
from holdfast.errors import HubError, UsageError
from holdfast.transport.client import Answer, HubClient

if TYPE_CHECKING:
    from holdfast.node.hub import Hub

PAGE: Final = 1000
JSON: Final = {"Content-Type": "application/json"}

T = TypeVar("T")


class Part:
    """What every part of the service is asked through. Of several hubs the first takes what is written; where it does
    not answer, the next one that does is read from.

    Args:
        hub: where the service is.
    """

    _room: ClassVar[str] = "/storage"

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._client = hub.client

    def _ask(
        self, method: str, path: str, body: Any = None, *, expect: int | str | None = None, **query: Any
    ) -> Answer:
        headers = dict(JSON) if body is not None else {}
        if expect == 0:
            headers["If-None-Match"] = "*"
        elif expect is not None:
            headers["If-Match"] = f'"{expect}"'
        data = None if body is None else encode(body)

        def want(client: HubClient) -> Answer:
            return client.want(method, f"{self._room}/{path}", query=query, body=data, headers=headers)

        return self._hub.ask(lambda hub: want(hub.client)) if method == "GET" else want(self._client)

    def _list(self, path: str, kind: type[T], limit: int, **query: Any) -> list[T]:
        """A list, page by page until there are `limit` of them or no more; all of it of one hub."""

        def pages(client: HubClient) -> list[T]:
            out: list[T] = []
            cursor = None
            while len(out) < limit:
                asked = {**query, "after": cursor, "limit": min(PAGE, limit - len(out))}
                answer = client.want("GET", f"{self._room}/{path}", query=asked)
                out += decode(answer, list[kind])  # type: ignore[valid-type]
                cursor = answer.headers.get("X-Next-Cursor")
                if not cursor:
                    break
            return out

        return self._hub.ask(lambda hub: pages(hub.client))


def encode(body: Any) -> bytes:
    """JSON values as a request's body.

    Raises:
        UsageError: they hold something that JSON would say otherwise: bytes, dates, NaN.
    """
    return codec.serialise(body)[1]


def decode(answer: Answer, kind: type[T]) -> T:
    """What a hub answered.

    Raises:
        HubError: something else than was agreed.
    """
    try:
        return msgspec.json.decode(answer.body, type=codec.ready(kind))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HubError(f"the hub's answer is not as agreed: {error}", hint="is it another version?") from error


def name_in_path(text: str) -> str:
    """An id as a piece of a path.

    Raises:
        UsageError: it is no text, or empty.
    """
    if not isinstance(text, str) or not text:
        raise UsageError(f"an id is text, got {text!r:.80}", hint="such as session_1")
    return quote(text, safe="")
