"""Rows by two keys, in SQLite or in Azure Table Storage, behind one port: see `port`."""
