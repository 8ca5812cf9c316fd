"""`holdfast demo`: a hub, two nodes and three agents at work, the hub killed half-way, and a ledger made of evidence.

`work` is what the agents find out (pure); `agent` and `reader` are the programs of the child processes; `stage` starts
and ends them; `audit` counts what is where; `command` wires it.
"""
