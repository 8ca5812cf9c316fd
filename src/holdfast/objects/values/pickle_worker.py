"""The process that reads one pickle: with little memory and time, no file that grows, and nothing to be stolen.

No instruction of a pickle is run that could reach anything (`pickle_reading`); this is the second wall, and what keeps
a pickle that is small and becomes large from taking the caller with it. It reads standard input and answers in JSON.
"""

from __future__ import annotations

import math
import resource
import sys

import msgspec

from holdfast.errors import HoldfastError, ObjectCorrupt, StorageRefused
from holdfast.objects.values.forms import Unsayable
from holdfast.objects.values.pickle_reading import said_of

VALUE = b"v"
REFUSED = b"r"
CORRUPT = b"c"


def main() -> None:
    """Answers with a letter and JSON: the value, or the error's message and hint."""
    memory, seconds, *allow = sys.argv[1:]
    _confine(int(memory), float(seconds))
    sys.stdout.buffer.write(_answer(sys.stdin.buffer.read(), frozenset(allow)))


def _confine(memory: int, seconds: float) -> None:
    limits = (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, max(1, math.ceil(seconds))),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 8),
    )
    for what, most in limits:
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(what, (most, most))
        except (ValueError, OSError):
            continue  # macOS has no limit of addresses; the time's and the caller's remain


def _answer(data: bytes, allow: frozenset[str]) -> bytes:
    try:
        return VALUE + msgspec.json.encode(said_of(data, allow))
    except ObjectCorrupt as error:
        return CORRUPT + msgspec.json.encode([error.message, error.hint])
    except HoldfastError as error:
        return REFUSED + msgspec.json.encode([error.message, error.hint])
    except Unsayable as error:
        return _refused(f"what it holds cannot be stored, at value{error.where}: {error.why}", error.hint)
    except UnicodeEncodeError:
        return _refused("it holds text with half of a surrogate pair")
    except RecursionError:
        return _refused("it is nested too deeply")
    except MemoryError:
        return _refused("it needs more memory than it was given", "read_pickle(data, memory=…) gives it more")


def _refused(message: str, hint: str = "") -> bytes:
    return REFUSED + msgspec.json.encode([StorageRefused(message).message, hint])


if __name__ == "__main__":
    main()
