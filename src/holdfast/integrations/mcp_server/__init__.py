"""`holdfast mcp`: memory for any assistant that speaks MCP, kept in an agent's log and shared through the hub.

What the tools do needs no SDK (`desk` and what it stands on); `door` is the one way to it, for `server`, `stdio` and
`http`.
"""
