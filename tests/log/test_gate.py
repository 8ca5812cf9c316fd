"""Only the very first opener looks at a file before SQLite does, whatever the others do meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path

from holdfast.corpus.gate import Gate


def test_nobody_is_first_while_somebody_opens_or_has_it_open(tmp_path: Path) -> None:
    first, second, third = (Gate(tmp_path / "log.db") for _ in range(3))
    assert first.enter()
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(second.enter()))
    waiting.start()
    assert found == [], "the door is shut until the first has opened"
    first.shared()
    waiting.join(30)
    assert found == [False]
    second.shared()
    first.leave()
    assert not third.enter(), "the second still has it open"
    third.shared()
    for gate in (second, third):
        gate.leave()
    assert first.enter()
    first.leave()
    first.leave()


def test_an_opener_that_fails_lets_the_next_be_first(tmp_path: Path) -> None:
    first, second = (Gate(tmp_path / "log.db") for _ in range(2))
    assert first.enter()
    first.leave()
    assert second.enter()
    second.leave()
