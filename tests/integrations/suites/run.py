"""Runs frameworks' own suites against our classes; each comes with the source of the very version that is installed.

    python tests/integrations/suites/run.py [NAME…]

A suite is unpacked under the environment, never into this repository. What is deselected stands here with its reason.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = Path(sys.prefix) / "suites"


@dataclass(frozen=True)
class Suite:
    """One suite.

    Attributes:
        package: whose source it comes with.
        plugin: the module here that puts our class into it.
        tests: what pytest is given.
        least: so many of its tests must pass.
        without: tests that are left out, and why.
    """

    package: str
    plugin: str
    tests: tuple[str, ...]
    least: int
    without: tuple[tuple[str, str], ...] = ()


SUITES = {
    "langgraph-saver": Suite("langgraph", "langgraph_saver", ("-k", "sqlite and not sqlite_aes", "tests"), 654),
    "langgraph-store": Suite(
        "langgraph-checkpoint",
        "langgraph_store",
        ("tests/test_store.py",),
        117,
    ),
}


def source_of(package: str) -> Path:
    """The directory of a package's source, fetched once."""
    wanted = version(package)
    place = KEPT / f"{package}-{wanted}"
    if not place.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(KEPT)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, f"{package}=={wanted}"], check=True)
        (archive,) = KEPT.glob(f"{package.replace('-', '[-_]')}-{wanted}.tar.gz")
        with tarfile.open(archive) as packed:
            root = packed.getnames()[0].partition("/")[0]
            packed.extractall(KEPT, filter="data")
        (KEPT / root).rename(place)
    return place


def run(name: str, suite: Suite) -> bool:
    """Runs one; whether all of it that is not left out has passed, and enough of it."""
    left_out = [option for test, _ in suite.without for option in ("--deselect", test)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", suite.plugin, "-o", "addopts=", "-p", "no:cacheprovider"]
    environment = os.environ | {"NO_DOCKER": "true", "PYTHONPATH": str(HERE)}
    told = subprocess.run(
        [*command, *left_out, *suite.tests],
        cwd=source_of(suite.package),
        env=environment,
        capture_output=True,
        text=True,
    )
    print(
        f"== {name}: {suite.package} {version(suite.package)}\n{told.stdout[-3000:]}{told.stderr[-1000:]}", flush=True
    )
    for test, reason in suite.without:
        print(f"   left out: {test}: {reason}")
    passed = re.search(r"(\d+) passed", told.stdout)
    return told.returncode == 0 and passed is not None and int(passed[1]) >= suite.least


if __name__ == "__main__":
    names = sys.argv[1:] or list(SUITES)
    failed = [name for name in names if not run(name, SUITES[name])]
    sys.exit(f"not as it should be: {', '.join(failed)}" if failed else 0)
