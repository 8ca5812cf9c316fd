"""`holdfast metrics`: a node's figures on standard output, or in a file that is never seen half."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.cli.conftest import Run


def test_the_figures_are_printed(hf: Run) -> None:
    hf("put", "a", "1")
    printed = hf("metrics").text
    assert 'agent="me"} 1\n' in printed
    assert "\noutbox_queue_depth{" in printed
    assert "\noutbox_queue_depth{" not in hf("metrics", "--names", "own").text


def test_a_file_is_replaced_as_a_whole(hf: Run, tmp_path: Path) -> None:
    hf("put", "a", "1")
    path = tmp_path / "textfile" / "holdfast.prom"
    path.parent.mkdir()
    path.write_text("what was there before")
    with path.open() as reader:  # who has it open goes on reading what he opened
        assert hf("metrics", "--output", path, "--json").json["output"] == str(path)
        assert reader.read() == "what was there before"
    assert "\nholdfast_log_records{" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == [path.name]


def test_what_cannot_be_written_is_told(hf: Run, tmp_path: Path) -> None:
    assert hf("metrics", "--output", tmp_path / "missing" / "holdfast.prom").code == 1


def test_without_a_store_there_is_nothing_to_tell(empty: Run) -> None:
    assert empty("metrics").code == 10
