"""In which time zone pages say times: UTC, or the one that somebody has chosen for his browser.

A page says times in one zone from top to bottom, each with its distance from UTC. Addresses and JSON are in UTC, so
that a link means the same to everybody: what is typed in another zone is turned into UTC before it is asked for.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

from holdfast import clock
from holdfast.errors import HoldfastError, UsageError
from holdfast.hub.ui.sign_in import cookie_in

if TYPE_CHECKING:
    from holdfast.hub.ui.routes import Ask

USUAL: Final = "UTC"
COOKIE: Final = "holdfast_zone"
FIELD: Final = "zone"
"""In the query of a form whose times are in another zone than UTC: which."""
TIMES: Final = ("since", "until", "at")
"""The fields of forms that are times."""
_NAME: Final = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,2}")
_TYPED: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
_HINT: Final = "such as Europe/Berlin, or UTC"
_zone: ContextVar[tzinfo] = ContextVar("zone", default=UTC)


@lru_cache(maxsize=64)
def zone_named(name: str) -> tzinfo | None:
    """The time zone of this name; None: this machine knows none.

    Args:
        name: such as ``Europe/Berlin``; a stranger's text.
    """
    if name == USUAL:
        return UTC
    if not _NAME.fullmatch(name):
        return None
    from zoneinfo import ZoneInfo  # most hubs are looked at in UTC

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a name that is a directory, or in no list
        return None


def checked(name: str) -> str:
    """The name of a zone that this machine knows.

    Raises:
        UsageError: it knows none of that name, or none was said.
    """
    if not name:
        raise UsageError("the browser did not say its time zone", hint=f"type it beside the button: {_HINT}")
    if zone_named(name) is None:
        raise UsageError(f"unknown time zone {name!r:.60}", hint=_HINT)
    return name


def zone_of(ask: Ask) -> str:
    """The name of the zone that somebody has chosen; ``UTC`` if he chose none, or one that is not known here."""
    found = cookie_in(ask.header(b"cookie"), COOKIE)
    return found if found and zone_named(found) is not None else USUAL


@contextlib.contextmanager
def read_in(name: str) -> Iterator[None]:
    """Has the times of a page said in this zone, on this thread, for as long as the block lasts."""
    before = _zone.set(zone_named(name) or UTC)
    try:
        yield
    finally:
        _zone.reset(before)


# -- how a time is said ---------------------------------------------------------------------------------------------


def plain_time(iso: str) -> str:
    """The time in words that stand alone: ``2026-11-12 09:00:00 UTC``, or ``2026-11-12 10:00:00 +01:00``."""
    return _said(iso, "seconds")


def minute(iso: str) -> str:
    """The same without seconds: ``2026-11-12 09:00 UTC``."""
    return _said(iso, "minutes")


def moment(iso: str) -> str:
    """The same to the millisecond: ``2026-11-12 09:00:00.103 UTC``."""
    return _said(iso, "milliseconds")


def hour_of(iso: str) -> str:
    """The time of the day alone, to the millisecond: ``09:00:00.103 UTC``."""
    return _said(iso, "milliseconds").partition(" ")[2]


def day_of(iso: str) -> str:
    """The day: ``2026-11-12``."""
    found = _there(iso)
    return iso[:10] if found is None else f"{found:%Y-%m-%d}"


def point(iso: str, *, day: bool) -> str:
    """The time of a point of a chart, whose page says the zone: ``11-12 09:00``, or without its day."""
    found = _there(iso)
    return iso if found is None else f"{found:%m-%d %H:%M}" if day else f"{found:%H:%M}"


def field(text: str, timespec: str = "seconds") -> str:
    """A time as a field of a form shows it; empty where it is none.

    Args:
        text: as the address has it; without a zone it is in UTC.
        timespec: minutes or seconds, as the field takes it.
    """
    try:
        found = _there(clock.iso(clock.parse_time(text))) if text else None
    except HoldfastError:
        return ""
    return "" if found is None else found.replace(tzinfo=None).isoformat(timespec=timespec)


def _there(iso: str) -> datetime | None:
    """A time in the zone that is read in; None where the text, perhaps a stranger's, is none."""
    try:
        found = datetime.fromisoformat(iso)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(_zone.get())
    except (ValueError, OverflowError):
        return None


def _said(iso: str, timespec: str) -> str:
    found = _there(iso)
    if found is None:
        return iso
    text = found.replace(tzinfo=None).isoformat(" ", timespec=timespec)
    if _zone.get() is UTC:
        return f"{text} UTC"
    far = f"{found:%z}"
    return f"{text} {far[:3]}:{far[3:5]}"


# -- what is typed --------------------------------------------------------------------------------------------------


def settled(query: str) -> str | None:
    """The same query with its times in UTC, where a form sent them in another zone; None: it says no zone.

    Raises:
        UsageError: a zone that is not known here.
    """
    pairs = parse_qsl(query, keep_blank_values=True)
    name = next((value for field_, value in pairs if field_ == FIELD), None)
    if name is None:
        return None
    checked(name)
    return urlencode([(n, in_utc(v, name) if n in TIMES else v) for n, v in pairs if n != FIELD and v])


def in_utc(text: str, name: str) -> str:
    """A time as a field of a form sends it, in UTC; as it is where it says its own zone, or is none.

    Args:
        text: what was typed.
        name: of the zone that the field was in; empty: UTC.

    Raises:
        UsageError: a zone that is not known here.
    """
    zone = zone_named(checked(name or USUAL))
    if not _TYPED.fullmatch(text):
        return text
    try:
        found = datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return text  # no time: whoever reads it says so
    return found.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
