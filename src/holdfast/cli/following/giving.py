"""Writes the files of a followed session as their tool wrote them, below a folder of the tool's own layout."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

import msgspec

from holdfast.cli.following import rows
from holdfast.cli.following.ledger import Head, Ledger
from holdfast.cli.transcripts.tools import BYTES, ROWS, TOOLS, tool_named
from holdfast.errors import Conflict, IntegrityError, NotFound, UsageError

_PIECE: Final = 1 << 20


class Given(msgspec.Struct, frozen=True):
    """A file that was written, or was there already; `newer`: what is there goes on behind what we have."""

    path: Path
    size: int
    there: bool = False
    newer: bool = False


def files_of(ledger: Ledger, group: str, at: Any = None) -> list[tuple[str, Head]]:
    """The files of a tool's session, its transcripts first.

    Args:
        ledger: whose.
        group: what they have in common.
        at: a time: those that were there then, as they were.

    Raises:
        NotFound: there are none.
    """
    found = []
    for fid in ledger.files(f"of/{group}/"):
        head = ledger.head(fid, at)
        if head is not None:
            found.append((fid, head[0]))
    if not found:
        raise NotFound(
            "nothing was kept of this session then" if at else "nothing was kept of it", hint="holdfast sessions ls"
        )
    return sorted(found, key=lambda each: (each[1].kind == BYTES, bool(each[1].parent), each[1].path))


def content_of(ledger: Ledger, fid: str, head: Head, at: Any = None) -> Iterator[bytes]:
    """What a tool takes back of a file, or of a session that it keeps in a database.

    Raises:
        IntegrityError: some of it is missing, or is not what was kept.
    """
    return rows.export(ledger, fid, head, at) if head.kind == ROWS else ledger.content(fid, head)


def target(head: Head, folder: Path, project: str | None) -> Path:
    """Where a file of a tool goes below the tool's folder.

    Args:
        head: of the file.
        folder: such as ``~/.claude``.
        project: the folder that the agent is to work in from now on; None: the same as before.

    Raises:
        UsageError: the tool's files are not put by project, or it has none.
        IntegrityError: it would lie elsewhere than where the tool keeps such files.
    """
    tool = tool_named(head.tool)
    if tool.stored:
        raise UsageError(
            f"{tool.name} keeps its sessions in a database, which it alone writes",
            hint=f"--out FILE, and then `{tool.name} import FILE` (of version 2 `{tool.name} session import FILE`)",
        )
    path = head.path
    if project is not None:
        if tool.project is None:
            can = ", ".join(each.name for each in TOOLS.values() if each.project)
            raise UsageError(
                f"{tool.name} does not keep its sessions by project", hint=f"leave --project out; {can} do"
            )
        path = tool.project(path, project)
    # A head may come from another machine: it does not get to choose any other place here.
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path or "\\" in path or not tool.kind(path):
        raise IntegrityError(f"no file of {tool.name} has the path {path!r:.120}", hint="holdfast sessions ls")
    return folder.joinpath(*parts)


def give(
    ledger: Ledger, wanted: Iterable[tuple[str, Head, Path]], *, force: bool = False, at: Any = None
) -> list[Given]:
    """Writes files, each only once all of them are ready.

    A file that is there already is left alone if it holds the same, or the same and more; it is replaced if it holds
    the beginning of it.

    Args:
        ledger: where their bytes are.
        wanted: what goes where.
        force: replace what holds something else, too.
        at: a time: the heads are of then.

    Raises:
        Conflict: there is a file that holds something else; nothing was written.
        IntegrityError: some of the bytes are gone; nothing was written.
    """
    done: list[Given] = []
    with contextlib.ExitStack() as undo:
        ready: list[tuple[Path, Path]] = []
        for fid, head, path in wanted:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".partial", dir=path.parent)
            undo.callback(_remove, name)
            size = 0
            with open(descriptor, "wb") as file:
                for data in content_of(ledger, fid, head, at):
                    size += file.write(data)
                file.flush()
                os.fsync(descriptor)
            how = _beside(path, Path(name))
            if how == "other" and not force:
                raise Conflict(f"{path} is there, and holds something else", hint="--force, or another --into or --out")
            done.append(Given(path, size, there=how == "same", newer=how == "newer"))
            if how in ("", "older", "other") or (how == "newer" and force):
                ready.append((Path(name), path))
        for partial, path in ready:
            partial.replace(path)
    return done


def pour(ledger: Ledger, fid: str, head: Head, out: BinaryIO, at: Any = None) -> int:
    """Writes one file's bytes to a stream; how many."""
    size = 0
    for data in content_of(ledger, fid, head, at):
        out.write(data)
        size += len(data)
    out.flush()
    return size


def _remove(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


def _beside(there: Path, ours: Path) -> str:
    """What a file that is there is beside ours: same, older (its beginning), newer, other; empty if there is none."""
    if not there.exists():
        return ""
    with there.open("rb") as one, ours.open("rb") as other:
        for left, right in _pairs(one, other):
            if left != right:
                short = min(len(left), len(right))
                if left[:short] != right[:short] or (len(left) > short and len(right) > short):
                    return "other"
                return "newer" if len(left) > short else "older"
    return "same"


def _pairs(one: BinaryIO, other: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    while True:
        left, right = one.read(_PIECE), other.read(_PIECE)
        if not left and not right:
            return
        yield left, right
