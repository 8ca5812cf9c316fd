-- Who did what to this hub, other than writing records: a row for each act, never changed. `ref` is the link of the record
-- that an act wrote, where it wrote one, so that none is told twice. Rows are read newest first, by any one of the columns.
CREATE TABLE audit(
  id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, who TEXT NOT NULL, token TEXT NOT NULL,
  via TEXT NOT NULL, what TEXT NOT NULL, about TEXT NOT NULL, detail TEXT NOT NULL,        -- an object, in JSON
  ref BLOB UNIQUE
) STRICT;
CREATE INDEX audit_at ON audit(at_ms, id);
CREATE INDEX audit_what ON audit(what, at_ms, id);
CREATE INDEX audit_who ON audit(who, at_ms, id);
