"""The storage layer for AI agents: write at local-disk speed, visible everywhere in milliseconds, never lost."""
