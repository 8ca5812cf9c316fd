-- Keys of sealed collections, each wrapped by the key-encryption key, which is not here (ADR 0034).
CREATE TABLE wrapping(                   -- which key-encryption key that is, and how it is come by
  only INTEGER PRIMARY KEY CHECK(only=1), id TEXT NOT NULL, how TEXT NOT NULL CHECK(how IN ('file', 'argon2id', 'scrypt')),
  salt BLOB NOT NULL, proof BLOB NOT NULL
) STRICT;
CREATE TABLE sealed(                     -- collections that are sealed here, and the key that hides their keys' names
  collection TEXT PRIMARY KEY, wrapped BLOB NOT NULL, made_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE dek(                        -- data keys; of an erased one only its name stays, so that it is erased again
  kid BLOB PRIMARY KEY, collection TEXT NOT NULL, subject TEXT, wrapped BLOB, made_ms INTEGER NOT NULL, erased_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX dek_subject ON dek(collection, subject);   -- several: one may have come from another node
