-- Values of declared collections by their fields (../../migrations/0003_index.sql).
CREATE TABLE field(
  id integer PRIMARY KEY, coll integer NOT NULL, path text COLLATE "C" NOT NULL, words integer NOT NULL,
  built bigint NOT NULL DEFAULT 0, many integer NOT NULL DEFAULT 0, UNIQUE(coll, path, words)
);
CREATE TABLE item(
  coll integer NOT NULL, id bigint NOT NULL, agent integer NOT NULL, key text COLLATE "C" NOT NULL, pos bigint NOT NULL,
  bare smallint NOT NULL, PRIMARY KEY(coll, id), UNIQUE(agent, coll, key)
);
CREATE INDEX item_bare ON item(coll) WHERE bare>0;
CREATE TABLE entry(field integer NOT NULL, v bytea NOT NULL, item bigint NOT NULL, PRIMARY KEY(field, v, item));
CREATE INDEX entry_item ON entry(item, field, v);
