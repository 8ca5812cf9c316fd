-- Vectors of values by embedding functions (`holdfast.corpus.search.vectors`). Derived: dropped and filled again at will.
CREATE TABLE vindex(                     -- an index; two with another identity are never compared
  id INTEGER PRIMARY KEY,                -- never given twice: `meta` remembers the newest
  coll INTEGER NOT NULL,
  identity TEXT NOT NULL,                -- hash of all that makes vectors comparable
  said TEXT NOT NULL,                    -- how it was declared, as JSON
  dims INTEGER NOT NULL DEFAULT 0,       -- how long its vectors are; 0: none has come yet
  pos INTEGER NOT NULL DEFAULT 0,        -- every record up to here has been seen
  complete INTEGER NOT NULL DEFAULT 0,   -- 1: it once held everything, so searches use it
  next INTEGER NOT NULL DEFAULT 0,       -- the number of its newest vector
  held INTEGER NOT NULL DEFAULT 0,       -- how many vectors there are
  drops INTEGER NOT NULL DEFAULT 0,      -- how often some were taken out with the bodies that they are of
  tries INTEGER NOT NULL DEFAULT 0,      -- how often the function has failed in a row, whatever it was given
  next_ms INTEGER NOT NULL DEFAULT 0,    -- when it is tried again
  error TEXT NOT NULL DEFAULT '',        -- what it said last
  holder TEXT NOT NULL DEFAULT '',       -- who fills it
  held_ms INTEGER NOT NULL DEFAULT 0,    -- until when nobody else does
  UNIQUE(coll, identity)
) STRICT;
CREATE TABLE vec(
  id INTEGER PRIMARY KEY,                -- index << 40 | number: one index lies together, in the order in which it grew
  pos INTEGER NOT NULL, part INTEGER NOT NULL,        -- of which record, and which piece of its text
  v BLOB NOT NULL                        -- float32, little-endian, of length 1
) STRICT;
CREATE INDEX vec_pos ON vec(pos);
CREATE TABLE vmiss(                      -- records that the function failed on
  vindex INTEGER NOT NULL, pos INTEGER NOT NULL,
  tries INTEGER NOT NULL, next_ms INTEGER NOT NULL, error TEXT NOT NULL,
  PRIMARY KEY(vindex, pos)
) STRICT, WITHOUT ROWID;
CREATE INDEX vmiss_pos ON vmiss(pos);
