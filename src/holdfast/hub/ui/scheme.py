"""Light or dark: as the system says, or as somebody has chosen."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.sign_in import cookie_in

SCHEMES: Final = ("system", "light", "dark")
COOKIE: Final = "holdfast_scheme"
_YEAR_S: Final = 31_536_000


def scheme_of(ask: Ask) -> str:
    """What was chosen; ``system`` if nothing was."""
    found = cookie_in(ask.header(b"cookie"), COOKIE)
    return found if found in SCHEMES else "system"


async def choose(ask: Ask) -> View:
    """POST /ui/scheme: keeps the choice in a cookie of this browser."""
    wanted = ask.form.get("scheme", "system")
    wanted = wanted if wanted in SCHEMES else "system"
    back = urlsplit(ask.form.get("back", "/"))
    where = back.path + (f"?{back.query}" if back.query else "")
    if not where.startswith("/") or where.startswith(("//", "/\\")) or not (where.isascii() and where.isprintable()):
        where = "/"
    cookie = f"{COOKIE}={wanted}; Path=/; Max-Age={_YEAR_S}; HttpOnly; SameSite=Strict"
    return View(status=303, headers=(("location", where), ("set-cookie", cookie)))
