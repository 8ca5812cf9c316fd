"""What is written: messages of real conversations where they are at hand, else made ones of like sizes.

Every process of a run makes the same messages from a number, so that a reader knows what it must read.
"""

from __future__ import annotations

import json
import os
import random
from functools import cache
from pathlib import Path
from typing import Any

NAME = "conversations.json"
SESSIONS = 5
SIZES = ((0.10, 90), (0.50, 215), (0.75, 420), (0.90, 900), (0.99, 3500), (1.0, 9000))
"""Size in bytes by rank, of the real ones: most are short, few are long."""


def folder() -> Path | None:
    """Where real conversations lie: $HOLDFAST_DATA, or ../shared/data beside the project."""
    given = os.environ.get("HOLDFAST_DATA")
    for place in [Path(given)] if given else [Path(__file__).resolve().parents[2] / "shared" / "data"]:
        if (place / NAME).is_file():
            return place
    return None


def origin() -> str:
    """Where the messages are from, for the page."""
    found = "real conversations" if folder() else "made conversations of like sizes (real ones were not at hand)"
    sizes = sorted(len(json.dumps(each)) for each in messages())
    return f"{found}: {len(sizes):,} messages, median {sizes[len(sizes) // 2]} bytes, largest {sizes[-1]:,}"


@cache
def messages() -> list[dict[str, Any]]:
    """All messages, in their order."""
    place = folder()
    if place is None:
        return _made()
    conversations = json.loads((place / NAME).read_text("utf-8"))
    return [message for each in conversations for message in each["traj"]]


def message(number: int) -> dict[str, Any]:
    """The message with this number; no two have the same content."""
    found = messages()
    return found[number % len(found)] | {"n": number}


def session(number: int) -> str:
    """The conversation that a message belongs to."""
    return f"session-{number % SESSIONS}"


def state(number: int) -> dict[str, Any]:
    """A small value under a key, never twice the same."""
    return {
        "theme": "dark",
        "prefs": {"seat": "aisle", "meal": "vegan"},
        "history": ["SFO-JFK", "JFK-SEA"] * 5,
        "step": number,
        "rev": f"{number * 2654435761 % (1 << 32):08x}",
    }


def _made() -> list[dict[str, Any]]:
    rng = random.Random(7)
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    words = ["".join(rng.choices(letters, k=rng.randrange(2, 11))) for _ in range(4000)]
    out = []
    for number in range(2000):
        rank = rng.random()
        size, below = 90, 0.0
        for part, bytes_ in SIZES:
            if rank <= part:
                size += round((bytes_ - size) * (rank - below) / (part - below))
                break
            size, below = bytes_, part
        text = " ".join(rng.choices(words, k=max(1, size // 7)))
        out.append({"role": ("user", "assistant", "tool")[number % 3], "content": text})
    return out
