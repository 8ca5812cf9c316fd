"""What somebody has chosen for his browser: light or dark, the time zone, and whether single keys lead to pages."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from holdfast.hub.ui import zones
from holdfast.hub.ui.routes import Ask, View
from holdfast.hub.ui.sign_in import cookie_in

SCHEMES: Final = ("system", "light", "dark")
COOKIE: Final = "holdfast_scheme"
KEYS: Final = "holdfast_keys"
_YEAR_S: Final = 31_536_000


def scheme_of(ask: Ask) -> str:
    """What was chosen; ``system`` if nothing was."""
    found = cookie_in(ask.header(b"cookie"), COOKIE)
    return found if found in SCHEMES else "system"


def keys_of(ask: Ask) -> str:
    """``on`` or ``off``: whoever speaks to his browser is to be able to turn them off."""
    return "off" if cookie_in(ask.header(b"cookie"), KEYS) == "off" else "on"


async def choose(ask: Ask) -> View:
    """POST /ui/scheme: keeps the choice in a cookie of this browser."""
    if "keys" in ask.form:
        name, wanted = KEYS, "off" if ask.form["keys"] == "off" else "on"
    elif "times" in ask.form:
        local = ask.form["times"] != "utc"
        name, wanted = zones.COOKIE, zones.checked(ask.form.get("zone", "").strip()) if local else zones.USUAL
    else:
        name, wanted = COOKIE, ask.form.get("scheme", "system")
        wanted = wanted if wanted in SCHEMES else "system"
    back = urlsplit(ask.form.get("back", "/"))
    where = back.path + (f"?{back.query}" if back.query else "")
    if not where.startswith("/") or where.startswith(("//", "/\\")) or not (where.isascii() and where.isprintable()):
        where = "/"
    cookie = f"{name}={wanted}; Path=/; Max-Age={_YEAR_S}; HttpOnly; SameSite=Strict"
    return View(status=303, headers=(("location", where), ("set-cookie", cookie)))
