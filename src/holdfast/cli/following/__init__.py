"""Following coding agents: their files as they grow, kept byte for byte, and told as sessions.

`files` reads what a tool wrote; `ledger` knows what the log holds of it; `spoken` makes messages of lines; `follower`
brings the two together, again and again; `giving` writes the tool's own files anew.
"""
