-- What sessions and metrics are found and counted by, and the TTL cache (../../migrations/hub_0002_storage.sql).
CREATE TABLE session(
  pos bigint PRIMARY KEY, id text COLLATE "C" NOT NULL, agent text COLLATE "C" NOT NULL, user_id text COLLATE "C",
  status text COLLATE "C" NOT NULL, created_ms bigint NOT NULL
);
CREATE INDEX session_created ON session(created_ms, id);
CREATE INDEX session_agent ON session(agent, created_ms, id);
CREATE INDEX session_with ON session(user_id, created_ms, id);
CREATE INDEX session_status ON session(status, created_ms, id);
CREATE TABLE sample(
  pos bigint PRIMARY KEY, entity_type text COLLATE "C" NOT NULL, entity text COLLATE "C" NOT NULL,
  metric text COLLATE "C" NOT NULL, session text COLLATE "C", at_ms bigint NOT NULL, value double precision NOT NULL
);
CREATE INDEX sample_at ON sample(at_ms, pos);
CREATE INDEX sample_entity ON sample(entity_type, entity, at_ms, pos);
CREATE INDEX sample_metric ON sample(metric, at_ms, pos);
CREATE INDEX sample_session ON sample(session, at_ms, pos);
CREATE TABLE cache(
  key text COLLATE "C" PRIMARY KEY, value bytea NOT NULL, ttl integer, created_ms bigint NOT NULL, expires_ms bigint,
  accessed_ms bigint NOT NULL
);
CREATE INDEX cache_expires ON cache(expires_ms);
