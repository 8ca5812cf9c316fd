-- Other agents' records, fetched from a hub and verified. Disposable, but for the pins: without them the first key
-- seen of an agent is believed again.
CREATE TABLE pin(
  agent TEXT PRIMARY KEY, stream BLOB NOT NULL, public_key BLOB NOT NULL, at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE rec(
  id INTEGER PRIMARY KEY, agent TEXT NOT NULL, coll TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
  hlc INTEGER NOT NULL, seq INTEGER NOT NULL, link BLOB NOT NULL UNIQUE,
  header BLOB NOT NULL, salt BLOB NOT NULL, codec INTEGER NOT NULL, body BLOB
) STRICT;
CREATE INDEX rec_key ON rec(agent, coll, key, hlc);
