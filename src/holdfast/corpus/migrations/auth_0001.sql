-- Who may ask this hub. A token's secret is not here, only its SHA-256. A revoked one stays: its name in old logs means
-- something, and a hub whose last token was revoked must not open to everybody again.
CREATE TABLE token(
  id TEXT PRIMARY KEY, digest BLOB NOT NULL, kind TEXT NOT NULL CHECK(kind IN ('node', 'agent', 'service', 'person')),
  name TEXT NOT NULL,
  scopes TEXT NOT NULL, agents TEXT NOT NULL, collections TEXT NOT NULL,      -- lists, in JSON
  note TEXT NOT NULL, made_ms INTEGER NOT NULL,
  ends_ms INTEGER, revoked_ms INTEGER, used_ms INTEGER                        -- NULL: never
) STRICT, WITHOUT ROWID;
CREATE TABLE change(only INTEGER PRIMARY KEY CHECK(only=1), number INTEGER NOT NULL) STRICT;
INSERT INTO change VALUES(1, 0);           -- grows with each token made or revoked, not with each use
