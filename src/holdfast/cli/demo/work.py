"""What the demo's agents find out about files: real work that needs no model. Pure, but for reading the files."""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILES_MAX = 2000
BYTES_MAX = 1 << 20
FUNCTION_LINES = 50
LINE_CHARACTERS = 120
_SKIP = {"__pycache__", "node_modules", "dist", "build"}
# In two pieces, so that this file is not its own finding.
_WISH = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HACK)\b[:\s]*(.{0,80})")


def files(root: Path) -> list[str]:
    """The files below a directory (or the one file), as sorted paths relative to it; hidden ones are left out."""
    if root.is_file():
        return [root.name]
    found: list[str] = []
    for place, directories, names in os.walk(root):
        directories[:] = sorted(d for d in directories if d not in _SKIP and not d.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                found.append(path.relative_to(root).as_posix())
                if len(found) >= FILES_MAX:
                    return found
    return found


def read(root: Path, name: str) -> bytes:
    """A file's bytes, at most 1 MiB of them; empty when it cannot be read."""
    path = root.parent / name if root.is_file() else root / name
    try:
        with path.open("rb") as file:
            return file.read(BYTES_MAX)
    except OSError:
        return b""


def inventory(data: bytes, name: str) -> dict[str, Any]:
    """What a file is: its size, lines, digest and type."""
    return {
        "bytes": len(data),
        "lines": data.count(b"\n"),
        "sha256": hashlib.sha256(data).hexdigest(),
        "type": Path(name).suffix.lstrip(".") or "none",
        "text": b"\0" not in data[:4096],
    }


def findings(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """What somebody should look at in a file: wishes, long functions, long lines, functions that promise nothing."""
    if b"\0" in data[:4096]:
        return
    text = data.decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        wish = _WISH.search(line)
        if wish:
            yield {"what": "wish", "line": number, "text": wish[0].strip()}
        if len(line) > LINE_CHARACTERS:
            yield {"what": "long line", "line": number, "text": f"{len(line)} characters"}
    for symbol in symbols(data, name):
        if symbol["lines"] > FUNCTION_LINES and symbol["kind"] == "function":
            text = f"{symbol['name']}() has {symbol['lines']} lines"
            yield {"what": "long function", "line": symbol["line"], "text": text}
        if not symbol["promise"] and not symbol["name"].startswith("_"):
            yield {"what": "no docstring", "line": symbol["line"], "text": symbol["name"]}


def symbols(data: bytes, name: str) -> list[dict[str, Any]]:
    """The functions and classes of a Python file; empty for any other, and for one that does not parse."""
    if not name.endswith(".py"):
        return []
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError):
        return []
    kinds = {ast.FunctionDef: "function", ast.AsyncFunctionDef: "function", ast.ClassDef: "class"}
    return [
        {
            "name": node.name,
            "kind": kinds[type(node)],
            "line": node.lineno,
            "lines": (node.end_lineno or node.lineno) - node.lineno + 1,
            "promise": (ast.get_docstring(node) or "").split("\n")[0],
        }
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
