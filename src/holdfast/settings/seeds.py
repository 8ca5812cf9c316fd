"""The files of Commander OS as they are: what their names mean here.

config/agents/<agent_id>.yaml    one agent: role, cache, sync
config/relay.yaml                the machines, and where the one that stores keeps it
config/storage_config.yaml       where an agent stores, and which machine it syncs to
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

TOP: Final[Mapping[str, str]] = {
    "agent_id": "agent.id",
    "role": "agent.role",
    "node_id": "agent.node_id",
    "enabled": "agent.enabled",
    **dict.fromkeys(("context_tokens", "context_window"), "agent.context_tokens"),
    "cache_max_bytes": "cache.max_bytes",
    "agent_storage_dir": "serve.data",
    "enable_storage_sync": "hub.enabled",
}
"""Names at the top of a file -> key."""
NODES: Final = "nodes"
STORAGE: Final = "storage"
AGENTS: Final = "agents"
"""The folder of the agents' files, beside which the other two lie."""
BESIDE: Final = ("storage_config.yaml", "relay.yaml")
"""The other two: the first is heard first."""
MARKS: Final = (*TOP, NODES, STORAGE)
"""A file with one of these is one of theirs: what stands in it besides and is near to nothing of ours is their own."""

_INTERVAL: Final = "sync.interval_seconds"
_TIMEOUT: Final = "sync.timeout_seconds"
IN_STORAGE: Final[Mapping[str, str]] = {
    "local_data_dir": "store.path",
    "htpc_url": "hub.urls",
    "enable_htpc": "hub.enabled",
    **dict.fromkeys(("interval_seconds", "sync_interval_seconds", "sync_interval"), _INTERVAL),
    **dict.fromkeys(("batch_size", "sync_batch_size"), "sync.batch_size"),
    **dict.fromkeys(("retry_max", "max_retries"), "sync.retry_max"),
    "retry_backoff_base": "sync.retry_backoff_base",
    **dict.fromkeys(("timeout_seconds", "timeout", "htpc_timeout"), _TIMEOUT),
}
"""Names in ``storage`` -> key; so far as nobody fixed them before, this is the schema of storage_config.yaml."""
SYNC: Final[Mapping[str, str]] = {
    "interval_seconds": _INTERVAL,
    "batch_size": "sync.batch_size",
    "retry_max": "sync.retry_max",
    "retry_backoff_base": "sync.retry_backoff_base",
    "timeout_seconds": _TIMEOUT,
}
RETRY: Final[Mapping[str, str]] = {
    **dict.fromkeys(("max_attempts", "max_retries", "retry_max"), "sync.retry_max"),
    **dict.fromkeys(("backoff_base", "retry_backoff_base"), "sync.retry_backoff_base"),
    "timeout_seconds": _TIMEOUT,
}
RETRY_SECTION: Final = "retry"
INNER: Final[Mapping[str, Mapping[str, str]]] = {"sync": SYNC, RETRY_SECTION: RETRY}
"""Sections within ``storage``; ``retry`` may stand at the top as well."""
NODE_FIELDS: Final = ("id", "host", "port", "role", "sync_enabled", "sync_endpoint")
FROM_WHERE_IT_RUNS: Final = frozenset({"local_data_dir", "agent_storage_dir"})
"""Paths that were opened as they stand: they are relative to the working directory, and not to the file."""
NOT_OURS: Final = "not a name of Holdfast's"

_ENDPOINTS: Final = ("/sync/messages", "/sync/message", "/sync/files")


def hub_of(endpoint: str) -> str:
    """The hub's address in the address of one of its endpoints."""
    bare = endpoint.rstrip("/")
    for each in _ENDPOINTS:
        bare = bare.removesuffix(each)
    return bare.rstrip("/")


def port_of(url: str) -> int | None:
    """The port in an address, if it names one."""
    found = re.match(r"https?://[^/]*:(\d{1,5})(?:/|$)", url)
    return int(found[1]) if found else None


def stores(node: Mapping[str, str | bool]) -> bool:
    """Whether a machine of relay.yaml is one that others sync to."""
    wanted = node.get("sync_enabled")
    return wanted is not False and (node.get("role") == "storage" or (wanted is True and "sync_endpoint" in node))
