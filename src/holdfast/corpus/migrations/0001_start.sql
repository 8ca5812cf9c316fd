-- One layout everywhere: an agent's file holds its current branch only (pos = seq), a hub's holds everybody's.
CREATE TABLE meta(k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID;
CREATE TABLE name(id INTEGER PRIMARY KEY, s TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO name VALUES(1, 'messages');    -- a partial index needs a constant
CREATE TABLE stream(
  id INTEGER PRIMARY KEY, stream BLOB NOT NULL UNIQUE, agent INTEGER NOT NULL,
  public_key BLOB NOT NULL,              -- the genesis key: stream = hash(public_key, agent)
  current_key BLOB NOT NULL,             -- after `rotate` records
  own INTEGER NOT NULL DEFAULT 0         -- 1: written here
) STRICT;
CREATE TABLE branch(                     -- a run of records behind (parent, base); only its incarnation appends to it
  id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES stream(id), inc BLOB NOT NULL,
  parent INTEGER,                        -- NULL: begins at the genesis, or at a prune record
  base_seq INTEGER NOT NULL, base_link BLOB NOT NULL,
  seq INTEGER NOT NULL, link BLOB NOT NULL,           -- head; kept up to date where several branches share a file
  signature BLOB,                        -- of that head, where it is kept
  settled INTEGER NOT NULL DEFAULT 0,    -- its newest record that both newest verified backups hold
  UNIQUE(stream, inc, base_seq)
) STRICT;
CREATE TABLE rec(
  pos INTEGER PRIMARY KEY, branch INTEGER NOT NULL, seq INTEGER NOT NULL, hlc INTEGER NOT NULL,
  agent INTEGER NOT NULL, author INTEGER NOT NULL, kind INTEGER NOT NULL, coll INTEGER NOT NULL,
  key TEXT NOT NULL, fmt INTEGER NOT NULL, flags INTEGER NOT NULL, version INTEGER NOT NULL,
  prior INTEGER NOT NULL,                -- pos of the version this one replaces, 0: none (history walks it)
  base BLOB, kid BLOB,                   -- NULL: all zeros
  plen INTEGER NOT NULL, phash BLOB NOT NULL, salt BLOB NOT NULL, link BLOB NOT NULL,
  codec INTEGER NOT NULL, why INTEGER NOT NULL,       -- why a body is missing: 0 it is not
  body BLOB
) STRICT;
CREATE TABLE state(
  agent INTEGER NOT NULL, coll INTEGER NOT NULL, key TEXT NOT NULL,
  pos INTEGER NOT NULL,                  -- a reference, not a copy
  gone INTEGER NOT NULL,                 -- pos of the tombstone (the key's own, or of a prefix) that hides it; 0: none
  PRIMARY KEY(agent, coll, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE scope(                      -- tombstones of prefixes: part of the history of every key that they hid
  agent INTEGER NOT NULL, coll INTEGER NOT NULL, prefix TEXT NOT NULL, pos INTEGER NOT NULL,
  PRIMARY KEY(agent, coll, prefix, pos)
) STRICT, WITHOUT ROWID;
CREATE TABLE tag(
  k INTEGER NOT NULL, v TEXT NOT NULL, pos INTEGER NOT NULL, PRIMARY KEY(k, v, pos)
) STRICT, WITHOUT ROWID;
CREATE VIRTUAL TABLE fts USING fts5(t, a, k, content='', contentless_delete=1, tokenize="unicode61 remove_diacritics 0 separators '_'");
