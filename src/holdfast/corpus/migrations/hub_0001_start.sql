-- What only a file with many branches needs.
CREATE UNIQUE INDEX rec_chain ON rec(branch, seq);
CREATE INDEX rec_coll ON rec(coll);     -- and within a collection by pos, which is the rowid
CREATE INDEX rec_agent ON rec(agent);
CREATE INDEX rec_bare ON rec(branch, seq) WHERE body IS NULL AND why<>3;    -- envelopes that may still get a body
CREATE TABLE lineage(
  gen TEXT PRIMARY KEY, first INTEGER NOT NULL, at_ms INTEGER NOT NULL, ord INTEGER NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
CREATE TABLE arrival(                    -- sparse: what had arrived by when, so that a time becomes a range of pos
  at_ms INTEGER PRIMARY KEY, pos INTEGER NOT NULL
) STRICT;
CREATE TABLE label(                      -- where each incarnation stands; never dropped: repeats are known for ever
  stream INTEGER NOT NULL REFERENCES stream(id), inc BLOB NOT NULL, branch INTEGER NOT NULL REFERENCES branch(id),
  seq INTEGER NOT NULL, link BLOB NOT NULL, signature BLOB NOT NULL, PRIMARY KEY(stream, inc)
) STRICT, WITHOUT ROWID;
CREATE TABLE signed(                     -- signed heads on the way, one in 32 records or so: the proofs of old records
  branch INTEGER NOT NULL, seq INTEGER NOT NULL, signature BLOB NOT NULL, rotates INTEGER NOT NULL,
  PRIMARY KEY(branch, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE told(                       -- the time that a plain client gave its message, where it gave one
  pos INTEGER PRIMARY KEY, ms INTEGER NOT NULL
) STRICT;
