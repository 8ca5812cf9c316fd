"""Where an agent's store lies and which hub it ships to, from arguments, environment, and the seed's configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypedDict

from holdfast.clock import Clock
from holdfast.errors import UsageError
from holdfast.node.directory import Limits

STORAGE_DIR: Final = "COMMANDER_STORAGE_DIR"
DB_URL: Final = "COMMANDER_DB_URL"
_SQLITE: Final = "sqlite:///"
_SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")


class Options(TypedDict, total=False):
    """What every agent's store takes besides where it lies.

    Attributes:
        token: what the hub knows this node by, or the file that holds it.
        level: what a returned write survives: basic, advanced (default) or critical.
        limits: how the node treats its disk.
        clock: where the time comes from.
        timeout: seconds that `flush` and `process_sync_queue` wait for the hub; 10 if not said.
        sync_interval, batch_size, retry_max, retry_backoff_base: taken, and without effect: what is written is shipped
            at once, in batches of what waits, and tried again for ever.
    """

    token: str | Path | None
    level: str
    limits: Limits
    clock: Clock
    timeout: float
    sync_interval: float
    batch_size: int
    retry_max: int
    retry_backoff_base: float


IGNORED: Final = ("sync_interval", "batch_size", "retry_max", "retry_backoff_base")
_WORDS: Final = {"local_data_dir": "data_dir", "htpc_url": "htpc_url", "enable_htpc": "enable_htpc"}
_OWN: Final = ("token", "level", "timeout")


def data_dir_of(given: str | os.PathLike[str] | None) -> Path:
    """The node directory: the one that was given, else the one that the environment names.

    COMMANDER_STORAGE_DIR is a directory that all agents of this machine may share; COMMANDER_DB_URL names a file as
    the earlier system had it (``sqlite:///commander_memory.db``), and the directory is called like it, without its
    suffix.

    Raises:
        UsageError: neither says where, or COMMANDER_DB_URL names another database.
    """
    if given is not None:
        return Path(given).expanduser()
    url = os.environ.get(DB_URL, "")
    if url and not url.startswith(_SQLITE):
        raise UsageError(
            f"{DB_URL} names no SQLite file: {_without_password(url)!r}",
            hint="an agent's log is a file on its own machine; what is to lie in PostgreSQL is a hub's corpus: "
            "`holdfast serve --database URL`, and htpc_url=… here",
        )
    directory = os.environ.get(STORAGE_DIR, "")
    if directory:
        return Path(directory).expanduser()
    if not url:
        raise UsageError("no data_dir was given", hint=f'data_dir="./data/agents/my-agent", or {STORAGE_DIR}')
    name = url.removeprefix(_SQLITE).partition("?")[0]
    if not name or name == ":memory:":
        raise UsageError(f"{DB_URL} names no file: {url!r}", hint="sqlite:///commander_memory.db")
    path = Path(name).expanduser()
    return path.with_suffix("") if path.suffix in _SUFFIXES else path


def arguments_in(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The arguments that a configuration of the seed stands for, and the names of what it says without effect here.

    Args:
        config: such as ``{"storage": {"local_data_dir": …, "htpc_url": …, "enable_htpc": …}}``.

    Raises:
        UsageError: a value that cannot be.
    """
    storage = {} if config.get("storage") is None else config["storage"]
    if not isinstance(storage, Mapping):
        raise UsageError(f"storage is a mapping, got {storage!r:.80}", hint="local_data_dir, htpc_url, enable_htpc")
    found: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in storage.items():
        if name in _WORDS:
            found[_WORDS[name]] = value
        elif name in _OWN:
            found[name] = value
        else:
            ignored.append(f"storage.{name}")
    for name, kind, what in (("local_data_dir", str | os.PathLike, "a path"), ("htpc_url", str, "an address")):
        value = storage.get(name)
        if value is not None and not isinstance(value, kind):
            raise UsageError(f"storage.{name} is {what}, got {value!r:.80}", hint="as text")
    if not isinstance(found.get("enable_htpc", True), bool):
        raise UsageError(f"storage.enable_htpc is true or false, got {found['enable_htpc']!r:.80}", hint="true")
    if isinstance(config.get("agent_id"), str):
        found["agent_id"] = config["agent_id"]
    return found, ignored


def _without_password(url: str) -> str:
    """An address as it may be shown."""
    scheme, there, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if there else url
