"""The fenced blocks of a Markdown file; as a script, it runs a page's Python blocks in turn.

A block that cannot run says why in its fence: ```` ```python no-run: needs a cluster ````.
Blocks of one page share their names, may `await` at the top, and run in the current directory.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SKIP = "no-run:"


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what else the fence says, the line it begins on, its text."""

    language: str
    note: str
    line: int
    text: str


def blocks(markdown: str) -> Iterator[Block]:
    """The fenced blocks in order; a fence inside a list may be indented."""
    opened: tuple[str, str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(markdown.splitlines(), start=1):
        bare = line.strip()
        if opened is None:
            if bare.startswith("```"):
                ticks = bare[: len(bare) - len(bare.lstrip("`"))]
                opened, lines = (ticks, bare[len(ticks) :], number), []
        elif bare == opened[0]:
            language, _, note = opened[1].partition(" ")
            text = textwrap.dedent("\n".join(lines))
            yield Block(language, note.strip(), opened[2] + 1, text)
            opened = None
        else:
            lines.append(line)


def run(page: Path) -> int:
    """Run the page's Python blocks in one namespace; an error names the page and its line."""
    # A module of its own in place of this one: what looks up a type of the page by its name finds it.
    page_module = sys.modules["__main__"] = types.ModuleType("__main__")
    names: dict[str, Any] = page_module.__dict__
    count = 0
    with asyncio.Runner() as runner:
        for block in blocks(page.read_text("utf-8")):
            if block.language != "python" or block.note.startswith(SKIP):
                continue
            source = "\n" * (block.line - 1) + block.text
            # As a file of its own, without this one's `from __future__`: types are looked up in it.
            code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            result = types.FunctionType(code, names)()
            if inspect.iscoroutine(result):
                runner.run(result)
            count += 1
    return count


if __name__ == "__main__":
    print(run(Path(sys.argv[1])), "blocks ran")
