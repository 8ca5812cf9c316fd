-- What a node remembers beside its agents' logs. Losing it costs only questions to the hubs and a new node id.
CREATE TABLE meta(k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID;
CREATE TABLE position(                   -- how far a hub has a stream: marks, void when the link is not in the log
  hub TEXT NOT NULL, stream BLOB NOT NULL, inc BLOB NOT NULL,
  acked_seq INTEGER NOT NULL, acked_link BLOB NOT NULL, settled_seq INTEGER NOT NULL, settled_link BLOB NOT NULL,
  PRIMARY KEY(hub, stream)
) STRICT, WITHOUT ROWID;
CREATE TABLE hub(                        -- how each hub stood when somebody last shipped, for other processes
  url TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, status TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE refused(                    -- payloads that a hub would not take; the bodies stay in the logs
  hub TEXT NOT NULL, stream BLOB NOT NULL, seq INTEGER NOT NULL, link BLOB NOT NULL,
  code TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY(hub, stream, seq)
) STRICT, WITHOUT ROWID;
