"""News of commits, whoever made them: a connection that listens, and a look every second as a net.

A notice is only a wake-up: it may be lost (a connection died) or come late, never wrongly believed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from holdfast.corpus.postgres.engine import PostgresEngine
from holdfast.errors import HoldfastError

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
_BREATH_S: Final = 0.25
"""How long a stop may have to wait for the thread that listens."""


class News:
    """Calls back in a thread of its own when something may have been committed.

    Args:
        engine: the open database.
        heard: gets the newest pos if the notice said it, else None; may raise what reading raises.
    """

    def __init__(self, engine: PostgresEngine, heard: Callable[[int | None], None]) -> None:
        self._engine = engine
        self._heard = heard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-news", daemon=True)
        self.trouble = ""
        """Why nothing is heard, while that is so."""

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when nobody is called back any more."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        driver = self._engine.database.driver
        while not self._stopping.is_set():
            try:
                self._listen()
            except (HoldfastError, driver.Error) as error:
                if not self.trouble:
                    logger.warning("no news of other hub processes: %s", error)
                self.trouble = str(error)
                self._stopping.wait(_BREATH_S)
            except Exception:
                logger.exception("news could not be passed on")
                self._stopping.wait(LOOK_EVERY_S)

    def _listen(self) -> None:
        connection = self._engine.connect()
        try:
            connection.execute(f"LISTEN {self._engine.channel}")
            self._heard(None)  # what came while nobody listened
            self.trouble = ""
            looked = time.monotonic()
            while not self._stopping.is_set():
                newest = 0
                for notice in connection.notifies(timeout=_BREATH_S, stop_after=1):
                    newest = _pos(notice)
                if newest:
                    self._heard(newest)
                if time.monotonic() - looked > LOOK_EVERY_S:
                    looked = time.monotonic()
                    self._heard(None)
        finally:
            connection.close()


def _pos(notice: Any) -> int:
    text = notice.payload
    return int(text) if text.isdigit() else 0
