"""The OpenAPI document and the page that shows it: open to all, as neither says more than the documentation does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Annotated, Any, Final

from msgspec import Meta

from holdfast.errors import NotFound
from holdfast.hub.api import Call, Operation, Reply, typed
from holdfast.hub.exchange import encode_json
from holdfast.hub.routes_health import hub_version

KINDS: Final = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.svg": "image/svg+xml",
}
SAFE: Final = (
    ("content-security-policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("cache-control", "no-cache"),
)
"""The page takes nothing from elsewhere, and sends nothing there; the rest is what the door adds to every answer."""

Asset = Annotated[str, Meta(description="a part of the page", extra_json_schema={"enum": list(KINDS)[1:]})]


def operations(listed: Sequence[Operation]) -> Iterator[Operation]:
    """The document of every operation in a list, and its page."""
    parts = Parts()

    def get(path: str, work: Any, summary: str, **more: Any) -> Operation:
        return Operation(
            method="GET", path=path, endpoint=typed(work), needs="", summary=summary, tag="documentation", **more
        )

    yield get("/openapi.json", Document(listed), "This document", answer=dict[str, Any])
    yield get("/docs", parts, "This document, to read and to try", answer=bytes, gives=KINDS["page.html"])
    yield get(
        "/docs/{name}",
        parts,
        "What that page is made of",
        where={"name": Asset},
        answer=bytes,
        gives=KINDS["page.css"],
        or_gives=(KINDS["page.js"], KINDS["page.svg"]),
        errors=(404,),
    )


class Document:
    """GET /openapi.json: OpenAPI 3.1, made when it is first asked for.

    Args:
        listed: the operations; looked at then, so all of them may still be on their way here.
    """

    def __init__(self, listed: Sequence[Operation]) -> None:
        self._listed = listed
        self._made: Reply | None = None

    async def __call__(self, call: Call) -> Reply:
        """The answer to one request."""
        if self._made is None:
            from holdfast.hub.openapi import document

            data = encode_json(document(self._listed, hub_version()))
            tag = hashlib.sha256(data).hexdigest()[:32]
            self._made = Reply(data, headers=(("etag", f'"{tag}"'), ("cache-control", "no-cache")))
        return self._made


class Parts:
    """GET /docs: a page of this package alone, which reads the document and asks nothing of other hosts."""

    async def __call__(self, call: Call) -> Reply:
        """The answer to one request."""
        name = call.path.get("name", "page.html")
        if name not in KINDS or (name == "page.html" and call.path):
            raise NotFound(f"there is nothing at /docs/{name:.80}", hint="see /docs")
        data = resources.files("holdfast.hub").joinpath("page", name).read_bytes()
        return Reply(data, headers=SAFE, kind=KINDS[name])
