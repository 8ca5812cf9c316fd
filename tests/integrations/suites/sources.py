"""Where suites come from: the source of the very version that is installed, held to the hashes of the lock."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

LOCK = Path(__file__).parents[3] / "requirements" / "integrations.txt"
# What pip says when nobody answers, or whoever does has none of what was there when the lock was made.
_AWAY = re.compile(r"connection broken|Max retries|timed out|from versions: none|HTTP error 5")


class Away(Exception):
    """The network is not there, or whoever has the packages."""


def pinned(package: str, lock: str) -> str:
    """The lines of the lock that say which version of a package it is, and what its files hash to.

    Raises:
        LookupError: it says nothing of this package.
    """
    found = re.search(rf"^{re.escape(package)}==[^\n]*\\\n(?: +--hash=[^\n]*\n)+", lock, re.MULTILINE)
    if found is None:
        raise LookupError(f"{package} is not in {LOCK.name}: make lock")
    return found[0]


def source_of(package: str, kept: Path) -> Path:
    """The directory of a package's source; fetched once, and then kept.

    Raises:
        Away: it could not be fetched for want of a network.
        RuntimeError: it could not be fetched, or is not what the lock says.
    """
    place = kept / f"{package}-{version(package)}"
    if place.exists():
        return place
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as directory:
        (root,) = _unpacked(fetched(pinned(package, LOCK.read_text()), Path(directory)), Path(directory) / "unpacked")
        root.rename(place)
    return place


def fetched(lines: str, into: Path) -> Path:
    """The archive of the source that lines of the lock are about.

    Raises:
        Away: for want of a network.
        RuntimeError: it is not what the lock says, or there is none.
    """
    wanted = into / "wanted.txt"
    wanted.write_text(lines)
    # pip asks each source for its metadata; what makes that is in this environment, by its hash like everything else.
    options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(into)]
    told = subprocess.run([*command, "--requirement", str(wanted)], capture_output=True, text=True)
    if told.returncode:
        said = told.stderr.strip() or told.stdout.strip()
        raise (Away if _AWAY.search(said) else RuntimeError)(said[-1000:])
    (archive,) = into.glob("*.tar.gz")
    return archive


def _unpacked(archive: Path, into: Path) -> list[Path]:
    with tarfile.open(archive) as packed:
        packed.extractall(into, filter="data")
    return list(into.iterdir())
