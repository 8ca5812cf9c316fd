-- Values of declared collections by their fields. Derived (`holdfast.corpus.index`): dropped and filled again at will.
CREATE TABLE field(                      -- what is indexed; the path '' stands for the collection as a whole
  id INTEGER PRIMARY KEY, coll INTEGER NOT NULL, path TEXT NOT NULL,
  words INTEGER NOT NULL,                -- 1: not the values but the words in them
  built INTEGER NOT NULL DEFAULT 0,      -- how far what was there before has been gone through; -1: all of it
  many INTEGER NOT NULL DEFAULT 0,       -- 1: some value has several members there
  UNIQUE(coll, path, words)
) STRICT;
CREATE TABLE item(                       -- an object; id is the pos of the record that its key began with
  coll INTEGER NOT NULL, id INTEGER NOT NULL, agent INTEGER NOT NULL, key TEXT NOT NULL,
  pos INTEGER NOT NULL,                  -- the record that its entries are of
  bare INTEGER NOT NULL,                 -- -1: nothing is to be found; 0: it has entries; 1: its value was not here; 2: it is looked at each time
  PRIMARY KEY(coll, id), UNIQUE(agent, coll, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX item_bare ON item(coll) WHERE bare>0;
CREATE TABLE entry(                      -- v: `holdfast.query.sort_key`; every field of an item has at least one
  field INTEGER NOT NULL, v BLOB NOT NULL, item INTEGER NOT NULL, PRIMARY KEY(field, v, item)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_item ON entry(item, field, v);
