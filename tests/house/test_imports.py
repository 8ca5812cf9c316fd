"""The floors hold, and a call upstairs or through a wall is caught."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE = ("errors", "records", "codec", "clock", "query", "retention", "settings", "wire", "protocol")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`lint-imports` on a tree, seeing that tree's package and no other; ours may use what `make check` left."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", *options],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_the_floors_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


BREACHES = [
    ("errors.py", "holdfast.codec", "Floors"),
    ("codec.py", "socket", "Pure rooms"),
    ("codec.py", "starlette.responses", "the web stack"),
    ("clock.py", "apsw", "per core dependency"),
    ("clock.py", "pickle", "No door"),
]


def tree(at: Path, *lines: tuple[str, str]) -> Path:
    """A copy of ours in which some modules have one more line."""
    shutil.copy(ROOT / "pyproject.toml", at)
    shutil.copytree(ROOT / "src", at / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for file, line in lines:
        with (at / "src" / "holdfast" / file).open("a") as module:
            module.write(f"\n{line}\n")
    return at


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each broken contract in a tree that has every breach."""
    lines = [(file, f"import {imported}") for file, imported, _ in BREACHES]
    result = lint(tree(tmp_path_factory.mktemp("broken"), *lines), "--no-cache")
    assert result.returncode != 0
    _, *told = re.split(r"\n(\S.*)\n-+\n", result.stdout.partition("Broken contracts")[2])
    assert told, result.stdout + result.stderr
    return dict(zip(told[::2], told[1::2], strict=True))


@pytest.mark.parametrize(("file", "imported", "contract"), BREACHES)
def test_a_breach_is_caught(broken: dict[str, str], file: str, imported: str, contract: str) -> None:
    (told,) = (text for name, text in broken.items() if contract in name)
    # Of an external package only the top is known.
    seen = imported if imported.startswith("holdfast") else imported.partition(".")[0]
    assert f"holdfast.{file.removesuffix('.py')} -> {seen} " in told


def test_a_module_without_a_floor_is_caught(tmp_path: Path) -> None:
    result = lint(tree(tmp_path, ("attic.py", "")), "--no-cache")
    assert result.returncode != 0
    assert "Floors" in result.stdout
    assert "attic" in result.stdout


def test_every_pure_room_is_under_the_contract() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (listed,) = (c["source_modules"] for c in config["contracts"] if c["name"].startswith("Pure"))
    package = ROOT / "src" / "holdfast"
    built = {r for r in PURE if (package / f"{r}.py").exists() or (package / r).is_dir()}
    # A new pure room joins the contract in pyproject.toml; take its brackets off in the floors too.
    assert {f"holdfast.{room}" for room in built} == set(listed)
