"""What users may import is a snapshot: it changes on purpose, with a doc page and a fragment.

`HOLDFAST_SNAPSHOT=1 make test PYTEST_ARGS=tests/house/test_public_api.py` writes it anew.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import holdfast

MODULES = ("holdfast", "holdfast.agents", "holdfast.errors")
SNAPSHOT = Path(__file__).with_name("public_api.txt")


def signature(thing: object) -> str:
    """Its signature as text that is the same on every run; empty where it has none."""
    try:
        return re.sub(r" at 0x\w+", "", str(inspect.signature(thing)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""


def describe(path: str, thing: object) -> Iterator[str]:
    """One line for a name, and one for each public member that a class defines itself."""
    if not inspect.isclass(thing):
        kind = "" if callable(thing) else f": {type(thing).__name__}"
        yield f"{path}{signature(thing) or kind}"
        return
    bases = ", ".join(b.__name__ for b in thing.__bases__ if b is not object)
    yield f"class {path}{signature(thing)}" + (f" is {bases}" if bases else "")
    for name, member in sorted(members(thing).items()):
        if isinstance(member, classmethod | staticmethod):
            member = member.__func__
        if not name.startswith("_"):
            plain = isinstance(member, str | int | float)
            value = f" = {member!r}" if plain else f": {type(member).__name__}"
            yield f"    {name}{signature(member) or value}"


def members(cls: type) -> dict[str, object]:
    """What a class defines itself, or in bases of ours that nobody imports by name: these are parts of it."""
    named = {name for module in MODULES for name in importlib.import_module(module).__all__}
    parts = [each for each in cls.__mro__[1:] if each.__module__.startswith("holdfast.") and each.__name__ not in named]
    return {name: member for each in (*parts[::-1], cls) for name, member in vars(each).items()}


def surface() -> list[str]:
    """The public surface, one name per line."""
    lines = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        lines.append(f"# {module_name}")
        for name in sorted(module.__all__):
            lines += describe(f"{module_name}.{name}", getattr(module, name))
    return lines


def test_the_public_surface_is_the_snapshot() -> None:
    now = surface()
    if os.environ.get("HOLDFAST_SNAPSHOT"):
        SNAPSHOT.write_text("\n".join(now) + "\n")
    recorded = SNAPSHOT.read_text().splitlines()
    changed = "\n".join(difflib.unified_diff(recorded, now, "recorded", "now", lineterm=""))
    assert not changed, f"the public surface changed; if on purpose: {__doc__}\n{changed}"


def test_a_changed_signature_shows() -> None:
    def put(key: str, value: int) -> None: ...

    def put_more(key: str, value: int, *, durable: bool = False) -> None: ...

    assert list(describe("put", put)) != list(describe("put", put_more))


def test_the_version_is_told_once() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert holdfast.__version__ == project["version"]
