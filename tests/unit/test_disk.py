"""What a file that is replaced as a whole never does: take the place of a pipe, a device or a link."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from holdfast.disk import is_stream, replacing
from holdfast.hub.serve import remove_ready, write_ready


def heard(path: Path) -> tuple[threading.Thread, list[bytes]]:
    """Somebody who reads a pipe until it ends, and what they read."""
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()
    return reader, found


def test_a_pipe_is_written_into_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader, found = heard(path)
    with replacing(path, 0o644) as file:
        file.write(b"all of it")
    reader.join(10)
    assert found == [b"all of it"]
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_hub_tells_a_pipe_and_leaves_it_there(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    os.mkfifo(path)
    reader, found = heard(path)
    write_ready(path, "http://127.0.0.1:8443")
    reader.join(10)
    remove_ready(path)
    assert b"8443" in found[0]
    assert stat.S_ISFIFO(path.stat().st_mode), "as /dev/stdout, which it would have removed"
    plain = tmp_path / "plain"
    write_ready(plain, "http://127.0.0.1:8443")
    remove_ready(plain)
    assert not plain.exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(target)
    for data in (b"made", b"made again"):
        with replacing(link) as file:
            file.write(data)
        assert link.is_symlink()
        assert target.read_bytes() == data
    assert os.listdir(target.parent) == ["file"]


def test_what_is_broken_off_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def broken_off() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pass


def test_what_a_process_has_open_is_a_stream(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        link = tmp_path / "stdout"
        link.symlink_to(f"/proc/self/fd/{log.fileno()}")
        assert is_stream(link), "the shell's > log; what stands there already is not ours"
        with replacing(link) as file:
            file.write(b"said")
    assert link.is_symlink()
    assert (tmp_path / "log").read_bytes() == b"said"
    assert is_stream(Path(os.devnull))
    assert not is_stream(tmp_path / "log")
    assert not is_stream(tmp_path)
    assert not is_stream(tmp_path / "nothing")
