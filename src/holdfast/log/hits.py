"""What users see of a search: versions with scores, and what is to be known of all of them together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast.log.versions import Version


class Hit(Version, frozen=True, kw_only=True):
    """A version that a search found.

    Attributes:
        score: between 0 and 1, the best first. By words 1.0 is for every word, and less than 0.25 for a part of them;
            by vectors it is the cosine; by both, what the two lists say together.
        parts: with ``explain=True``, what the score is made of.
    """

    score: float = 1.0
    parts: dict[str, Any] | None = None


class Hits(list[Hit]):
    """What a search found, the best first.

    Attributes:
        mode: how it was looked for in the end: text, vector or hybrid.
        partial: whether something may be missing: an index is behind, or not everything could be looked at.
        pending: how many records of the collection wait to be embedded.
    """

    def __init__(
        self, hits: Iterable[Hit] = (), *, mode: str = "text", partial: bool = False, pending: int = 0
    ) -> None:
        super().__init__(hits)
        self.mode, self.partial, self.pending = mode, partial, pending


def hit_of(version: Version, score: float, parts: dict[str, Any] | None) -> Hit:
    """A version, with its score."""
    fields = {name: getattr(version, name) for name in Version.__struct_fields__}
    return Hit(**fields, score=score, parts=parts)


def hit_in(data: dict[str, Any], version: Version) -> Hit:
    """The hit that a hub's answer shows: the version in it, with the score beside.

    Raises:
        UsageError: the answer shows no score.
    """
    from holdfast.errors import UsageError

    score, parts = data.get("score"), data.get("parts")
    if not isinstance(score, int | float) or not (parts is None or isinstance(parts, dict)):
        raise UsageError(f"this shows no score: {score!r:.40}")
    return hit_of(version, float(score), parts)

