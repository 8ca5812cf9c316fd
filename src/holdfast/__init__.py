"""The storage layer for AI agents: write at local-disk speed, visible everywhere in milliseconds, never lost.

    with holdfast.Store("./node", agent="recruiter-1", hub="http://hub:8084") as store:
        store.put("plan", {"step": 1})

`Store` is what an agent calls, `AsyncStore` the same for asyncio, `Hub` reads what everybody wrote without a log of
one's own. Names are looked up when first used, so that `import holdfast` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.collections import Message
    from holdfast.collections.delivery import Delivery
    from holdfast.collections.typed import Collection, Schema
    from holdfast.errors import (
        Conflict,
        HoldfastError,
        HubUnavailable,
        IntegrityError,
        NodeFull,
        NotFound,
        Unanswered,
        UsageError,
    )
    from holdfast.log.hits import Hit, Hits, IndexStatus
    from holdfast.log.versions import Version
    from holdfast.node.aio import AsyncStore
    from holdfast.node.aio_hub import AsyncHub
    from holdfast.node.aio_mail import AsyncMail
    from holdfast.node.directory import Limits
    from holdfast.node.hub import Hub
    from holdfast.node.inbox import Mail
    from holdfast.node.objects import open_store
    from holdfast.node.secrets import redact_secrets
    from holdfast.node.store import Store
    from holdfast.query import where
    from holdfast.retention import Retention

__version__ = "0.1.0"

__all__ = [
    "AsyncHub",
    "AsyncMail",
    "AsyncStore",
    "Collection",
    "Conflict",
    "Delivery",
    "Hit",
    "Hits",
    "HoldfastError",
    "Hub",
    "HubUnavailable",
    "IndexStatus",
    "IntegrityError",
    "Limits",
    "Mail",
    "Message",
    "NodeFull",
    "NotFound",
    "Retention",
    "Schema",
    "Store",
    "Unanswered",
    "UsageError",
    "Version",
    "__version__",
    "open_store",
    "redact_secrets",
    "where",
]

_WHERE = {
    "AsyncHub": "holdfast.node.aio_hub",
    "AsyncMail": "holdfast.node.aio_mail",
    "AsyncStore": "holdfast.node.aio",
    "Collection": "holdfast.collections.typed",
    "Delivery": "holdfast.collections.delivery",
    "Hit": "holdfast.log.hits",
    "Hits": "holdfast.log.hits",
    "Hub": "holdfast.node.hub",
    "IndexStatus": "holdfast.log.hits",
    "Limits": "holdfast.node.directory",
    "Mail": "holdfast.node.inbox",
    "Message": "holdfast.collections",
    "Schema": "holdfast.collections.typed",
    "Retention": "holdfast.retention",
    "Store": "holdfast.node.store",
    "Version": "holdfast.log.versions",
    "open_store": "holdfast.node.objects",
    "redact_secrets": "holdfast.node.secrets",
    "where": "holdfast.query",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    from importlib import import_module

    _leave_the_log_to_the_program()
    found = getattr(import_module(_WHERE.get(name, "holdfast.errors")), name)
    globals()[name] = found
    return found


def _leave_the_log_to_the_program() -> None:
    """A library prints nothing by itself: what it logs goes where the program's own log goes, if it has one."""
    import logging  # not before somebody uses us: `import holdfast` alone stays light

    ours = logging.getLogger(__name__)
    if not ours.handlers:
        ours.addHandler(logging.NullHandler())
