"""Calling somebody else's function that makes vectors of texts: in lots, sync or async, and whatever it does wrong.

A lot that fails is not tried text by text at once: first a harmless text is. If that fails too, the function is down,
and nothing is said of the texts. Else some of them are to blame: halves are tried until they are alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from holdfast.corpus.search.indexes import LOT, Declared
from holdfast.corpus.search.numbers import pack
from holdfast.corpus.search.texts import said
from holdfast.errors import HoldfastError, UsageError

if TYPE_CHECKING:
    import asyncio

Embed: TypeAlias = Callable[[list[str]], Any]
"""Gives one vector for each text, or something that is awaited and does."""
HARMLESS: Final = "holdfast"
"""The text that a function is tried with, to tell a function that is down from a text that it cannot take."""


class Embedded(msgspec.Struct, frozen=True):
    """What became of some texts: their packed vectors, and what was said of those that failed, by their number.

    `down` is what the function said if it fails whatever it is given; then nothing is known of the texts.
    """

    vectors: list[bytes | None]
    errors: dict[int, str] = {}
    down: str = ""


class Embedder:
    """A function that makes vectors, for one way of making them. Safe to share among threads.

    What it gives is awaited on one event loop of its own, since clients of services belong to the loop that they were
    first used on.

    Args:
        fn: gives one vector for each text; plain or async.
        declared: what it is to give.
    """

    def __init__(self, fn: Embed, declared: Declared) -> None:
        if not callable(fn):
            raise UsageError(
                f"embed is no function: {fn!r:.80}", hint="embed=fn, where fn(list of texts) gives vectors"
            )
        self.fn, self.declared = fn, declared
        self.dims = declared.dims
        self._lock = threading.Lock()  # guards _loop
        self._loop: asyncio.AbstractEventLoop | None = None

    def query(self, text: str) -> bytes:
        """The packed vector of one text.

        Raises:
            HoldfastError: the function failed; what it raised is the cause.
        """
        try:
            return self._call([text])[0]
        except Exception as error:
            raise HoldfastError(
                f"the embedding function of {self.declared.model} failed: {said(error)}",
                hint="mode='text' searches without it",
            ) from error

    def texts(self, texts: Sequence[str]) -> Embedded:
        """The vectors of texts, in calls of at most `LOT`; raises nothing that the function raised."""
        out = Embedded([None] * len(texts), {})
        for first in range(0, len(texts), LOT):
            down = self._some(list(enumerate(texts))[first : first + LOT], out, trusted=False)
            if down:
                return Embedded(out.vectors, {}, down)
        return out

    def close(self) -> None:
        """Ends the event loop, if there was one."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None

    def _some(self, lot: list[tuple[int, str]], out: Embedded, *, trusted: bool) -> str:
        """Embeds a lot, or as much of it as can be; what the function says if it fails anyway."""
        try:
            for (number, _), vector in zip(lot, self._call([text for _, text in lot]), strict=True):
                out.vectors[number] = vector
            return ""
        except Exception as error:
            if not trusted:
                try:
                    self._call([HARMLESS])
                except Exception as harmless:
                    return said(harmless)
            if len(lot) == 1:
                out.errors[lot[0][0]] = said(error)
                return ""
        middle = len(lot) // 2
        return self._some(lot[:middle], out, trusted=True) or self._some(lot[middle:], out, trusted=True)

    def _call(self, texts: list[str]) -> list[bytes]:
        found = self.fn(texts)
        if hasattr(found, "__await__"):
            import asyncio  # 30 ms, which nobody pays whose function is a plain one

            found = asyncio.run_coroutine_threadsafe(_awaited(found), self._its_loop()).result()
        vectors = [pack(each) for each in found]
        if len(vectors) != len(texts):
            raise UsageError(f"it gave {len(vectors)} vectors for {len(texts)} texts", hint="one for each, in order")
        for each in vectors:
            self.dims = self.dims or len(each) // 4
            if not each or len(each) != 4 * self.dims:
                raise UsageError(
                    f"it gave a vector of {len(each) // 4} numbers where {self.dims} were expected",
                    hint="another model is another index: give it another name",
                )
        return vectors

    def _its_loop(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="holdfast-embed-loop", daemon=True).start()
            return self._loop


async def _awaited(found: Any) -> Any:
    return await found


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
