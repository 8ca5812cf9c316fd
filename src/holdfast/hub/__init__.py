"""The shared side: one process that takes every node's records, shows them to everybody, and forgets none.

The data's way: `routes_node` → `ingest` (one writer, one syncer) → the corpus → `feed` and `routes_read`. Light to
import: Starlette and uvicorn are met in `app` and `serve` only.
"""
