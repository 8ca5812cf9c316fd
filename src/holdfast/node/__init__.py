"""The agent's side: what an agent calls, and what carries its records to the hubs."""
