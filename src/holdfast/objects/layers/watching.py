"""Bodies that somebody watches while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from holdfast.objects.port import Content

Over: TypeAlias = Callable[[int, Exception | None], None]
"""Takes how many bytes came, and what broke them off."""


class Watched(Content):
    """Another content's bytes; says once when they are over: read, given up or broken off.

    Args:
        content: closed with this one, be it read or not.
        over: what is told.
        first: pieces that were taken from `content` already.
    """

    def __init__(self, content: Content, over: Over | None = None, first: Sequence[bytes] = ()) -> None:
        super().__init__(content.info, self._watch(content, first))
        self._below = content
        self._over = over

    def close(self) -> None:
        super().close()
        self._below.close()
        self._tell(0, None)  # of one that nobody began to read; else it was told

    def _watch(self, content: Content, first: Sequence[bytes]) -> Iterator[bytes]:
        size = 0
        failed: Exception | None = None
        try:
            for piece in first:
                size += len(piece)
                yield piece
            for piece in content:
                size += len(piece)
                yield piece
        except Exception as error:
            failed = error
            raise
        finally:
            content.close()
            self._tell(size, failed)

    def _tell(self, size: int, failed: Exception | None) -> None:
        over, self._over = self._over, None
        if over is not None:
            over(size, failed)
