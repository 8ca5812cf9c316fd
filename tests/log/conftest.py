"""An agent's log on disk, without a node around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.log import ADVANCED, Level, OpenLog
from holdfast.objects import BlobFiles
from holdfast.seal import Signer

Opener = Callable[..., OpenLog]


@pytest.fixture
def signer() -> Signer:
    return Signer(bytes(range(32)))


@pytest.fixture
def open_log(tmp_path: Path, signer: Signer) -> Iterator[Opener]:
    """Opens (again) the log of an agent in this test's directory; closes what is still open at the end."""
    opened: list[OpenLog] = []

    def opener(agent: str = "ada", level: Level = ADVANCED) -> OpenLog:
        log = OpenLog(
            tmp_path / agent, agent, public_key=signer.public_key, blobs=BlobFiles(tmp_path / "blobs"), level=level
        )
        opened.append(log)
        return log

    yield opener
    for log in opened:
        log.close()
