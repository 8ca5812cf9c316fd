"""Messages that wait to be worked on, in SQLite or in Azure Queue Storage, behind one port: see `port`."""
