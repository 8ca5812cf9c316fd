-- Vectors of values by embedding functions (../../migrations/0008_vectors.sql).
CREATE TABLE vindex(
  id integer PRIMARY KEY, coll integer NOT NULL, identity text COLLATE "C" NOT NULL, said text NOT NULL,
  dims integer NOT NULL DEFAULT 0, pos bigint NOT NULL DEFAULT 0, complete integer NOT NULL DEFAULT 0,
  next bigint NOT NULL DEFAULT 0, held bigint NOT NULL DEFAULT 0, drops bigint NOT NULL DEFAULT 0,
  tries integer NOT NULL DEFAULT 0, next_ms bigint NOT NULL DEFAULT 0, error text NOT NULL DEFAULT '',
  holder text COLLATE "C" NOT NULL DEFAULT '', held_ms bigint NOT NULL DEFAULT 0, UNIQUE(coll, identity)
);
CREATE TABLE vec(id bigint PRIMARY KEY, pos bigint NOT NULL, part integer NOT NULL, v bytea NOT NULL);
ALTER TABLE vec ALTER COLUMN v SET STORAGE EXTERNAL;    -- floats do not become smaller by packing
CREATE INDEX vec_pos ON vec(pos);
CREATE TABLE vmiss(
  vindex integer NOT NULL, pos bigint NOT NULL, tries integer NOT NULL, next_ms bigint NOT NULL, error text NOT NULL,
  PRIMARY KEY(vindex, pos)
);
CREATE INDEX vmiss_pos ON vmiss(pos);
