"""Stores for agents, by the names of the seed: `BaseStorage` to extend, `AgentStorage` for keys, and two that are made.

    from holdfast.agents import AgentStorage

    storage = AgentStorage("my-agent", "./data/agents/my-agent", htpc_url="http://hub:8084")
    storage.set("config", {"setting": "value"})
    await storage.close()

Everything is written into the agent's own log on this machine, and shipped to the hub for as long as that takes.
docs/agents.md shows each of them, and how to write one of your own.
"""

from __future__ import annotations

from holdfast.agents.commander import CommanderStorage
from holdfast.agents.keyed import AgentStorage
from holdfast.agents.recruiter import RecruiterAgentStorage
from holdfast.agents.storage import BaseStorage, Page

__all__ = ["AgentStorage", "BaseStorage", "CommanderStorage", "Page", "RecruiterAgentStorage"]
