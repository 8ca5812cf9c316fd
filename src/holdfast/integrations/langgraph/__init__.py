"""LangGraph on Holdfast: the checkpointer, the long-term store, and the cache of a graph.

graph = builder.compile(checkpointer=HoldfastSaver("./node"), store=HoldfastStore("./node"))
"""

from holdfast.integrations.langgraph.cache import HoldfastCache
from holdfast.integrations.langgraph.saver import HoldfastSaver
from holdfast.integrations.langgraph.store import HoldfastStore

__all__ = ["HoldfastCache", "HoldfastSaver", "HoldfastStore"]
