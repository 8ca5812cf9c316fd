"""What pages are made of besides their data: styles, scripts. Their names hold their digest, so they never change."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib import resources
from typing import Final

from holdfast.errors import NotFound
from holdfast.hub.ui.routes import Ask, View

FILES: Final = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "grafana.json": "application/json",
    "icon.svg": "image/svg+xml",
    "letter.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "messages.js": "text/javascript; charset=utf-8",
    "uplot.css": "text/css; charset=utf-8",
}
_PARTS: Final = {
    # As one: htmx looks at the page in a moment, and an extension that comes in a file of its own may come too late.
    "live.js": ("vendor/htmx.min.js", "vendor/hx-sse.min.js"),
    "uplot.css": ("vendor/uPlot.min.css",),
    "charts.js": ("vendor/uPlot.iife.min.js", "charts.js"),
}
_FOR_EVER: Final = "public, max-age=31536000, immutable"


@cache
def bytes_of(name: str) -> bytes:
    """One of the files, read once."""
    names = _PARTS.get(name, (name,))
    folder = resources.files("holdfast.hub.ui").joinpath("static")
    return b"\n".join(folder.joinpath(*each.split("/")).read_bytes() for each in names)


@cache
def _packed(name: str) -> bytes:
    return gzip.compress(bytes_of(name), mtime=0)


@cache
def address(name: str) -> str:
    """Where a file is, under a name that holds its digest."""
    stem, _, ending = name.rpartition("/")[2].rpartition(".")
    return f"/ui/static/{stem}.{hashlib.sha256(bytes_of(name)).hexdigest()[:16]}.{ending}"


@cache
def _by_address() -> dict[str, str]:
    return {address(name): name for name in FILES}


async def asset(ask: Ask) -> View:
    """GET /ui/static/…: one of the files, open to all, as the page to sign in is made of them."""
    path = ask.scope["path"]
    name = _by_address().get(path)
    if name is None:
        raise NotFound(f"there is nothing at {path:.120}", hint="load the page again: its parts have other names now")
    data, headers = (
        bytes_of(name),
        {"cache-control": _FOR_EVER, "content-security-policy": "default-src 'none'; sandbox"},
    )
    headers["vary"] = "Accept-Encoding"
    if "gzip" in ask.header(b"accept-encoding"):
        data, headers["content-encoding"] = _packed(name), "gzip"
    return View(data=data, kind=FILES[name], headers=tuple(headers.items()))
