"""Put, get, batch and history over a corpus, blobs and keys. Knows no network; node and hub both write through it."""

from holdfast.log.drafts import Draft, message, remove, value
from holdfast.log.levels import ADVANCED, BASIC, CRITICAL, Level, level
from holdfast.log.log import Log
from holdfast.log.opening import Incident, OpenLog, new_incarnation
from holdfast.log.reading import load

__all__ = [
    "ADVANCED",
    "BASIC",
    "CRITICAL",
    "Draft",
    "Incident",
    "Level",
    "Log",
    "OpenLog",
    "level",
    "load",
    "message",
    "new_incarnation",
    "remove",
    "value",
]
