"""The one door to LangGraph: everything of it that the adapter is built on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.errors import MissingExtra

try:
    import ormsgpack
    from langgraph.cache.base import BaseCache as BaseCache
    from langgraph.checkpoint.base import WRITES_IDX_MAP as WRITES_IDX_MAP
    from langgraph.checkpoint.base import BaseCheckpointSaver as BaseCheckpointSaver
    from langgraph.checkpoint.base import CheckpointTuple as CheckpointTuple
    from langgraph.checkpoint.base import get_checkpoint_metadata as get_checkpoint_metadata
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer as JsonPlusSerializer
    from langgraph.store.base import BaseStore as BaseStore
    from langgraph.store.base import GetOp as GetOp
    from langgraph.store.base import Item as Item
    from langgraph.store.base import ListNamespacesOp as ListNamespacesOp
    from langgraph.store.base import PutOp as PutOp
    from langgraph.store.base import SearchItem as SearchItem
    from langgraph.store.base import SearchOp as SearchOp
    from langgraph.store.base import ensure_embeddings as ensure_embeddings
    from langgraph.store.base import get_text_at_path as get_text_at_path
    from langgraph.store.base import tokenize_path as tokenize_path
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("LangGraph is not installed", hint="pip install 'holdfast[langgraph]'") from error


def unpack(data: bytes, hook: Callable[[int, bytes], Any]) -> Any:
    """What LangGraph's serialiser has packed; `hook` makes what is more than plain values."""
    return ormsgpack.unpackb(data, ext_hook=hook, option=ormsgpack.OPT_NON_STR_KEYS)
