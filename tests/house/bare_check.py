"""Proves that Holdfast lives without any extra; run by `make wheel`, and by test_bare_install.py.

`make wheel` runs it where only the wheel is installed. With `--block` it hides the extras' packages
first, so that the same proof runs in the developers' environment.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Sequence

EXTRAS = (
    *("starlette", "uvicorn", "uvloop", "httptools", "jinja2", "markdown_it", "multipart", "prometheus_client"),
    *("opentelemetry", "psycopg"),
)
LAZY = ("cryptography", "zstandard", "asyncio")  # `import holdfast` must stay light


class Hidden:
    """An import finder that makes the extras' packages look uninstalled."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def present(name: str) -> bool:
    """Whether the package could be imported here."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def ask_for_the_hub() -> str:
    """What a user reads who wants the hub without its extra."""
    from holdfast.errors import MissingExtra

    try:
        from holdfast.hub import create_app

        create_app("hub")
    except MissingExtra as error:
        return f"{error} ({error.hint})"
    return "the hub came up without its extra"


def ask_for_the_database() -> str:
    """What a user reads who wants PostgreSQL without its extra."""
    from holdfast.corpus.postgres import PostgresCorpus
    from holdfast.errors import MissingExtra

    try:
        PostgresCorpus("postgresql://localhost/holdfast")
    except MissingExtra as error:
        return f"{error} ({error.hint})"
    return "the database was opened without its extra"


def main() -> None:
    """Import, write, read; then ask for the hub and be told which extra brings it."""
    if "--block" in sys.argv:
        sys.meta_path.insert(0, Hidden())
    assert not any(present(name) for name in EXTRAS), "an extra's package is installed here"

    import holdfast

    heavy = [name for name in LAZY if name in sys.modules]
    assert not heavy, f"import holdfast also imported {heavy}"

    with tempfile.TemporaryDirectory() as directory:
        with holdfast.Store(directory, agent="bare") as store:
            store.put("config", {"model": "small"})
            assert store.get("config") == {"model": "small"}
        with holdfast.Store(directory, agent="bare") as store:
            assert store.get("config") == {"model": "small"}, "lost on reopening"

    for extra, told in (("hub", ask_for_the_hub()), ("postgres", ask_for_the_database())):
        assert f"holdfast[{extra}]" in told, f"names no extra: {told}"
    print("bare install: ok")


if __name__ == "__main__":
    main()
