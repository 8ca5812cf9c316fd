"""The contestants: ours and the others', each behind the same few calls, in a module of its own.

A local store (floor, node, langgraph, openai_agents) writes and reads messages and values in this process. A hub
(holdfast_hub, redis_streams, postgres) is a server: what one process wrote, another one follows.
"""
