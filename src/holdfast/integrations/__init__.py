"""Holdfast under other people's frameworks: one module each, imported by name, each of which may be thrown out."""
