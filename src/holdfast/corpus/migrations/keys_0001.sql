-- The node's Ed25519 keys. A retired one is kept: what it signed may have to be signed again.
CREATE TABLE key(
  id INTEGER PRIMARY KEY, public BLOB NOT NULL UNIQUE, private BLOB NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('next', 'current', 'retired')), made_ms INTEGER NOT NULL
) STRICT;
