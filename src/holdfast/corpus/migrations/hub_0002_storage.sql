-- What sessions and metrics are found and counted by. Derived: each row follows from the record at its pos alone, is
-- written with it, and can be made again (`holdfast.corpus.storage.rebuild`). Whether a record still counts, `state` says.
CREATE TABLE session(
  pos INTEGER PRIMARY KEY, id TEXT NOT NULL, agent TEXT NOT NULL, user_id TEXT, status TEXT NOT NULL,
  created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX session_created ON session(created_ms, id);
CREATE INDEX session_agent ON session(agent, created_ms, id);
CREATE INDEX session_with ON session(user_id, created_ms, id);
CREATE INDEX session_status ON session(status, created_ms, id);
CREATE TABLE sample(
  pos INTEGER PRIMARY KEY, entity_type TEXT NOT NULL, entity TEXT NOT NULL, metric TEXT NOT NULL, session TEXT,
  at_ms INTEGER NOT NULL, value REAL NOT NULL
) STRICT;
CREATE INDEX sample_at ON sample(at_ms, pos);
CREATE INDEX sample_entity ON sample(entity_type, entity, at_ms, pos);
CREATE INDEX sample_metric ON sample(metric, at_ms, pos);
CREATE INDEX sample_session ON sample(session, at_ms, pos);
-- The TTL cache: no records, nothing that anybody must be able to prove.
CREATE TABLE cache(
  key TEXT PRIMARY KEY, value BLOB NOT NULL, ttl INTEGER, created_ms INTEGER NOT NULL, expires_ms INTEGER,
  accessed_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_expires ON cache(expires_ms);
