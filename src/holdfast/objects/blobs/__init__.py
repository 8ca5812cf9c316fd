"""Blobs: objects named by their SHA-256, in files, and on any object store."""
