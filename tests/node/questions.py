"""Questions about what an agent may know, and an embedding function that is made of letters and words alone."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Final

DIMS: Final = 512
_WORD: Final = re.compile(r"\w+")

KNOWN: Final = {
    "tea": "Mia prefers black tea with milk in the morning, never coffee.",
    "deploy": "Deployments to production happen on Tuesdays after the standup; Jonas approves them.",
    "error": "Error HF-4711 means that the hub's certificate has expired; renew it and restart the proxy.",
    "error2": "Error HF-4712 means that the node's clock is more than a minute behind.",
    "flight": "Reservation ZFA04Y: Newark to Seattle, two passengers, one checked bag, travel insurance bought.",
    "flight2": "Reservation 8C8K4E: Boston to Denver, cancelled by the customer, refund went to certificate_7504069.",
    "birthday": "Lena's birthday is on the third of March; she collects vintage typewriters.",
    "database": "The billing database moved from MySQL to PostgreSQL 16 in June; the old host is read only.",
    "allergy": "Tom is allergic to peanuts and shellfish, so restaurants must be asked beforehand.",
    "budget": "The quarterly cloud budget is 40,000 euros, of which two thirds go to the training cluster.",
    "style": "Code reviews: small pull requests, no force pushes, squash before merging.",
    "password": "Passwords are rotated every ninety days; the vault's recovery keys lie in the safe in Zurich.",
}

QUESTIONS: Final = {
    "what does Mia drink in the mornings": "tea",
    "does she like her tea with milk": "tea",
    "when do we deploy to production": "deploy",
    "who approves a deployment": "deploy",
    "HF-4711": "error",
    "what is error HF-4712 about": "error2",
    "ZFA04Y": "flight",
    "the reservation to Denver that was cancelled": "flight2",
    "certificate_7504069": "flight2",
    "Lena's birthday": "birthday",
    "who collects typewriters": "birthday",
    "was the billing database moved to Postgres": "database",
    "peanut allergies": "allergy",
    "how large is the cloud budget per quarter": "budget",
    "should pull requests be squashed before merge": "style",
    "where are the recovery keys": "password",
    "password rotation": "password",
}
EXACT: Final = ("HF-4711", "HF-4712", "ZFA04Y", "8C8K4E", "certificate_7504069")
"""Names that stand in one value each."""


def letters(texts: list[str]) -> list[list[float]]:
    """Vectors of texts: words, and runs of four letters in them, thrown into heaps."""
    out = []
    for text in texts:
        vector = [0.0] * DIMS
        for word in _WORD.findall(text.casefold()):
            padded = f"<{word}>"
            runs = {padded, *(padded[at : at + 4] for at in range(len(padded) - 3))}
            for run in runs:
                vector[zlib.crc32(run.encode()) % DIMS] += 1.0
        out.append(vector)
    return out


def reciprocal(ranks: Sequence[int | None]) -> float:
    """The mean reciprocal rank; None for what was not found."""
    return sum(1 / rank for rank in ranks if rank) / len(ranks)
