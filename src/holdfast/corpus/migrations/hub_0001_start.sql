-- What only a file with many branches needs.
CREATE UNIQUE INDEX rec_chain ON rec(branch, seq);
CREATE INDEX rec_agent ON rec(agent);
CREATE TABLE lineage(
  gen TEXT PRIMARY KEY, first INTEGER NOT NULL, at_ms INTEGER NOT NULL, ord INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
CREATE TABLE arrival(                    -- sparse: what had arrived by when, so that a time becomes a range of pos
  at_ms INTEGER PRIMARY KEY, pos INTEGER NOT NULL
) STRICT;
