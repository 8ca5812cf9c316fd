"""Who answers a request: by its path and its method, from what was declared; and the life of the application.

It is all that a hub needs of a web framework, and small: one would take as much memory as all pages together.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from holdfast.hub.exchange import Receive, Scope, Send

_PARAMETER: Final = re.compile(r"\{(\w+)(:path)?\}")


class Methods:
    """What one path answers to, each method with its own guard; HEAD is GET unless it is an operation of its own.

    Attributes:
        path: as it was declared; ``{name}`` is one part of a path, ``{name:path}`` all that is left of it.
        allowed: who answers each method.

    Args:
        guarded: the operations of this path.
    """

    def __init__(self, guarded: list[Any]) -> None:
        self.allowed = {each.operation.method: each for each in guarded}
        first = guarded[0].operation
        self.path = first.path.replace(f"{{{first.deep}}}", f"{{{first.deep}:path}}") if first.deep else first.path
        if "GET" in self.allowed:
            self.allowed.setdefault("HEAD", self.allowed["GET"])

    @property
    def methods(self) -> set[str]:
        """The methods that there are."""
        return set(self.allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request with a method that is allowed."""
        await self.allowed[scope["method"]](scope, receive, send)


def by_path(guarded: Iterable[Any]) -> list[Methods]:
    """The operations of each path together, so that whoever uses another method is told all that there are."""
    found: dict[str, list[Any]] = {}
    for each in guarded:
        found.setdefault(each.operation.path, []).append(each)
    return [Methods(each) for each in found.values()]


class Routes:
    """The paths of a hub. Of several that fit, the one that was declared first and has the method answers.

    Args:
        every: in the order in which they were declared.
    """

    def __init__(self, every: list[Methods]) -> None:
        self._plain: dict[str, tuple[int, Methods]] = {}
        self._patterns: list[tuple[int, re.Pattern[str], Methods]] = []
        for number, each in enumerate(every):
            if "{" in each.path:
                self._patterns.append((number, _pattern(each.path), each))
            else:
                self._plain[each.path] = number, each

    def find(self, method: str, path: str) -> tuple[Methods | None, dict[str, str]]:
        """Who answers, and what the parameters in the path are; where none has the method, who has the path."""
        fits: list[tuple[int, Methods, dict[str, str]]] = []
        plain = self._plain.get(path)
        if plain is not None:
            fits.append((*plain, {}))
            if method in plain[1].allowed and (not self._patterns or plain[0] < self._patterns[0][0]):
                return plain[1], {}
        for number, pattern, each in self._patterns:
            if plain is not None and method in plain[1].allowed and plain[0] < number:
                break
            if (found := pattern.fullmatch(path)) is not None:
                if method in each.allowed:
                    return each, found.groupdict()
                fits.append((number, each, found.groupdict()))
        if plain is not None and method in plain[1].allowed:
            return plain[1], {}
        if not fits:
            return None, {}
        _, first, parameters = min(fits, key=lambda fit: fit[0])
        return first, parameters

    def beside(self, method: str, path: str) -> str:
        """The path with a slash more or less at its end, if there is something; empty: there is not."""
        other = path.rstrip("/") if path.endswith("/") else f"{path}/"
        return other if other and self.find(method, other)[0] is not None else ""


def _pattern(path: str) -> re.Pattern[str]:
    made, at = "", 0
    for found in _PARAMETER.finditer(path):
        made += re.escape(path[at : found.start()]) + f"(?P<{found[1]}>{'.*' if found[2] else '[^/]+'})"
        at = found.end()
    return re.compile(made + re.escape(path[at:]))


async def live(life: Callable[[], AbstractAsyncContextManager[None]], receive: Receive, send: Send) -> None:
    """Begins and ends with the server that runs the application (ASGI's lifespan).

    Args:
        life: what is to be open while it runs.
        receive, send: of the lifespan.
    """
    started = False
    await receive()
    try:
        async with life():
            started = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except BaseException:
        kind = "lifespan.shutdown.failed" if started else "lifespan.startup.failed"
        await send({"type": kind, "message": traceback.format_exc()})
        raise
    await send({"type": "lifespan.shutdown.complete"})
