"""The floors hold, and a call upstairs or through a wall is caught."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = ("errors", "records", "codec", "clock", "query", "retention", "settings", "wire", "protocol")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """`lint-imports` on a tree, seeing that tree's package and no other."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--no-logo"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_the_floors_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("errors.py", "import holdfast.codec", "Floors"),
        ("attic.py", "", "Floors"),
        ("codec.py", "import socket", "Pure rooms"),
        ("codec.py", "import starlette.responses", "the web stack"),
        ("clock.py", "import apsw", "per core dependency"),
        ("clock.py", "import pickle", "No door"),
    ],
)
def test_a_breach_is_caught(tmp_path: Path, file: str, line: str, contract: str) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=unwanted)
    with (tmp_path / "src" / "holdfast" / file).open("a") as module:
        module.write(f"\n{line}\n")
    result = lint(tmp_path)
    assert result.returncode != 0
    told = [row for row in result.stdout.splitlines() if contract in row]
    assert told, result.stdout + result.stderr
    assert any("BROKEN" in row for row in told) or file == "attic.py"


def test_every_pure_room_is_under_the_contract() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (listed,) = (c["source_modules"] for c in config["contracts"] if c["name"].startswith("Pure"))
    package = ROOT / "src" / "holdfast"
    built = {r for r in PURE if (package / f"{r}.py").exists() or (package / r).is_dir()}
    # A new pure room joins the contract in pyproject.toml; take its brackets off in the floors too.
    assert {f"holdfast.{room}" for room in built} == set(listed)
