"""The documentation is true: its examples run, and it knows every command and every error."""

from __future__ import annotations

import doctest
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import doc_blocks
from tests.house.doc_blocks import SKIP, blocks
from tests.promises import BEGIN

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("README.md")), *sorted((ROOT / "docs").rglob("*.md"))]
HAS_PYTHON = [p for p in PAGES if "```python" in p.read_text("utf-8")]
CLI = "import sys; from holdfast.cli import main; sys.argv[0] = 'holdfast'; main()"
NEEDS = re.compile(r"<!-- needs: ([\w.]+(?: [\w.]+)*) -->")
PROMISES = ROOT / "docs" / "promises.md"
UNPROMISED = {
    # Pages that promise nothing of their own: how a thing is called, told, configured, kept and paid for.
    *("benchmarks.md", "cli.md", "configuration.md", "errors.md", "import.md", "objects-layers.md", "operations.md"),
    *("promises.md", "python.md", "quickstart.md", "backup-v1.md", "record-v1.md"),
}


def name(page: Path) -> str:
    """The page as a reader would name it."""
    return page.relative_to(ROOT).as_posix()


def needs(page: Path) -> None:
    """Skips a page about what is not installed here, as it says itself; `make test-integrations` has everything."""
    for module in (word for found in NEEDS.findall(page.read_text("utf-8")) for word in found.split()):
        if importlib.util.find_spec(module) is None:
            say = pytest.fail if os.environ.get("HOLDFAST_FRAMEWORKS") == "all" else pytest.skip
            say(f"{name(page)} is about {module}, which is not installed: make test-integrations")


def start(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Python in an empty directory that is also its home."""
    environment = os.environ | {"HOME": str(home), "COLUMNS": "100"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("page", HAS_PYTHON, ids=name)
def test_every_python_block_runs(page: Path, tmp_path: Path) -> None:
    needs(page)
    result = start([doc_blocks.__file__, str(page)], tmp_path)
    assert result.returncode == 0, result.stderr


def console(text: str) -> Iterator[tuple[str, str]]:
    """Each `$ command` of a console block with the output that the page shows for it."""
    for part in ("\n" + text).split("\n$ ")[1:]:
        command, _, output = part.partition("\n")
        yield command.partition("  #")[0], output.strip()


@pytest.mark.parametrize("page", [p for p in PAGES if p.name == "README.md"], ids=name)
def test_every_console_block_does_what_it_shows(page: Path, tmp_path: Path) -> None:
    """Runs `$ holdfast …` in order; output shown must match, with `...` for what varies."""
    for block in blocks(page.read_text("utf-8")):
        if block.language != "console" or block.note.startswith(SKIP):
            continue
        for command, expected in console(block.text):
            words = shlex.split(command)
            if words[:1] != ["holdfast"]:
                continue
            result = start(["-c", CLI, *words[1:]], tmp_path)
            assert result.returncode == 0, f"{name(page)}:{block.line}: {command}\n{result.stderr}"
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            same = doctest.OutputChecker().check_output(expected, result.stdout.strip(), options)
            assert not expected or same, f"{command} printed:\n{result.stdout}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_block_that_does_not_run_says_why(page: Path) -> None:
    for block in blocks(page.read_text("utf-8")):
        if block.language in {"python", "console"} and block.note:
            assert block.note.startswith(SKIP), f"{name(page)}:{block.line}"
            assert len(block.note) > len(SKIP) + 5, f"{name(page)}:{block.line}"


def test_every_command_is_documented() -> None:
    import click

    from holdfast.cli.commands import COMMANDS

    def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
        for word, child in getattr(command, "commands", {}).items():
            if not child.hidden:
                yield f"{path} {word}", child
                yield from commands(child, f"{path} {word}")

    assert isinstance(COMMANDS, click.Group)
    page = (ROOT / "docs" / "cli.md").read_text("utf-8")
    every = dict(commands(COMMANDS, "holdfast"))
    assert [path for path in every if path not in page] == [], "not in docs/cli.md"
    assert [path for path, command in every.items() if not command.help] == [], "no help text"


def rows(table: str) -> list[list[str]]:
    """The cells of a table's rows, without its head."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("| ---")][
        1:
    ]


def test_every_promise_names_tests_that_there_are_and_every_feature_has_one() -> None:
    told, _, counted = PROMISES.read_text("utf-8").partition(BEGIN)
    for row in rows(told):
        assert len(row) == 3, row
        proofs = re.findall(r"`(tests/[^`]+)`", row[2])
        assert proofs, f"nothing proves: {row[0]}"
        assert [proof for proof in proofs if not any(ROOT.glob(proof))] == [], row[0]
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", told))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages >= UNPROMISED
    assert pages - UNPROMISED - linked == set(), "docs/promises.md says nothing of them"
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    names = [row[0] for row in rows(counted)]
    assert len(names) > 10
    # Of a count that is told of several places, the last word is put in.
    assert [
        name for name in names if f'"{name}"' not in sources and f'"{name.rpartition(" ")[0]} {{' not in sources
    ] == []


def test_every_error_is_documented() -> None:
    """One row per class: its code, its HTTP status, its exit code."""
    from holdfast import errors

    rows = (ROOT / "docs" / "errors.md").read_text("utf-8").splitlines()
    classes = [getattr(errors, word) for word in errors.__all__ if word[0].isupper()]
    for error in classes:
        facts = {f"`{error.code}`", str(error.status), str(error.exit_code)}
        cells = [{cell.strip() for cell in row.split("|")} for row in rows]
        assert any(facts <= row for row in cells), f"docs/errors.md has no row with {facts}"


def test_a_false_example_is_caught(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\nand\n\n  ```python\n  assert x == 2\n  ```\n")
    result = start([doc_blocks.__file__, str(page)], tmp_path)
    assert result.returncode != 0
    assert 'page.md", line 7' in result.stderr


def test_blocks_may_await_and_may_stand_back(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nimport asyncio\nawait asyncio.sleep(0)\n```\n```python no-run: a picture\n1/0\n```\n")
    result = start([doc_blocks.__file__, str(page)], tmp_path)
    assert result.stdout == "1 blocks ran\n", result.stderr


def test_console_blocks_are_split_into_commands() -> None:
    text = "$ holdfast put a 1  # write\nok\n$ holdfast get a\n1"
    assert list(console(text)) == [("holdfast put a 1", "ok"), ("holdfast get a", "1")]
