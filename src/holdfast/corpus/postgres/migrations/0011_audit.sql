-- Who did what to this hub, other than writing records (../../migrations/auth_0003_audit.sql).
CREATE TABLE audit(
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_ms bigint NOT NULL, kind text COLLATE "C" NOT NULL,
  who text COLLATE "C" NOT NULL, token text COLLATE "C" NOT NULL, via text COLLATE "C" NOT NULL,
  what text COLLATE "C" NOT NULL, about text COLLATE "C" NOT NULL, detail text NOT NULL, ref bytea UNIQUE
);
CREATE INDEX audit_at ON audit(at_ms, id);
CREATE INDEX audit_what ON audit(what, at_ms, id);
CREATE INDEX audit_who ON audit(who, at_ms, id);
